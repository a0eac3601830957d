//! `spec.package`: files that an instance runs with, beside its images.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Files: an archive of at most 2 GiB (tar.gz, tar.zst or zip; unpacked, at most 8 GiB in 200,000 entries), or an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.image)")
        .message("package must have exactly one of url (an archive that is downloaded) and image (an image that the kubelet pulls): set one, remove the other"),
    validation = Rule::new("!has(self.image) || !has(self.sha256)")
        .message("package.sha256 is for package.url: with package.image, remove sha256 and put the digest into the reference, such as registry.example.com/web-files@sha256:0f..."),
    validation = Rule::new("!has(self.image) || !has(self.secretRef)")
        .message("package.secretRef is for package.url: with package.image, remove secretRef and set imagePullSecrets in spec.template.spec"),
    validation = Rule::new("!has(self.secretRef) || !has(self.url) || self.url.startsWith('https:')")
        .message("package.secretRef needs an https URL, because http sends the credentials in clear text: set package.url to https or remove secretRef")
)]
pub struct Package {
    /// URL of the archive, http or https, without user name and password; credentials go into secretRef. Exactly one of
    /// url and image is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2_048))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@\\\\s]+([/?][^#\\\\s]*)?$')").message("package.url must be an http or https URL without user name and password, such as https://packages.example.com/web/1.4.2.tar.gz: credentials go into the Secret that package.secretRef names"))]
    pub url: Option<String>,
    /// Reference of an OCI image or artifact, by tag or digest. The kubelet pulls it with the Pod's imagePullSecrets
    /// and mounts its content as an image volume. Needs Kubernetes 1.35 or later. Exactly one of url and image is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_024))]
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s@]+(@[a-z0-9]+:[0-9a-f]{64,128})?$') && !self.contains('//')").message("package.image must be a reference without a scheme, such as registry.example.com/web-files:1.4.2 or registry.example.com/web-files@sha256: and 64 hexadecimal digits"))]
    pub image: Option<String>,
    /// SHA-256 of the archive at url, 64 lower-case hexadecimal digits. If absent, Baton records the digest that the
    /// first instance downloads on the ControllerRevision, and all other instances of that revision must get the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')").message("package.sha256 must be 64 lower-case hexadecimal digits, as sha256sum prints them"))]
    pub sha256: Option<String>,
    /// Absolute path at which every container finds the files, read-only; init containers too.
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^(/[^/:]+)+$') && !self.matches('/[.]{1,2}(/|$)') && !self.matches('^/(baton|proc|sys|dev)(/|$)')").message("package.mountPath must be an absolute path such as /opt/app, without '.', '..', ':' and a trailing '/', and not in /baton, /proc, /sys or /dev"))]
    pub mount_path: String,
    /// Secret with the credentials for url, which must be https. Keys: token (sent as Bearer) or username and password,
    /// and ca.crt if the server's certificate comes from a private authority. The credentials go only to the server of
    /// url, to no server that it redirects to. The Secret is mounted in the Pod; the operator never reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A Secret with the keys `token` (sent as Bearer), or `username` and `password`; and `ca.crt`, if the server's certificate
/// is of an authority of its own. Sent to the server of the URL, and nowhere that it redirects to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("package.secretRef.name must be the name of a Secret in this namespace, such as packages"))]
    pub name: String,
}
