//! What holds the second set of strategy BlueGreen, and the switch to it.
use super::{gates, holds, hooks, old_pods};
use crate::{
    api::{
        names::{ANNOTATION_ROLLOUT, LABEL_REVISION, LABEL_ROLLOUT},
        rollout::Promote,
    },
    plan::{
        change::{Hold, HoldReason},
        rollout::{
            pod::counts::counts,
            run::{View, sets::Sets, slots::Slot},
            time::seconds,
        },
    },
    snapshot::{Pod, Revision, Service, ServiceSeen},
};

/// The kept set's revision, if a Pod that the set lost is created again. It is not if the revision has failed since clients used
/// it, or if no Service or status says that clients use it.
pub(crate) fn refills<'a>(view: &View<'a>) -> Option<&'a Revision> {
    let sets = view.slots.sets()?;
    let is_told = |kept: &&Revision| sets.told.is_some() || view.lineage.is_stable(&kept.name);
    let kept = view.snapshot.revisions.iter().find(|revision| Some(revision.name.as_str()) == sets.kept);
    let kept = kept.filter(is_told)?;
    let has_failed = kept.failed_at.is_some_and(|failed| kept.completed_at.is_none_or(|completed| completed < failed));
    (sets.kept == sets.active || !has_failed).then_some(kept)
}

/// Why the preview set may not be created yet: the active Service must be known to select another set, and Pods of neither set
/// must be gone. Nothing holds it before the first revision has completed, because no clients are to be protected.
pub(crate) fn preview_held(view: &View<'_>) -> Option<Hold> {
    let sets = view.slots.sets().filter(|sets| sets.active != sets.target && !view.lineage.is_first())?;
    if let Some(hold) = trouble(view) {
        return Some(hold);
    }
    let is_other = |pod: &&Pod| {
        let is_of = |set: Option<&str>| set == Some(pod.revision.as_str());
        !is_of(sets.target) && !is_of(sets.kept) && counts(view.snapshot, pod)
    };
    if let Some(active) = sets.active.filter(|active| sets.selected.is_none() && serves(view, active)) {
        let message = format!("clients get Pods of any revision until the Service selects {active}");
        return Some(Hold { reason: HoldReason::ServiceUnread, message, until: None });
    }
    let mut others = view.snapshot.pods.iter().map(|pod| &**pod).filter(is_other);
    let hold = old_pods::hold(&view.slots, others.clone(), view.lineage.effective?)?;
    Some(if others.any(|pod| view.slots.was_in_use(pod)) { until_they_go(hold, sets) } else { hold })
}

/// What holds one more Pod in a slot before anything has completed: Pods of two superseded versions are there, and one of them is to
/// leave first. Superseded again and again, they would pile up.
pub(crate) fn crowded(view: &View<'_>, slot: &Slot<'_>) -> Option<Hold> {
    view.slots.sets().filter(|sets| sets.active != sets.target && slot.others.len() > 1)?;
    if let Some(hold) = trouble(view) {
        return Some(hold);
    }
    old_pods::hold(&view.slots, slot.others.iter().copied(), view.lineage.effective?)
}

/// What waits for Pods that clients used a moment ago can be told until when.
fn until_they_go(hold: Hold, sets: &Sets<'_>) -> Hold {
    let Some((_, until)) = sets.before else { return hold };
    let message = format!(
        "{}; clients used them until a moment ago, they stay until {} (spec.strategy.blueGreen.scaleDownDelaySeconds)",
        hold.message,
        seconds(until).0
    );
    Hold { message, until: Some(until), ..hold }
}

/// It has an available Pod.
pub(crate) fn serves(view: &View<'_>, revision: &str) -> bool {
    let available = |pod: &Pod| pod.is_available(view.spec().min_ready_seconds, view.now());
    view.snapshot.pods.iter().any(|pod| pod.revision == revision && available(pod))
}

/// What its user has it select by.
pub(crate) fn own_labels(service: &Service) -> impl Iterator<Item = (&String, &String)> {
    service.selector.iter().filter(|(key, _)| *key != LABEL_REVISION)
}

/// What holds the switch to a set that is available.
pub(crate) fn held(view: &View<'_>) -> Option<Hold> {
    let paused = if view.lineage.is_back() { holds::paused_revert(view) } else { holds::paused(view) };
    let hooks = if view.lineage.is_back() { gates::due_at_once(view) } else { hooks::after_batch(view) };
    holds::failed(view).or(paused).or(hooks).or_else(|| awaiting_approval(view))
}

/// The revision that is worked towards, if clients have not used it. They have used the one that is gone back to, even if its
/// ControllerRevision was deleted, and with it the mark.
pub(crate) fn untried<'a>(view: &View<'a>) -> Option<&'a Revision> {
    view.lineage.effective.filter(|target| target.completed_at.is_none() && !view.lineage.is_back())
}

/// A version that clients have used before needs no approval, nor does the first.
fn awaiting_approval(view: &View<'_>) -> Option<Hold> {
    let settings = view.policy.switched().filter(|settings| settings.promote == Promote::Manual)?;
    let target = untried(view)?;
    if view.lineage.is_first() || holds::is_approved(view, 1) {
        return None;
    }
    let preview = settings.preview_service.as_ref().map(|name| format!(" as Service {name}")).unwrap_or_default();
    let message = format!(
        "{} is available{preview}; waiting for approval to switch Service {} to it: {}",
        crate::plan::revision::version(&target.data),
        settings.active_service,
        holds::approval(view, "promote", 1)
    );
    Some(Hold { reason: HoldReason::AwaitingApproval, message, until: None })
}

/// There are Ready Pods of several revisions, and as long as the Service is not known clients may use those of any one: the
/// others are no substitute for them.
pub(crate) fn may_use_either(view: &View<'_>) -> bool {
    let is_unknown = view.policy.switched().is_some() && view.snapshot.services.active == ServiceSeen::Unknown;
    let ready = || view.snapshot.pods.iter().filter(|pod| pod.is_live() && pod.is_ready());
    is_unknown && ready().zip(ready().skip(1)).any(|(one, other)| one.revision != other.revision)
}

/// Why a version that clients have not used cannot be given to them.
pub(crate) fn trouble(view: &View<'_>) -> Option<Hold> {
    trouble_of_active(view).or_else(|| trouble_of_preview(view))
}

pub(crate) fn trouble_of_active(view: &View<'_>) -> Option<Hold> {
    let name = &view.policy.switched()?.active_service;
    let services = &view.snapshot.services;
    let claimed = services.claimed_by.as_ref().map(|other| {
        let message = format!(
            "Rollout {other} names the same Service: a Service belongs to one Rollout; name others in spec.strategy.blueGreen"
        );
        Hold { reason: HoldReason::ServiceInvalid, message, until: None }
    });
    trouble_of(view, name, "activeService", &services.active).or(claimed)
}

pub(crate) fn trouble_of_preview(view: &View<'_>) -> Option<Hold> {
    let name = view.policy.switched()?.preview_service.as_ref()?;
    trouble_of(view, name, "previewService", &view.snapshot.services.preview)
}

fn trouble_of(view: &View<'_>, name: &str, field: &str, seen: &ServiceSeen) -> Option<Hold> {
    let (reason, message) = match seen {
        // At rest there is nothing that waits for it.
        ServiceSeen::Unknown => {
            view.memory.batch.as_ref()?;
            let message = format!("reading Service {name}: the operator has yet to see it, or may not");
            (HoldReason::ServiceUnread, message)
        }
        ServiceSeen::Missing => {
            let message =
                format!("there is no Service {name}: create it, or name another in spec.strategy.blueGreen.{field}");
            (HoldReason::ServiceMissing, message)
        }
        ServiceSeen::Seen(service) => {
            (HoldReason::ServiceInvalid, not_permitted(view, service).or_else(|| misfit(view, service))?)
        }
    };
    Some(Hold { reason, message, until: None })
}

/// Why nothing may be written to this Service: who may write a Rollout need not be one who may write Services.
fn not_permitted(view: &View<'_>, service: &Service) -> Option<String> {
    let metadata = &view.snapshot.rollout.metadata;
    let rollout = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = &service.name;
    let (says, overwrite) = match service.rollout.as_deref() {
        Some(named) if named == rollout => return None,
        Some(_) => ("names another Rollout in its", " --overwrite"),
        None => ("has no", ""),
    };
    Some(format!(
        "Service {name} {says} annotation {ANNOTATION_ROLLOUT}, so that Rollout {rollout} may not switch it; to permit \
         that: kubectl annotate service {name} {ANNOTATION_ROLLOUT}={rollout}{overwrite} -n {namespace}"
    ))
}

/// Why this Service does not select the assigned set.
fn misfit(view: &View<'_>, service: &Service) -> Option<String> {
    let target = view.slots.sets()?.target?;
    let revision = view.snapshot.revisions.iter().find(|revision| revision.name == target)?;
    let labels = revision.data.pointer("/template/metadata/labels");
    let is_of_pods = |key: &str, value: &str| {
        let own = (key == LABEL_ROLLOUT).then_some(view.snapshot.rollout.metadata.name.as_deref()).flatten();
        own.or_else(|| labels?.get(key)?.as_str()) == Some(value)
    };
    let (key, value) = own_labels(service).find(|(key, value)| !is_of_pods(key, value))?;
    let name = &service.name;
    Some(format!("Service {name} selects {key}={value}, which Pods of spec.template do not have: make them agree"))
}
