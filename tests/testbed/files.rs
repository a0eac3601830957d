//! `baton-testbed files`: the files of a folder by HTTP or HTTPS, as a package server has them.
use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::get,
    serve::Listener,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    server::TlsStream,
};

/// Arguments of `baton-testbed files`.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9200")]
    listen: SocketAddr,
    /// What to serve: as it is at each request.
    #[arg(long)]
    dir: PathBuf,
    /// Whoever wants a file whose name begins with `private` must bear this.
    #[arg(long, default_value = "")]
    token: String,
    /// Serve by HTTPS, with a certificate that signs itself: it is written to this file, for clients to trust.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

/// Serves until it is killed.
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        let address = listener.local_addr()?;
        let certificate = args.certificate.clone();
        let router = Router::new().route("/{name}", get(file)).with_state(args);
        match certificate {
            None => {
                println!("listening on {address}");
                axum::serve(listener, router).await?;
            }
            Some(path) => {
                let (config, certificate) = self_signed(address)?;
                fs::write(&path, certificate).with_context(|| format!("cannot write {}", path.display()))?;
                println!("listening on {address}");
                axum::serve(Tls { listener, acceptor: Arc::new(config).into() }, router).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What a server at this address needs, and its certificate as PEM.
fn self_signed(address: SocketAddr) -> Result<(ServerConfig, String)> {
    let own = rcgen::generate_simple_self_signed([address.ip().to_string()])?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    Ok((config.with_single_cert(vec![own.cert.der().clone()], key)?, own.cert.pem()))
}

/// Connections by TLS. A client that shakes hands slowly keeps the others waiting: tests have one at a time.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // A client that does not trust the certificate leaves.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn file(State(args): State<Args>, Path(name): Path<String>, headers: HeaderMap) -> Result<Vec<u8>, StatusCode> {
    let borne = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if name.starts_with("private") && borne != Some(&format!("Bearer {}", args.token)) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    tokio::fs::read(args.dir.join(name)).await.map_err(|_| StatusCode::NOT_FOUND)
}
