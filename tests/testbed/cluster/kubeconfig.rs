//! Kubeconfigs with everything inside, so that a copy works wherever the address does.
use std::path::Path;

use anyhow::Result;
use k8s_openapi::ByteString;
use serde_json::json;

use super::{
    certificates::{Authority, Identity},
    layout::{Layout, private_file},
};

/// Writes the kubeconfig of one user of the cluster; it works inside and outside alike.
pub fn write(layout: &Layout, path: &Path, user: &str, group: Option<&str>, authority: &Authority) -> Result<()> {
    let identity = authority.client(user, group)?;
    private_file(path, &text(layout.port, user, &authority.certificate(), &identity)?, 0o600)
}

fn text(port: u16, user: &str, authority: &str, identity: &Identity) -> Result<String> {
    let base64 = |pem: &str| ByteString(pem.as_bytes().to_vec()); // serialised so
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "baton-testbed",
        "contexts": [{ "name": "baton-testbed", "context": { "cluster": "baton-testbed", "user": user } }],
        "clusters": [{ "name": "baton-testbed", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": base64(authority),
        }}],
        "users": [{ "name": user, "user": {
            "client-certificate-data": base64(&identity.certificate),
            "client-key-data": base64(&identity.key),
        }}],
    });
    Ok(serde_saphyr::to_string(&config)?)
}
