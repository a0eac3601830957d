//! The time after the last batch in which the instances are watched.
use crate::{
    api::{
        Time,
        bounds::{SOAK_BREACHES_MAX, SOAK_RESTARTED_MAX},
        names::instance_name,
        soak::{Breach, OnBreach, RestartedBefore, Soak, SoakStatus},
        status::Failed,
    },
    plan::rollout::{
        run::{View, revisions},
        time::{Alarm, after, seconds},
        verdict::soak::is_of_run,
    },
    snapshot::{Pod, Purpose, on_one_line},
};

/// Reason of a run that has broken a limit of its soak.
pub(crate) const SOAK_BREACH: &str = "SoakBreach";
/// A check that has failed less often in a row breaks nothing.
const FAILURES_MIN: u32 = 3;

/// What the soak has come to: status.soak, and status.failed if a limit is broken and the run fails for that.
pub(crate) struct Watched {
    pub soak: Option<SoakStatus>,
    pub failed: Option<Failed>,
}

/// Judges the instances while they are watched.
pub(crate) fn watch(view: &View<'_>, alarm: &mut Alarm) -> Watched {
    let mut watched = Watched { soak: view.memory.soak.clone(), failed: view.memory.failed.clone() };
    let Some(settings) = view.spec().soak.as_ref().filter(|_| is_of_run(view)) else { return watched };
    let Some(soak) = watched.soak.as_mut() else { return watched };
    // An operator that was away at its end judges then.
    soak.until.as_ref().map(|until| alarm.passed(until.0));
    if view.memory.batch.is_none() || view.lineage.is_back() {
        return watched;
    }
    let new: Vec<Breach> = breaches(view, settings, soak, alarm).into_iter().filter(|new| is_news(soak, new)).collect();
    let room = SOAK_BREACHES_MAX.saturating_sub(soak.breaches.len());
    soak.breaches.extend(new.into_iter().take(room));
    let is_open = view.memory.failed.as_ref().is_none_or(|failed| failed.at.is_none());
    if let Some(first) = soak.breaches.first().filter(|_| settings.on_breach == OnBreach::Rollback && is_open) {
        let at = view.lineage.effective.map_or(view.now(), |effective| revisions::failed_at(view.now(), effective));
        let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
        watched.failed = Some(Failed {
            revision: view.memory.effective.clone().unwrap_or_default(),
            run: view.memory.run,
            reason: SOAK_BREACH.into(),
            message: format!("{}: {}", instance_name(rollout, first.instance), first.message),
            at: Some(Time(at)),
            ..Failed::default()
        });
    }
    watched
}

fn is_news(soak: &SoakStatus, new: &Breach) -> bool {
    !soak.breaches.iter().any(|known| (known.instance, &known.what) == (new.instance, &new.what))
}

/// Begins to watch.
pub(crate) fn begin(view: &View<'_>) -> Option<SoakStatus> {
    let settings = view.spec().soak.as_ref()?;
    let started_at = seconds(view.now());
    let restarted = watched(view).map(|pod| RestartedBefore { pod: pod.name.clone(), restarts: restarts(pod) });
    Some(SoakStatus {
        run: view.memory.run,
        until: Some(seconds(after(started_at.0, i64::from(settings.seconds)))),
        started_at: Some(started_at),
        breaches: Vec::new(),
        restarted_before: restarted.filter(|it| it.restarts > 0).take(SOAK_RESTARTED_MAX).collect(),
    })
}

/// Pods at the revision of the run that are in no pin's hands.
fn watched<'v>(view: &'v View<'_>) -> impl Iterator<Item = &'v Pod> {
    let slots = view.slots.unpinned().filter(|slot| slot.opened);
    slots.filter_map(|slot| slot.live.first().copied().filter(|pod| Some(pod.revision.as_str()) == slot.assigned))
}

fn restarts(pod: &Pod) -> i32 {
    pod.containers.iter().filter(|container| !container.init).map(|container| container.restarts).sum()
}

fn breaches(view: &View<'_>, settings: &Soak, soak: &SoakStatus, alarm: &mut Alarm) -> Vec<Breach> {
    let mut found = Vec::new();
    let now = view.now();
    for pod in watched(view) {
        let mut note = |what: &str, message: String| {
            let message: String = on_one_line(&message).chars().take(256).collect();
            found.push(Breach { instance: pod.slot, what: what.into(), message, at: Some(seconds(now)) });
        };
        let before = soak.restarted_before.iter().find(|it| it.pod == pod.name).map(|it| it.restarts);
        // Of those that there was no room for it is not known how often they had restarted.
        let is_known = before.is_some() || soak.restarted_before.len() < SOAK_RESTARTED_MAX;
        let since = restarts(pod) - before.unwrap_or(0);
        if is_known && since > settings.max_restarts {
            note("restarts", format!("{since} restarts of at most {}", settings.max_restarts));
        }
        if let Some(unready) = pod.unready_since.filter(|_| !pod.is_ready())
            && alarm.passed(after(unready, i64::from(settings.max_unready_seconds)))
        {
            note("unready", format!("not ready for {} s", settings.max_unready_seconds));
        }
        let call = view.snapshot.calls.get(&(pod.uid.clone(), Purpose::Soak));
        if let Some(call) = call
            && let (Some(failing), Some(Err(said))) = (&call.failing_since, &call.answer)
            && call.failures >= FAILURES_MIN
            && alarm.passed(after(*failing, i64::from(settings.for_seconds)))
        {
            note("check", format!("check {said}, for {} s", settings.for_seconds));
        }
    }
    found
}
