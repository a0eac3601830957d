//! The lines of `kubectl rollout status`, for a Rollout.
use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{Rollout, RolloutStatus},
    view::{Tone, rollout::state},
};

/// Where a Rollout stands, in kubectl's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It gets on: the line, and who must open what it stands before, if anything.
    Going(String, Option<Opener>),
    /// It is done: the last line.
    Done(String),
    /// It will not get on without a person: why.
    Stalled(String),
}

/// What it waits for, in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opener {
    /// A person approves or resumes it.
    Person(String),
    /// It goes on by itself: a timed pause, a quota.
    Clock(String),
}

/// A restart that is asked for begins with the next whole second, and is told a moment later; one that is planned for later is
/// nothing to wait for.
const RESTART_BEGINS_WITHIN: SignedDuration = SignedDuration::from_secs(2);

/// Read off spec and status alone.
pub fn progress(rollout: &Rollout, now: Timestamp) -> Progress {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let status = rollout.status.clone().unwrap_or_default();
    if status.observed_generation < rollout.metadata.generation {
        return Progress::Going("Waiting for rollout spec update to be observed...".into(), None);
    }
    let (tone, reason, message) = state(&status, rollout.metadata.generation);
    match tone {
        Tone::Good if reason == "Unproven" => {
            return Progress::Done(format!("rollout \"{name}\" is unproven: {message}"));
        }
        Tone::Good if reason == "Paused" => {
            return Progress::Done(format!("rollout \"{name}\" is paused, with nothing under way: {message}"));
        }
        Tone::Good if let Some(at) = restarts_at(rollout, now) => {
            return Progress::Going(
                format!("Waiting for rollout \"{name}\" to finish: it is restarted at {at}..."),
                None,
            );
        }
        Tone::Good => return Progress::Done(format!("rollout \"{name}\" successfully rolled out")),
        Tone::Bad if let Some(at) = tried_again_at(rollout, &status) => {
            return Progress::Going(
                format!("Waiting for rollout \"{name}\" to finish: it is tried again at {at}..."),
                None,
            );
        }
        Tone::Bad => return Progress::Stalled(format!("rollout \"{name}\" is stalled ({reason}): {message}")),
        Tone::Working | Tone::Waiting | Tone::Neutral => {}
    }
    // In a restart there is one beside each old Pod.
    let (wanted, updated) = (rollout.spec.replicas, status.updated_replicas.min(rollout.spec.replicas));
    let what = if reason == "RollingBack" && status.target_revision != status.current_revision {
        message.clone() // decided, not begun: the counts are still about the way forward
    } else if reason == "RollingBack" {
        format!("{updated} out of {wanted} replicas are back at {}...", version_of(&status))
    } else if updated < wanted {
        format!("{updated} out of {wanted} new replicas have been updated...")
    } else if status.replicas > updated {
        format!("{} old replicas are pending termination...", status.replicas - updated)
    } else if status.available_replicas < updated {
        format!("{} of {updated} updated replicas are available...", status.available_replicas)
    } else {
        message.clone()
    };
    // What a person or a clock must open stands in a line of its own.
    let why = if tone == Tone::Waiting || what == message || message.is_empty() {
        String::new()
    } else {
        format!(" {message}")
    };
    let line = format!("Waiting for rollout \"{name}\" to finish: {what}{why}");
    let waits = format!("rollout \"{name}\" waits: {message}");
    let is_person = reason == "AwaitingApproval" || (reason == "Paused" && rollout.spec.paused);
    let opener = if is_person { Opener::Person(waits) } else { Opener::Clock(waits) };
    Progress::Going(line, Some(opener).filter(|_| tone == Tone::Waiting))
}

/// When it is restarted, if that is just about to begin.
fn restarts_at(rollout: &Rollout, now: Timestamp) -> Option<Timestamp> {
    let at = rollout.spec.restart_at.as_ref()?.0;
    (at.duration_since(now).abs() <= RESTART_BEGINS_WITHIN).then_some(at)
}

/// When what has failed is tried again: `spec.retryAt` is a whole second that may be yet to come.
fn tried_again_at(rollout: &Rollout, status: &RolloutStatus) -> Option<Timestamp> {
    let failed_at = status.failed.as_ref()?.at.as_ref()?.0;
    rollout.spec.retry_at.as_ref().map(|at| at.0).filter(|at| *at > failed_at)
}

/// The version that is worked towards, as the display says it.
fn version_of(status: &RolloutStatus) -> String {
    let display = status.display.clone().unwrap_or_default();
    display.version.rsplit(" → ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{Time, status::Failed};

    /// A Rollout of four with this status, its spec seen.
    fn of(state: (&str, &str, &str), counts: [i32; 3], revisions: (&str, &str)) -> Progress {
        progress(&rollout(state, counts, revisions), Timestamp::UNIX_EPOCH)
    }

    fn rollout(state: (&str, &str, &str), counts: [i32; 3], revisions: (&str, &str)) -> Rollout {
        let (type_, reason, waiting_for) = state;
        let [updated, replicas, available] = counts;
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T10:00:00Z"});
        let conditions = match type_ {
            "Ready" => vec![condition("Ready", "True")],
            other => vec![condition("Ready", "False"), condition(other, "True")],
        };
        let object = json!({
            "apiVersion": "baton.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 4, "selector": {"matchLabels": {}}, "template": {}},
            "status": {
                "observedGeneration": 2,
                "replicas": replicas,
                "updatedReplicas": updated,
                "availableReplicas": available,
                "targetRevision": revisions.0,
                "currentRevision": revisions.1,
                "waitingFor": waiting_for,
                "display": {"version": "1 → 2"},
                "conditions": conditions,
            },
        });
        serde_json::from_value(object).unwrap()
    }

    fn going(what: &str) -> Progress {
        Progress::Going(format!("Waiting for rollout \"web\" to finish: {what}"), None)
    }

    #[test]
    fn the_words_are_those_of_kubectl() {
        let rolling = ("Reconciling", "RollingOut", "batch 1/2: web-1 (Pending)");
        let on = ("b", "a");
        let why = "batch 1/2: web-1 (Pending)";
        let going_for_that = |what: &str| going(&format!("{what}... {why}"));
        assert_eq!(of(rolling, [2, 5, 3], on), going_for_that("2 out of 4 new replicas have been updated"));
        assert_eq!(of(rolling, [4, 5, 4], on), going_for_that("1 old replicas are pending termination"));
        assert_eq!(of(rolling, [4, 4, 3], on), going_for_that("3 of 4 updated replicas are available"));
        assert_eq!(of(rolling, [4, 4, 4], on), going(why));
        let done = Progress::Done("rollout \"web\" successfully rolled out".into());
        assert_eq!(of(("Ready", "Complete", ""), [4, 4, 4], ("b", "b")), done);
        // It is complete until the second of its restart.
        let mut restarted = rollout(("Ready", "Complete", ""), [4, 4, 4], ("b", "b"));
        let mut at = |second| {
            restarted.spec.restart_at = Some(Time(Timestamp::from_second(second).unwrap()));
            progress(&restarted, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(at(1), going("it is restarted at 1970-01-01T00:00:01Z..."));
        assert_eq!((at(-60), at(3_600)), (done.clone(), done), "one that is over, and one that is planned");
    }

    #[test]
    fn the_way_back_is_told_from_when_it_is_begun() {
        let back = ("Reconciling", "RollingBack", "2 failed: going back");
        assert_eq!(of(back, [1, 5, 4], ("b", "a")), going("2 failed: going back"));
        let there = "3 out of 4 replicas are back at 2... 2 failed: going back";
        assert_eq!(of(back, [3, 5, 4], ("a", "a")), going(there));
        let unproven = Progress::Done("rollout \"web\" is unproven: no instances are asked for".into());
        assert_eq!(of(("Ready", "Unproven", "no instances are asked for"), [0, 0, 0], ("b", "a")), unproven);
        let stalled = of(("Stalled", "RolledBack", "2 failed; all 4 instances run 1"), [4, 4, 4], ("a", "a"));
        let why = "rollout \"web\" is stalled (RolledBack): 2 failed; all 4 instances run 1";
        assert_eq!(stalled, Progress::Stalled(why.into()));
        // A retry counts from the next whole second on: until then the status still tells what failed.
        let at = |second: i64| Some(Time(Timestamp::from_second(second).unwrap()));
        let mut retried = rollout(("Stalled", "RolledBack", "2 failed"), [4, 4, 4], ("a", "a"));
        retried.status.as_mut().unwrap().failed = Some(Failed { at: at(10), ..Failed::default() });
        retried.spec.retry_at = at(11);
        assert_eq!(progress(&retried, Timestamp::UNIX_EPOCH), going("it is tried again at 1970-01-01T00:00:11Z..."));
        retried.spec.retry_at = at(9);
        assert!(matches!(progress(&retried, Timestamp::UNIX_EPOCH), Progress::Stalled(_)), "that retry has failed");
    }

    #[test]
    fn what_a_person_or_a_clock_must_open_is_said() {
        let waits = of(("Reconciling", "AwaitingApproval", "batch 1/2 is done; …"), [2, 4, 4], ("b", "a"));
        let Progress::Going(_, said) = waits else { panic!("{waits:?}") };
        assert_eq!(said, Some(Opener::Person("rollout \"web\" waits: batch 1/2 is done; …".into())));
        let waits = of(("Reconciling", "QuotaExceeded", "no room"), [2, 4, 4], ("b", "a"));
        let Progress::Going(_, said) = waits else { panic!("{waits:?}") };
        assert_eq!(said, Some(Opener::Clock("rollout \"web\" waits: no room".into())));
    }
}
