//! Pods that were given other resources: which of their nodes cannot follow.
//!
//! A Pod first says which revision it is to be and what is due for that, then its specification is resized, then, once its
//! node has followed, the note is taken off. If the operator ends in between, the Pod says how far it is.
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::failure::failure_of;
use crate::{
    plan::rollout::{policy::Policy, time::after},
    snapshot::{ChangeRefusal, InPlace, Pod, Snapshot, TemplateCheck},
};

/// The API server has refused to give this Pod that revision, or the resources of it.
pub(crate) fn refusal<'s>(snapshot: &'s Snapshot, pod: &Pod, revision: &str) -> Option<&'s ChangeRefusal> {
    let known = snapshot.change_refusals.get(&ChangeRefusal::key_of(revision, &pod.uid));
    known.filter(|refusal| refusal.retry_at > snapshot.now)
}

/// What the API server said to the question whether it would give this Pod the resources of that revision.
pub(crate) fn check<'s>(snapshot: &'s Snapshot, pod: &Pod, revision: &str) -> Option<&'s TemplateCheck> {
    snapshot.template_checks.get(&ChangeRefusal::key_of(revision, &pod.uid))
}

/// Until when no instance counts as late because the API server has not answered that question. The next one takes a moment: as long as it
/// is asked again and again, that is for as long.
pub(crate) fn unanswered_until(snapshot: &Snapshot, pod: &Pod, revision: &str) -> Option<Timestamp> {
    /// A call that is given up, and a look or two.
    const ANSWER_SECONDS: i64 = 30;
    let TemplateCheck::Unknown { recheck_at, .. } = check(snapshot, pod, revision)? else { return None };
    Some(after(*recheck_at, ANSWER_SECONDS))
}

/// It has yet to get resources, and another Pod takes its place if it does not.
pub(crate) fn is_replaced_for(snapshot: &Snapshot, pod: &Pod) -> bool {
    pod.resize.is_some() && !Policy::of(&snapshot.rollout.spec).update.is_in_place_only()
}

/// uids of Pods that do not get the resources of their revision where they are, or fail before they have: others take their
/// places, unless that must not be. What keeps a node from giving them says nothing of the version.
pub(crate) fn given_up(snapshot: &Snapshot) -> BTreeSet<&str> {
    let has_failed = |pod: &Pod| {
        is_replaced_for(snapshot, pod)
            && (refusal(snapshot, pod, &pod.revision).is_some()
                || pod.resize_fails_at().is_some_and(|at| at <= snapshot.now)
                || failure_of(pod).is_some_and(|failure| failure.counts(snapshot.now)))
    };
    snapshot.pods.iter().filter(|pod| has_failed(pod)).map(|pod| pod.uid.as_str()).collect()
}

/// Names of Pods of which a container will be started anew.
pub(crate) fn interrupted(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let anew = |pod: &Pod| pod.in_place.as_ref().is_some_and(InPlace::is_resized_anew);
    let pods = snapshot.pods.iter().filter(move |pod| pod.is_live() && pod.resize.is_some() && anew(pod));
    pods.map(|pod| pod.name.clone())
}
