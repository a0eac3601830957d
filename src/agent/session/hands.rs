//! What is done about one listener: asks [`unit::next`] until there is nothing to do, and does what it says.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use tokio::task::JoinSet;

use super::{
    api::{CallError, Leases},
    leases::{self, ListenerLease, Stopped, Transfer},
    listener::{Listener, Trouble},
    renewal::Told,
    runner::{Id, Runner},
};
use crate::{
    agent::{boottime::Boottime, clocks::Clocks},
    plan::listener_set::{
        ownership::Write,
        unit::{self, Runs, Step, StopReason, View},
    },
    snapshot::{
        lease::{Holder, Letter, Order},
        report::{GAPS_MAX, Gap},
    },
};

/// Longest time for one call about an ownership Lease.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for one that nothing waits for, and that a hand-over would have to wait for.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an orphan ends.
pub const ORPHANED: &str =
    "the container runtime no longer watches this container, the session was not renewed for D, and no listener runs";

/// How listeners are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A listener works once it says so, not once it was started.
    pub ready_on_tick: bool,
    /// How long a Pod that ends waits for another to take its listeners.
    pub drain_timeout: Duration,
    /// This Pod's revision; empty where there is none.
    pub revision: String,
    /// Whether the container runtime has lost this agent ([`crate::sdk::orphan::is_orphan`]).
    pub is_orphan: fn() -> bool,
}

/// What acts.
pub struct Hands<R> {
    /// This boot.
    pub me: Holder,
    /// How listeners are run.
    pub options: Options,
    /// Of this machine.
    pub clocks: Clocks,
    /// What runs them.
    pub runner: R,
    /// Calls on their way.
    pub calls: JoinSet<Done>,
    /// How many may still be started before the rest of the agent gets its turn: starting a process takes a while.
    pub starts: u32,
    /// The cluster does not let agents write owner references.
    pub without_owners: bool,
    /// The last gaps, by uid of the ListenerSet.
    pub gaps: BTreeMap<String, VecDeque<Gap>>,
    leases: Leases,
}

/// What is to come.
pub struct Invitation {
    /// Of the present owner.
    pub epoch: u32,
    /// How far we know of it.
    pub sight: Sight,
}

/// Whether the Lease of what will come was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// To be read at this time.
    From(Boottime),
    /// It is being read.
    Reading,
    /// It was read.
    Known,
}

/// A call that has ended.
pub struct Done {
    /// What for.
    pub kind: Call,
    /// The Lease as it is now; None: there is none.
    pub result: Result<Option<Lease>, CallError>,
}

/// What a call is for.
pub enum Call {
    /// A transfer of this listener.
    Write(Id),
    /// Its state.
    Checkpoint(Id),
    /// A look after a write whose result is not known.
    Look(Id),
    /// A look that nothing waits for: it also opens a connection for the write that will follow.
    Glance(Id),
    /// What will come.
    Invitation(String, String),
}

/// What holds for all listeners at one moment.
pub struct Moment<'a> {
    /// The session.
    pub told: &'a Told,
    /// What is to come, by ListenerSet and listener.
    pub invitations: &'a BTreeMap<(String, String), Invitation>,
    /// Listeners that wait for the end of what another Lease of their name has begun here.
    pub blocked: &'a BTreeSet<Id>,
    /// No successor is waited for any more.
    pub leaves: bool,
    /// Now.
    pub now: Boottime,
}

/// How long a listener may take to stop that another owns already: both run meanwhile.
const LOST_GRACE: Duration = Duration::from_secs(1);

impl Moment<'_> {
    /// What the inbox says of a listener. That it will come counts only once its Lease could be read.
    pub fn letter(&self, lease: &ListenerLease) -> Option<&Letter> {
        let letter = self.told.inbox.get(&lease.set)?.get(&lease.listener)?;
        let is_known = || {
            let invitation = self.invitations.get(&(lease.set.clone(), lease.listener.clone()));
            invitation.is_some_and(|invitation| invitation.sight == Sight::Known)
        };
        (letter.order != Order::Incoming || is_known()).then_some(letter)
    }
}

/// The earlier one.
pub fn earliest(one: Option<Boottime>, other: Option<Boottime>) -> Option<Boottime> {
    one.into_iter().chain(other).min()
}

impl<R: Runner> Hands<R> {
    /// With nothing to do yet.
    pub fn new(me: Holder, options: Options, clocks: Clocks, leases: Leases, runner: R) -> Self {
        let (calls, gaps) = (JoinSet::new(), BTreeMap::new());
        Self { me, options, clocks, runner, calls, starts: 0, without_owners: false, leases, gaps }
    }

    /// Does for one listener what is to be done; when to look again without an event.
    pub fn attend(&mut self, id: &Id, listener: &mut Listener, moment: &Moment<'_>) -> Option<Boottime> {
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
        } else {
            wake = earliest(wake, listener.works_by());
        }
        loop {
            let step = {
                let view = View {
                    ownership: (!listener.is_gone).then_some(&listener.lease.ownership),
                    letter,
                    me: &self.me,
                    deadline: told.deadlines.stop,
                    is_blocked: moment.blocked.contains(id),
                    asks: listener.asks(),
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
                Step::Start(_) => {
                    let Some(rest) = self.starts.checked_sub(1) else {
                        wake = Some(now);
                        break;
                    };
                    self.starts = rest;
                    self.start(id, listener, moment);
                }
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
        wake = earliest(wake, self.hurry(id, listener, now));
        let (state, next) = listener.checkpoint(now);
        if let Some(state) = state.filter(|_| !listener.calls.is_busy && now >= listener.calls.rest_until) {
            self.write_down(id, listener, &state, now);
        }
        earliest(wake, next)
    }

    fn prepare(&mut self, id: &Id, listener: &mut Listener) {
        match listener.task() {
            Ok(task) => {
                (listener.is_preparing, listener.complaint) = (true, None);
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
        let millis = self.clocks.timestamp().duration_since(stopped_at).as_millis();
        let gap = Gap {
            listener: lease.listener.clone(),
            epoch: lease.ownership.epoch,
            millis: u32::try_from(millis.max(0)).unwrap_or(u32::MAX),
        };
        let gaps = self.gaps.entry(lease.set_uid.clone()).or_default();
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
            self.glance(id, listener);
        }
    }

    /// What stops has less time from the moment at which another is seen to own it. The watch shows only what is ours, so a
    /// Lease that is not ours any more is read until it names another. Answers when to look again.
    fn hurry(&mut self, id: &Id, listener: &mut Listener, now: Boottime) -> Option<Boottime> {
        let Runs::Stops { epoch } = listener.unit.runs else { return None };
        if listener.hurried == Some(epoch) || listener.is_mine(&self.me) {
            return None;
        }
        if listener.is_superseded(epoch, &self.me) {
            tracing::warn!(listener = listener.lease.listener, epoch, "another owns a listener that still runs here");
            self.runner.stop(id, listener.stop_timeout().min(LOST_GRACE));
            listener.hurried = Some(epoch);
            return None;
        }
        if listener.glance_at.is_some_and(|at| now >= at) {
            self.glance(id, listener);
        }
        listener.glance_at
    }

    fn glance(&mut self, id: &Id, listener: &mut Listener) {
        listener.glance_at = None;
        self.read(Call::Glance(id.clone()), listener.lease.name.clone());
    }

    /// The same without any grace: the session is lost, and others may have begun already.
    pub fn kill(&mut self, id: &Id, listener: &mut Listener) {
        let (Runs::Epoch { epoch, .. } | Runs::Stops { epoch }) = listener.unit.runs else { return };
        tracing::info!(listener = listener.lease.listener, epoch, "killing a listener");
        self.runner.stop(id, Duration::ZERO);
        (listener.unit.runs, listener.hurried) = (Runs::Stops { epoch }, Some(epoch));
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
            now: self.clocks.timestamp(),
        };
        let patch = transfer.patch(!self.without_owners && !listener.calls.without_owners);
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

    /// GETs a Lease.
    pub fn read(&mut self, kind: Call, name: String) {
        let leases = self.leases.clone();
        self.calls.spawn(async move { Done { kind, result: leases.get(&name, CALL_TIMEOUT).await } });
    }
}
