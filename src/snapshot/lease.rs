//! The Leases of the hand-off as values: a Pod's session, and the ownership of a listener.
//!
//! A *session* belongs to one Pod and is renewed by its agent; an *ownership* belongs to one listener, names one boot of
//! one agent and is never renewed. Neither says anything by its age alone: how long a session has been silent is
//! measured by whoever looks, on a clock of his own ([`Watched`]).
use std::{fmt, time::Duration};

use jiff::Timestamp;

/// One boot of the agent of one Pod: `<pod>/<uid>/<boot>-<random>`.
///
/// Two values are the same process if and only if they are equal; `boot` alone orders those of one Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Name of the Pod.
    pub pod: String,
    /// uid of the Pod.
    pub uid: String,
    /// Counts up with each start of the agent in this Pod, from 1.
    pub boot: u32,
    /// Drawn at each start: a boot number is claimed by one process only, but asked for by any.
    pub random: String,
}

impl Holder {
    /// Reads a holderIdentity. None for one that no agent writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (pod, uid, start) = (parts.next()?, parts.next()?, parts.next()?);
        let (boot, random) = start.split_once('-')?;
        let boot = boot.parse().ok().filter(|boot| *boot > 0)?;
        let is_whole = parts.next().is_none() && ![pod, uid, random].contains(&"");
        is_whole.then(|| Self { pod: pod.to_owned(), uid: uid.to_owned(), boot, random: random.to_owned() })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}-{}", self.pod, self.uid, self.boot, self.random)
    }
}

/// What a session's holderIdentity says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Nobody: the controller has made it for an agent that has yet to start.
    Empty,
    /// This boot may hold listeners, as long as it renews.
    Held(Holder),
    /// This boot may hold nothing any more, whatever it believes: `fenced:<identity>`.
    Fenced(Holder),
    /// Nothing that we write. Nobody may conclude anything from it.
    Foreign,
}

/// Before the identity in the holderIdentity of a fenced session.
const FENCED: &str = "fenced:";

impl Claim {
    /// Reads a holderIdentity.
    pub fn parse(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            return Self::Empty;
        }
        let (identity, claim): (_, fn(Holder) -> Self) = match text.strip_prefix(FENCED) {
            Some(identity) => (identity, Self::Fenced),
            None => (text, Self::Held),
        };
        Holder::parse(identity).map_or(Self::Foreign, claim)
    }

    /// As it is written; None for nobody.
    pub fn to_identity(&self) -> Option<String> {
        match self {
            Self::Empty | Self::Foreign => None,
            Self::Held(holder) => Some(holder.to_string()),
            Self::Fenced(holder) => Some(format!("{FENCED}{holder}")),
        }
    }

    /// Whom it names.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held(holder) | Self::Fenced(holder) => Some(holder),
            Self::Empty | Self::Foreign => None,
        }
    }
}

/// A Pod's session Lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// uid of the Pod that owns it.
    pub pod_uid: String,
    /// holderIdentity.
    pub claim: Claim,
    /// leaseTransitions: the highest boot that has ever claimed it.
    pub boot: u32,
    /// renewTime, by the agent's clock: compared with itself only.
    pub renewed_at: Option<Timestamp>,
    /// acquireTime of the present boot, by the agent's clock: compared with what its own kubelet reports.
    pub acquired_at: Option<Timestamp>,
    /// leaseDurationSeconds: how long others wait for a silent one.
    pub duration: Duration,
    /// What a write of it is conditioned on.
    pub resource_version: String,
}

/// What one observer has seen of a session over time. Its durations are of the observer's own clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// As last seen; None: it does not exist.
    pub session: Option<Session>,
    /// How long nothing of it has changed: neither its claim nor its renewTime nor whether it exists.
    pub silent_for: Duration,
    /// The longest lease duration of the last two versions seen: a shorter one may not have reached the agent yet.
    pub duration: Duration,
}

/// A listener's ownership Lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Ownership {
    /// holderIdentity; None: nobody's.
    pub holder: Option<Holder>,
    /// leaseTransitions: grows with every write that names a holder, and never goes back. Each start has its own.
    pub epoch: u32,
    /// uid of the Lease: with it in a write, a deleted one is not made again.
    pub uid: String,
    /// What a write of it is conditioned on.
    pub resource_version: String,
    /// The resume token that the last owner left, as JSON.
    pub state: Option<String>,
    /// Hash of the configuration that the next start is to have.
    pub config_hash: String,
}

/// One entry of a session's inbox: what the controller suggests to its agent. Nothing rests on it: an entry that is old,
/// or made up, causes an unneeded move at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The epoch that it is about; of any other it says nothing.
    pub epoch: u32,
    /// What to do.
    pub order: Order,
}

/// What a [`Letter`] suggests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The listener will come: connect, but consume nothing.
    Incoming,
    /// Stop it, and give it to this boot; None: to nobody.
    Release(Option<Holder>),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holder() -> impl Strategy<Value = Holder> {
        ("[a-z][a-z0-9-]{0,8}", "[0-9a-f-]{1,9}", 1..u32::MAX, "[a-z0-9]{1,5}")
            .prop_map(|(pod, uid, boot, random)| Holder { pod, uid, boot, random })
    }

    proptest! {
        #[test]
        fn claims_survive_the_wire(holder in holder()) {
            for claim in [Claim::Empty, Claim::Held(holder.clone()), Claim::Fenced(holder.clone())] {
                prop_assert_eq!(Claim::parse(claim.to_identity().as_deref()), claim);
            }
        }

        #[test]
        fn nothing_is_read_into_what_nobody_of_ours_wrote(text in ".{0,40}") {
            if let Some(holder) = Holder::parse(&text) {
                prop_assert_eq!(holder.to_string(), text);
            }
        }
    }

    #[test]
    fn half_an_identity_is_none() {
        for text in [
            "",
            "pod",
            "pod/uid",
            "pod/uid/1",
            "pod/uid/0-a",
            "pod/uid/x-a",
            "/uid/1-a",
            "pod//1-a",
            "pod/uid/1-",
            "a/b/1-c/d",
        ] {
            assert_eq!(Holder::parse(text), None, "{text}");
        }
        assert_eq!(Claim::parse(Some("somebody")), Claim::Foreign);
        assert_eq!(Claim::parse(Some("fenced:")), Claim::Foreign);
    }
}
