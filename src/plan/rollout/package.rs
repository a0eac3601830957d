//! Packages without a checksum: what the first instance of a revision has fetched binds all others, and later ones.
use std::collections::BTreeMap;

use super::failure::Failure;
use crate::{
    plan::{
        change::{Change, RevisionMark},
        package,
    },
    snapshot::{Fetched, Pod, Snapshot},
};

/// What is wrong with this Pod's package. The agent has tried for a while before it says so.
pub(super) fn failure(pod: &Pod) -> Option<Failure> {
    let (reason, message) = match pod.package.as_ref()? {
        Fetched::Unpacked { .. } => return None,
        Fetched::Rejected { message } => ("PackageRejected", message),
        Fetched::Unavailable { message } => ("PackageUnavailable", message),
    };
    Some(Failure { reason: reason.into(), message: message.clone(), at: None })
}

/// Notes on revisions what their first instance has fetched. What is written on a revision anyhow goes first: of two writes
/// at once one would be in vain.
pub(super) fn bind(snapshot: &Snapshot, changes: &[Change]) -> Vec<Change> {
    let is_unbound = |sha256: &Option<String>, data| sha256.is_none() && package::is_bound_by_fetch(data);
    let revisions = snapshot.revisions.iter().filter(|revision| !revision.deleting);
    let unbound = revisions.filter(|revision| is_unbound(&revision.package_sha256, &revision.data));
    let bound = unbound.filter_map(|revision| {
        let mut pods = snapshot.pods.iter().filter(|pod| pod.revision == revision.name);
        let sha256 = pods.find_map(|pod| unpacked(pod))?.to_owned();
        let is_written = changes.iter().any(|change| change.name() == revision.name);
        (!is_written).then(|| Change::MarkRevision {
            name: revision.name.clone(),
            uid: revision.uid.clone(),
            resource_version: revision.resource_version.clone(),
            mark: RevisionMark::Fetched { sha256 },
        })
    });
    bound.collect()
}

/// What is noted on revisions, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Bound<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let bound = snapshot.revisions.iter().filter_map(|r| Some((r.name.as_str(), r.package_sha256.as_deref()?)));
        Self(bound.collect())
    }

    /// It was made before anything was noted, and has fetched something else.
    pub fn differs_from(&self, pod: &Pod) -> bool {
        let bound = self.0.get(pod.revision.as_str());
        unpacked(pod).zip(bound).is_some_and(|(sha256, bound)| sha256 != *bound)
    }
}

fn unpacked(pod: &Pod) -> Option<&str> {
    if let Some(Fetched::Unpacked { sha256 }) = &pod.package { Some(sha256) } else { None }
}
