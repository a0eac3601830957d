//! Failed Pods that are kept for a look (`spec.strategy.keepFailed`): out of every Service and every slot, for a while.
//!
//! Such a Pod runs on. So a Pod with an agent is never kept: others are to have its listeners, and each has one owner. And all
//! of them go where they are in the way of a Pod that is to come.
use crate::{
    api::keep_failed::KeepFailed,
    plan::{
        change::{Change, PodAct, PodReason},
        rollout::{
            pod::failure::{ended_by_others, failure_of},
            run::View,
            time::{Alarm, after, seconds},
        },
        specimen,
    },
    snapshot::{Pod, Ranges},
};

/// Keeps Pods that would be deleted, the first of a run; and deletes those whose time is over, or whose place others take.
pub(crate) fn keep(view: &View<'_>, changes: &mut Vec<Change>, alarm: &mut Alarm) {
    let snapshot = view.snapshot;
    let settings = view.policy.keeps_failed.filter(|_| !are_in_the_way(view));
    let most = settings.map_or(0, KeepFailed::most);
    let there = snapshot.specimens.iter().filter(|pod| pod.deletion.is_none());
    let mut kept: Vec<_> = there.filter_map(|pod| Some((pod.specimen.as_ref()?, &**pod))).collect();
    kept.sort_by_key(|(specimen, pod)| (specimen.until, &pod.name));

    let of_run = kept.iter().filter(|(specimen, _)| specimen.run == view.memory.run).count();
    let mut room = most.saturating_sub(of_run);
    let mut begun = 0;
    for change in changes.iter_mut().filter(|_| settings.is_some()) {
        let Change::Pod { seen, act } = change else { continue };
        let PodAct::Delete { reason, .. } = act else { continue };
        let pod = snapshot.pods.iter().find(|pod| pod.uid == seen.uid && room > 0);
        if pod.is_none_or(|pod| !is_worth_a_look(view, pod, *reason)) {
            continue;
        }
        let keep_seconds = settings.map_or(0, |settings| i64::from(settings.seconds));
        *act = PodAct::Keep { until: seconds(after(view.now(), keep_seconds)).0, run: view.memory.run };
        (room, begun) = (room - 1, begun + 1);
    }
    let surplus = (kept.len() + begun).saturating_sub(most);
    for (place, (specimen, pod)) in kept.into_iter().enumerate() {
        if alarm.passed(specimen.until) || place < surplus {
            changes.push(Change::delete(pod, PodReason::Kept));
        }
    }
}

/// It leaves because its version goes back, and it has failed itself.
fn is_worth_a_look(view: &View<'_>, pod: &Pod, reason: PodReason) -> bool {
    let goes_back = [PodReason::Back, PodReason::Superseded, PodReason::Finished].contains(&reason);
    let told = view.memory.failed.as_ref().filter(|failed| failed.at.is_some() && failed.revision == pod.revision);
    let noted = || {
        let mut revisions = view.snapshot.revisions.iter();
        revisions.any(|known| known.name == pod.revision && known.failed_at.is_some())
    };
    let is_available = || pod.is_available(view.spec().min_ready_seconds, view.now());
    let was_blamed =
        || told.is_some_and(|failed| Ranges::parse(&failed.slots).0.contains(&pod.slot)) && !is_available();
    let is_lost = || pod.node.as_ref().is_some_and(|node| view.snapshot.lost_nodes.contains(node));
    let fails = || failure_of(pod).is_some_and(|failure| failure.counts(view.now()));
    // The Pod is deleted then, as without keepFailed: the way back waits for no policy.
    let is_refused = || view.snapshot.change_refusals.contains_key(&specimen::refusal_key(&pod.uid));
    goes_back
        && !pod.has_agent
        && (told.is_some() || noted())
        && !is_refused()
        && !ended_by_others(pod)
        && !is_lost()
        && (fails() || was_blamed())
}

/// A Pod that is to come finds no quota, or no node with room for it.
fn are_in_the_way(view: &View<'_>) -> bool {
    let waits = |pod: &&Pod| pod.unschedulable.is_some();
    view.snapshot.create_refusal.is_some() || view.slots.wanted().any(|slot| slot.live.iter().any(waits))
}
