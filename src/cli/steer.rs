//! `approve`, `abort`, `retry`, `restart`, `pause`, `resume`: what becomes of a run, each by one write to the spec.
use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use super::{
    Connection,
    change::{Change, Editor, set},
    target::RolloutTarget,
};
use crate::{
    api::{
        Rollout, RolloutStatus, Time,
        rollout::{self, Request},
    },
    view::rollout::state,
};

/// `kubectl baton approve web`
#[derive(Args, Debug)]
pub(super) struct Approve {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// All pauses of this run, also those to come.
    #[arg(long, visible_alias = "full")]
    to_end: bool,
    /// Why; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `kubectl baton abort web --reason "orders are late"`
#[derive(Args, Debug)]
pub(super) struct Ask {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Why; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Approve {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = editor.request("approve", self.reason.clone()).await;
        Box::pin(editor.answer(|rollout| approve(rollout, self.to_end, &request))).await
    }
}

/// What [`Ask`] asks for.
pub(super) struct Act {
    verb: &'static str,
    make: fn(&Rollout, Timestamp) -> Change,
    /// It is written before an operator has begun with the change that it is about.
    is_at_once: bool,
}

pub(super) const ABORT: Act = Act { verb: "abort", make: abort, is_at_once: false };
pub(super) const RETRY: Act = Act { verb: "retry", make: retry, is_at_once: false };
pub(super) const RESTART: Act = Act { verb: "restart", make: restart, is_at_once: false };
pub(super) const PAUSE: Act = Act { verb: "pause", make: pause, is_at_once: true };
pub(super) const RESUME: Act = Act { verb: "resume", make: resume, is_at_once: false };

impl Ask {
    /// `act`, with who asks and why.
    pub async fn run(&self, connection: &Connection, act: &Act) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = json!(editor.request(act.verb, self.reason.clone()).await);
        let make = |rollout: &Rollout| {
            let (mut patch, said) = (act.make)(rollout, Timestamp::now())?;
            patch.push(set("/spec/request", &request));
            Ok((patch, said))
        };
        if act.is_at_once { Box::pin(editor.change(make)).await } else { Box::pin(editor.answer(make)).await }
    }
}

/// The status, if it is about the present spec: answers name what a person has seen.
fn seen(rollout: &Rollout) -> Result<RolloutStatus> {
    let status = rollout.status.clone().unwrap_or_default();
    if status.observed_generation < rollout.metadata.generation {
        bail!(
            "{}: no operator has seen the present spec; `kubectl get deployments -A -l app.kubernetes.io/name=baton` tells whether one runs",
            rollout.name_any()
        );
    }
    Ok(status)
}

fn approve(rollout: &Rollout, to_end: bool, request: &Request) -> Change {
    let (name, status) = (rollout.name_any(), seen(rollout)?);
    let (_, reason, message) = state(&status, rollout.metadata.generation);
    let Some((run, batch)) = status.run.zip(status.batch) else {
        bail!("{name}: no run is on ({reason}), there is nothing to approve");
    };
    // A second word for what was approved a moment ago must not pass the pause after it.
    let waits = reason == "AwaitingApproval" || (reason == "Paused" && !rollout.spec.paused);
    if !waits && !to_end {
        bail!("{name} does not wait for approval ({reason}: {message}); --to-end approves what is to come");
    }
    let (batch, what) = match batch.index {
        _ if to_end => (-1, "all its pauses".into()),
        0 => (0, "the pause before its first instance".into()),
        index => (index, format!("batch {index}")),
    };
    let said = format!(
        "rollout.baton.dev/{name} approved: run {run} passes {what}; watch it with `kubectl baton status {name}`"
    );
    let approve = rollout::Approve { run, batch, by: request.by.clone(), reason: request.reason.clone() };
    Ok((vec![set("/spec/approve", &json!(approve))], said))
}

/// Gives up the run that is on.
fn abort(rollout: &Rollout, _: Timestamp) -> Change {
    let (name, status) = (rollout.name_any(), seen(rollout)?);
    let (_, reason, _) = state(&status, rollout.metadata.generation);
    let is_forward = status.batch.is_some() && status.target_revision != status.current_revision;
    let Some(run) = status.run.filter(|_| is_forward) else {
        bail!("{name}: no run is on that could be given up ({reason}); `kubectl baton undo {name}` goes back");
    };
    if status.current_revision.is_none() {
        bail!("{name}: no version has completed yet, there is none to go back to: change the spec");
    }
    let said =
        format!("rollout.baton.dev/{name} aborted: run {run} is given up; watch it with `kubectl baton status {name}`");
    Ok((vec![set("/spec/abort", &json!({"run": run}))], said))
}

/// Tries again what has failed, or was aborted.
fn retry(rollout: &Rollout, now: Timestamp) -> Change {
    let (name, status) = (rollout.name_any(), seen(rollout)?);
    let Some(failed) = status.failed else {
        bail!("{name}: nothing has failed that could be tried again; `kubectl baton restart {name}` makes new Pods");
    };
    let said = format!("rollout.baton.dev/{name} tries again; watch it with `kubectl baton status {name}`");
    Ok((vec![set("/spec/retryAt", &json!(moment(now, failed.at.as_ref())))], said))
}

/// Has every Pod replaced.
#[expect(clippy::unnecessary_wraps, reason = "one of the acts of Ask")]
fn restart(rollout: &Rollout, now: Timestamp) -> Change {
    let name = rollout.name_any();
    let asked = rollout.spec.restart_at.as_ref();
    let instead = asked.filter(|at| at.0 > now).map(|at| format!(", now and not at {}", at.0)).unwrap_or_default();
    let said = format!(
        "rollout.baton.dev/{name} restarted, in batches without their pauses{instead}; watch it with `kubectl baton status {name}`"
    );
    Ok((vec![set("/spec/restartAt", &json!(moment(now, asked.filter(|at| at.0 <= now))))], said))
}

/// The next whole second, of which the API tells times: Pods that were made in this very one are meant, too. But later than this,
/// also if a clock is behind.
fn moment(now: Timestamp, later_than: Option<&Time>) -> Time {
    let next = now.as_second() + i64::from(now.subsec_nanosecond() > 0);
    let second = later_than.map_or(next, |before| next.max(before.0.as_second() + 1));
    Time(Timestamp::from_second(second).unwrap_or(now))
}

/// Has nothing new begun.
fn pause(rollout: &Rollout, _: Timestamp) -> Change {
    set_paused(rollout, true)
}

/// Has it go on.
fn resume(rollout: &Rollout, _: Timestamp) -> Change {
    set_paused(rollout, false)
}

fn set_paused(rollout: &Rollout, paused: bool) -> Change {
    let name = rollout.name_any();
    if rollout.spec.paused == paused {
        bail!("{name} is {}", if paused { "paused already" } else { "not paused" });
    }
    let said = if paused {
        "paused: nothing new is begun; failed and aborted runs still go back, and lost instances come back"
    } else {
        "resumed"
    };
    Ok((vec![set("/spec/paused", &json!(paused))], format!("rollout.baton.dev/{name} {said}")))
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

    fn said(change: Change) -> String {
        change
            .map_or_else(|error| error.to_string(), |(patch, _)| format!("{} {}", patch[0]["path"], patch[0]["value"]))
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
