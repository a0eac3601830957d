//! The kubeconfig. What is wrong with one is named by file and line: its lines hold tokens and keys, so that none of them is
//! ever printed.
use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError},
};

use super::{Connection, exit::Exit};
use crate::client::{Cluster, without_secrets};

/// Where to look for others.
const REMEDY: &str = "set KUBECONFIG or --kubeconfig, `kubectl config get-contexts` lists the contexts";

/// The cluster that is meant, and as whom.
async fn config(connection: &Connection) -> Result<Config> {
    let paths = connection.kubeconfig.as_ref().map_or_else(default_paths, |path| vec![path.clone()]);
    // As kubectl: a file of KUBECONFIG that is not there says nothing. One that is named by a flag must be there.
    let there = |path: &&PathBuf| connection.kubeconfig.is_some() || path.exists();
    let present: Vec<&PathBuf> = paths.iter().filter(there).collect();
    if present.is_empty() && connection.context.is_none() {
        let named = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        return Config::incluster()
            .map_err(|_| Exit::NoAccess.because(format!("there is no kubeconfig ({named}); {REMEDY}")));
    }
    let mut merged = Kubeconfig::default();
    for path in present {
        let read = Kubeconfig::read_from(path).and_then(|read| merged.clone().merge(read));
        merged = read.map_err(|error| unusable(&error, Some(path)))?;
    }
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(merged, &options).await.map_err(|error| unusable(&error, None))
}

/// The namespace of the cluster that is meant.
pub(super) async fn connect(connection: &Connection) -> Result<Cluster> {
    Cluster::new(config(connection).await?, connection.namespace.clone()).map_err(|error| match error {
        kube::Error::InferKubeconfig(error) => unusable(&error, None),
        kube::Error::RustlsTls(_) => Exit::NoAccess.because(
            "the kubeconfig: client-certificate and client-key of the user, or certificate-authority, hold no usable PEM",
        ),
        error => Exit::NoAccess.because(format!("the kubeconfig cannot be used: {}", without_secrets(&error))),
    })
}

/// As kubectl finds them.
fn default_paths() -> Vec<PathBuf> {
    let named: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|paths| std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect()
}

/// What is wrong, by names and places alone.
fn unusable(error: &KubeconfigError, path: Option<&Path>) -> Error {
    let file = path.map_or_else(|| "the kubeconfig".to_owned(), |path| path.display().to_string());
    let data = |field: &str, error: &LoadDataError| match error {
        LoadDataError::DecodeBase64(_) => format!("{file}: {field}-data is not base64"),
        other => format!("{file}: {field}: {other}"),
    };
    let said = match error {
        KubeconfigError::Parse(error) => {
            let line = error.location().map(|at| format!(":{}", at.line())).unwrap_or_default();
            format!(
                "{file}{line}: this line cannot be read as part of a kubeconfig; correct it, or name another file with --kubeconfig"
            )
        }
        KubeconfigError::ReadConfig(error, _) => format!("{file} cannot be read: {error}"),
        KubeconfigError::LoadCertificateAuthority(error) => data("certificate-authority", error),
        KubeconfigError::LoadClientCertificate(error) => data("client-certificate", error),
        KubeconfigError::LoadClientKey(error) => data("client-key", error),
        KubeconfigError::ParseCertificates(_) => format!("{file}: certificate-authority holds no PEM certificate"),
        other => format!("{other}; {REMEDY}"),
    };
    Exit::NoAccess.because(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3tT0ken";

    /// What is said of a kubeconfig with this text.
    async fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        let connection = Connection { namespace: None, context: None, kubeconfig: Some(path.clone()), no_color: false };
        let Err(error) = connect(&connection).await else { panic!("it is used") };
        assert_eq!(Exit::of(&error), Exit::NoAccess);
        format!("{error:#}").replace(&path.display().to_string(), "FILE")
    }

    fn kubeconfig(user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             users:\n- name: u\n  user:\n{user}\n"
        )
    }

    /// A kubeconfig that does not parse is named by file and line; what stands there is a token.
    #[tokio::test]
    async fn nothing_of_a_broken_kubeconfig_is_printed() {
        for (user, line) in [
            (format!("    token: \"{SECRET}"), None),
            (format!("    token: {SECRET}: {SECRET}"), Some(9)),
            (format!("    token: [{SECRET}]"), Some(9)),
            (format!("   - {SECRET}\n    token: {SECRET}"), None),
            (format!("    token: *{SECRET}"), Some(9)),
            (format!("    exec: {SECRET}"), Some(9)),
        ] {
            let said = said(&kubeconfig(&user)).await;
            let place = line.map_or_else(|| "FILE:".to_owned(), |line| format!("FILE:{line}: "));
            assert!(said.starts_with(&place), "{user}: {said}");
            assert!(
                said.contains("cannot be read as part of a kubeconfig") && !said.contains("s3cr"),
                "{user}: {said}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_of_a_key_is_printed() {
        let user = format!("    client-certificate-data: '{SECRET}!'\n    client-key-data: '{SECRET}!'");
        let told = said(&kubeconfig(&user)).await;
        assert!(told.ends_with("client-certificate-data is not base64"), "{told}");
        let user = format!("    client-certificate-data: {SECRET}0\n    client-key-data: {SECRET}0");
        let told = said(&kubeconfig(&user)).await;
        assert!(told.contains("client-key") && !told.contains("s3cr"), "{told}");
        let exec = |script: &str| {
            format!(
                "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: Never\n      command: sh\n      \
                 args: [-c, '{script}', '{SECRET}']\n      env: [{{name: A, value: {SECRET}}}]"
            )
        };
        for (script, why) in
            [("echo $A; exit 1", "failed (exit status: 1)"), ("echo \"token: [$A\"", "printed no ExecCredential")]
        {
            let told = said(&kubeconfig(&exec(script))).await;
            assert!(told.contains(why) && !told.contains("s3cr"), "{told}");
        }
        let proxied = kubeconfig("    token: a")
            .replace("127.0.0.1:1'", &format!("127.0.0.1:1', proxy-url: 'http://u:{SECRET}@127.0.0.1:2'"));
        let told = said(&proxied).await;
        assert!(told.contains("cannot use a proxy") && !told.contains("s3cr"), "{told}");
        let unnamed = said("apiVersion: v1\nkind: Config\n").await;
        assert!(unnamed.contains("current context") && unnamed.contains("kubectl config get-contexts"), "{unnamed}");
    }
}
