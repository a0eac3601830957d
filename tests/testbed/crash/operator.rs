//! The operator of one run: a process that is killed and started again.
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use super::stage::OPERATOR_NAMESPACE;

/// How it is started.
pub struct Operator {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
    pub namespace: String,
    /// Logs and its Pod's state, for as long as the run.
    pub folder: PathBuf,
    pub args: Vec<String>,
    child: Option<Child>,
}

impl Operator {
    pub fn new(program: PathBuf, folder: &Path, namespace: &str, args: Vec<String>) -> Result<Self> {
        fs::create_dir_all(folder.join("state"))?;
        let kubeconfig = folder.join("kubeconfig");
        Ok(Self { program, kubeconfig, namespace: namespace.to_owned(), folder: folder.to_owned(), args, child: None })
    }

    /// Starts it as a container that is restarted in its Pod: a successor knows that its predecessor is dead.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        // A step between lets it end with this process, however that ends.
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["cluster", "exec", "--"])
            .arg(&self.program)
            .args(["--namespace", &self.namespace, "--lease-namespace", &self.namespace])
            .args(["--bind", "127.0.0.1:0", "--state-dir"])
            .arg(self.folder.join("state"))
            .args(&self.args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAME", "operator")
            .env("POD_UID", &self.namespace)
            .env("POD_NAMESPACE", OPERATOR_NAMESPACE)
            .env("RUST_LOG", "info,baton::operator::reconcile=debug,baton::operator::shell=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0) // Ctrl-C is for this process to handle
            .kill_on_drop(true);
        for variable in crate::cluster::PROXY_VARIABLES {
            command.env_remove(variable);
        }
        self.child = Some(command.spawn().context("cannot start the operator")?);
        Ok(())
    }

    /// SIGKILL; returns when it is dead.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(ended) = child.try_wait()? {
            bail!("the operator had ended by itself ({ended})");
        }
        child.kill().await.context("cannot kill the operator")
    }

    /// Fails once it has ended, which nobody asked for.
    pub fn check(&mut self) -> Result<()> {
        match self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) => bail!("the operator has ended by itself ({status})"),
            None => Ok(()),
        }
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("operator.log")
    }
}
