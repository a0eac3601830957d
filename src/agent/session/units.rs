//! All listeners of this agent, in one task: what is known goes in, [`unit::next`] decides, and what it says is done.
//!
//! Level-triggered: after anything has happened every listener is looked at again, until it has nothing to do. Between a
//! listener's proven end and the write that gives it away, and between the sight of an ownership and the start, nothing
//! waits for anything else.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    api::{CallError, Leases},
    leases::{self, ListenerLease, Stopped, Transfer},
    listener::{Listener, Trouble},
    renewal::{Outbox, Told},
    runner::{Happening, Id, Runner},
};
use crate::{
    agent::boottime::{Alarm, Boottime},
    plan::listener_set::{
        ownership::Write,
        unit::{self, Runs, Step, StopReason, View},
    },
    snapshot::{
        index::Event,
        lease::{Holder, Letter, Order},
        report::{AgentInfo, GAPS_MAX, Gap, Report, UNITS_MAX},
    },
};

/// Longest time for one call about an ownership Lease.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for one that nothing waits for, and that a hand-over would have to wait for.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two tries to read what will come.
const INVITATION_RETRY: Duration = Duration::from_secs(1);
/// The loop turns at least so often: who asks for its health hears from it.
const TURN: Duration = Duration::from_secs(1);

/// How listeners are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A listener works once it says so, not once it was started.
    pub ready_on_tick: bool,
    /// How long a Pod that ends waits for somebody to take its listeners.
    pub drain_timeout: Duration,
    /// This Pod's revision; empty where there is none.
    pub revision: String,
}

/// What the agent is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Let others take the listeners.
    Drain,
    /// The same, and end when nothing is held. Said again: do not wait for others.
    Terminate,
}

/// What may be known outside of the loop.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// When it has last turned.
    pub turned_at: Boottime,
    /// Until when listeners may run.
    pub ready_until: Boottime,
    /// It drains, and nothing is held any more.
    pub is_drained: bool,
}

/// Where what is known comes from.
pub struct Sources {
    /// Ownership Leases that name this boot.
    pub events: mpsc::UnboundedReceiver<Event<Lease>>,
    /// The session.
    pub told: watch::Receiver<Told>,
    /// Signals, and the local HTTP server.
    pub notices: mpsc::Receiver<Notice>,
}

/// All listeners.
pub struct Units<R> {
    hands: Hands<R>,
    listeners: BTreeMap<Id, Listener>,
    /// What will come, by ListenerSet and listener, and how far we know of it.
    invitations: BTreeMap<(String, String), Invitation>,
    told: Told,
    /// The Leases that name us have been listed.
    is_listed: bool,
    drain: Drain,
    outbox: watch::Sender<Outbox>,
    health: watch::Sender<Health>,
}

/// What acts.
struct Hands<R> {
    me: Holder,
    options: Options,
    leases: Leases,
    runner: R,
    calls: JoinSet<Done>,
    /// The last gaps, by ListenerSet.
    gaps: BTreeMap<String, VecDeque<Gap>>,
}

/// The end of this Pod.
#[derive(Clone, Copy, Debug, Default)]
struct Drain {
    since: Option<Boottime>,
    terminates: bool,
    hastens: bool,
}

struct Invitation {
    epoch: u32,
    sight: Sight,
}

/// Whether the Lease of what will come was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    From(Boottime),
    Reading,
    Known,
}

/// A call that has ended.
struct Done {
    kind: Call,
    result: Result<Option<Lease>, CallError>,
}

enum Call {
    /// A transfer of this listener.
    Write(Id),
    /// Its state.
    Checkpoint(Id),
    /// A look after a write whose result is not known.
    Look(Id),
    /// A look that nothing waits for: it also opens a connection for the write that will follow.
    Glance,
    /// What will come.
    Invitation(String, String),
}

/// What holds for all listeners at one moment.
struct Moment<'a> {
    told: &'a Told,
    invitations: &'a BTreeMap<(String, String), Invitation>,
    leaves: bool,
    now: Boottime,
}

impl Moment<'_> {
    /// What the inbox says of a listener. That it will come counts only once its Lease could be read.
    fn letter(&self, lease: &ListenerLease) -> Option<&Letter> {
        let letter = self.told.inbox.get(&lease.set)?.get(&lease.listener)?;
        let is_known = || {
            let invitation = self.invitations.get(&(lease.set.clone(), lease.listener.clone()));
            invitation.is_some_and(|invitation| invitation.sight == Sight::Known)
        };
        (letter.order != Order::Incoming || is_known()).then_some(letter)
    }
}

/// The earlier one.
fn earliest(one: Option<Boottime>, other: Option<Boottime>) -> Option<Boottime> {
    one.into_iter().chain(other).min()
}

impl<R: Runner> Units<R> {
    /// With none yet.
    pub fn new(
        me: Holder,
        options: Options,
        leases: Leases,
        runner: R,
        outbox: watch::Sender<Outbox>,
        health: watch::Sender<Health>,
    ) -> Self {
        Self {
            hands: Hands { me, options, leases, runner, calls: JoinSet::new(), gaps: BTreeMap::new() },
            listeners: BTreeMap::new(),
            invitations: BTreeMap::new(),
            told: Told::default(),
            is_listed: false,
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
        let mut alarm = Alarm::new()?;
        self.hear(&sources.told.borrow_and_update().clone());
        loop {
            let wake = self.turn();
            if let Some(why) = &self.told.over {
                if self.listeners.values().all(Listener::is_idle) {
                    anyhow::bail!("the session was lost: {why}");
                }
            } else if self.drain.terminates && self.is_drained() {
                tracing::info!("nothing is held any more: the agent ends");
                return Ok(());
            }
            tokio::select! {
                biased;
                (id, happening) = self.hands.runner.next() => self.happened(&id, happening),
                Some(done) = self.hands.calls.join_next(), if !self.hands.calls.is_empty() => {
                    if let Ok(done) = done {
                        self.answered(done);
                    }
                }
                event = sources.events.recv() => match event {
                    Some(event) => self.saw(event),
                    None => anyhow::bail!("the watch on ownerships has ended"),
                },
                changed = sources.told.changed(), if self.told.over.is_none() => {
                    let mut told = sources.told.borrow_and_update().clone();
                    if changed.is_err() && told.over.is_none() {
                        told.deadlines = super::pace::Deadlines::default();
                        told.over = Some("it is not renewed any more".to_owned());
                    }
                    self.hear(&told);
                }
                Some(notice) = sources.notices.recv() => self.notice(notice),
                rung = alarm.at(wake) => rung?,
            }
        }
    }

    /// Looks at everything; returns when to look again without an event.
    fn turn(&mut self) -> Boottime {
        let now = Boottime::now();
        let leaves_at = self.drain.since.map(|since| since.after(self.hands.options.drain_timeout));
        let leaves = self.drain.hastens || leaves_at.is_some_and(|at| now >= at);
        let mut wake = earliest(Some(now.after(TURN)), leaves_at.filter(|at| *at > now));
        wake = earliest(wake, self.read_invitations(now));
        let moment = Moment { told: &self.told, invitations: &self.invitations, leaves, now };
        for (id, listener) in &mut self.listeners {
            wake = earliest(wake, self.hands.attend(id, listener, &moment));
        }
        self.report(leaves, now);
        wake.unwrap_or(now)
    }

    /// Reads what is to come.
    fn read_invitations(&mut self, now: Boottime) -> Option<Boottime> {
        let mut wake = None;
        for ((set, listener), invitation) in &mut self.invitations {
            match invitation.sight {
                Sight::From(from) if now >= from => {
                    invitation.sight = Sight::Reading;
                    let name = crate::api::names::listener_lease_name(set, listener);
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
        // Nothing takes a deadline back but its passing: who is told to stop has the time that he had.
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
    }

    fn notice(&mut self, notice: Notice) {
        let now = Boottime::now();
        if self.drain.since.is_none() {
            tracing::info!(?notice, "draining: others may take the listeners");
        }
        self.drain.since.get_or_insert(now);
        if notice == Notice::Terminate && std::mem::replace(&mut self.drain.terminates, true) {
            self.drain.hastens = true;
        }
    }

    /// What the watch tells of the Leases that name us.
    fn saw(&mut self, event: Event<Lease>) {
        match event {
            Event::Applied(lease) => self.see(&lease),
            Event::Deleted(lease) => {
                let uid = lease.metadata.uid.unwrap_or_default();
                if let Some(listener) = self.listeners.get_mut(&uid) {
                    listener.vanish(&lease.metadata.resource_version.unwrap_or_default());
                }
            }
            Event::Listed { objects, resource_version } => {
                self.is_listed = true;
                for (uid, listener) in &mut self.listeners {
                    let is_there = objects.iter().any(|lease| lease.metadata.uid.as_ref() == Some(uid));
                    if !is_there && listener.is_mine(&self.hands.me) {
                        listener.vanish(&resource_version);
                    }
                }
                objects.iter().for_each(|lease| self.see(lease));
            }
            Event::Progressed(_) => {}
        }
    }

    fn see(&mut self, lease: &Lease) {
        let Some(seen) = ListenerLease::read(lease) else { return };
        // Made again: that of another uid is gone.
        for (uid, listener) in &mut self.listeners {
            if *uid != seen.ownership.uid && listener.lease.name == seen.name {
                listener.vanish(&seen.ownership.resource_version);
            }
        }
        let me = &self.hands.me;
        match self.listeners.get_mut(&seen.ownership.uid) {
            Some(listener) => listener.see(seen, me),
            None => {
                self.listeners.insert(seen.ownership.uid.clone(), Listener::new(seen));
            }
        }
    }

    fn happened(&mut self, id: &Id, happening: Happening) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        match happening {
            Happening::Prepared => {
                if std::mem::take(&mut listener.is_preparing) && listener.unit.runs == Runs::Nothing {
                    listener.unit.runs = Runs::Prepared;
                }
            }
            Happening::Works => listener.said_that_it_works(),
            Happening::Resume(json) => {
                listener.said_that_it_works();
                listener.said_where_to_resume(json);
            }
            Happening::Failed(why) => {
                tracing::warn!(listener = listener.lease.listener, why, "a listener complains");
                if let Some(run) = &mut listener.run {
                    run.complaint = Some(why);
                }
            }
            Happening::Ended(ended) => {
                tracing::info!(listener = listener.lease.listener, ?ended, "a listener has ended");
                listener.ended(&ended, Boottime::now(), Timestamp::now());
            }
        }
    }

    fn answered(&mut self, Done { kind, result }: Done) {
        let now = Boottime::now();
        match kind {
            Call::Invitation(set, listener) => {
                let sight = match result {
                    Ok(Some(lease)) => {
                        self.see(&lease);
                        Sight::Known
                    }
                    Ok(None) => Sight::From(now.after(INVITATION_RETRY)),
                    Err(error) => {
                        tracing::warn!(listener, error = error.message(), "cannot read what is to come");
                        Sight::From(now.after(INVITATION_RETRY))
                    }
                };
                if let Some(invitation) = self.invitations.get_mut(&(set, listener)) {
                    invitation.sight = sight;
                }
            }
            Call::Glance => {
                if let Ok(Some(lease)) = result {
                    self.see(&lease);
                }
            }
            Call::Look(id) => {
                if let Some(listener) = self.listeners.get_mut(&id) {
                    listener.calls.is_busy = false;
                }
                match result {
                    Ok(Some(lease)) => self.looked(&id, &lease),
                    Ok(None) => self.is_deleted(&id),
                    Err(error) => self.call_failed(&id, &error, now),
                }
            }
            Call::Checkpoint(id) | Call::Write(id) => self.written(&id, result, now),
        }
    }

    /// A look at a listener that we know by uid; of another uid under its name it is gone.
    fn looked(&mut self, id: &Id, lease: &Lease) {
        if lease.metadata.uid.as_ref() == Some(id) {
            self.see(lease);
        } else {
            self.is_deleted(id);
        }
    }

    fn is_deleted(&mut self, id: &Id) {
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.is_gone = true;
        }
    }

    fn call_failed(&mut self, id: &Id, error: &CallError, now: Boottime) {
        if let Some(listener) = self.listeners.get_mut(id) {
            tracing::warn!(
                listener = listener.lease.listener,
                error = error.message(),
                "a call about its Lease failed"
            );
            listener.calls.failed(now);
        }
    }

    fn written(&mut self, id: &Id, result: Result<Option<Lease>, CallError>, now: Boottime) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.calls.is_busy = false;
        match result {
            Ok(lease) => {
                listener.calls.worked();
                if let Some(lease) = lease {
                    self.looked(&id.clone(), &lease);
                }
            }
            Err(error) => {
                let code = error.code();
                tracing::info!(
                    listener = listener.lease.listener,
                    code,
                    error = error.message(),
                    "an ownership was not written, looking at it"
                );
                if code == 404 {
                    listener.is_gone = true;
                } else if code == 403 && !std::mem::replace(&mut listener.calls.without_owners, true) {
                    // At once, without what it may have been refused for: OwnerReferencesPermissionEnforcement.
                } else {
                    if code != 409 {
                        listener.calls.failed(now);
                    }
                    listener.calls.is_busy = true;
                    let name = listener.lease.name.clone();
                    self.hands.read(Call::Look(id.clone()), name);
                }
            }
        }
    }

    /// Nothing is held, nothing runs, nothing is on its way.
    fn is_drained(&self) -> bool {
        let is_free =
            |listener: &Listener| listener.is_idle() && !listener.is_mine(&self.hands.me) && !listener.calls.is_busy;
        self.is_listed && self.listeners.values().all(is_free)
    }

    /// Tells the session and whoever asks.
    fn report(&mut self, leaves: bool, now: Boottime) {
        let info = AgentInfo { revision: self.hands.options.revision.clone(), draining: self.drain.since.is_some() };
        let moment = Moment { told: &self.told, invitations: &self.invitations, leaves, now };
        let mut sets: BTreeMap<(&str, &str), Vec<&Listener>> = BTreeMap::new();
        for listener in self.listeners.values() {
            sets.entry((&listener.lease.set, &listener.lease.set_uid)).or_default().push(listener);
        }
        let mut reports: BTreeMap<String, (bool, String)> = BTreeMap::new();
        for ((set, uid), listeners) in sets {
            let is_alive = listeners.iter().any(|listener| !listener.is_idle() || listener.is_mine(&self.hands.me));
            // A set that was made again under this name waits until nothing of the one before is left.
            if reports.get(set).is_none_or(|(is_older_alive, _)| is_alive && !is_older_alive) {
                let report = self.hands.report(set, uid, &listeners, &moment);
                let json = serde_json::to_string(&report).unwrap_or_default();
                reports.insert(set.to_owned(), (is_alive, json));
            }
        }
        let reports = reports.into_iter().map(|(set, (_, json))| (set, json)).collect();
        let outbox = Outbox { info, reports };
        self.outbox.send_if_modified(|said| {
            let is_news = *said != outbox;
            *said = outbox;
            is_news
        });
        let health = Health {
            turned_at: now,
            ready_until: self.told.deadlines.stop,
            is_drained: self.drain.since.is_some() && self.is_drained(),
        };
        self.health.send_replace(health);
    }
}

impl<R: Runner> Hands<R> {
    /// Does for one listener what is to be done; when to look again without an event.
    fn attend(&mut self, id: &Id, listener: &mut Listener, moment: &Moment<'_>) -> Option<Boottime> {
        let Moment { told, leaves, now, .. } = *moment;
        let letter = moment.letter(&listener.lease);
        if listener.unit.runs == Runs::Prepared {
            let is_invited = letter.is_some_and(|letter| letter.order == Order::Incoming);
            let since = listener.unit.uninvited_since.unwrap_or(now);
            listener.unit.uninvited_since = (!is_invited).then_some(since);
        }
        let mut wake = None;
        if listener.gives_up(now) {
            self.runner.stop(id, listener.stop_timeout());
        } else if let Some(run) = listener.run.as_ref().filter(|run| !run.works && !run.has_failed) {
            wake = earliest(wake, Some(run.works_by));
        }
        loop {
            let step = {
                let view = View {
                    ownership: (!listener.is_gone).then_some(&listener.lease.ownership),
                    letter,
                    me: &self.me,
                    deadline: told.deadlines.stop,
                    leaves,
                    patience: 2 * told.period,
                    now,
                };
                unit::next(&listener.unit, &view)
            };
            match step {
                Step::Wait(at) => {
                    wake = earliest(wake, at);
                    break;
                }
                Step::Prepare => {
                    if !listener.is_preparing {
                        self.prepare(id, listener);
                    }
                    break;
                }
                Step::Unprepare => {
                    self.runner.unprepare(id);
                    listener.unit.runs = Runs::Nothing;
                    listener.unit.uninvited_since = None;
                    break;
                }
                Step::Start(_) => self.start(id, listener, moment),
                Step::Stop(reason) => self.stop(id, listener, reason),
                Step::GiveUp(epoch) => listener.unit.tombstone = listener.unit.tombstone.max(epoch),
                Step::Write(write) => {
                    if listener.calls.is_busy {
                        break;
                    }
                    if now < listener.calls.rest_until {
                        wake = earliest(wake, Some(listener.calls.rest_until));
                        break;
                    }
                    self.transfer(id, listener, &write);
                    break;
                }
            }
        }
        let (state, next) = listener.checkpoint(now);
        if let Some(state) = state.filter(|_| !listener.calls.is_busy && now >= listener.calls.rest_until) {
            self.write_down(id, listener, &state, now);
        }
        earliest(wake, next)
    }

    fn prepare(&mut self, id: &Id, listener: &mut Listener) {
        match listener.task() {
            Ok(task) => {
                listener.is_preparing = true;
                self.runner.prepare(id, task);
            }
            Err(trouble) => listener.trouble = Some(trouble),
        }
    }

    fn start(&mut self, id: &Id, listener: &mut Listener, moment: &Moment<'_>) {
        let (lease, epoch) = (&listener.lease, listener.lease.ownership.epoch);
        let started = listener.task().and_then(|task| {
            let started = self.runner.start(id, task, moment.told.deadlines.kill);
            started.map_err(|error| Trouble::new("CannotStart", &error.to_string()))
        });
        match started {
            Ok(()) => {
                tracing::info!(listener = lease.listener, set = lease.set, epoch, "started a listener");
                self.note_gap(&listener.lease);
                listener.started(moment.now, !self.options.ready_on_tick);
            }
            Err(trouble) => {
                tracing::error!(listener = lease.listener, epoch, ?trouble, "a listener cannot be started");
                listener.not_started(moment.now, trouble);
            }
        }
    }

    fn note_gap(&mut self, lease: &ListenerLease) {
        let is_from_me = lease.from.as_deref() == Some(&self.me.to_string());
        let Some(stopped_at) = lease.stopped_at.filter(|_| !is_from_me) else { return };
        let millis = Timestamp::now().duration_since(stopped_at).as_millis();
        let gap = Gap {
            listener: lease.listener.clone(),
            epoch: lease.ownership.epoch,
            millis: u32::try_from(millis.max(0)).unwrap_or(u32::MAX),
        };
        let gaps = self.gaps.entry(lease.set.clone()).or_default();
        gaps.push_back(gap);
        if gaps.len() > GAPS_MAX {
            gaps.pop_front();
        }
    }

    fn stop(&mut self, id: &Id, listener: &mut Listener, reason: StopReason) {
        let Runs::Epoch { epoch, .. } = listener.unit.runs else { return };
        tracing::info!(listener = listener.lease.listener, epoch, ?reason, "stopping a listener");
        self.runner.stop(id, listener.stop_timeout());
        listener.unit.runs = Runs::Stops { epoch };
        if reason != StopReason::Deadline {
            self.read(Call::Glance, listener.lease.name.clone());
        }
    }

    fn transfer(&mut self, id: &Id, listener: &mut Listener, write: &Write) {
        let is_mine = write.holder.as_ref() == Some(&self.me);
        let (state, stopped) = listener.legacy();
        let transfer = Transfer {
            seen: &listener.lease,
            write,
            me: &self.me,
            revision: &self.options.revision,
            state,
            stopped: if is_mine { Stopped::Forget } else { stopped },
            now: Timestamp::now(),
        };
        let patch = transfer.patch(!listener.calls.without_owners);
        let to = write.holder.as_ref().map(ToString::to_string).unwrap_or_default();
        tracing::info!(listener = listener.lease.listener, epoch = write.epoch, to, "writing an ownership");
        self.merge(Call::Write(id.clone()), listener, patch, CALL_TIMEOUT);
    }

    fn write_down(&mut self, id: &Id, listener: &mut Listener, state: &str, now: Boottime) {
        listener.checkpoint_at = now;
        let patch = leases::checkpoint(&listener.lease, state);
        self.merge(Call::Checkpoint(id.clone()), listener, patch, CHECKPOINT_TIMEOUT);
    }

    fn merge(&mut self, kind: Call, listener: &mut Listener, patch: serde_json::Value, timeout: Duration) {
        listener.calls.is_busy = true;
        let (leases, name) = (self.leases.clone(), listener.lease.name.clone());
        self.calls.spawn(async move {
            let result = leases.merge(&name, &patch, timeout).await.map(Some);
            Done { kind, result }
        });
    }

    fn read(&mut self, kind: Call, name: String) {
        let leases = self.leases.clone();
        self.calls.spawn(async move { Done { kind, result: leases.get(&name, CALL_TIMEOUT).await } });
    }

    fn report(&self, set: &str, uid: &str, listeners: &[&Listener], moment: &Moment<'_>) -> Report {
        let mut report = Report { set: uid.to_owned(), ..Report::default() };
        let mine = listeners.iter().filter(|listener| listener.is_mine(&self.me));
        let held =
            mine.map(|listener| (listener.lease.listener.clone(), (listener.lease.ownership.epoch, listener.works())));
        report.set_held(&held.collect());
        let units = listeners.iter().filter_map(|listener| {
            let letter = moment.letter(&listener.lease);
            Some((listener.lease.listener.clone(), listener.report(letter, &self.me)?))
        });
        report.units = units.take(UNITS_MAX).collect();
        report.gaps = self.gaps.get(set).into_iter().flatten().cloned().collect();
        report
    }
}
