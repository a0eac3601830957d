//! Who may use the local API: a process that can read the folder that the containers of the Pod share.
//!
//! 127.0.0.1 is reached by more than the application: by each container of the Pod, with hostNetwork by the whole node, and by
//! a URL that a program of the Pod fetches for a stranger. None of these has the token. A web page that a browser of the node
//! shows gives itself away by Host or Origin.
use std::{fs, fs::File, io::Read, path::Path, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

use crate::{
    agent::sidecar::refusal::Refusal,
    api::fingerprint::hexadecimal,
    sdk::wire::{TOKEN_FILE, TOKEN_HEADER},
};

/// Random bytes of a token: more than can be guessed.
const TOKEN_BYTES: usize = 16;

/// The token that requests must have.
#[derive(Clone, Debug)]
pub struct Gate {
    token: Arc<str>,
}

impl Gate {
    /// Makes a token, and writes it into the folder before anything is served. Each agent has another one.
    ///
    /// # Errors
    /// There is nothing random; the folder cannot be used.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut bytes = [0_u8; TOKEN_BYTES];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .context("cannot read /dev/urandom")?;
        let token = hexadecimal(&bytes);
        let path = folder.join(TOKEN_FILE);
        let new = path.with_extension("token-new");
        // In one piece: a reader finds this token or the one before.
        fs::write(&new, &token)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { token: token.into() })
    }

    /// These routes, for requests that have the token.
    pub fn before(self, routes: Router) -> Router {
        routes.route_layer(middleware::from_fn_with_state(self, pass))
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !matches!(name, "127.0.0.1" | "localhost") {
            return Err(Refusal::foreign("Host", "must be 127.0.0.1 or localhost, with the agent's port"));
        }
        if headers.contains_key(header::ORIGIN) {
            return Err(Refusal::foreign("Origin", "must be absent: this is not for web pages"));
        }
        let given = headers.get(TOKEN_HEADER).map_or(&b""[..], |token| token.as_bytes());
        if is_same(given, self.token.as_bytes()) { Ok(()) } else { Err(Refusal::without_token()) }
    }
}

/// Takes as long wherever they differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match gate.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answered(gate: &Gate, headers: &[(&'static str, &str)]) -> Result<(), (u16, String)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        gate.check(&headers.collect()).map_err(|refusal| (refusal.status.as_u16(), refusal.said.field))
    }

    /// F12: neither a URL that the application is made to fetch nor a web page passes.
    #[test]
    fn only_who_reads_the_shared_folder_passes() {
        let folder = tempfile::tempdir().unwrap();
        let earlier = Gate::new(folder.path()).unwrap();
        let gate = Gate::new(folder.path()).unwrap();
        let token = fs::read_to_string(folder.path().join(TOKEN_FILE)).unwrap();
        assert_ne!(earlier.token, gate.token);
        let host = ("host", "127.0.0.1:9464");
        assert_eq!(answered(&gate, &[host, ("baton-token", &token)]), Ok(()));
        assert_eq!(answered(&gate, &[("host", "localhost"), ("baton-token", &token)]), Ok(()));
        let refused = |status: u16, field: &str| Err((status, field.to_owned()));
        for given in ["", "x", &earlier.token, &token[1..], &format!("{token}0")] {
            assert_eq!(answered(&gate, &[host, ("baton-token", given)]), refused(401, "Baton-Token"), "{given}");
        }
        assert_eq!(answered(&gate, &[host]), refused(401, "Baton-Token"));
        for foreign in ["evil.example:9464", "127.0.0.1.evil.example", "10.0.0.1:9464", ""] {
            let asked = [("host", foreign), ("baton-token", token.as_str())];
            assert_eq!(answered(&gate, &asked), refused(403, "Host"), "{foreign}");
        }
        assert_eq!(answered(&gate, &[("baton-token", &token)]), refused(403, "Host"));
        let asked = [host, ("origin", "http://127.0.0.1:9464"), ("baton-token", token.as_str())];
        assert_eq!(answered(&gate, &asked), refused(403, "Origin"));
        assert!(Gate::new(&folder.path().join("missing")).is_err());
    }
}
