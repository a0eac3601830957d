//! What a revision came to when it first ran, noted on it: what a tag or a URL gives may be something else tomorrow.
use std::collections::BTreeMap;

use crate::{
    plan::{
        change::{Change, RevisionMark},
        revision,
        rollout::run::packages,
    },
    snapshot::{Pod, Revision, Snapshot},
};

/// What packages came to: before the revision may complete, because what has completed is gone back to.
pub(crate) fn packages(snapshot: &Snapshot, changes: &[Change]) -> Vec<Change> {
    notes(snapshot, changes, packages::to_note)
}

/// What images came to.
pub(crate) fn images(snapshot: &Snapshot, changes: &[Change]) -> Vec<Change> {
    notes(snapshot, changes, ran)
}

/// Notes, one a revision at a time. What is written on a revision anyhow goes first: of two writes at once one would be in
/// vain.
fn notes(
    snapshot: &Snapshot,
    changes: &[Change],
    due: fn(&Snapshot, &Revision) -> Option<RevisionMark>,
) -> Vec<Change> {
    let is_written = |revision: &&Revision| changes.iter().any(|change| change.name() == revision.name);
    let revisions = snapshot.revisions.iter().filter(|revision| !revision.deleting && !is_written(revision));
    let mut notes: Vec<_> =
        revisions.filter_map(|revision| Some(Change::mark(revision, due(snapshot, revision)?))).collect();
    notes.sort_by(|a, b| a.name().cmp(b.name()));
    notes
}

/// Digests of what its first ready Pod runs, of the images that it names by tags.
fn ran(snapshot: &Snapshot, revision: &Revision) -> Option<RevisionMark> {
    if revision.image_digests.is_some() {
        return None;
    }
    // One that was just given another image may still run the one before.
    let runs = |pod: &Pod| pod.revision == revision.name && pod.is_ready() && pod.in_transit(snapshot.now).is_none();
    let ready = snapshot.pods.iter().filter(|pod| runs(pod));
    let pod = ready.min_by_key(|pod| (pod.slot, &pod.name))?;
    let tagged = revision::images(&revision.data).filter(|(_, image)| !image.contains('@'));
    let digest =
        |name: &str| pod.containers.iter().find(|container| container.name == name)?.digest().map(str::to_owned);
    let images: BTreeMap<_, _> = tagged.filter_map(|(name, _)| Some((name.to_owned(), digest(name)?))).collect();
    (!images.is_empty()).then_some(RevisionMark::Ran { images })
}
