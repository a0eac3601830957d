//! The switches as a client sees them, against a server that echoes.
use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

/// Longer than any echo takes; a test that expects silence waits this long.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);

struct Proxy {
    address: SocketAddr,
    control: PathBuf,
    _folder: tempfile::TempDir,
}

/// A proxy in front of a server that sends back what it gets.
async fn proxy() -> Proxy {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = echo.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control.sock");
    let switches = control::listen(&control).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let forwarder = Forwarder::new(upstream, Mode::Pass);
        tokio::select! {
            ended = forwarder.serve(listener) => ended.unwrap(),
            ended = control::serve(switches, &forwarder) => ended.unwrap(),
        }
    });
    Proxy { address, control, _folder: folder }
}

impl Proxy {
    async fn tell(&self, word: &str) -> String {
        control::tell(&self.control, word).await.unwrap()
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// What comes back for `text`: nothing after a while is `None`.
async fn echo(stream: &mut TcpStream, text: &str) -> Option<io::Result<String>> {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut buffer = [0; 64];
    let read = timeout(SILENCE, stream.read(&mut buffer)).await.ok()?;
    Some(read.map(|bytes| String::from_utf8_lossy(&buffer[..bytes]).into_owned()))
}

async fn echoes(stream: &mut TcpStream, text: &str) -> bool {
    matches!(echo(stream, text).await, Some(Ok(answer)) if answer == text)
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    echo(stream, "anybody?").await.is_none()
}

#[tokio::test]
async fn bytes_pass_and_so_does_the_end() {
    let proxy = proxy().await;
    let mut client = proxy.client().await;
    assert!(echoes(&mut client, "hello").await);
    assert_eq!(proxy.tell("status").await, "pass 1");
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn silence_keeps_connections_open_and_lost_bytes_stay_lost() {
    let proxy = proxy().await;
    let (mut old, mut idle) = (proxy.client().await, proxy.client().await);
    assert!(echoes(&mut old, "hello").await && echoes(&mut idle, "hello").await);
    assert_eq!(proxy.tell("silent").await, "silent 2");
    assert!(is_silent(&mut old).await);
    let mut new = proxy.client().await;
    assert!(is_silent(&mut new).await, "new connections are taken, and silent");

    proxy.tell("pass").await;
    assert!(is_silent(&mut old).await, "a stream with a gap must not go on");
    assert!(echoes(&mut idle, "again").await, "a stream without a gap does");
    assert!(echoes(&mut proxy.client().await, "again").await);
}

#[tokio::test]
async fn a_freeze_silences_what_is_open_and_nothing_else() {
    let proxy = proxy().await;
    let mut old = proxy.client().await;
    assert!(echoes(&mut old, "hello").await);
    assert_eq!(proxy.tell("freeze").await, "pass 1");
    let mut new = proxy.client().await;
    assert!(echoes(&mut new, "hello").await);
    assert!(is_silent(&mut old).await, "also one that had lost nothing when it froze");
    assert!(echoes(&mut new, "again").await);
    proxy.tell("cut").await;
    let end = timeout(PATIENCE, old.read(&mut [0; 8])).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_can_go_silent_while_it_still_hears() {
    let proxy = proxy().await;
    let heard = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forwarder = Forwarder::new(heard.local_addr().unwrap().to_string(), Mode::SilentDown);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move { forwarder.serve(listener).await.unwrap() });
    client.write_all(b"hello").await.unwrap();
    let (mut server, _) = timeout(PATIENCE, heard.accept()).await.unwrap().unwrap();
    let mut bytes = [0; 5];
    timeout(PATIENCE, server.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"hello");
    server.write_all(b"never seen").await.unwrap();
    assert!(is_silent(&mut client).await);
    drop(server);
    assert!(is_silent(&mut client).await, "nor is the server's end seen");

    assert_eq!(proxy.tell("silent-down").await, "silent-down 0");
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_nothing_else() {
    let proxy = proxy().await;
    let mut clients = [proxy.client().await, proxy.client().await];
    assert!(echoes(&mut clients[0], "hello").await && echoes(&mut clients[1], "hello").await);
    proxy.tell("silent").await;
    assert!(is_silent(&mut clients[1]).await);
    proxy.tell("pass").await;
    proxy.tell("cut").await;
    for client in &mut clients {
        let end = timeout(PATIENCE, client.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(echoes(&mut proxy.client().await, "hello").await);
    assert_eq!(proxy.tell("status").await, "pass 1");
}

#[tokio::test]
async fn a_wrong_word_is_refused_by_name() {
    let proxy = proxy().await;
    let error = control::tell(&proxy.control, "quiet").await.unwrap_err().to_string();
    assert!(error.contains("\"quiet\" is none of pass, silent"), "{error}");
    assert_eq!(proxy.tell("status").await, "pass 0");
}

#[tokio::test]
async fn a_late_server_answers_all_the_same() {
    let proxy = proxy().await;
    let mut client = proxy.client().await;
    assert!(proxy.tell("late").await.starts_with("late "));
    let began = tokio::time::Instant::now();
    client.write_all(b"ab").await.unwrap();
    let mut answer = [0; 2];
    timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"ab");
    assert!(began.elapsed() >= Duration::from_millis(2_200));
}
