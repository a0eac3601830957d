//! The hand-off of listeners: who may run one, who may give it to whom. At most one fenced owner at any time.
//!
//! The same functions decide at both ends, in the controller and in the agent of each Pod, and in the model that looks for
//! two owners (`tests/it/model`). They never ask who leads or what an inbox says: both only make things happen sooner.
//! What they rest on:
//! 1. Every change of an ownership is a compare-and-swap on its resourceVersion; one that names a holder, or none, raises
//!    its epoch. An epoch is started at most once, by the boot that its Lease names.
//! 2. A boot runs something only until its deadline: the time at which it *sent* its last acknowledged renewal, and S
//!    ([`session::deadline`]). Others wait D > S for a silent session.
//! 3. An owner gives a listener away only when that has certainly stopped ([`ownership::hand_over`]); anybody else takes it
//!    only from a boot that is dead by a fact that can never turn false again ([`death::proof`]).
//!
//! [`plan`] is the controller's part: what to write next for one ListenerSet. Its steps:
//! 1. [`view`]: seats (Pods) and listeners, with what their Leases, inboxes and reports say;
//! 2. [`goals`]: where each listener is to be ([`placement`]), with what has been tried and waited for;
//! 3. [`sessions`]: sessions made and fenced;
//! 4. [`work`]: what is given, moved, stopped, restarted and retired for that, within the bounds of [`budget`]; [`deaf`]: agents
//!    that do not hear of it are reminded;
//! 5. [`places`]: each listener in words.
//!
//! Like all planners here it looks at what is there and remembers next to nothing ([`SetRecollection`]): what it remembers
//! decides who may run a listener only where a Lease was deleted that said so ([`vanished`]).
mod alarm;
mod budget;
pub mod change;
pub mod course;
mod deaf;
pub mod death;
mod goals;
mod memory;
mod mend;
mod note;
pub mod ownership;
pub mod placement;
mod places;
pub mod session;
mod sessions;
mod starts;
#[cfg(test)]
pub(crate) mod tests;
pub mod unit;
mod vanished;
mod view;
pub mod wanted;
mod work;

pub use memory::{Ran, SetRecollection, Since, Tried, Vanished};
pub use vanished::note_write;

use std::{collections::BTreeSet, time::Duration};

use self::{
    alarm::Alarm,
    change::{SetChange, SetPlan},
    session::session_times,
    view::View,
    work::Work,
};
use crate::snapshot::{listener_set::SetSnapshot, report::Gap};

/// Gaps that are remembered.
const GAPS_MAX: usize = 1_000;

/// How much longer than the time between two renewals, with which agents report, moves count as under way.
const MOVES_OVER_AFTER_RENEWAL: Duration = Duration::from_secs(1);

/// The next changes for this ListenerSet, and what to remember until the next look. Pure and total.
pub fn plan(snapshot: &SetSnapshot, recollection: &SetRecollection) -> (SetPlan, SetRecollection) {
    let status = snapshot.set.status.as_ref();
    let floor = status.and_then(|status| u32::try_from(status.epoch_floor).ok()).unwrap_or(0);
    if snapshot.set.metadata.deletion_timestamp.is_some() {
        // The garbage collector takes the Leases, and agents stop what has none.
        return (SetPlan { epoch_floor: floor, ..SetPlan::default() }, recollection.clone());
    }
    let mut alarm = Alarm::new(snapshot.uptime);
    let mut memory = recollection.clone();
    if let Ok(listeners) = &snapshot.listeners {
        // The numbered ones of spec.count can always be made again.
        memory.last_read = Some(listeners.clone()).filter(|_| snapshot.set.spec.count.is_none());
    }
    let mut view = View::new(snapshot, recollection);
    let floor_due = vanished::remember(&view, floor, &mut memory, &mut alarm);
    goals::remember(&mut view, &mut memory, &mut alarm);
    memory.starts.remember(snapshot);
    remember_gaps(snapshot, &mut memory, &mut alarm);
    let is_braked = sessions::is_braked(&view, &mut memory, &mut alarm);
    let fences = sessions::fence(&view, &memory, &mut alarm, is_braked);
    let held_back = work::held_back(&view, &memory);
    let is_held_back: Vec<bool> = held_back.iter().map(Option::is_some).collect();
    let goals = goals::goals(&view, &is_held_back, &mut memory, &mut alarm);
    let mut work = Work::new(&view, &mut memory, &mut alarm, (floor, floor_due));
    work.run(&goals, &held_back);
    let Work { floor: epoch_floor, changes, notes, .. } = work;
    let mut changes: Vec<SetChange> = fences.into_iter().chain(changes).chain(sessions::provide(&view)).collect();
    changes.sort_by_key(urgency);
    let listeners = places::places(&view, &notes);
    (SetPlan { epoch_floor, changes, listeners, is_braked, wake_after: alarm.after() }, memory)
}

/// The sooner something runs for it, the sooner it is written.
fn urgency(change: &SetChange) -> u8 {
    match change {
        SetChange::Fence { .. } => 0,
        SetChange::Assign { .. } | SetChange::CreateOwnership { .. } => 1,
        SetChange::CreateSession { .. } => 2,
        SetChange::SetInbox { .. } => 3,
        SetChange::Configure { .. } => 4,
        SetChange::SetProfile { .. }
        | SetChange::Mend { .. }
        | SetChange::Retire { .. }
        | SetChange::KillPod { .. } => 5,
    }
}

/// Collects the gaps of the moves that are under way. An agent reports a gap with its next renewal, up to seconds after the
/// listener runs, so moves are over once none has been reported for as long as the slowest of them waits between two, and
/// [`MOVES_OVER_AFTER_RENEWAL`].
fn remember_gaps(snapshot: &SetSnapshot, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let reports = snapshot.sessions.values().filter_map(|session| session.report.as_ref());
    let reported: Vec<&Gap> = reports.flat_map(|report| &report.gaps).collect();
    let key = |gap: &Gap| (gap.listener.clone(), gap.epoch);
    let all: BTreeSet<_> = reported.iter().map(|gap| key(gap)).collect();
    let mut has_new = false;
    if let Some(known) = &memory.known_gaps {
        let new: Vec<Gap> = reported.into_iter().filter(|gap| !known.contains(&key(gap))).cloned().collect();
        has_new = !new.is_empty();
        if has_new && memory.moves_are_over {
            memory.gaps.clear();
            memory.moves_are_over = false;
        }
        memory.gaps.extend(new);
        let too_many = memory.gaps.len().saturating_sub(GAPS_MAX);
        memory.gaps.drain(..too_many); // moves without end
    }
    memory.known_gaps = Some(all);
    if has_new {
        memory.moved_at = Some(snapshot.uptime);
    }
    let claimed = snapshot.sessions.values().filter(|session| session.watched.session.is_some());
    let renewed_each = claimed.map(|session| session_times(session.watched.duration).renew).max();
    let over_after = renewed_each.unwrap_or_default() + MOVES_OVER_AFTER_RENEWAL;
    memory.moves_are_over |= memory.moved_at.is_none_or(|at| !alarm.is_ahead(at + over_after));
}
