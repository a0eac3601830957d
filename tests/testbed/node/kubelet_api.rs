//! The part of a kubelet's HTTPS API that `kubectl logs` needs.
use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as Params, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

use super::{
    host::Host,
    log_reader::{LogReader, Wanted},
    store::{self, PodDir},
};

const MAX_CONNECTIONS: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
/// Pieces of a log that wait for a slow reader.
const LOG_QUEUE: usize = 64;

/// Serves for ever at the node's address.
pub async fn serve(host: Arc<Host>) {
    loop {
        if let Err(error) = try_serve(&host).await {
            tracing::warn!("no kubelet API at {}: {error:#}", host.listen);
        }
        sleep(RETRY).await;
    }
}

async fn try_serve(host: &Arc<Host>) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&host.state, &host.name)?));
    let listener = TcpListener::bind(host.listen).await?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let router = router(Arc::clone(host));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (stream, _) = listener.accept().await?;
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            if let Err(error) = converse(&acceptor, router, stream).await {
                tracing::debug!("kubelet API: {error:#}");
            }
            drop(place);
        });
    }
}

async fn converse(acceptor: &TlsAcceptor, router: Router, stream: TcpStream) -> Result<()> {
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let service = TowerToHyperService::new(router);
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// With `serving.crt`, `serving.key` and `ca.crt` of the state folder; without them self-signed, and
/// open to everybody who can reach the address.
fn tls(state: &Path, name: &str) -> Result<ServerConfig> {
    let (certificate, key) = if state.join("serving.crt").exists() {
        let certificate = CertificateDer::from_pem_file(state.join("serving.crt"))?;
        (certificate, PrivateKeyDer::from_pem_file(state.join("serving.key"))?)
    } else {
        let own = rcgen::generate_simple_self_signed([name.to_owned()])?;
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        (own.cert.der().clone(), key)
    };
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let clients: Arc<dyn ClientCertVerifier> = if state.join("ca.crt").exists() {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(state.join("ca.crt"))?)?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    Ok(builder.with_client_cert_verifier(clients).with_single_cert(vec![certificate], key)?)
}

fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .fallback(any(|| async { (StatusCode::NOT_IMPLEMENTED, "this node serves logs only\n") }))
        .with_state(host)
}

/// An answer that is no log.
type Refusal = (StatusCode, String);

async fn logs(
    State(host): State<Arc<Host>>,
    Params((namespace, pod, container)): Params<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let failed = |error: anyhow::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"));
    let found = spawn_blocking(move || find(&host, &namespace, &pod, &container, wanted));
    let (dir, container, number, reader) = found.await.context("no answer").map_err(failed)??;
    let (sender, receiver) = mpsc::channel(LOG_QUEUE);
    spawn_blocking(move || {
        let ended = || sender.is_closed() || dir.attempt(&container, number).exit().is_some();
        let outcome =
            reader.read(ended, |piece| sender.blocking_send(Ok::<_, std::io::Error>(Bytes::from(piece))).is_ok());
        if let Err(error) = outcome {
            tracing::warn!("reading a log: {error:#}");
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    Ok(Body::from_stream(pieces).into_response())
}

/// The log of the newest start of a container, or of the one before.
fn find(
    host: &Host,
    namespace: &str,
    pod: &str,
    container: &str,
    wanted: Wanted,
) -> Result<(PodDir, String, u32, LogReader), Refusal> {
    let found = store::find(&host.state, namespace, pod);
    let found = found.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (_, dir) = found.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found\n")))?;
    let attempts = dir.attempts(container);
    let number = if wanted.previous { attempts.iter().nth_back(1) } else { attempts.last() };
    let number = *number.ok_or_else(|| {
        let message = if wanted.previous {
            format!("previous terminated container \"{container}\" in pod \"{pod}\" not found\n")
        } else {
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start\n")
        };
        (StatusCode::BAD_REQUEST, message)
    })?;
    let path = dir.log(container, number);
    Ok((dir, container.to_owned(), number, LogReader { path, wanted }))
}
