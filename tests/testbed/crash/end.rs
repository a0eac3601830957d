//! What a run has come to, without what may differ: names by chance, times, resourceVersions.
use std::collections::BTreeMap;

use anyhow::Result;
use baton::api::{Rollout, names};
use k8s_openapi::api::{apps::v1::ControllerRevision, batch::v1::Job, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::Value;

/// Fields of status that tell a time.
const TIMES: [&str; 7] =
    ["startedAt", "completedAt", "deadlineFrom", "at", "since", "lastTransitionTime", "lastUpdateTime"];
/// Names that follow from the Rollout's uid, which is another one in each run.
const BY_UID: &str = "job";

/// One fact a line, sorted: `pod 3 = web-3-bcdf…, version 3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End(Vec<String>);

impl End {
    pub async fn read(client: &Client, namespace: &str, rollout: &str) -> Result<Self> {
        let mine = ListParams::default().labels(&format!("{}={rollout}", names::LABEL_ROLLOUT));
        let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
        let revisions = Api::<ControllerRevision>::namespaced(client.clone(), namespace).list(&mine).await?.items;
        let rollout = Api::<Rollout>::namespaced(client.clone(), namespace).get(rollout).await?;
        let jobs = Api::<Job>::namespaced(client.clone(), namespace).list(&mine).await?.items;
        // The Jobs tell of the Pods of hooks.
        let instances = pods.iter().filter(|pod| pod.labels().contains_key(names::LABEL_INSTANCE)).map(pod);
        let mut lines: Vec<_> = instances.chain(revisions.iter().map(revision)).chain(jobs.iter().map(job)).collect();
        let mut status = serde_json::to_value(rollout.status)?;
        // Its entries' order says nothing.
        let conditions = status.as_object_mut().and_then(|status| status.remove("conditions"));
        lines.extend(conditions.iter().filter_map(Value::as_array).flatten().map(condition));
        flatten("status", &status, &mut lines);
        lines.sort();
        Ok(Self(lines))
    }

    /// Lines of one and not of the other, `-` those that only `self` has.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        self.0.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
        other.0.iter().for_each(|line| *counts.entry(line).or_default() += 1);
        let signed = counts.into_iter().filter(|(_, count)| *count != 0);
        signed.map(|(line, count)| format!("{} {line}", if count < 0 { '-' } else { '+' })).collect()
    }
}

fn pod(pod: &Pod) -> String {
    let label = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    let version = pod.annotations().get(names::ANNOTATION_VERSION).cloned().unwrap_or_default();
    let leaves = if pod.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
    let (slot, revision) = (label(names::LABEL_INSTANCE), label(names::LABEL_REVISION));
    format!("pod {slot} = {} at {revision}, version {version}{leaves}", pod.name_any())
}

fn revision(revision: &ControllerRevision) -> String {
    let mark = |key: &str| revision.annotations().contains_key(key);
    let reason = revision.annotations().get(names::ANNOTATION_FAILED_REASON);
    let word = reason.and_then(|reason| reason.split(':').next()).unwrap_or("-");
    let (completed, failed) = (mark(names::ANNOTATION_COMPLETED_AT), mark(names::ANNOTATION_FAILED_AT));
    let number = revision.revision.unwrap_or_default();
    format!("revision {number} = {}, completed {completed}, failed {failed} {word}", revision.name_any())
}

/// Each hook at each point of each run has one Job, and that is Complete.
fn job(job: &Job) -> String {
    let label = |key: &str| job.labels().get(key).cloned().unwrap_or_default();
    let point = job.annotations().get(names::ANNOTATION_POINT).cloned().unwrap_or_default();
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ends = conditions.filter(|it| ["Complete", "Failed"].contains(&&*it.type_)).map(|it| it.type_.as_str());
    let (hook, run, attempt) = (label(names::LABEL_HOOK), label(names::LABEL_RUN), label(names::LABEL_ATTEMPT));
    format!("job of {hook} at {point} in run {run}, attempt {attempt}: {}", ends.next().unwrap_or("not ended"))
}

fn condition(condition: &Value) -> String {
    let word = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    format!("condition {} = {} {}", word("type"), word("status"), word("reason"))
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(key, _)| !TIMES.contains(&key.as_str()) && *key != BY_UID);
            fields.for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, lines));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| flatten(&format!("{path}[{index}]"), item, lines));
        }
        // After the colon it says which instance failed first: chance decides.
        Value::String(text) if path.starts_with("status.history") && path.ends_with(".reason") => {
            lines.push(format!("{path} = {}", text.split(':').next().unwrap_or_default()));
        }
        other => lines.push(format!("{path} = {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(value: &Value) -> End {
        let mut lines = Vec::new();
        flatten("status", value, &mut lines);
        End(lines)
    }

    #[test]
    fn times_differ_and_everything_else_counts() {
        let one =
            serde_json::json!({"run": 4, "batch": {"index": 3, "startedAt": "1"}, "history": [{"result": "Failed"}]});
        let mut two = one.clone();
        two["batch"]["startedAt"] = "2".into();
        assert!(end(&one).difference(&end(&two)).is_empty());
        two["history"][0]["result"] = "Succeeded".into();
        let expect = ["- status.history[0].result = \"Failed\"", "+ status.history[0].result = \"Succeeded\""];
        assert_eq!(end(&one).difference(&end(&two)), expect);
    }

    #[test]
    fn which_instance_failed_first_may_differ_and_how_may_not() {
        let why = |reason: &str| end(&serde_json::json!({"history": [{"reason": reason}]}));
        let one = why("2 failed (CrashLoopBackOff: web-0: exit code 1)");
        assert!(one.difference(&why("2 failed (CrashLoopBackOff: web-1: exit code 1)")).is_empty());
        assert!(!one.difference(&why("2 failed (NotReady: web-0)")).is_empty());
    }

    #[test]
    fn a_second_pod_of_a_slot_is_seen() {
        let (one, two) = (End(vec!["pod 0".into()]), End(vec!["pod 0".into(), "pod 0".into()]));
        assert_eq!(one.difference(&two), ["+ pod 0"]);
    }
}
