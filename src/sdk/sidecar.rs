//! Runs listeners for the agent of this Pod.
use std::{
    env,
    fs::{File, TryLockError},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    client::Client,
    follow::Follower,
    listener::Listener,
    orphan,
    watchdog::Watchdog,
    wire::{LOCK_FILE, STATE_DIR},
};

/// How often the lock is tried: the agent has it for a moment, while it looks whether the last process has ended.
const LOCK_TRIES: u32 = 10;
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Between two tries to have the agent let go of everything.
const RETRY: Duration = Duration::from_millis(500);

/// The agent of this Pod, as an application in another container finds it.
#[derive(Clone, Debug)]
pub struct Sidecar {
    client: Client,
}

/// Why listeners cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Another process does.
    #[error("another process of this Pod runs its listeners: it holds {}", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be used.
    #[error(
        "cannot lock {}: {cause}. The application and its agent share that folder: mount the same emptyDir in both \
         containers, or name another one with BATON_STATE_DIR",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What prevents it.
        #[source]
        cause: io::Error,
    },
    /// The container runtime has lost this process, and the kubelet starts another one in its place.
    #[error("the container runtime no longer watches this container, its agent is gone, and no listener runs")]
    Orphan,
    /// The system has no thread, or no signals, for us.
    #[error("cannot watch over listeners: {0}")]
    System(#[from] io::Error),
}

impl Sidecar {
    /// As the environment says: BATON_STATE_DIR (`/baton` unless set) is the folder that both containers mount,
    /// BATON_PORT the agent's port (unless set: the one that the agent has written into that folder).
    pub fn from_environment() -> Self {
        let state_dir = env::var_os("BATON_STATE_DIR").map_or_else(|| PathBuf::from(STATE_DIR), PathBuf::from);
        let port = env::var("BATON_PORT").ok().and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        Self { client: Client { state_dir, port } }
    }

    /// Runs listeners until this process is asked to end (SIGTERM, SIGINT), and then until other Pods have taken them.
    ///
    /// # Errors
    /// See [`Problem`]. Nothing runs then; let the process end.
    pub async fn run<L: Listener>(self, listener: L) -> Result<(), Problem> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        self.run_until(listener, end).await
    }

    /// The same until `end`.
    ///
    /// # Errors
    /// The same.
    pub async fn run_until<L: Listener>(self, listener: L, end: impl Future<Output = ()>) -> Result<(), Problem> {
        // The agent takes what one process says for what the whole container does.
        let watchdog = Watchdog::start(self.lock().await?)?;
        let _ends = Ends(watchdog.clone());
        let client = self.client.clone();
        let mut follower = Follower::new(listener, self.client, watchdog.clone());
        let drained = async {
            end.await;
            tracing::info!("the process is to end: others may take the listeners");
            drain(&client, &watchdog).await;
        };
        tokio::select! {
            () = follower.follow(orphan::is_orphan) => Err(Problem::Orphan),
            () = drained => Ok(()),
        }
    }

    async fn lock(&self) -> Result<File, Problem> {
        let path = self.client.state_dir.join(LOCK_FILE);
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            Err(cause) => return Err(Problem::Unusable { path, cause }),
        };
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => sleep(LOCK_RETRY).await,
                Err(TryLockError::Error(cause)) => return Err(Problem::Unusable { path, cause }),
            }
        }
        Err(Problem::Taken(path))
    }
}

/// However the caller ends it: what runs then is dropped, and watched until it is.
struct Ends(Arc<Watchdog>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Until the agent holds nothing any more, or is gone and nothing runs here.
async fn drain(client: &Client, watchdog: &Watchdog) {
    loop {
        match client.ask("/drain?wait=true", String::new()).await {
            Ok(answer) if answer.status.is_success() && watchdog.is_idle() => return,
            Err(_) if watchdog.is_idle() => return,
            _ => sleep(RETRY).await,
        }
    }
}
