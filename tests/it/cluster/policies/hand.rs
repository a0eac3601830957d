//! Somebody who writes Leases with a token, in every verb.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Request,
};
use serde_json::{Value, json};

use crate::cluster::support::TestCluster;

/// Every way to write an object that is there.
const VERBS: [&str; 4] = ["put", "merge patch", "JSON patch", "apply"];
const DENIED: &str = "ValidatingAdmissionPolicy 'baton-leases'";

/// The Leases of a namespace as somebody may use them.
pub struct Hand {
    pub leases: Api<Lease>,
}

impl Hand {
    pub async fn of(cluster: &TestCluster, namespace: &str, token: Option<&str>) -> Self {
        let mut file = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        if let Some(token) = token {
            file.auth_infos[0].auth_info = serde_json::from_value(json!({"token": token.trim()})).unwrap();
        }
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Self { leases: Api::namespaced(Client::try_from(config).unwrap(), namespace) }
    }

    /// With the token that the kubelet would put into the Pod.
    pub async fn of_pod(cluster: &TestCluster, namespace: &str, pod: &str) -> Self {
        let account =
            cluster.kubectl(&["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.spec.serviceAccountName}"]);
        let uid = uid(cluster, namespace, pod);
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod, "--bound-object-uid", &uid];
        let token = cluster.kubectl(&[&["-n", namespace, "create", "token", &account], &bound[..]].concat());
        Self::of(cluster, namespace, Some(&token)).await
    }

    pub async fn get(&self, name: &str) -> Value {
        serde_json::to_value(self.leases.get(name).await.unwrap()).unwrap()
    }

    /// Makes `old` into `new`; nothing for what a verb cannot say.
    pub async fn write(&self, verb: &str, old: &Value, new: &Value, dry: bool) -> Option<Result<Lease, kube::Error>> {
        let name = old["metadata"]["name"].as_str().unwrap();
        let mut params = PatchParams { dry_run: dry, ..PatchParams::default() };
        let patch = match verb {
            "put" => {
                // As bytes: there are times that a typed Lease cannot hold.
                let params = PostParams { dry_run: dry, ..PostParams::default() };
                let request = Request::new(self.leases.resource_url());
                let put = request.replace(name, &params, new.to_string().into_bytes()).unwrap();
                return Some(self.leases.clone().into_client().request(put).await);
            }
            "merge patch" => Patch::Merge(merge_patch(old, new)),
            "JSON patch" => Patch::Json::<Value>(json_patch::diff(old, new)),
            // What somebody does not own he does not remove by leaving it out.
            _ if json_patch::diff(old, new).iter().any(|op| matches!(op, json_patch::PatchOperation::Remove(_))) => {
                return None;
            }
            _ => {
                (params.field_manager, params.force) = (Some("somebody".into()), true);
                let mut whole = new.clone();
                let metadata = whole["metadata"].as_object_mut().unwrap();
                metadata.remove("managedFields");
                whole["apiVersion"] = json!("coordination.k8s.io/v1");
                whole["kind"] = json!("Lease");
                Patch::Apply(whole)
            }
        };
        Some(self.leases.patch(name, &params, &patch).await)
    }

    /// The policy refuses the change in every verb, in these words.
    pub async fn refused(&self, name: &str, admin: &Self, what: &str, words: &str, change: impl Fn(&mut Value)) {
        let old = admin.get(name).await;
        let mut new = old.clone();
        change(&mut new);
        assert_ne!(old, new, "{what}");
        for verb in VERBS {
            let Some(answer) = self.write(verb, &old, &new, false).await else { continue };
            let said = format!("{:?}", answer.err().unwrap_or_else(|| panic!("{verb}: {what}: done to {name}")));
            assert!(said.contains(DENIED) && said.contains("code: 422"), "{verb}: {what}: {said}");
            assert!(said.contains(words), "{verb}: {what}: should say: {words}\nbut says: {said}");
        }
        assert_eq!(admin.get(name).await, old, "{what}");
    }

    /// The change is taken in every verb; and made, by a JSON patch.
    pub async fn done(&self, name: &str, admin: &Self, what: &str, change: impl Fn(&mut Value)) {
        let old = admin.get(name).await;
        let mut new = old.clone();
        change(&mut new);
        assert_ne!(old, new, "{what}");
        for verb in VERBS {
            let Some(answer) = self.write(verb, &old, &new, true).await else { continue };
            answer.unwrap_or_else(|error| panic!("{verb}: {what}: {error:?}"));
        }
        self.write("JSON patch", &old, &new, false).await.unwrap().unwrap();
    }

    /// Until the API server has the policy, which takes it a moment: nobody but the operator may create such a Lease.
    pub async fn waits_for_the_policy(&self) {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let metadata = json!({"name": "session.nobody", "labels": {"baton.dev/lease": "session"}});
        let probe: Lease = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        for _ in 0..1_000 {
            if self.leases.create(&params, &probe).await.is_err_and(|error| format!("{error:?}").contains(DENIED)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the policy does not come into force");
    }

    pub async fn create(&self, lease: &Value) -> Result<Lease, kube::Error> {
        self.leases.create(&PostParams::default(), &serde_json::from_value(lease.clone()).unwrap()).await
    }
}

/// What turns `old` into `new` as a merge patch; never mentions `resourceVersion`.
fn merge_patch(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut patch = serde_json::Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => drop(patch.insert(key.clone(), merge_patch(before, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(patch)
}

pub fn uid(cluster: &TestCluster, namespace: &str, pod: &str) -> String {
    cluster.kubectl(&["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])
}

/// What is said to somebody whose request must have failed.
pub fn refusal(answer: Result<(), kube::Error>) -> String {
    format!("{:?}", answer.expect_err("done"))
}
