//! A session as it was seen over time: since when it shows no sign of life, and how long anybody may believe in it.
use std::{collections::BTreeSet, time::Duration};

use super::{read::SessionLease, touch::Touch};
use crate::{
    api::session::SessionProfile,
    snapshot::{index::ObjectKey, lease::Holder},
};

/// A session as seen over time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// None: it does not exist.
    pub lease: Option<SessionLease>,
    /// When its claim, its renewTime, or whether it exists, last changed.
    pub changed_at: Duration,
    /// When its claim, or whether it exists, last changed.
    pub claimed_at: Duration,
    /// When its Pod, or whether it exists, last changed.
    pub of_pod_since: Duration,
    /// The boot that was seen fenced last.
    pub fenced: Option<Holder>,
    /// The longest lease duration from the sign of life before the last one until the last one.
    duration_before: Duration,
    /// The same since the last one.
    duration_since: Duration,
    /// Until the last claim: who held it before may go by that for as long.
    duration_of_earlier: Duration,
}

/// As the Lease itself says, within what a profile can be; zero without one. The profile that it asks for counts, too: its
/// agent may have written it since, and no event have told of that.
fn duration_of(lease: Option<&SessionLease>) -> Duration {
    let asked = lease.and_then(|lease| lease.profile).map(|profile| profile.times().expire).unwrap_or_default();
    match lease.and_then(|lease| lease.session.as_ref()).map(|session| session.duration) {
        None => Duration::ZERO,
        Some(Duration::ZERO) => longest(),
        Some(duration) => duration.max(asked).clamp(SessionProfile::Fast.times().expire, longest()),
    }
}

impl Seen {
    /// A session that an ownership names and that does not exist. How long its agent may believe in it is not known.
    pub fn missing(now: Duration) -> Self {
        Self { duration_before: longest(), ..Self::new(None, now) }
    }

    pub fn new(lease: Option<SessionLease>, now: Duration) -> Self {
        let duration_since = duration_of(lease.as_ref());
        let (duration_before, duration_of_earlier) = (Duration::ZERO, Duration::ZERO);
        Self {
            changed_at: now,
            claimed_at: now,
            of_pod_since: now,
            fenced: fenced(lease.as_ref()),
            duration_before,
            duration_since,
            duration_of_earlier,
            lease,
        }
    }

    /// What it is once `lease` has been seen after it.
    pub fn followed_by(&self, lease: Option<SessionLease>, now: Duration) -> Self {
        let (before, after) = (self.lease.as_ref(), lease.as_ref());
        let claimed = claim_of(before) != claim_of(after);
        let renewed_at =
            |lease: Option<&SessionLease>| Some((lease?.session.as_ref()?.renewed_at, lease?.session.as_ref()?.boot));
        let lives = claimed || renewed_at(before) != renewed_at(after);
        let own = duration_of(after);
        let (duration_before, duration_since) = match before {
            Some(_) if lives && after.is_some() => (self.duration_since, own),
            _ => (self.duration_before, self.duration_since.max(own)),
        };
        Self {
            changed_at: if lives { now } else { self.changed_at },
            claimed_at: if claimed { now } else { self.claimed_at },
            of_pod_since: if pod_of(before) == pod_of(after) { self.of_pod_since } else { now },
            fenced: fenced(after).or_else(|| self.fenced.clone()),
            duration_before,
            duration_since,
            duration_of_earlier: if claimed { self.duration(now) } else { self.duration_of_earlier },
            lease,
        }
    }

    /// How long anybody may believe in it who has ever held it.
    pub fn duration(&self, now: Duration) -> Duration {
        let own = self.duration_before.max(self.duration_since);
        let own = if own.is_zero() { longest() } else { own };
        let is_earlier_over = now.saturating_sub(self.claimed_at) >= self.duration_of_earlier;
        if is_earlier_over { own } else { own.max(self.duration_of_earlier) }
    }

    /// Whom the way from `before` to this concerns. A renewal that says nothing else concerns no set: silence is looked for
    /// when it is due.
    pub fn touch(&self, before: Option<&Self>, pod: &ObjectKey, now: Duration, touch: &mut Touch) {
        let (old, new) = (before.and_then(|before| before.lease.as_ref()), self.lease.as_ref());
        if old == new {
            return;
        }
        let was_silent = before.is_some_and(|before| now.saturating_sub(before.changed_at) >= before.duration(now) / 2);
        if was_silent && self.changed_at == now || essence(old) != essence(new) {
            touch.sessions.insert(pod.clone());
        }
        let of_sets = |lease: Option<&SessionLease>| -> BTreeSet<String> {
            lease.into_iter().flat_map(|lease| lease.reports.keys().chain(lease.inboxes.keys())).cloned().collect()
        };
        for name in of_sets(old).union(&of_sets(new)) {
            let told = |lease: Option<&SessionLease>| {
                let text = |text: &String| text.clone();
                let report = lease.and_then(|lease| lease.reports.get(name)).map(|told| text(&told.text));
                (report, lease.and_then(|lease| lease.inboxes.get(name)).map(|told| text(&told.text)))
            };
            if told(old).0 != told(new).0 {
                touch.holders.insert(pod.clone());
            }
            if told(old) != told(new) {
                touch.sets.insert(ObjectKey { namespace: pod.namespace.clone(), name: name.clone() });
            }
        }
    }
}

/// What makes a claim another one: the Lease itself, its Pod, its holder.
fn claim_of(lease: Option<&SessionLease>) -> Option<impl PartialEq> {
    let lease = lease?;
    let session = lease.session.as_ref();
    Some((lease.uid.clone(), session.map(|session| (session.pod_uid.clone(), session.claim.clone()))))
}

/// The boot that it says is fenced.
fn fenced(lease: Option<&SessionLease>) -> Option<Holder> {
    lease?.session.as_ref()?.claim.fenced().cloned()
}

/// The Pod that it is of; None: it does not exist.
fn pod_of(lease: Option<&SessionLease>) -> Option<impl PartialEq> {
    Some(lease?.session.as_ref().map(|session| session.pod_uid.clone()))
}

/// What of it concerns every ListenerSet that its Pod serves.
fn essence(lease: Option<&SessionLease>) -> Option<impl PartialEq> {
    let lease = lease?;
    let session = lease.session.as_ref();
    let session = session.map(|session| {
        (session.pod_uid.clone(), session.claim.clone(), session.boot, session.acquired_at, session.duration)
    });
    Some((lease.uid.clone(), session, lease.profile, lease.info.clone()))
}

/// The longest that any agent may believe in its session.
fn longest() -> Duration {
    SessionProfile::Calm.times().expire
}
