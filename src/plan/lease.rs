//! The controller lock: who may take it, and when. One operator works at a time.
//!
//! Expiry is judged by how long *we* have seen no change of the lock; clocks of two machines are never compared. Where the
//! death of the holder is proven a candidate does not wait for expiry:
//! - a holder of our own Pod's uid under another boot is our dead predecessor, if we hold the Pod's exclusive file lock;
//! - a holder whose container the kubelet reports as terminated, at a time that includes the lock's acquisition, is dead.
use std::{fmt, time::Duration};

use jiff::Timestamp;

use crate::snapshot::ContainerEnd;

/// How long a lock lives after its last renewal, as others see it.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// When a holder that cannot renew gives up: well before others may take the lock.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between renewals, and between looks of a standby.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Who holds the lock: `<pod>/<uid>/<boot>`; outside a Pod `<host>//<boot>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the Pod, or of the machine.
    pub pod: String,
    /// uid of the Pod; empty outside a Pod.
    pub uid: String,
    /// Random, new at each start of the process.
    pub boot: String,
}

impl Identity {
    /// Reads an identity of ours. None for one that is not.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let identity = Self { pod: parts.next()?, uid: parts.next()?, boot: parts.next()? };
        parts.next().is_none().then_some(identity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pod, self.uid, self.boot)
    }
}

/// The lock as last read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// holderIdentity; None when it was released.
    pub holder: Option<String>,
    /// When the holder took it, by the holder's clock.
    pub acquired_at: Option<Timestamp>,
    /// When the holder renewed it last, by the holder's clock: compared with itself only.
    pub renewed_at: Option<Timestamp>,
    /// How often it changed hands.
    pub transitions: i32,
    /// leaseDurationSeconds.
    pub duration_seconds: Option<i32>,
}

impl Lock {
    /// Whether `later` shows a sign of life since `self`.
    pub fn shows_life(&self, later: &Self) -> bool {
        (&self.holder, self.renewed_at, self.transitions) != (&later.holder, later.renewed_at, later.transitions)
    }
}

/// The Pod that the lock's holder names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HolderPod {
    /// Its uid.
    pub uid: String,
    /// Ends of the operator's container in it, as the kubelet reports them (state and lastState).
    pub ends: Vec<ContainerEnd>,
}

/// What a candidate knows.
#[derive(Clone, Copy, Debug)]
pub struct Candidacy<'a> {
    /// The lock. None: there is no such Lease.
    pub lock: Option<&'a Lock>,
    /// Us.
    pub me: &'a Identity,
    /// How long we have seen the lock without a sign of life.
    pub unchanged_for: Duration,
    /// We hold the exclusive file lock of our Pod, so no other process of it is alive.
    pub alone_in_pod: bool,
    /// The Pod that the holder names, as last reported.
    pub holder_pod: Option<&'a HolderPod>,
}

/// What a candidate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Create the Lease with us as holder.
    Create,
    /// Write us as holder, by compare-and-swap.
    Take(Why),
    /// It is ours already: a write of ours whose answer was lost.
    Ours,
    /// Look again after this time at the latest.
    Wait(Duration),
}

/// Why the lock may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is free.
    Released,
    /// No sign of life for its duration.
    Expired,
    /// The holder was an earlier process of our own Pod.
    OwnPredecessor,
    /// The kubelet reports the end of the holder's container.
    DeathCertificate,
}

impl Why {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::OwnPredecessor => "own predecessor is dead",
            Self::DeathCertificate => "holder is dead",
        }
    }
}

/// What to do now. Pure and total.
pub fn decide(candidacy: &Candidacy<'_>) -> Decision {
    let Some(lock) = candidacy.lock else { return Decision::Create };
    let Some(text) = lock.holder.as_deref().filter(|holder| !holder.is_empty()) else {
        return Decision::Take(Why::Released);
    };
    if let Some(holder) = Identity::parse(text) {
        if holder == *candidacy.me {
            return Decision::Ours;
        }
        if !holder.uid.is_empty() && holder.uid == candidacy.me.uid && candidacy.alone_in_pod {
            return Decision::Take(Why::OwnPredecessor);
        }
        if candidacy.holder_pod.is_some_and(|pod| certifies_death(pod, &holder, lock)) {
            return Decision::Take(Why::DeathCertificate);
        }
    }
    let duration = lock.duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = duration.map_or(LEASE_DURATION, Duration::from_secs).max(Duration::from_secs(1));
    if candidacy.unchanged_for >= duration {
        return Decision::Take(Why::Expired);
    }
    Decision::Wait(RETRY_PERIOD.min(duration.saturating_sub(candidacy.unchanged_for)))
}

/// The container that took the lock has ended.
fn certifies_death(pod: &HolderPod, holder: &Identity, lock: &Lock) -> bool {
    let Some(acquired_at) = lock.acquired_at else { return false };
    !holder.uid.is_empty() && pod.uid == holder.uid && pod.ends.iter().any(|end| covers(end, acquired_at))
}

/// Whether the container that ended is the one that wrote `acquired_at`, by its node's clock. The kubelet's times are whole
/// seconds, rounded down: in doubt this says no.
pub fn covers(end: &ContainerEnd, acquired_at: Timestamp) -> bool {
    end.container_id.as_ref().is_some_and(|id| !id.is_empty())
        && end.started_at.is_some_and(|started| started <= acquired_at)
        && end.finished_at.is_some_and(|finished| acquired_at <= finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(1_767_261_600 + second, 500_000_000).unwrap()
    }

    fn whole(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_261_600 + second).unwrap()
    }

    fn identity(text: &str) -> Identity {
        Identity::parse(text).unwrap()
    }

    fn lock(holder: &str) -> Lock {
        Lock {
            holder: Some(holder.into()),
            acquired_at: Some(at(100)),
            renewed_at: Some(at(200)),
            transitions: 3,
            duration_seconds: Some(15),
        }
    }

    fn pod(uid: &str, started: i64, finished: i64) -> HolderPod {
        let end = ContainerEnd {
            container_id: Some("containerd://1".into()),
            started_at: Some(whole(started)),
            finished_at: Some(whole(finished)),
        };
        HolderPod { uid: uid.into(), ends: vec![end] }
    }

    /// Decision of `me` about this lock after that many seconds of silence.
    fn decision(lock: &Lock, me: &str, silent: u64, holder_pod: Option<&HolderPod>) -> Decision {
        let me = identity(me);
        decide(&Candidacy {
            lock: Some(lock),
            me: &me,
            unchanged_for: Duration::from_secs(silent),
            alone_in_pod: true,
            holder_pod,
        })
    }

    #[test]
    fn identities_survive_the_wire() {
        for text in ["op-1/uid-1/boot", "laptop//boot"] {
            assert_eq!(identity(text).to_string(), text);
        }
        assert_eq!(Identity::parse("operator"), None);
        assert_eq!(Identity::parse("a/b/c/d"), None);
    }

    #[test]
    fn no_lease_is_created_and_a_released_one_taken() {
        let me = identity("a/1/x");
        let candidacy =
            Candidacy { lock: None, me: &me, unchanged_for: Duration::ZERO, alone_in_pod: false, holder_pod: None };
        assert_eq!(decide(&candidacy), Decision::Create);
        for holder in [None, Some(String::new())] {
            let released = Lock { holder, ..lock("b/2/y") };
            assert_eq!(decision(&released, "a/1/x", 0, None), Decision::Take(Why::Released));
        }
    }

    #[test]
    fn only_silence_seen_by_ourselves_expires_a_lock() {
        // Its times lie far in the past and in the future: they do not matter.
        for renewed_at in [Some(at(-1_000_000)), Some(at(1_000_000)), None] {
            let lock = Lock { renewed_at, ..lock("b/2/y") };
            assert_eq!(decision(&lock, "a/1/x", 0, None), Decision::Wait(RETRY_PERIOD));
            assert_eq!(decision(&lock, "a/1/x", 14, None), Decision::Wait(Duration::from_secs(1)));
            assert_eq!(decision(&lock, "a/1/x", 15, None), Decision::Take(Why::Expired));
        }
        assert_eq!(decision(&lock("unknown"), "a/1/x", 15, None), Decision::Take(Why::Expired));
    }

    #[test]
    fn a_lock_lives_as_long_as_its_holder_said() {
        let longer = Lock { duration_seconds: Some(60), ..lock("b/2/y") };
        assert_eq!(decision(&longer, "a/1/x", 59, None), Decision::Wait(Duration::from_secs(1)));
        let nonsense = Lock { duration_seconds: Some(-1), ..lock("b/2/y") };
        assert_eq!(decision(&nonsense, "a/1/x", 14, None), Decision::Wait(Duration::from_secs(1)));
    }

    #[test]
    fn any_of_holder_renewal_and_transitions_is_a_sign_of_life() {
        let before = lock("b/2/y");
        assert!(!before.shows_life(&before));
        assert!(!before.shows_life(&Lock { duration_seconds: Some(1), ..before.clone() }));
        assert!(before.shows_life(&Lock { renewed_at: Some(at(202)), ..before.clone() }));
        assert!(before.shows_life(&Lock { holder: Some("c/3/z".into()), ..before.clone() }));
        assert!(before.shows_life(&Lock { transitions: 4, ..before.clone() }));
    }

    #[test]
    fn my_own_dead_predecessor_is_not_waited_for() {
        let held = lock("a/1/earlier");
        assert_eq!(decision(&held, "a/1/x", 0, None), Decision::Take(Why::OwnPredecessor));
        // Without the file lock it may still be alive.
        let me = identity("a/1/x");
        let candidacy = Candidacy {
            lock: Some(&held),
            me: &me,
            unchanged_for: Duration::ZERO,
            alone_in_pod: false,
            holder_pod: None,
        };
        assert_eq!(decide(&candidacy), Decision::Wait(RETRY_PERIOD));
        // Outside a Pod nothing proves it.
        assert_eq!(decision(&lock("host//earlier"), "host//x", 0, None), Decision::Wait(RETRY_PERIOD));
        assert_eq!(decision(&lock("a/1/x"), "a/1/x", 0, None), Decision::Ours);
    }

    #[test]
    fn a_death_certificate_covers_the_time_of_acquisition() {
        let held = lock("b/2/y"); // acquired at 100.5
        let with = |pod: &HolderPod| decision(&held, "a/1/x", 0, Some(pod));
        assert_eq!(with(&pod("2", 90, 101)), Decision::Take(Why::DeathCertificate));
        assert_eq!(with(&pod("2", 100, 150)), Decision::Take(Why::DeathCertificate));
        let wait = Decision::Wait(RETRY_PERIOD);
        assert_eq!(with(&pod("2", 90, 100)), wait, "ended before, or within the second: an earlier boot");
        assert_eq!(with(&pod("2", 101, 150)), wait, "started after: a later boot");
        assert_eq!(with(&pod("3", 90, 150)), wait, "another Pod of that name");
        assert_eq!(with(&HolderPod { uid: "2".into(), ends: Vec::new() }), wait, "it runs");
        let mut unnamed = pod("2", 90, 150);
        unnamed.ends[0].container_id = None;
        assert_eq!(with(&unnamed), wait);
        let outside = lock("host//y");
        assert_eq!(decision(&outside, "a/1/x", 0, Some(&pod("", 90, 150))), wait);
        let unacquired = Lock { acquired_at: None, ..lock("b/2/y") };
        assert_eq!(decision(&unacquired, "a/1/x", 0, Some(&pod("2", 90, 150))), wait);
    }
}
