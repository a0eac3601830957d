//! Who says what Baton runs must be allowed to run it: two ValidatingAdmissionPolicies.
//!
//! The operator creates Pods and Jobs with rights of its own. So the right to write a Rollout would be the right to run any Pod
//! in its namespace, under any ServiceAccount there. The API server is told to ask whether the writer may create Pods or Jobs
//! himself. What a Job says of a hook decides about a run: the second policy leaves those Jobs to the operator.
use serde_json::{Value, json};

use super::{installed, named};
use crate::api::names::{self, GROUP};

/// Name of the policy on Rollouts and of its binding.
pub const ROLLOUTS: &str = "baton-rollouts";
/// Name of the policy on the Jobs of hooks and of its binding.
pub const HOOKS: &str = "baton-hooks";

/// Fields of a Rollout's spec that say what its Pods run. Not `selector`: nobody changes it, and none is set without a template.
const RUN: [&str; 2] = ["template", "package"];

/// What a Rollout runs is said by those who may run it. Only what is set or changed counts: steering takes no other right.
pub fn rollouts(labels: &Value) -> [Value; 2] {
    let may_create = |group: &str, resource: &str| {
        format!(
            "|| authorizer.group('{group}').resource('{resource}').namespace(request.namespace).check('create').allowed()"
        )
    };
    // `text` names the field and the namespace; `message` is told where `text` cannot be evaluated.
    let or_else = |expression: String, message: &str, text: &str| json!({"expression": expression, "reason": "Forbidden", "message": message, "messageExpression": text});
    let validations = json!([
        or_else(
            format!("variables.changed.size() == 0\n{}", may_create("", "pods")),
            "spec.template, spec.package, spec.pins: who sets or changes one of them must be allowed to create pods in the \
             namespace, because it says what Pods run there: ask for that right, or leave the field as it is",
            "variables.changed.join(', ') + ': who sets or changes this must be allowed to create pods in namespace '\n\
             + request.namespace + ', because it says what Pods run there: ask for that right, or leave it as it is'",
        ),
        or_else(
            format!("variables.hooks.all(hook, hook in variables.oldHooks)\n{}", may_create("batch", "jobs")),
            "spec.hooks: who adds or changes a hook must be allowed to create jobs.batch in the namespace, because a hook \
             runs any Pod there: ask for that right, or leave the hooks as they are",
            "'spec.hooks: who adds or changes a hook must be allowed to create jobs.batch in namespace '\n\
             + request.namespace + ', because a hook runs any Pod there: ask for that right, or leave the hooks as they are'",
        ),
    ]);
    let spec = json!({
        "failurePolicy": "Fail",
        // The subresources are not meant: of a spec, /scale writes the replicas, and /status nothing.
        "matchConstraints": {"resourceRules": [rule(GROUP, "v1alpha1", "rollouts")]},
        "variables": named(vec![
            ("before", "request.operation == 'CREATE' ? dyn({}) : dyn(oldObject.spec)".into()),
            ("now", "dyn(object.spec)".into()),
            ("oldPins", "variables.before.?pins.orValue([])".into()),
            ("pins", "variables.now.?pins.orValue([])".into()),
            ("oldHooks", "variables.before.?hooks.orValue([])".into()),
            ("hooks", "variables.now.?hooks.orValue([])".into()),
            ("changed", changed()),
        ]),
        "validations": validations,
    });
    installed(ROLLOUTS, labels, &spec)
}

/// Paths of the fields that now run something else. A pin that is taken from instances, or from some of those that it names,
/// runs nothing new: what is left are pins with other `instances`.
fn changed() -> String {
    let mut each: Vec<_> = RUN
        .iter()
        .map(|field| format!("(variables.now.?{field} == variables.before.?{field} ? [] : ['spec.{field}'])"))
        .collect();
    each.push(
        "(variables.pins.all(pin, pin in variables.oldPins || variables.oldPins.exists(old,\n    \
         pin.all(key, key == 'instances' || old[?key] == optional.of(pin[key]))\n    \
         && old.all(key, key in pin))) ? [] : ['spec.pins'])"
            .into(),
    );
    each.join("\n+ ")
}

/// Jobs with the label of hooks are written by who may write what hooks decide, the status of Rollouts. Their status is not
/// looked at: Kubernetes' Job controller writes it. Deleting them takes no more than that right: no Job is no success.
pub fn hooks(labels: &Value) -> [Value; 2] {
    let metadata =
        |field: &str| ["oldObject", "object"].map(|object| format!("{object}.metadata.?{field}.orValue({{}})"));
    let ([old_labels, new_labels], [old_notes, notes]) = (metadata("labels"), metadata("annotations"));
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            // Of the old object or of the new: neither giving nor taking the label goes unseen.
            "objectSelector": {"matchExpressions": [{"key": names::LABEL_HOOK, "operator": "Exists"}]},
            "resourceRules": [rule("batch", "v1", "jobs")],
        },
        "variables": named(vec![
            ("oldLabels", old_labels),
            ("labels", new_labels),
            ("oldNotes", old_notes),
            ("notes", notes),
        ]),
        "validations": [{
            "expression": format!(
                "request.operation == 'UPDATE' && object.spec == oldObject.spec\n  \
                 && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences\n  \
                 && variables.labels == variables.oldLabels && variables.notes == variables.oldNotes\n\
                 || authorizer.group('{GROUP}').resource('rollouts').subresource('status')\n  \
                 .namespace(request.namespace).check('update').allowed()"
            ),
            "reason": "Forbidden",
            "message": format!(
                "a Job with the label {} says whether a hook of a Rollout has succeeded: only who may update \
                 rollouts/status in its namespace creates or changes it; use another label, or delete the Job",
                names::LABEL_HOOK
            ),
        }],
    });
    installed(HOOKS, labels, &spec)
}

fn rule(group: &str, version: &str, resource: &str) -> Value {
    json!({
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
        "scope": "Namespaced",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::manifests::{objects, rules};

    fn validations(policy: &[Value; 2]) -> &Vec<Value> {
        policy[0]["spec"]["validations"].as_array().unwrap()
    }

    /// The policy on Jobs lets those through who may update a Rollout's status, so that an operator that may create Jobs must be
    /// one of them.
    #[test]
    fn the_operator_is_among_those_who_may_write_jobs_of_hooks() {
        let may = |resource: &str, verb: &str| {
            let rules = rules::where_rollouts_are();
            rules.as_array().unwrap().iter().any(|rule| {
                let has = |field: &str, word: &str| rule[field].as_array().unwrap().contains(&json!(word));
                has("resources", resource) && has("verbs", verb)
            })
        };
        assert!(may("jobs", "create") && may("rollouts/status", "update"));
    }

    /// A field of another name would never differ, and so be free for all.
    #[test]
    fn the_policy_looks_at_fields_that_a_spec_has() {
        let crds = objects::crds().unwrap();
        let (_, crd) = crds.iter().find(|(file, _)| file == "rollouts.yaml").unwrap();
        let fields = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        for field in RUN.iter().chain(&["pins", "hooks"]) {
            assert!(fields[*field].is_object(), "{field}");
        }
        assert!(fields["pins"]["items"]["properties"]["instances"].is_object());
        assert_eq!(crd["spec"]["versions"].as_array().unwrap().len(), 1, "the policy names one version");
        assert_eq!(crd["spec"]["versions"][0]["name"], "v1alpha1");
    }

    /// What is refused is for want of a right, and says of which.
    #[test]
    fn each_refusal_is_403_and_names_the_right() {
        let labels = json!({});
        let (rollouts, hooks) = (rollouts(&labels), hooks(&labels));
        let all: Vec<_> = validations(&rollouts).iter().chain(validations(&hooks)).collect();
        let rights = ["create pods", "create jobs.batch", "update rollouts/status"];
        assert_eq!(all.len(), rights.len());
        for (rule, right) in all.iter().zip(rights) {
            assert_eq!(rule["reason"], "Forbidden");
            let message = rule["message"].as_str().unwrap();
            assert!(message.contains(right) && !message.contains('\n'), "{message}");
            let text = rule["messageExpression"].as_str().unwrap_or(message);
            assert!(text.contains(right), "{text}");
            // The right is asked for last: most writes need none.
            let (free, asked) = rule["expression"].as_str().unwrap().split_once("\n|| authorizer.").unwrap();
            assert!(!free.contains("authorizer") && asked.ends_with(".allowed()"), "{rule}");
        }
    }
}
