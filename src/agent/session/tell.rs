//! What this agent tells of its listeners on the session: one report for each ListenerSet.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{hands::Moment, listener::Listener};
use crate::snapshot::{
    lease::Holder,
    report::{Gap, Report, UNITS_MAX, UnitState},
};

/// Reports as JSON, by name of the ListenerSet.
///
/// A set that was made again under its name waits until nothing of the one before is left: until then the report is that
/// of the earlier one.
pub fn reports<'a>(
    listeners: impl Iterator<Item = &'a Listener>,
    gaps: &BTreeMap<String, VecDeque<Gap>>,
    me: &Holder,
    moment: &Moment<'_>,
) -> BTreeMap<String, String> {
    let mut sets: BTreeMap<&str, BTreeMap<&str, Vec<&Listener>>> = BTreeMap::new();
    for listener in listeners {
        let lease = &listener.lease;
        sets.entry(&lease.set).or_default().entry(&lease.set_uid).or_default().push(listener);
    }
    let json_of = |(set, by_uid): (&str, BTreeMap<&str, Vec<&Listener>>)| {
        let (uid, listeners) = due(by_uid, me)?;
        let mut report = report(uid, &listeners, me, moment);
        report.gaps = gaps.get(uid).into_iter().flatten().cloned().collect();
        Some((set.to_owned(), serde_json::to_string(&report).unwrap_or_default()))
    };
    sets.into_iter().filter_map(json_of).collect()
}

/// Of the sets of one name the earliest of which there is something here; where there is nothing of any, the latest.
fn due<'a>(by_uid: BTreeMap<&'a str, Vec<&'a Listener>>, me: &Holder) -> Option<(&'a str, Vec<&'a Listener>)> {
    let mut in_order: Vec<_> = by_uid.into_iter().collect();
    in_order.sort_by_key(|(_, listeners)| listeners.iter().map(|listener| listener.number).min());
    let alive = in_order.iter().position(|(_, listeners)| listeners.iter().any(|listener| listener.counts(me)));
    let index = alive.unwrap_or(in_order.len().saturating_sub(1));
    in_order.into_iter().nth(index)
}

fn report(uid: &str, listeners: &[&Listener], me: &Holder, moment: &Moment<'_>) -> Report {
    let mut report = Report { set: uid.to_owned(), ..Report::default() };
    let mine = listeners.iter().filter(|listener| listener.is_mine(me));
    let held =
        mine.map(|listener| (listener.lease.listener.clone(), (listener.lease.ownership.epoch, listener.works())));
    report.set_held(&held.collect());
    // More than is held: what is gone, and has not ended.
    let counted = listeners.iter().filter(|listener| listener.counts(me));
    let counted: BTreeSet<&str> = counted.map(|listener| listener.lease.listener.as_str()).collect();
    report.count = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    let units = listeners.iter().filter_map(|listener| {
        let letter = moment.letter(&listener.lease);
        Some((listener.lease.listener.clone(), listener.report(letter, me, moment.now)?))
    });
    let mut units: Vec<_> = units.collect();
    // Those first that something waits for.
    units.sort_by_key(|(_, unit)| !matches!(unit.state, UnitState::Prepared | UnitState::Waiting));
    report.units = units.into_iter().take(UNITS_MAX).collect();
    report
}

#[cfg(test)]
#[path = "tell_tests.rs"]
mod tests;
