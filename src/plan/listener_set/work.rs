//! What is written for each listener, from where it is to where it is to be.
use std::collections::BTreeMap;

use super::{
    alarm::{Alarm, seconds},
    budget::{Permits, Traffic, until},
    change::{Origin, SetChange},
    deaf,
    death::Proof,
    goals::{self, Goals},
    memory::{SetRecollection, Since},
    mend,
    note::Note,
    ownership::{self, Write},
    placement::Role,
    places, vanished,
    view::{Item, Owner, Runs, View, Wish},
    wanted,
};
use crate::{
    api::names,
    snapshot::{
        lease::{Holder, Letter, Order},
        listener::Settings,
        listener_set::OwnershipSeen,
        report::UnitState,
    },
};

/// All that [`super::plan`] wants for the listeners.
pub(super) struct Work<'v, 'a> {
    view: &'v View<'a>,
    memory: &'v mut SetRecollection,
    alarm: &'v mut Alarm,
    permits: Permits,
    traffic: Traffic,
    letters: BTreeMap<usize, BTreeMap<String, Letter>>,
    /// `status.epochFloor` as it is stored, and as it must be.
    stored_floor: u32,
    pub floor: u32,
    pub changes: Vec<SetChange>,
    pub notes: Vec<Note>,
}

impl<'v, 'a> Work<'v, 'a> {
    pub fn new(
        view: &'v View<'a>,
        memory: &'v mut SetRecollection,
        alarm: &'v mut Alarm,
        (stored_floor, floor_due): (u32, u32),
    ) -> Self {
        let permits = Permits::new(view, memory, alarm);
        let retired = view.items.iter().filter(|item| item.wish == Wish::Go).filter_map(|item| item.seen);
        let retired = retired.filter_map(|seen| ownership::retire(&seen.ownership, stored_floor));
        let floor = retired.max().unwrap_or(stored_floor).max(floor_due);
        Self {
            view,
            memory,
            alarm,
            permits,
            traffic: Traffic::new(view),
            letters: BTreeMap::new(),
            stored_floor,
            floor,
            changes: Vec::new(),
            notes: vec![Note::default(); view.items.len()],
        }
    }

    /// Everything, the most urgent first. `held_back`: why a listener without a Lease does not get one now.
    pub fn run(&mut self, goals: &Goals, held_back: &[Option<(&'static str, String)>]) {
        let view = self.view;
        self.remember_rest();
        let mut orphans = Vec::new();
        for (index, item) in view.items.iter().enumerate() {
            match (item.wish, item.owner) {
                (Wish::Run, Owner::Alive(holder, at)) => self.seize(index, (holder, at), goals.seats[index]),
                (Wish::Run, _) => orphans.push((item.seen.and_then(|seen| seen.acquired_at), index)),
                (_, Owner::Dead(holder, proof)) => self.free(item, holder, proof),
                (Wish::Go, Owner::Unowned) => self.retire(item),
                _ => {}
            }
        }
        // Who was started longest ago goes first: what takes its Pod down each time must not keep the others from a permit.
        orphans.sort();
        for (_, index) in orphans {
            self.give(index, goals.seats[index], held_back[index].as_ref());
        }
        self.move_all(goals);
        self.configure_all();
        self.remind();
        self.write_inboxes();
        self.kill_stuck();
        self.changes.extend(mend::mends(view, &self.notes, &self.changes));
    }

    /// What is stopped may rest for days. The next start is no end of a hand-over.
    fn remember_rest(&mut self) {
        let rests = |item: &&Item<'_>| {
            let is_unowned = matches!(item.owner, Owner::Unowned);
            is_unowned && (item.wish == Wish::Stop || self.memory.resting.contains(item.name))
        };
        self.memory.resting = self.view.items.iter().filter(rests).map(|item| item.name.to_owned()).collect();
    }

    /// To a boot that may hold it: the listener is unowned, or its owner is dead.
    fn give(&mut self, index: usize, goal: Option<usize>, held_back: Option<&(&'static str, String)>) {
        let item = &self.view.items[index];
        let boot = goal.and_then(|seat| self.view.seats[seat].boot);
        if let Some((reason, message)) = held_back {
            self.notes[index].say(reason, message.clone());
            return;
        }
        let Some(to) = boot else {
            let (reason, message) = places::nowhere(self.view, &*self.memory);
            self.notes[index].say(reason, message);
            return;
        };
        let Some(seen) = item.seen else {
            self.create(index, to);
            return;
        };
        let settings = item.settings;
        if let Some((settings, change)) =
            settings.and_then(|own| Some((own, wanted::lacks(self.view.snapshot, seen, own, false)?)))
        {
            self.changes.push(configure(item.name, seen, settings, change.config_hash));
            return;
        }
        if !self.permits.take() {
            self.notes[index].say("StartBudget", "waits for a permit of spec.startBudget");
            return;
        }
        let (proof, from) = match item.owner {
            Owner::Dead(holder, proof) => (Some(proof), Origin::Dead(holder.clone(), proof)),
            _ if self.memory.resting.contains(item.name) => (None, Origin::Rest),
            _ => (None, Origin::Unowned),
        };
        if let Some(write) = ownership::assign(&seen.ownership, to, |_| proof) {
            self.assign(item, write, from);
        }
    }

    fn create(&mut self, index: usize, to: &Holder) {
        let item = &self.view.items[index];
        // It would rest on a floor that is about to rise.
        let Some(settings) = item.settings.filter(|_| self.floor == self.stored_floor) else { return };
        if !self.permits.take() {
            self.notes[index].say("StartBudget", "waits for a permit of spec.startBudget");
            return;
        }
        self.changes.push(SetChange::CreateOwnership {
            listener: item.name.to_owned(),
            write: ownership::create(self.stored_floor, Some(to)),
            settings: settings.clone(),
            config_hash: wanted::config_hash(settings, wanted::recover_at(self.view.snapshot)),
        });
    }

    fn assign(&mut self, item: &Item<'_>, write: Write, from: Origin) {
        let Some(seen) = item.seen else { return };
        self.changes.push(SetChange::Assign {
            listener: item.name.to_owned(),
            uid: seen.ownership.uid.clone(),
            resource_version: seen.ownership.resource_version.clone(),
            write,
            from,
        });
    }

    /// `spec.release[].force`: not even its owner's death is waited for.
    fn seize(&mut self, index: usize, (holder, at): (&Holder, usize), goal: Option<usize>) {
        let item = &self.view.items[index];
        let spec = &self.view.snapshot.set.spec;
        let asked = spec.release.iter().find(|release| release.force && release.listener == item.name);
        let is_due = self.memory.requests.get(item.name).is_some_and(|(_, epoch)| *epoch == item.epoch());
        let to = goal.filter(|goal| *goal != at).and_then(|goal| self.view.seats[goal].boot);
        if let (Some(asked), true, Some(to), Some(seen)) = (asked, is_due, to, item.seen) {
            self.assign(item, ownership::seize(&seen.ownership, to), Origin::Force(holder.clone(), asked.at.0));
            self.notes[index]
                .say("Forced", "taken by spec.release without waiting for its holder's end: it may run twice");
        }
    }

    /// A listener that is not to run, and whose owner is dead, becomes unowned while that death can be proven.
    fn free(&mut self, item: &Item<'_>, holder: &Holder, proof: Proof) {
        if let Some(write) = item.seen.and_then(|seen| ownership::free(&seen.ownership, |_| Some(proof))) {
            self.assign(item, write, Origin::Dead(holder.clone(), proof));
        }
    }

    fn retire(&mut self, item: &Item<'_>) {
        let Some(seen) = item.seen.filter(|seen| seen.ownership.epoch <= self.stored_floor) else { return };
        self.changes.push(SetChange::Retire {
            listener: item.name.to_owned(),
            uid: seen.ownership.uid.clone(),
            resource_version: seen.ownership.resource_version.clone(),
        });
    }

    /// Planned moves, and stops: first those that are on their way, then what Pods that leave have, then the others.
    fn move_all(&mut self, goals: &Goals) {
        let view = self.view;
        let (mut moves, mut waiting) = (Vec::new(), Vec::new());
        for (index, item) in view.items.iter().enumerate() {
            let Owner::Alive(holder, from) = item.owner else { continue };
            self.notes[index].is_stranded = goals.stranded[index];
            if item.wish == Wish::Run && item.waits && !goals.put_down[index] {
                waiting.push((item.seen.and_then(|seen| seen.acquired_at), index));
            }
            match (item.wish, goals.seats[index]) {
                (Wish::Run, _) if goals.put_down[index] => {
                    let most = view.snapshot.set.spec.placement.max_per_pod;
                    let message = format!(
                        "{} leaves, and every other Pod holds spec.placement.maxPerPod ({most}) listeners: it waits for the \
                         next Pod; with a higher one, or strategy.maxSurge, it would not have to",
                        view.seats[from].name
                    );
                    self.notes[index].say("NoRoom", message);
                    moves.push((2, index, holder, from, None));
                }
                (Wish::Run, Some(to)) if to != from && self.notes[index].reason.is_empty() => {
                    let order = if goals::announced(view, item) == Some(to) {
                        0
                    } else if view.seats[from].role == Role::Leaves {
                        2
                    } else {
                        3
                    };
                    moves.push((order, index, holder, from, Some(to)));
                }
                (Wish::Stop | Wish::Go, _) => moves.push((1, index, holder, from, None)),
                (Wish::Run, _) if item.waits => {}
                _ => self.count_start(item, from),
            }
        }
        moves.sort_by_key(|(order, index, ..)| (*order, *index));
        for (order, index, holder, from, to) in moves {
            match to {
                Some(to) => self.move_one(index, holder, from, to, order == 0),
                None => self.stop(index, holder, from),
            }
        }
        // Who has run for longest goes first: what ends again and again must not keep the others from their turn. What is
        // to move, and cannot yet, runs meanwhile where it is.
        waiting.sort();
        for (_, index) in waiting {
            let item = &view.items[index];
            let Owner::Alive(holder, at) = item.owner else { continue };
            if !self.letters.get(&at).is_some_and(|letters| letters.contains_key(item.name)) {
                self.permit(index, holder, at);
            }
        }
    }

    /// One that starts is on its way, too; one that takes too long for it is not counted, so that it blocks nothing.
    fn count_start(&mut self, item: &Item<'_>, at: usize) {
        let snapshot = self.view.snapshot;
        let patience = seconds(snapshot.set.spec.defaults.start_timeout_seconds);
        let acquired_at = item.seen.and_then(|seen| seen.acquired_at);
        let is_young = acquired_at.is_some_and(|at| at.duration_since(snapshot.now).unsigned_abs() < patience);
        if item.runs == Runs::No && is_young && !self.view.seats[at].is_silent {
            self.traffic.add(&[at]);
        }
    }

    /// Lets its owner start it again: the letter names the owner itself.
    fn permit(&mut self, index: usize, holder: &Holder, at: usize) {
        let (seat, item) = (&self.view.seats[at], &self.view.items[index]);
        if seat.boot != Some(holder) || seat.is_silent {
            return;
        }
        if !item.is_permitted && !self.permits.take_in_place() {
            self.notes[index].say("StartBudget", "waits for a permit of spec.startBudget");
            return;
        }
        if self.traffic.add_letters(&[at]) {
            self.write_letter(at, item, Order::Release(Some(holder.clone())));
        }
    }

    fn stop(&mut self, index: usize, holder: &Holder, from: usize) {
        let item = &self.view.items[index];
        if self.view.seats[from].boot == Some(holder) && self.traffic.add_letters(&[from]) {
            self.write_letter(from, item, Order::Release(None));
        }
    }

    fn move_one(&mut self, index: usize, holder: &Holder, from: usize, to: usize, goes_on: bool) {
        let (view, item) = (self.view, &self.view.items[index]);
        self.notes[index].to = Some(to);
        let Some(heir) = view.seats[to].boot else { return };
        if !goes_on && !self.traffic.admits(&[from, to]) || !self.traffic.add_letters(&[from, to]) {
            return;
        }
        self.traffic.add(&[from, to]);
        self.notes[index].is_moving = true;
        let prepares = view.snapshot.set.spec.handoff.prepare;
        if prepares {
            self.write_letter(to, item, Order::Incoming);
        }
        if view.seats[from].boot != Some(holder) {
            return; // its inbox is not read any more: the listener is taken when its owner is dead
        }
        let is_promised = matches!(item.release, Some(Order::Release(Some(to))) if to == heir);
        if !is_promised {
            let unit = view.seats[to].unit(item.name);
            if prepares && unit.is_none_or(|unit| unit.state != UnitState::Prepared) {
                self.notes[index].say("Preparing", format!("{} prepares it", view.seats[to].name));
                return;
            }
            if !self.permits.take() {
                self.notes[index].say("StartBudget", "waits for a permit of spec.startBudget");
                return;
            }
        }
        self.write_letter(from, item, Order::Release(Some(heir.clone())));
    }

    fn write_letter(&mut self, seat: usize, item: &Item<'_>, order: Order) {
        let letter = Letter { epoch: item.epoch(), order };
        self.letters.entry(seat).or_default().insert(item.name.to_owned(), letter);
    }

    /// Settings that have changed: those that need a restart a few at a time.
    fn configure_all(&mut self) {
        let view = self.view;
        for (index, item) in view.items.iter().enumerate() {
            let Owner::Alive(holder, at) = item.owner else { continue };
            let (Wish::Run, Some(settings), Some(seen)) = (item.wish, item.settings, item.seen) else { continue };
            let is_busy = self.notes[index].is_moving || !self.notes[index].reason.is_empty();
            if self.memory.restarting.contains_key(item.name) {
                self.notes[index].say("Restarting", "restarts with its new settings");
                self.traffic.add(&[at]);
            }
            let Some(change) = wanted::lacks(view.snapshot, seen, settings, true) else { continue };
            if change.restarts {
                let can_hear = view.seats[at].boot == Some(holder) && !view.seats[at].is_silent;
                if is_busy
                    || self.notes[index].to.is_some()
                    || !can_hear
                    || !self.traffic.admits(&[at])
                    || !self.permits.take_in_place()
                {
                    if self.notes[index].reason.is_empty() {
                        self.notes[index]
                            .say("RestartPending", "its settings have changed; its turn to restart will come");
                    }
                    continue;
                }
                self.traffic.add(&[at]);
                let told =
                    Since { epoch: item.epoch(), pod: view.seats[at].uid.to_owned(), since: view.snapshot.uptime };
                self.memory.restarting.insert(item.name.to_owned(), told);
                self.notes[index].say("Restarting", "restarts with its new settings");
            }
            self.changes.push(configure(item.name, seen, settings, change.config_hash));
        }
        // spec.recoverAt
        let later = view.snapshot.set.spec.recover_at.as_ref().and_then(|at| until(at.0, view.snapshot.now));
        if let Some(wait) = later {
            self.alarm.is_ahead(view.snapshot.uptime.saturating_add(wait));
        }
    }

    /// Letters to agents that do not hear of what they own.
    fn remind(&mut self) {
        for (seat, index) in deaf::reminders(self.view, self.memory, self.alarm) {
            let item = &self.view.items[index];
            let has_letter = self.letters.get(&seat).is_some_and(|letters| letters.contains_key(item.name));
            if !has_letter && self.traffic.add_letters(&[seat]) {
                self.write_letter(seat, item, Order::Incoming);
            }
        }
    }

    fn write_inboxes(&mut self) {
        for (index, seat) in self.view.seats.iter().enumerate() {
            let (Some(session), Some(inbox)) = (seat.session, seat.inbox()) else { continue };
            let letters = self.letters.remove(&index).unwrap_or_default();
            if *inbox != letters {
                let (lease, uid) = (session.lease.clone(), session.uid.clone());
                self.changes.push(SetChange::SetInbox { lease, uid, letters });
            }
        }
    }

    /// Pods that do not let go, once they hold nothing else: never is anything taken from the living.
    fn kill_stuck(&mut self) {
        let view = self.view;
        for (index, seat) in view.seats.iter().enumerate().filter(|(_, seat)| seat.is_stuck) {
            let Some(pod) = seat.pod else { continue };
            let held: Vec<&Item<'_>> = view.items.iter().filter(|item| item.at() == Some(index)).collect();
            if !held.iter().all(|item| goals::is_overdue(view, item, self.memory, self.alarm)) {
                continue;
            }
            let first = held.first().map_or("", |item| item.name);
            let others = if held.len() > 1 { format!(" and {} more", held.len() - 1) } else { String::new() };
            let message = format!(
                "{} was told to release {first}{others} and has not, for spec.defaults.stopTimeoutSeconds + \
                 spec.handoff.timeoutSeconds",
                pod.name
            );
            self.changes.push(SetChange::KillPod {
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                resource_version: pod.resource_version.clone(),
                message,
            });
        }
    }
}

fn configure(name: &str, seen: &OwnershipSeen, settings: &Settings, config_hash: String) -> SetChange {
    SetChange::Configure {
        listener: name.to_owned(),
        uid: seen.ownership.uid.clone(),
        resource_version: seen.ownership.resource_version.clone(),
        settings: settings.clone(),
        config_hash,
    }
}

/// Why a listener without a Lease does not get one now, in the order of `view.items`.
pub(super) fn held_back(view: &View<'_>, memory: &SetRecollection) -> Vec<Option<(&'static str, String)>> {
    let set = view.snapshot.set.metadata.name.as_deref().unwrap_or_default();
    let retiring: Vec<(&str, Settings)> = view
        .items
        .iter()
        .filter(|item| item.wish == Wish::Go && item.holder().is_some() && !matches!(item.owner, Owner::Dead(..)))
        .filter_map(|item| Some((item.name, serde_json::from_str(&item.seen?.settings).ok()?)))
        .collect();
    let secrets: BTreeMap<&str, &str> =
        retiring.iter().filter_map(|(name, own)| Some((own.secret.as_deref()?, *name))).collect();
    let configs: Vec<(&str, &Settings)> =
        retiring.iter().filter(|(_, own)| !own.config.is_empty()).map(|(name, own)| (*name, own)).collect();
    let reason = |item: &Item<'_>| {
        if item.owner != Owner::NoLease || item.wish != Wish::Run {
            return None;
        }
        let lease = names::listener_lease_name(set, item.name);
        if view.snapshot.unreadable.contains(&lease) {
            let message = format!("Lease {lease} cannot be read: it is left alone, with its owner; its Event says why");
            return Some(("LeaseUnreadable", message));
        }
        if view.snapshot.taken_names.contains(&lease) {
            let message = format!("Lease {lease} belongs to something else: delete it, or rename the listener");
            return Some(("NameTaken", message));
        }
        if let Some(reason) = vanished::held_back(memory, item.name) {
            return Some(reason);
        }
        let settings = item.settings?;
        let by_secret = settings.secret.as_deref().and_then(|secret| secrets.get(secret).copied());
        let by_config = || configs.iter().find(|(_, other)| other.config == settings.config).map(|(name, _)| *name);
        let before = by_secret.or_else(by_config)?;
        let message = format!("waits until {before} has stopped, which was removed and has the same Secret or config");
        Some(("ReplacesRemoved", message))
    };
    view.items.iter().map(reason).collect()
}
