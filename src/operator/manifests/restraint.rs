//! What keeps the operator's own account to what Baton is for, in any hands: a ValidatingAdmissionPolicy.
//!
//! RBAC knows verbs and kinds. A program that may create Pods may create them for anybody, and one that may patch Leases may
//! take any leader's lock. So the API server is told which objects are Baton's. What an owner reference says it takes on trust:
//! it cannot see whether that Rollout exists.
use serde_json::{Value, json};

use super::{objects, rules};
use crate::api::names;

/// Name of the policy and of its binding.
pub const POLICY: &str = "baton-operator";

/// The policy, and what puts it into force everywhere. `named`: a list of CEL, the namespaces `kube-*` that the operator
/// serves. It holds for the operators of all releases: their ServiceAccounts have one name.
pub fn operator(labels: &Value, named: &str) -> [Value; 2] {
    let rule = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": resources,
            "scope": "Namespaced",
        })
    };
    let policy = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [
            rule("", &["pods", "pods/resize", "pods/status", "services"]),
            rule("apps", &["controllerrevisions"]),
            rule("batch", &["jobs"]),
            rule("coordination.k8s.io", &["leases"]),
        ]},
        "matchConditions": [{
            "name": "the-operator",
            "expression": format!("request.userInfo.username.matches('^system:serviceaccount:[^:]+:{}$')", objects::NAME),
        }],
        "variables": super::named(variables()),
        "validations": validations(named),
    });
    super::installed(POLICY, labels, &policy)
}

/// Each is evaluated when it is first used. `before` and `now`: the object as it was and as it will be; of one that comes or
/// goes, both are that object. They are of any type, because one policy looks at several kinds.
fn variables() -> Vec<(&'static str, String)> {
    let metadata = |field: &str, default: &str| {
        ["before", "now"].map(|object| format!("variables.{object}.metadata.?{field}.orValue({default})"))
    };
    let [old_labels, labels] = metadata("labels", "{}");
    let [old_notes, notes] = metadata("annotations", "{}");
    let controllers = |object: &str| {
        format!(
            "variables.{object}.metadata.?ownerReferences.orValue([]).filter(owner, owner.?controller.orValue(false))"
        )
    };
    let selector = |object: &str| format!("variables.{object}.spec.?selector.orValue({{}})");
    vec![
        ("resource", "request.resource.resource".into()),
        ("before", "request.operation == 'CREATE' ? dyn(object) : dyn(oldObject)".into()),
        ("now", "request.operation == 'DELETE' ? dyn(oldObject) : dyn(object)".into()),
        (
            "isLock",
            format!(
                "variables.resource == 'leases' && variables.now.metadata.name == '{}'\n\
                 && request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':{}'",
                rules::LEASE,
                objects::NAME
            ),
        ),
        ("oldLabels", old_labels),
        ("labels", labels),
        ("oldNotes", old_notes),
        ("notes", notes),
        ("oldControllers", controllers("before")),
        ("controllers", controllers("now")),
        ("oldSelector", selector("before")),
        ("selector", selector("now")),
    ]
}

fn validations(named: &str) -> Vec<Value> {
    let rule = |expression: String, message: &str| json!({"expression": expression, "message": message});
    let of_a_rollout = format!("owner, owner.kind == 'Rollout' && owner.apiVersion.startsWith('{}/')", names::GROUP);
    let (label, agent) = (names::LABEL_ROLLOUT, names::LABEL_AGENT);
    let accepts = names::ANNOTATION_LISTENER_SETS;
    let key = format!("key == '{}'", names::LABEL_REVISION);
    let is_noted = format!(
        "key in ['{}', '{}', '{}']",
        names::ANNOTATION_SWITCHED_AT,
        names::ANNOTATION_SWITCHED_FROM,
        names::ANNOTATION_OVERTAKEN
    );
    vec![
        rule(
            // Of two lines, so that it stands in a block of YAML, where the names need no other quotes.
            format!("!request.namespace.startsWith('kube-')\n|| request.namespace in {named} || variables.isLock"),
            "Baton's operator writes nothing in namespaces kube-*, unless watchNamespaces of its chart names them",
        ),
        // Adoption: what an earlier Rollout of the same name has left has no controller.
        rule(
            format!(
                "!(variables.resource in ['pods', 'controllerrevisions'])\n\
                 || variables.controllers.exists({of_a_rollout}\n  \
                 && (variables.oldControllers.exists(old, old.uid == owner.uid)\n    \
                 || variables.oldControllers.size() == 0 && variables.oldLabels[?'{label}'] == optional.of(owner.name)))\n\
                 || request.operation == 'DELETE' && variables.resource == 'pods'\n  \
                 && variables.oldLabels[?'{agent}'] == optional.of('true') && '{accepts}' in variables.oldNotes"
            ),
            "Baton's operator writes Pods and ControllerRevisions that a Rollout controls, and deletes Pods that accept a \
             ListenerSet; no others",
        ),
        rule(
            format!(
                "variables.resource != 'pods' || request.operation != 'CREATE'\n\
                 || variables.controllers.exists(owner, variables.labels[?'{label}'] == optional.of(owner.name))"
            ),
            "Baton's operator creates Pods whose label baton.dev/rollout names the Rollout that controls them",
        ),
        rule(
            format!(
                "variables.resource != 'jobs'\n\
                 || '{hook}' in variables.oldLabels && '{hook}' in variables.labels\n  \
                 && variables.controllers.exists({of_a_rollout}\n    \
                 && variables.labels[?'{label}'] == optional.of(owner.name))",
                hook = names::LABEL_HOOK
            ),
            "Baton's operator writes Jobs with the label baton.dev/hook whose label baton.dev/rollout names the Rollout that \
             controls them; no others",
        ),
        rule(
            format!(
                "request.?subResource.orValue('') != 'status'\n\
                 || variables.labels == variables.oldLabels && variables.notes == variables.oldNotes\n  \
                 && variables.now.status.all(key, key == 'conditions' || variables.before.status[?key] == optional.of(variables.now.status[key]))\n  \
                 && variables.before.status.all(key, key == 'conditions' || key in variables.now.status)\n  \
                 && variables.now.status.?conditions.orValue([]).filter(one, !one.type.startsWith('{prefix}'))\n    \
                 == variables.before.status.?conditions.orValue([]).filter(one, !one.type.startsWith('{prefix}'))",
                prefix = names::RESERVED_PREFIX
            ),
            "of a Pod's status Baton's operator writes conditions baton.dev/* only",
        ),
        rule(
            format!(
                "variables.resource != 'leases' || variables.isLock\n\
                 || '{lease}' in variables.oldLabels && '{lease}' in variables.labels",
                lease = names::LABEL_LEASE
            ),
            "Baton's operator writes Leases with the label baton.dev/lease and its own lock, no others",
        ),
        rule(
            format!(
                "variables.resource != 'services' || request.operation == 'UPDATE'\n  \
                 && variables.labels == variables.oldLabels\n  \
                 && variables.now.metadata.?ownerReferences == variables.before.metadata.?ownerReferences\n  \
                 && variables.now.metadata.?finalizers == variables.before.metadata.?finalizers\n  \
                 && variables.notes.all(key, {is_noted} || variables.oldNotes[?key] == optional.of(variables.notes[key]))\n  \
                 && variables.oldNotes.all(key, {is_noted} || key in variables.notes)\n  \
                 && variables.now.spec.all(key, key == 'selector' || variables.before.spec[?key] == optional.of(variables.now.spec[key]))\n  \
                 && variables.before.spec.all(key, key == 'selector' || key in variables.now.spec)"
            ),
            "of a Service Baton's operator writes the selector and the annotations baton.dev/switched-at, switched-from \
             and overtaken only",
        ),
        rule(
            format!(
                "variables.resource != 'services'\n\
                 || variables.oldSelector.all(key, {key} || variables.selector[?key] == optional.of(variables.oldSelector[key]))\n  \
                 && variables.selector.all(key, {key} || variables.oldSelector[?key] == optional.of(variables.selector[key])\n    \
                 || !variables.oldSelector.exists(key, !({key})))"
            ),
            "of a Service's selector Baton's operator writes the key baton.dev/revision only, and all of it where it is empty",
        ),
        rule(
            format!(
                "variables.resource != 'services' || '{}' in variables.oldNotes\n\
                 || variables.selector.all(key, variables.oldSelector[?key] == optional.of(variables.selector[key]))",
                names::ANNOTATION_ROLLOUT
            ),
            "Baton's operator sets the selector of Services with the annotation baton.dev/rollout only",
        ),
    ]
}
