//! The progress deadline: who is late.
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    plan::rollout::{
        run::{
            View,
            slots::{Done, Slot},
        },
        time::{Alarm, after},
    },
    snapshot::{Pod, Ranges},
};

/// How far a node's clock may be ahead of ours: what it says of later is not believed.
const AHEAD_MAX: SignedDuration = SignedDuration::from_secs(60);

/// When any Pod was last handed a listener. Listeners move one by one, and at the pace of a start budget thousands of them take
/// hours: each that arrives is progress. Not on an instance that has failed in this run: a listener that no Pod can run is handed
/// round among them for ever.
pub(crate) fn handed_over_at(view: &View<'_>) -> Option<Timestamp> {
    let (snapshot, now) = (view.snapshot, view.now());
    let failed = view.memory.failed.as_ref().filter(|failed| failed.run == view.memory.run);
    let failed = failed.map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
    let pods = snapshot.pods.iter().filter(|pod| failed.0.contains(&pod.slot));
    let failed: BTreeSet<&str> = pods.map(|pod| pod.name.as_str()).collect();
    let gained =
        snapshot.agents.seen().filter(|(pod, _)| !failed.contains(pod.as_str())).filter_map(|(_, a)| a.last_gained);
    gained.filter(|at| at.duration_since(now) <= AHEAD_MAX).map(|at| at.min(now)).max()
}

/// When the opened instances should be available at the latest, if they are not: counted from the start of the clock, the
/// newest available instance, or the last listener that was handed over. None while the clock stands still.
fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let from = view.memory.batch.as_ref()?.deadline_from.as_ref()?.0;
    let min_ready_seconds = view.spec().min_ready_seconds;
    let opened = || view.slots.unpinned().filter(|slot| slot.opened);
    let told =
        opened().flat_map(|slot| at_effective(view, slot)).filter_map(Pod::told_at).filter(|at| *at <= view.now());
    let progress = opened()
        .flat_map(|slot| at_effective(view, slot))
        .filter(|pod| pod.in_transit(view.now()).is_none())
        .filter_map(|pod| pod.available_at(min_ready_seconds).filter(|at| *at <= view.now()))
        .chain(handed_over_at(view))
        .chain(told)
        .max();
    Some(after(progress.map_or(from, |at| at.max(from)), seconds_allowed(view)))
}

/// Seconds. `creationTimestamp` has whole seconds, so two Pods created at once may seem one second apart. They fail together:
/// otherwise the run ends with the first, and the second is not named although it hangs as well.
const CREATION_GRAIN: i64 = 1;

/// Opened slots that are not done when the deadline has passed.
#[derive(Default)]
pub(crate) struct Late {
    /// Their Pods have the version, and are not available in time.
    pub given: Vec<i32>,
    /// They have yet to be given it: not their fault, nor that of the version in them. Empty while another slot has time left, as
    /// what it holds may become free.
    pub waiting: Vec<i32>,
}

impl Late {
    pub fn is_empty(&self) -> bool {
        self.given.is_empty() && self.waiting.is_empty()
    }
}

/// The opened slots that are late. A Pod has its time from its own creation or change in place on, a slot whose old Pod is ending
/// from that end on. A Pod on a lost node is not late but lost.
pub(crate) fn late(view: &View<'_>, alarm: &mut Alarm) -> Late {
    let mut late = Late::default();
    let Done::Not(undone) = view.slots.done() else { return late };
    if !deadline(view).is_some_and(|at| alarm.passed(at)) {
        return late;
    }
    let mut has_time_left = false;
    let mut as_old = Vec::new();
    for slot in view.slots.wanted().filter(|slot| undone.binary_search(&slot.index).is_ok()) {
        if is_lost(view, slot) {
            continue;
        }
        let is_given = at_effective(view, slot).next().is_some();
        match late_at(view, slot) {
            Some(at) if !alarm.passed(at) => {
                has_time_left = true;
                if is_given && at <= after(view.now(), CREATION_GRAIN) {
                    as_old.push(slot.index);
                }
            }
            _ if is_given => late.given.push(slot.index),
            _ => late.waiting.push(slot.index),
        }
    }
    if has_time_left {
        late.waiting.clear();
    }
    if !late.given.is_empty() {
        late.given.extend(as_old);
        late.given.sort_unstable();
    }
    late
}

fn is_lost(view: &View<'_>, slot: &Slot<'_>) -> bool {
    let is_lost = |node: &String| view.snapshot.lost_nodes.contains(node);
    at_effective(view, slot).any(|pod| pod.node.as_ref().is_some_and(is_lost))
}

/// When the time of this slot is over: counted from its newest Pod of the version, or from the end of the old one. None for a
/// slot that has neither.
fn late_at(view: &View<'_>, slot: &Slot<'_>) -> Option<Timestamp> {
    let created = at_effective(view, slot).map(Pod::given_at);
    let ended = slot.terminating.iter().filter(|_| slot.live.is_empty()).filter_map(|pod| pod.deletion);
    created.chain(ended).max().map(|since| after(since, seconds_allowed(view)))
}

pub(crate) fn at_effective<'v>(view: &'v View<'_>, slot: &'v Slot<'_>) -> impl Iterator<Item = &'v Pod> {
    let effective = view.lineage.effective.map(|revision| revision.name.as_str());
    slot.live.iter().copied().filter(move |pod| Some(pod.revision.as_str()) == effective)
}

pub(crate) fn seconds_allowed(view: &View<'_>) -> i64 {
    i64::from(view.spec().progress_deadline_seconds)
}
