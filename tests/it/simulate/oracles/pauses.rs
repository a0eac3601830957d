//! R21: a pause without an end is passed by its approval alone.
use baton::api::{
    Rollout, RolloutStatus,
    names::ANNOTATION_COMPLETED_AT,
    rollout::{Pause, StrategyType},
    status::BatchStatus,
};

use super::{Docket, story::owner};
use crate::fake_apiserver::store::Change;

/// Pauses that wait for a person: number of the batch, and how many instances it ends at.
fn asks(rollout: &Rollout) -> Vec<(i32, i32)> {
    let (strategy, replicas) = (&rollout.spec.strategy, rollout.spec.replicas);
    let batches = strategy.batches.iter().flatten().filter(|_| strategy.type_ == StrategyType::Batched);
    let (mut number, mut most, mut found) = (0, 0, Vec::new());
    for batch in batches {
        let up_to = batch.up_to.rounded_up(replicas).min(replicas);
        number += i32::from(up_to > most);
        most = most.max(up_to);
        if batch.pause == Some(Pause { seconds: None }) {
            found.push((number, most));
        }
    }
    found
}

/// A run towards something new is on. Where instances are pinned, batches count the others: they are left to other tests.
fn forward(rollout: &Rollout) -> Option<(&RolloutStatus, i64, &BatchStatus)> {
    let status = rollout.status.as_ref()?;
    let batch = status.batch.as_ref().filter(|batch| batch.pinned.is_empty() && rollout.spec.pins.is_empty())?;
    let is_forward = status.current_revision.is_some() && status.target_revision != status.current_revision;
    is_forward.then_some((status, status.run?, batch))
}

/// Nobody has passed one of those pauses of this run that `lies_between`.
fn is_unasked(rollout: &Rollout, run: i64, lies_between: impl Fn(i32) -> bool) -> bool {
    let answer = rollout.spec.approve.as_ref().filter(|answer| answer.run == run).map(|answer| answer.batch);
    let is_passed = |number: i32| answer.is_some_and(|batch| batch == -1 || batch >= number);
    asks(rollout).into_iter().any(|(number, at)| lies_between(at) && !is_passed(number))
}

impl Docket {
    /// An operator has written status: which batches have been opened since?
    pub(super) fn judge_opening(&self, uid: &str, before: &Rollout) {
        let Some(story) = self.stories.get(uid) else { return };
        let Some(((_, run, then), (_, run_now, now))) = forward(before).zip(story.rollout().and_then(|it| forward(it)))
        else {
            return;
        };
        let (from, to) = (then.opened, now.opened);
        if run != run_now || to <= from {
            return;
        }
        let is_wrong = |seen: &Rollout| seen.spec.pins.is_empty() && is_unasked(seen, run, |at| from <= at && at < to);
        if story.versions_seen(self.age).all(|seen| is_wrong(seen)) {
            self.accuse("R21", format_args!("{to} instances are opened after {from}, past a pause"));
        }
    }

    /// An operator has written a ControllerRevision: is its run complete?
    pub(super) fn judge_completion(&self, change: &Change) {
        let completed_at =
            |object: &serde_json::Value| object["metadata"]["annotations"][ANNOTATION_COMPLETED_AT].clone();
        let before = change.before.as_ref().map(|before| completed_at(before)).unwrap_or_default();
        if change.is_gone || completed_at(&change.object) == before {
            return;
        }
        let name = change.object.name();
        let Some(story) = owner(&change.object).and_then(|owner| self.stories.get(owner)) else { return };
        let is_wrong = |seen: &Rollout| {
            forward(seen).is_some_and(|(status, run, _)| {
                let is_it = status.target_revision.as_deref() == Some(name);
                is_it && is_unasked(seen, run, |at| at >= seen.spec.replicas)
            })
        };
        if story.versions_seen(self.age).all(|seen| is_wrong(seen)) {
            self.accuse("R21", format_args!("{name} is complete, past the pause after its last batch"));
        }
    }
}
