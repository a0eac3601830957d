//! Instances that are asked whether they are still well, while the run is watched.
use super::ask::{call, is_due, room};
use crate::{
    plan::{
        change::Change,
        rollout::{run::View, time::Alarm, verdict::soak::is_of_run},
    },
    snapshot::Purpose,
};

/// Rounds of questions that are due.
pub(crate) fn ask(view: &View<'_>, alarm: &mut Alarm) -> Vec<Change> {
    let Some(settings) = view.spec().soak.as_ref().filter(|soak| !soak.checks.is_empty()) else { return Vec::new() };
    let soak = view.memory.soak.as_ref().filter(|_| is_of_run(view) && view.memory.batch.is_some());
    let Some(started) = soak.filter(|soak| soak.until.as_ref().is_some_and(|until| until.0 > view.now())) else {
        return Vec::new();
    };
    let Some(of) = started.started_at.as_ref().map(|at| at.0) else { return Vec::new() };
    let calls = &view.snapshot.calls;
    let slots = view.slots.unpinned().filter(|slot| slot.opened);
    let pods = slots.filter_map(|slot| slot.live.first().copied().filter(|pod| pod.is_ready()));
    let mut due: Vec<_> = pods
        .filter_map(|pod| {
            let round = calls.get(&(pod.uid.clone(), Purpose::Soak)).filter(|round| round.of == of);
            let pause = i64::from(settings.check_period_seconds);
            let began_at = round.map(|round| round.began_at);
            is_due(round, view.now(), pause, alarm).then(|| (began_at, call(pod, Purpose::Soak, of)))
        })
        .collect();
    due.sort_by_key(|(began_at, _)| *began_at);
    due.into_iter().map(|(_, call)| call).take(room(view.snapshot, &[Purpose::Soak])).collect()
}
