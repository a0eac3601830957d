//! Hooks: when they begin, what their ends mean, what a failure takes back.
use serde_json::{Value, json};

use super::{
    fixture::{Fixture, at, say},
    folds::{assert_all_at, tell, world},
};
use crate::{
    api::{hooks::HooksStatus, rollout::Abort},
    plan::{
        Change, HoldReason, Plan,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::{Exit, HookJobs, JobEnd, SeenHooks},
};

fn hook(name: &str, on: &str) -> Value {
    json!({"name": name, "when": on, "template": {"spec": {"containers": [{"name": "main", "image": "tool:1"}]}}})
}

fn with(mut hook: Value, more: &Value) -> Value {
    hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hook
}

/// One Job at a time is made by hand: what the plan wants remembered is remembered, what it wants made is made.
struct Hand {
    world: World,
}

impl Hand {
    fn new(slots: &str, hooks: &[Value], more: &Value) -> Self {
        let mut spec = json!({"hooks": hooks});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self { world: World::new(Fixture::new(slots, 'b', spec).snapshot, 5) }
    }

    /// Plans and does, until a Job runs or nothing is left; Jobs do not end by themselves.
    fn go(&mut self) -> Plan {
        for _ in 0..200 {
            let planned = plan(&self.world.snapshot);
            let is_quiet = self.world.is_quiet(&planned);
            let runs = |change: &Change| matches!(change, Change::CreateHook { .. });
            let begins = planned.changes.iter().any(runs);
            self.world.apply(&planned, &planned.changes);
            if begins {
                let seen = self.seen();
                seen.jobs.last_mut().unwrap().end = None;
                seen.pods.pop();
            }
            if is_quiet {
                match self.world.next_event(None) {
                    Some(next) => self.world.advance(next),
                    None => return planned,
                }
            }
        }
        panic!("no end: {}", say(&plan(&self.world.snapshot)));
    }

    fn seen(&mut self) -> &mut SeenHooks {
        match &mut self.world.snapshot.hooks {
            HookJobs::Seen(seen) => seen,
            HookJobs::Unknown => panic!("not listed"),
        }
    }

    fn memory(&self) -> HooksStatus {
        self.world.snapshot.rollout.status.clone().unwrap_or_default().hooks.unwrap_or_default()
    }

    /// Name of the hook that runs.
    fn runs(&self) -> String {
        self.memory().current.map(|current| current.name).unwrap_or_default()
    }

    /// The Job that runs ends: with an exit code and a last word.
    fn end(&mut self, code: i32, said: &str) {
        let now = self.world.snapshot.now;
        let seen = self.seen();
        let job = seen.jobs.last_mut().unwrap();
        job.end = Some(JobEnd { at: now, failure: (code != 0).then(|| "BackoffLimitExceeded".into()) });
        let (job, job_uid) = (job.name.clone(), job.uid.clone());
        seen.pods.push(crate::snapshot::HookPod {
            name: format!("{job}-p"),
            resource_version: "1".into(),
            job,
            job_uid,
            created: now,
            is_finished: true,
            has_started: true,
            waiting: None,
            disruption: None,
            exit: Some(Exit { reason: "Error".into(), code, message: said.into() }),
            backup: (code == 0 && !said.is_empty()).then(|| said.to_owned()),
        });
    }

    fn revisions(&self) -> String {
        self.world.snapshot.pods.iter().map(|pod| pod.revision.as_str()).collect()
    }
}

/// B8: the whole story, in order, one Job at a time; the backup is written on the revision that it protects.
#[test]
fn hooks_run_in_their_order_and_one_at_a_time() {
    let hooks = [
        hook("backup", "BeforeRollout"),
        hook("smoke", "AfterBatch"),
        hook("migrate", "BeforeRollout"),
        hook("warm", "BeforeBatch"),
        with(hook("tidy", "AfterRollout"), &json!({"onFailure": "Ignore"})),
    ];
    let mut hand = Hand::new("a a", &hooks, &json!({"strategy": {"batchSize": 1}}));
    let mut order = Vec::new();
    for _ in 0..20 {
        hand.go();
        let runs = hand.runs();
        if runs.is_empty() {
            break;
        }
        order.push(format!("{runs} with {}", hand.revisions()));
        let unfinished = hand.seen().jobs.iter().filter(|job| job.end.is_none()).count();
        assert_eq!(unfinished, 1);
        hand.end(0, if runs == "backup" { "b1" } else { "" });
    }
    let expected = [
        "backup with aa",
        "migrate with aa",
        "warm with aa",
        "smoke with ba",
        "warm with ba",
        "smoke with bb",
        "tidy with bb",
    ];
    assert_eq!(order, expected);
    let stable = hand.world.snapshot.revisions.iter().find(|revision| revision.name == "a").unwrap();
    assert_eq!(stable.backup.as_deref(), Some("b1 backup 1"));
    let new = hand.world.snapshot.revisions.iter().find(|revision| revision.name == "b").unwrap();
    assert!(new.completed_at.is_some());
}

/// B8: nothing is created or deleted, and nothing is restored: the first hook has left nothing behind.
#[test]
fn a_failed_backup_changes_nothing() {
    let hooks = [hook("backup", "BeforeRollout"), hook("migrate", "BeforeRollout"), hook("restore", "OnRollback")];
    let mut hand = Hand::new("a a", &hooks, &json!({}));
    hand.go();
    hand.end(3, "disk full");
    let last = hand.go();
    assert_eq!((hand.revisions().as_str(), hand.runs().as_str()), ("aa", ""));
    assert_eq!(hand.seen().jobs.len(), 1, "{last:?}");
    let failed = last.memory.failed.unwrap();
    assert_eq!((failed.reason.as_str(), failed.message.as_str()), ("HookFailed", "backup: exit code 3: disk full"));
    assert_eq!(last.memory.effective.as_deref(), Some("a"));
}

/// B10: the backup of the run that failed, and it is taken back before the first Pod goes back.
#[test]
fn a_failed_migration_is_restored_first() {
    let hooks = [hook("backup", "BeforeRollout"), hook("smoke", "AfterBatch"), hook("restore", "OnRollback")];
    let mut hand = Hand::new("a a", &hooks, &json!({"strategy": {"batchSize": 1}}));
    hand.go();
    hand.end(0, "b1");
    hand.go();
    assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("smoke", "ba"));
    hand.end(1, "500");
    hand.go();
    assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("restore", "ba"));
    let job = hand.memory().current.unwrap();
    assert_eq!((job.run, hand.memory().restore.unwrap().backup.as_str()), (2, "b1"));
    hand.end(0, "");
    let last = hand.go();
    assert_eq!(hand.revisions(), "aa");
    assert_eq!(last.memory.batch, None);
    assert!(hand.seen().jobs.iter().all(|job| job.end.is_some()));
}

/// B8: a retry is a Job of another name and the same key, after a pause.
#[test]
fn a_failed_attempt_is_tried_again() {
    let hooks = [with(hook("migrate", "BeforeRollout"), &json!({"retries": 1}))];
    let mut hand = Hand::new("a", &hooks, &json!({}));
    hand.go();
    hand.end(1, "lock timeout");
    hand.go();
    assert_eq!(hand.memory().current.unwrap().attempt, 2);
    hand.world.advance(at(600));
    hand.go();
    let jobs = hand.seen().jobs.clone();
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].key, jobs[1].key);
    assert_ne!(jobs[0].name, jobs[1].name);
    hand.end(0, "");
    hand.go();
    assert_eq!(hand.revisions(), "b");
}

/// AR#3562, Helm#8146, AR#1329: nothing but the condition Complete is a success.
#[test]
fn a_job_that_was_deleted_has_failed() {
    let mut hand = Hand::new("a", &[hook("migrate", "BeforeRollout")], &json!({}));
    hand.go();
    hand.seen().jobs.clear();
    let last = hand.go();
    let failed = last.memory.failed.unwrap();
    assert_eq!(failed.message, "migrate: JobDeleted: its Job was deleted before it ended");
    assert_eq!(hand.revisions(), "a");
}

/// AR#3562: an image that cannot be pulled ends the hook after a minute.
#[test]
fn a_hook_that_cannot_start_is_stopped_and_has_failed() {
    let mut hand = Hand::new("a", &[hook("migrate", "BeforeRollout")], &json!({}));
    hand.go();
    let now = hand.world.snapshot.now;
    let seen = hand.seen();
    let (job, job_uid) = (seen.jobs[0].name.clone(), seen.jobs[0].uid.clone());
    seen.pods.push(crate::snapshot::HookPod {
        name: "p".into(),
        resource_version: "1".into(),
        job,
        job_uid,
        created: now,
        is_finished: false,
        has_started: false,
        waiting: Some("ErrImagePull: not found".into()),
        disruption: None,
        exit: None,
        backup: None,
    });
    let held = hand.go().hold.unwrap();
    assert!(held.message.contains("ErrImagePull"), "{}", held.message);
    hand.world.advance(crate::plan::rollout::time::after(now, 60));
    let last = hand.go();
    assert_eq!(last.memory.failed.unwrap().message, "migrate: HookCannotStart: ErrImagePull: not found");
}

/// K8#130103: what is lost with a node is no fault of the hook; but not for ever.
#[test]
fn a_disrupted_attempt_does_not_count() {
    let mut hand = Hand::new("a", &[hook("migrate", "BeforeRollout")], &json!({}));
    for attempt in 1..=4 {
        hand.go();
        hand.world.advance(at(1_000 * i64::from(attempt)));
        hand.go();
        assert_eq!(hand.memory().current.unwrap().attempt, attempt);
        hand.end(137, "");
        hand.seen().pods.last_mut().unwrap().disruption = Some("EvictionByEvictionAPI".into());
    }
    let last = hand.go();
    assert_eq!(last.memory.failed.unwrap().message, "migrate: exit code 137");
}

/// B8: a new spec or an abort awaits the hook that runs; one that says so is stopped.
#[test]
fn a_superseded_hook_is_awaited_or_stopped() {
    for (on_abort, is_stopped) in [("Wait", false), ("Stop", true)] {
        let test = with(hook("load", "AfterBatch"), &json!({"onAbort": on_abort}));
        let mut hand = Hand::new("a a", &[test], &json!({"strategy": {"batchSize": 1}}));
        hand.go();
        assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("load", "ba"));
        hand.world.snapshot.rollout.spec.abort = Some(Abort { run: 1 });
        let held = hand.go();
        if is_stopped {
            assert_eq!(hand.revisions(), "aa");
            assert_eq!(hand.memory().log[0].result, "Stopped");
            continue;
        }
        assert_eq!(hand.revisions(), "ba");
        assert_eq!(held.hold.as_ref().map(|hold| hold.reason), Some(HoldReason::RunningHook(None)), "{held:?}");
        hand.end(1, "");
        hand.go();
        assert_eq!(hand.revisions(), "aa");
    }
}

/// B8: the very first Pods wait for the hooks that come before them.
#[test]
fn the_first_pods_wait_for_their_hooks() {
    let mut hand = Hand::new(". .", &[hook("migrate", "BeforeRollout")], &json!({}));
    hand.world.snapshot.revisions.retain(|revision| revision.name == "b");
    let held = hand.go();
    assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("migrate", ""), "{held:?}");
    assert_eq!(held.memory.batch.unwrap().deadline_from, None, "no instance is late for it");
    hand.end(0, "");
    hand.go();
    assert_eq!(hand.revisions(), "bb");
}

/// B8: after a loss of status the Jobs tell the run; none runs twice, none is skipped.
#[test]
fn a_lost_status_is_found_in_the_jobs() {
    let hooks = [hook("backup", "BeforeRollout"), hook("migrate", "BeforeRollout"), hook("smoke", "AfterBatch")];
    for lost_at in 0..8 {
        let mut hand = Hand::new("a a", &hooks, &json!({"strategy": {"batchSize": 1}}));
        let mut order = Vec::new();
        for step in 0..20 {
            hand.go();
            if step == lost_at {
                hand.world.snapshot.rollout.status = None;
                hand.go();
            }
            let runs = hand.runs();
            if runs.is_empty() {
                break;
            }
            order.push(runs.clone());
            hand.end(0, if runs == "backup" { "b1" } else { "" });
        }
        assert_eq!(order, ["backup", "migrate", "smoke", "smoke"], "status lost at {lost_at}");
    }
}

/// B8: with strategy Recreate, between the last old Pod and the first new one.
#[test]
fn a_hook_runs_while_all_is_down() {
    let mut hand = Hand::new("a a", &[hook("convert", "WhileDown")], &json!({"strategy": {"type": "Recreate"}}));
    hand.go();
    assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("convert", ""));
    hand.end(0, "");
    hand.go();
    assert_eq!(hand.revisions(), "bb");
}

/// R15
#[test]
fn a_fold_with_hooks_completes() {
    let hooks = [hook("backup", "BeforeRollout"), hook("smoke", "AfterBatch")];
    let mut world = world("a a", 'b', json!({"hooks": hooks, "strategy": {"batchSize": 1}}));
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done, "{story}");
    assert_all_at(&world, 'b');
    insta::assert_snapshot!(story);
}

/// Nothing changes while a hook runs: no countdown, no write.
#[test]
fn a_running_hook_writes_nothing() {
    let mut hand = Hand::new("a", &[hook("migrate", "BeforeRollout")], &json!({}));
    hand.go();
    hand.end(0, "");
    hand.seen().jobs[0].end = None;
    hand.seen().pods[0].is_finished = false;
    let before = plan(&hand.world.snapshot);
    hand.world.snapshot.now = at(400);
    let after = plan(&hand.world.snapshot);
    assert_eq!((before.memory, before.hold, before.changes), (after.memory, after.hold, after.changes));
}

/// B10: where all old Pods have ended and the hook fails then, none comes back before the restore has ended.
#[test]
fn no_pod_comes_back_before_the_restore() {
    let hooks = [hook("backup", "BeforeRollout"), hook("convert", "WhileDown"), hook("restore", "OnRollback")];
    let mut hand = Hand::new("a a", &hooks, &json!({"strategy": {"type": "Recreate"}}));
    hand.go();
    hand.end(0, "b1");
    hand.go();
    assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("convert", ""));
    hand.end(1, "half-way");
    hand.go();
    assert_eq!((hand.runs().as_str(), hand.revisions().as_str()), ("restore", ""));
    hand.end(0, "");
    hand.go();
    assert_eq!(hand.revisions(), "aa");
}

/// B10: what a hook has done that ended well after the abort is taken back too.
#[test]
fn what_ends_after_the_abort_is_taken_back() {
    let hooks = [hook("migrate", "BeforeRollout"), hook("restore", "OnRollback")];
    let mut hand = Hand::new("a a", &hooks, &json!({}));
    hand.go();
    hand.world.snapshot.rollout.spec.abort = Some(Abort { run: 1 });
    hand.go();
    assert_eq!(hand.runs(), "migrate");
    hand.end(0, "");
    hand.go();
    assert_eq!(hand.runs(), "restore");
}

/// B10: after a failure that nothing was taken back of, the backup from before it is the one that counts.
#[test]
fn a_backup_of_what_is_half_changed_replaces_none() {
    let hooks = [hook("backup", "BeforeRollout"), hook("migrate", "BeforeRollout"), hook("restore", "OnRollback")];
    let mut hand = Hand::new("a a", &hooks, &json!({"strategy": {"onFailure": "Pause"}}));
    hand.go();
    hand.end(0, "b1");
    hand.go();
    hand.end(1, "half-way");
    hand.go();
    hand.world.snapshot.now = at(1_000);
    hand.world.snapshot.rollout.spec.retry_at = Some(crate::api::Time(at(900)));
    hand.go();
    assert_eq!(hand.runs(), "backup");
    hand.end(0, "b2");
    hand.go();
    hand.end(1, "half-way again");
    hand.go();
    hand.world.snapshot.rollout.spec.abort = Some(Abort { run: 2 });
    hand.go();
    assert_eq!((hand.runs().as_str(), hand.memory().restore.unwrap().backup.as_str()), ("restore", "b1"));
}

/// A hook that is removed before its Job was made keeps nothing waiting.
#[test]
fn a_hook_that_is_removed_is_not_waited_for() {
    let hooks = [with(hook("migrate", "BeforeRollout"), &json!({"retries": 1}))];
    let mut hand = Hand::new("a", &hooks, &json!({}));
    hand.go();
    hand.end(1, "no");
    hand.go();
    hand.world.snapshot.rollout.spec.hooks.clear();
    hand.go();
    assert_eq!(hand.revisions(), "b");
}
