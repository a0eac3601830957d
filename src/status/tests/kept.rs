//! What is told of failed Pods that are kept for a look.
use std::sync::Arc;

use serde_json::json;

use super::{state, status_of};
use crate::{
    api::names::ANNOTATION_HAS_AGENT,
    plan::rollout::tests::fixture::{Fixture, at},
    snapshot::specimen::Specimen,
};

/// Back at `a` after `b` has failed, with these Pods kept until so many seconds from now.
fn gone_back(kept: &[(i32, i64)]) -> Fixture {
    let spec = json!({"strategy": {"maxSurge": 1, "keepFailed": {"pods": 2}}});
    let mut fixture = Fixture::new("a a", 'b', spec);
    let b = fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap();
    (b.failed_at, b.failed_reason) = (Some(at(-1)), Some("CrashLoopBackOff: web-0: container web: Error".into()));
    for (slot, until) in kept {
        let mut pod = Fixture::new("b!", 'b', json!({})).snapshot.pods.remove(0);
        let specimen = Specimen { until: at(*until), run: 7, slot: *slot, revision: "b".into(), labels: [].into() };
        let changed = Arc::make_mut(&mut pod);
        (changed.name, changed.slot, changed.specimen) = (format!("web-{slot}-b"), *slot, Some(specimen));
        fixture.snapshot.specimens.push(pod);
    }
    fixture.settled()
}

fn says(fixture: &Fixture) -> String {
    state(&status_of(&fixture.snapshot))
}

const REMEDY: &str = "change the spec, or kubectl baton retry web (spec.retryAt) to try it again";

/// B7 C9
#[test]
fn a_pod_that_is_kept_is_named_with_what_to_do() {
    let failed = "Failed RolledBack: b failed (CrashLoopBackOff: web-0: container web: Error); all 2 instances run a";
    let until = |second| crate::status::text::seconds(at(second)).0;
    assert_eq!(says(&gone_back(&[])), format!("{failed}: {REMEDY}"));
    let one = format!("; web-0-b is kept until {} (kubectl logs web-0-b)", until(60));
    assert_eq!(says(&gone_back(&[(0, 60)])), format!("{failed}{one}: {REMEDY}"));
    let newest = format!("; web-1-b is kept until {} (kubectl logs web-1-b)", until(90));
    let others = ", and 1 other Pod (kubectl get pods -l baton.dev/kept=web)";
    assert_eq!(says(&gone_back(&[(0, 60), (1, 90)])), format!("{failed}{newest}{others}: {REMEDY}"));
}

/// Its logs are about to go.
#[test]
fn a_pod_that_ends_is_not_named() {
    let mut fixture = gone_back(&[(0, 60)]);
    Arc::make_mut(&mut fixture.snapshot.specimens[0]).deletion = Some(at(30));
    assert!(!says(&fixture).contains("kept"), "{}", says(&fixture));
}

/// Its listeners would run twice.
#[test]
fn where_pods_have_agents_it_is_told_that_none_is_kept() {
    let mut fixture = gone_back(&[]);
    let annotations = json!({ANNOTATION_HAS_AGENT: "own"});
    fixture.snapshot.rollout.spec.template.0["metadata"]["annotations"] = annotations;
    let data = crate::plan::revision::data(&fixture.snapshot.rollout.spec);
    fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap().data = data;
    let said = says(&fixture.settled());
    assert!(said.ends_with(&format!("run a; no Pod is kept: those with an agent never are: {REMEDY}")), "{said}");
}
