//! Connections and what is done to their bytes.
use std::{
    fmt,
    future::pending,
    io,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};

/// Further clients wait.
const CONNECTIONS_MAX: usize = 1_024;
const BUFFER_BYTES: usize = 16 << 10;
/// Answers of a late server: longer than an agent's call may take, where it waits for one answer before it asks again.
const LATE: Duration = Duration::from_millis(2_200);
/// Pieces that are on their way in one direction.
const PIECES_MAX: usize = 256;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    Silent,
    SilentDown,
    Late,
}

impl Mode {
    /// How long bytes take besides.
    fn delay(self, direction: Direction) -> Duration {
        if self == Self::Late && direction == Direction::Down { LATE } else { Duration::ZERO }
    }

    fn swallows(self, direction: Direction) -> bool {
        match self {
            Self::Pass | Self::Late => false,
            Self::Silent => true,
            Self::SilentDown => direction == Direction::Down,
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "pass" => Ok(Self::Pass),
            "silent" => Ok(Self::Silent),
            "silent-down" => Ok(Self::SilentDown),
            "late" => Ok(Self::Late),
            _ => Err(format!("error: {word:?} is none of pass, silent, silent-down, late, freeze, cut, status")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pass => "pass",
            Self::Silent => "silent",
            Self::SilentDown => "silent-down",
            Self::Late => "late",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Forwards every connection to one upstream.
pub struct Forwarder {
    upstream: Arc<str>,
    mode: watch::Sender<Mode>,
    /// Counts cuts: a connection ends when the count changes.
    cuts: watch::Sender<u64>,
    /// Counts freezes: a connection is silent from the change on.
    freezes: watch::Sender<u64>,
    connections: Arc<AtomicUsize>,
}

impl Forwarder {
    /// `upstream`: HOST:PORT.
    pub fn new(upstream: String, mode: Mode) -> Self {
        Self {
            upstream: upstream.into(),
            mode: watch::Sender::new(mode),
            cuts: watch::Sender::new(0),
            freezes: watch::Sender::new(0),
            connections: Arc::default(),
        }
    }

    /// Switches what happens to the bytes that are read from now on.
    pub fn switch(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets every connection.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Swallows whatever comes on the connections that are open now.
    pub fn freeze(&self) {
        self.freezes.send_modify(|freezes| *freezes += 1);
    }

    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Connections that are open towards the upstream.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Accepts until it is dropped; its connections go on until their ends.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            let (client, _) = listener.accept().await?;
            let connection = Connection {
                upstream: self.upstream.clone(),
                mode: self.mode.subscribe(),
                cuts: self.cuts.subscribe(),
                freezes: self.freezes.subscribe(),
                open: self.connections.clone(),
            };
            tokio::spawn(async move {
                // Its end, however it came about, was told to both sides by closing.
                let _ = connection.forward(client).await;
                drop(place);
            });
        }
    }
}

struct Connection {
    upstream: Arc<str>,
    mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
    freezes: watch::Receiver<u64>,
    open: Arc<AtomicUsize>,
}

impl Connection {
    async fn forward(self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(&*self.upstream).await?;
        let _open = Open::count(&self.open);
        // Small messages pass as they come.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let mut cuts = self.cuts.clone();
        let cut = {
            let (client_read, client_write) = client.split();
            let (server_read, server_write) = server.split();
            tokio::select! {
                // Both: a side that has nothing more to say may still listen.
                _ = async { tokio::join!(
                    self.pump(client_read, server_write, Direction::Up),
                    self.pump(server_read, client_write, Direction::Down),
                ) } => false,
                changed = cuts.changed() => changed.is_ok(),
            }
        };
        if cut {
            // A close that has nothing to linger for is a reset.
            client.set_zero_linger()?;
            server.set_zero_linger()?;
        }
        Ok(())
    }

    fn swallows(&self, direction: Direction) -> bool {
        let is_frozen = self.freezes.has_changed().unwrap_or(false);
        is_frozen || self.mode.borrow().swallows(direction)
    }

    /// Carries bytes one way until they end; for ever once some were lost.
    async fn pump(&self, from: ReadHalf<'_>, to: WriteHalf<'_>, direction: Direction) {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        tokio::join!(self.receive(from, sender, direction), deliver(pieces, to));
    }

    async fn receive(&self, mut from: ReadHalf<'_>, pieces: mpsc::Sender<(Instant, Vec<u8>)>, direction: Direction) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut lost = false;
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            lost |= self.swallows(direction);
            if lost && read > 0 {
                continue;
            }
            if lost {
                // The end is not heard of either: only a cut ends such a connection.
                return pending().await;
            }
            let due = Instant::now() + self.mode().delay(direction);
            if read == 0 || pieces.send((due, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    }

    fn mode(&self) -> Mode {
        *self.mode.borrow()
    }
}

/// Writes each piece when it is due, until there are no more.
async fn deliver(mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: WriteHalf<'_>) {
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            break;
        }
    }
    // An error here means that the other side is gone already.
    let _ = to.shutdown().await;
}

/// Counts a connection while it is open.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn count(connections: &'a AtomicUsize) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(connections)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
