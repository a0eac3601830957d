//! `baton-agent fetch` where the system has no roots, as in an image made of nothing but the agent.
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use tokio_rustls::rustls::{self, ServerConfig, ServerConnection, crypto::ring, pki_types::PrivateKeyDer};

use super::fixture::AGENT;

/// Hides the places of roots, and `/dev`, where the agent writes its last words.
const WITHOUT_ROOTS: &str =
    r#"for folder in /etc/ssl /etc/pki /dev; do [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done; exec "$@""#;

fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none()));
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    tar.append_data(&mut header, "version", &b"1.4"[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

/// Gives the archive to each request; by https if there is a configuration. Returns its port.
fn serve(config: Option<Arc<ServerConfig>>) -> u16 {
    fn give(stream: &mut (impl Read + Write)) -> io::Result<()> {
        let (content, mut request) = (archive(), Vec::new());
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.extend(byte);
        }
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", content.len())?;
        stream.write_all(&content)?;
        stream.flush()
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that does not trust the server leaves early.
            let _ = match &config {
                None => give(&mut stream),
                Some(config) => {
                    let mut connection = ServerConnection::new(Arc::clone(config)).unwrap();
                    give(&mut rustls::Stream::new(&mut connection, &mut stream))
                }
            };
        }
    });
    port
}

/// A server by https, and its certificate.
fn serve_by_https() -> (u16, String) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    (serve(Some(Arc::new(config))), own.cert.pem())
}

/// What the agent says until it is done, or about to try again.
fn fetch(url: &str, roots: Option<&Path>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", WITHOUT_ROOTS, "sh", AGENT, "fetch"]);
    command.args(["--url", url, "--to"]).arg(folder.path());
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(roots) = roots {
        command.env("SSL_CERT_FILE", roots);
    }
    let mut agent = command.spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(agent.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        said.push_str(&line);
        said.push('\n');
        if line.contains("trying again") {
            agent.kill().unwrap();
            break;
        }
    }
    agent.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    if agent.wait().unwrap().success() {
        assert_eq!(fs::read_to_string(folder.path().join("package/files/version")).unwrap(), "1.4", "{said}");
        said.push_str("unpacked");
    }
    said
}

/// C8: http needs no roots, and https takes those that SSL_CERT_FILE names.
#[test]
fn packages_are_fetched_where_the_system_has_no_roots() {
    let folder = tempfile::tempdir().unwrap();
    let (roots, missing) = (folder.path().join("roots.pem"), folder.path().join("missing.pem"));
    let (port, certificate) = serve_by_https();
    fs::write(&roots, certificate).unwrap();
    let (http, https) = (format!("http://127.0.0.1:{}/a", serve(None)), format!("https://127.0.0.1:{port}/a"));
    for (url, roots, end) in [
        (&http, None, "unpacked"),
        (&http, Some(&*missing), "unpacked"),
        (&https, Some(&*roots), "unpacked"),
        // The agent's own roots do not know this server.
        (&https, None, "invalid peer certificate: UnknownIssuer: trying again in 0.5 s\n"),
        (&https, Some(&*missing), "invalid peer certificate: UnknownIssuer: trying again in 0.5 s\n"),
    ] {
        let said = fetch(url, roots);
        assert!(said.ends_with(end), "{url} {roots:?}: {said}");
        assert_eq!(roots == Some(&*missing), said.contains("missing.pem"), "{said}");
    }
}
