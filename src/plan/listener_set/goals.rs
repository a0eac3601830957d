//! Where each listener is to be: what has been tried, who is stuck, who may wait for more Pods.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    alarm::{Alarm, seconds},
    budget::until,
    memory::{Ran, SetRecollection, Since},
    placement::{self, Role, Rules, Spot},
    view::{Item, Owner, Runs, Seat, View, Wish},
    wanted,
};
use crate::snapshot::{
    lease::{Claim, Order},
    listener_set::Course,
    report::UnitState,
};

/// Starts in a row that have failed on a Pod, after which a listener is moved: its agent restarts it in place once.
const FAILURES_MAX: u32 = 2;
/// The same on a Pod of the revision that a rollout works towards: so many fail its batch, and a listener that has left
/// before would let it pass.
const FAILURES_MAX_ROLLING: u32 = 3;
/// A Pod that tried a listener in vain is tried again after this time: each Pod once in it, however many there are.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);
/// How long a listener that does not run waits for more Pods, when those that are there would get more than their share. Listeners
/// that have never run wait for any Pod that is to come; others only when more than half of the Pods are missing, or for
/// [`AWAITS_COMING`]: after the loss of a few Pods the others take everything at once.
const CROWDS_AFTER: Duration = Duration::from_secs(5);
/// How long a listener that does not run waits for Pods that are about to be Ready ([`Crowd::is_coming`]), also where half are there: what
/// exceeded its share would move again at once.
const AWAITS_COMING: Duration = Duration::from_secs(1);
/// A Pod whose session has been as it is for so long is not about to be Ready: it pulls an image, or has no agent.
const COMING_MAX: Duration = Duration::from_mins(1);

/// Where listeners are to be, in the order of `view.items`.
pub(super) struct Goals {
    /// The seat of each; None: none, or it is not to run.
    pub seats: Vec<Option<usize>>,
    /// Those whose Pod is deleted once it holds nothing, while `spec.placement.maxPerPod` leaves room for them nowhere: the
    /// Pod that will have some cannot come before that one has gone. They wait for it without running.
    pub put_down: Vec<bool>,
    /// Those that stay all the same on a Pod that is deleted once it holds nothing: every other one has tried them in vain,
    /// or has no room.
    pub stranded: Vec<bool>,
}

/// What is to be where.
pub(super) fn goals(view: &View<'_>, is_held_back: &[bool], memory: &mut SetRecollection, alarm: &mut Alarm) -> Goals {
    let spec = &view.snapshot.set.spec;
    let runs = |item: &&Item<'_>| item.wish == Wish::Run;
    let seats: Vec<_> = view
        .seats
        .iter()
        .map(|seat| placement::Seat { slot: seat.pod.and_then(|pod| pod.slot), role: seat.role })
        .collect();
    let rules = Rules {
        listeners: view.items.iter().filter(runs).count(),
        max_per_pod: usize::try_from(spec.placement.max_per_pod).ok().filter(|most| *most > 0),
        seats_in_the_end: view.snapshot.pods_in_the_end,
        is_quiet: !view.snapshot.is_rolling,
    };
    let crowd = Crowd::new(view, memory, alarm);
    let placed =
        view.items.iter().zip(is_held_back).map(|(item, is_held_back)| item.wish == Wish::Run && !is_held_back);
    let placed: Vec<bool> = placed.collect();
    let mut spots: Vec<Spot> = view
        .items
        .iter()
        .zip(&placed)
        .filter(|(_, placed)| **placed)
        .map(|(item, _)| Spot {
            at: item.at(),
            announced: announced(view, item),
            shuns: shuns(view, item, memory),
            may_crowd: crowd.admits(view, item),
        })
        .collect();
    let mut found = placement::place(&spots, &seats, &rules);
    let is_stranded =
        |spot: &Spot, to: Option<usize>| spot.at == to && spot.at.is_some_and(|at| is_deleted_when_empty(view, at));
    let is_anything_stranded = spots.iter().zip(&found).any(|(spot, to)| is_stranded(spot, *to));
    memory.stranded_since = is_anything_stranded.then(|| memory.stranded_since.unwrap_or(view.snapshot.uptime));
    let until = memory.stranded_since.map(|since| since.saturating_add(CROWDS_AFTER));
    let has_waited = until.is_some_and(|until| !alarm.is_ahead(until));
    if has_waited {
        for (spot, _) in spots.iter_mut().zip(&found).filter(|(spot, to)| is_stranded(spot, **to)) {
            spot.may_crowd = true;
        }
        found = placement::place(&spots, &seats, &rules);
    }
    let may_put_down = has_waited && rules.max_per_pod.is_some_and(|most| are_full(&seats, &found, most));
    let no = || vec![false; placed.len()];
    let mut goals = Goals { seats: vec![None; placed.len()], put_down: no(), stranded: no() };
    let indices = placed.iter().enumerate().filter(|(_, placed)| **placed).map(|(index, _)| index);
    for ((index, spot), to) in indices.zip(&spots).zip(found) {
        let is_stranded = has_waited && is_stranded(spot, to);
        goals.seats[index] = to;
        (goals.put_down[index], goals.stranded[index]) = (may_put_down && is_stranded, !may_put_down && is_stranded);
    }
    goals
}

/// Whether every Pod that may be given something, of which there are some, is to have as many as it may.
fn are_full(seats: &[placement::Seat], found: &[Option<usize>], most: usize) -> bool {
    let mut load = vec![0; seats.len()];
    found.iter().flatten().for_each(|seat| load[*seat] += 1);
    let mut open =
        seats.iter().zip(load).filter(|(seat, _)| matches!(seat.role, Role::Target | Role::Stays)).peekable();
    open.peek().is_some() && open.all(|(_, load)| load >= most)
}

/// The seat that a listener is on its way to.
pub(super) fn announced(view: &View<'_>, item: &Item<'_>) -> Option<usize> {
    match item.release {
        Some(Order::Release(Some(to))) => view.seat_of(to),
        _ => item.invited,
    }
}

fn shuns(view: &View<'_>, item: &Item<'_>, memory: &SetRecollection) -> BTreeSet<usize> {
    let tried = memory.tried.get(item.name).into_iter().flat_map(|tried| &tried.pods);
    let mut shuns: BTreeSet<usize> = tried.filter_map(|uid| view.seat_of_uid(uid)).collect();
    if memory.requests.get(item.name).is_some_and(|(_, epoch)| *epoch == item.epoch()) {
        shuns.extend(item.at()); // spec.release: away from there
    }
    shuns
}

/// Whether a listener that does not run, or that is on a Pod that leaves, may go where it exceeds a Pod's share.
struct Crowd {
    has_waited: bool,
    /// What has never run.
    admits_new: bool,
    /// What has lost its Pod.
    admits_lost: bool,
    /// Slots with a Pod that does not leave: what is on one that leaves waits for it.
    heirs: BTreeSet<i32>,
}

impl Crowd {
    fn new(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) -> Self {
        let can_take = view.seats.iter().filter(|seat| matches!(seat.role, Role::Target | Role::Stays)).count();
        let in_the_end = view.snapshot.pods_in_the_end;
        let all_are_there = can_take >= in_the_end;
        let is_hasty = |item: &Item<'_>| item.at().is_none_or(|at| ends(&view.seats[at]));
        let is_hasty = |item: &Item<'_>| item.wish == Wish::Run && is_hasty(item);
        let waits = can_take > 0 && !all_are_there && view.items.iter().any(is_hasty);
        memory.crowded_since = waits.then(|| memory.crowded_since.unwrap_or(view.snapshot.uptime));
        let until = memory.crowded_since.map(|since| since.saturating_add(CROWDS_AFTER));
        let has_waited = until.is_some_and(|until| !alarm.is_ahead(until));
        let is_free = |item: &Item<'_>| item.wish == Wish::Run && item.at().is_none();
        let awaits =
            waits && view.items.iter().any(is_free) && view.seats.iter().any(|seat| Self::is_coming(view, seat));
        memory.awaited_since = awaits.then(|| memory.awaited_since.unwrap_or(view.snapshot.uptime));
        let until = memory.awaited_since.map(|since| since.saturating_add(AWAITS_COMING));
        let is_awaited = until.is_some_and(|until| alarm.is_ahead(until));
        let heirs = view.seats.iter().filter(|seat| seat.role != Role::Leaves);
        let heirs = heirs.filter_map(|seat| seat.pod?.slot).collect();
        let admits = |enough: bool| (enough || has_waited) && !is_awaited;
        Self { has_waited, admits_new: admits(all_are_there), admits_lost: admits(2 * can_take >= in_the_end), heirs }
    }

    /// It can be Ready within the second: its agent renews its session, or has yet to claim it for the first time. A lost
    /// Pod is none of that: its session is silent, fenced or of a boot that is dead. So after the loss of a Pod the others,
    /// which are Ready, take everything at once.
    fn is_coming(view: &View<'_>, seat: &Seat<'_>) -> bool {
        let Some(session) = seat.session.filter(|_| seat.role == Role::Busy) else { return false };
        let is_open = match session.watched.session.as_ref().map(|own| &own.claim) {
            Some(Claim::Held(boot)) => !seat.is_silent && view.death(boot).is_none(),
            Some(Claim::Empty) => true,
            _ => false,
        };
        is_open && session.watched.claimed_for < COMING_MAX
    }

    fn admits(&self, view: &View<'_>, item: &Item<'_>) -> bool {
        if let Some(seat) = item.at().map(|at| &view.seats[at]) {
            let has_heir = seat.pod.and_then(|pod| pod.slot).is_some_and(|slot| self.heirs.contains(&slot));
            return seat.role == Role::Leaves && (!has_heir || (self.has_waited && ends(seat)));
        }
        if item.owner == Owner::NoLease { self.admits_new } else { self.admits_lost }
    }
}

/// Its Rollout waits for it to be empty: what shares do not leave room for goes beyond them.
fn is_deleted_when_empty(view: &View<'_>, seat: usize) -> bool {
    view.seats[seat].role == Role::Leaves && view.snapshot.leaving.contains(view.seats[seat].name)
}

/// Its time is limited: it will not wait for its heir.
fn ends(seat: &Seat<'_>) -> bool {
    seat.pod.is_some_and(|pod| pod.is_terminating) || seat.session.is_some_and(|session| session.info.draining)
}

/// Notes since when letters stand unanswered, and which Pods have tried what in vain; finds the Pods that are stuck.
pub(super) fn remember(view: &mut View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let now = view.snapshot.uptime;
    // A listener that its owner restarts again and again has a new epoch each time: it is the same invitation.
    let since = |known: Option<&Since>, epoch: u32, pod: &str| match known {
        Some(known) if known.epoch == epoch && known.pod == pod => known.clone(),
        _ => Since { epoch, pod: pod.to_owned(), since: now },
    };
    let (mut released, mut invited) = (BTreeMap::new(), BTreeMap::new());
    for item in &view.items {
        let Owner::Alive(_, at) = item.owner else { continue };
        if item.release.is_some() {
            let uid = view.seats[at].uid;
            released.insert(item.name.to_owned(), since(memory.released.get(item.name), item.epoch(), uid));
        } else if let Some(to) = item.invited {
            let uid = view.seats[to].uid;
            invited.insert(item.name.to_owned(), since(memory.invited.get(item.name), 0, uid));
        }
    }
    (memory.released, memory.invited) = (released, invited);
    note_tries(view, memory, alarm);
    note_restarts(view, memory, alarm);
    note_requests(view, memory, alarm);
    note_runs(view, memory, alarm);
    let stuck: Vec<usize> =
        view.items.iter().filter(|item| is_overdue(view, item, memory, alarm)).filter_map(Item::at).collect();
    for seat in stuck {
        (view.seats[seat].is_stuck, view.seats[seat].role) = (true, Role::Leaves);
    }
}

fn note_runs(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let patience = seconds(view.snapshot.set.spec.defaults.start_timeout_seconds);
    let before = std::mem::take(&mut memory.ran);
    let running = view.items.iter().filter(|item| item.runs == Runs::Yes);
    let ran = running.filter_map(|item| {
        let at = if item.is_assumed { before.get(item.name)?.at } else { view.snapshot.uptime };
        if item.is_assumed {
            alarm.is_ahead(at.saturating_add(patience));
        }
        Some((item.name.to_owned(), Ran { epoch: item.epoch(), at }))
    });
    memory.ran = ran.collect();
}

/// Its owner has been told to release it, and has not for longer than it takes to stop.
pub(super) fn is_overdue(view: &View<'_>, item: &Item<'_>, memory: &SetRecollection, alarm: &mut Alarm) -> bool {
    let (Owner::Alive(holder, at), Some(told)) = (item.owner, memory.released.get(item.name)) else { return false };
    let spec = &view.snapshot.set.spec;
    let patience = seconds(spec.defaults.stop_timeout_seconds).saturating_add(seconds(spec.handoff.timeout_seconds));
    let seat = &view.seats[at];
    // A silent one is fenced; one that ends is on its way.
    let can_hear = seat.boot == Some(holder) && !seat.is_silent && seat.pod.is_some_and(|pod| !pod.is_terminating);
    !alarm.is_ahead(told.since.saturating_add(patience)) && can_hear
}

fn note_tries(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let now = view.snapshot.uptime;
    let patience = seconds(view.snapshot.set.spec.defaults.start_timeout_seconds);
    let is_item = |name: &str| view.items.binary_search_by_key(&name, |item| item.name).is_ok();
    memory.tried.retain(|name, tried| is_item(name) && alarm.is_ahead(tried.at.saturating_add(FORGOTTEN_AFTER)));
    let enough = |seat: &Seat<'_>, else_: u32| {
        let is_probed = view.snapshot.is_rolling && seat.pod.is_some_and(|pod| pod.course == Course::Target);
        if is_probed { FAILURES_MAX_ROLLING } else { else_ }
    };
    for item in &view.items {
        let here = match (item.runs, item.at()) {
            (Runs::Failed(unit), Some(at)) if unit.failures >= enough(&view.seats[at], FAILURES_MAX) => {
                Some(view.seats[at].uid)
            }
            _ => None,
        };
        let there = item.invited.zip(memory.invited.get(item.name)).and_then(|(to, told)| {
            let seat = &view.seats[to];
            let unit = seat.unit(item.name);
            let state = unit.map(|unit| unit.state);
            let has_failed =
                unit.is_some_and(|unit| unit.state == UnitState::Failed && unit.failures >= enough(seat, 0));
            let in_vain = has_failed || !alarm.is_ahead(told.since.saturating_add(patience));
            (state != Some(UnitState::Prepared) && in_vain).then_some(seat.uid)
        });
        for uid in here.into_iter().chain(there) {
            let tried = memory.tried.entry(item.name.to_owned()).or_default();
            if tried.pods.insert(uid.to_owned()) {
                tried.at = now;
                alarm.is_ahead(now.saturating_add(FORGOTTEN_AFTER));
            }
        }
    }
}

fn note_restarts(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let defaults = &view.snapshot.set.spec.defaults;
    let patience = seconds(defaults.stop_timeout_seconds).saturating_add(seconds(defaults.start_timeout_seconds));
    memory.restarting.retain(|name, told| {
        let Ok(at) = view.items.binary_search_by_key(&name.as_str(), |item| item.name) else { return false };
        let item = &view.items[at];
        // What was not written after all is not what anybody restarts for.
        let lacks = |(seen, settings)| wanted::lacks(view.snapshot, seen, settings, true).is_some_and(|it| it.restarts);
        if item.seen.zip(item.settings).is_some_and(lacks) {
            return false;
        }
        item.epoch() == told.epoch && item.at().is_some() && alarm.is_ahead(told.since.saturating_add(patience))
    });
}

/// `spec.release`, for listeners that have not been given to anybody since it was asked.
fn note_requests(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) {
    let snapshot = view.snapshot;
    let mut requests = BTreeMap::new();
    for release in &snapshot.set.spec.release {
        let Ok(at) = view.items.binary_search_by_key(&release.listener.as_str(), |item| item.name) else { continue };
        if let Some(wait) = until(release.at.0, snapshot.now) {
            alarm.is_ahead(snapshot.uptime.saturating_add(wait));
            continue;
        }
        let item = &view.items[at];
        let known = memory.requests.get(&release.listener).filter(|(asked, _)| *asked == release.at.0);
        // Seen for the first time: about the present owner, unless that has come since. By whose clock that came is not
        // known; what was taken by force says for which request.
        let came_since = || {
            item.seen.is_some_and(|seen| {
                seen.forced_at == Some(release.at.0) || seen.acquired_at.is_some_and(|at| at >= release.at.0)
            })
        };
        let epoch = known.map_or_else(|| if came_since() { 0 } else { item.epoch() }, |(_, epoch)| *epoch);
        requests.insert(release.listener.clone(), (release.at.0, epoch));
    }
    memory.requests = requests;
}
