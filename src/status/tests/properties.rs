//! Properties for arbitrary worlds and plans, reachable or not.
use proptest::prelude::*;
use serde_json::Value;

use super::status_of;
use crate::{
    api::{ConditionStatus, ConditionType, RolloutStatus, crd, status::HistoryEntry},
    plan::{
        Applied, Change, Hold, HoldReason, Memory, Outcome, Plan, PodReason, Question,
        rollout::{
            fold::World,
            plan,
            tests::worlds::{coins, pinned_to, world, world_with_pins},
        },
    },
    snapshot::{Container, ContainerState, CreateRefusal, Exit, RefusalReason, Snapshot, TemplateCheck},
    status::{notice::NOTE_BYTES_MAX, notices, rollout::status},
};

/// Exactly one of Ready=True; Reconciling=True with Ready=False; Stalled=True with Ready=False.
fn check_kstatus(status: &RolloutStatus) -> Result<(), TestCaseError> {
    let of = |type_| {
        let mut found = status.conditions.iter().filter(move |condition| condition.type_ == type_);
        (found.next().map(|condition| condition.status), found.next().is_none())
    };
    let (ready, once) = of(ConditionType::Ready);
    prop_assert!(once);
    let (reconciling, stalled) = (of(ConditionType::Reconciling).0, of(ConditionType::Stalled).0);
    let (yes, no) = (Some(ConditionStatus::True), Some(ConditionStatus::False));
    let kinds = [
        (ready, reconciling, stalled) == (yes, None, None),
        (ready, reconciling, stalled) == (no, yes, None),
        (ready, reconciling, stalled) == (no, None, yes),
    ];
    prop_assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{:?}", status.conditions);
    Ok(())
}

/// Every bound of the CRD holds.
fn check_bounds(schema: &Value, value: &Value, path: &str) -> Result<(), TestCaseError> {
    let bound = |field: &str| schema[field].as_u64().or_else(|| schema[field].as_f64().map(|bound| bound as u64));
    match value {
        Value::String(text) => {
            let chars = text.chars().count() as u64;
            prop_assert!(bound("maxLength").is_none_or(|max| chars <= max), "{path}: {chars} characters");
            prop_assert!(bound("minLength").is_none_or(|min| chars >= min), "{path}: {chars} characters");
            let allowed = schema["enum"].as_array();
            prop_assert!(allowed.is_none_or(|allowed| allowed.contains(value)), "{path}: {text}");
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            prop_assert!(schema["minimum"].as_f64().is_none_or(|min| number as f64 >= min), "{path}: {number}");
        }
        Value::Array(items) => {
            prop_assert!(bound("maxItems").is_none_or(|max| items.len() as u64 <= max), "{path}: {}", items.len());
            for item in items {
                check_bounds(&schema["items"], item, &format!("{path}[]"))?;
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let known = &schema["properties"][name];
                prop_assert!(known.is_object(), "{path}.{name} is not in the CRD");
                check_bounds(known, field, &format!("{path}.{name}"))?;
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    Ok(())
}

fn check(snapshot: &Snapshot, planned: &Plan, outcomes: &[Outcome]) -> Result<RolloutStatus, TestCaseError> {
    thread_local! {
        static SCHEMA: Value = {
            let versions = serde_json::to_value(crd::rollout()).unwrap();
            versions.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status").unwrap().clone()
        };
    }
    let found = status(snapshot, planned, outcomes);
    check_kstatus(&found)?;
    SCHEMA.with(|schema| check_bounds(schema, &serde_json::to_value(&found).unwrap(), "status"))?;
    // Written, read and looked at again from the same world, it says the same bytes and has nothing to tell.
    let mut again = snapshot.clone();
    again.rollout.status = Some(serde_json::from_value(serde_json::to_value(&found).unwrap()).unwrap());
    let second = status(&again, planned, outcomes);
    prop_assert_eq!(serde_json::to_string(&second).unwrap(), serde_json::to_string(&found).unwrap());
    prop_assert_eq!(notices("web", &found, &second), vec![]);
    let before = snapshot.rollout.status.clone().unwrap_or_default();
    for notice in notices("web", &before, &found) {
        prop_assert!(notice.note.len() <= NOTE_BYTES_MAX && !notice.note.is_empty(), "{notice:?}");
    }
    for condition in &found.conditions {
        let known = before.conditions.iter().find(|known| known.type_ == condition.type_);
        let kept = known.filter(|known| known.status == condition.status).map(|known| &known.last_transition_time);
        prop_assert!(kept.is_none_or(|kept| *kept == condition.last_transition_time), "{condition:?} after {known:?}");
        prop_assert_eq!(condition.observed_generation, snapshot.rollout.metadata.generation);
    }
    Ok(found)
}

const HOLDS: [HoldReason; 11] = [
    HoldReason::Deleting,
    HoldReason::SpecInvalid,
    HoldReason::TemplateRefused,
    HoldReason::TemplateUnchecked,
    HoldReason::FailureThreshold,
    HoldReason::ProgressDeadline,
    HoldReason::Paused,
    HoldReason::PreviousBatchNotHealthy,
    HoldReason::PauseTimer,
    HoldReason::AwaitingApproval,
    HoldReason::CreateRefused,
];

/// A plan that no planner made, for any world: texts of any length, names of nothing.
fn distort(snapshot: &mut Snapshot, planned: &mut Plan, text: &str, seed: u64) -> Vec<Outcome> {
    let mut coin = coins(seed);
    let now = snapshot.now;
    for pod in snapshot.pods_mut() {
        if !coin() {
            let (reason, message) = (text.to_owned(), text.to_owned());
            let state = if coin() {
                ContainerState::Waiting { reason, message }
            } else {
                ContainerState::Terminated(Exit { reason, code: 1, message })
            };
            pod.ready_since = None;
            pod.containers =
                vec![Container { name: text.into(), init: coin(), restarts: 3, state, ..Container::default() }];
        }
        if !coin() {
            pod.unschedulable = Some(text.into());
            pod.revision = text.into();
            pod.version = text.into();
        }
    }
    if !coin() {
        snapshot.rollout.spec.version = Some(text.into());
    }
    if !coin() {
        let reason = if coin() { RefusalReason::QuotaExceeded } else { RefusalReason::FailedCreate };
        snapshot.create_refusal = Some(CreateRefusal { reason, message: text.into(), since: now, retry_at: now });
    }
    if !coin() {
        let refused = TemplateCheck::Refused { message: text.into(), recheck_at: now };
        snapshot.template_checks.values_mut().for_each(|check| *check = refused.clone());
    }
    if !coin() {
        snapshot.rollout.spec.abort = Some(crate::api::rollout::Abort { run: (seed % 5) as i64 });
    }
    for entries in 0..seed % 60 {
        let result = if entries % 7 == 0 { "InProgress" } else { "Succeeded" };
        let kind = "Deploy".into();
        let entry = HistoryEntry { kind, run: entries as i64, result: result.into(), ..HistoryEntry::default() };
        let status = snapshot.rollout.status.get_or_insert_with(RolloutStatus::default);
        status.history.truncate(crate::api::bounds::HISTORY_MAX - 1);
        status.history.insert(0, entry);
    }
    let hold = Hold { reason: HOLDS[(seed % 11) as usize], message: text.into(), until: None };
    planned.hold = (!seed.is_multiple_of(3)).then_some(hold);
    if !coin() {
        planned.memory.stable = None;
    }
    if !coin() {
        planned.memory.effective.clone_from(&planned.memory.stable);
    }
    if !coin() {
        planned.memory.update = Some("nothing".into());
    }
    if !coin() {
        planned.memory.batch = None;
    }
    let refused = Applied::Refused { reason: RefusalReason::FailedCreate, message: text.into() };
    let change = Change::CreatePod {
        name: text.into(),
        slot: 0,
        revision: "a".into(),
        restarted_at: None,
        reason: PodReason::Refill,
    };
    let check = Change::Ask(Question::Template { revision: "b".into() });
    let results = [(change.clone(), Applied::NameTaken), (check, refused.clone()), (change, refused)];
    results.into_iter().map(|(change, result)| Outcome { change, result }).filter(|_| !coin()).collect()
}

fn check_the_way(snapshot: Snapshot, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    let mut coin = coins(seed);
    for _ in 0..150 {
        let planned = plan(&world.snapshot);
        let found = check(&world.snapshot, &planned, &[])?;
        prop_assert_eq!(Memory::of(Some(&found)), planned.memory.clone());
        let ready = found.conditions[0].status == ConditionStatus::True;
        if ready {
            let wanted: Vec<i32> = (0..world.snapshot.rollout.spec.replicas).collect();
            let spec = &world.snapshot.rollout.spec;
            let update = found.update_revision.as_deref().unwrap_or_default();
            let live: Vec<i32> = world.snapshot.pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.slot).collect();
            prop_assert_eq!(live, wanted);
            let wanted = |slot| pinned_to(&world.snapshot, slot).map_or(update, String::as_str);
            let right = |pod: &&crate::snapshot::Pod| {
                pod.revision == wanted(pod.slot) && pod.is_available(spec.min_ready_seconds, world.snapshot.now)
            };
            prop_assert!(
                world.snapshot.pods.iter().filter(|pod| pod.is_live()).all(|pod| right(&&**pod)),
                "wrong Pods"
            );
            let pins = crate::plan::rollout::pin_problems(&world.snapshot);
            let is_unproven = found.conditions[0].reason == "Unproven";
            prop_assert!(!is_unproven || world.snapshot.rollout.spec.replicas == 0);
            let is_silent = pins.is_empty() && !is_unproven && !spec.paused;
            prop_assert_eq!(found.waiting_for.is_empty(), is_silent, "{}", found.waiting_for);
        } else {
            prop_assert!(!found.waiting_for.is_empty(), "{:?}", found.conditions[0]);
        }
        let quiet = world.is_quiet(&planned);
        let part: Vec<Change> = planned.changes.iter().filter(|_| coin()).cloned().collect();
        world.apply(&planned, &part);
        world.snapshot.rollout.status = Some(found);
        if quiet {
            let Some(next) = world.next_event(planned.wake_at) else { break };
            world.advance(next);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_state_within_all_bounds_for_any_input(snapshot in world(), text in "[a-z→]{1,40}", times in 1..200usize, seed in any::<u64>()) {
        let mut snapshot = snapshot;
        let mut planned = plan(&snapshot);
        let outcomes = distort(&mut snapshot, &mut planned, &text.repeat(times), seed);
        check(&snapshot, &planned, &outcomes)?;
    }

    /// R13 X11: exactly one state of kstatus on the way of a whole rollout with any part of each plan carried out; status keeps the plan's memory, and
    /// Complete is said of nothing that is not.
    #[test]
    fn every_status_on_the_way_is_right(snapshot in world(), seed in any::<u64>()) {
        check_the_way(snapshot, seed)?;
    }

    /// R7 R13: the same where instances are pinned.
    #[test]
    fn every_status_on_the_way_is_right_with_pins(snapshot in world_with_pins(), seed in any::<u64>()) {
        check_the_way(snapshot, seed)?;
    }

    /// The order in which watches told of Pods does not show.
    #[test]
    fn equal_bytes_for_equal_input(snapshot in world(), seed in any::<u64>()) {
        let mut shuffled = snapshot.clone();
        let mut coin = coins(seed);
        shuffled.pods.sort_by_key(|_| coin());
        shuffled.revisions.sort_by_key(|_| coin());
        let text = |snapshot: &Snapshot| serde_json::to_string(&status_of(snapshot)).unwrap();
        prop_assert_eq!(text(&snapshot), text(&shuffled));
    }
}
