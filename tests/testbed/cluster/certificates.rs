//! The certificates of one cluster: an authority, the API server's certificate, one identity per client.
use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::layout::{APISERVER_ADDRESS, Layout, SERVICE_VIP, private_file};

/// A certificate and its private key, both PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// Signs every certificate of the cluster, for servers and clients alike.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("baton-testbed", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// The identity of an API user and, if any, their group.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        self.sign(subject(user, group), &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The identity of a server that is reached at `names` (DNS names and addresses).
    pub fn server(&self, user: &str, group: Option<&str>, names: &[String]) -> Result<Identity> {
        self.sign(subject(user, group), names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, subject: DistinguishedName, names: &[String], usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

/// Writes what the API server and the controller manager read from `DIR/pki`.
pub fn write_shared(layout: &Layout, authority: &Authority) -> Result<()> {
    let names = [
        "localhost",
        "127.0.0.1",
        &APISERVER_ADDRESS.to_string(),
        &SERVICE_VIP.to_string(),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned);
    let apiserver = authority.server("kube-apiserver", None, &names)?;
    let to_kubelets = authority.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
    let tokens = KeyPair::generate().context("cannot make the service account key")?;
    let files = [
        ("ca.crt", &authority.certificate()),
        ("apiserver.crt", &apiserver.certificate),
        ("apiserver.key", &apiserver.key),
        ("kubelet-client.crt", &to_kubelets.certificate),
        ("kubelet-client.key", &to_kubelets.key),
        ("service-account.pub", &tokens.public_key_pem()),
        ("service-account.key", &tokens.serialize_pem()),
    ];
    files.into_iter().try_for_each(|(file, content)| private_file(&layout.pki(file), content, 0o600))
}
