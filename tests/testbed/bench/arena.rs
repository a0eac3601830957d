//! A fresh cluster for one run, with as little in it as the run needs.
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use tokio::time;

use super::subject::{NAMESPACE, Subject};
use crate::demo::stage::{Setup, Stage};

/// Controllers that Pods, or the built-in workloads, cannot do without. The fewer, the less of the peers' figures is not
/// their own.
pub const CONTROLLERS: &str =
    "deployment-controller,replicaset-controller,statefulset-controller,serviceaccount-controller,namespace-controller";
const POLL: time::Duration = time::Duration::from_millis(50);

/// Where clusters come from.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// Folder for the cluster and its logs.
    #[arg(long, default_value = "target/bench")]
    pub dir: PathBuf,
    /// Folder of the control plane's programs.
    #[arg(long, default_value = "target/control-plane/bin")]
    pub bin: PathBuf,
}

impl Place {
    /// Starts a cluster of one simulated node, without scheduler, with the controller of this subject.
    pub async fn open(&self, subject: Subject) -> Result<Stage> {
        self.open_with(subject, &[]).await
    }

    /// The same, with further flags of kube-controller-manager.
    pub async fn open_with(&self, subject: Subject, flags: &[&str]) -> Result<Stage> {
        let (qps, burst) = subject.limits();
        let set = |flag: String| ["--set".to_owned(), format!("kube-controller-manager={flag}")];
        let mut cluster: Vec<String> = ["--nodes", "kwok:1", "--without", "kube-scheduler"].map(str::to_owned).into();
        cluster.extend(set(format!("--kube-api-qps={qps}")));
        cluster.extend(set(format!("--kube-api-burst={burst}")));
        cluster.extend(set(format!("--controllers={CONTROLLERS}")));
        cluster.extend(flags.iter().flat_map(|flag| set((*flag).to_owned())));
        let stage = self.stage(cluster).await?;
        if subject.is_baton() {
            stage.install().await?;
        }
        prepare(&stage).await?;
        Ok(stage)
    }

    /// Starts a cluster.
    pub async fn stage(&self, cluster: Vec<String>) -> Result<Stage> {
        let setup = Setup {
            dir: self.dir.clone(),
            bin: self.bin.clone(),
            needs: &["baton-operator"],
            cluster,
            keep: false,
            kubeconfig: None,
            shows: false,
        };
        Stage::open(setup).await
    }
}

/// Makes the namespace, and waits until Pods can be created in it.
pub async fn prepare(stage: &Stage) -> Result<Client> {
    stage.kubectl(&["create", "namespace", NAMESPACE]).await?;
    let client = stage.client().await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    let wait = async {
        while accounts.get_opt("default").await?.is_none() {
            time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    time::timeout(time::Duration::from_mins(1), wait).await.context("no ServiceAccount in the namespace")??;
    Ok(client)
}
