//! `plan -f FILE`: what applying it would do, without doing it.
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::Value;

use super::{
    Connection,
    cluster::{Cluster, in_time},
    draw, manifest,
};
use crate::{api::Rollout, plan::revision, snapshot::Snapshot, view::preview::preview};

/// `kubectl baton plan -f web.yaml`
#[derive(Args, Debug)]
pub(super) struct Plan {
    /// File with one or more Rollouts, YAML or JSON; other objects in it are passed over. `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
}

impl Plan {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let cluster = Cluster::connect(connection).await?;
        for (index, document) in manifest::read(&self.filename)?.iter().enumerate() {
            if index > 0 {
                anstream::println!();
            }
            let cluster = namespaced(&cluster, document, connection)?;
            let rollout = manifest::dry_run(&cluster, document).await?;
            check_template(&cluster, &rollout).await?;
            let (name, replicas) = (rollout.metadata.name.clone().unwrap_or_default(), rollout.spec.replicas);
            let snapshot = Box::pin(snapshot(&cluster, rollout)).await?; // a future of many kilobytes
            for line in draw::preview(&name, replicas, &preview(snapshot)) {
                anstream::println!("{line}");
            }
        }
        Ok(())
    }
}

/// The cluster in the document's own namespace; as kubectl, `-n` must not contradict it.
fn namespaced(cluster: &Cluster, document: &Value, connection: &Connection) -> Result<Cluster> {
    let Some(own) = document["metadata"]["namespace"].as_str() else { return Ok(cluster.clone()) };
    if let Some(asked) = connection.namespace.as_deref().filter(|asked| *asked != own) {
        bail!("the file says namespace \"{own}\", -n says \"{asked}\": leave one of them out");
    }
    Ok(Cluster { namespace: own.to_owned(), ..cluster.clone() })
}

/// The world as it is, with the Rollout as it would be.
async fn snapshot(cluster: &Cluster, rollout: Rollout) -> Result<Snapshot> {
    let name = rollout.metadata.name.clone().unwrap_or_default();
    let live = match in_time(cluster.rollouts().get_opt(&name)).await? {
        Ok(live) => live,
        Err(error) => return Err(super::hints::explain(cluster, error, None).await),
    };
    match live {
        // The status is the live one: a dry run answers with it too, but may be a moment older than the Pods.
        Some(live) => {
            let status = live.status.clone();
            Ok(Snapshot { rollout: Rollout { status, ..rollout }, ..cluster.snapshot(live).await? })
        }
        None => Ok(Snapshot {
            rollout,
            pods: Vec::new(),
            revisions: Vec::new(),
            taken_names: [].into(),
            lost_nodes: [].into(),
            template_checks: [].into(),
            create_refusal: None,
            now: Timestamp::now(),
        }),
    }
}

/// Whether the API server accepts a Pod of the template, as far as the caller may ask.
async fn check_template(cluster: &Cluster, rollout: &Rollout) -> Result<()> {
    let data = revision::data(&rollout.spec);
    let hash = revision::hash(&data);
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let recipe = revision::PodRecipe {
        rollout: name,
        namespace: &cluster.namespace,
        rollout_uid: rollout.metadata.uid.as_deref().unwrap_or_default(),
        slot: 0,
        revision: &format!("{name}-{hash}"),
        hash: &hash,
        data: &data,
        restarted_at: None,
    };
    let mut pod = revision::pod(&recipe, &format!("{name}-dry-run"));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("ownerReferences"); // the caller may not set them; they say nothing about the template
    }
    let pod: Pod = match serde_json::from_value(pod) {
        Ok(pod) => pod,
        Err(error) => bail!("spec.template is no Pod template: {error}"),
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match in_time(pods.create(&params, &pod)).await? {
        Err(kube::Error::Api(status)) if status.code == 422 => {
            bail!("spec.template: the API server refuses its Pods: {}", status.message)
        }
        Err(error) => {
            anstream::eprintln!("note: whether Pods of spec.template are accepted could not be asked: {error}");
        }
        Ok(_) => {}
    }
    Ok(())
}
