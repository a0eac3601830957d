//! Policies: what a cluster's administrators put in front of the store.
use serde_json::Value;

use super::{
    faults::Verb,
    kinds::{Kind, PODS},
    object::meta_text,
    refusal::Refusal,
    store::Store,
};

/// What a policy looks at.
pub struct Review<'a> {
    pub kind: &'static Kind,
    pub verb: Verb,
    /// As it would be stored.
    pub object: &'a Value,
    pub store: &'a Store,
}

/// Says no, or nothing.
pub type Policy = Box<dyn FnMut(&Review<'_>) -> Result<(), Refusal> + Send>;

/// All policies.
#[derive(Default)]
pub struct Admission {
    policies: Vec<(String, Policy)>,
}

impl Admission {
    /// Adds a policy, or puts it in the place of that of the same name.
    pub fn set_policy(&mut self, name: &str, policy: Option<Policy>) {
        self.policies.retain(|(known, _)| known != name);
        self.policies.extend(policy.map(|policy| (name.to_owned(), policy)));
    }

    pub(super) fn check(
        &mut self,
        kind: &'static Kind,
        verb: Verb,
        object: &Value,
        store: &Store,
    ) -> Result<(), Refusal> {
        let review = Review { kind, verb, object, store };
        self.policies.iter_mut().try_for_each(|(_, policy)| policy(&review))
    }
}

/// A ResourceQuota of so many Pods in a namespace.
pub fn pod_quota(namespace: &str, pods_max: usize) -> Policy {
    let namespace = namespace.to_owned();
    Box::new(move |review| {
        if *review.kind != PODS || review.verb != Verb::Create || meta_text(review.object, "namespace") != namespace {
            return Ok(());
        }
        let counts = |pod: &Value| !matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        let pods = review.store.table(&PODS).values();
        let used = pods.filter(|pod| pod.namespace() == namespace && counts(pod)).count();
        if used < pods_max {
            return Ok(());
        }
        let why = format!("exceeded quota: pods, requested: pods=1, used: pods={used}, limited: pods={pods_max}");
        Err(Refusal::forbidden(review.kind, meta_text(review.object, "name"), &why))
    })
}

/// Pod security in a namespace: `breaks` tells which Pods break it.
#[cfg(feature = "testbed")] // only the contract tests need it
pub fn pod_security(namespace: &str, breaks: impl Fn(&Value) -> bool + Send + 'static) -> Policy {
    let namespace = namespace.to_owned();
    Box::new(move |review| {
        let is_looked_at = *review.kind == PODS
            && matches!(review.verb, Verb::Create | Verb::Update)
            && meta_text(review.object, "namespace") == namespace;
        if !is_looked_at || !breaks(review.object) {
            return Ok(());
        }
        let why = r#"violates PodSecurity "restricted:latest": privileged (container "app" must not set securityContext.privileged=true)"#;
        Err(Refusal::forbidden(review.kind, meta_text(review.object, "name"), why))
    })
}

/// A ValidatingAdmissionPolicy, or webhook, that denies what `denies` names with a sentence.
#[cfg(feature = "testbed")] // only the contract tests need it
pub fn policy(name: &str, denies: impl Fn(&Review<'_>) -> Option<String> + Send + 'static) -> Policy {
    let name = name.to_owned();
    Box::new(move |review| match denies(review) {
        None => Ok(()),
        Some(sentence) => {
            let why = format!("ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: {sentence}");
            let mut refusal = Refusal::forbidden(review.kind, meta_text(review.object, "name"), &why);
            refusal.code = 422;
            refusal.reason = "Invalid";
            refusal.details["causes"] = serde_json::json!([{"message": why}]);
            Err(refusal)
        }
    })
}
