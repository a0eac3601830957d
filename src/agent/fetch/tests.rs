//! Servers that break off, refuse, redirect and change their minds.
use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Response},
};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::{Fetch, LIMITS, tree::Limits};
use crate::{api::fingerprint::hexadecimal, snapshot::Fetched};

const PATIENCE: Duration = Duration::from_millis(700);

/// A tar.gz with the file `version`.
fn archive(version: &str) -> Bytes {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none()));
    let mut header = tar::Header::new_gnu();
    header.set_size(version.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "version", version.as_bytes()).unwrap();
    tar.into_inner().unwrap().finish().unwrap().into()
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// A server on this machine; its URL, and the headers of the requests so far.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    /// `answer` is told how many requests came before.
    async fn start(answer: impl Fn(usize, &HeaderMap) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let service = Router::new().fallback(async move |request: Request| {
            let mut seen = noted.lock().unwrap();
            seen.push(request.headers().clone());
            answer(seen.len() - 1, request.headers())
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/web/1.4.tar.gz?key=hidden", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { url, seen }
    }

    fn header(&self, number: usize, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        seen[number].get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn response(status: u16) -> axum::http::response::Builder {
    Response::builder().status(status)
}

fn whole(archive: &Bytes) -> Response<Body> {
    response(200).header("etag", "\"1\"").body(archive.clone().into()).unwrap()
}

/// Says that it gives all, and breaks off half-way.
fn half(archive: &Bytes, etag: &str) -> Response<Body> {
    let begin = archive.slice(..archive.len() / 2);
    let broken = async {
        tokio::time::sleep(Duration::from_millis(50)).await; // what was given is on its way
        Err(std::io::Error::other("broken off"))
    };
    let pieces = futures::stream::iter([Ok(begin)]).chain(futures::stream::once(broken));
    let response = response(200).header("etag", etag).header("content-length", archive.len());
    response.body(Body::from_stream(pieces)).unwrap()
}

/// What was asked for.
fn rest(archive: &Bytes, headers: &HeaderMap) -> Response<Body> {
    let from: usize = headers["range"].to_str().unwrap()[6..].strip_suffix('-').unwrap().parse().unwrap();
    let range = format!("bytes {from}-{}/{}", archive.len() - 1, archive.len());
    response(206).header("content-range", range).body(archive.slice(from..).into()).unwrap()
}

fn fetch(url: &str, folder: &TempDir) -> Fetch {
    Fetch { url: url.to_owned(), to: folder.path().to_owned(), sha256: None, secret: None }
}

async fn fetched(url: &str) -> (TempDir, Fetched) {
    let folder = tempfile::tempdir().unwrap();
    let fetched = fetch(url, &folder).fetch(PATIENCE, LIMITS).await;
    (folder, fetched)
}

fn message(fetched: Fetched) -> String {
    match fetched {
        Fetched::Rejected { message } => format!("rejected: {message}"),
        Fetched::Unavailable { message } => format!("unavailable: {message}"),
        Fetched::Unpacked { sha256 } => panic!("unpacked {sha256}"),
    }
}

fn version(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("package/files/version")).unwrap()
}

fn files(folder: &TempDir) -> Vec<String> {
    fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// C8
#[tokio::test]
async fn a_package_is_fetched_once_a_pod() {
    let content = archive("1.4");
    let given = content.clone();
    let server = Server::start(move |_, _| whole(&given)).await;
    let (folder, fetched) = fetched(&server.url).await;
    assert_eq!(fetched, Fetched::Unpacked { sha256: sha256(&content) });
    assert_eq!(
        (version(&folder).as_str(), files(&folder)),
        ("1.4", vec!["package".to_owned()]),
        "nothing else is left"
    );
    let again = Fetch { sha256: Some(sha256(&content)), ..fetch(&server.url, &folder) };
    assert_eq!(again.fetch(PATIENCE, LIMITS).await, fetched);
    assert_eq!(server.requests(), 1);
}

/// C8: named with what was found, and with what should be; without what may be secret in the URL.
#[tokio::test]
async fn another_checksum_is_rejected() {
    let content = archive("1.4");
    let given = content.clone();
    let server = Server::start(move |_, _| whole(&given)).await;
    let folder = tempfile::tempdir().unwrap();
    let wanted = "0".repeat(64);
    let fetch = Fetch { sha256: Some(wanted.clone()), ..fetch(&server.url, &folder) };
    let said = message(fetch.fetch(PATIENCE, LIMITS).await);
    let url = server.url.split('?').next().unwrap();
    assert_eq!(said, format!("rejected: package {url}: sha256 is {}, and should be {wanted}", sha256(&content)));
    assert_eq!((server.requests(), files(&folder).len()), (1, 0));
}

#[tokio::test]
async fn what_breaks_off_goes_on_where_it_was() {
    let content = archive(&"1.4".repeat(10_000));
    let given = content.clone();
    let answer = move |number, headers: &HeaderMap| match number {
        0 => half(&given, "\"one\""),
        _ => rest(&given, headers),
    };
    let server = Server::start(answer).await;
    let (_folder, fetched) = fetched(&server.url).await;
    assert_eq!(fetched, Fetched::Unpacked { sha256: sha256(&content) });
    assert_eq!(server.header(0, "range"), None);
    let range = format!("bytes={}-", content.len() / 2);
    assert_eq!((server.header(1, "range"), server.header(1, "if-range")), (Some(range), Some("\"one\"".into())));
}

#[tokio::test]
async fn a_restarted_container_goes_on_and_a_changed_archive_begins_anew() {
    let (old, new) = (archive(&"old".repeat(10_000)), archive(&"new".repeat(20_000)));
    let changed = new.clone();
    let server = Server::start(move |_, headers| {
        // As If-Range has it: another version is given as a whole.
        if headers.get("if-range").is_some_and(|etag| etag == "\"new\"") {
            rest(&changed, headers)
        } else {
            whole(&changed)
        }
    })
    .await;
    for (begun, etag) in [(&old, "\"old\""), (&new, "\"new\"")] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("archive"), &begun[..begun.len() / 2]).unwrap();
        fs::write(folder.path().join("archive.etag"), etag).unwrap();
        fs::create_dir_all(folder.path().join("package.part/files/leftover")).unwrap();
        let fetched = fetch(&server.url, &folder).fetch(PATIENCE, LIMITS).await;
        assert_eq!(fetched, Fetched::Unpacked { sha256: sha256(&new) }, "{etag}");
        assert_eq!(fs::read_dir(folder.path().join("package/files")).unwrap().count(), 1);
    }
    assert_eq!(server.requests(), 2);
}

/// A server may give less than it was asked for, and a proxy may break off where only this header tells.
#[tokio::test]
async fn a_part_is_not_taken_for_the_rest() {
    let content = archive(&"1.4".repeat(10_000));
    let half = content.len() / 2;
    for (last, given) in [(half + 99, 100), (content.len() - 1, 100)] {
        let all = content.clone();
        let server = Server::start(move |number, headers| {
            let range = format!("bytes {half}-{last}/{}", all.len());
            let part = || futures::stream::iter([Ok::<_, std::io::Error>(all.slice(half..half + given))]);
            match number {
                0 => self::half(&all, "\"1\""),
                // Without a length, as a proxy gives it.
                1 => response(206).header("content-range", range).body(Body::from_stream(part())).unwrap(),
                _ => rest(&all, headers),
            }
        })
        .await;
        let (_folder, fetched) = fetched(&server.url).await;
        assert_eq!(fetched, Fetched::Unpacked { sha256: sha256(&content) }, "to {last}");
        let range = format!("bytes={}-", half + given);
        assert_eq!((server.requests(), server.header(2, "range")), (3, Some(range)));
    }
}

/// C8: ended while it unpacked, by a lack of memory or its node: all of the archive is there.
#[tokio::test]
async fn a_whole_archive_is_not_fetched_again() {
    let content = archive("1.4");
    let given = content.clone();
    let server = Server::start(move |_, _| whole(&given)).await;
    let damaged = [&content[..content.len() - 1], b"x"].concat();
    for (wanted, noted, kept, requests) in [
        (true, false, content.to_vec(), 0),
        (false, true, content.to_vec(), 0),
        (true, true, damaged.clone(), 1),
        (false, true, damaged, 2),
        (false, false, content.to_vec(), 3),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("archive"), kept).unwrap();
        if noted {
            fs::write(folder.path().join("archive.sha256"), sha256(&content)).unwrap();
        }
        fs::create_dir_all(folder.path().join("package.part/files/leftover")).unwrap();
        let fetch = Fetch { sha256: wanted.then(|| sha256(&content)), ..fetch(&server.url, &folder) };
        assert_eq!(fetch.fetch(PATIENCE, LIMITS).await, Fetched::Unpacked { sha256: sha256(&content) });
        assert_eq!((server.requests(), files(&folder)), (requests, vec!["package".to_owned()]), "{wanted} {noted}");
        assert_eq!(fs::read_dir(folder.path().join("package/files")).unwrap().count(), 1);
    }
}

/// A weak ETag, or none, says nothing about bytes.
#[tokio::test]
async fn without_a_strong_etag_all_is_fetched_again() {
    let content = archive(&"1.4".repeat(10_000));
    let given = content.clone();
    let server =
        Server::start(move |number, _| if number == 0 { half(&given, "W/\"1\"") } else { whole(&given) }).await;
    let (_folder, fetched) = fetched(&server.url).await;
    assert_eq!(fetched, Fetched::Unpacked { sha256: sha256(&content) });
    assert_eq!((server.requests(), server.header(1, "range")), (2, None));
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
    for status in [429, 500, 503] {
        let content = archive("1.4");
        let server = Server::start(move |number, _| match number {
            0 => response(status).body(Body::empty()).unwrap(),
            _ => whole(&content),
        })
        .await;
        let (_folder, fetched) = fetched(&server.url).await;
        assert!(matches!(fetched, Fetched::Unpacked { .. }), "{status}: {fetched:?}");
    }
    for (status, why) in [
        (404, "the server answers 404 Not Found"),
        (401, "the server answers 401 Unauthorized: see spec.package.secretRef"),
        (403, "the server answers 403 Forbidden: see spec.package.secretRef"),
        (204, "the server answers 204 No Content"),
    ] {
        let server = Server::start(move |_, _| response(status).body(Body::empty()).unwrap()).await;
        let (_folder, fetched) = fetched(&server.url).await;
        let said = message(fetched);
        assert!(said.starts_with("rejected: package http://127.0.0.1:") && said.ends_with(why), "{said}");
        assert_eq!(server.requests(), 1, "{status}");
    }
    let server = Server::start(|_, _| response(302).header("location", "/again").body(Body::empty()).unwrap()).await;
    let said = message(fetched(&server.url).await.1);
    assert!(said.starts_with("rejected: ") && said.contains("redirected more than ten times"), "{said}");
    for (location, why) in [("", "redirects to nowhere"), ("ftp://a.b/c?key=hidden", "to another scheme")] {
        let server = Server::start(move |_, _| match location {
            "" => response(302).body(Body::empty()).unwrap(),
            location => response(302).header("location", location).body(Body::empty()).unwrap(),
        })
        .await;
        let said = message(fetched(&server.url).await.1);
        assert!(said.starts_with("rejected: ") && said.ends_with(why) && !said.contains("hidden"), "{said}");
    }
}

/// C8: a signature in the URL is for the server alone, also where that takes the request and says nothing.
#[tokio::test(start_paused = true)]
async fn a_silent_server_gets_no_signature_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/web.tar.gz?key=hidden", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok(connection) = listener.accept().await {
            taken.push(connection);
        }
    });
    let said = message(fetched(&url).await.1);
    assert!(said.starts_with("unavailable: ") && said.contains("timed out") && !said.contains("hidden"), "{said}");
    silent.abort();
}

/// C8: a dead server.
#[tokio::test]
async fn what_gives_nothing_for_long_is_unavailable() {
    let said = message(fetched("http://127.0.0.1:1/web.tar.gz").await.1);
    assert!(said.starts_with("unavailable: package http://127.0.0.1:1/web.tar.gz: not to be had for 0 s: "), "{said}");
    assert!(said.contains("onnection refused"), "{said}");
    let said = message(fetched("http://[zzz]/web.tar.gz").await.1);
    assert_eq!(said, "rejected: package.url cannot be read: invalid IPv6 address");
    // Progress that is none: it breaks off at the same place for ever, and cannot go on.
    let content = archive(&"1.4".repeat(10_000));
    let server = Server::start(move |_, _| half(&content, "W/\"1\"")).await;
    let said = message(fetched(&server.url).await.1);
    assert!(said.starts_with("unavailable: ") && server.requests() == 2, "{said} after {}", server.requests());
}

#[tokio::test]
async fn an_archive_that_is_too_large_is_not_fetched_to_its_end() {
    let limits = Limits { archive_bytes: 1_000_000, ..LIMITS };
    let announced = |_, _: &HeaderMap| {
        let endless = futures::stream::pending::<std::io::Result<Bytes>>();
        response(200).header("content-length", 1_000_001).body(Body::from_stream(endless)).unwrap()
    };
    let surprising = |_, _: &HeaderMap| {
        let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096])));
        response(200).body(Body::from_stream(pieces)).unwrap()
    };
    for server in [Server::start(announced).await, Server::start(surprising).await] {
        let folder = tempfile::tempdir().unwrap();
        let said = message(fetch(&server.url, &folder).fetch(PATIENCE, limits).await);
        assert!(said.ends_with("the archive has more than 1 MiB"), "{said}");
        assert_eq!(files(&folder).len(), 0);
    }
}

/// C8: what opens one server is not told to another.
#[tokio::test]
async fn credentials_go_to_the_server_of_the_url_alone() {
    let content = archive("1.4");
    // It redirects within itself: still another server.
    let elsewhere = Server::start(move |number, _| match number {
        0 => response(307).header("location", "/moved-again").body(Body::empty()).unwrap(),
        _ => whole(&content),
    })
    .await;
    let to = elsewhere.url.clone();
    let server = Server::start(move |number, headers| match (number, headers.get("authorization")) {
        (_, None) => response(401).body(Body::empty()).unwrap(),
        (0, _) => response(302).header("location", "/moved").body(Body::empty()).unwrap(),
        _ => response(302).header("location", &to).body(Body::empty()).unwrap(),
    })
    .await;
    let (folder, secret) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(secret.path().join("username"), "ann\n").unwrap();
    let asked = || Fetch { secret: Some(secret.path().to_owned()), ..fetch(&server.url, &folder) };
    let said = message(asked().fetch(PATIENCE, LIMITS).await);
    assert!(said.contains("must have both username and password"), "{said}");
    fs::write(secret.path().join("password"), "pass").unwrap();
    let fetched = asked().fetch(PATIENCE, LIMITS).await;
    assert!(matches!(fetched, Fetched::Unpacked { .. }), "{fetched:?}");
    assert_eq!(server.header(0, "authorization").as_deref(), Some("Basic YW5uOnBhc3M="));
    assert_eq!(server.header(1, "authorization").as_deref(), Some("Basic YW5uOnBhc3M="));
    for number in 0..2 {
        let told = (elsewhere.header(number, "authorization"), elsewhere.header(number, "referer"));
        assert_eq!(told, (None, None), "{number}");
    }
}

#[tokio::test]
async fn a_secret_that_says_nothing_is_an_error_and_a_token_comes_first() {
    let content = archive("1.4");
    let server = Server::start(move |_, _| whole(&content)).await;
    let (folder, secret) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let asked = || Fetch { secret: Some(secret.path().to_owned()), ..fetch(&server.url, &folder) };
    assert!(message(asked().fetch(PATIENCE, LIMITS).await).contains("none of the keys token,"));
    for pem in ["no certificate", "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"] {
        fs::write(secret.path().join("ca.crt"), pem).unwrap();
        let said = message(asked().fetch(PATIENCE, LIMITS).await);
        assert!(said.ends_with("ca.crt of package.secretRef is no PEM certificate"), "{pem}: {said}");
    }
    fs::remove_file(secret.path().join("ca.crt")).unwrap();
    for (key, value) in [("token", "t0k"), ("username", "ann"), ("password", "pass")] {
        fs::write(secret.path().join(key), value).unwrap();
    }
    assert!(matches!(asked().fetch(PATIENCE, LIMITS).await, Fetched::Unpacked { .. }));
    assert_eq!(server.header(0, "authorization").as_deref(), Some("Bearer t0k"));
}

/// F14: a Rollout that was made before the CRD asked for https.
#[tokio::test]
async fn no_token_goes_over_http() {
    let (folder, secret) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(secret.path().join("token"), "t0k").unwrap();
    // TEST-NET-1 (RFC 5737): where a request is sent, it gets no answer.
    let asked = Fetch { secret: Some(secret.path().to_owned()), ..fetch("http://192.0.2.1/web.tar.gz", &folder) };
    let said = message(asked.fetch(PATIENCE, LIMITS).await);
    assert!(said.starts_with("rejected: ") && said.contains("package.secretRef needs an https URL"), "{said}");
}

/// A server with a self-signed certificate, and the certificate. It gives this, or sends elsewhere.
async fn private_server(answer: Vec<u8>) -> (String, String) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![own.cert.der().clone()], key).unwrap()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/web.tar.gz", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust it leaves.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, own.cert.pem())
}

/// C8
#[tokio::test]
async fn a_private_server_is_trusted_by_the_authority_in_the_secret() {
    let content = archive("1.4");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len());
    let (url, authority) = private_server([head.as_bytes(), &content].concat()).await;
    let said = message(fetched(&url).await.1);
    assert!(said.starts_with("unavailable: ") && said.contains("certificate"), "{said}");
    let (folder, secret) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(secret.path().join("ca.crt"), authority).unwrap();
    let asked = Fetch { secret: Some(secret.path().to_owned()), ..fetch(&url, &folder) };
    assert_eq!(asked.fetch(PATIENCE, LIMITS).await, Fetched::Unpacked { sha256: sha256(&content) });

    let elsewhere = Server::start(move |_, _| whole(&content)).await;
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url);
    let (url, authority) = private_server(head.into_bytes()).await;
    fs::write(secret.path().join("ca.crt"), authority).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let asked = Fetch { secret: Some(secret.path().to_owned()), ..fetch(&url, &folder) };
    let said = message(asked.fetch(PATIENCE, LIMITS).await);
    assert!(said.starts_with("rejected: ") && said.ends_with("redirected from https to another scheme"), "{said}");
    assert_eq!(elsewhere.requests(), 0);
}

/// Half of a JSON says nothing: the kubelet leaves 1 KiB of each one's last words, where a Pod has twelve containers.
#[tokio::test]
async fn last_words_are_short_in_bytes_however_they_are_written() {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "\"語".repeat(50), format!("/{}", "\"語\u{1}".repeat(200))).unwrap();
    let content = Bytes::from(tar.into_inner().unwrap().finish().unwrap());
    let server = Server::start(move |_, _| whole(&content)).await;
    let (_folder, fetched) = fetched(&server.url).await;
    let words = serde_json::to_string(&fetched).unwrap();
    assert!(words.len() <= 1_024, "{} bytes", words.len());
    assert_eq!(Fetched::read(&words), Some(fetched));
    assert!(words.contains("is a link that may lead out of the package") && words.contains('…'), "{words}");
}

#[test]
fn what_may_be_secret_in_a_url_is_not_shown() {
    let shown = |url: &str| super::shown(&url.parse().unwrap());
    assert_eq!(
        shown("https://ann:pass@packages.example.com/web.zip?X-Sig=1#a"),
        "https://packages.example.com/web.zip"
    );
    assert_eq!(shown(&format!("https://a.b/{}", "x".repeat(300))).len(), 200);
}
