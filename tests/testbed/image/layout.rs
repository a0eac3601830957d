//! An image of several architectures in one tarball, which is an OCI layout and what `docker save` writes.
//!
//! ```text
//! oci-layout, index.json ─> index ─> manifest of each architecture ─> config, layers     containerd, kind, skopeo, new Docker
//! manifest.json ─────────────────────────────────────────────────> the first one's       Docker with its older image store
//! ```
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use tar::{Builder, EntryType};

use super::layer::{Layer, digest, header};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The user that Baton's Deployment names, too.
const USER: &str = "65532:65532";
const PATH: &str = "PATH=/usr/local/bin";

/// What is an architecture's own.
pub struct Image {
    pub entrypoint: String,
    pub architecture: &'static str,
    pub created: Timestamp,
}

#[derive(Default)]
pub struct Layout {
    /// By their digests.
    blobs: BTreeMap<String, Vec<u8>>,
    /// Of each architecture.
    manifests: Vec<Value>,
    /// Config and layers of the first.
    first: Option<(Value, Vec<Value>)>,
}

impl Layout {
    pub fn add(&mut self, image: &Image, layers: &[Layer], labels: &BTreeMap<String, String>) -> Result<()> {
        let history: Vec<_> = layers
            .iter()
            .map(|_| json!({"created": image.created.to_string(), "created_by": "baton-testbed image"}))
            .collect();
        let config = json!({
            "created": image.created.to_string(),
            "architecture": image.architecture,
            "os": "linux",
            "config": {
                "User": USER, "Env": [PATH], "Entrypoint": [image.entrypoint], "WorkingDir": "/", "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>()},
            "history": history,
        });
        let config = self.blob(CONFIG, serde_json::to_vec(&config)?);
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(LAYER, layer.bytes.clone())).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": labels,
        });
        let mut manifest = self.blob(MANIFEST, serde_json::to_vec(&manifest)?);
        manifest["platform"] = json!({"os": "linux", "architecture": image.architecture});
        self.manifests.push(manifest);
        self.first.get_or_insert((config, layers));
        Ok(())
    }

    /// The tarball, and the image's digest.
    pub fn finish(
        mut self,
        reference: &str,
        labels: &BTreeMap<String, String>,
        created: Timestamp,
    ) -> Result<(Vec<u8>, String)> {
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests, "annotations": labels,
        });
        let mut index = self.blob(INDEX, serde_json::to_vec(&index)?);
        let image = index["digest"].as_str().context("a digest")?.to_owned();
        let tag = reference.rsplit(':').next().unwrap_or_default();
        index["annotations"] = json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag});
        let (config, layers) = self.first.take().context("an image has at least one program")?;
        let docker = json!([{
            "Config": path(&config), "RepoTags": [reference], "Layers": layers.iter().map(path).collect::<Vec<_>>(),
        }]);
        let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]});
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("oci-layout".into(), serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?),
            ("index.json".into(), serde_json::to_vec(&top)?),
            ("manifest.json".into(), serde_json::to_vec(&docker)?),
        ];
        files.extend(self.blobs.into_iter().map(|(digest, bytes)| (blob_path(&digest), bytes)));
        let mut tar = Builder::new(Vec::new());
        for folder in ["blobs/", "blobs/sha256/"] {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0, created), folder, &[][..])?;
        }
        for (path, bytes) in files {
            tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len(), created), path, &*bytes)?;
        }
        Ok((tar.into_inner()?, image))
    }

    /// Its descriptor.
    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }
}

fn path(descriptor: &Value) -> String {
    blob_path(descriptor["digest"].as_str().unwrap_or_default())
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}
