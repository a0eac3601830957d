//! Connections at one address carried to another, byte by byte.
use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// More clients than this at once wait for one to leave.
const MAX_CONNECTIONS: usize = 4096;

/// Serves `listener` until the task is dropped. A connection that cannot be carried on is closed,
/// as a server that is down would do.
pub async fn serve(listener: TcpListener, target: SocketAddr) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    // Whichever side fails, both connections are closed: that is all there is to report.
                    let _ = carry(client, target).await;
                    drop(place);
                });
            }
            // Out of file descriptors, or the client was gone already: neither is worth more than a pause.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
