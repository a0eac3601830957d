//! The server at a real address, for processes of their own.
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::net::TcpListener;
use tower::{BoxError, Service};

use super::{ApiServer, http};

/// Serves plain HTTP for ever. Who asks is called by the first word of its user agent.
pub async fn serve(server: ApiServer, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        let respond = service_fn(move |request| answer(server.clone(), request));
        // A fault that breaks the connection is an error here, too.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), respond));
    }
}

async fn answer(server: ApiServer, request: Request<Incoming>) -> Result<Response<http::Stream>, BoxError> {
    let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok());
    let who = agent.and_then(|agent| agent.split('/').next()).unwrap_or("somebody");
    let mut service = http::service(server, who);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(BoxError::from)?.to_bytes();
    service.call(Request::from_parts(parts, Body::from(body.to_vec()))).await
}
