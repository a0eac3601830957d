//! HTTP requests of probes and hooks.
use std::{fmt, net::IpAddr};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// More than this of an answer is not read.
const MAX_BODY_BYTES: usize = 10 << 10;

/// Where a GET goes.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

/// What came back.
pub struct Answer {
    status: StatusCode,
    body: String,
}

impl Answer {
    /// Redirections count as success, as with the kubelet (which follows those to the same host; this does not).
    pub fn successful(&self) -> bool {
        (200..400).contains(&self.status.as_u16())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}: {}", self.status, self.body.trim())
    }
}

/// A port's number, by which name it may be called.
pub fn port(wanted: &IntOrString, ports: &[(String, u16)]) -> Result<u16> {
    let number = match wanted {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            ports.iter().find(|(known, _)| known == name).map(|(_, number)| *number).or_else(|| name.parse().ok())
        }
    };
    number.filter(|number| *number != 0).with_context(|| format!("no port {wanted:?}"))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"http://{}:{}{}\"", self.host, self.port, self.path)
    }
}

impl Target {
    pub fn of(action: &HTTPGetAction, pod_ip: IpAddr, ports: &[(String, u16)]) -> Result<Self> {
        if action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            bail!("this node does not probe by HTTPS");
        }
        let path = action.path.clone().unwrap_or_default();
        Ok(Self {
            host: action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_string()),
            port: port(&action.port, ports)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: action
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        })
    }

    pub async fn get(&self) -> Result<Answer> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::get(&self.path).header("user-agent", "kube-probe/1.37").header("accept", "*/*");
        let own_host = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        if !own_host {
            request = request.header("host", format!("{}:{}", self.host, self.port));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.header("connection", "close").body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        connection.abort();
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok(Answer { status, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_from_200_to_399_are_success() {
        let successful = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            Answer { status, body: String::new() }.successful()
        };
        assert_eq!([199, 200, 302, 399, 400, 404, 503].map(successful), [false, true, true, true, false, false, false]);
    }

    #[test]
    fn a_port_has_a_number_or_a_name() {
        let ports = [("http".to_owned(), 8080)];
        let named = |name: &str| port(&IntOrString::String(name.into()), &ports).ok();
        assert_eq!([named("http"), named("9090"), named("other")], [Some(8080), Some(9090), None]);
        let numbered = |number| port(&IntOrString::Int(number), &ports).ok();
        assert_eq!([numbered(80), numbered(0), numbered(70_000)], [Some(80), None, None]);
    }
}
