//! Adoption: what an earlier Rollout of this name left behind (`kubectl delete --cascade=orphan`) becomes this one's.
//!
//! An object is adopted if its label names the Rollout, no object controls it, it is not being deleted, and its name is one that
//! Baton gives; a Pod also has to match the selector.
use super::{
    change::{Change, PodAct, RevisionAct},
    revision,
};
use crate::{
    api::names,
    snapshot::{ChangeRefusal, Pod, Revision, Snapshot},
};

/// In place of a revision in the key of a refusal.
const ADOPTION: &str = "adoption";

/// All that is to be adopted.
pub fn changes(snapshot: &Snapshot) -> Vec<Change> {
    let revisions = snapshot.orphans.revisions.iter().filter(|orphan| is_adoptable_revision(snapshot, orphan));
    let revisions = revisions.map(|orphan| Change::Revision { seen: orphan.into(), act: RevisionAct::Adopt });
    let pods = snapshot.orphans.pods.iter().filter(|orphan| is_adoptable_pod(snapshot, orphan));
    let pods = pods.map(|orphan| Change::pod(orphan, PodAct::Adopt));
    revisions.chain(pods).collect()
}

/// Pods that an earlier Rollout of this name left behind, and that are not adopted.
pub fn left_alone(snapshot: &Snapshot) -> impl Iterator<Item = &Pod> {
    let pods = snapshot.orphans.pods.iter().map(AsRef::as_ref);
    pods.filter(|pod| pod.deletion.is_none() && !is_adoptable_pod(snapshot, pod))
}

/// Whether this Pod, whose label names the Rollout, becomes the Rollout's.
pub fn is_adoptable_pod(snapshot: &Snapshot, pod: &Pod) -> bool {
    let wanted = &snapshot.rollout.spec.selector.match_labels;
    let matches = pod
        .loose_labels
        .as_ref()
        .is_some_and(|labels| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let instance = names::instance_name(rollout(snapshot), pod.slot);
    let label = pod.loose_labels.as_ref().and_then(|labels| labels.get(names::LABEL_REVISION_HASH));
    let is_named_so = is_of_instance(&instance, &pod.name, label.map_or("", String::as_str));
    matches && pod.deletion.is_none() && is_named_so && !is_refused(snapshot, &pod.uid)
}

/// Whether this ControllerRevision, whose label names the Rollout and that no object controls, becomes the Rollout's: `web-HASH`, or
/// `web-HASH-2` where that name was taken.
pub fn is_adoptable_revision(snapshot: &Snapshot, revision: &Revision) -> bool {
    let base = format!("{}-{}", rollout(snapshot), revision.hash);
    let rest = revision.name.strip_prefix(&base);
    let is_named_so = rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number));
    is_named_so && !revision.hash.is_empty() && !revision.deleting && !is_refused(snapshot, &revision.uid)
}

/// Key of the refusal to adopt this object in [`Snapshot::change_refusals`].
pub fn refusal_key(uid: &str) -> String {
    ChangeRefusal::key_of(ADOPTION, uid)
}

/// What the API server said to the adoption of this object, until it is tried again.
pub fn refusal<'s>(snapshot: &'s Snapshot, uid: &str) -> Option<&'s ChangeRefusal> {
    snapshot.change_refusals.get(&refusal_key(uid)).filter(|refusal| refusal.retry_at > snapshot.now)
}

/// The rest goes on without it until it is tried again.
fn is_refused(snapshot: &Snapshot, uid: &str) -> bool {
    refusal(snapshot, uid).is_some()
}

fn rollout(snapshot: &Snapshot) -> &str {
    snapshot.rollout.metadata.name.as_deref().unwrap_or_default()
}

/// `web-3-HASH`, or `web-3-HASH-2` for a later attempt. HASH is the label's, or another one if the Pod was changed in place. A copy
/// that `kubectl debug` has made has another name.
fn is_of_instance(instance: &str, name: &str, label: &str) -> bool {
    let Some(rest) = name.strip_prefix(instance).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let (hash, attempt) = rest.split_once('-').map_or((rest, None), |(hash, attempt)| (hash, Some(attempt)));
    let is_hash = !hash.is_empty() && (hash == label || revision::is_hash(hash));
    is_hash && attempt.is_none_or(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
