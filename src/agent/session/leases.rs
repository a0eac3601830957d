//! What an agent reads of Leases, and what it writes into them: values in, values out.
//!
//! Every write names the uid and the resourceVersion that it was decided on, so that nothing is written over what was not
//! seen; what others keep in a Lease stays. Renewals alone name neither: inbox writes do not collide with them. They test
//! the identity instead.
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
};
use serde_json::{Map, Value, json};

use crate::{
    api::{names, session::SessionProfile},
    plan::listener_set::ownership::Write,
    snapshot::{
        lease::{self, Claim, Holder, Letter, Ownership, Session, read_inbox},
        listener::Settings,
    },
};

fn has_label(lease: &Lease, value: &str) -> bool {
    let labels = lease.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(names::LABEL_LEASE)).is_some_and(|found| found == value)
}

/// A session Lease, with what it tells its agent.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionLease {
    /// uid of the Lease.
    pub uid: String,
    /// Whose it is.
    pub session: Session,
    /// What the controller asks for.
    pub profile: Option<SessionProfile>,
    /// What the controller suggests, by ListenerSet and listener.
    pub inbox: BTreeMap<String, BTreeMap<String, Letter>>,
    /// What agents of this Pod have said: of themselves, and their reports. Annotations.
    pub said: BTreeMap<String, String>,
    /// It has any annotations.
    pub has_annotations: bool,
}

impl SessionLease {
    /// Reads a session Lease. None for one that does not say it is one: it counts as deleted.
    pub fn read(lease: &Lease) -> Option<Self> {
        if !has_label(lease, names::LEASE_SESSION) {
            return None;
        }
        let session = Session::read(lease)?;
        let none = BTreeMap::new();
        let annotations = lease.metadata.annotations.as_ref().unwrap_or(&none);
        let (inbox, report) = (names::inbox_annotation(""), names::report_annotation(""));
        let is_said = |(name, _): &(&String, &String)| name.starts_with(&report) || *name == names::ANNOTATION_AGENT;
        let letters = |(name, text): (&String, &String)| {
            let set = name.strip_prefix(&inbox)?;
            Some((set.to_owned(), read_inbox(text)))
        };
        Some(Self {
            uid: lease.metadata.uid.clone().unwrap_or_default(),
            session,
            profile: annotations
                .get(names::ANNOTATION_PROFILE)
                .and_then(|text| serde_json::from_value(Value::String(text.clone())).ok()),
            inbox: annotations.iter().filter_map(letters).collect(),
            said: annotations.iter().filter(is_said).map(|(name, text)| (name.clone(), text.clone())).collect(),
            has_annotations: !annotations.is_empty(),
        })
    }
}

/// Claims a session as seen, acquired and renewed at these times. What the boot before has reported goes.
pub fn claim(
    seen: &SessionLease,
    me: &Holder,
    profile: SessionProfile,
    agent: &str,
    (acquired_at, renewed_at): (Timestamp, Timestamp),
) -> Value {
    let mut annotations: Map<String, Value> = seen.said.keys().map(|name| (name.clone(), Value::Null)).collect();
    annotations.insert(names::ANNOTATION_AGENT.to_owned(), json!(agent));
    json!({
        "metadata": {
            "uid": seen.uid, "resourceVersion": seen.session.resource_version, "annotations": annotations,
        },
        "spec": {
            "holderIdentity": Claim::Held(me.clone()).to_identity(),
            "leaseTransitions": me.boot,
            "leaseDurationSeconds": profile.times().expire.as_secs(),
            "acquireTime": MicroTime(acquired_at),
            "renewTime": MicroTime(renewed_at),
        },
    })
}

/// What a renewal says besides the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renewal {
    /// Annotations to set.
    pub annotations: BTreeMap<String, String>,
    /// The Lease has no annotations: ours were removed.
    pub is_first: bool,
    /// Another lease duration than the Lease has, and the renewTime that was seen with that: a renewal that is late must
    /// not bring back a duration that has been given up.
    pub duration: Option<(SessionProfile, Option<Timestamp>)>,
}

/// Renews a session: a JSON patch.
pub fn renew(me: &Holder, renewal: &Renewal, now: Timestamp) -> Value {
    let label = format!("/metadata/labels/{}", pointer(names::LABEL_LEASE));
    let mut patch = vec![
        json!({"op": "test", "path": "/spec/holderIdentity", "value": me.to_string()}),
        json!({"op": "test", "path": label, "value": names::LEASE_SESSION}),
    ];
    if let Some((profile, seen)) = &renewal.duration {
        let seen = seen.map(MicroTime);
        patch.push(json!({"op": "test", "path": "/spec/renewTime", "value": seen}));
        let seconds = profile.times().expire.as_secs();
        patch.push(json!({"op": "replace", "path": "/spec/leaseDurationSeconds", "value": seconds}));
    }
    patch.push(json!({"op": "replace", "path": "/spec/renewTime", "value": MicroTime(now)}));
    if renewal.is_first {
        patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    patch.extend(renewal.annotations.iter().map(
        |(name, text)| json!({"op": "add", "path": format!("/metadata/annotations/{}", pointer(name)), "value": text}),
    ));
    Value::Array(patch)
}

/// One step of a JSON pointer.
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// An ownership Lease, with what it tells the agent that may run the listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLease {
    /// Name of the Lease.
    pub name: String,
    /// Name of the ListenerSet.
    pub set: String,
    /// uid of the ListenerSet.
    pub set_uid: String,
    /// Name of the listener.
    pub listener: String,
    /// Who may run it.
    pub ownership: Ownership,
    /// How to run it, or why that cannot be read.
    pub settings: Result<Settings, String>,
    /// The owner before.
    pub from: Option<String>,
    /// When that one's listener had stopped.
    pub stopped_at: Option<Timestamp>,
    owners: Vec<OwnerReference>,
}

impl ListenerLease {
    /// Reads an ownership Lease. None for one that is no ListenerSet's, or is not called as it should be.
    pub fn read(lease: &Lease) -> Option<Self> {
        if !has_label(lease, names::LEASE_LISTENER) {
            return None;
        }
        let set = lease::controlling_set(lease)?;
        let annotation = |name: &str| lease.metadata.annotations.as_ref()?.get(name).cloned();
        let listener = annotation(names::ANNOTATION_LISTENER)?;
        let name = lease.metadata.name.clone()?;
        if name != names::listener_lease_name(&set.name, &listener) {
            return None;
        }
        let settings = annotation(names::ANNOTATION_CONFIG).unwrap_or_default();
        Some(Self {
            name,
            set: set.name.clone(),
            set_uid: set.uid.clone(),
            listener,
            ownership: Ownership::read(lease, &set.uid)?,
            settings: serde_json::from_str(&settings).map_err(|error| error.to_string()),
            from: annotation(names::ANNOTATION_FROM),
            stopped_at: annotation(names::ANNOTATION_STOPPED_AT).and_then(|text| text.parse().ok()),
            owners: lease::owners(lease).to_vec(),
        })
    }
}

/// What a transfer says of the end of what ran here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It had stopped then, for a successor to count its gap from.
    At(Timestamp),
    /// Nothing has run under this epoch: what the owner before said still holds.
    Never,
    /// No gap is to be counted: it is started again in the same place.
    Forget,
}

/// Gives a listener to another boot, leaves it unowned, or keeps it for this boot.
#[derive(Clone, Debug)]
pub struct Transfer<'a> {
    /// The Lease as it was decided on.
    pub seen: &'a ListenerLease,
    /// What was decided.
    pub write: &'a Write,
    /// This boot.
    pub me: &'a Holder,
    /// This Pod's revision.
    pub revision: &'a str,
    /// What the listener resumes from; None: as it stands in the Lease.
    pub state: Option<&'a str>,
    /// The end of what ran here.
    pub stopped: Stopped,
    /// Now.
    pub now: Timestamp,
}

impl Transfer<'_> {
    /// The merge patch. `with_owners`: the holder's Pod becomes an owner too; some clusters do not let agents write that.
    pub fn patch(&self, with_owners: bool) -> Value {
        let Self { seen, write, me, state, .. } = self;
        let mut annotations = Map::new();
        annotations.insert(names::ANNOTATION_FROM.to_owned(), json!(me.to_string()));
        let is_mine = write.holder.as_ref() == Some(me);
        let revision = Some(self.revision).filter(|revision| is_mine && !revision.is_empty());
        annotations.insert(names::ANNOTATION_REVISION.to_owned(), json!(revision));
        if let Some(state) = state {
            annotations.insert(names::ANNOTATION_STATE.to_owned(), json!(state));
        }
        match self.stopped {
            Stopped::At(at) => {
                annotations.insert(names::ANNOTATION_STOPPED_AT.to_owned(), json!(MicroTime(at)));
            }
            Stopped::Never => {}
            Stopped::Forget => {
                annotations.insert(names::ANNOTATION_STOPPED_AT.to_owned(), Value::Null);
            }
        }
        let mut patch = lease::naming(write.holder.as_ref(), write.epoch);
        let metadata = &mut patch["metadata"];
        json_patch::merge(metadata, &precondition(seen));
        metadata["annotations"] = Value::Object(annotations);
        if with_owners {
            metadata["ownerReferences"] = json!(self.owners());
        }
        if write.holder.is_some() {
            patch["spec"]["acquireTime"] = json!(MicroTime(self.now));
        }
        patch
    }

    /// As they are, but of Pods the holder's alone.
    fn owners(&self) -> Vec<OwnerReference> {
        let mut owners: Vec<_> = self.seen.owners.iter().filter(|owner| !lease::is_pod(owner)).cloned().collect();
        owners.extend(self.write.holder.as_ref().map(|holder| lease::pod_owner(&holder.pod, &holder.uid)));
        owners
    }
}

/// Writes down what a listener would resume from; owner and epoch stay.
pub fn checkpoint(seen: &ListenerLease, state: &str) -> Value {
    let mut metadata = precondition(seen);
    metadata["annotations"] = json!({names::ANNOTATION_STATE: state});
    json!({"metadata": metadata})
}

fn precondition(seen: &ListenerLease) -> Value {
    json!({"uid": seen.ownership.uid, "resourceVersion": seen.ownership.resource_version})
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
