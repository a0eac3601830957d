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
    host::{CALL_TIMEOUT, Host, brief},
    model,
};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What the API server shall know.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    Status(Box<PodStatus>),
    /// Nothing of the Pod is left: the object may go.
    Delete,
}

/// Tells the API server about one Pod.
pub struct Teller {
    host: Arc<Host>,
    api: Api<Pod>,
    name: String,
    uid: String,
    wanted: Option<Message>,
    told: Option<Message>,
    under_way: Option<(Message, BoxFuture<'static, kube::Result<()>>)>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Teller {
    pub fn new(host: Arc<Host>, pod: &Pod) -> Self {
        Self {
            api: Api::namespaced(host.client.clone(), model::namespace(pod)),
            host,
            name: model::name(pod).to_owned(),
            uid: model::uid(pod).to_owned(),
            wanted: None,
            told: None,
            under_way: None,
            failures: 0,
            retry_at: None,
        }
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
        self.wanted == self.told
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
            self.host.thawed().await;
            let Some(wanted) = self.wanted.clone() else { return };
            let call = self.call(&wanted);
            self.under_way = Some((wanted, call));
        }
        let Some((_, call)) = &mut self.under_way else { return };
        let outcome = call.await;
        let Some((message, _)) = self.under_way.take() else { return };
        match outcome {
            Ok(()) => self.succeeded(message),
            // The Pod is gone, or another one has its name: the watch will say so.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => self.succeeded(message),
            Err(error) => {
                tracing::warn!("cannot tell of Pod {}: {}", self.name, brief(&error.into()));
                self.retry_at = Some(Instant::now() + (FIRST_RETRY * 2_u32.pow(self.failures.min(5))).min(LAST_RETRY));
                self.failures += 1;
            }
        }
    }

    fn succeeded(&mut self, message: Message) {
        self.told = Some(message);
        self.failures = 0;
        self.retry_at = None;
    }

    fn call(&self, message: &Message) -> BoxFuture<'static, kube::Result<()>> {
        let (api, name, uid) = (self.api.clone(), self.name.clone(), self.uid.clone());
        let message = message.clone();
        Box::pin(async move {
            let call = async {
                match message {
                    Message::Status(status) => {
                        let patch = Patch::Strategic(patch(&uid, &status));
                        api.patch_status(&name, &PatchParams::default(), &patch).await.map(drop)
                    }
                    Message::Delete => {
                        let preconditions = Preconditions { uid: Some(uid), resource_version: None };
                        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
                        api.delete(&name, &params).await.map(drop)
                    }
                }
            };
            let too_late = |_| kube::Error::Service("no answer in time".into());
            timeout(CALL_TIMEOUT, call).await.map_err(too_late)?
        })
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
}
