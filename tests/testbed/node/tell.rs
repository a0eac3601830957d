//! Writing a Pod's status, and its deletion when all is over: one call at a time, always the newest.
use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    gate::Pass,
    host::{CALL_TIMEOUT, Host, brief},
    model,
};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Conditions that a Pod has for a while only.
const RESIZING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What the API server shall know.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    Status(Box<PodStatus>),
    /// Nothing of the Pod is left: the object may go.
    Delete,
}

/// A message that the API server has taken.
struct Told {
    message: Message,
    /// The object's resourceVersion then; nothing can be newer where the object has gone.
    version: u64,
}

/// Tells the API server about one Pod.
pub struct Teller {
    host: Arc<Host>,
    api: Api<Pod>,
    name: String,
    uid: String,
    wanted: Option<Message>,
    told: Option<Told>,
    /// The object as it was heard of last.
    heard: Arc<Pod>,
    under_way: Option<(Message, BoxFuture<'static, kube::Result<u64>>)>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Teller {
    pub fn new(host: Arc<Host>, pod: &Arc<Pod>) -> Self {
        Self {
            api: Api::namespaced(host.client.clone(), model::namespace(pod)),
            host,
            name: model::name(pod).to_owned(),
            uid: model::uid(pod).to_owned(),
            wanted: None,
            told: None,
            heard: Arc::clone(pod),
            under_way: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// Notes what the API says now. Where somebody else has changed what this node had told, it is told again: the
    /// node lifecycle controller makes Pods unready whose node is silent, and leaves the rest to the node.
    pub fn heard(&mut self, pod: &Arc<Pod>) {
        self.heard = Arc::clone(pod);
    }

    pub fn status(&mut self, status: PodStatus) {
        self.wanted = Some(Message::Status(Box::new(status)));
    }

    /// Deletes the object, after the status that was told last.
    pub fn delete(&mut self) {
        self.wanted = Some(Message::Delete);
    }

    pub fn deleting(&self) -> bool {
        self.wanted == Some(Message::Delete)
    }

    /// Whether the API server has been told everything.
    pub fn done(&self) -> bool {
        match (&self.wanted, &self.told) {
            (Some(wanted), Some(told)) => *wanted == told.message && !told.overwritten(&self.heard),
            (wanted, told) => wanted.is_none() && told.is_none(),
        }
    }

    /// Returns after each step; never if there is nothing to tell. May be dropped and called again.
    pub async fn work(&mut self) {
        if self.under_way.is_none() {
            if self.done() {
                return std::future::pending().await;
            }
            if let Some(time) = self.retry_at {
                sleep_until(time).await;
            }
            let pass = self.host.gate.pass().await;
            let Some(wanted) = self.wanted.clone() else { return };
            let call = self.call(&wanted, pass);
            self.under_way = Some((wanted, call));
        }
        let Some((_, call)) = &mut self.under_way else { return };
        let outcome = call.await;
        let Some((message, _)) = self.under_way.take() else { return };
        match outcome {
            Ok(version) => self.succeeded(message, version),
            // The Pod is gone, or another one has its name: the watch will say so.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                self.succeeded(message, u64::MAX);
            }
            Err(error) => {
                tracing::warn!("cannot tell of Pod {}: {}", self.name, brief(&error.into()));
                self.retry_at = Some(Instant::now() + (FIRST_RETRY * 2_u32.pow(self.failures.min(5))).min(LAST_RETRY));
                self.failures += 1;
            }
        }
    }

    fn succeeded(&mut self, message: Message, version: u64) {
        self.told = Some(Told { message, version });
        self.failures = 0;
        self.retry_at = None;
    }

    /// Returns the object's version afterwards.
    fn call(&self, message: &Message, pass: Pass) -> BoxFuture<'static, kube::Result<u64>> {
        let (api, name, uid) = (self.api.clone(), self.name.clone(), self.uid.clone());
        let message = message.clone();
        Box::pin(async move {
            let _pass = pass;
            let call = async {
                match message {
                    Message::Status(status) => {
                        let patch = Patch::Strategic(patch(&uid, &status));
                        api.patch_status(&name, &PatchParams::default(), &patch).await.map(|pod| version(&pod))
                    }
                    Message::Delete => {
                        let preconditions = Preconditions { uid: Some(uid), resource_version: None };
                        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
                        api.delete(&name, &params).await.map(|_| u64::MAX)
                    }
                }
            };
            let too_late = |_| kube::Error::Service("no answer in time".into());
            timeout(CALL_TIMEOUT, call).await.map_err(too_late)?
        })
    }
}

impl Told {
    /// Whether the object has changed since, and what was told is not in it any more.
    fn overwritten(&self, pod: &Pod) -> bool {
        let Message::Status(told) = &self.message else { return false };
        version(pod) > self.version && !contains(&json!(pod.status), &json!(told))
    }
}

/// resourceVersions of one resource grow, as Kubernetes documents since 1.35.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether a status has everything of another: conditions of others, and fields that the API server adds, do not count.
fn contains(status: &Value, told: &Value) -> bool {
    match told {
        Value::Object(told) => told.iter().all(|(field, told)| match field.as_str() {
            "conditions" => told.as_array().into_iter().flatten().all(|told| {
                let mut found = status[field].as_array().into_iter().flatten();
                found.any(|found| ["type", "status", "reason", "message"].iter().all(|key| found[key] == told[key]))
            }),
            _ => contains(&status[field], told),
        }),
        Value::Array(told) => {
            let found = status.as_array().map(Vec::as_slice).unwrap_or_default();
            found.len() == told.len() && found.iter().zip(told).all(|(found, told)| contains(found, told))
        }
        told => status == told,
    }
}

/// Merges conditions by type, so that those of others stay, and replaces everything else. The uid
/// makes the API server refuse it for another Pod of the same name.
fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut status = json!(status);
    // A merge keeps what is not mentioned.
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    if let Some(conditions) = status["conditions"].as_array_mut() {
        for type_ in RESIZING {
            if !conditions.iter().any(|told| told["type"] == type_) {
                conditions.push(json!({ "$patch": "delete", "type": type_ }));
            }
        }
    }
    // Merged by address, these would hold those of before too.
    for field in ["podIPs", "hostIPs"] {
        if let Some(addresses) = status[field].as_array_mut() {
            addresses.insert(0, json!({ "$patch": "replace" }));
        }
    }
    json!({ "metadata": { "uid": uid }, "status": status })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    use super::*;

    #[test]
    fn a_patch_leaves_nothing_of_an_earlier_status() {
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        let status = PodStatus {
            conditions: Some(vec![ready]),
            pod_ips: Some(vec![PodIP { ip: "10.244.1.2".into() }]),
            ..PodStatus::default()
        };
        let patch = patch("u-1", &status);
        assert_eq!(patch["metadata"]["uid"], "u-1");
        let condition = &patch["status"]["conditions"][0];
        assert!(condition.get("reason").is_some_and(Value::is_null));
        assert!(condition.get("message").is_some_and(Value::is_null));
        assert_eq!(patch["status"]["podIPs"], json!([{ "$patch": "replace" }, { "ip": "10.244.1.2" }]));
    }

    /// A Pod's status as the API server gives it back.
    fn heard(version: &str, ready: &str, restarts: i32) -> Pod {
        let main = json!({
            "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": restarts,
            "lastState": {}, "resources": {},
        });
        serde_json::from_value(json!({
            "metadata": { "resourceVersion": version },
            "status": {
                "phase": "Running", "qosClass": "BestEffort",
                "conditions": [
                    { "type": "example.com/gate", "status": "False" },
                    { "type": "Ready", "status": ready, "lastTransitionTime": "2026-11-21T12:00:00Z" },
                ],
                "containerStatuses": [main],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_somebody_else_has_overwritten_is_told_again() {
        let mut status = heard("5", "True", 0).status.unwrap();
        status.qos_class = None;
        status.conditions.as_mut().unwrap().remove(0);
        let told = Told { message: Message::Status(Box::new(status)), version: 5 };
        assert!(!told.overwritten(&heard("6", "True", 0)), "it says the same");
        assert!(told.overwritten(&heard("6", "False", 0)));
        assert!(told.overwritten(&heard("6", "True", 1)));
        assert!(!told.overwritten(&heard("4", "False", 0)), "older news");
        assert!(!Told { message: Message::Delete, version: 5 }.overwritten(&heard("6", "False", 0)));
    }
}
