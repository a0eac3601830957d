//! The Leases of the hand-off as values: a Pod's session, and the ownership of a listener.
//!
//! A *session* belongs to one Pod and is renewed by its agent; an *ownership* belongs to one listener, names one boot of
//! one agent and is never renewed. Neither says anything by its age alone: how long a session has been silent is
//! measured by each reader, on a clock of its own ([`Watched`]).
use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use serde::{Deserialize, Serialize};

use crate::api::{bounds::INBOX_MAX, names};

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
        let holder = Self { pod: pod.to_owned(), uid: uid.to_owned(), boot, random: random.to_owned() };
        // `+1` and `01` are numbers, too; but preconditions compare texts.
        (is_whole && holder.to_string() == text).then_some(holder)
    }

    /// An owner that is none of our Pods: it has no Pod, so its session is missing, and it is dead after D.
    fn unknown(identity: String) -> Self {
        Self { pod: identity, uid: String::new(), boot: 0, random: String::new() }
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
    /// Unclaimed: the controller has made it for an agent that has yet to start.
    Empty,
    /// This boot may hold listeners, as long as it renews.
    Held(Holder),
    /// This boot may hold nothing any more: `fenced:<identity>`.
    Fenced(Holder),
    /// Not what Baton writes. Nothing may be concluded from it.
    Foreign,
    /// The Lease is there and cannot be read: nothing follows from it, not even that the Pod's session is missing.
    Unreadable,
}

/// Before the identity in the holderIdentity of a fenced session.
const FENCED: &str = "fenced:";

impl Claim {
    /// The boot that may hold nothing any more, if it says so.
    pub fn fenced(&self) -> Option<&Holder> {
        match self {
            Self::Fenced(holder) => Some(holder),
            _ => None,
        }
    }

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

    /// As it is written; None if it is unclaimed.
    pub fn to_identity(&self) -> Option<String> {
        match self {
            Self::Empty | Self::Foreign | Self::Unreadable => None,
            Self::Held(holder) => Some(holder.to_string()),
            Self::Fenced(holder) => Some(format!("{FENCED}{holder}")),
        }
    }

    /// Whom it names.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held(holder) | Self::Fenced(holder) => Some(holder),
            Self::Empty | Self::Foreign | Self::Unreadable => None,
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

impl Session {
    /// Reads a session Lease. None for one that no Pod owns.
    pub fn read(lease: &Lease) -> Option<Self> {
        let pod = owners(lease).iter().find(|owner| is_pod(owner))?;
        let spec = lease.spec.clone().unwrap_or_default();
        Some(Self {
            pod_uid: pod.uid.clone(),
            claim: Claim::parse(spec.holder_identity.as_deref()),
            boot: transitions(&spec),
            renewed_at: spec.renew_time.map(|time| time.0),
            acquired_at: spec.acquire_time.map(|time| time.0),
            duration: Duration::from_secs(spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)),
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        })
    }
}

/// Owner references of a Lease.
pub fn owners(lease: &Lease) -> &[OwnerReference] {
    lease.metadata.owner_references.as_deref().unwrap_or_default()
}

/// The ListenerSet that controls an ownership Lease.
pub fn controlling_set(lease: &Lease) -> Option<&OwnerReference> {
    let is_ours = |owner: &OwnerReference| owner.api_version.split_once('/').is_some_and(|(of, _)| of == names::GROUP);
    let controller = owners(lease).iter().find(|owner| owner.controller == Some(true));
    controller.filter(|owner| owner.kind == "ListenerSet" && is_ours(owner))
}

/// Whether an owner of a Lease is a Pod.
pub fn is_pod(owner: &OwnerReference) -> bool {
    owner.api_version == "v1" && owner.kind == "Pod"
}

/// A Pod as an owner of a Lease: the Lease goes with the Pod; nothing keeps the Pod for it.
pub fn pod_owner(name: &str, uid: &str) -> OwnerReference {
    let (api_version, kind) = ("v1".to_owned(), "Pod".to_owned());
    OwnerReference { api_version, kind, name: name.to_owned(), uid: uid.to_owned(), ..OwnerReference::default() }
}

/// All that names the holder of an ownership Lease, and its epoch: a writer of one of these writes all, the controller
/// as the agents. Null removes what was there.
pub fn naming(holder: Option<&Holder>, epoch: u32) -> serde_json::Value {
    let identity = holder.map(ToString::to_string);
    serde_json::json!({
        "metadata": {"labels": {names::LABEL_HOLDER: identity.as_deref().map(names::holder_label)}},
        "spec": {"holderIdentity": identity, "leaseTransitions": epoch},
    })
}

/// How an ownership Lease names its holder, besides holderIdentity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// By label and owner references, as written with the right to write both.
    Fully,
    /// Its owner references name another, or none.
    ByLabel,
    /// Not even its label does: its agent does not see it.
    No,
}

impl Named {
    /// Reads a Lease that this holder owns.
    pub fn of(lease: &Lease, holder: Option<&Holder>) -> Self {
        let label = lease.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_HOLDER));
        if label != holder.map(|holder| names::holder_label(&holder.to_string())).as_ref() {
            return Self::No;
        }
        let pods = owners(lease).iter().filter(|owner| is_pod(owner)).map(|owner| owner.uid.as_str());
        if pods.eq(holder.map(|holder| holder.uid.as_str())) { Self::Fully } else { Self::ByLabel }
    }
}

/// leaseTransitions; 0 where there is none.
fn transitions(spec: &LeaseSpec) -> u32 {
    spec.lease_transitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

/// What one observer has seen of a session over time. Its durations are of the observer's own clock.
///
/// It must be no older than the ownership that it is judged with: who names a boot has seen its claim, so that a session
/// which does not show this claim has lost it. One watch on all Leases sees to that.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// As last seen; None: it does not exist.
    pub session: Option<Session>,
    /// How long nothing of it has changed: neither its claim nor its renewTime nor whether it exists.
    pub silent_for: Duration,
    /// How long it has been claimed, or fenced, or free as it is now, or has not existed: at least `silent_for`.
    pub claimed_for: Duration,
    /// How long it has been that of its Pod, whichever boot has claimed it, or has not existed: at least `claimed_for`.
    pub of_pod_for: Duration,
    /// The boot that was seen fenced last: it stays dead when its session goes with its Pod.
    pub fenced: Option<Holder>,
    /// The longest lease duration of the last two versions seen: a shorter one may not have reached the agent yet.
    pub duration: Duration,
}

/// A listener's ownership Lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Ownership {
    /// holderIdentity; None: it is unowned.
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

impl Ownership {
    /// Reads an ownership Lease of the ListenerSet with this uid. None for one that is another's, by any name.
    pub fn read(lease: &Lease, set_uid: &str) -> Option<Self> {
        owners(lease).iter().find(|owner| owner.controller == Some(true) && owner.uid == set_uid)?;
        Some(Self::of(lease))
    }

    /// The same of any Lease that has the label of one, whosever it is.
    pub fn of(lease: &Lease) -> Self {
        let metadata = &lease.metadata;
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name).cloned();
        let spec = lease.spec.clone().unwrap_or_default();
        let (epoch, identity) = (transitions(&spec), spec.holder_identity.filter(|identity| !identity.is_empty()));
        Self {
            holder: identity.map(|identity| Holder::parse(&identity).unwrap_or_else(|| Holder::unknown(identity))),
            epoch,
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            state: annotation(names::ANNOTATION_STATE),
            config_hash: annotation(names::ANNOTATION_CONFIG_HASH).unwrap_or_default(),
        }
    }
}

/// One entry of a session's inbox: what the controller suggests to its agent. Nothing rests on it: an entry that is old,
/// or made up, causes an unneeded move at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The epoch of the present owner. An order to release says nothing of any other.
    pub epoch: u32,
    /// What to do.
    pub order: Order,
}

/// What a [`Letter`] suggests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The listener will come: connect, but consume nothing.
    Incoming,
    /// Stop it, and give it to this boot; None: leave it unowned.
    Release(Option<Holder>),
}

/// A [`Letter`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    listener: String,
    epoch: u32,
    /// Absent: it is to come. Empty: it becomes unowned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release_to: Option<String>,
}

/// Reads an inbox, by listener. What cannot be read is left out: nothing rests on it.
pub fn read_inbox(text: &str) -> BTreeMap<String, Letter> {
    let lines: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let lines = lines.into_iter().take(INBOX_MAX).filter_map(|line| serde_json::from_value::<Line>(line).ok());
    let letters = lines.filter_map(|line| {
        let order = match line.release_to.as_deref() {
            None => Order::Incoming,
            Some("") => Order::Release(None),
            Some(identity) => Order::Release(Some(Holder::parse(identity)?)),
        };
        Some((line.listener, Letter { epoch: line.epoch, order }))
    });
    letters.collect()
}

/// Writes an inbox: the first [`INBOX_MAX`] of these, by name.
pub fn write_inbox(letters: &BTreeMap<String, Letter>) -> String {
    let line = |(listener, letter): (&String, &Letter)| Line {
        listener: listener.clone(),
        epoch: letter.epoch,
        release_to: match &letter.order {
            Order::Incoming => None,
            Order::Release(to) => Some(to.as_ref().map(ToString::to_string).unwrap_or_default()),
        },
    };
    let lines: Vec<Line> = letters.iter().take(INBOX_MAX).map(line).collect();
    serde_json::to_string(&lines).unwrap_or_default()
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

    fn lease(owner: &serde_json::Value, spec: &serde_json::Value) -> Lease {
        let annotations = serde_json::json!({"baton.dev/state": "{\"seq\":7}", "baton.dev/config-hash": "c1"});
        let metadata = serde_json::json!({
            "name": "x", "uid": "uid-lease", "resourceVersion": "9", "ownerReferences": [owner], "annotations": annotations
        });
        serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_session_is_the_pods_that_owns_it() {
        let spec = serde_json::json!({
            "holderIdentity": "a/uid-a/2-x", "leaseTransitions": 2, "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T10:00:00.500000Z", "renewTime": "2026-01-01T10:00:03.000000Z",
        });
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a"});
        let session = Session::read(&lease(&pod, &spec)).unwrap();
        assert_eq!((session.pod_uid.as_str(), session.boot, session.resource_version.as_str()), ("uid-a", 2, "9"));
        assert_eq!(session.claim, Claim::Held(Holder::parse("a/uid-a/2-x").unwrap()));
        assert_eq!(session.duration, Duration::from_secs(15));
        assert!(session.acquired_at < session.renewed_at);
        let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "uid-a"});
        assert_eq!(Session::read(&lease(&node, &spec)), None);
    }

    #[test]
    fn an_ownership_is_the_sets_that_controls_it() {
        let set = |controller: bool| {
            serde_json::json!({"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "uid-set",
                "controller": controller})
        };
        let spec = |holder: &str| serde_json::json!({"holderIdentity": holder, "leaseTransitions": 5});
        let owned = Ownership::read(&lease(&set(true), &spec("a/uid-a/2-x")), "uid-set").unwrap();
        assert_eq!((owned.epoch, owned.state.as_deref(), owned.config_hash.as_str()), (5, Some("{\"seq\":7}"), "c1"));
        assert_eq!(owned.holder, Holder::parse("a/uid-a/2-x"));
        assert_eq!(Ownership::read(&lease(&set(true), &spec("")), "uid-set").unwrap().holder, None);
        // Nonsense: it is not free, and its holder is no boot that could run it.
        let nonsense = Ownership::read(&lease(&set(true), &spec("nonsense")), "uid-set").unwrap().holder.unwrap();
        assert_eq!((nonsense.pod.as_str(), nonsense.uid.as_str()), ("nonsense", ""));
        assert_eq!(Ownership::read(&lease(&set(true), &spec("")), "uid-other"), None);
        assert_eq!(Ownership::read(&lease(&set(false), &spec("")), "uid-set"), None);
    }

    #[test]
    fn a_holder_is_named_by_label_and_by_one_pod() {
        let (me, other) = (Holder::parse("a/uid-a/2-x").unwrap(), Holder::parse("b/uid-b/1-y").unwrap());
        let named = |label: Option<&Holder>, pods: &[&Holder]| {
            let mut lease = Lease::default();
            let label = label.map(|of| (names::LABEL_HOLDER.to_owned(), names::holder_label(&of.to_string())));
            lease.metadata.labels = Some(label.into_iter().collect());
            lease.metadata.owner_references = Some(pods.iter().map(|pod| pod_owner(&pod.pod, &pod.uid)).collect());
            Named::of(&lease, Some(&me))
        };
        assert_eq!(named(Some(&me), &[&me]), Named::Fully);
        for label in [None, Some(&other)] {
            assert_eq!(named(label, &[&me]), Named::No, "its agent does not see it");
        }
        for pods in [&[][..], &[&other], &[&other, &me]] {
            assert_eq!(named(Some(&me), pods), Named::ByLabel);
        }
        assert_eq!(Named::of(&Lease::default(), None), Named::Fully);
    }

    proptest! {
        #[test]
        fn inboxes_survive_the_wire(entries in prop::collection::btree_map("[a-z]{1,5}", (any::<u32>(), prop::option::of(prop::option::of(holder()))), 0..30)) {
            let letters: BTreeMap<String, Letter> = entries.into_iter().map(|(name, (epoch, release))| {
                (name, Letter { epoch, order: release.map_or(Order::Incoming, Order::Release) })
            }).collect();
            let first: BTreeMap<_, _> = letters.clone().into_iter().take(INBOX_MAX).collect();
            prop_assert_eq!(read_inbox(&write_inbox(&letters)), first);
        }

        #[test]
        fn no_inbox_makes_an_agent_fall_over(text in ".{0,80}") {
            read_inbox(&text);
        }
    }

    #[test]
    fn what_an_inbox_says_badly_is_left_out() {
        let text = r#"[{"listener":"a","epoch":1},{"listener":"b","epoch":1,"releaseTo":"nonsense"},{"epoch":2},7,
            {"listener":"c","epoch":3,"releaseTo":""}]"#;
        let read = read_inbox(text);
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(read["c"], Letter { epoch: 3, order: Order::Release(None) });
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
            "a/b/01-c",
            "a/b/+1-c",
        ] {
            assert_eq!(Holder::parse(text), None, "{text}");
        }
        assert_eq!(Claim::parse(Some("nonsense")), Claim::Foreign);
        assert_eq!(Claim::parse(Some("fenced:")), Claim::Foreign);
    }
}
