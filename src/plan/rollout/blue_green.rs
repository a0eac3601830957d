//! Strategy BlueGreen: a whole second set of Pods beside the one that clients use, and one switch of a Service.
//!
//! | set | of which revision | in |
//! |---|---|---|
//! | assigned | what slots are assigned, as with any strategy | [`Slot::live`] |
//! | kept | the one in use, while that is another; after a switch the one before, for scaleDownDelaySeconds | [`Slot::kept`] |
//! | others | all else: a preview that was superseded or given up; an old set whose time is over, or in whose time a third version came | [`Slot::others`] |
//!
//! Which set is in use, the Service says: its selector is read. Only while somebody has taken the key away status says it.
//!
//! [`Slot::live`]: super::Slot::live
//! [`Slot::kept`]: super::Slot::kept
//! [`Slot::others`]: super::Slot::others
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Alarm, View, after, budget::counts, failure::seconds, gates, lineage::Lineage, recreate, slots::Slot};
use crate::{
    api::{
        names::{ANNOTATION_ROLLOUT, LABEL_REVISION, LABEL_ROLLOUT},
        rollout::{BlueGreen, Promote, StrategyType},
    },
    plan::change::{Change, Hold, HoldReason},
    snapshot::{Pod, Revision, Service, ServiceSeen, Snapshot, Switched},
};

/// Which sets of Pods there should be.
#[derive(Clone, Copy, Debug)]
pub struct Sets<'a> {
    /// Revision that slots are assigned.
    pub target: Option<&'a str>,
    /// Revision that clients get: as the Service says, else as status has told last, else what most available Pods run.
    pub active: Option<&'a str>,
    /// Revision of the set that stays beside the assigned one.
    pub kept: Option<&'a str>,
    /// Revision that clients used before the last switch, and until when its Pods stay, whether they are kept or not.
    pub before: Option<(&'a str, Timestamp)>,
    /// What the Service selects. None: not known, or Pods of any revision.
    pub selected: Option<&'a str>,
    /// The same, or as status has told it last.
    pub told: Option<&'a str>,
}

/// The strategy's settings.
pub(super) fn settings(snapshot: &Snapshot) -> Option<&BlueGreen> {
    let strategy = &snapshot.rollout.spec.strategy;
    strategy.blue_green.as_ref().filter(|_| strategy.type_ == StrategyType::BlueGreen)
}

impl<'a> Sets<'a> {
    /// None with another strategy.
    pub(super) fn of(snapshot: &'a Snapshot, lineage: &Lineage<'a>, assigned: Option<&'a str>) -> Option<Self> {
        let delay_seconds = settings(snapshot)?.scale_down_delay_seconds;
        let name = |revision: Option<&'a Revision>| revision.map(|revision| revision.name.as_str());
        let target = assigned.or(name(lineage.effective));
        let service = snapshot.services.active.seen();
        // Also one whose ControllerRevision somebody has deleted: clients use its Pods.
        let exists = |name: &&str| {
            snapshot.revisions.iter().any(|revision| revision.name == *name && !revision.deleting)
                || snapshot.pods.iter().any(|pod| pod.revision == *name && pod.is_live())
        };
        let selected = service.and_then(Service::revision).filter(exists);
        let status = snapshot.rollout.status.as_ref();
        let told = selected.or_else(|| status?.active_revision.as_deref().filter(exists));
        let stable = name(lineage.stable);
        let most_available = || (!lineage.is_first()).then(|| most_available(snapshot, stable)).flatten();
        let active = told.or_else(most_available).or(stable);
        let before = service.and_then(|service| service.switched.as_ref()).and_then(|Switched { from, at }| {
            let until = after(*at, i64::from(delay_seconds));
            let stays = until > snapshot.now && Some(from.as_str()) != selected && exists(&from.as_str());
            stays.then_some((from.as_str(), until))
        });
        let mut used = [active, before.map(|(before, _)| before)].into_iter().flatten();
        Some(Self { target, active, kept: used.find(|used| Some(*used) != target), before, selected, told })
    }

    /// Whether clients may use Pods of this revision.
    pub fn is_in_use(&self, revision: &str) -> bool {
        self.selected.is_none_or(|selected| selected == revision)
    }

    /// The Service selects the assigned set.
    pub fn is_switched(&self) -> bool {
        self.selected.is_some() && self.selected == self.target
    }
}

/// Where a Service selects none and nobody remembers: selecting this one takes least from clients. In doubt the stable one,
/// if somebody has not deleted that; and as long as the Service is not known that one anyhow, if there is anything of it.
fn most_available<'a>(snapshot: &'a Snapshot, stable: Option<&str>) -> Option<&'a str> {
    let is_stable = |pod: &Pod| Some(pod.revision.as_str()) == stable;
    if snapshot.services.active.seen().is_none() && snapshot.pods.iter().any(|pod| pod.is_live() && is_stable(pod)) {
        return None;
    }
    let min_ready_seconds = snapshot.rollout.spec.min_ready_seconds;
    let mut available: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| pod.is_available(min_ready_seconds, snapshot.now)) {
        *available.entry(&pod.revision).or_default() += 1;
    }
    available
        .into_iter()
        .max_by_key(|(revision, pods)| (*pods, Some(*revision) == stable))
        .map(|(revision, _)| revision)
}

/// The kept set's revision, where a Pod that it lost comes back: what has failed since clients used it does not, nor what nobody
/// has told them to use.
pub(super) fn refills<'a>(view: &View<'a>) -> Option<&'a Revision> {
    let sets = view.slots.sets()?;
    let is_told = |kept: &&Revision| sets.told.is_some() || view.lineage.is_stable(&kept.name);
    let kept = view.snapshot.revisions.iter().find(|revision| Some(revision.name.as_str()) == sets.kept);
    let kept = kept.filter(is_told)?;
    let has_failed = kept.failed_at.is_some_and(|failed| kept.completed_at.is_none_or(|completed| completed < failed));
    (sets.kept == sets.active || !has_failed).then_some(kept)
}

/// What holds the making of a set that clients do not use: they must be known to use another, and what is in no set must have
/// ended. Before anything has completed there is nobody to protect.
pub(super) fn preview_held(view: &View<'_>) -> Option<Hold> {
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
    let hold = recreate::hold(&view.slots, others.clone(), view.lineage.effective?)?;
    Some(if others.any(|pod| view.slots.was_in_use(pod)) { until_they_go(hold, sets) } else { hold })
}

/// What holds one more Pod in a slot before anything has completed: Pods of two superseded versions are there, and one of them is to
/// leave first. Superseded again and again, they would pile up.
pub(super) fn crowded(view: &View<'_>, slot: &Slot<'_>) -> Option<Hold> {
    view.slots.sets().filter(|sets| sets.active != sets.target && slot.others.len() > 1)?;
    if let Some(hold) = trouble(view) {
        return Some(hold);
    }
    recreate::hold(&view.slots, slot.others.iter().copied(), view.lineage.effective?)
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

/// What to do with the Services, and what holds the switch.
#[derive(Default)]
pub(super) struct Switch {
    pub changes: Vec<Change>,
    pub hold: Option<Hold>,
}

/// Has the Services select what they should.
pub(super) fn switch(view: &View<'_>, alarm: &mut Alarm) -> Switch {
    let Some(sets) = view.slots.sets() else { return Switch::default() };
    if let Some((_, until)) = sets.before {
        alarm.passed(until);
    }
    if let Some(hold) = trouble_of_active(view) {
        return Switch { changes: Vec::new(), hold: Some(hold) };
    }
    // A version that nobody has tried is not given to clients where it cannot be; the way back needs no preview.
    let unseen = trouble_of_preview(view);
    let is_new = || untried(view).is_some();
    // Between two versions, before the batch of the later one is opened, there is nothing to switch to; nor is there forward where
    // no instance is asked for.
    let is_opened = view.slots.opened() >= view.replicas() && (view.replicas() > 0 || view.lineage.is_back());
    let is_ready = is_opened && view.slots.wanted().all(|slot| view.slots.is_in_place(slot));
    let is_due = is_ready || (is_opened && !is_new() && is_rescue(view, sets));
    let hold =
        if is_due && !sets.is_switched() { unseen.clone().filter(|_| is_new()).or_else(|| held(view)) } else { None };
    let to = match sets.target.filter(|_| is_due && hold.is_none()) {
        // Without the key clients would get Pods of any set.
        None if sets.selected.is_none() && sets.active.is_some_and(|active| serves(view, active)) => sets.active,
        to => to,
    };
    let services = &view.snapshot.services;
    let active = services.active.seen().zip(to).and_then(|(service, to)| {
        let from = service.revision().or(sets.active).filter(|from| *from != to);
        point(view, service, to, from.map(|from| Switched { from: from.to_owned(), at: view.now() }))
    });
    let preview = services.preview.seen().zip(sets.target.filter(|_| is_ready && unseen.is_none()));
    let preview = preview.and_then(|(service, to)| point(view, service, to, None));
    Switch { changes: active.into_iter().chain(preview).collect(), hold: hold.or(unseen) }
}

/// Nobody answers in the set that clients use, and somebody would in the assigned one.
fn is_rescue(view: &View<'_>, sets: &Sets<'_>) -> bool {
    let answers = |revision: &str| view.snapshot.pods.iter().any(|pod| pod.revision == revision && pod.is_ready());
    sets.selected.is_some_and(|selected| !answers(selected)) && sets.target.is_some_and(|target| serves(view, target))
}

/// It has an available Pod.
fn serves(view: &View<'_>, revision: &str) -> bool {
    let available = |pod: &Pod| pod.is_available(view.spec().min_ready_seconds, view.now());
    view.snapshot.pods.iter().any(|pod| pod.revision == revision && available(pod))
}

/// Has this Service select Pods of this revision, and notes on it that clients have been `switched`.
fn point(view: &View<'_>, service: &Service, to: &str, switched: Option<Switched>) -> Option<Change> {
    let labels = if own_labels(service).next().is_none() { Some(&view.spec().selector.match_labels) } else { None };
    let is_due = service.revision() != Some(to) || labels.is_some();
    is_due.then(|| select(service, Some(to.to_owned()), labels.cloned().unwrap_or_default(), switched))
}

/// What its user has it select by.
fn own_labels(service: &Service) -> impl Iterator<Item = (&String, &String)> {
    service.selector.iter().filter(|(key, _)| *key != LABEL_REVISION)
}

/// Has this Service select Pods of this revision, or of any.
pub(super) fn select(
    service: &Service,
    revision: Option<String>,
    labels: BTreeMap<String, String>,
    switched: Option<Switched>,
) -> Change {
    Change::SwitchService {
        labels,
        name: service.name.clone(),
        uid: service.uid.clone(),
        resource_version: service.resource_version.clone(),
        revision,
        switched,
    }
}

/// What holds the switch to a set that is available.
fn held(view: &View<'_>) -> Option<Hold> {
    let paused = if view.lineage.is_back() { gates::paused_revert(view) } else { gates::paused(view) };
    gates::failed(view).or(paused).or_else(|| awaiting_approval(view))
}

/// What is worked towards, if clients have not used it. What it goes back to they have, also where somebody has deleted that
/// revision, and with it the mark.
fn untried<'a>(view: &View<'a>) -> Option<&'a Revision> {
    view.lineage.effective.filter(|target| target.completed_at.is_none() && !view.lineage.is_back())
}

/// A version that clients have used before needs nobody's word, nor does the first.
fn awaiting_approval(view: &View<'_>) -> Option<Hold> {
    let settings = settings(view.snapshot).filter(|settings| settings.promote == Promote::Manual)?;
    let target = untried(view)?;
    if view.lineage.is_first() || gates::is_approved(view, 1) {
        return None;
    }
    let preview = settings.preview_service.as_ref().map(|name| format!(" as Service {name}")).unwrap_or_default();
    let message = format!(
        "{} is available{preview}; waiting for approval to switch Service {} to it: {}",
        crate::plan::revision::version(&target.data),
        settings.active_service,
        gates::approval(view, "promote", 1)
    );
    Some(Hold { reason: HoldReason::AwaitingApproval, message, until: None })
}

/// There are Ready Pods of several revisions, and as long as the Service is not known clients may use those of any one: the
/// others are no substitute for them.
pub(super) fn may_use_either(view: &View<'_>) -> bool {
    let is_unknown = settings(view.snapshot).is_some() && view.snapshot.services.active == ServiceSeen::Unknown;
    let ready = || view.snapshot.pods.iter().filter(|pod| pod.is_live() && pod.is_ready());
    is_unknown && ready().zip(ready().skip(1)).any(|(one, other)| one.revision != other.revision)
}

/// Why a version that clients have not used cannot be given to them.
pub(super) fn trouble(view: &View<'_>) -> Option<Hold> {
    trouble_of_active(view).or_else(|| trouble_of_preview(view))
}

fn trouble_of_active(view: &View<'_>) -> Option<Hold> {
    let name = &settings(view.snapshot)?.active_service;
    let services = &view.snapshot.services;
    let claimed = services.claimed_by.as_ref().map(|other| {
        let message = format!(
            "Rollout {other} names the same Service: a Service belongs to one Rollout; name others in spec.strategy.blueGreen"
        );
        Hold { reason: HoldReason::ServiceInvalid, message, until: None }
    });
    trouble_of(view, name, "activeService", &services.active).or(claimed)
}

fn trouble_of_preview(view: &View<'_>) -> Option<Hold> {
    let name = settings(view.snapshot)?.preview_service.as_ref()?;
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
