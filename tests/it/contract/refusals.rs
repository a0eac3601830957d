//! Refusals whose words we read: the same words from both servers.
use serde_json::{Value, json};

use super::{Servers, objects, side::Side, step::Step};
use crate::fake_apiserver::{
    admission,
    kinds::{PODS, ROLLOUTS},
};

/// Code, reason and message of what a create of this Pod is answered, by each.
async fn refusals(fake: &mut Side, real: &mut Side, pod: &Value) -> [(u16, Value); 2] {
    let step = Step::create(&PODS, pod.clone());
    [fake.ask(&step).await, real.ask(&step).await]
}

fn assert_alike([fake, real]: &[(u16, Value); 2], code: u16, words: &[&str]) {
    for (found, body) in [fake, real] {
        assert_eq!(*found, code, "{body}");
        for word in words {
            assert!(body["message"].as_str().is_some_and(|message| message.contains(word)), "{word}: {body}");
        }
    }
    assert_eq!(fake.1["reason"], real.1["reason"], "{real:?}");
}

/// Sends what the fake has no kind for, or does otherwise, to the real one.
async fn set_up(real: &Side, path: &str, object: Value) {
    let (code, body) = real.post(path, &object).await;
    assert_eq!(code, 201, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exceeded_quota_is_told_alike() {
    let servers = Servers::start().await;
    let [mut fake, mut real] = servers.sides("quota").await;
    servers.fake.set_policy("quota", Some(admission::pod_quota("quota", 1)));
    let quota = json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "1"}}});
    set_up(&real, "/api/v1/namespaces/quota/resourcequotas", quota).await;
    // The quota is in force when its status is there.
    let status = || real.fetch("/api/v1/namespaces/quota/resourcequotas/pods");
    while status().await.1["status"]["hard"].is_null() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let first = refusals(&mut fake, &mut real, &objects::valid(&PODS, "a", 1)).await;
    assert!(first.iter().all(|(code, _)| *code == 201), "{first:?}");
    let second = refusals(&mut fake, &mut real, &objects::valid(&PODS, "b", 1)).await;
    assert_alike(
        &second,
        403,
        &[r#"pods "b" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=1, limited: pods=1"#],
    );
    // What makes no sense is refused before anything is counted.
    let invalid = refusals(&mut fake, &mut real, &objects::invalid(&PODS, "c")).await;
    assert_alike(&invalid, 422, &["spec.containers: Required value"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_pod_security_is_told_alike() {
    let servers = Servers::start().await;
    let [mut fake, mut real] = servers.sides("security").await;
    let is_privileged = |pod: &Value| pod["spec"]["containers"][0]["securityContext"]["privileged"] == true;
    servers.fake.set_policy("security", Some(admission::pod_security("security", is_privileged)));
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let (code, body) = real.merge("/api/v1/namespaces/security", &label).await;
    assert_eq!(code, 200, "{body}");
    let mut pod = objects::valid(&PODS, "a", 1);
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = refusals(&mut fake, &mut real, &pod).await;
    assert_alike(&refused, 403, &[r#"pods "a" is forbidden: violates PodSecurity"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_are_told_alike() {
    let servers = Servers::start().await;
    let [fake, real] = servers.sides("rules").await;
    let changes: [(&str, Value); 7] = [
        ("/spec/selector", json!({"matchLabels": {"app": "other"}})),
        ("/spec/strategy", json!({"maxSurge": 0, "maxUnavailable": 0})),
        ("/spec/strategy", json!({"batchSize": 1, "batches": [{"upTo": 1}]})),
        ("/spec/template/spec/restartPolicy", json!("Never")),
        ("/spec/template/metadata/labels", json!({"app": "web", "baton.dev/instance": "7"})),
        ("/spec/minReadySeconds", json!(700)),
        ("/metadata/name", json!("a".repeat(41))),
    ];
    let mut wrong = Vec::new();
    for (path, to) in changes {
        let mut rollout = objects::valid(&ROLLOUTS, "a", 1);
        let (parent, field) = path.rsplit_once('/').unwrap();
        rollout.pointer_mut(parent).unwrap()[field] = to.clone();
        let step = Step::create(&ROLLOUTS, rollout);
        let told = [fake.ask(&step).await, real.ask(&step).await].map(|(code, body)| {
            let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
            let causes = causes.iter().map(|cause| format!("{}: {}", cause["field"], cause["message"]));
            (code, causes.collect::<Vec<_>>())
        });
        if told[0].0 != 422 || told[0] != told[1] {
            wrong.push(format!("{path} {to}\n  fake: {:?}\n  real: {:?}", told[0], told[1]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_by_policy_is_told_alike() {
    let servers = Servers::start().await;
    let [mut fake, mut real] = servers.sides("policy").await;
    let denies = |review: &admission::Review<'_>| {
        let is_denied = *review.kind == PODS && review.object["metadata"]["labels"]["denied"] == "yes";
        is_denied.then(|| "not this one".to_owned())
    };
    servers.fake.set_policy("policy", Some(admission::policy("contract-pods", denies)));
    let group = "/apis/admissionregistration.k8s.io/v1";
    let in_namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": "policy"}});
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    let validation = json!([{
        "expression": "!has(object.metadata.labels) || !('denied' in object.metadata.labels)", "message": "not this one",
    }]);
    let policy = json!({"metadata": {"name": "contract-pods"}, "spec": {
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules, "namespaceSelector": in_namespace},
        "validations": validation,
    }});
    let binding = json!({"metadata": {"name": "contract-pods"}, "spec": {
        "policyName": "contract-pods", "validationActions": ["Deny"],
    }});
    set_up(&real, &format!("{group}/validatingadmissionpolicies"), policy).await;
    set_up(&real, &format!("{group}/validatingadmissionpolicybindings"), binding).await;
    let mut pod = objects::valid(&PODS, "a", 1);
    pod["metadata"]["labels"]["denied"] = json!("yes");
    // A policy takes a moment until it is in force.
    let dry_run = Step::create(&PODS, pod.clone()).dry_run();
    while real.ask(&dry_run).await.0 == 201 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let refused = refusals(&mut fake, &mut real, &pod).await;
    let sentence =
        "ValidatingAdmissionPolicy 'contract-pods' with binding 'contract-pods' denied request: not this one";
    assert_alike(&refused, 422, &[sentence]);
}
