//! Agents that renew their sessions and do not hear of what they own: the watch on their ownership Leases is stuck, on the API
//! server's side or on the way. Their reports show it, because these name other Leases than the operator knows. The answer
//! is a letter about one of the Leases: the agent reads it, finds itself named, and lists all of its Leases anew.
use std::{collections::BTreeMap, time::Duration};

use super::{
    alarm::Alarm,
    memory::SetRecollection,
    view::{Unheard, View},
};

/// How long a report may be behind: three renewals of profile Default (R = 3 s), with which agents report.
const HEARS_WITHIN: Duration = Duration::from_secs(10);

/// Seats and listeners (indices) that a letter is due for.
pub(super) fn reminders(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) -> Vec<(usize, usize)> {
    let now = view.snapshot.uptime;
    let mut still = BTreeMap::new();
    let mut due = Vec::new();
    for (index, seat) in view.seats.iter().enumerate().filter(|(_, seat)| !seat.is_silent) {
        let Some(Unheard { held, item }) = &seat.unheard else { continue };
        let known = memory.unheard.get(seat.uid).filter(|(before, _)| before == held);
        let since = known.map_or(now, |(_, since)| *since);
        still.insert(seat.uid.to_owned(), (held.clone(), since));
        if !alarm.is_ahead(since.saturating_add(HEARS_WITHIN)) {
            due.push((index, *item));
        }
    }
    memory.unheard = still;
    due
}
