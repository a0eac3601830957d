//! Policies: what a cluster's administrators put in front of the store.
use serde_json::{Value, json};

use super::{
    faults::Verb,
    kinds::{Kind, PODS},
    object::meta_text,
    refusal::Refusal,
    store::Store,
    write::Caller,
};

/// What a policy looks at.
pub struct Review<'a> {
    pub caller: &'a Caller,
    pub kind: &'static Kind,
    pub verb: Verb,
    /// As it would be stored.
    pub object: &'a Value,
    /// As it is stored.
    pub old: Option<&'a Value>,
    pub store: &'a Store,
}

/// Says no, or nothing.
pub type Policy = Box<dyn FnMut(&Review<'_>) -> Result<(), Refusal> + Send>;
/// Changes what is written.
pub type Mutation = Box<dyn FnMut(&Caller, &'static Kind, &mut Value) + Send>;

/// All policies.
#[derive(Default)]
pub struct Admission {
    mutations: Vec<Mutation>,
    policies: Vec<(String, Policy)>,
}

impl Admission {
    /// Adds a mutation; they run in the order they were added.
    pub fn add_mutation(&mut self, mutation: Mutation) {
        self.mutations.push(mutation);
    }

    /// Adds a policy, or puts it in the place of that of the same name.
    pub fn set_policy(&mut self, name: &str, policy: Option<Policy>) {
        self.policies.retain(|(known, _)| known != name);
        self.policies.extend(policy.map(|policy| (name.to_owned(), policy)));
    }

    pub(super) fn mutate(&mut self, caller: &Caller, kind: &'static Kind, object: &mut Value) {
        self.mutations.iter_mut().for_each(|mutation| mutation(caller, kind, object));
    }

    pub(super) fn check(
        &mut self,
        caller: &Caller,
        kind: &'static Kind,
        verb: Verb,
        object: &Value,
        old: Option<&Value>,
        store: &Store,
    ) -> Result<(), Refusal> {
        let review = Review { caller, kind, verb, object, old, store };
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

/// Pod security in a namespace: `is_restricted` tells which Pods break it.
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
pub fn policy(name: &str, denies: impl Fn(&Review<'_>) -> Option<String> + Send + 'static) -> Policy {
    let name = name.to_owned();
    Box::new(move |review| match denies(review) {
        None => Ok(()),
        Some(sentence) => {
            let why = format!("ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: {sentence}");
            let mut refusal = Refusal::forbidden(review.kind, meta_text(review.object, "name"), &why);
            refusal.code = 422;
            refusal.reason = "Invalid";
            refusal.details["causes"] = json!([{"message": why}]);
            Err(refusal)
        }
    })
}
