//! Whom https trusts: this program brings its own roots, because it also runs in images without any.
use std::env;

use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore, crypto::ring, pki_types::CertificateDer};

use super::problem::{Problem, local};

/// Each of them replaces all other roots but those of the Secret.
const REPLACED_BY: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// For a client of http and https. It never fails for a lack of roots, because http needs none.
pub fn client_config(authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, Problem> {
    let config =
        ClientConfig::builder_with_provider(ring::default_provider().into()).with_safe_default_protocol_versions();
    let roots = roots(are_replaced(), authorities);
    Ok(config.map_err(local::<Error>("cannot speak TLS"))?.with_root_certificates(roots).with_no_client_auth())
}

fn are_replaced() -> bool {
    REPLACED_BY.iter().any(|name| env::var_os(name).is_some())
}

/// The system's roots, if it has any, and the Secret's; unless they are replaced, also those of this program.
fn roots(replaced: bool, authorities: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // A missing file matters only if a person has named it.
    if replaced {
        system.errors.iter().for_each(|error| println!("{}: {error}", REPLACED_BY.join(" or ")));
    } else {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    roots.add_parsable_certificates(system.certs);
    roots.add_parsable_certificates(authorities.iter().cloned());
    roots
}

#[cfg(test)]
mod tests {
    use super::roots;

    #[test]
    fn this_programs_own_roots_are_there_unless_replaced() {
        let own = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
        assert!(own > 100 && roots(false, &[]).len() >= own, "{own}");
        assert_eq!(roots(false, &[]).len() - roots(true, &[]).len(), own);
    }
}
