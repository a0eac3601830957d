//! What holds what, and which of several holds is shown: a row per class of work and gate.
use serde_json::json;

use super::{
    fixture::{Fixture, at, say},
    specimens::with_specimen,
};
use crate::{
    api::status::Failed,
    plan::{
        Change,
        HoldReason::{self, *},
        PodAct, PodReason,
        rollout::plan,
    },
    snapshot::TemplateCheck,
};

/// Makes the gate's reason true in a world with a run towards `revision`.
fn close(fixture: &mut Fixture, gate: HoldReason, revision: &str) {
    let spec = &mut fixture.snapshot.rollout.spec;
    match gate {
        Deleting => fixture.snapshot.rollout.metadata.deletion_timestamp = Some(crate::api::Time(at(0))),
        SpecInvalid => spec.selector.match_labels.clear(),
        TemplateRefused => {
            let refused = TemplateCheck::Refused { message: "policy".into(), recheck_at: at(60) };
            fixture.snapshot.template_checks.insert(revision.into(), refused);
        }
        TemplateUnchecked => drop(fixture.snapshot.template_checks.remove(revision)),
        FailureThreshold => {
            spec.strategy.on_failure = crate::api::rollout::OnFailure::Pause;
            let status = fixture.snapshot.rollout.status.as_mut().unwrap();
            let (run, at) = (status.run.unwrap(), Some(crate::api::Time(at(-1))));
            let (revision, reason) = (revision.into(), "CrashLoopBackOff".into());
            status.failed = Some(Failed { run, revision, reason, at, slots: "0".into(), ..Failed::default() });
        }
        Paused => spec.paused = true,
        PreviousBatchNotHealthy => fixture.snapshot.pod_mut(0).ready_since = None,
        // The pause after a batch, and tolerated failures, are in the world.
        _ => {}
    }
}

fn world(class: PodReason) -> (Fixture, &'static str) {
    let budget = |more: serde_json::Value| {
        let mut spec = json!({"strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    match class {
        PodReason::Refill => (Fixture::new("b b a .", 'b', budget(json!({}))).opened(2), "b"),
        PodReason::Scale => (
            Fixture::new(
                "b b a a a",
                'b',
                budget(json!({"replicas": 4, "strategy": {"batchSize": 2, "maxUnavailable": 1}})),
            )
            .opened(2),
            "b",
        ),
        PodReason::Superseded => {
            let strategy = json!({"strategy": {"type": "BlueGreen", "blueGreen": {"activeService": "web"}}});
            (Fixture::new("ac a a a", 'b', strategy).serving(Some('a')).opened(4), "b")
        }
        PodReason::Surplus => (Fixture::new("b bb a a", 'b', budget(json!({}))).opened(2), "b"),
        PodReason::Finished => (Fixture::new("b b a ax", 'b', budget(json!({}))).opened(2), "b"),
        PodReason::Back => (Fixture::new("b b a a", 'a', budget(json!({}))).settled(), "a"),
        PodReason::Kept => (with_specimen(Fixture::new("b b a a", 'b', budget(json!({}))).opened(2), 60), "b"),
        PodReason::Restart => {
            (Fixture::new("a a a a", 'a', budget(json!({"restartAt": crate::api::Time(at(-1))}))).settled(), "a")
        }
        PodReason::Pin => {
            let strategy = json!({"batchSize": 2, "maxSurge": 4, "maxUnavailable": 0});
            let pins = json!({"pins": [{"instances": "0", "revision": "c"}], "strategy": strategy});
            (Fixture::new("b b a a", 'b', budget(pins)).opened(2), "c")
        }
        PodReason::Forward => (Fixture::new("b a a a", 'b', budget(json!({}))).opened(2), "b"),
    }
}

/// Work of each class against each gate: does it go on?
#[test]
fn a_row_per_class_and_gate() {
    let gates =
        [Deleting, SpecInvalid, TemplateRefused, TemplateUnchecked, FailureThreshold, Paused, PreviousBatchNotHealthy];
    // In the order of `gates`; `|` holds, `.` does not.
    let table = [
        (PodReason::Refill, "|......"),
        (PodReason::Scale, "|......"),
        (PodReason::Superseded, "|......"),
        (PodReason::Surplus, "|......"),
        (PodReason::Finished, "|......"),
        (PodReason::Kept, "|......"),
        (PodReason::Back, "|.|..|."),
        (PodReason::Restart, "|.|..|."),
        (PodReason::Pin, "|.||.|."),
        (PodReason::Forward, "||||||."),
    ];
    for (class, expected) in table {
        let holds = gates.map(|gate| {
            let (mut fixture, revision) = world(class);
            close(&mut fixture, gate, revision);
            let planned = plan(&fixture.settled().snapshot);
            let goes_on = planned.changes.iter().any(|change| match change {
                Change::CreatePod { reason, .. } | Change::Pod { act: PodAct::Delete { reason, .. }, .. } => {
                    *reason == class
                }
                _ => false,
            });
            if goes_on { '.' } else { '|' }
        });
        assert_eq!(holds.iter().collect::<String>(), expected, "{class:?} against {gates:?}");
    }
}

/// With all of them closed the first is shown; opened one by one, the next.
#[track_caller]
fn assert_order(of: impl Fn() -> Fixture, order: &[HoldReason]) {
    for (position, expected) in order.iter().enumerate() {
        let mut fixture = of();
        for gate in order.iter().skip(position) {
            close(&mut fixture, *gate, "b");
        }
        let planned = plan(&fixture.snapshot);
        assert_eq!(planned.hold.as_ref().map(|hold| hold.reason), Some(*expected), "{}", say(&planned));
    }
}

#[test]
fn the_first_gate_that_holds_the_next_batch_is_shown() {
    let between = |pause: serde_json::Value| {
        move || {
            let spec = json!({"strategy": {"batches": [{"upTo": 2, "pause": pause}], "maxSurge": 1}});
            Fixture::new("b b a a", 'b', spec).opened(2)
        }
    };
    let last = [Paused, PreviousBatchNotHealthy, AwaitingApproval];
    assert_order(
        between(json!({})),
        &[&[Deleting, SpecInvalid, TemplateRefused, FailureThreshold][..], &last].concat(),
    );
    assert_order(between(json!({})), &[&[TemplateUnchecked, FailureThreshold][..], &last].concat());
    assert_order(between(json!({"seconds": 60})), &[PreviousBatchNotHealthy, PauseTimer]);
    let tolerated = || {
        let spec = json!({"strategy": {"failureThreshold": 2}});
        let mut fixture = Fixture::new("b b! b b", 'b', spec).opened(4).settled();
        fixture.snapshot.rollout.spec.paused = true; // there is nothing left that waits for it
        fixture
    };
    assert_order(tolerated, &[SpecInvalid, TemplateRefused, ProgressDeadline]);
    assert_order(tolerated, &[TemplateUnchecked, ProgressDeadline]);
}

#[test]
fn the_first_gate_that_holds_a_change_in_an_opened_batch_is_shown() {
    let begun = || {
        let spec = json!({"strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
        Fixture::new("b a a a", 'b', spec).opened(2)
    };
    assert_order(begun, &[SpecInvalid, TemplateRefused, FailureThreshold, Paused, PreviousBatchNotHealthy]);
    assert_order(begun, &[TemplateUnchecked, FailureThreshold, Paused]);
}
