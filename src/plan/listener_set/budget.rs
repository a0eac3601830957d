//! How much may happen at once: starts in a period, moves in flight, letters in an inbox.
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    alarm::Alarm,
    memory::SetRecollection,
    starts::permits,
    view::{Item, View},
};
use crate::{api::bounds::INBOX_MAX, snapshot::lease::Order};

/// Permits of `spec.startBudget`. Those given out an operator that has just started finds in the acquireTimes of the Leases;
/// agents that restart a listener in place write one, too, and are counted without being asked: but
/// what fails again and again leaves one permit of a period to the others.
pub(super) struct Permits {
    free: Option<usize>,
    /// Used up by restarts in place, and still there for starts elsewhere.
    spare: usize,
}

impl Permits {
    pub fn new(view: &View<'_>, memory: &SetRecollection, alarm: &mut Alarm) -> Self {
        let Some(budget) = &view.snapshot.set.spec.start_budget else { return Self { free: None, spare: 0 } };
        for until in memory.starts.elsewhere.iter().chain(&memory.starts.in_place) {
            alarm.is_ahead(*until);
        }
        let promised = view.items.iter().filter(|item| is_promised(item, memory)).count();
        let (elsewhere, in_place) = (memory.starts.elsewhere.len() + promised, memory.starts.in_place.len());
        let permits = permits(budget);
        let free = permits.saturating_sub(elsewhere + in_place);
        let spare = permits.saturating_sub(elsewhere + in_place.min(permits - 1)) - free;
        Self { free: Some(free), spare }
    }

    /// For a start in another Pod than before.
    pub fn take(&mut self) -> bool {
        let has_one = self.take_in_place();
        if !has_one && self.spare > 0 {
            self.spare -= 1;
            return true;
        }
        has_one
    }

    /// For a restart where it runs.
    pub fn take_in_place(&mut self) -> bool {
        match &mut self.free {
            None => true,
            Some(0) => false,
            Some(free) => {
                *free -= 1;
                true
            }
        }
    }
}

/// It was given a permit that no Lease shows yet: it stops in order to start, here or elsewhere, or may start again.
fn is_promised(item: &Item<'_>, memory: &SetRecollection) -> bool {
    let moves = matches!(item.release, Some(Order::Release(Some(_))));
    let restarts = memory.restarting.get(item.name).is_some_and(|told| told.epoch == item.epoch());
    item.at().is_some() && (item.is_permitted || moves || restarts)
}

/// What is on its way: `handoff.maxInFlight` and `maxInFlightPerPod`, and the letters that an inbox holds.
pub(super) struct Traffic {
    most: usize,
    most_per_pod: usize,
    total: usize,
    per_seat: Vec<usize>,
    letters: Vec<usize>,
}

impl Traffic {
    pub fn new(view: &View<'_>) -> Self {
        let handoff = &view.snapshot.set.spec.handoff;
        let at_least_one = |number: i32| usize::try_from(number).unwrap_or(0).max(1);
        Self {
            most: at_least_one(handoff.max_in_flight),
            most_per_pod: at_least_one(handoff.max_in_flight_per_pod).min(INBOX_MAX),
            total: 0,
            per_seat: vec![0; view.seats.len()],
            letters: vec![0; view.seats.len()],
        }
    }

    pub fn admits(&self, seats: &[usize]) -> bool {
        self.total < self.most && seats.iter().all(|seat| self.per_seat[*seat] < self.most_per_pod)
    }

    /// One more on its way, from or to these seats.
    pub fn add(&mut self, seats: &[usize]) {
        self.total += 1;
        for seat in seats {
            self.per_seat[*seat] += 1;
        }
    }

    /// One letter more for each of these; false when one of their inboxes is full.
    pub fn add_letters(&mut self, seats: &[usize]) -> bool {
        let fit = seats.iter().all(|seat| self.letters[*seat] < INBOX_MAX);
        if fit {
            for seat in seats {
                self.letters[*seat] += 1;
            }
        }
        fit
    }
}

/// How long until a time of the wall clock, on the operator's own; None when it is reached.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    let wait = at.duration_since(now);
    (wait > SignedDuration::ZERO).then(|| wait.unsigned_abs())
}
