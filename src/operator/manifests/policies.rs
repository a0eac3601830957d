//! What keeps the Leases of the hand-off right also against a faulty agent: the agents' Role, and a ValidatingAdmissionPolicy.
//!
//! RBAC knows no labels and no Pods: an account that may write one Lease of a namespace may write them all. So the API server is
//! told what the hand-off allows: a Pod, by the identity in its own token, writes its session and the listeners that it
//! holds; epochs never go back. What is checked needs no other object: whether a holder is dead or its session fenced is
//! left to compare-and-swap.
use serde_json::{Value, json};

use crate::api::{
    names::{self, GROUP},
    session::SessionProfile,
};

/// Name of the agents' ClusterRole.
pub const AGENT_ROLE: &str = "baton-agent";
/// Name of the policy and of its binding.
pub const POLICY: &str = "baton-leases";

/// Characters of what an agent may note on an ownership Lease: of those, there may be ten thousand.
const NOTE_CHARS_MAX: usize = 4_096;
/// Characters of what an agent may say in one annotation of its session: longer ones are not read
/// (`ANNOTATION_BYTES_MAX` of the index).
const REPORT_CHARS_MAX: usize = 32 * 1_024;
/// Reports in one session: one for each ListenerSet of which the Pod has listeners.
const REPORTS_MAX: usize = 256;
/// Characters of an identity: a Pod's name (253), its uid (36), boot and random text need 310.
const HOLDER_CHARS_MAX: usize = 400;
/// Times that an agent writes, as its clock tells them: later ones are beyond what programs can hold.
const TIMES: [&str; 2] = ["2000-01-01T00:00:00Z", "2200-01-01T00:00:00Z"];
/// By how much one write may raise an epoch: 2^31 - 1 in one write would leave none for the next owner.
const EPOCHS_PER_WRITE: u32 = 1_000;

/// For the ServiceAccounts of Pods with an agent. No `create`: a Lease that is gone stays gone; no `delete`.
pub fn agent_rules() -> Value {
    json!([{
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "list", "watch", "update", "patch"],
    }])
}

/// The policy, and what puts it into force everywhere. It selects by label: Leases of others are never looked at.
pub fn leases(labels: &Value) -> [Value; 2] {
    let policy = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            // Of the old object or of the new: neither giving nor taking the label goes unseen.
            "objectSelector": {"matchExpressions": [{"key": names::LABEL_LEASE, "operator": "Exists"}]},
            "resourceRules": [{
                "apiGroups": ["coordination.k8s.io"],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE", "DELETE"],
                "resources": ["leases"],
                "scope": "Namespaced",
            }],
        },
        "variables": super::named(variables()),
        "validations": validations(),
    });
    super::installed(POLICY, labels, &policy)
}

/// Each is evaluated when it is first used, so that what follows `||` costs only those who need it.
fn variables() -> Vec<(&'static str, String)> {
    let (session, listener) = (names::LEASE_SESSION, names::LEASE_LISTENER);
    let claim = |name: &str| format!("request.userInfo.?extra[?'authentication.kubernetes.io/{name}'][?0].orValue('')");
    let spec = |field: &str, default: &str| {
        ["oldObject", "object"].map(|object| format!("{object}.?spec.?{field}.orValue({default})"))
    };
    let metadata = |field: &str, default: &str| {
        ["oldObject", "object"].map(|object| format!("{object}.metadata.?{field}.orValue({default})"))
    };
    let [old_holder, holder] = spec("holderIdentity", "''");
    let [old_epoch, epoch] = spec("leaseTransitions", "0");
    let [old_duration, duration] = spec("leaseDurationSeconds", "0");
    let [old_labels, labels] = metadata("labels", "{}");
    let [old_notes, notes] = metadata("annotations", "{}");
    let [old_owners, owners] = metadata("ownerReferences", "[]");
    let kind = |kind: &str| format!("variables.update && variables.kind == '{kind}'");
    // Persons with rights, and accounts that may write what only the operator writes: operators of every release, the garbage
    // collector, administrators' Pods.
    let writes_status = |verb: &str| {
        format!(
            "authorizer.group('{GROUP}').resource('listenersets').subresource('status')\n  \
             .namespace(request.namespace).check('{verb}').allowed()"
        )
    };
    let trusted = format!(
        "!request.userInfo.username.startsWith('system:serviceaccount:')\n|| {}\n|| {}",
        writes_status("update"),
        writes_status("patch")
    );
    vec![
        ("update", "request.operation == 'UPDATE'".into()),
        ("trusted", trusted),
        ("pod", claim("pod-name")),
        ("uid", claim("pod-uid")),
        ("me", "variables.pod + '/' + variables.uid + '/'".into()),
        ("kind", format!("oldObject.metadata.?labels[?'{}'].orValue('')", names::LABEL_LEASE)),
        ("session", kind(session)),
        ("listener", kind(listener)),
        ("oldHolder", old_holder),
        ("holder", holder),
        ("oldEpoch", old_epoch),
        ("epoch", epoch),
        ("oldDuration", old_duration),
        ("duration", duration),
        ("oldLabels", old_labels),
        ("labels", labels),
        ("oldNotes", old_notes),
        ("notes", notes),
        ("oldOwners", old_owners),
        ("owners", owners),
    ]
}

/// Each holds for everybody whom it does not excuse. The first that fails is what the writer is told.
fn validations() -> Vec<Value> {
    let rule = |expression: String, message: &str| json!({"expression": expression, "message": message});
    let or_trusted = |expression: &str, message: &str| rule(format!("{expression}\n|| variables.trusted"), message);
    let expires = [SessionProfile::Fast, SessionProfile::Calm].map(|profile| profile.times().expire.as_secs());
    let [shortest, longest] = expires;

    let is_holder = format!("key == '{}'", names::LABEL_HOLDER);
    let free =
        [names::ANNOTATION_STATE, names::ANNOTATION_FROM, names::ANNOTATION_REVISION, names::ANNOTATION_STOPPED_AT];
    let is_free = format!("key in ['{}']", free.join("', '"));

    let mut own = or_trusted(
        "!variables.update\n\
         || variables.uid != '' && (\n  \
         variables.session\n  \
         && oldObject.metadata.name == 'session.' + variables.pod\n  \
         && variables.oldOwners.exists(owner, owner.kind == 'Pod' && owner.uid == variables.uid)\n  \
         || variables.listener && variables.oldHolder.startsWith(variables.me))",
        "a Pod may write its own session and the listeners that it holds, no other Lease of Baton's",
    );
    own["messageExpression"] = json!(
        "'a Pod may write its own session and the listeners that it holds: ' + oldObject.metadata.name + ' is not of '\n\
         + (variables.uid == '' ? request.userInfo.username + ', whose token is no Pod\\'s' : 'Pod ' + variables.pod)"
    );
    let mut epoch = rule(
        "!variables.update || variables.epoch >= variables.oldEpoch".into(),
        "spec.leaseTransitions never goes back: it tells a later owner from an earlier one",
    );
    epoch["messageExpression"] = json!(
        "'spec.leaseTransitions never goes back, from ' + string(variables.oldEpoch) + ' to '\n\
         + string(variables.epoch) + ': it tells a later owner from an earlier one'"
    );
    let mut step = rule(
        format!("!variables.update || variables.epoch <= variables.oldEpoch + {EPOCHS_PER_WRITE}"),
        "spec.leaseTransitions rises by at most 1000 in one write: 2147483647 is the last one that a Lease can hold",
    );
    step["messageExpression"] = json!(format!(
        "'spec.leaseTransitions rises by at most {EPOCHS_PER_WRITE} in one write, not from ' + string(variables.oldEpoch)\n\
         + ' to ' + string(variables.epoch) + ': 2147483647 is the last one that a Lease can hold'"
    ));
    let is_said = format!("key == '{}' || key.startsWith('{}')", names::ANNOTATION_AGENT, names::REPORT_PREFIX);
    let [first, last] = TIMES;
    vec![
        epoch,
        step,
        // A missing Lease means stop, so that a deletion is safe: of a namespace it is let through.
        or_trusted(
            "variables.update\n|| request.operation == 'DELETE' && has(namespaceObject.metadata.deletionTimestamp)",
            "only Baton's operator creates and deletes Leases with the label baton.dev/lease",
        ),
        own,
        or_trusted(
            &format!(
                "!variables.session && !variables.listener\n\
                 || size(variables.holder) <= {HOLDER_CHARS_MAX}\n  \
                 && [object.?spec.?acquireTime, object.?spec.?renewTime].all(time, !time.hasValue()\n    \
                 || timestamp(time.value()) >= timestamp('{first}')\n    \
                 && timestamp(time.value()) < timestamp('{last}'))\n  \
                 && object.?spec.?preferredHolder == oldObject.?spec.?preferredHolder\n  \
                 && object.?spec.?strategy == oldObject.?spec.?strategy"
            ),
            &format!(
                "an agent writes holderIdentity of at most {HOLDER_CHARS_MAX} characters, acquireTime and renewTime of \
                 the years 2000 to 2199, and neither preferredHolder nor strategy"
            ),
        ),
        or_trusted(
            &format!(
                "!variables.session\n\
                 || variables.holder.startsWith(variables.me + string(variables.epoch) + '-')\n  \
                 && (variables.epoch == variables.oldEpoch + 1\n    \
                 || variables.epoch == variables.oldEpoch && variables.holder == variables.oldHolder\n    \
                 && object.spec.?acquireTime == oldObject.spec.?acquireTime)\n  \
                 && (variables.duration == variables.oldDuration\n    \
                 || variables.duration >= {shortest} && variables.duration <= {longest})"
            ),
            &format!(
                "a session is claimed with holderIdentity <pod>/<uid>/<boot>-<random> and leaseTransitions = boot, one \
                 more than before, or renewed by the boot that holds it; leaseDurationSeconds is {shortest} to \
                 {longest}; what is fenced stays fenced until the next boot claims it"
            ),
        ),
        or_trusted(
            "!variables.listener\n\
             || variables.duration == variables.oldDuration\n  \
             && (variables.epoch == variables.oldEpoch + 1\n    \
             || variables.epoch == variables.oldEpoch && variables.holder == variables.oldHolder)",
            "a listener changes hands with leaseTransitions one more than before, and never by more than one; its \
             leaseDurationSeconds stays",
        ),
        or_trusted(
            &format!(
                "!variables.session\n\
                 || object.metadata.?finalizers == oldObject.metadata.?finalizers\n  \
                 && variables.labels == variables.oldLabels\n  \
                 && variables.owners == variables.oldOwners\n  \
                 && {}",
                same_notes_but(&is_said),
            ),
            "of its session's metadata an agent changes annotations baton.dev/agent and report.baton.dev/* only",
        ),
        or_trusted(
            &format!(
                "!variables.session\n\
                 || variables.notes.all(key, !({is_said}) || size(variables.notes[key]) <= {REPORT_CHARS_MAX})\n  \
                 && variables.notes.filter(key, {is_said}).size() <= {REPORTS_MAX}"
            ),
            &format!(
                "an agent has at most {REPORTS_MAX} annotations report.baton.dev/* in its session, each of at most \
                 {REPORT_CHARS_MAX} characters"
            ),
        ),
        or_trusted(
            &format!(
                "!variables.listener\n\
                 || object.metadata.?finalizers == oldObject.metadata.?finalizers\n  \
                 && variables.oldLabels.all(key, {is_holder} || key in variables.labels)\n  \
                 && variables.labels.all(key, {is_holder} || variables.oldLabels[?key] == optional.of(variables.labels[key]))\n  \
                 && {}\n  \
                 && variables.notes.all(key, !({is_free}) || size(variables.notes[key]) <= {NOTE_CHARS_MAX})",
                same_notes_but(&is_free),
            ),
            &format!(
                "of a listener's metadata its owner changes label baton.dev/holder and annotations baton.dev/state, from, \
                 revision and stopped-at only, each of at most {NOTE_CHARS_MAX} characters"
            ),
        ),
        or_trusted(
            "!variables.listener\n\
             || variables.oldOwners.all(owner, owner.kind == 'Pod' || owner in variables.owners)\n  \
             && variables.owners.all(owner, owner in variables.oldOwners\n    \
             || owner.apiVersion == 'v1' && owner.kind == 'Pod'\n    \
             && variables.holder.startsWith(owner.name + '/' + owner.uid + '/')\n    \
             && !owner.?controller.orValue(false) && !owner.?blockOwnerDeletion.orValue(false))",
            "of a listener's owner references the ListenerSet's stays, and the only one that may come is of the Pod that \
             holderIdentity names",
        ),
    ]
}

/// No annotation has come, gone or changed but those (`key`) of which the expression holds.
fn same_notes_but(free: &str) -> String {
    format!(
        "variables.oldNotes.all(key, {free} || key in variables.notes)\n  \
         && variables.notes.all(key, {free} || variables.oldNotes[?key] == optional.of(variables.notes[key]))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::manifests::rules;

    /// The policy trusts accounts that may write a ListenerSet's status, so that an operator that may write Leases of the
    /// hand-off must be one of them.
    #[test]
    fn the_operator_is_among_those_whom_the_policy_trusts() {
        let may = |resource: &str, verbs: &[&str]| {
            let rules = rules::where_rollouts_are();
            let rules = rules.as_array().unwrap().iter();
            rules
                .filter(|rule| rule["resources"].as_array().unwrap().contains(&json!(resource)))
                .any(|rule| verbs.iter().any(|verb| rule["verbs"].as_array().unwrap().contains(&json!(verb))))
        };
        let writes_leases = may("leases", &["create", "update", "patch", "delete"]);
        assert!(!writes_leases || may("listenersets/status", &["update", "patch"]));
    }

    /// An error in an expression refuses the write; one in front of `||` would refuse even the operator's.
    #[test]
    fn what_the_policy_trusts_is_refused_for_epochs_only() {
        let [policy, _] = leases(&json!({}));
        let validations = policy["spec"]["validations"].as_array().unwrap();
        let strict: Vec<_> = validations
            .iter()
            .filter(|rule| !rule["expression"].as_str().unwrap().ends_with("\n|| variables.trusted"))
            .map(|rule| rule["message"].as_str().unwrap())
            .collect();
        let epochs = [
            "spec.leaseTransitions never goes back: it tells a later owner from an earlier one",
            "spec.leaseTransitions rises by at most 1000 in one write: 2147483647 is the last one that a Lease can hold",
        ];
        assert_eq!(strict, epochs);
        assert!(validations.iter().all(|rule| rule["message"].as_str().is_some_and(|message| message.len() > 40)));
    }
}
