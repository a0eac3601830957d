//! A cluster with the CRDs, the operator's rights and the images, and what it takes to work in it.
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::{
        core::v1::Namespace,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::demo::programs::output_of;

/// Where config/ puts the operator, and its ServiceAccount.
pub const OPERATOR_NAMESPACE: &str = "baton-system";
const OPERATOR: &str = "baton-operator";

/// Versions of the image `web`: examples/web, and one that exits at its start.
pub const GOOD: [&str; 2] = ["1", "3"];
pub const BROKEN: &str = "2";
const EXITS: &str = "#!/bin/sh\nexit 1\n";

pub struct Stage {
    /// The cluster's, and below it `runs`.
    pub dir: PathBuf,
    pub operator: PathBuf,
    pub admin: Client,
    kubectl: PathBuf,
    /// The operator's rights.
    token: String,
    cluster: Child,
    /// The cluster ends when this closes.
    lifeline: ChildStdin,
}

impl Stage {
    pub async fn open(dir: &Path, bin: &Path) -> Result<Self> {
        let built = env::current_exe()?.parent().context("this program lies nowhere")?.to_owned();
        let (operator, kubectl) = (built.join(OPERATOR), std::path::absolute(bin)?.join("kubectl"));
        let web = built.join("examples/web");
        let programs = [&operator, &web, &kubectl];
        ensure!(programs.iter().all(|it| it.is_file()), "programs are missing: `make crash` builds them");
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let runs = dir.join("runs");
        if runs.exists() {
            fs::remove_dir_all(&runs).context("cannot remove the logs of earlier runs")?;
        }
        images(&dir.join("images"), &fs::read(web)?)?;
        let (cluster, lifeline) = start_cluster(&dir, bin).await?;
        let admin = Client::try_from(config(&dir).await?)?;
        let mut stage = Self { dir, operator, admin, kubectl, token: String::new(), cluster, lifeline };
        stage.install().await?;
        Ok(stage)
    }

    async fn install(&mut self) -> Result<()> {
        self.kubectl(&["apply", "-f", "crds/", "-f", "config/manager/namespace.yaml"]).await?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/rollouts.baton.dev"]).await?;
        self.kubectl(&["apply", "-k", "config/rbac"]).await?;
        self.token = self.kubectl(&["create", "token", OPERATOR, "-n", OPERATOR_NAMESPACE, "--duration=24h"]).await?;
        Ok(())
    }

    /// A client with the operator's rights, of its own connections.
    pub async fn operator_client(&self) -> Result<Client> {
        let mut config = config(&self.dir).await?;
        config.auth_info = serde_json::from_value(serde_json::json!({"token": self.token}))?;
        Ok(Client::try_from(config)?)
    }

    /// A new namespace that the operator may lead in: config/rbac lets it only where it is installed.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}}))?;
        Api::<Namespace>::all(self.admin.clone()).create(&PostParams::default(), &namespace).await?;
        let of = |namespace: &str| Api::<Role>::namespaced(self.admin.clone(), namespace);
        let mut role = of(OPERATOR_NAMESPACE).get(OPERATOR).await?;
        role.metadata = new_metadata(&role.metadata);
        of(name).create(&PostParams::default(), &role).await?;
        let of = |namespace: &str| Api::<RoleBinding>::namespaced(self.admin.clone(), namespace);
        let mut binding = of(OPERATOR_NAMESPACE).get(OPERATOR).await?;
        binding.metadata = new_metadata(&binding.metadata);
        of(name).create(&PostParams::default(), &binding).await?;
        Ok(())
    }

    /// Begins to delete a namespace and all that is in it.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        Api::<Namespace>::all(self.admin.clone()).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        output_of(command.args(arguments).env("KUBECONFIG", self.dir.join("kubeconfig"))).await
    }

    /// Ends the cluster, and returns when it is gone.
    pub async fn close(mut self) -> Result<()> {
        drop(self.lifeline);
        self.cluster.wait().await?;
        Ok(())
    }
}

fn new_metadata(old: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { name: old.name.clone(), ..Default::default() }
}

async fn config(dir: &Path) -> Result<Config> {
    let file = Kubeconfig::read_from(dir.join("kubeconfig"))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.default_retry = false; // what passes through a proxy passes once
    Ok(config)
}

/// Puts the images where the cluster's node finds them.
fn images(folder: &Path, web: &[u8]) -> Result<()> {
    for (version, content) in [(GOOD[0], web), (BROKEN, EXITS.as_bytes()), (GOOD[1], web)] {
        let image = folder.join("web").join(version);
        fs::create_dir_all(&image)?;
        fs::write(image.join("VERSION"), version)?; // equal programs, but different images
        let program = image.join("web");
        fs::write(&program, content)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

async fn start_cluster(dir: &Path, bin: &Path) -> Result<(Child, ChildStdin)> {
    let mut command = Command::new(env::current_exe()?);
    command
        .args(["cluster", "up", "--foreground", "--lifeline", "always", "--nodes", "process", "--dir"])
        .arg(dir)
        .arg("--bin")
        .arg(bin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut cluster = command.spawn().context("cannot start a cluster")?;
    let lifeline = cluster.stdin.take().context("no pipe")?;
    let mut lines = BufReader::new(cluster.stdout.take().context("no pipe")?).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("export KUBECONFIG=") {
            return Ok((cluster, lifeline));
        }
        println!("{line}");
    }
    bail!("the cluster did not start ({})", cluster.wait().await?)
}
