//! Which Pods stand in which slot, and what each slot is assigned.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use jiff::Timestamp;

use super::{batches::Batches, packages::Bound, pins::Target, recreate, revisions::Lineage, sets::Sets};
use crate::{
    api::{
        rollout::{Pause, Pin},
        status::Failed,
    },
    plan::{
        change::Memory,
        revision,
        rollout::{
            pod::{agent, failure::failure_of, health, reload, resize},
            policy::{GoesBack, Policy},
            time::{reached, seconds},
        },
    },
    snapshot::{Pod, Ranges, Revision, Snapshot},
};

/// The name of no revision: what a pin asks for is made first, and until then its slot keeps what it has.
const NOT_MADE_YET: &str = "";

/// All slots that have a Pod or should have one.
pub struct Slots<'a> {
    by_index: BTreeMap<i32, Slot<'a>>,
    replicas: i32,
    opened: i32,
    left_out: Ranges,
    batches: Batches,
    min_ready_seconds: i32,
    renewal: Renewal<'a>,
    sets: Option<Sets<'a>>,
    /// The revisions that the spec asks for, that are stable, and that are worked towards.
    in_lineage: [Option<&'a Revision>; 3],
    /// What people read for each revision, once that was asked for: a planner seldom does.
    called: OnceLock<BTreeMap<&'a str, String>>,
    snapshot: &'a Snapshot,
    now: Timestamp,
}

/// Which Pods of the right revision are to be replaced all the same.
#[derive(Clone, Default)]
struct Renewal<'a> {
    /// All that are older: `spec.restartAt`, once reached.
    restart_at: Option<Timestamp>,
    /// Those of this revision that are older and not ready, or failing: `spec.retryAt`, once reached, while the run it
    /// began is on. The stable revision was never retried, and its Pods may blink.
    retry: Option<(&'a str, Timestamp)>,
    /// Those that have fetched another package than the first instance of their revision.
    packages: Bound<'a>,
    /// Those that do not get the resources of their revision, by uid.
    given_up: BTreeSet<&'a str>,
}

impl Renewal<'_> {
    fn is_due(&self, pod: &Pod) -> bool {
        let retry = self.retry.filter(|(revision, at)| pod.revision == *revision && pod.runs_since_before(*at));
        self.restart_at.is_some_and(|at| pod.precedes(at))
            || self.packages.differs_from(pod)
            || self.given_up.contains(pod.uid.as_str())
            || (retry.is_some()
                && (!pod.is_ready()
                    || failure_of(pod).is_some()
                    || pod.untold_since().is_some()
                    || pod.resize.is_some()))
    }
}

/// One slot.
pub struct Slot<'a> {
    /// Its number.
    pub index: i32,
    /// Name of the revision it is assigned; None beyond replicas, and while that revision does not exist.
    pub assigned: Option<&'a str>,
    /// The pin that assigns it: the slot is in no batch.
    pub pin: Option<&'a Pin>,
    /// Below [`Slots::opened`], and the batches reckon with it: not unpinned since they were made.
    pub opened: bool,
    /// Unpinned since the batches of the present run were made: it joins once that has completed.
    pub joins_later: bool,
    /// Live Pods, the best first: by (fresh, available, ready, older, name). With strategy BlueGreen those of the assigned set.
    pub live: Vec<&'a Pod>,
    /// Live Pods of the set that is kept beside it, the best first.
    pub kept: Vec<&'a Pod>,
    /// Live Pods of no set.
    pub others: Vec<&'a Pod>,
    /// Finished, not Terminating.
    pub finished: Vec<&'a Pod>,
    /// Terminating.
    pub terminating: Vec<&'a Pod>,
    /// `live[0]` is what the slot should run: of the assigned revision, and no restart or retry is due for it.
    pub fresh: bool,
}

/// How far the opened slots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Every wanted slot that is not pinned runs exactly what it is assigned, available, and all are opened.
    All,
    /// The opened ones do (save as many failed ones as the threshold allows).
    Opened,
    /// These opened slots do not, lowest first.
    Not(Vec<i32>),
}

impl<'a> Slots<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, lineage: &Lineage<'a>, memory: &Memory) -> Self {
        let spec = &snapshot.rollout.spec;
        let replicas = Policy::of(spec).replicas;
        let opened = opened(lineage, memory, replicas, spec.strategy.type_.is_at_once());
        let effective = lineage.effective.map(|revision| revision.name.as_str());
        let stable = recreate::alone(snapshot).or_else(|| lineage.stable.map(|revision| revision.name.as_str()));
        let retried = effective.filter(|_| memory.batch.is_some() && !lineage.is_back());
        let renewal = Renewal {
            restart_at: reached(spec.restart_at.as_ref(), snapshot.now),
            retry: retried.zip(reached(spec.retry_at.as_ref(), snapshot.now)),
            packages: Bound::of(snapshot),
            given_up: resize::given_up(snapshot),
        };
        let (rolled_back, left_out) = (rolled_back(snapshot, lineage, memory), left_out(snapshot, lineage, memory));
        let mut slots: BTreeMap<i32, Slot<'a>> = BTreeMap::new();
        for index in 0..replicas {
            let joins_later = left_out.0.contains(&index) && lineage.pins.get(index).is_none();
            let is_opened = index < opened && !joins_later;
            let is_forward = is_opened && !rolled_back.0.contains(&index);
            let unpinned = if is_forward { effective } else { stable };
            let (assigned, pin) = match lineage.pins.get(index) {
                None => (unpinned, None),
                Some((pin, Target::Is(revision))) => (Some(revision.name.as_str()), Some(pin)),
                Some((pin, Target::Due(_))) => (Some(NOT_MADE_YET), Some(pin)),
                // It stays what it runs, if it runs something; where nothing has completed yet, the first revision has it.
                Some((pin, Target::Invalid(_))) => (stable.or(effective), Some(pin).filter(|_| !lineage.is_first())),
            };
            slots.insert(index, Slot { opened: is_opened, joins_later, ..Slot::empty(index, assigned, pin) });
        }
        // With that strategy all slots are assigned the same.
        let sets = Sets::of(snapshot, lineage, if opened < replicas { stable } else { effective });
        for pod in &snapshot.pods {
            let slot = slots.entry(pod.slot).or_insert_with(|| Slot::empty(pod.slot, None, None));
            match pod.deletion {
                Some(_) => slot.terminating.push(pod),
                None if pod.is_finished() => slot.finished.push(pod),
                None => slot.place(pod, sets.filter(|_| (0..replicas).contains(&pod.slot))),
            }
        }
        for slot in slots.values_mut() {
            let rank =
                |pod: &Pod| (!pod.is_available(spec.min_ready_seconds, snapshot.now), !pod.is_ready(), pod.created);
            if slot.pin.is_some() && matches!(lineage.pins.get(slot.index), Some((_, Target::Invalid(_)))) {
                let best = slot.live.iter().min_by_key(|pod| (rank(pod), &pod.name));
                slot.assigned = best.map(|best| best.revision.as_str()).or(slot.assigned);
            }
            let assigned = slot.assigned;
            let fresh = |pod: &Pod| Some(pod.revision.as_str()) == assigned && !renewal.is_due(pod);
            slot.live.sort_by_key(|pod| (!fresh(pod), rank(pod), &pod.name));
            slot.kept.sort_by_key(|pod| (rank(pod), &pod.name));
            slot.others.sort_by_key(|pod| (rank(pod), &pod.name));
            slot.finished.sort_by_key(|pod| &pod.name);
            slot.terminating.sort_by_key(|pod| &pod.name);
            slot.fresh = slot.live.first().is_some_and(|best| fresh(best));
        }
        Self {
            by_index: slots,
            replicas,
            opened,
            batches: Batches::around(&spec.strategy, replicas, &left_out),
            left_out,
            min_ready_seconds: spec.min_ready_seconds,
            renewal,
            sets,
            in_lineage: [lineage.update, lineage.stable, lineage.effective],
            called: OnceLock::new(),
            snapshot,
            now: snapshot.now,
        }
    }

    /// What people read for this revision: see [`revision::called`]. Named with their numbers are those of the lineage, and those
    /// that run.
    pub fn called(&self, revision: &str) -> Option<String> {
        let called = self.called.get_or_init(|| {
            let named = self.in_lineage.into_iter().flatten().map(|it| it.name.as_str());
            let run = self.snapshot.pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.revision.as_str());
            revision::called(&self.snapshot.revisions, &named.chain(run).collect())
        });
        called.get(revision).cloned()
    }

    /// The same of a Pod's; what the Pod says where its revision is gone.
    pub fn called_of(&self, pod: &Pod) -> String {
        self.called(&pod.revision).unwrap_or_else(|| pod.version.clone())
    }

    /// Slots 0 … replicas - 1.
    pub fn wanted(&self) -> impl Iterator<Item = &Slot<'a>> {
        self.by_index.range(0..self.replicas).map(|(_, slot)| slot)
    }

    /// The slot of this number, if it is below replicas.
    pub fn wanted_at(&self, index: i32) -> Option<&Slot<'a>> {
        self.by_index.get(&index).filter(|_| (0..self.replicas).contains(&index))
    }

    /// Those of them that batches are made of.
    pub fn unpinned(&self) -> impl Iterator<Item = &Slot<'a>> {
        self.wanted().filter(|slot| slot.pin.is_none())
    }

    /// Every pinned slot runs what it is pinned to, available.
    pub fn are_pins_done(&self) -> bool {
        self.wanted().filter(|slot| slot.pin.is_some()).all(|slot| self.is_done(slot))
    }

    /// The batches: they count the slots that are not pinned.
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// The number of the batch in work, and the pause after it, where all of the batch is opened.
    pub fn pause(&self) -> Option<(usize, &Pause)> {
        let number = self.batches.index_of(self.opened);
        self.batches
            .pause(number)
            .filter(|_| self.batches.end(number) == Some(self.opened))
            .map(|pause| (number, pause))
    }

    /// The slots of the batch in work that it was opened with.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Slot<'a>> {
        let before = self.batches.ends.iter().map(|boundary| boundary.up_to).rfind(|end| *end < self.opened);
        let members = self.by_index.range(before.unwrap_or(0)..self.opened).map(|(_, slot)| slot);
        members.filter(|slot| !self.left_out.0.contains(&slot.index))
    }

    /// Slots that should not exist, highest first.
    pub fn unwanted(&self) -> impl Iterator<Item = &Slot<'a>> {
        self.by_index.values().rev().filter(|slot| slot.index >= self.replicas || slot.index < 0)
    }

    /// Every slot, by number.
    pub fn all(&self) -> impl Iterator<Item = &Slot<'a>> {
        self.by_index.values()
    }

    /// Number of opened slots: below it the effective revision is assigned, above it the stable one, save where one is pinned.
    pub fn opened(&self) -> i32 {
        self.opened
    }

    /// The sets of Pods, with strategy BlueGreen.
    pub fn sets(&self) -> Option<&Sets<'a>> {
        self.sets.as_ref()
    }

    /// Clients use it, as far as a strategy makes a difference.
    pub fn is_in_use(&self, pod: &Pod) -> bool {
        self.sets.is_none_or(|sets| sets.is_in_use(&pod.revision))
    }

    /// They used it until a moment ago: some, and what leads them, have yet to hear of the switch.
    pub fn was_in_use(&self, pod: &Pod) -> bool {
        let before = self.sets.and_then(|sets| sets.before);
        pod.is_ready() && before.is_some_and(|(before, _)| before == pod.revision)
    }

    /// Nothing is left beyond replicas but what stays for clients who have yet to hear of a switch.
    pub fn are_unwanted_gone(&self) -> bool {
        self.unwanted().flat_map(|slot| &slot.live).all(|pod| self.was_in_use(pod))
    }

    /// The same as [`Self::is_in_use`] for people and listeners, also where nothing may be done upon it.
    pub fn is_told_in_use(&self, pod: &Pod) -> bool {
        self.sets.and_then(|sets| sets.told).is_none_or(|told| pod.revision == told)
    }

    /// To be replaced although it is of the right revision: a restart or a retry is due for it.
    pub fn is_renewal_due(&self, pod: &Pod) -> bool {
        self.renewal.is_due(pod)
    }

    /// To be replaced because it does not get the resources of its revision where it is.
    pub(crate) fn is_given_up(&self, pod: &Pod) -> bool {
        self.renewal.given_up.contains(pod.uid.as_str())
    }

    /// Runs exactly what it is assigned, it is available, and the listeners that it should hold run.
    pub fn is_done(&self, slot: &Slot<'_>) -> bool {
        self.is_in_place(slot)
            && agent::are_listeners_settled(self.snapshot, slot.live[0])
            && !self.awaits_listeners(slot)
    }

    /// Since the switch its old Pod has yet to give its listeners to the new one: they are where clients are.
    fn awaits_listeners(&self, slot: &Slot<'_>) -> bool {
        let is_switched = self.sets.is_some_and(|sets| sets.is_switched());
        let mut old = slot.kept.iter().chain(&slot.others).filter(|_| is_switched);
        let is_heir = |pod: &&Pod| agent::is_heir(self.snapshot, pod);
        slot.live.first().is_some_and(is_heir) && old.any(|pod| agent::holds(self.snapshot, pod))
    }

    /// [`Self::is_done`], listeners aside.
    pub fn is_in_place(&self, slot: &Slot<'_>) -> bool {
        slot.fresh && slot.live.len() == 1 && self.has_all(slot.live[0])
    }

    /// Available, and with all that it was given in place.
    pub fn has_all(&self, pod: &Pod) -> bool {
        pod.is_available(self.min_ready_seconds, self.now)
            && pod.resize.is_none()
            && reload::is_done(self.snapshot, pod)
    }

    /// In a word or two, why it is not done.
    pub fn state(&self, slot: &Slot<'_>) -> String {
        let Some(best) = slot.live.first() else {
            let leaving = slot.terminating.first().or(slot.finished.first());
            return leaving.map_or_else(|| "not created yet".into(), |pod| format!("waits for {} to end", pod.name));
        };
        if let Some((reason, message)) = best.resizing().filter(|_| Some(best.revision.as_str()) == slot.assigned) {
            return format!("{reason}: {message}");
        }
        if !slot.fresh {
            return format!("still at {}", self.called_of(best));
        }
        if let Some((reason, _)) = slot.cause() {
            return reason;
        }
        if let Some(transit) = best.in_transit(self.now) {
            return format!("container {} has yet to run its new image", transit.container);
        }
        if let Some(reload) = reload::in_words(self.snapshot, best).filter(|_| best.is_ready()) {
            return reload;
        }
        if let Some(health) = health::in_words(self.snapshot, best) {
            return health;
        }
        let ripe_later = || reload::ripe_later(self.snapshot, best);
        match best.available_later(self.min_ready_seconds, self.now).or_else(ripe_later) {
            Some(at) => format!("ready, available at {}", seconds(at).0),
            None if self.awaits_listeners(slot) => "its listeners move".into(),
            None if best.is_ready() && slot.live.len() == 1 => "its listeners start".into(),
            None if best.is_ready() => "old Pod leaves".into(),
            None => "not ready".into(),
        }
    }

    /// How far the opened slots are.
    pub fn done(&self) -> Done {
        let undone: Vec<i32> =
            self.unpinned().filter(|slot| slot.opened && !self.is_done(slot)).map(|slot| slot.index).collect();
        if !undone.is_empty() {
            return Done::Not(undone);
        }
        let rest_gone = self.all().all(|slot| slot.others.is_empty()) && self.are_unwanted_gone();
        let is_in_use = self.sets.is_none_or(|sets| sets.is_switched());
        if self.opened >= self.replicas && rest_gone && is_in_use { Done::All } else { Done::Opened }
    }
}

impl<'a> Slot<'a> {
    /// What keeps its best Pod from running, where the Pod says so: Kubernetes' own word, and a sentence.
    pub(crate) fn cause(&self) -> Option<(String, String)> {
        let best = self.live.first()?;
        let failure = failure_of(best).map(|failure| (failure.reason, failure.message));
        let unschedulable = || best.unschedulable.clone().map(|message| ("Unschedulable".to_owned(), message));
        failure.or_else(unschedulable).or_else(|| best.resizing())
    }

    fn empty(index: i32, assigned: Option<&'a str>, pin: Option<&'a Pin>) -> Self {
        let [live, kept, others, finished, terminating] = [const { Vec::new() }; 5];
        let [opened, joins_later, fresh] = [false; 3];
        Self { index, assigned, pin, opened, joins_later, live, kept, others, finished, terminating, fresh }
    }

    /// Puts a live Pod where it belongs.
    fn place(&mut self, pod: &'a Pod, sets: Option<Sets<'a>>) {
        let is_of = |set: Option<&str>| set == Some(pod.revision.as_str());
        match sets {
            Some(sets) if is_of(sets.kept) => self.kept.push(pod),
            Some(sets) if !is_of(sets.target) => self.others.push(pod),
            _ => self.live.push(pod),
        }
    }

    /// All that live.
    pub fn all_live(&self) -> impl Iterator<Item = &'a Pod> + use<'_, 'a> {
        self.live.iter().chain(&self.kept).chain(&self.others).copied()
    }
}

/// Pinning a slot during a run does not shift batch boundaries; otherwise another instance would silently become the canary. A
/// strategy that changes all instances at once has no batches.
fn left_out(snapshot: &Snapshot, lineage: &Lineage<'_>, memory: &Memory) -> Ranges {
    let has_batches = !snapshot.rollout.spec.strategy.type_.is_at_once();
    let batch = memory.batch.as_ref().filter(|_| has_batches);
    batch.map_or_else(|| lineage.pins.slots(), |batch| Ranges::parse(&batch.pinned))
}

/// The failed instances of this run, which alone go back with onFailure RollbackFailed.
fn rolled_back(snapshot: &Snapshot, lineage: &Lineage<'_>, memory: &Memory) -> Ranges {
    let goes_back = Policy::of(&snapshot.rollout.spec).goes_back == GoesBack::FailedOnly
        && lineage.stable.is_some()
        && !lineage.is_back();
    let failed = memory.failed.as_ref().filter(|failed| goes_back && failed.at.is_some() && failed.run == memory.run);
    let Some(failed) = failed else { return Ranges::default() };
    let back = back(failed);
    if !back.is_empty() {
        return back;
    }
    // Status was lost: what is at the stable revision has gone back.
    let pods = snapshot.pods.iter().filter(|pod| pod.is_live() && lineage.is_stable(&pod.revision));
    pods.map(|pod| pod.slot).collect()
}

/// On the first creation, on the way back and outside a run every slot is assigned the effective revision at once.
fn opened(lineage: &Lineage<'_>, memory: &Memory, replicas: i32, is_at_once: bool) -> i32 {
    match &memory.batch {
        Some(batch) if !lineage.is_back() && !lineage.is_first() => {
            // What is new by scaling joins a run that changes all at once.
            if is_at_once && batch.opened > 0 { replicas } else { batch.opened.clamp(0, replicas) }
        }
        _ => replicas,
    }
}

/// Instances that are at, or go to, the stable revision where only those go back that have failed.
pub fn back(failed: &Failed) -> Ranges {
    let mut back = Ranges::parse(&failed.slots);
    back.0.extend(Ranges::parse(&failed.spared).0);
    back
}
