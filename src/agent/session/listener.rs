//! What this agent knows of one listener: its Lease as last seen, what of it there is here, and what went wrong.
use std::time::Duration;

use jiff::Timestamp;

use super::{
    leases::{ListenerLease, Stopped},
    pace::Backoff,
};
use crate::{
    agent::{
        boottime::Boottime,
        exec::{Cause, Ended, Environment, Exit},
    },
    plan::listener_set::unit::{self, Runs, Unit},
    snapshot::{
        index::is_older,
        lease::{Holder, Letter, Order},
        report::{UnitReport, UnitState},
    },
};

/// Where settings cannot be read, a listener that runs all the same has so long to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest message in a report, in bytes: many of them must fit into an annotation.
const MESSAGE_BYTES_MAX: usize = 128;
/// Longest word that is taken for a reason.
const REASON_BYTES_MAX: usize = 48;

/// One listener, as long as this process lives: by the uid of its ownership Lease.
pub struct Listener {
    /// Counts up with each that is seen for the first time.
    pub number: u64,
    /// Its Lease as last seen.
    pub lease: ListenerLease,
    /// As far as the watch tells, the Lease does not name us any more, or is gone.
    pub is_gone: bool,
    /// The version at which that was told; empty before.
    pub gone_at: String,
    /// What decides.
    pub unit: Unit,
    /// Starts that failed.
    pub backoff: Backoff,
    /// What went wrong last; none while it works.
    pub trouble: Option<Trouble>,
    /// What was started, until its end.
    pub run: Option<Run>,
    /// It was asked to prepare, and has not answered.
    pub is_preparing: bool,
    /// What it said was wrong, since it was asked to prepare.
    pub complaint: Option<String>,
    /// What it would resume from, as it has said, and the epoch it ran under then.
    pub resume: Option<(u32, String)>,
    /// The epoch that last ran here, and when it had stopped.
    pub stopped: Option<(u32, Timestamp)>,
    /// When what it would resume from was last written down.
    pub checkpoint_at: Boottime,
    /// Calls about its Lease.
    pub calls: Calls,
    /// Since when there has been nothing of it here.
    pub idle_since: Option<Boottime>,
    /// The epoch whose time to stop was last cut, because another owns it.
    pub hurried: Option<u32>,
    /// While it stops and is not ours: when to read whose it is. None: a read is on its way, or has found no Lease.
    pub glance_at: Option<Boottime>,
}

/// Writes of one Lease: one at a time.
#[derive(Default)]
pub struct Calls {
    /// One is on its way.
    pub is_busy: bool,
    /// None before this time.
    pub rest_until: Boottime,
    /// How many have failed in a row.
    pub failures: u32,
    /// How many in a row have met another version of the Lease.
    pub conflicts: u32,
    /// The cluster does not let agents write owner references.
    pub without_owners: bool,
}

impl Calls {
    const LONGEST_MILLIS: u64 = 2_000;

    /// One has failed: pause before the next.
    pub fn failed(&mut self, now: Boottime) {
        let pause = (25_u64 << self.failures.min(8)).min(Self::LONGEST_MILLIS);
        self.failures = self.failures.saturating_add(1);
        self.rest_until = now.after(Duration::from_millis(pause));
    }

    /// One has met another version than it was decided on. One look mends that; where it does not, the next ones pause.
    pub fn conflicted(&mut self, now: Boottime) {
        self.conflicts = self.conflicts.saturating_add(1);
        if self.conflicts > 1 {
            self.failed(now);
        }
    }

    /// One has worked.
    pub fn worked(&mut self) {
        (self.failures, self.conflicts, self.rest_until) = (0, 0, Boottime::default());
    }
}

/// What was started.
#[derive(Clone, Debug)]
pub struct Run {
    /// When.
    pub began: Boottime,
    /// It does its work, as far as it is asked to say so.
    pub works: bool,
    /// It must work by then.
    pub works_by: Boottime,
    /// It was stopped because its start has failed.
    pub has_failed: bool,
    /// What it said was wrong.
    pub complaint: Option<String>,
}

/// Something wrong, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Trouble {
    /// With a message cut to what a report has room for.
    pub fn new(reason: &str, message: &str) -> Self {
        let message = if message.len() <= MESSAGE_BYTES_MAX {
            message.to_owned()
        } else {
            format!("{}…", &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX - '…'.len_utf8())])
        };
        Self { reason: reason.to_owned(), message }
    }

    /// `ConnectTimeout: no route` has its reason before the colon.
    fn of_complaint(text: &str) -> Self {
        let is_reason = |word: &str| {
            word.len() <= REASON_BYTES_MAX
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().all(|c| c.is_ascii_alphanumeric())
        };
        match text.split_once(':') {
            Some((word, rest)) if is_reason(word) => Self::new(word, rest.trim()),
            _ => Self::new("Failed", text.trim()),
        }
    }

    fn of_end(ended: Ended) -> Self {
        match (ended.cause, ended.exit) {
            (Cause::NotStarted, _) => Self::new("CannotStart", "no process could be started"),
            (Cause::GuardLost, _) => Self::new("GuardLost", "the process that watches it was killed"),
            (_, Some(Exit::Code(code))) => Self::new("Exited", &format!("it has ended with exit code {code}")),
            (_, Some(Exit::Signal(signal))) => Self::new("Killed", &format!("it was ended by signal {signal}")),
            (_, None) => Self::new("Exited", "it has ended"),
        }
    }
}

impl Listener {
    /// As seen for the first time.
    pub fn new(lease: ListenerLease, number: u64) -> Self {
        Self {
            number,
            lease,
            is_gone: false,
            gone_at: String::new(),
            unit: Unit::default(),
            backoff: Backoff::default(),
            trouble: None,
            run: None,
            is_preparing: false,
            complaint: None,
            resume: None,
            stopped: None,
            checkpoint_at: Boottime::default(),
            calls: Calls::default(),
            idle_since: None,
            hurried: None,
            glance_at: Some(Boottime::default()),
        }
    }

    /// This is its Lease, unless a later one was seen.
    pub fn see(&mut self, lease: ListenerLease, me: &Holder) {
        let version = &lease.ownership.resource_version;
        // Of a read that is answered late it does not come back.
        if is_older(version, &self.lease.ownership.resource_version) || is_older(version, &self.gone_at) {
            return;
        }
        // The watch shows ours only: of others' it cannot tell when they end.
        self.is_gone &= lease.ownership.holder.as_ref() != Some(me);
        self.lease = lease;
    }

    /// At this version the Lease did not name us, unless a later one was seen.
    pub fn vanish(&mut self, version: &str) {
        if !is_older(version, &self.lease.ownership.resource_version) && !is_older(version, &self.gone_at) {
            self.is_gone = true;
            version.clone_into(&mut self.gone_at);
        }
    }

    /// It names this boot.
    pub fn is_mine(&self, me: &Holder) -> bool {
        !self.is_gone && self.lease.ownership.holder.as_ref() == Some(me)
    }

    /// What runs here under this epoch belongs to another by now, who may have started it: forced, or by an edited Lease.
    pub fn is_superseded(&self, epoch: u32, me: &Holder) -> bool {
        let ownership = &self.lease.ownership;
        ownership.epoch >= epoch && ownership.holder.as_ref().is_some_and(|holder| holder != me)
    }

    /// Its Lease was read while it stops. Where there is none of that name, there is no other owner to look for.
    pub fn glanced(&mut self, is_deleted: bool, now: Boottime) {
        const PERIOD: Duration = Duration::from_millis(250);
        self.glance_at = (!is_deleted).then(|| now.after(PERIOD));
    }

    /// It was started, and is not proven to have ended.
    pub fn runs(&self) -> bool {
        matches!(self.unit.runs, Runs::Epoch { .. } | Runs::Stops { .. })
    }

    /// There is something of it here: it names this boot, or it has not ended.
    pub fn counts(&self, me: &Holder) -> bool {
        self.runs() || self.is_mine(me)
    }

    /// There is nothing of it here, and nothing on its way.
    pub fn is_idle(&self, me: &Holder) -> bool {
        !self.is_mine(me) && self.unit.runs == Runs::Nothing && !self.is_preparing && !self.calls.is_busy
    }

    /// What it would resume from is to be written down now and then.
    pub fn is_written_down(&self) -> bool {
        self.lease.settings.as_ref().is_ok_and(|settings| settings.checkpoint_seconds > 0)
    }

    /// Its set has a start budget.
    pub fn asks(&self) -> bool {
        self.lease.settings.as_ref().is_ok_and(|settings| settings.asks_before_start)
    }

    /// It does its work.
    pub fn works(&self) -> bool {
        matches!(self.unit.runs, Runs::Epoch { .. }) && self.run.as_ref().is_some_and(|run| run.works)
    }

    /// How long it may take to stop.
    pub fn stop_timeout(&self) -> Duration {
        let settings = self.lease.settings.as_ref();
        settings.map_or(STOP_TIMEOUT, |settings| Duration::from_secs(settings.stop_timeout_seconds.into()))
    }

    /// How long it may take from its start until it works.
    pub fn start_timeout(&self) -> Duration {
        let settings = self.lease.settings.as_ref();
        settings.map_or(STOP_TIMEOUT, |settings| Duration::from_secs(settings.start_timeout_seconds.into()))
    }

    /// What it is told at its start.
    ///
    /// # Errors
    /// Its settings cannot be read.
    pub fn task(&self) -> Result<Environment, Trouble> {
        let lease = &self.lease;
        let settings = lease.settings.as_ref().map_err(|error| Trouble::new("SettingsUnreadable", error))?;
        Ok(Environment {
            set: lease.set.clone(),
            listener: lease.listener.clone(),
            config: serde_json::to_string(&settings.config).unwrap_or_default(),
            fence_token: format!("{}-{}", lease.set_uid, lease.ownership.resource_version),
            resume: lease.ownership.state.clone(),
            connect_timeout_seconds: settings.connect_timeout_seconds,
            use_proxy: settings.use_proxy,
            stop_timeout_seconds: settings.stop_timeout_seconds,
        })
    }

    /// It was started under the epoch of its Lease.
    pub fn started(&mut self, now: Boottime, works: bool) {
        let ownership = &self.lease.ownership;
        self.unit.runs = Runs::Epoch { epoch: ownership.epoch, config_hash: ownership.config_hash.clone() };
        self.unit.ran_with = Some(ownership.config_hash.clone());
        self.glance_at = Some(now);
        self.unit.uninvited_since = None;
        self.run = Some(Run {
            began: now,
            works,
            works_by: now.after(self.start_timeout()),
            has_failed: false,
            complaint: None,
        });
        if works {
            self.trouble = None;
        }
        (self.is_preparing, self.complaint, self.checkpoint_at) = (false, None, now);
    }

    /// Its start has failed before anything ran: the epoch is spent.
    pub fn not_started(&mut self, now: Boottime, trouble: Trouble) {
        self.unit.tombstone = self.unit.tombstone.max(self.lease.ownership.epoch);
        self.unit.runs = Runs::Nothing;
        self.unit.ran_with = Some(self.lease.ownership.config_hash.clone());
        self.is_preparing = false;
        self.unit.rests_until = now.after(self.backoff.failed(Duration::ZERO));
        self.trouble = Some(trouble);
    }

    /// It does its work; said too late it changes nothing. What it complained of before is not why it ends later.
    pub fn said_that_it_works(&mut self) {
        if let Some(run) = self.run.as_mut().filter(|run| !run.has_failed) {
            (run.works, run.complaint) = (true, None);
            self.trouble = None;
        }
    }

    /// It would resume from here.
    pub fn said_where_to_resume(&mut self, json: String) {
        if let Runs::Epoch { epoch, .. } | Runs::Stops { epoch } = self.unit.runs {
            self.resume = Some((epoch, json));
        }
    }

    /// What a successor of the epoch that the Lease shows is to know: where to resume, and when this one had stopped. Of
    /// an epoch that never ran here, what its Lease says still holds.
    pub fn legacy(&self) -> (Option<&str>, Stopped) {
        let epoch = self.lease.ownership.epoch;
        let state = self.resume.as_ref().filter(|(of, _)| *of == epoch);
        let stopped = self.stopped.filter(|(of, _)| *of == epoch);
        (state.map(|(_, json)| json.as_str()), stopped.map_or(Stopped::Never, |(_, at)| Stopped::At(at)))
    }

    /// By when it must say that it works; None where that is not waited for: it has said so, or has been told to stop.
    pub fn works_by(&self) -> Option<Boottime> {
        let run = self.run.as_ref().filter(|run| !run.works)?;
        matches!(self.unit.runs, Runs::Epoch { .. }).then_some(run.works_by)
    }

    /// Its start takes too long. True, once: it is to be stopped.
    pub fn gives_up(&mut self, now: Boottime) -> bool {
        let Runs::Epoch { epoch, .. } = self.unit.runs else { return false };
        let Some(run) = self.run.as_mut().filter(|run| !run.works && now >= run.works_by) else { return false };
        run.has_failed = true;
        let seconds = now.since(run.began).as_secs();
        let late = || Trouble::new("StartTimeout", &format!("it did not say within {seconds} s that it works"));
        self.trouble = Some(run.complaint.as_deref().map_or_else(late, Trouble::of_complaint));
        self.unit.runs = Runs::Stops { epoch };
        true
    }

    /// Nothing of it is left.
    pub fn ended(&mut self, ended: Ended, now: Boottime, wall: Timestamp) {
        let (epoch, was_asked) = match self.unit.runs {
            Runs::Epoch { epoch, .. } => (epoch, false),
            Runs::Stops { epoch } => (epoch, true),
            Runs::Nothing | Runs::Prepared => {
                let complaint = self.complaint.take();
                let was_to_come = self.is_preparing || self.unit.runs == Runs::Prepared;
                if was_to_come && ended.cause != Cause::Deadline {
                    self.unit.rests_until = now.after(self.backoff.failed(Duration::ZERO));
                    self.trouble =
                        Some(complaint.as_deref().map_or_else(|| Trouble::of_end(ended), Trouble::of_complaint));
                }
                (self.unit.runs, self.is_preparing) = (Runs::Nothing, false);
                return;
            }
        };
        self.unit.runs = Runs::Nothing;
        self.unit.tombstone = self.unit.tombstone.max(epoch);
        self.stopped = Some((epoch, wall));
        let run = self.run.take();
        let ran_for = run.as_ref().map_or(Duration::ZERO, |run| now.since(run.began));
        let has_failed = run.as_ref().is_some_and(|run| run.has_failed);
        if has_failed || !was_asked && ended.cause != Cause::Deadline {
            self.unit.rests_until = now.after(self.backoff.failed(ran_for));
            if !has_failed {
                let complaint = run.and_then(|run| run.complaint);
                self.trouble = Some(complaint.as_deref().map_or_else(|| Trouble::of_end(ended), Trouble::of_complaint));
            }
        } else {
            self.backoff.runs_for(ran_for);
        }
    }

    /// What is to be written down now, of what it would resume from; when to ask again.
    pub fn checkpoint(&self, now: Boottime) -> (Option<String>, Option<Boottime>) {
        let none = (None, None);
        let Ok(settings) = &self.lease.settings else { return none };
        let Runs::Epoch { epoch, .. } = self.unit.runs else { return none };
        let Some((of, state)) = self.resume.as_ref().filter(|_| settings.checkpoint_seconds > 0) else { return none };
        if *of != epoch || self.lease.ownership.epoch != epoch || self.lease.ownership.state.as_ref() == Some(state) {
            return none;
        }
        let next = self.checkpoint_at.after(Duration::from_secs(settings.checkpoint_seconds.into()));
        if now < next { (None, Some(next)) } else { (Some(state.clone()), None) }
    }

    /// What a report says of it beyond whether it runs.
    pub fn report(&self, letter: Option<&Letter>, me: &Holder, now: Boottime) -> Option<UnitReport> {
        let failures = self.backoff.failures();
        let waits = || {
            let may_ask = self.is_mine(me) && self.asks() && now >= self.unit.rests_until;
            may_ask && unit::waits(&self.unit, &self.lease.ownership)
        };
        let state = match self.unit.runs {
            Runs::Nothing | Runs::Prepared if waits() => UnitState::Waiting,
            Runs::Prepared => UnitState::Prepared,
            Runs::Stops { .. } => UnitState::Stopping,
            Runs::Epoch { .. } if self.works() => return None,
            Runs::Nothing if !self.is_mine(me) && (letter.is_none() || self.trouble.is_none()) => return None,
            Runs::Nothing if !self.is_mine(me) => UnitState::Failed,
            Runs::Nothing if self.trouble.is_some() && failures > 0 => UnitState::Failed,
            Runs::Epoch { .. } | Runs::Nothing => UnitState::Starting,
        };
        let epoch = match (state, letter) {
            (UnitState::Prepared | UnitState::Failed, Some(Letter { epoch, order: Order::Incoming })) => *epoch,
            _ => self.lease.ownership.epoch,
        };
        let trouble = self.trouble.clone().unwrap_or(Trouble { reason: String::new(), message: String::new() });
        Some(UnitReport { epoch, state, reason: trouble.reason, message: trouble.message, failures })
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
