//! Packages without a checksum: what the first instance of a revision has fetched binds all others, and later ones.
use std::collections::BTreeMap;

use crate::{
    plan::{change::RevisionMark, package},
    snapshot::{Fetched, Pod, Revision, Snapshot},
};

/// What this revision's first instance has fetched, where that binds the others and is not noted yet.
pub(crate) fn to_note(snapshot: &Snapshot, revision: &Revision) -> Option<RevisionMark> {
    if revision.package_sha256.is_some() || !package::is_bound_by_fetch(&revision.data) {
        return None;
    }
    let pods = snapshot.pods.iter().filter(|pod| pod.revision == revision.name);
    let fetched = pods.filter_map(|pod| Some((pod.slot, &pod.name, unpacked(pod)?)));
    let (.., sha256) = fetched.min()?;
    Some(RevisionMark::Fetched { sha256: sha256.to_owned() })
}

/// What is noted on revisions, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bound<'a>(BTreeMap<&'a str, &'a str>);

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
