//! The session of this Pod: claimed once by each boot of the agent, then renewed until it is lost.
//!
//! Renewals have a client of their own, so that nothing of ours delays them. A deadline counts from before the last
//! acknowledged one was sent ([`Pace`]). What one answer, or the watch, shows of the Lease is passed on at once: the inbox,
//! another profile, the end.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    api::{CallError, Connect, Leases},
    leases::{self, Renewal, SessionLease},
    pace::{Deadlines, IN_FLIGHT_MAX, Pace},
};
use crate::{
    agent::{
        boottime::{Boottime, Reading, may_have_stood_still},
        clocks::Clocks,
    },
    api::names,
    plan::listener_set::session::{self, Standing},
    snapshot::{
        index::{Event, is_older},
        lease::{Holder, Letter},
        report::AgentInfo,
    },
};

mod claim;

use self::claim::CLAIM_TIMEOUT;
pub use self::claim::Claimant;

/// Reports that change within this time are sent as one.
const COALESCE: Duration = Duration::from_millis(20);
/// Between two looks at the clocks. Nothing else needs the agent's time while nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// Agents that failed together try again over so long a time.
const JITTER_MAX: Duration = Duration::from_millis(250);

/// What the agent tells on its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// Of itself.
    pub info: AgentInfo,
    /// Of each ListenerSet, by its name: JSON.
    pub reports: BTreeMap<String, String>,
}

impl Outbox {
    fn annotations(&self) -> BTreeMap<String, String> {
        let info = serde_json::to_string(&self.info).unwrap_or_default();
        let mut annotations = BTreeMap::from([(names::ANNOTATION_AGENT.to_owned(), info)]);
        annotations.extend(self.reports.iter().map(|(set, json)| (names::report_annotation(set), json.clone())));
        annotations
    }
}

/// What a session tells the rest of the agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Until when something may run.
    pub deadlines: Deadlines,
    /// R.
    pub period: Duration,
    /// From when on others may take this session for dead: D after the last acknowledged renewal was sent.
    pub silent_from: Boottime,
    /// What the controller suggests, by ListenerSet and listener.
    pub inbox: Arc<BTreeMap<String, BTreeMap<String, Letter>>>,
    /// Why nothing may run any more, ever.
    pub over: Option<String>,
}

impl Told {
    /// Others may take this session for dead by now.
    pub fn is_silent(&self, now: Boottime) -> bool {
        self.silent_from > Boottime::default() && now >= self.silent_from
    }
}

/// A session that is ours.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Renewals {
    connect: Connect,
    namespace: String,
    leases: Leases,
    name: String,
    me: Holder,
    seen: SessionLease,
    pace: Pace,
    /// Annotations as last acknowledged.
    said: BTreeMap<String, String>,
    clocks: Clocks,
    /// What they said when the renewal was sent that was last acknowledged, or when they were last found to have jumped.
    looked_at: Reading,
    /// How long the machine may have stood still, since this boot began.
    stood_still: Duration,
    /// When the last renewal was sent.
    last_sent: Boottime,
    /// After a failure the next renewal waits so much longer: agents that failed together do not come back together.
    jitter: Duration,
    /// The last answer was a 401, and the token was read anew.
    has_reconnected: bool,
    /// The last call got no answer at all: after another one the connection is given up.
    is_doubtful: bool,
    /// Another connection was made because two calls hung, and none was answered since.
    has_overtaken: bool,
    /// The last renewal was refused though the session is ours: the next one says nothing but that this boot lives.
    is_bare: bool,
    told: watch::Sender<Told>,
    silent_from: Boottime,
    /// Who held the session before.
    predecessor: Option<Holder>,
}

/// A part of [`JITTER_MAX`], by the random part of a boot's name: 8 hexadecimal digits.
fn jitter(random: &str) -> Duration {
    let digits = random.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    JITTER_MAX * u32::from(digits.unwrap_or_default()) / 255
}

/// An answer.
struct Answer {
    sent: Reading,
    /// [`Renewals::stood_still`] when it was sent.
    stood_still: Duration,
    kind: Kind,
}

enum Kind {
    Renewed(Result<Lease, CallError>, BTreeMap<String, String>),
    Read(Result<Option<Lease>, CallError>),
}

impl Renewals {
    /// Who we are.
    pub fn me(&self) -> &Holder {
        &self.me
    }

    /// The boot that held this session before, of which nothing runs any more.
    pub fn predecessor(&self) -> Option<&Holder> {
        self.predecessor.as_ref()
    }

    /// What the session tells, from now on.
    pub fn subscribe(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    async fn claim(&mut self, first: &Outbox, began: Reading) -> Result<(), CallError> {
        let annotations = first.annotations();
        let agent = annotations.get(names::ANNOTATION_AGENT).map_or("", String::as_str);
        let sent_at = self.clocks.boottime();
        // By the clock as this process has found it: one that was set back since would put the claim into the life of an
        // earlier container, whose end would then prove ours.
        let acquired_at = SignedDuration::try_from(began.wall_at(sent_at)).map(Timestamp::from_duration);
        let now = self.clocks.timestamp();
        let patch = leases::claim(
            &self.seen,
            &self.me,
            self.pace.wanted(),
            agent,
            (acquired_at.ok().and_then(Result::ok).unwrap_or(now), now),
        );
        let lease = self.leases.merge(&self.name, &patch, CLAIM_TIMEOUT).await?;
        self.said = BTreeMap::from([(names::ANNOTATION_AGENT.to_owned(), agent.to_owned())]);
        self.acknowledged(sent_at, &lease);
        tracing::info!(lease = self.name, identity = %self.me, "claimed the session");
        Ok(())
    }

    /// Renews until the session is lost; returns why.
    ///
    /// # Errors
    /// There is no timer.
    pub async fn keep(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event<Lease>>,
        mut outbox: watch::Receiver<Outbox>,
    ) -> anyhow::Result<()> {
        let mut alarm = self.clocks.alarm()?;
        let mut flight = JoinSet::new();
        // A claim found as ours has not been renewed yet.
        let is_fresh = self.pace.deadlines() != Deadlines::default();
        let mut due = if is_fresh { self.pace.next(self.clocks.boottime(), false) } else { self.clocks.boottime() };
        loop {
            let over = self.told.borrow().over.is_some();
            if over {
                return Ok(());
            }
            let now = self.clocks.boottime();
            let overlaps_at = self.last_sent.after(self.pace.period());
            if now >= due && (flight.is_empty() || now >= overlaps_at && self.may_overlap(&flight)) {
                // The connections that are kept may all be dead, and the calls that hang on them do not say so in time.
                if flight.len() > 1 && !std::mem::replace(&mut self.has_overtaken, true) {
                    self.reconnect();
                }
                self.renew(&mut flight, &outbox.borrow_and_update());
            }
            let wake = match flight.is_empty() {
                true => due,
                false if overlaps_at > now => overlaps_at,
                false => now.after(LOOK),
            };
            let hurry = tokio::select! {
                biased;
                answer = flight.join_next(), if !flight.is_empty() => {
                    let answer = answer.context("no call")?.context("a call has panicked")?;
                    let is_acknowledged = matches!(answer.kind, Kind::Renewed(Ok(_), _));
                    due = self.take(answer, &mut flight);
                    // What has changed meanwhile. After a failure it waits for the next try.
                    is_acknowledged && self.news(&outbox.borrow()).next().is_some()
                }
                event = events.recv() => self.hear(event.context("the watch on the session has ended")?),
                changed = outbox.changed() => {
                    changed.context("the agent has ended")?;
                    true
                }
                rung = alarm.at(wake.min(now.after(LOOK))) => {
                    rung.context("no timer")?;
                    false
                }
            };
            if hurry {
                due = due.min(self.clocks.boottime().after(COALESCE));
            }
            if self.look_at_the_clocks() {
                due = self.clocks.boottime();
            }
        }
    }

    /// Whether another renewal may follow those that have no answer yet. Not while D is to change: the answer says which D
    /// holds, so it must be the last.
    fn may_overlap(&self, flight: &JoinSet<Answer>) -> bool {
        flight.len() < IN_FLIGHT_MAX as usize && !self.changes_duration()
    }

    fn changes_duration(&self) -> bool {
        self.seen.session.duration != self.pace.wanted().times().expire
    }

    fn renew(&mut self, flight: &mut JoinSet<Answer>, outbox: &Outbox) {
        let is_other = self.changes_duration();
        let renewal = Renewal {
            annotations: if self.is_bare { BTreeMap::new() } else { self.missing(outbox).collect() },
            is_first: !self.seen.has_annotations,
            duration: is_other.then(|| (self.pace.wanted(), self.seen.session.renewed_at)),
        };
        let patch = leases::renew(&self.me, &renewal, self.clocks.timestamp());
        let timeout = if is_other { self.pace.timeout() } else { self.pace.patience() };
        let (leases, name) = (self.leases.clone(), self.name.clone());
        let (sent, stood_still) = (self.clocks.reading(), self.stood_still);
        let sent_at = sent.boot;
        self.last_sent = sent_at;
        if renewal.duration.is_some() {
            self.pace.sends(sent_at);
            self.publish(); // before anybody else can read it
        }
        flight.spawn(async move {
            let answer = leases.json(&name, patch, timeout).await;
            Answer { sent, stood_still, kind: Kind::Renewed(answer, renewal.annotations) }
        });
    }

    /// Of these, those that were not acknowledged yet: reasons to hurry.
    fn news(&self, outbox: &Outbox) -> impl Iterator<Item = (String, String)> {
        self.missing(outbox).filter(|(name, text)| self.said.get(name) != Some(text))
    }

    /// Annotations that the Lease does not show: news, and what a renewal that was long on its way has overwritten.
    fn missing(&self, outbox: &Outbox) -> impl Iterator<Item = (String, String)> {
        outbox.annotations().into_iter().filter(|(name, text)| self.seen.said.get(name) != Some(text))
    }

    fn read(&self, flight: &mut JoinSet<Answer>) {
        let (leases, name, timeout) = (self.leases.clone(), self.name.clone(), self.pace.timeout());
        let (sent, stood_still) = (self.clocks.reading(), self.stood_still);
        flight.spawn(async move { Answer { sent, stood_still, kind: Kind::Read(leases.get(&name, timeout).await) } });
    }

    /// Takes an answer in, which counts whenever it arrives before S; when the next renewal is due.
    fn take(&mut self, Answer { sent, stood_still, kind }: Answer, flight: &mut JoinSet<Answer>) -> Boottime {
        // Before it counts: it may be from before the machine stood still.
        self.look_at_the_clocks();
        match kind {
            Kind::Renewed(Ok(lease), annotations) => {
                (self.has_reconnected, self.is_doubtful) = (false, false);
                (self.has_overtaken, self.is_bare) = (false, false);
                self.said.extend(annotations);
                self.acknowledged(sent.boot.before(self.stood_still.saturating_sub(stood_still)), &lease);
                // What the clocks have done since counts as one: several short pauses are a long one.
                if sent.boot > self.looked_at.boot {
                    self.looked_at = sent;
                }
                self.pace.next(self.last_sent, false)
            }
            Kind::Renewed(Err(error), _) if error.asks_for_a_look() => {
                tracing::warn!(lease = self.name, error = error.message(), "the session was not renewed, looking why");
                self.read(flight);
                self.next_try()
            }
            Kind::Read(Ok(lease)) => {
                let seen = lease.as_ref().and_then(SessionLease::read).filter(|seen| seen.uid == self.seen.uid);
                match seen {
                    Some(seen) if !session::is_over(Some(&seen.session), &self.me) => {
                        // A policy may refuse what it says: it must not lose its session for that.
                        self.is_bare = true;
                        self.show(seen);
                    }
                    seen => self.lose(seen.as_ref()),
                }
                self.next_try()
            }
            Kind::Renewed(Err(error), _) | Kind::Read(Err(error)) => {
                let is_unauthorized = error.code() == 401;
                tracing::warn!(lease = self.name, error = error.message(), "could not renew the session");
                // An answer, such as 429 or 503, shows that the connection is good; another one would be more work for a
                // server that has too much.
                let is_silent = error.code() == 0 && std::mem::replace(&mut self.is_doubtful, true);
                if is_unauthorized || is_silent {
                    self.reconnect();
                }
                // Its token has been read anew: once more, at once.
                if is_unauthorized && !std::mem::replace(&mut self.has_reconnected, true) {
                    return self.clocks.boottime();
                }
                self.next_try()
            }
        }
    }

    /// When to renew after a failure.
    fn next_try(&self) -> Boottime {
        self.pace.next(self.last_sent, true).after(self.jitter)
    }

    fn reconnect(&mut self) {
        self.is_doubtful = false;
        match (self.connect)() {
            Ok(client) => self.leases = Leases::new(client, &self.namespace),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "cannot make another connection"),
        }
    }

    fn acknowledged(&mut self, sent_at: Boottime, lease: &Lease) {
        let Some(seen) = SessionLease::read(lease) else { return };
        self.pace.acknowledged(sent_at, seen.session.duration);
        self.silent_from = self.silent_from.max(sent_at.after(self.pace.expire()));
        self.show(seen);
    }

    /// Takes in what the watch tells. True: there is a reason to renew.
    fn hear(&mut self, event: Event<Lease>) -> bool {
        let known = self.seen.session.resource_version.clone();
        let version_of = |lease: &Lease| lease.metadata.resource_version.clone().unwrap_or_default();
        let (lease, version) = match event {
            Event::Progressed(_) => return false,
            Event::Applied(lease) => (Some(lease.clone()), version_of(&lease)),
            Event::Deleted(lease) => (None, version_of(&lease)),
            Event::Listed { objects, resource_version } => (objects.into_iter().next(), resource_version),
        };
        if is_older(&version, &known) {
            return false;
        }
        let seen = lease.as_ref().and_then(SessionLease::read).filter(|seen| seen.uid == self.seen.uid);
        match session::standing(seen.as_ref().map(|seen| &seen.session), &self.me) {
            Standing::Holds => {
                let wanted = self.pace.wanted();
                if let Some(seen) = seen {
                    self.show(seen);
                }
                self.pace.wanted() != wanted
            }
            // A renewal will tell.
            Standing::Outdated => true,
            Standing::Lost => {
                self.lose(seen.as_ref());
                false
            }
        }
    }

    /// This is the session now.
    fn show(&mut self, seen: SessionLease) {
        if is_older(&seen.session.resource_version, &self.seen.session.resource_version) {
            return;
        }
        if let Some(profile) = seen.profile.filter(|profile| *profile != self.pace.wanted()) {
            tracing::info!(?profile, "another session profile is asked for");
            self.pace.wish(profile);
        }
        self.seen = seen;
        self.publish();
    }

    fn lose(&mut self, seen: Option<&SessionLease>) {
        let why = match seen {
            Some(seen) => {
                format!("it is {} now", seen.session.claim.to_identity().unwrap_or_else(|| "unowned".into()))
            }
            None => "it was deleted, or lost its label".to_owned(),
        };
        tracing::error!(lease = self.name, identity = %self.me, why, "lost the session: everything stops");
        self.pace.void();
        self.told.send_modify(|told| {
            told.deadlines = Deadlines::default();
            told.over = Some(why);
        });
    }

    /// True: the machine may have stood still, so deadlines have come forward.
    fn look_at_the_clocks(&mut self) -> bool {
        let now = self.clocks.reading();
        let pause = may_have_stood_still(self.looked_at, now);
        if pause <= self.pace.tolerance() {
            return false;
        }
        self.looked_at = now;
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            millis,
            "the wall clock has gone ahead: the machine may have stood still, so deadlines come that much earlier"
        );
        self.stood_still = self.stood_still.saturating_add(pause);
        self.pace.stood_still(pause);
        self.silent_from = self.silent_from.before(pause);
        self.publish();
        true
    }

    fn publish(&mut self) {
        let (deadlines, period, inbox) = (self.pace.deadlines(), self.pace.period(), &self.seen.inbox);
        self.told.send_if_modified(|told| {
            let is_same = told.deadlines == deadlines && told.period == period && *told.inbox == *inbox;
            if told.over.is_some() || is_same {
                return false;
            }
            if *told.inbox != *inbox {
                told.inbox = Arc::new(inbox.clone());
            }
            (told.deadlines, told.period, told.silent_from) = (deadlines, period, self.silent_from);
            true
        });
    }
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
