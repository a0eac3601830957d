//! The time after a rollout in which it is watched, with real processes that are killed and real applications that fail.
use std::time::Duration;

use baton::api::{ConditionType, Rollout, soak::SoakStatus};
use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    drain::until,
    health::{cluster, selftest, web_of},
    stage::{Stage, real, reason, run},
};
use crate::cluster::support::processes;

/// Two instances whose processes are known by their last argument, see [`process`].
fn spec(name: &str, version: &str, soak: &Value) -> Value {
    let container = json!({
        "name": "web", "image": format!("example.local/sleeper:{version}"), "command": ["sleeper"],
        "args": [process(name, version, "$(BATON_INSTANCE)")],
    });
    json!({
        "replicas": 2,
        "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0},
        "soak": soak,
        "template": {"spec": {"containers": [container]}},
    })
}

fn process(name: &str, version: &str, instance: &str) -> String {
    format!("process-{name}-{version}-{instance}")
}

/// kill -9 of the process of an instance at version 2.
fn kill_instance(name: &str, instance: i32) {
    let wanted = process(name, "2", &instance.to_string());
    let found = processes().into_iter().filter(|(_, args)| args.last() == Some(&wanted));
    let found: Vec<_> = found.collect();
    let [(pid, _)] = found.as_slice() else { panic!("{wanted}: {found:?}") };
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// status.soak of the present run.
fn soak_of(rollout: &Rollout) -> Option<SoakStatus> {
    let soak = rollout.status.as_ref()?.soak.clone()?;
    (soak.run == run(rollout)).then_some(soak)
}

fn end_of(soak: &SoakStatus) -> Timestamp {
    soak.until.as_ref().unwrap().0
}

async fn until_soaking(stage: &Stage) -> (Rollout, SoakStatus) {
    let rollout = stage.until(120, "Soaking", |it| reason(it) == "Soaking" && soak_of(it).is_some()).await;
    let soak = soak_of(&rollout).unwrap();
    assert!(soak.breaches.is_empty(), "{soak:?}");
    (rollout, soak)
}

/// Version 2 is watched, and version 1 is the stable one until that is over.
async fn soaking(name: &str, settings: Value) -> (Stage, SoakStatus) {
    let stage = Stage::new(real(), name).await;
    stage.roll("1", spec(name, "1", &settings)).await;
    let before = stage.complete(60).await;
    assert_eq!(soak_of(&before), None, "there is nothing that the first version could be compared with");
    stage.roll("2", spec(name, "2", &settings)).await;
    let (during, soak) = until_soaking(&stage).await;
    let stable = |rollout: Rollout| rollout.status.unwrap().current_revision;
    assert_eq!(stable(during), stable(before));
    (stage, soak)
}

fn versions(rollout: &Rollout) -> Vec<&str> {
    rollout.status.iter().flat_map(|status| &status.versions).map(|it| it.version.as_str()).collect()
}

fn ready_message(rollout: &Rollout) -> String {
    let mut conditions = rollout.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|condition| condition.type_ == ConditionType::Ready).unwrap().message.clone()
}

const RESTARTED: &str = "1 restarts of at most 0";

/// The instance breaks the limit of restarts, and an Event tells of it.
async fn restart(stage: &Stage) {
    kill_instance(&stage.namespace, 1);
    let told = until("the Event SoakBreach", async || stage.notes("SoakBreach").await.pop()).await;
    assert_eq!(told, format!("web-1: {RESTARTED}"));
    let rollout = stage.rollouts().get("web").await.unwrap();
    // A run that has failed is over, and the one that goes back has no soak of its own.
    for breach in soak_of(&rollout).into_iter().flat_map(|soak| soak.breaches) {
        assert_eq!((breach.instance, breach.what.as_str(), breach.message.as_str()), (1, "restarts", RESTARTED));
    }
}

/// B12: a broken limit is told, and the run completes when its time is over, not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_told() {
    let (stage, soak) = soaking("soak-notify", json!({"seconds": 20, "onBreach": "Notify"})).await;
    restart(&stage).await;
    let after = stage.complete(60).await;
    assert!(Timestamp::now() >= end_of(&soak), "complete before {}", end_of(&soak));
    assert_eq!(versions(&after), ["2"]);
    assert_eq!(after.status.unwrap().failed, None);
    assert_eq!(stage.notes("SoakBreach").await.len(), 1, "told once");
}

/// B12: or the run waits for a person, also when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_waits_for_a_person() {
    let (stage, soak) = soaking("soak-pause", json!({"seconds": 10, "onBreach": "Pause"})).await;
    restart(&stage).await;
    let is_waiting = |rollout: &Rollout| reason(rollout) == "AwaitingApproval";
    let waiting = stage.until(60, "AwaitingApproval", is_waiting).await;
    let message = ready_message(&waiting);
    let expected = format!("a limit of spec.soak was broken (web-1: {RESTARTED})");
    assert!(message.contains(&expected), "{message}");
    let left = end_of(&soak).duration_since(Timestamp::now()).as_secs().max(0);
    tokio::time::sleep(Duration::from_secs(left.cast_unsigned() + 2)).await;
    let waiting = stage.rollouts().get("web").await.unwrap();
    assert!(is_waiting(&waiting), "{}", reason(&waiting));
    let batch = waiting.status.as_ref().unwrap().batch.as_ref().unwrap().index;
    stage.patch(json!({"spec": {"approve": {"run": run(&waiting), "batch": batch + 1}}})).await;
    let after = stage.complete(60).await;
    assert_eq!((run(&after), versions(&after)), (run(&waiting), vec!["2"]));
}

/// B12 B7: or the run fails, and goes back to what was stable before.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_the_version_back() {
    let (stage, _) = soaking("soak-rollback", json!({"seconds": 600, "onBreach": "Rollback"})).await;
    restart(&stage).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    let message = ready_message(&rollout);
    assert!(message.contains(&format!("SoakBreach: web-1: {RESTARTED}")), "{message}");
    assert_eq!(versions(&rollout), ["1"]);
    let failed = rollout.status.unwrap().failed.unwrap();
    assert_eq!((failed.reason.as_str(), failed.message), ("SoakBreach", format!("web-1: {RESTARTED}")));
}

/// B12: an application that answers badly for long enough is as bad as one that ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_keeps_failing_takes_the_version_back() {
    let stage = Stage::new(cluster(), "soak-check").await;
    let soak = json!({"soak": {
        "seconds": 600, "onBreach": "Rollback", "forSeconds": 1, "checkPeriodSeconds": 1, "checks": [selftest()],
    }});
    stage.roll("1", web_of("1", 2, "", soak.clone())).await;
    stage.complete(60).await;
    stage.roll("1", web_of("2", 2, "selftest", soak)).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(versions(&rollout), ["1"]);
    let failed = rollout.status.unwrap().failed.unwrap();
    assert_eq!(failed.reason, "SoakBreach");
    let said = "check selftest: answered 503: WEB_FAIL=selftest, for 1 s";
    assert!(failed.message.starts_with("web-") && failed.message.ends_with(said), "{}", failed.message);
    let told = until("the Event SoakBreach", async || stage.notes("SoakBreach").await.pop()).await;
    assert!(told.ends_with(said), "{told}");
}

/// B12: and one that answers well completes, by the same checks.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_soak_completes() {
    let stage = Stage::new(cluster(), "soak-quiet").await;
    let soak = json!({"soak": {
        "seconds": 8, "onBreach": "Rollback", "forSeconds": 1, "checkPeriodSeconds": 1, "checks": [selftest()],
    }});
    stage.roll("1", web_of("1", 2, "", soak.clone())).await;
    stage.complete(60).await;
    stage.roll("1", web_of("2", 2, "", soak)).await;
    let (_, soak) = until_soaking(&stage).await;
    let after = stage.complete(60).await;
    assert!(Timestamp::now() >= end_of(&soak), "complete before {}", end_of(&soak));
    assert_eq!(versions(&after), ["2"]);
    assert_eq!(stage.notes("SoakBreach").await, [""; 0]);
}

/// B12: the time is written down once: an operator that is killed meanwhile neither prolongs nor shortens it.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_watches_until_the_same_time() {
    let (mut stage, soak) = soaking("soak-crash", json!({"seconds": 20, "onBreach": "Rollback"})).await;
    let leader = stage.next_leader("").await;
    stage.kill_operator();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.start_operator();
    stage.next_leader(&leader).await;
    let is_complete = |rollout: &Rollout| {
        if let Some(seen) = soak_of(rollout) {
            assert_eq!((&seen.started_at, &seen.until), (&soak.started_at, &soak.until));
        }
        reason(rollout) == "Complete"
    };
    let after = stage.until(90, "Complete", is_complete).await;
    assert!(Timestamp::now() >= end_of(&soak), "complete before {}", end_of(&soak));
    assert_eq!(versions(&after), ["2"]);
}
