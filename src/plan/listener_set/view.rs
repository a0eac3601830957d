//! The world of one ListenerSet as its planner sees it: seats and listeners, each looked up once.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    alarm::seconds,
    death::{self, Process, Proof},
    memory::SetRecollection,
    placement::Role,
    session::session_times,
};
use crate::{
    api::{bounds::INBOX_MAX, listener_set::ListenerState},
    snapshot::{
        lease::{Claim, Holder, Letter, Order},
        listener::{Settings, Wanted},
        listener_set::{Course, OwnershipSeen, SessionSeen, SetPod, SetSnapshot},
        report::{UnitReport, UnitState, held_hash},
    },
};

/// A Pod that may hold listeners, or that still does.
pub(super) struct Seat<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    /// None: not one of the set's Pods (any more).
    pub pod: Option<&'a SetPod>,
    /// Its session, where that is its own.
    pub session: Option<&'a SessionSeen>,
    /// The boot that has claimed it, and is not fenced.
    pub boot: Option<&'a Holder>,
    /// Its session has not been renewed for so long that its agent has stopped everything.
    pub is_silent: bool,
    /// It has not let go of a listener in time.
    pub is_stuck: bool,
    /// It has not reported on the Leases that name it as they are now.
    pub unheard: Option<Unheard>,
    pub role: Role,
}

/// Who owns a listener.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Owner<'a> {
    /// It has no Lease.
    NoLease,
    /// It is unowned.
    Unowned,
    /// A boot that is dead.
    Dead(&'a Holder, Proof),
    /// A boot of the Pod in this seat.
    Alive(&'a Holder, usize),
}

/// How far its owner is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Runs<'a> {
    No,
    Yes,
    /// Its Pod cannot get it to run.
    Failed(&'a UnitReport),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Stop,
    /// It is no longer in the set.
    Go,
}

/// One listener.
pub(super) struct Item<'a> {
    pub name: &'a str,
    pub wish: Wish,
    /// What it is to be started with; None: what its Lease says.
    pub settings: Option<&'a Settings>,
    pub seen: Option<&'a OwnershipSeen>,
    pub owner: Owner<'a>,
    pub runs: Runs<'a>,
    /// That it runs was told before; the report is about other Leases.
    pub is_assumed: bool,
    /// The order to release that its owner's inbox has.
    pub release: Option<&'a Order>,
    /// It has ended, and its owner asks whether it may start it again.
    pub waits: bool,
    /// Its owner has been told that it may.
    pub is_permitted: bool,
    /// The seat whose inbox says that it will come.
    pub invited: Option<usize>,
}

impl<'a> Item<'a> {
    pub fn at(&self) -> Option<usize> {
        if let Owner::Alive(_, seat) = self.owner { Some(seat) } else { None }
    }

    pub fn epoch(&self) -> u32 {
        self.seen.map_or(0, |seen| seen.ownership.epoch)
    }

    pub fn holder(&self) -> Option<&'a Holder> {
        self.seen?.ownership.holder.as_ref()
    }
}

pub(super) struct View<'a> {
    pub snapshot: &'a SetSnapshot,
    pub seats: Vec<Seat<'a>>,
    /// By name.
    pub items: Vec<Item<'a>>,
    seat_of: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> View<'a> {
    pub fn new(snapshot: &'a SetSnapshot, before: &'a SetRecollection) -> Self {
        let mut view = Self { snapshot, seats: Vec::new(), items: Vec::new(), seat_of: BTreeMap::new() };
        for pod in &snapshot.pods {
            view.add_seat(&pod.name, &pod.uid, Some(pod));
        }
        let deaths = view.deaths();
        for holder in deaths.iter().filter(|(_, proof)| proof.is_none()).map(|(holder, _)| *holder) {
            if !view.seat_of.contains_key(&(holder.pod.as_str(), holder.uid.as_str())) {
                view.add_seat(&holder.pod, &holder.uid, None);
            }
        }
        view.items = view.wishes(before);
        for item in &mut view.items {
            item.owner = match item.seen.map(|seen| seen.ownership.holder.as_ref()) {
                None => Owner::NoLease,
                Some(None) => Owner::Unowned,
                Some(Some(holder)) => match deaths.get(holder).copied().flatten() {
                    Some(proof) => Owner::Dead(holder, proof),
                    None => Owner::Alive(holder, view.seat_of[&(holder.pod.as_str(), holder.uid.as_str())]),
                },
            };
        }
        view.read_inboxes();
        view.read_reports(before);
        view
    }

    /// The seat of the Pod of this boot, if it has claimed its session.
    pub fn seat_of(&self, boot: &Holder) -> Option<usize> {
        let seat = *self.seat_of.get(&(boot.pod.as_str(), boot.uid.as_str()))?;
        (self.seats[seat].boot == Some(boot)).then_some(seat)
    }

    /// The seat of the Pod with this uid.
    pub fn seat_of_uid(&self, uid: &str) -> Option<usize> {
        self.seats.iter().position(|seat| seat.uid == uid)
    }

    fn add_seat(&mut self, name: &'a str, uid: &'a str, pod: Option<&'a SetPod>) {
        let session = self.snapshot.sessions.get(name);
        let session = session.filter(|seen| seen.watched.session.as_ref().is_some_and(|own| own.pod_uid == uid));
        let boot = session.and_then(|seen| match &seen.watched.session.as_ref()?.claim {
            Claim::Held(holder) => Some(holder),
            _ => None,
        });
        let is_silent = session.is_none_or(|seen| seen.watched.silent_for >= session_times(seen.watched.duration).stop);
        let leaves = pod.is_none_or(|pod| pod.is_terminating || pod.course == Course::Leaves)
            || session.is_some_and(|seen| seen.info.draining);
        let role = match pod {
            _ if leaves => Role::Leaves,
            Some(pod) if pod.is_ready && boot.is_some() && !is_silent && pod.course == Course::Target => Role::Target,
            Some(pod) if pod.is_ready && boot.is_some() && !is_silent => Role::Stays,
            _ => Role::Busy,
        };
        self.seat_of.insert((name, uid), self.seats.len());
        self.seats.push(Seat { name, uid, pod, session, boot, is_silent, is_stuck: false, unheard: None, role });
    }

    /// Every boot that owns something, and what proves its death.
    fn deaths(&self) -> BTreeMap<&'a Holder, Option<Proof>> {
        let holders = self.snapshot.ownerships.values().filter_map(|seen| seen.ownership.holder.as_ref());
        let holders: BTreeSet<&'a Holder> = holders.collect();
        holders.into_iter().map(|holder| (holder, self.death(holder))).collect()
    }

    /// What proves the death of a boot.
    pub fn death(&self, holder: &Holder) -> Option<Proof> {
        let seat = self.seat_of.get(&(holder.pod.as_str(), holder.uid.as_str())).map(|seat| &self.seats[*seat]);
        death::proof(holder, &self.snapshot.sessions.get(&holder.pod)?.watched, seat.and_then(Seat::process))
    }

    fn wishes(&self, before: &'a SetRecollection) -> Vec<Item<'a>> {
        let snapshot = self.snapshot;
        let item = |name: &'a str, wish, wanted: Option<&'a Wanted>| Item {
            name,
            wish,
            settings: wanted.map(|wanted| &wanted.settings),
            seen: snapshot.ownerships.get(name),
            owner: Owner::NoLease,
            runs: Runs::No,
            is_assumed: false,
            release: None,
            waits: false,
            is_permitted: false,
            invited: None,
        };
        let Some(listeners) = snapshot.listeners.as_ref().ok().or(before.last_read.as_ref()) else {
            // Which are wanted was never known: those that have an owner go on.
            let wish = |seen: &OwnershipSeen| if seen.ownership.holder.is_some() { Wish::Run } else { Wish::Stop };
            return snapshot.ownerships.iter().map(|(name, seen)| item(name, wish(seen), None)).collect();
        };
        let wanted: BTreeMap<&str, &Wanted> = listeners.iter().map(|wanted| (wanted.name.as_str(), wanted)).collect();
        let gone = snapshot.ownerships.keys().filter(|name| !wanted.contains_key(name.as_str()));
        let mut items: Vec<Item<'a>> = gone.map(|name| item(name, Wish::Go, None)).collect();
        items.extend(wanted.into_values().map(|wanted| {
            let wish = if wanted.state == ListenerState::Started { Wish::Run } else { Wish::Stop };
            item(&wanted.name, wish, Some(wanted))
        }));
        items.sort_by_key(|item| item.name);
        items
    }

    /// What stands in the inboxes: orders to release are about the present epoch or nothing. Of two invitations the first
    /// one's counts.
    fn read_inboxes(&mut self) {
        for (index, seat) in self.seats.iter().enumerate() {
            let (Some(session), Some(boot)) = (seat.session, seat.boot) else { continue };
            for (name, letter) in session.inbox.iter().take(INBOX_MAX) {
                let Ok(at) = self.items.binary_search_by_key(&name.as_str(), |item| item.name) else { continue };
                let item = &mut self.items[at];
                match &letter.order {
                    Order::Incoming if item.at() != Some(index) => item.invited = item.invited.or(Some(index)),
                    order @ Order::Release(to) if item.holder() == Some(boot) && letter.epoch == item.epoch() => {
                        item.is_permitted = to.as_ref() == Some(boot);
                        item.release = (!item.is_permitted).then_some(order);
                    }
                    Order::Incoming | Order::Release(_) => {}
                }
            }
        }
    }

    fn read_reports(&mut self, before: &SetRecollection) {
        // Not for ever: who has lost a Lease from sight, such as one without its label, never tells of it again.
        let patience = seconds(self.snapshot.set.spec.defaults.start_timeout_seconds);
        let earliest = self.snapshot.uptime.checked_sub(patience);
        let ran = |item: &Item<'_>| {
            let ran = before.ran.get(item.name).filter(|ran| ran.epoch == item.epoch());
            ran.is_some_and(|ran| earliest.is_none_or(|earliest| ran.at > earliest))
        };
        let mut held: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, item) in self.items.iter().enumerate() {
            if let Owner::Alive(holder, seat) = item.owner
                && self.seats[seat].boot == Some(holder)
            {
                held.entry(seat).or_default().push(index);
            }
        }
        for (seat, indices) in held {
            let seat = &mut self.seats[seat];
            let report = seat.session.and_then(|session| session.report.as_ref());
            let known: Vec<_> =
                indices.iter().map(|index| (self.items[*index].name, self.items[*index].epoch())).collect();
            let running = report.and_then(|report| report.running(&known));
            if running.is_none() {
                seat.unheard = Some(Unheard { held: held_hash(known.into_iter()), item: indices[0] });
            }
            let Some(report) = report else { continue };
            for (place, index) in indices.into_iter().enumerate() {
                let item = &mut self.items[index];
                let unit = report.units.get(item.name).filter(|unit| unit.epoch == item.epoch());
                item.waits = unit.is_some_and(|unit| unit.state == UnitState::Waiting);
                item.runs = match (unit, &running) {
                    (Some(unit), _) if unit.is_failing() => Runs::Failed(unit),
                    (Some(unit), _) if matches!(unit.state, UnitState::Starting | UnitState::Waiting) => Runs::No,
                    (_, Some(running)) if running[place] => Runs::Yes,
                    // The report is about other Leases than those that are known here: it, or they, come.
                    (_, None) if ran(item) => {
                        item.is_assumed = true;
                        Runs::Yes
                    }
                    _ => Runs::No,
                };
            }
        }
    }
}

impl<'a> Seat<'a> {
    /// What is known of its process.
    pub fn process(&self) -> Option<Process<'a>> {
        let pod = self.pod?;
        Some(Process { pod_uid: self.uid, agent: &pod.ends.agent, applications: &pod.ends.applications })
    }

    /// What it says of a listener.
    pub fn unit(&self, name: &str) -> Option<&'a UnitReport> {
        self.session?.report.as_ref()?.units.get(name)
    }

    /// What its inbox says.
    pub fn inbox(&self) -> Option<&'a BTreeMap<String, Letter>> {
        self.session.map(|session| &session.inbox)
    }
}

/// What a report lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unheard {
    /// [`crate::snapshot::report::held_hash`] of what the Pod owns.
    pub held: String,
    /// Index of one listener that it owns.
    pub item: usize,
}
