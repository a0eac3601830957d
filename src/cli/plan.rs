//! `plan -f FILE`: what applying it would do, without doing it.
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, api::PostParams, core::Request};
use serde_json::Value;

use super::{
    Connection, draw, hints, kubeconfig, manifest,
    output::{note, say},
    screen::Screen,
};
use crate::{
    api::{Rollout, names},
    client::{Cluster, asked, in_time},
    plan::revision,
    snapshot::{Orphans, Snapshot, template::Verdict},
    view::preview::preview,
    warned,
};

/// `kubectl baton plan -f web.yaml`
#[derive(Args, Debug)]
pub(super) struct Plan {
    /// File with one or more Rollouts, in YAML or JSON. Other objects in it are ignored. `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
}

impl Plan {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let cluster = kubeconfig::connect(connection).await?;
        for (index, document) in manifest::read(&self.filename)?.iter().enumerate() {
            if index > 0 {
                say("");
            }
            let cluster = namespaced(&cluster, document, connection)?;
            let rollout = manifest::dry_run(&cluster, document).await?;
            check_template(&cluster, &rollout).await?;
            let (name, replicas) = (rollout.metadata.name.clone().unwrap_or_default(), rollout.spec.replicas);
            let snapshot = Box::pin(snapshot(&cluster, rollout)).await?; // a future of many kilobytes
            let has_agent = snapshot.rollout.spec.template.annotations().contains_key(names::ANNOTATION_HAS_AGENT);
            let preview = preview(snapshot);
            let moves = cluster.held_by(&preview.interrupted).await;
            if moves.is_none() && has_agent {
                note("note: how many listeners move could not be asked: that takes list on leases");
            }
            let width = Screen::new().width();
            for line in draw::preview(&name, replicas, &preview, moves.unwrap_or(0)) {
                for line in draw::folded(&line, width) {
                    say(&line);
                }
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
    let live = hints::explained(cluster, asked::<Rollout, _>(None, cluster.rollouts().get_opt(&name))).await?;
    let services = hints::explained(cluster, cluster.services(&rollout)).await?;
    match live {
        // The status is the live one: a dry run answers with it too, but may be a moment older than the Pods.
        Some(live) => {
            let status = live.status.clone();
            let known = hints::explained(cluster, cluster.snapshot(live)).await?;
            Ok(Snapshot { rollout: Rollout { status, ..rollout }, services, ..known })
        }
        None => Ok(Snapshot {
            services,
            rollout,
            pods: Vec::new(),
            revisions: Vec::new(),
            specimens: vec![],
            orphans: Orphans::default(),
            overlap: None,
            taken_names: [].into(),
            lost_nodes: [].into(),
            template_checks: [].into(),
            create_refusal: None,
            change_refusals: [].into(),
            tellings: [].into(),
            calls: [].into(),
            endpoints: crate::snapshot::Endpoints::Unknown,
            agents: crate::snapshot::Agents::NotAsked,
            hooks: crate::snapshot::HookJobs::default(),
            hook_seen: None,
            hook_refusal: None,
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
        package_sha256: None,
        // Which image the operator adds, only the operator knows; any shows what else is wrong.
        agent_image: Some("baton-agent"),
        is_gated: false,
    };
    let mut pod = revision::pod(&recipe, &format!("{name}-dry-run")).map_err(anyhow::Error::msg)?;
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("ownerReferences"); // the caller may not set them; they say nothing about the template
    }
    // As it is: whether it can be read as a Pod at all, the API server says.
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let request = Request::new(Pod::url_path(&(), Some(&cluster.namespace)));
    let asked = warned::create(&cluster.client, &request, &params, pod.to_string().into_bytes());
    let (code, message) = match in_time(asked).await? {
        Ok(warnings) => {
            for warning in warnings {
                note(&format!("warning: spec.template: {warning}"));
            }
            return Ok(());
        }
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(other) => (0, other.to_string()),
    };
    match Verdict::of_refusal(code, &message) {
        Verdict::Valid => Ok(()),
        Verdict::Refused => bail!("spec.template: the API server refuses its Pods: {message}"),
        Verdict::None => {
            note(&format!("note: whether Pods of spec.template are accepted could not be asked: {message}"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scripted::{self, Answer};

    async fn checked(code: u16, message: &'static str) -> Result<()> {
        let client = scripted::client(move |call| {
            assert_eq!(
                (call.line().as_str(), call.query["dryRun"].as_str()),
                ("POST /api/v1/namespaces/shop/pods", "All")
            );
            // Only a Pod that is typed here could not be sent like this.
            assert_eq!(call.body["spec"]["containers"][0]["resources"]["limits"]["cpu"], 1);
            if code == 201 { Answer::Json(201, call.body) } else { Answer::failure(code, "", message) }
        });
        let containers = json!([{"name": "web", "resources": {"limits": {"cpu": 1}}}]);
        let rollout = serde_json::from_value(json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}},
        }));
        check_template(&Cluster { client, namespace: "shop".into() }, &rollout.unwrap()).await
    }

    /// X12: what the operator would be refused is refused here, with the API server's sentence.
    #[tokio::test]
    async fn a_template_is_refused_for_what_the_operator_would_meet() {
        for (code, message) in [
            (400, "cannot be handled as a Pod"),
            (403, "violates PodSecurity \"restricted:latest\""),
            (403, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request"),
            (422, "is invalid"),
        ] {
            let error = checked(code, message).await.unwrap_err().to_string();
            assert_eq!(error, format!("spec.template: the API server refuses its Pods: {message}"));
        }
        for (code, message) in [(201, ""), (403, "exceeded quota"), (403, "User \"ann\" cannot create"), (503, "no")] {
            checked(code, message).await.unwrap();
        }
    }
}
