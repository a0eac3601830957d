//! What applying a spec would do, batch by batch: the planner, folded over its own effects.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    api::{
        RolloutSpec,
        hooks::{HookFailure, HookPoint, Point},
        names::ANNOTATION_POINT,
        rollout::{OnBreach, Pause},
    },
    plan::{
        Change, Hold, HoldReason, Memory, PodAct, PodReason, RevisionAct, RevisionMark, Seen, Selection, in_place,
        revision,
        rollout::{
            self, Policy, batches,
            fold::{End, Step, World},
        },
    },
    snapshot::{Agents, Pod, Ranges, Revision, Snapshot},
};

/// The way from what is to what the spec asks for, if every new Pod becomes ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Versions that live Pods run now, oldest revision first.
    pub from: Vec<String>,
    /// The version that the spec asks for.
    pub to: String,
    /// What is done, in order.
    pub phases: Vec<Phase>,
    /// Fewest instances available on the way, and the fewest allowed.
    pub available: (i32, i32),
    /// Most Pods at once, and the most allowed.
    pub pods: (i32, i32),
    /// Instances that run what they are pinned to.
    pub pinned: Ranges,
    /// Pins that mean nothing, and batches that are not in rising order: a sentence each.
    pub problems: Vec<String>,
    /// Names of the Pods of now that leave, or whose containers are started anew: others take their listeners over.
    pub interrupted: BTreeSet<String>,
    /// Fields of the spec that ask for new Pods at a time that is yet to come, and that time.
    pub later: Vec<(&'static str, Timestamp)>,
    /// What instances come through before they serve and before they leave, and how the run is watched: a sentence each.
    pub terms: Vec<String>,
    /// What stops it before its end, if anything does.
    pub held: Option<Hold>,
    /// False when the fold met its limit of steps: a defect of the planner.
    pub ends: bool,
}

/// Work on Pods between two boundaries.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Number of the batch and number of batches; None outside a run.
    pub batch: Option<(i32, i32)>,
    /// What happens to which instances.
    pub actions: Vec<Action>,
    /// Hooks that run before or after that.
    pub hooks: Vec<PlannedHook>,
    /// Services that are switched after that (strategy BlueGreen).
    pub switches: Vec<Switch>,
    /// The pause after it, unless that is approved already.
    pub pause: Option<Pause>,
    /// The version is noted as completed when it is done.
    pub completes: bool,
}

/// A hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedHook {
    /// Its name.
    pub name: String,
    /// Its point, such as BeforeRollout or AfterBatch/2.
    pub point: String,
    /// Before instances of the phase change; else after that.
    pub is_before: bool,
    /// How long an attempt may take.
    pub timeout_seconds: i32,
    /// How often it is tried again.
    pub retries: i32,
    /// Its failure does not end the run.
    pub is_ignored: bool,
}

/// A Service is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub service: String,
    /// The version that it selects then; None: any, as it was before Baton set a key.
    pub version: Option<String>,
    /// A person has to approve it.
    pub awaits_approval: bool,
}

/// What happens to some instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// create, replace, change, reload, delete, restart, pin or unpin.
    pub verb: &'static str,
    /// The instances.
    pub instances: Ranges,
    /// The version they run afterwards; empty when they are gone.
    pub version: String,
    /// What becomes of their Pods.
    pub way: Way,
    /// Why they are not changed in place, where that is asked for.
    pub why: String,
}

/// What becomes of the Pod of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is made, or goes, and no other has to do with it.
    Alone,
    /// A new Pod is available before it leaves.
    Surge,
    /// It leaves before there is a new one.
    OldFirst,
    /// It stays, and containers are started anew.
    InPlace,
    /// It stays, and its containers run on.
    Untouched,
    /// The same, with other resources.
    Resized,
    /// The same, and its application is told.
    Reloads,
}

impl Action {
    /// Of any instances.
    fn is_the_same(&self, other: &Self) -> bool {
        let what = |action: &Self| (action.verb, action.way);
        what(self) == what(other) && self.version == other.version && self.why == other.why
    }
}

impl Preview {
    /// Nothing would be created, deleted, replaced, switched or waited for.
    pub fn is_empty(&self) -> bool {
        let is_idle = |phase: &Phase| {
            phase.actions.is_empty() && phase.switches.is_empty() && phase.pause.is_none() && phase.hooks.is_empty()
        };
        self.phases.iter().all(is_idle)
    }
}

/// Folds the planner from this snapshot on, whose Rollout is the one to be applied.
pub fn preview(snapshot: Snapshot) -> Preview {
    let spec = snapshot.rollout.spec.clone();
    let before: BTreeMap<String, String> =
        live(&snapshot).map(|pod| (pod.revision.clone(), pod.version.clone())).collect();
    let count = |snapshot: &Snapshot| snapshot.pods.iter().filter(|pod| !pod.is_finished()).count() as i32;
    let available = |snapshot: &Snapshot| {
        let available = snapshot.pods.iter().filter(|pod| pod.is_available(spec.min_ready_seconds, snapshot.now));
        available.count() as i32
    };
    let later = [("spec.restartAt", &spec.restart_at), ("spec.retryAt", &spec.retry_at)];
    let later = later.into_iter().filter_map(|(field, at)| Some((field, at.as_ref()?.0)));
    let later = later.filter(|(_, at)| *at > snapshot.now).collect();
    let mut fewest = available(&snapshot);
    let mut most = count(&snapshot);
    let pods = snapshot.pods.iter().map(|pod| pod.uid.clone()).collect();
    let mut scribe = Scribe { before: present(&snapshot), pods, ..Scribe::default() };
    // How long a Pod takes is not known; pauses and deadlines are told in their own seconds, not in these. Nor is what agents
    // will say: Pods are in service as if no agent was asked for.
    let mut world = World::new(Snapshot { agents: Agents::NotAsked, ..snapshot }, 1);
    let end = world.run(|world, step| {
        fewest = fewest.min(available(&world.snapshot));
        most = most.max(count(&world.snapshot));
        scribe.write(world, step);
    });
    let ends = end != End::Endless;
    let held = if let End::Held(hold) = end { Some(hold) } else { None };
    let pinned = rollout::pinned(&world.snapshot);
    let in_play = scribe.revisions(&before);
    let in_play = in_play.iter().map(String::as_str).collect();
    let names =
        Names { revisions: &world.snapshot.revisions, called: revision::called(&world.snapshot.revisions, &in_play) };
    let wanted = revision::data(&spec);
    let wanted_name = world.snapshot.revisions.iter().find(|revision| revision.data == wanted).map(|it| &it.name);
    let problems = rollout::pin_problems(&world.snapshot).into_iter().map(|(_, problem)| problem);
    Preview {
        from: names.of_all(&before),
        to: wanted_name.map_or_else(|| revision::version(&wanted), |name| names.of(name)),
        phases: scribe.phases(&world, &pinned, &names),
        available: (fewest, Policy::of(&spec).fewest_available()),
        pods: (most, Policy::of(&spec).room.total_max),
        pinned,
        problems: batches::warning(&spec.strategy, spec.replicas).into_iter().chain(problems).collect(),
        interrupted: scribe.interrupted,
        terms: terms(&spec, before.is_empty()),
        later,
        held,
        ends,
    }
}

/// Health, drain and soak in a sentence each.
fn terms(spec: &RolloutSpec, is_first: bool) -> Vec<String> {
    let health = spec.health.as_ref().map(|health| {
        let names = health.checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ");
        let (attempts, period) = (health.attempts, health.period_seconds);
        format!("A new instance serves once its checks pass ({names}): {attempts} attempts, {period} s apart.")
    });
    let drain = spec
        .drain
        .as_ref()
        .map(|drain| format!("An instance that leaves is drained first, for at most {} s.", drain.timeout_seconds));
    let soak = spec.soak.as_ref().filter(|_| !is_first).map(|soak| {
        let then = match soak.on_breach {
            OnBreach::Notify => "leads to an Event",
            OnBreach::Pause => "waits for approval",
            OnBreach::Rollback => "fails the run",
        };
        format!("All instances are watched for {} s before the run completes; a broken limit {then}.", soak.seconds)
    });
    [health, drain, soak].into_iter().flatten().collect()
}

/// What people read for the revisions of a preview.
struct Names<'a> {
    revisions: &'a [Revision],
    /// Told apart are those that Pods run on the way.
    called: BTreeMap<&'a str, String>,
}

impl Names<'_> {
    /// Empty where it is not known.
    fn of(&self, revision: &str) -> String {
        self.called.get(revision).cloned().unwrap_or_default()
    }

    /// Of revisions by name, with what their Pods say: oldest revision first.
    fn of_all(&self, pods: &BTreeMap<String, String>) -> Vec<String> {
        let number = |name: &str| self.revisions.iter().find(|r| r.name == name).map_or(0, |r| r.number);
        let mut sorted: Vec<_> = pods.iter().collect();
        sorted.sort_by_key(|(name, _)| number(name));
        let mut found: Vec<String> = Vec::new();
        for (name, version) in sorted {
            let known = Some(self.of(name)).filter(|known| !known.is_empty()).unwrap_or_else(|| version.clone());
            if !found.contains(&known) {
                found.push(known);
            }
        }
        found
    }
}

fn live(snapshot: &Snapshot) -> impl Iterator<Item = &Pod> {
    snapshot.pods.iter().map(AsRef::as_ref).filter(|pod| pod.is_live())
}

/// Slots that have a live Pod.
fn present(snapshot: &Snapshot) -> Ranges {
    live(snapshot).map(|pod| pod.slot).collect()
}

/// Which batch of which run; (run, 0, 0) outside one.
type Place = (i64, i32, i32);

#[derive(Default)]
struct Scribe {
    /// Slots with a live Pod at the beginning.
    before: Ranges,
    /// uids of the Pods of then.
    pods: BTreeSet<String>,
    /// Of these, names of those that leave or whose containers are started anew.
    interrupted: BTreeSet<String>,
    /// In order of their first change.
    places: Vec<Place>,
    /// (place, slot) → what was done to it.
    done: BTreeMap<(Place, i32), Done>,
    completed: Vec<Place>,
    /// Service, name of the revision that it selects, and whether a person has to approve that.
    switches: Vec<(Place, String, Option<String>, bool)>,
    /// Hooks that run, in their order.
    hooks: Vec<(Place, PlannedHook)>,
    /// Pauses that held.
    pauses: BTreeMap<Place, Pause>,
    /// Where a person has been asked.
    asked: Option<Place>,
}

#[derive(Clone, Debug, Default)]
struct Done {
    /// Names of the revisions that its Pods were of.
    deleted: Option<String>,
    created: Option<String>,
    created_first: bool,
    /// Changed in place: the revision that its Pod has come to, and what that means for it.
    changed: Option<(String, Way)>,
    reason: Option<PodReason>,
    /// A Pod of it cannot say that it leaves service.
    is_ungated: bool,
    /// What keeps a Pod of it from getting its resources.
    held: Option<String>,
}

impl Done {
    /// Name of the revision that its Pod is of afterwards.
    fn to(&self) -> Option<&String> {
        self.changed.as_ref().map(|(to, _)| to).or(self.created.as_ref())
    }
}

impl Scribe {
    fn write(&mut self, world: &World, step: &Step) {
        let place = step.batch.as_ref().map_or((step.run, 0, 0), |batch| (step.run, batch.index, batch.count));
        for change in &step.changes {
            match change {
                Change::CreatePod { slot, revision, reason, .. } => {
                    let done = self.done_at(place, *slot);
                    done.created_first |= done.deleted.is_none();
                    done.created = Some(revision.clone());
                    // Why an old Pod has left says more than that a new one is missing then.
                    done.reason = done.reason.or(Some(*reason));
                }
                Change::Pod { act: PodAct::Delete { reason: PodReason::Kept, .. }, .. } => {} // it is of no instance any more
                Change::Pod { seen: Seen { name, uid, .. }, act: PodAct::Delete { slot, reason, .. } } => {
                    self.interrupt(name, uid);
                    let pod = world.snapshot.pods.iter().find(|pod| pod.uid == *uid);
                    let done = self.done_at(place, *slot);
                    done.deleted = Some(pod.map(|pod| pod.revision.clone()).unwrap_or_default());
                    done.is_ungated |= pod.is_some_and(|pod| pod.in_service.is_none());
                    let held = pod.and_then(|pod| pod.resizing());
                    done.held = held.map(|(reason, message)| format!("{reason}: {message}"));
                    done.reason = done.reason.or(Some(*reason));
                }
                Change::Pod {
                    seen: Seen { name, uid, .. },
                    act: PodAct::ChangeInPlace { slot, revision, restarts, resizes, reason, .. },
                } => {
                    if *restarts {
                        self.interrupt(name, uid);
                    }
                    let way = match (restarts, resizes) {
                        (true, _) => Way::InPlace,
                        (false, true) => Way::Resized,
                        (false, false) => Way::Untouched,
                    };
                    let done = self.done_at(place, *slot);
                    done.changed = Some((revision.clone(), way));
                    done.reason = Some(*reason);
                }
                Change::CreateHook { hook, job, .. } => self.hook(world, place, hook, job),
                Change::Service { seen: Seen { name, .. }, select: Selection { revision, switched, .. } } => {
                    let awaits_approval = switched.is_some() && self.asked == Some(place);
                    self.visit(place);
                    self.switches.push((place, name.clone(), revision.clone(), awaits_approval));
                }
                Change::Revision { act: RevisionAct::Mark(RevisionMark::Completed { .. }), .. } => {
                    self.completed.push(place);
                }
                _ => {}
            }
        }
        let held = step.hold.as_ref().map(|hold| hold.reason);
        if held == Some(HoldReason::AwaitingApproval) {
            self.asked = Some(place);
        }
        if matches!(held, Some(HoldReason::AwaitingApproval | HoldReason::PauseTimer)) {
            let slots = rollout::slots(&world.snapshot, &Memory::of(world.snapshot.rollout.status.as_ref()));
            if let Some((_, pause)) = slots.pause() {
                self.visit(place);
                self.pauses.insert(place, pause.clone());
            }
        }
    }

    /// Names of the revisions that Pods run on the way, these included.
    fn revisions(&self, before: &BTreeMap<String, String>) -> BTreeSet<String> {
        let made = self.done.values().flat_map(|done| [done.created.as_ref(), done.changed.as_ref().map(|(to, _)| to)]);
        made.flatten().chain(before.keys()).cloned().collect()
    }

    fn hook(&mut self, world: &World, place: Place, name: &str, job: &serde_json::Value) {
        let point = job["metadata"]["annotations"][ANNOTATION_POINT].as_str().unwrap_or_default();
        let hook = world.snapshot.rollout.spec.hook(name);
        let (Some(hook), Ok(at)) = (hook, point.parse::<Point>()) else { return };
        let batch = if at.batch > 0 { at.batch } else { place.1 };
        let is_before = !matches!(at.on, HookPoint::AfterBatch | HookPoint::AfterRollout);
        let place = (place.0, batch, place.2);
        self.visit(place);
        let planned = PlannedHook {
            name: name.to_owned(),
            point: point.to_owned(),
            is_before,
            timeout_seconds: hook.timeout_seconds,
            retries: hook.retries,
            is_ignored: hook.on_failure == HookFailure::Ignore || at.on == HookPoint::OnRollback,
        };
        self.hooks.push((place, planned));
    }

    fn interrupt(&mut self, name: &str, uid: &str) {
        if self.pods.contains(uid) {
            self.interrupted.insert(name.to_owned());
        }
    }

    fn visit(&mut self, place: Place) {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
    }

    fn done_at(&mut self, place: Place, slot: i32) -> &mut Done {
        self.visit(place);
        self.done.entry((place, slot)).or_default()
    }

    fn phases(&self, world: &World, pinned: &Ranges, names: &Names<'_>) -> Vec<Phase> {
        let phase = |place: &Place| {
            let (_, index, count) = *place;
            Phase {
                batch: (count > 0).then_some((index, count)),
                actions: self.actions(*place, world, pinned, names),
                hooks: self.hooks.iter().filter(|(at, _)| at == place).map(|(_, hook)| hook.clone()).collect(),
                switches: self.switches_at(*place, names),
                pause: self.pauses.get(place).cloned(),
                completes: self.completed.contains(place),
            }
        };
        self.places.iter().map(phase).collect()
    }

    fn switches_at(&self, place: Place, names: &Names<'_>) -> Vec<Switch> {
        let here = self.switches.iter().filter(|(at, ..)| *at == place);
        here.map(|(_, service, revision, awaits_approval)| Switch {
            service: service.clone(),
            version: revision.as_deref().map(|name| names.of(name)),
            awaits_approval: *awaits_approval,
        })
        .collect()
    }

    /// Slots to which the same was done, together.
    fn actions(&self, place: Place, world: &World, pinned: &Ranges, names: &Names<'_>) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        let at_place = self.done.iter().filter(|((at, _), _)| *at == place);
        for (slot, done) in at_place.map(|((_, slot), done)| (*slot, done)) {
            let version = done.to().map(|to| names.of(to)).unwrap_or_default();
            let action = Action { version, ..self.action(slot, done, world, pinned.0.contains(&slot)) };
            match actions.iter_mut().find(|known| known.is_the_same(&action)) {
                Some(known) => drop(known.instances.0.insert(slot)),
                None => actions.push(action),
            }
        }
        actions
    }

    fn action(&self, slot: i32, done: &Done, world: &World, is_pinned: bool) -> Action {
        let snapshot = &world.snapshot;
        let update = snapshot.rollout.spec.strategy.update;
        let way = match done {
            Done { changed: Some(_), .. } if update.reloads() => Way::Reloads,
            Done { changed: Some((_, way)), .. } => *way,
            Done { deleted: Some(_), created: Some(_), created_first, .. } => {
                if *created_first && self.before.0.contains(&slot) { Way::Surge } else { Way::OldFirst }
            }
            _ => Way::Alone,
        };
        let verb = match (done.reason, way) {
            (Some(PodReason::Restart), _) => "restart",
            (Some(PodReason::Pin), _) if is_pinned => "pin",
            (Some(PodReason::Pin), _) => "unpin",
            (_, Way::InPlace | Way::Untouched | Way::Resized) => "change",
            (_, Way::Reloads) => "reload",
            (_, Way::Surge | Way::OldFirst) => "replace",
            (_, Way::Alone) if done.created.is_some() => "create",
            (_, Way::Alone) => "delete",
        };
        let data = |name: &String| snapshot.revisions.iter().find(|r| r.name == *name).map(|r| &r.data);
        let to = done.to().and_then(data);
        let from = done.deleted.as_ref().and_then(data);
        let asks = update.is_in_place() && verb != "restart";
        let difference =
            from.zip(to).filter(|_| asks).map(|(from, to)| in_place::permitted(update.reloads(), from, to));
        Action {
            verb,
            instances: [slot].into_iter().collect(),
            version: String::new(),
            way,
            why: match difference {
                Some(Err(why)) => why,
                Some(Ok(difference)) if done.is_ungated && difference.restarts() => {
                    "it was made without the readiness gate that changes in place need".into()
                }
                _ => done.held.clone().unwrap_or_default(),
            },
        }
    }
}
