//! All listeners of this agent, in one task: what is known goes in, [`unit::next`] decides, and what it says is done.
//!
//! Level-triggered: after anything has happened every listener is looked at again, until it has nothing to do. Between a
//! listener's proven end and the write that gives it away, and between the sight of an ownership and the start, nothing
//! waits for anything else.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::sync::{mpsc, watch};

pub use super::drain::Notice;
use super::{
    api::Leases,
    drain::Drain,
    forget::Forgetting,
    hands::{Call, Hands, Invitation, Moment, ORPHANED, Options, Sight, earliest},
    leases::ListenerLease,
    listener::Listener,
    pace::Deadlines,
    renewal::{Outbox, Told},
    runner::{Happening, Id, Runner},
    tell,
};
use crate::{
    agent::{boottime::Boottime, clocks::Clocks},
    api::names,
    observe::watch::Refresher,
    plan::listener_set::unit::Runs,
    snapshot::{
        index::{Event, is_older},
        lease::{Holder, Letter, Order},
        report::AgentInfo,
    },
};

/// Between two tries to read what will come.
const INVITATION_RETRY: Duration = Duration::from_secs(1);
/// Processes started in one turn.
const STARTS_MAX: u32 = 8;
/// The loop turns at least so often: who asks for its health hears from it.
const TURN: Duration = Duration::from_secs(1);

mod answers;

/// What may be known outside of the loop.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// When it has last turned.
    pub turned_at: Boottime,
    /// Until when listeners may run.
    pub ready_until: Boottime,
    /// It drains, and nothing is held any more.
    pub is_drained: bool,
    /// What else there is not, without which no listener can run.
    pub lacks: Option<&'static str>,
}

/// Where what is known comes from.
pub struct Sources {
    /// Ownership Leases that name this boot.
    pub events: mpsc::UnboundedReceiver<Event<Lease>>,
    /// Has these listed anew.
    pub relist: Refresher,
    /// The session.
    pub told: watch::Receiver<Told>,
    /// Signals, and the local HTTP server.
    pub notices: mpsc::Receiver<Notice>,
}

/// All listeners.
pub struct Units<R> {
    hands: Hands<R>,
    listeners: BTreeMap<Id, Listener>,
    forgetting: Forgetting,
    /// How many were seen for the first time.
    number: u64,
    /// What will come, by ListenerSet and listener, and how far we know of it.
    invitations: BTreeMap<(String, String), Invitation>,
    told: Told,
    /// The Leases that name us have been listed.
    is_listed: bool,
    /// The watch on these has not told of one: they are to be listed anew.
    is_deaf: bool,
    drain: Drain,
    outbox: watch::Sender<Outbox>,
    health: watch::Sender<Health>,
}

impl<R: Runner> Units<R> {
    /// With none yet.
    pub fn new(
        me: Holder,
        options: Options,
        clocks: Clocks,
        leases: Leases,
        runner: R,
        outbox: watch::Sender<Outbox>,
        health: watch::Sender<Health>,
    ) -> Self {
        Self {
            hands: Hands::new(me, options, clocks, leases, runner),
            listeners: BTreeMap::new(),
            forgetting: Forgetting::default(),
            number: 0,
            invitations: BTreeMap::new(),
            told: Told::default(),
            is_listed: false,
            is_deaf: false,
            drain: Drain::default(),
            outbox,
            health,
        }
    }

    /// Runs listeners until the Pod ends and nothing is held.
    ///
    /// # Errors
    /// The session was lost, and nothing runs any more.
    pub async fn run(mut self, mut sources: Sources) -> anyhow::Result<()> {
        let mut alarm = self.hands.clocks.alarm()?;
        self.hear(&sources.told.borrow_and_update().clone());
        let (mut is_news, mut wake) = (true, Boottime::default());
        loop {
            if is_news || self.hands.clocks.boottime() >= wake {
                wake = self.turn();
                if wake <= self.hands.clocks.boottime() {
                    tokio::task::yield_now().await; // renewals first
                }
                if self.is_over()? {
                    return Ok(());
                }
            }
            // What listeners say comes last: one that never stops talking must not keep the rest from being heard.
            is_news = tokio::select! {
                biased;
                changed = sources.told.changed(), if self.told.over.is_none() => {
                    let mut told = sources.told.borrow_and_update().clone();
                    if changed.is_err() && told.over.is_none() {
                        told.deadlines = Deadlines::default();
                        told.over = Some("it is not renewed any more".to_owned());
                    }
                    self.hear(&told);
                    true
                }
                Some(done) = self.hands.calls.join_next(), if !self.hands.calls.is_empty() => {
                    if let Ok(done) = done {
                        self.answered(done);
                    }
                    if std::mem::take(&mut self.is_deaf) {
                        tracing::warn!("the watch on what this Pod owns has missed something: listing it anew");
                        sources.relist.request();
                    }
                    true
                }
                event = sources.events.recv() => {
                    self.saw(event.context("the watch on ownerships has ended")?);
                    true
                }
                Some(notice) = sources.notices.recv() => {
                    self.notice(notice);
                    true
                }
                (id, happening) = self.hands.runner.next() => self.happened(&id, happening),
                rung = alarm.at(wake) => {
                    rung?;
                    true
                }
            }
        }
    }

    /// Whether the agent ends.
    fn is_over(&self) -> anyhow::Result<bool> {
        if let Some(why) = &self.told.over {
            let runs = self.listeners.values().any(Listener::runs);
            anyhow::ensure!(runs, "the session was lost: {why}");
            return Ok(false);
        }
        let is_idle = self.told.is_silent(self.hands.clocks.boottime()) && !self.listeners.values().any(Listener::runs);
        anyhow::ensure!(!is_idle || !(self.hands.options.is_orphan)(), "{ORPHANED}");
        let is_over = self.drain.terminates() && self.is_drained();
        if is_over {
            tracing::info!("nothing is held any more: the agent ends");
        }
        Ok(is_over)
    }

    /// Looks at everything; returns when to look again without an event.
    fn turn(&mut self) -> Boottime {
        let now = self.hands.clocks.boottime();
        let leaves_at = self.drain.leaves_at(self.hands.options.drain_timeout);
        let leaves = leaves_at.is_some_and(|at| now >= at);
        let mut wake = earliest(Some(now.after(TURN)), leaves_at.filter(|at| *at > now));
        wake = earliest(wake, self.read_invitations(now));
        self.hands.starts = STARTS_MAX;
        self.forget(now);
        let blocked = self.blocked();
        for (id, listener) in &mut self.listeners {
            // Each with a time of its own: starting the ones before has taken some.
            let (told, invitations, now) = (&self.told, &self.invitations, self.hands.clocks.boottime());
            let moment = Moment { told, invitations, blocked: &blocked, leaves, now };
            wake = earliest(wake, self.hands.attend(id, listener, &moment));
        }
        self.report(&blocked, leaves, now);
        wake.unwrap_or(now)
    }

    /// Lets go of what there has long been nothing of.
    fn forget(&mut self, now: Boottime) {
        let invitations = &self.invitations;
        let is_to_come = |lease: &ListenerLease| invitations.contains_key(&(lease.set.clone(), lease.listener.clone()));
        if self.forgetting.forget(&mut self.listeners, &self.hands.me, is_to_come, now) {
            let sets: BTreeSet<&String> = self.listeners.values().map(|listener| &listener.lease.set_uid).collect();
            self.hands.gaps.retain(|uid, _| sets.contains(uid));
        }
    }

    /// Listeners that wait for another Lease of their name. Of those of one name all but one are gone, so that no two of
    /// them begin in one turn.
    fn blocked(&self) -> BTreeSet<Id> {
        let running = self.listeners.iter().filter(|(_, listener)| listener.runs());
        let running: BTreeMap<&str, &Id> = running.map(|(id, listener)| (&*listener.lease.name, id)).collect();
        let is_blocked =
            |(id, listener): &(&Id, &Listener)| running.get(&*listener.lease.name).is_some_and(|other| other != id);
        self.listeners.iter().filter(is_blocked).map(|(id, _)| id.clone()).collect()
    }

    /// Reads what is to come.
    fn read_invitations(&mut self, now: Boottime) -> Option<Boottime> {
        let mut wake = None;
        for ((set, listener), invitation) in &mut self.invitations {
            match invitation.sight {
                Sight::From(from) if now >= from => {
                    invitation.sight = Sight::Reading;
                    let name = names::listener_lease_name(set, listener);
                    self.hands.read(Call::Invitation(set.clone(), listener.clone()), name);
                }
                Sight::From(from) => wake = earliest(wake, Some(from)),
                Sight::Reading | Sight::Known => {}
            }
        }
        wake
    }

    /// What the session tells.
    fn hear(&mut self, told: &Told) {
        // A deadline comes forward where the machine may have stood still. A session that is lost takes none back: what is told
        // to stop then has the time that it had.
        if told.deadlines != self.told.deadlines && told.deadlines.kill > Boottime::default() {
            self.hands.runner.extend(told.deadlines.kill);
        }
        if !Arc::ptr_eq(&told.inbox, &self.told.inbox) {
            let coming = |set: &String, letters: &BTreeMap<String, Letter>| -> Vec<_> {
                let coming = letters.iter().filter(|(_, letter)| letter.order == Order::Incoming);
                coming.map(|(listener, letter)| ((set.clone(), listener.clone()), letter.epoch)).collect()
            };
            let coming: BTreeMap<_, _> = told.inbox.iter().flat_map(|(set, letters)| coming(set, letters)).collect();
            self.invitations.retain(|key, invitation| coming.get(key) == Some(&invitation.epoch));
            for (key, epoch) in coming {
                let sight = Sight::From(Boottime::default());
                self.invitations.entry(key).or_insert(Invitation { epoch, sight });
            }
        }
        self.told = told.clone();
        if self.told.over.is_some() {
            for (id, listener) in &mut self.listeners {
                self.hands.kill(id, listener);
            }
        }
    }

    /// It is told something from outside.
    pub fn notice(&mut self, notice: Notice) {
        self.drain.notice(notice, self.hands.clocks.boottime());
    }

    /// What the watch tells of the Leases that name us.
    fn saw(&mut self, event: Event<Lease>) {
        match event {
            Event::Applied(lease) => {
                self.see(&lease);
                self.forgetting.told(lease.metadata.resource_version.as_deref().unwrap_or_default());
            }
            Event::Deleted(lease) => {
                self.forgetting.told(lease.metadata.resource_version.as_deref().unwrap_or_default());
                let uid = lease.metadata.uid.unwrap_or_default();
                if let Some(listener) = self.listeners.get_mut(&uid) {
                    listener.vanish(&lease.metadata.resource_version.unwrap_or_default());
                }
            }
            Event::Listed { objects, resource_version } => {
                self.is_listed = true;
                self.forgetting.listed(&resource_version);
                for (uid, listener) in &mut self.listeners {
                    let is_there = objects.iter().any(|lease| lease.metadata.uid.as_ref() == Some(uid));
                    if !is_there && (listener.is_gone || listener.is_mine(&self.hands.me)) {
                        listener.vanish(&resource_version);
                    }
                }
                for lease in &objects {
                    self.see(lease);
                }
            }
            Event::Progressed(resource_version) => self.forgetting.told(&resource_version),
        }
    }

    fn see(&mut self, lease: &Lease) {
        let Some(seen) = ListenerLease::read(lease) else {
            // It has lost what makes it one: whose it is, is not known any more.
            let known = lease.metadata.uid.as_ref().and_then(|uid| self.listeners.get_mut(uid));
            if let Some(listener) = known {
                listener.vanish(lease.metadata.resource_version.as_deref().unwrap_or_default());
            }
            return;
        };
        // Made again: that of another uid is gone, and a late view of one that was there before says nothing.
        let (mut is_outdated, version) = (false, &seen.ownership.resource_version);
        for (uid, listener) in &mut self.listeners {
            if *uid != seen.ownership.uid && listener.lease.name == seen.name {
                is_outdated |= is_older(version, &listener.lease.ownership.resource_version);
                listener.vanish(version);
            }
        }
        if is_outdated {
            return;
        }
        let me = &self.hands.me;
        if let Some(listener) = self.listeners.get_mut(&seen.ownership.uid) {
            listener.see(seen, me);
        } else if !self.forgetting.is_past(&seen, me) {
            self.number += 1;
            self.listeners.insert(seen.ownership.uid.clone(), Listener::new(seen, self.number));
        }
    }

    /// True: there may be something to do.
    fn happened(&mut self, id: &Id, happening: Happening) -> bool {
        let clocks = &self.hands.clocks;
        let Some(listener) = self.listeners.get_mut(id) else { return false };
        let was_working = listener.works();
        match happening {
            Happening::Prepared => {
                if std::mem::take(&mut listener.is_preparing) && listener.unit.runs == Runs::Nothing {
                    listener.unit.runs = Runs::Prepared;
                }
            }
            Happening::Works => {
                listener.said_that_it_works();
                return !was_working;
            }
            Happening::Resume(json) => {
                listener.said_that_it_works();
                listener.said_where_to_resume(json);
                return !was_working || listener.is_written_down();
            }
            Happening::Failed(why) => {
                tracing::warn!(listener = listener.lease.listener, why, "a listener complains");
                match &mut listener.run {
                    Some(run) => run.complaint = Some(why),
                    None => listener.complaint = Some(why),
                }
                return false;
            }
            Happening::Ended(ended) => {
                tracing::info!(listener = listener.lease.listener, ?ended, "a listener has ended");
                listener.ended(ended, clocks.boottime(), clocks.timestamp());
            }
        }
        true
    }

    /// Nothing is held, nothing runs, nothing is on its way.
    fn is_drained(&self) -> bool {
        let is_free =
            |listener: &Listener| !listener.runs() && !listener.is_mine(&self.hands.me) && !listener.calls.is_busy;
        self.is_listed && self.listeners.values().all(is_free)
    }

    /// Tells the session and those who ask.
    fn report(&mut self, blocked: &BTreeSet<Id>, leaves: bool, now: Boottime) {
        let info = AgentInfo { revision: self.hands.options.revision.clone(), draining: self.drain.is_on() };
        let moment = Moment { told: &self.told, invitations: &self.invitations, blocked, leaves, now };
        let reports = tell::reports(self.listeners.values(), &self.hands.gaps, &self.hands.me, &moment);
        let outbox = Outbox { info, reports };
        self.outbox.send_if_modified(|said| {
            let is_news = *said != outbox;
            *said = outbox;
            is_news
        });
        let health = Health {
            turned_at: now,
            ready_until: self.told.deadlines.stop,
            is_drained: self.drain.is_on() && self.is_drained(),
            lacks: None,
        };
        self.health.send_replace(health);
    }
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
