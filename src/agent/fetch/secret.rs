//! What the server of a package asks for: the Secret of `spec.package.secretRef`, as files.
use std::{fs, io, path::Path};

use reqwest::RequestBuilder;
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::problem::{Problem, local, rejected};

/// Sent with each request to the server of the URL. Not to be printed.
#[derive(Default)]
pub struct Secret {
    authorization: Option<Authorization>,
    /// Authorities that are trusted beside the usual ones.
    pub authorities: Vec<CertificateDer<'static>>,
}

enum Authorization {
    Bearer(String),
    Basic(String, String),
}

fn no_certificate() -> Problem {
    rejected("ca.crt of package.secretRef is no PEM certificate")
}

impl Secret {
    /// Reads the keys that are there.
    pub fn read(folder: &Path) -> Result<Self, Problem> {
        let key = |name: &str| match fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(local(&format!("cannot read {name} of package.secretRef"))(error)),
        };
        let authorization = match (key("token")?, key("username")?, key("password")?) {
            (Some(token), ..) => Some(Authorization::Bearer(token)),
            (None, Some(username), Some(password)) => Some(Authorization::Basic(username, password)),
            (None, None, None) => None,
            _ => return Err(rejected("the Secret of package.secretRef must have both username and password")),
        };
        let authorities = key("ca.crt")?;
        if authorization.is_none() && authorities.is_none() {
            return Err(rejected(
                "the Secret of package.secretRef has none of the keys token, username and password, and ca.crt",
            ));
        }
        let authorities = authorities.map(|pem| certificates(&pem)).transpose()?.unwrap_or_default();
        Ok(Self { authorization, authorities })
    }

    /// Whether requests say who asks.
    pub fn is_sent(&self) -> bool {
        self.authorization.is_some()
    }

    /// A request that says who asks.
    pub fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            None => request,
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            Some(Authorization::Basic(username, password)) => request.basic_auth(username, Some(password)),
        }
    }
}

/// At least one certificate, and nothing else between the lines that begin and end them.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|_| no_certificate())?;
    let (added, ignored) = RootCertStore::empty().add_parsable_certificates(found.iter().cloned());
    if added == 0 || ignored > 0 { Err(no_certificate()) } else { Ok(found) }
}
