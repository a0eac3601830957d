//! The session of a Pod: when its agent may run listeners, and when others may say that it may not.
use std::time::Duration;

use crate::{
    api::session::{SessionProfile, SessionTimes},
    plan::listener_set::death::{self, Process, Proof},
    snapshot::lease::{Claim, Holder, Session, Watched},
};

/// A reading of CLOCK_BOOTTIME, which also counts while the machine sleeps: time since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boottime(pub Duration);

impl Boottime {
    /// Nanoseconds since boot.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// Nanoseconds since boot; the largest number for what is beyond it.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Later by so much; stays within what can be told.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// Earlier by so much; not before the machine was started.
    #[must_use]
    pub fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(wait))
    }

    /// Time since `earlier`; zero when that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Until when a boot may run listeners whose renewal, sent at `sent_at`, was acknowledged. It counts from before the send:
/// the renewal may have been committed at any time since, and others wait from then on.
pub fn deadline(sent_at: Boottime, stop_after: Duration) -> Boottime {
    sent_at.after(stop_after)
}

/// What a session that was read says to the boot that believes to hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds it.
    Holds,
    /// This view is older than its claim, and says nothing.
    Outdated,
    /// Fenced, claimed by a later boot, gone, or another Pod's: everything stops, for good.
    Lost,
}

/// Where `me` stands by this view of its session; None: it does not exist.
pub fn standing(session: Option<&Session>, me: &Holder) -> Standing {
    match session {
        Some(session) if session.pod_uid != me.uid => Standing::Lost,
        Some(session) if session.boot < me.boot => Standing::Outdated,
        Some(session) if session.claim == Claim::Held(me.clone()) => Standing::Holds,
        _ => Standing::Lost,
    }
}

/// Whether all is over for `me`, whose renewal was refused, by a read that began after that. Such a read is not older than
/// the claim: a lower boot means that the session was deleted and made again.
pub fn is_over(session: Option<&Session>, me: &Holder) -> bool {
    standing(session, me) != Standing::Holds
}

/// What a starting agent does about its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Claim it as this boot, conditioned on the holderIdentity that was read.
    Claim {
        /// leaseTransitions to write.
        boot: u32,
    },
    /// It is ours already: a claim whose answer was lost.
    Ours,
    /// Look again later: the session is an earlier Pod's, or something of the boot before may still run.
    Wait,
}

/// How an agent that has just started comes by its session. `name` is the identity that it asks for, save its boot number.
/// `is_alone`: nothing that an earlier boot has started is left in the Pod.
pub fn start(session: &Session, name: &Holder, is_alone: bool) -> Start {
    if session.pod_uid != name.uid {
        return Start::Wait;
    }
    match &session.claim {
        Claim::Held(held) if held.uid == name.uid && held.random == name.random => Start::Ours,
        // The process of this Pod that wrote it, if one did, is gone.
        _ if is_alone => Start::Claim { boot: session.boot + 1 },
        _ => Start::Wait,
    }
}

/// Why a session is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing has come from it for D.
    Silent,
    /// Its process has ended.
    Dead,
}

impl Fence {
    /// Label of metrics.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Silent => "Silent",
            Self::Dead => "Dead",
        }
    }
}

/// Whether the session that was watched may be fenced now. The write is a compare-and-swap on the version that was
/// watched: a renewal that comes in between makes it fail.
pub fn fence(watched: &Watched, process: Option<Process<'_>>) -> Option<Fence> {
    let Claim::Held(holder) = &watched.session.as_ref()?.claim else { return None };
    if death::proof(holder, watched, process) == Some(Proof::Terminated) {
        return Some(Fence::Dead);
    }
    (watched.silent_for >= watched.duration).then_some(Fence::Silent)
}

/// The times that an agent goes by whose Lease has this duration: of the slowest profile that fits.
pub(super) fn session_times(duration: Duration) -> SessionTimes {
    let profiles = [SessionProfile::Calm, SessionProfile::Default, SessionProfile::Fast].map(SessionProfile::times);
    profiles.into_iter().find(|times| times.expire <= duration).unwrap_or(SessionProfile::Fast.times())
}

/// Sessions and what kubelets say, for tests.
#[cfg(test)]
pub(crate) mod fixture {
    use jiff::Timestamp;

    use super::*;
    use crate::snapshot::ContainerEnd;

    pub fn at(second: i64) -> Timestamp {
        Timestamp::new(1_767_261_600 + second, 500_000_000).unwrap()
    }

    pub fn holder(pod: &str, boot: u32) -> Holder {
        Holder { pod: pod.into(), uid: format!("uid-{pod}"), boot, random: format!("r{boot}") }
    }

    /// Of Pod `a`, with the boot that it names as the highest, claimed at 100.5.
    pub fn session(claim: Claim) -> Session {
        Session {
            pod_uid: "uid-a".into(),
            boot: claim.holder().map_or(0, |holder| holder.boot),
            claim,
            renewed_at: Some(at(200)),
            acquired_at: Some(at(100)),
            duration: Duration::from_secs(15),
            resource_version: "7".into(),
        }
    }

    pub fn watched(session: Option<Session>, silent: u64) -> Watched {
        let silent_for = Duration::from_secs(silent);
        let (claimed_for, of_pod_for) = (silent_for, silent_for);
        let fenced = session.as_ref().and_then(|session| session.claim.fenced().cloned());
        Watched { session, silent_for, claimed_for, of_pod_for, fenced, duration: Duration::from_secs(15) }
    }

    /// A container that ran from the one second to the other.
    pub fn end(started: i64, finished: i64) -> ContainerEnd {
        let whole = |second: i64| Some(Timestamp::from_second(1_767_261_600 + second).unwrap());
        ContainerEnd {
            container_id: Some("containerd://1".into()),
            started_at: whole(started),
            finished_at: whole(finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::*, *};

    #[test]
    fn a_renewal_counts_from_before_it_was_sent() {
        let sent_at = Boottime(Duration::from_secs(100));
        assert_eq!(deadline(sent_at, Duration::from_secs(10)), Boottime(Duration::from_secs(110)));
        assert_eq!(deadline(sent_at, Duration::MAX), Boottime(Duration::MAX));
    }

    #[test]
    fn a_boot_stands_by_exactly_its_own_claim() {
        let me = holder("a", 2);
        let seen = |claim: Claim| standing(Some(&session(claim)), &me);
        assert_eq!(seen(Claim::Held(me.clone())), Standing::Holds);
        assert_eq!(seen(Claim::Fenced(me.clone())), Standing::Lost);
        assert_eq!(seen(Claim::Held(holder("a", 3))), Standing::Lost);
        assert_eq!(seen(Claim::Held(Holder { random: "other".into(), ..me.clone() })), Standing::Lost);
        // From before its claim: a fence of the boot before is no news.
        assert_eq!(seen(Claim::Fenced(holder("a", 1))), Standing::Outdated);
        assert_eq!(seen(Claim::Empty), Standing::Outdated);
        let is_over_by = |claim: Claim| is_over(Some(&session(claim)), &me);
        assert!(!is_over_by(Claim::Held(me.clone())));
        assert!(is_over_by(Claim::Fenced(me.clone())) && is_over_by(Claim::Empty) && is_over(None, &me));
        assert_eq!(standing(None, &me), Standing::Lost);
        let other = Session { pod_uid: "uid-heir".into(), ..session(Claim::Held(me.clone())) };
        assert_eq!(standing(Some(&other), &me), Standing::Lost);
    }

    #[test]
    fn an_agent_claims_only_what_nobody_of_its_pod_can_still_use() {
        let name = Holder { random: "new".into(), ..holder("a", 1) };
        let asked = |claim: Claim, is_alone| start(&session(claim), &name, is_alone);
        let claims = [Claim::Held(holder("a", 4)), Claim::Fenced(holder("a", 4)), Claim::Empty, Claim::Foreign];
        for (claim, boot) in claims.into_iter().zip([5, 5, 1, 1]) {
            assert_eq!(asked(claim.clone(), true), Start::Claim { boot });
            assert_eq!(
                asked(claim, false),
                Start::Wait,
                "a session that was made again says nothing of what still runs"
            );
        }
        assert_eq!(asked(Claim::Held(Holder { boot: 4, ..name.clone() }), false), Start::Ours);
        assert_eq!(asked(Claim::Fenced(Holder { boot: 4, ..name.clone() }), true), Start::Claim { boot: 5 });
        let earlier = Session { pod_uid: "uid-gone".into(), ..session(Claim::Empty) };
        assert_eq!(start(&earlier, &name, true), Start::Wait);
    }

    #[test]
    fn only_a_held_session_is_fenced_and_only_after_its_time() {
        let held = session(Claim::Held(holder("a", 1)));
        let agent = &[end(90, 150)];
        let dead = Some(Process { pod_uid: "uid-a", agent, applications: &[] });
        assert_eq!(fence(&watched(Some(held.clone()), 14), None), None);
        assert_eq!(fence(&watched(Some(held.clone()), 15), None), Some(Fence::Silent));
        assert_eq!(fence(&watched(Some(held), 0), dead), Some(Fence::Dead));
        for claim in [Claim::Empty, Claim::Foreign, Claim::Fenced(holder("a", 1))] {
            assert_eq!(fence(&watched(Some(session(claim)), 1_000), dead), None);
        }
        assert_eq!(fence(&watched(None, 1_000), dead), None);
    }
}
