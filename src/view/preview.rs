//! What applying a spec would do, batch by batch: the planner, folded over its own effects.
use std::collections::BTreeMap;

use crate::{
    api::rollout::Pause,
    plan::{
        Change, Hold, Memory, PodReason, RevisionMark, revision,
        rollout::{
            self, available_min,
            fold::{End, Step, World},
            total_max,
        },
    },
    snapshot::{Ranges, Snapshot},
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
    /// Services that are switched after that, each with the version that it selects then (strategy BlueGreen).
    pub switches: Vec<(String, String)>,
    /// The pause after it.
    pub pause: Option<Pause>,
    /// The version is noted as completed when it is done.
    pub completes: bool,
}

/// What happens to some instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// create, replace, delete or restart.
    pub verb: &'static str,
    /// The instances.
    pub instances: Ranges,
    /// The version they run afterwards; empty when they are gone.
    pub version: String,
    /// A new Pod is available before the old one leaves.
    pub surge: bool,
}

impl Preview {
    /// Nothing would be created, deleted, replaced or switched.
    pub fn is_empty(&self) -> bool {
        self.phases.iter().all(|phase| phase.actions.is_empty() && phase.switches.is_empty())
    }
}

/// Folds the planner from this snapshot on, whose Rollout is the one to be applied.
pub fn preview(snapshot: Snapshot) -> Preview {
    let spec = snapshot.rollout.spec.clone();
    let from = versions(&snapshot);
    let to = revision::version(&revision::data(&spec));
    let count = |snapshot: &Snapshot| snapshot.pods.iter().filter(|pod| !pod.is_finished()).count() as i32;
    let available = |snapshot: &Snapshot| {
        let available = snapshot.pods.iter().filter(|pod| pod.is_available(spec.min_ready_seconds, snapshot.now));
        available.count() as i32
    };
    let mut fewest = available(&snapshot);
    let mut most = count(&snapshot);
    let mut scribe = Scribe { before: present(&snapshot), ..Scribe::default() };
    // How long a Pod takes is not known; pauses and deadlines are told in their own seconds, not in these.
    let mut world = World::new(snapshot, 1);
    let end = world.run(|world, step| {
        fewest = fewest.min(available(&world.snapshot));
        most = most.max(count(&world.snapshot));
        scribe.write(world, step);
    });
    let ends = end != End::Endless;
    let held = if let End::Held(hold) = end { Some(hold) } else { None };
    Preview {
        from,
        to,
        phases: scribe.phases(&world),
        available: (fewest, available_min(&spec)),
        pods: (most, total_max(&spec)),
        held,
        ends,
    }
}

/// Versions of live Pods, oldest revision first.
fn versions(snapshot: &Snapshot) -> Vec<String> {
    let number = |name: &str| snapshot.revisions.iter().find(|r| r.name == name).map_or(0, |r| r.number);
    let mut pods: Vec<_> = snapshot.pods.iter().filter(|pod| pod.is_live()).collect();
    pods.sort_by_key(|pod| number(&pod.revision));
    let mut found: Vec<String> = Vec::new();
    for pod in pods {
        if !found.contains(&pod.version) {
            found.push(pod.version.clone());
        }
    }
    found
}

/// Slots that have a live Pod.
fn present(snapshot: &Snapshot) -> Ranges {
    snapshot.pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.slot).collect()
}

/// Which batch of which run; (run, 0, 0) outside one.
type Place = (i64, i32, i32);

#[derive(Default)]
struct Scribe {
    /// Slots with a live Pod at the beginning.
    before: Ranges,
    /// In order of their first change.
    places: Vec<Place>,
    /// (place, slot) → what was done to it.
    done: BTreeMap<(Place, i32), Done>,
    completed: Vec<Place>,
    /// Service and version.
    switches: Vec<(Place, (String, String))>,
}

#[derive(Clone, Debug, Default)]
struct Done {
    created: Option<String>,
    deleted: bool,
    created_first: bool,
    restart: bool,
}

impl Scribe {
    fn write(&mut self, world: &World, step: &Step) {
        let place = step.batch.as_ref().map_or((step.run, 0, 0), |batch| (step.run, batch.index, batch.count));
        for change in &step.changes {
            match change {
                Change::CreatePod { slot, revision, reason, .. } => {
                    let data = world.snapshot.revisions.iter().find(|r| r.name == *revision).map(|r| &r.data);
                    let done = self.done_at(place, *slot);
                    done.created_first |= !done.deleted;
                    done.created = Some(data.map(revision::version).unwrap_or_default());
                    done.restart |= *reason == PodReason::Restart;
                }
                Change::DeletePod { slot, reason, .. } => {
                    let done = self.done_at(place, *slot);
                    done.deleted = true;
                    done.restart |= *reason == PodReason::Restart;
                }
                Change::SwitchService { name, revision, .. } => {
                    let data = world.snapshot.revisions.iter().find(|r| r.name == *revision).map(|r| &r.data);
                    self.visit(place);
                    self.switches.push((place, (name.clone(), data.map(revision::version).unwrap_or_default())));
                }
                Change::MarkRevision { mark: RevisionMark::Completed { .. }, .. } => self.completed.push(place),
                _ => {}
            }
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

    fn phases(&self, world: &World) -> Vec<Phase> {
        let slots = rollout::slots(&world.snapshot, &Memory::of(world.snapshot.rollout.status.as_ref()));
        let ends = slots.boundaries();
        let phase = |place: &Place| {
            let (_, index, count) = *place;
            let boundary = usize::try_from(index).ok().filter(|_| count as usize == ends.len());
            let boundary = boundary.and_then(|index| ends.get(index.checked_sub(1)?));
            Phase {
                batch: (count > 0).then_some((index, count)),
                actions: self.actions(*place),
                switches: self
                    .switches
                    .iter()
                    .filter(|(at, _)| at == place)
                    .map(|(_, switch)| switch.clone())
                    .collect(),
                pause: boundary.and_then(|boundary| boundary.pause.clone()),
                completes: self.completed.contains(place),
            }
        };
        self.places.iter().map(phase).collect()
    }

    /// Slots to which the same was done, together.
    fn actions(&self, place: Place) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        for (_, (slot, done)) in
            self.done.iter().filter(|((at, _), _)| *at == place).map(|((at, slot), done)| (at, (*slot, done)))
        {
            let verb = match (&done.created, done.deleted) {
                _ if done.restart => "restart",
                (Some(_), true) => "replace",
                (Some(_), false) => "create",
                (None, _) => "delete",
            };
            let version = done.created.clone().unwrap_or_default();
            let surge = done.deleted && done.created_first && self.before.0.contains(&slot);
            match actions.iter_mut().find(|a| (a.verb, &a.version, a.surge) == (verb, &version, surge)) {
                Some(action) => drop(action.instances.0.insert(slot)),
                None => actions.push(Action { verb, instances: [slot].into_iter().collect(), version, surge }),
            }
        }
        actions
    }
}
