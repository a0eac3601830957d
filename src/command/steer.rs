//! What becomes of a run, each by one write to the spec.
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Edited, Refusal, SpecEdit, set};
use crate::{
    api::{
        Rollout, RolloutStatus, Time,
        rollout::{self, Request},
    },
    view::rollout::state,
};

fn edit(step: Value, summary: String, kubectl: String) -> SpecEdit {
    SpecEdit { patch: vec![step], summary, kubectl }
}

/// The status, if it is about the present spec: answers name what a person has seen.
fn seen(rollout: &Rollout) -> Result<RolloutStatus, Refusal> {
    let status = rollout.status.clone().unwrap_or_default();
    if status.observed_generation < rollout.metadata.generation {
        return Err(Refusal::Unseen { rollout: rollout.name_any() });
    }
    Ok(status)
}

/// Lets the run go on past the pause at which it waits, or with `to_end` past all its pauses.
///
/// # Errors
/// It does not wait.
pub fn approve(rollout: &Rollout, to_end: bool, request: &Request) -> Edited {
    let (name, status) = (rollout.name_any(), seen(rollout)?);
    let (_, reason, message) = state(&status, rollout.metadata.generation);
    let Some((run, batch)) = status.run.zip(status.batch) else {
        return Err(Refusal::NothingToApprove { rollout: name, reason });
    };
    // A second word for what was approved a moment ago must not pass the pause after it.
    let waits = reason == "AwaitingApproval" || (reason == "Paused" && !rollout.spec.paused);
    if !waits && !to_end {
        return Err(Refusal::NotWaiting { rollout: name, reason, message });
    }
    let is_broken = status.soak.is_some_and(|soak| soak.run == run && !soak.breaches.is_empty());
    let (batch, what) = match batch.index {
        _ if to_end => (-1, "all its pauses".into()),
        _ if is_broken => (batch.count + 1, "its soak".into()),
        0 => (0, "the pause before its first instance".into()),
        index => (index, format!("batch {index}")),
    };
    let said = format!(
        "rollout.baton.dev/{name} approved: run {run} passes {what}; watch it with `kubectl baton status {name}`"
    );
    let approve = rollout::Approve { run, batch, by: request.by.clone(), reason: request.reason.clone() };
    Ok(edit(
        set("/spec/approve", &json!(approve)),
        said,
        format!("kubectl baton approve {name}{}", if to_end { " --to-end" } else { "" }),
    ))
}

/// Gives up the run that is on.
///
/// # Errors
/// No run is on, or there is nothing to go back to.
pub fn abort(rollout: &Rollout, _: Timestamp) -> Edited {
    let (name, status) = (rollout.name_any(), seen(rollout)?);
    let (_, reason, _) = state(&status, rollout.metadata.generation);
    let is_forward = status.batch.is_some() && status.target_revision != status.current_revision;
    let Some(run) = status.run.filter(|_| is_forward) else {
        return Err(Refusal::NothingToAbort { rollout: name, reason });
    };
    if status.current_revision.is_none() {
        return Err(Refusal::NoEarlierVersion { rollout: name });
    }
    let said =
        format!("rollout.baton.dev/{name} aborted: run {run} is given up; watch it with `kubectl baton status {name}`");
    Ok(edit(set("/spec/abort", &json!({"run": run})), said, format!("kubectl baton abort {name}")))
}

/// Tries again what has failed, or was aborted.
///
/// # Errors
/// Nothing has failed.
pub fn retry(rollout: &Rollout, now: Timestamp) -> Edited {
    let (name, status) = (rollout.name_any(), seen(rollout)?);
    let Some(failed) = status.failed else {
        return Err(Refusal::NothingFailed { rollout: name });
    };
    let said = format!("rollout.baton.dev/{name} tries again; watch it with `kubectl baton status {name}`");
    Ok(edit(set("/spec/retryAt", &json!(moment(now, failed.at.as_ref()))), said, format!("kubectl baton retry {name}")))
}

/// Has every Pod replaced.
///
/// # Errors
/// None: it is one of several verbs.
pub fn restart(rollout: &Rollout, now: Timestamp) -> Edited {
    let name = rollout.name_any();
    let asked = rollout.spec.restart_at.as_ref();
    let instead = asked.filter(|at| at.0 > now).map(|at| format!(", now and not at {}", at.0)).unwrap_or_default();
    let said = format!(
        "rollout.baton.dev/{name} restarted, in batches without their pauses{instead}; watch it with `kubectl baton status {name}`"
    );
    Ok(edit(
        set("/spec/restartAt", &json!(moment(now, asked.filter(|at| at.0 <= now)))),
        said,
        format!("kubectl baton restart {name}"),
    ))
}

/// The next whole second, of which the API tells times: Pods that were made in this very one are meant, too. But later than this,
/// also if a clock is behind.
fn moment(now: Timestamp, later_than: Option<&Time>) -> Time {
    let next = now.as_second() + i64::from(now.subsec_nanosecond() > 0);
    let second = later_than.map_or(next, |before| next.max(before.0.as_second() + 1));
    Time(Timestamp::from_second(second).unwrap_or(now))
}

/// Has nothing new begun.
///
/// # Errors
/// It is paused.
pub fn pause(rollout: &Rollout, _: Timestamp) -> Edited {
    set_paused(rollout, true)
}

/// Has it go on.
///
/// # Errors
/// It is not paused.
pub fn resume(rollout: &Rollout, _: Timestamp) -> Edited {
    set_paused(rollout, false)
}

fn set_paused(rollout: &Rollout, paused: bool) -> Edited {
    let name = rollout.name_any();
    if rollout.spec.paused == paused {
        return Err(if paused {
            Refusal::PausedAlready { rollout: name }
        } else {
            Refusal::NotPaused { rollout: name }
        });
    }
    let said = if paused {
        "paused: nothing new is begun; failed and aborted runs still go back, and lost instances come back"
    } else {
        "resumed"
    };
    let verb = if paused { "pause" } else { "resume" };
    let said = format!("rollout.baton.dev/{name} {said}");
    Ok(edit(set("/spec/paused", &json!(paused)), said, format!("kubectl baton {verb} {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::rollout::{
            plan,
            tests::fixture::{Fixture, at},
        },
        status::rollout::status,
    };

    fn shown(mut fixture: Fixture) -> Rollout {
        let written = status(&fixture.snapshot, &plan(&fixture.snapshot), &[]);
        fixture.snapshot.rollout.status = Some(written);
        fixture.snapshot.rollout
    }

    fn said(edited: Edited) -> String {
        let first = |edit: SpecEdit| format!("{} {}", edit.patch[0]["path"], edit.patch[0]["value"]);
        edited.map_or_else(|refusal| refusal.to_string(), first)
    }

    fn waiting() -> Rollout {
        let batches = json!([{"upTo": 1, "pause": {}}]);
        shown(Fixture::new("b a a", 'b', json!({"strategy": {"batches": batches}})).opened(1).settled())
    }

    /// Only what waits is approved: twice the word is not twice the batch.
    #[test]
    fn what_waits_is_approved() {
        let (mut waiting, anonymous) = (waiting(), Request::default());
        let ann = Request { by: Some("ann".into()), reason: Some("looks good".into()), ..Request::default() };
        let by_ann = r#""/spec/approve" {"batch":1,"by":"ann","reason":"looks good","run":1}"#;
        assert_eq!(said(approve(&waiting, false, &ann)), by_ann);
        let batches = json!([{"upTo": 0, "pause": {}}]);
        let before = shown(Fixture::new("a a a", 'b', json!({"strategy": {"batches": batches}})).settled());
        assert_eq!(said(approve(&before, false, &anonymous)), r#""/spec/approve" {"batch":0,"run":1}"#);
        assert_eq!(said(approve(&waiting, false, &anonymous)), r#""/spec/approve" {"batch":1,"run":1}"#);
        assert_eq!(said(approve(&waiting, true, &anonymous)), r#""/spec/approve" {"batch":-1,"run":1}"#);
        let rolling = shown(Fixture::new("b b~ a", 'b', json!({"strategy": {"batchSize": 2}})).opened(2));
        assert!(
            said(approve(&rolling, false, &anonymous))
                .starts_with("web does not wait for approval (RollingOut: batch 1/2")
        );
        let still = shown(Fixture::new("a a", 'a', json!({})).settled());
        assert_eq!(
            said(approve(&still, true, &anonymous)),
            "web: no run is on (Complete), there is nothing to approve"
        );
        waiting.metadata.generation = Some(2);
        assert!(said(approve(&waiting, false, &anonymous)).contains("no operator has seen the present spec"));
    }

    /// A version that no instance runs by now has shown nothing: that waits for a person's word too, and status says so in a word.
    #[test]
    fn a_batch_that_was_pinned_away_is_approved() {
        let mut pinned = Fixture::new("a a a", 'b', json!({"strategy": {"batchSize": 1}})).opened(1);
        pinned.snapshot.rollout.spec.pins =
            serde_json::from_value(json!([{"instances": "0", "revision": "a"}])).unwrap();
        let pinned = shown(pinned.settled());
        let (_, reason, message) = state(pinned.status.as_ref().unwrap(), pinned.metadata.generation);
        assert_eq!(reason, "AwaitingApproval", "{message}");
        assert!(message.ends_with("kubectl baton approve web, or set spec.approve to {run: 1, batch: 1}"), "{message}");
        assert_eq!(said(approve(&pinned, false, &Request::default())), r#""/spec/approve" {"batch":1,"run":1}"#);
    }

    #[test]
    fn a_run_is_given_up_and_tried_again() {
        assert_eq!(said(abort(&waiting(), at(0))), r#""/spec/abort" {"run":1}"#);
        let still = shown(Fixture::new("a a", 'a', json!({})).settled());
        assert!(said(abort(&still, at(0))).starts_with("web: no run is on that could be given up (Complete)"));
        assert!(said(retry(&still, at(0))).starts_with("web: nothing has failed"));
        let mut aborted = Fixture::new("b a a", 'b', json!({"strategy": {"batchSize": 1}})).opened(1);
        aborted.snapshot.rollout.spec.abort = Some(rollout::Abort { run: 1 });
        let mut aborted = shown(aborted.settled());
        aborted.status.as_mut().unwrap().failed =
            Some(crate::api::status::Failed { at: Some(Time(at(5))), ..Default::default() });
        let later = format!("\"/spec/retryAt\" \"{}\"", at(6));
        assert_eq!(said(retry(&aborted, at(0))), later, "by a clock that is behind");
    }

    #[test]
    fn a_restart_is_later_than_the_one_before() {
        let mut still = shown(Fixture::new("a a", 'a', json!({})).settled());
        assert_eq!(said(restart(&still, at(0))), format!("\"/spec/restartAt\" \"{}\"", at(0)));
        still.spec.restart_at = Some(Time(at(0)));
        assert_eq!(said(restart(&still, at(0))), format!("\"/spec/restartAt\" \"{}\"", at(1)));
        assert_eq!(said(pause(&still, at(0))), "\"/spec/paused\" true");
        assert_eq!(said(resume(&still, at(0))), "web is not paused");
    }
}
