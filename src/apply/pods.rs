//! Pods: create, delete, change, and the question whether the API server would take one.
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::core::params::{DeleteParams, Preconditions};
use serde_json::{Value, json};

use super::{
    answer::{self, is_taken},
    call::Calls,
    overtake,
    target::Target,
};
use crate::{
    api::names,
    plan::{Applied, Seen, adoption, in_place, revision, specimen},
    snapshot::{
        Pod, RefusalReason, TemplateCheck,
        template::Verdict,
        wire::{self, PodView},
    },
};

/// When to ask again about a template that was refused: policies change.
const RECHECK_REFUSED: SignedDuration = SignedDuration::from_mins(1);
/// When to ask again after an answer that was no verdict.
pub(super) const RECHECK_UNKNOWN: SignedDuration = SignedDuration::from_secs(10);
/// When to ask again where something on the way (an admission webhook) cannot do a dry run.
const RECHECK_UNSUPPORTED: SignedDuration = SignedDuration::from_mins(10);

/// The Pod of a slot as JSON, or why there can be none. None when its revision is not known (any more).
fn recipe(
    target: &Target<'_>,
    slot: i32,
    revision: &str,
    restarted_at: Option<Timestamp>,
    name: impl FnOnce(&str) -> String,
) -> Option<Result<Value, String>> {
    let known = target.snapshot.revisions.iter().find(|known| known.name == revision)?;
    let recipe = revision::PodRecipe {
        rollout: &target.name,
        namespace: &target.namespace,
        rollout_uid: &target.uid,
        slot,
        revision,
        hash: &known.hash,
        data: &known.data,
        restarted_at,
        package_sha256: known.package_sha256.as_deref(),
        agent_image: target.calls.agent_image(),
        // Out of service until it is well, while it is changed, and before it leaves.
        is_gated: target.snapshot.rollout.spec.is_gated(),
    };
    let name = name(&revision::pod_name_of(&recipe, 0));
    Some(revision::pod(&recipe, &name))
}

/// Creates the Pod of a slot.
pub(super) async fn create(
    target: &Target<'_>,
    name: &str,
    slot: i32,
    revision: &str,
    restarted_at: Option<Timestamp>,
) -> Applied {
    let pod = match recipe(target, slot, revision, restarted_at, |_| name.to_owned()) {
        Some(Ok(pod)) => pod,
        Some(Err(message)) => return Applied::Refused { reason: RefusalReason::FailedCreate, message },
        None => return Applied::Stale,
    };
    match target.calls.create::<ApiPod>(&target.namespace, &pod).await {
        Ok(written) => Applied::Done { resource_version: written.metadata.resource_version },
        Err(error) if is_taken(&error) => found(target, name, slot, revision).await,
        Err(error) => answer::of_create(&error),
    }
}

/// The name is taken: by ourselves, a moment ago, or by another?
async fn found(target: &Target<'_>, name: &str, slot: i32, revision: &str) -> Applied {
    match target.calls.get::<ApiPod, PodView>(&target.namespace, name).await {
        Ok(pod) => {
            let resource_version = pod.metadata.resource_version.clone().unwrap_or_default();
            let is_ours = wire::owner(&pod.metadata).is_some_and(|owner| owner.uid == target.uid);
            let is_watched = pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key(names::LABEL_ROLLOUT));
            let is_left = target.left_behind(&pod.metadata);
            // One of ours that was relabelled, or that is kept for a look, does not count as the slot's Pod, here as in the
            // cache.
            let pod = wire::pod(pod).filter(|pod| pod.specimen.is_none());
            let stands_in = pod.as_ref().is_some_and(|pod| (pod.slot, pod.revision.as_str()) == (slot, revision));
            let is_adoptable = || pod.is_some_and(|pod| adoption::is_adoptable_pod(target.snapshot, &pod));
            match is_ours && is_watched && stands_in {
                true => Applied::Done { resource_version },
                // The watch will show that an earlier Rollout of this name has left it: then it is adopted.
                false if is_left && is_adoptable() => Applied::Stale,
                false => Applied::NameTaken,
            }
        }
        // Gone again: what to do about that, the next look decides.
        Err(error) => answer::of_change(&error),
    }
}

/// Deletes a Pod, with its own grace period, if it is still the one we looked at.
pub(super) async fn delete(calls: &Calls, namespace: &str, seen: &Seen) -> Applied {
    let preconditions = Some(preconditions(&seen.uid, &seen.resource_version));
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    match calls.delete::<ApiPod>(namespace, &seen.name, &params).await {
        Ok(()) => Applied::Done { resource_version: String::new() },
        Err(error) => answer::of_change(&error),
    }
}

/// Keeps a failed Pod for a look, if it is still the one we looked at.
pub(super) async fn keep(target: &Target<'_>, uid: &str, until: Timestamp, run: i64) -> Applied {
    let Some(pod) = target.snapshot.pods.iter().find(|pod| pod.uid == uid) else { return Applied::Stale };
    let patch = specimen::patch(target.snapshot, pod, until, run);
    answer::of_patch(target.calls.merge::<ApiPod>(&target.namespace, &pod.name, &patch).await)
}

/// A write to this Pod whose answer was lost cannot be done after this.
pub async fn overtake(calls: &Calls, namespace: &str, name: &str, seen: (&str, &str)) -> Applied {
    answer::of_patch(overtake::overtake::<ApiPod>(calls, namespace, name, seen).await)
}

/// Gives a Pod what another revision says, if it is still the one we looked at.
pub(super) async fn change_in_place(target: &Target<'_>, uid: &str, revision: &str) -> Applied {
    let Some((pod, patch)) = patch(target, uid, revision) else { return Applied::Stale };
    answer::of_patch(target.calls.merge_lists::<ApiPod>(&target.namespace, &pod.name, &patch.pod).await)
}

/// What is written on a Pod to bring it to another revision.
pub(super) fn patch<'t>(target: &'t Target<'_>, uid: &str, revision: &str) -> Option<(&'t Pod, in_place::Patch)> {
    let known = |name: &str| target.snapshot.revisions.iter().find(|known| known.name == name);
    let pod = target.snapshot.pods.iter().find(|pod| pod.uid == uid)?;
    let reloads = target.snapshot.rollout.spec.strategy.update.reloads();
    let patch = in_place::patch(pod, known(&pod.revision)?, known(revision)?, reloads, target.snapshot.now);
    Some((pod, patch.ok()?))
}

/// Writes on a Pod that its application has reloaded what it was given, if it is still the one we looked at.
pub(super) async fn note_reloaded(target: &Target<'_>, seen: &Seen) -> Applied {
    let is_it = |pod: &&Arc<Pod>| pod.uid == seen.uid && pod.resource_version == seen.resource_version;
    let pod = target.snapshot.pods.iter().find(is_it);
    let Some(patch) = pod.and_then(|pod| in_place::reloaded(pod, target.snapshot.now)) else { return Applied::Stale };
    answer::of_patch(target.calls.merge::<ApiPod>(&target.namespace, &seen.name, &patch).await)
}

/// What is said on a Pod about its service.
pub(super) struct Service {
    pub in_service: bool,
    pub session_ready: Option<bool>,
}

/// Writes the conditions that Baton sets on a Pod, if the Pod is still what we looked at. The kubelet writes others into the
/// same list: a strategic merge leaves these as they are.
pub(super) async fn set_in_service(target: &Target<'_>, seen: &Seen, says: Service) -> Applied {
    let condition = |type_: &str, holds: bool, reason: &str| condition(target.snapshot.now, type_, holds, (reason, ""));
    let reason = match says.session_ready {
        None if !says.in_service => "ChangedInPlace",
        None => "InService",
        Some(true) => "SessionHeld",
        Some(false) => "NoSession",
    };
    let mut conditions = vec![condition(names::CONDITION_IN_SERVICE, says.in_service, reason)];
    if let Some(ready) = says.session_ready {
        conditions.push(condition(names::CONDITION_SESSION_READY, ready, reason));
    }
    set_conditions(target, seen, &conditions).await
}

/// Writes on a Pod whether it is drained: `busy` says of what it is not.
pub(super) async fn set_drained(target: &Target<'_>, seen: &Seen, busy: &str) -> Applied {
    let reason = if busy.is_empty() { "HoldsNothing" } else { "HoldsListeners" };
    let says = condition(target.snapshot.now, names::CONDITION_DRAINED, busy.is_empty(), (reason, busy));
    set_conditions(target, seen, &[says]).await
}

fn condition(now: Timestamp, type_: &str, holds: bool, (reason, message): (&str, &str)) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = if holds { "True" } else { "False" };
    json!({"type": type_, "status": status, "lastTransitionTime": now, "reason": reason, "message": message})
}

async fn set_conditions(target: &Target<'_>, seen: &Seen, conditions: &[Value]) -> Applied {
    let metadata = json!({"uid": seen.uid, "resourceVersion": seen.resource_version});
    let patch = json!({"metadata": metadata, "status": {"conditions": conditions}});
    answer::of_patch(target.calls.merge_status::<ApiPod>(&target.namespace, &seen.name, &patch).await)
}

/// The object must be this very one, unchanged.
pub(super) fn preconditions(uid: &str, resource_version: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_owned()) }
}

/// Asks by a dry-run create under a name of its own whether a Pod of this revision would be taken.
pub(super) async fn check(target: &Target<'_>, revision: &str) -> Applied {
    let now = target.snapshot.now;
    let again = |pause: SignedDuration| now.saturating_add(pause).unwrap_or(now);
    let pod = match recipe(target, 0, revision, None, |name| format!("{name}-probe")) {
        Some(Ok(pod)) => pod,
        Some(Err(message)) => {
            return Applied::Checked(TemplateCheck::Refused { message, recheck_at: again(RECHECK_REFUSED) });
        }
        None => return Applied::Stale,
    };
    let error = match target.calls.dry_run::<ApiPod>(&target.namespace, &pod).await {
        Ok(warnings) if warnings.is_empty() => return Applied::Checked(TemplateCheck::Valid),
        Ok(warnings) => return Applied::Checked(TemplateCheck::Warned { message: warnings.join("; ") }),
        Err(error) => error,
    };
    let message = error.message();
    let verdict = Verdict::of_refusal(error.code(), &message);
    Applied::Checked(match (error.code(), verdict) {
        (_, Verdict::Valid) => TemplateCheck::Valid,
        (_, Verdict::Refused) => TemplateCheck::Refused { message, recheck_at: again(RECHECK_REFUSED) },
        (429, _) => TemplateCheck::Unknown { message, recheck_at: again(answer::retry_after(&error)) },
        (400, _) => TemplateCheck::Unknown { message, recheck_at: again(RECHECK_UNSUPPORTED) },
        _ => TemplateCheck::Unknown { message, recheck_at: again(RECHECK_UNKNOWN) },
    })
}
