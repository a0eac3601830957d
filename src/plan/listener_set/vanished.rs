//! Ownership Leases that are gone without having been retired: deleted by a person, by the garbage collector, or with an
//! earlier set of the same name. The holder of such a listener may still be stopping it, and only its Lease said so: the
//! listener is not given to another before that holder is dead, or reports that nothing of it is left; and never under an epoch that
//! the Lease may have had.
use std::{collections::BTreeMap, time::Duration};

use super::{
    alarm::{Alarm, seconds},
    change::SetChange,
    memory::{SetRecollection, Vanished},
    view::View,
};
use crate::{
    api::names,
    plan::Applied,
    snapshot::{
        lease::{Claim, Holder},
        listener_set::SessionSeen,
    },
};

/// How often a Lease may have changed hands since it was last seen.
const EPOCHS_UNSEEN: u32 = 16;
/// The largest epoch that a Lease can hold.
const EPOCH_MAX: u32 = i32::MAX.unsigned_abs();
/// A renewal that tells nothing new is no event: the next one is looked for.
const LOOKS_AFTER: Duration = Duration::from_secs(1);

/// What is told of an earlier set is believed for a time only, whose end is no event.
const EARLIER_LOOKS_AFTER: Duration = Duration::from_mins(1);

/// Takes note of the Leases that are gone, and of holders that have let go since; returns what `status.epochFloor` must be.
pub(super) fn remember(view: &View<'_>, floor: u32, memory: &mut SetRecollection, alarm: &mut Alarm) -> u32 {
    let snapshot = view.snapshot;
    let now = snapshot.uptime;
    let begin = |holder: &Holder, was_told: bool| {
        let session = snapshot.sessions.get(&holder.pod);
        let renewed_at = session.and_then(|seen| seen.watched.session.as_ref()?.renewed_at);
        let duration = session.map(|seen| seen.watched.duration).unwrap_or_default();
        Vanished { since: now, renewed_at, was_told, watched_at: now, duration }
    };
    let set = snapshot.set.metadata.name.as_deref().unwrap_or_default();
    let is_unreadable = |listener: &str| snapshot.unreadable.contains(&names::listener_lease_name(set, listener));
    let (kept, before): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut memory.owned).into_iter().partition(|(listener, _)| is_unreadable(listener));
    for (listener, (holder, epoch)) in before {
        // A Lease that is unowned, at most at the floor, was retired.
        if snapshot.ownerships.contains_key(&listener) || (holder.is_none() && epoch <= floor) {
            continue;
        }
        memory.epoch_floor = memory.epoch_floor.max(epoch.saturating_add(EPOCHS_UNSEEN).min(EPOCH_MAX));
        if let Some(holder) = holder {
            // On its way it may have been given to one who has yet to tell.
            let was_told = memory.ran.get(&listener).is_some_and(|ran| ran.epoch == epoch)
                && !memory.released.contains_key(&listener);
            let gone = begin(&holder, was_told);
            memory.vanished.insert((listener, holder), gone);
        }
    }
    let owned = snapshot.ownerships.iter();
    memory.owned =
        owned.map(|(name, seen)| (name.clone(), (seen.ownership.holder.clone(), seen.ownership.epoch))).collect();
    // A Lease that cannot be read is not gone.
    memory.owned.extend(kept);
    remember_earlier(view, memory, alarm);
    let excess = excess(view);
    if memory.known_gaps.is_none() {
        // An earlier operator may have known which listener it is.
        for holder in &excess {
            memory.vanished.insert((String::new(), (*holder).clone()), begin(holder, true));
        }
    }
    memory.vanished.retain(|(listener, holder), gone| {
        !is_over(view, listener, holder, gone, excess.iter().all(|other| *other == holder), alarm)
    });
    floor.max(memory.epoch_floor)
}

/// Takes note of what was written, or may have been, since the look before: a Lease that is deleted before any watch has shown
/// it had an owner all the same.
pub fn note_write(memory: &mut SetRecollection, change: &SetChange, result: &Applied) {
    let (SetChange::CreateOwnership { listener, write, .. } | SetChange::Assign { listener, write, .. }) = change
    else {
        return;
    };
    // Who is told to come again later knows that nothing was written.
    if matches!(result, Applied::Done { .. } | Applied::Unknown { retry_after: None, .. }) {
        memory.owned.insert(listener.clone(), (write.holder.clone(), write.epoch));
    }
}

/// Takes note of boots that still hold listeners of an earlier set of this name, of whichever Pods: until they tell that
/// nothing is left, or are dead.
fn remember_earlier(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let snapshot = view.snapshot;
    for seen in snapshot.sessions.values().filter(|seen| seen.holds_of_earlier_set) {
        if let Some(holder) = claimed(seen) {
            memory.earlier.insert(holder.clone(), (snapshot.uptime, seen.watched.duration));
        }
    }
    memory.earlier.retain(|holder, (watched_at, duration)| match snapshot.sessions.get(&holder.pod) {
        Some(seen) if claimed(seen) == Some(holder) => seen.holds_of_earlier_set,
        Some(_) => view.death(holder).is_none(),
        // Its Pod is gone, and its session with it. No renewal has succeeded since.
        None => alarm.is_ahead(watched_at.saturating_add(*duration)),
    });
    if !memory.earlier.is_empty() {
        alarm.is_ahead(snapshot.uptime.saturating_add(EARLIER_LOOKS_AFTER));
    }
}

/// Boots that tell of more listeners than there are Leases that name them.
fn excess<'a>(view: &View<'a>) -> Vec<&'a Holder> {
    let mut known: BTreeMap<&Holder, u32> = BTreeMap::new();
    for holder in view.snapshot.ownerships.values().filter_map(|seen| seen.ownership.holder.as_ref()) {
        *known.entry(holder).or_default() += 1;
    }
    let told = view.snapshot.sessions.values().filter_map(|seen| Some((claimed(seen)?, seen.report.as_ref()?.count)));
    let more = told.filter(|(holder, count)| *count > known.get(holder).copied().unwrap_or(0));
    more.map(|(holder, _)| holder).filter(|holder| view.death(holder).is_none()).collect()
}

fn claimed(seen: &SessionSeen) -> Option<&Holder> {
    match &seen.watched.session.as_ref()?.claim {
        Claim::Held(holder) => Some(holder),
        _ => None,
    }
}

/// Nothing of it runs any more. `others_tell_all`: no other boot has more than it is known to have; it may have been given
/// to one just before its Lease was deleted.
fn is_over(
    view: &View<'_>,
    listener: &str,
    holder: &Holder,
    gone: &mut Vanished,
    others_tell_all: bool,
    alarm: &mut Alarm,
) -> bool {
    let snapshot = view.snapshot;
    let Some(seen) = snapshot.sessions.get(&holder.pod) else {
        // Not a Pod of the set any more, so that its session is not watched: it is over by then, or it has heard.
        let stop_timeout = seconds(snapshot.set.spec.defaults.stop_timeout_seconds);
        return !alarm.is_ahead(gone.watched_at.saturating_add(gone.duration).saturating_add(stop_timeout));
    };
    (gone.watched_at, gone.duration) = (snapshot.uptime, seen.watched.duration);
    if view.death(holder).is_some() {
        return others_tell_all;
    }
    alarm.is_ahead(snapshot.uptime.saturating_add(LOOKS_AFTER));
    let renewed_at = seen.watched.session.as_ref().and_then(|session| session.renewed_at);
    // Renewals overlap: one that was sent before the Lease was gone may arrive after a later one.
    let is_newer = claimed(seen) == Some(holder) && renewed_at > gone.renewed_at;
    // Its report may be of before it heard of the Lease at all.
    let has_heard = gone.was_told || !alarm.is_ahead(gone.since.saturating_add(gone.duration));
    is_newer && has_heard && others_tell_all && tells_nothing_of(view, seen, listener, holder)
}

/// Its report is about the Leases that are known here and nothing else.
fn tells_nothing_of(view: &View<'_>, seen: &SessionSeen, listener: &str, holder: &Holder) -> bool {
    let Some(report) = &seen.report else { return true };
    let ownerships = view.snapshot.ownerships.iter().map(|(name, seen)| (name, &seen.ownership));
    let held = ownerships.filter(|(_, ownership)| ownership.holder.as_ref() == Some(holder));
    let held: Vec<(&str, u32)> = held.map(|(name, ownership)| (name.as_str(), ownership.epoch)).collect();
    let count = usize::try_from(report.count).unwrap_or(usize::MAX);
    count == held.len() && report.running(&held).is_some() && !report.units.contains_key(listener)
}

/// Boots whose end is waited for although no Lease of this set names them: their sessions are fenced when they are over.
pub(super) fn awaited(view: &View<'_>, memory: &SetRecollection) -> Vec<Holder> {
    let gone = memory.vanished.keys().map(|(_, holder)| holder);
    gone.chain(excess(view)).chain(memory.earlier.keys()).cloned().collect()
}

/// Why a listener without a Lease does not get one now.
pub(super) fn held_back(memory: &SetRecollection, listener: &str) -> Option<(&'static str, String)> {
    let of = |name: &str| memory.vanished.keys().find(|(gone, _)| gone == name).map(|(_, holder)| &holder.pod);
    if let Some(pod) = of(listener) {
        let message = format!(
            "its Lease is gone, which said that {pod} holds it; it is made again once {pod} tells that it has stopped it, or is dead"
        );
        return Some(("Vanished", message));
    }
    if let Some(pod) = of("") {
        let message = format!(
            "{pod} tells of more listeners than there are Leases that name it; waits until it has stopped them, or is dead"
        );
        return Some(("Vanished", message));
    }
    let holder = memory.earlier.keys().next()?;
    let message = format!("{} still reports listeners of an earlier ListenerSet of this name", holder.pod);
    Some(("EarlierSet", message))
}
