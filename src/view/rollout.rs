//! A Rollout: header and tree of revisions, batches and Pods.
use super::{
    eta,
    tree::{Node, Thing, Tone},
};
use crate::{
    api::{Condition, ConditionStatus, ConditionType, RolloutStatus, names, status::Display},
    plan::{
        Memory, revision,
        rollout::{Slot, Slots, reload},
    },
    snapshot::{Pod, Ranges, Revision, Snapshot},
    status::instances::{State, pod_state, says_little},
};

/// A tree of more Pods is not read by anybody.
pub const PODS_LISTED_MAX: usize = 50;
/// Pods that are not well, the most in one group.
const UNWELL_LISTED_MAX: usize = 10;
/// Above so many batches, those before and after the one in work are drawn as one.
const BATCHES_LISTED_MAX: usize = 10;

/// Everything a face shows of one Rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutView {
    /// The lines above the tree.
    pub header: Header,
    /// The Rollout with all that is below it.
    pub tree: Node,
}

/// The Rollout in a few words.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// How its state is meant.
    pub tone: Tone,
    /// Reason of the Ready condition.
    pub state: String,
    /// The one thing it waits for; empty when done.
    pub message: String,
    /// `1.4.1 → 1.4.2`.
    pub version: String,
    /// Images of the wanted revision.
    pub images: String,
    /// Instances at the revision that is worked towards, and available.
    pub done: i32,
    /// Instances asked for.
    pub wanted: i32,
    /// Instances that have failed.
    pub failed: i32,
    /// Seconds to the end, where that can be said.
    pub eta_seconds: Option<i64>,
}

/// The view of a Rollout as it is now. Above `pods_listed_max` Pods, only those that are not well are listed.
pub fn view(snapshot: &Snapshot, pods_listed_max: usize) -> RolloutView {
    let status = snapshot.rollout.status.clone().unwrap_or_default();
    let slots = crate::plan::rollout::slots(snapshot, &Memory::of(Some(&status)));
    let painter =
        Painter { snapshot, status: &status, slots: &slots, lists_all: snapshot.pods.len() <= pods_listed_max };
    let header = painter.header();
    let mut tree = Node::new(Thing::Rollout, header.name.clone()).state(header.tone, header.state.clone());
    tree.created = snapshot.rollout.metadata.creation_timestamp.as_ref().map(|at| at.0);
    tree.children = painter.hooks();
    tree.children.extend(painter.revisions());
    RolloutView { header, tree }
}

/// `(tone, word, sentence)` of a status; an object whose spec is newer than its status is Pending.
pub fn state(status: &RolloutStatus, generation: Option<i64>) -> (Tone, String, String) {
    let is_seen = status.observed_generation >= generation;
    let (tone, word, _) = spoken(&status.conditions, is_seen);
    let message = if is_seen { status.waiting_for.clone() } else { UNSEEN.to_owned() };
    let message = if word == "Unknown" { String::new() } else { message };
    (tone, word, message)
}

const UNSEEN: &str = "the operator has not seen the present spec yet";

/// `(tone, reason, message)` that these conditions say of any of our kinds.
pub(super) fn spoken(conditions: &[Condition], is_seen: bool) -> (Tone, String, String) {
    let find = |type_| conditions.iter().find(|condition| condition.type_ == type_);
    let is = |type_| find(type_).is_some_and(|condition| condition.status == ConditionStatus::True);
    if !is_seen {
        return (Tone::Neutral, "Pending".into(), UNSEEN.into());
    }
    let Some(ready) = find(ConditionType::Ready) else { return (Tone::Neutral, "Unknown".into(), String::new()) };
    let tone = match ready.reason.as_str() {
        _ if ready.status == ConditionStatus::True => Tone::Good,
        reason if is(ConditionType::Stalled) || reason == "ListenerFailed" => Tone::Bad,
        "Paused" | "AwaitingApproval" | "QuotaExceeded" | "Soaking" => Tone::Waiting,
        _ => Tone::Working,
    };
    (tone, ready.reason.clone(), ready.message.clone())
}

const FAILED: &str = "failed";
const ABORTED: &str = "aborted";

/// What a revision is to its Rollout, in words.
pub(super) fn standing(status: &RolloutStatus, revision: &Revision) -> Vec<&'static str> {
    let is = |role: &Option<String>| role.as_ref() == Some(&revision.name);
    let mut words = Vec::new();
    if is(&status.current_revision) {
        words.push("stable");
    } else if revision.failed_at.is_some() && !is(&status.target_revision) {
        let aborted = revision.failed_reason.as_deref().is_some_and(|reason| reason.starts_with("Aborted"));
        words.push(if aborted { ABORTED } else { FAILED });
    }
    if is(&status.active_revision) {
        words.push("active");
    }
    words
}

struct Painter<'a> {
    snapshot: &'a Snapshot,
    status: &'a RolloutStatus,
    slots: &'a Slots<'a>,
    lists_all: bool,
}

impl Painter<'_> {
    fn name(&self) -> &str {
        self.snapshot.rollout.metadata.name.as_deref().unwrap_or_default()
    }

    fn header(&self) -> Header {
        let status = self.status;
        let (tone, state, message) = state(status, self.snapshot.rollout.metadata.generation);
        // Before the first status, what the spec asks for is all there is to say.
        let spec = &self.snapshot.rollout.spec;
        let display = status.display.clone().unwrap_or_else(|| Display {
            version: revision::version(&revision::data(spec)),
            images: spec.template.images().iter().map(|(_, image)| *image).collect::<Vec<_>>().join(","),
            ..Display::default()
        });
        let effective = status.target_revision.as_deref();
        let has_reloaded = |pod: &Pod| pod.resize.is_none() && reload::in_words(self.snapshot, pod).is_none();
        let at_it =
            |pod: &&Pod| Some(pod.revision.as_str()) == effective && self.is_available(pod) && has_reloaded(pod);
        let is_done = |slot: &&Slot<'_>| match slot.pin {
            Some(_) => self.slots.is_in_place(slot),
            None => slot.live.first().is_some_and(at_it),
        };
        let done = self.slots.wanted().filter(is_done).count() as i32;
        let present = status.failed.as_ref().filter(|failed| Some(failed.run) == status.run);
        Header {
            name: self.name().to_owned(),
            tone,
            state,
            message,
            version: display.version,
            images: display.images,
            done,
            wanted: spec.replicas,
            failed: present.map_or(0, |failed| Ranges::parse(&failed.slots).0.len() as i32),
            eta_seconds: eta::eta_seconds(self.snapshot, status, self.slots).filter(|_| tone == Tone::Working),
        }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(self.snapshot.rollout.spec.min_ready_seconds, self.snapshot.now)
    }

    /// Hooks of the present run, the first one first.
    fn hooks(&self) -> Vec<Node> {
        let Some(hooks) = &self.status.hooks else { return Vec::new() };
        let of_run = hooks.log.iter().rev().filter(|record| Some(record.run) == self.status.run);
        let ended = of_run.map(|record| {
            let tone = if record.result == "Succeeded" { Tone::Good } else { Tone::Bad };
            let said = if record.message.is_empty() { String::new() } else { format!(": {}", record.message) };
            let mut node = Node::new(Thing::Hook, &record.name).state(tone, &record.result);
            node.created = record.started_at.as_ref().map(|at| at.0);
            node.info(format!("{}{said}", record.point))
        });
        let current = hooks.current.iter().map(|current| {
            let attempt = if current.attempt > 1 { format!(", attempt {}", current.attempt) } else { String::new() };
            let mut node = Node::new(Thing::Hook, &current.name).state(Tone::Working, "Running");
            node.created = current.started_at.as_ref().map(|at| at.0);
            node.info(format!("{}{attempt}: job/{}", current.point, current.job))
        });
        ended.chain(current).collect()
    }

    /// Revisions that have Pods or are worked with, newest first.
    fn revisions(&self) -> Vec<Node> {
        let used = |revision: &Revision| {
            let name = Some(&revision.name);
            let status = self.status;
            let roles = [&status.target_revision, &status.current_revision, &status.update_revision];
            roles.into_iter().any(|role| role.as_ref() == name)
                || self.snapshot.pods.iter().any(|pod| Some(&pod.revision) == name)
        };
        let mut revisions: Vec<&Revision> = self.snapshot.revisions.iter().filter(|r| used(r)).collect();
        revisions.sort_by_key(|revision| std::cmp::Reverse(revision.number));
        revisions.into_iter().map(|revision| self.revision(revision)).collect()
    }

    fn revision(&self, revision: &Revision) -> Node {
        let name = format!("revision {} ({})", revision.number, revision::version(&revision.data));
        let is = |role: &Option<String>| role.as_ref() == Some(&revision.name);
        let mut node = Node::new(Thing::Revision, name);
        let standing = standing(self.status, revision);
        node.tone = [FAILED, ABORTED].iter().any(|word| standing.contains(word)).then_some(Tone::Bad);
        node.status = standing.join(", ");
        let pods: Vec<&Pod> =
            self.snapshot.pods.iter().map(|pod| &**pod).filter(|pod| pod.revision == revision.name).collect();
        let live = pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.slot).collect::<Ranges>();
        let is_forward = is(&self.status.target_revision) && !is(&self.status.current_revision);
        if let Some(batch) = self.status.batch.as_ref().filter(|_| is_forward) {
            node.children = self.batches(batch.index, &pods);
        } else {
            node.info = if live.is_empty() { String::new() } else { format!("instances {live}") };
            let range = if is(&self.status.target_revision) { 0..i32::MAX } else { 0..0 };
            let missing = self.missing(range);
            node.children = self.pods(&pods, missing);
        }
        node
    }

    /// The batches of a run that leads somewhere new; `index` is the one in work.
    fn batches(&self, index: i32, pods: &[&Pod]) -> Vec<Node> {
        let spec = &self.snapshot.rollout.spec;
        // On the first creation all is one batch, with any strategy.
        let first = self.status.current_revision.is_none();
        let ends: Vec<i32> = if first {
            vec![spec.replicas]
        } else {
            self.slots.batches().ends.iter().map(|boundary| boundary.up_to).collect()
        };
        let count = ends.len();
        let work = usize::try_from(index).unwrap_or(0).clamp(1, count);
        // (first, last) number of each group of batches.
        let groups: Vec<(usize, usize)> = if count <= BATCHES_LISTED_MAX {
            (1..=count).map(|n| (n, n)).collect()
        } else {
            let around = [(1, work - 1), (work, work), (work + 1, count)];
            around.into_iter().filter(|(first, last)| first <= last).collect()
        };
        let begin = |n: usize| if n == 1 { 0 } else { ends[n - 2] };
        groups.into_iter().map(|(a, b)| self.batch(a, b, count, begin(a)..ends[b - 1], pods)).collect()
    }

    fn batch(&self, first: usize, last: usize, count: usize, slots: std::ops::Range<i32>, pods: &[&Pod]) -> Node {
        let name =
            if first == last { format!("batch {first}/{count}") } else { format!("batches {first}-{last}/{count}") };
        let all = || self.slots.unpinned().filter(|slot| slots.contains(&slot.index) && !slot.joins_later);
        // Where only those go back that have failed, they are none of its instances any more.
        let effective = self.status.target_revision.as_deref();
        let has_left = |slot: &&Slot<'_>| slot.opened && slot.assigned.is_some() && slot.assigned != effective;
        let members = || all().filter(|slot| !has_left(slot));
        let left = all().filter(has_left).map(|slot| slot.index).collect::<Ranges>();
        let failed = members().any(|slot| {
            slot.live.first().is_some_and(|best| matches!(self.state_of(best), Some((State::Failed, _, _))))
        });
        let (tone, status) = if slots.start >= self.slots.opened() {
            (Tone::Neutral, "to come")
        } else if members().next().is_none() && !left.is_empty() {
            (Tone::Bad, "went back")
        } else if members().all(|slot| self.slots.is_done(slot)) {
            (Tone::Good, "done")
        } else if failed {
            (Tone::Bad, "failing")
        } else {
            (Tone::Working, "updating")
        };
        let range = members().map(|slot| slot.index).collect::<Ranges>();
        let info = match (range.is_empty(), left.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!("instances {range}"),
            (true, false) => format!("instances {left}"),
            (false, false) => format!("instances {range}; {left} went back"),
        };
        let inside: Vec<&Pod> = pods.iter().copied().filter(|pod| slots.contains(&pod.slot)).collect();
        let missing = self.missing(slots.start..slots.end.min(self.slots.opened()));
        let mut node = Node::new(Thing::Batch, name).state(tone, status).info(info);
        node.children = self.pods(&inside, missing);
        node
    }

    /// Instances in this range of slots that have no Pod at all.
    fn missing(&self, range: std::ops::Range<i32>) -> Vec<Node> {
        let without = self.slots.wanted().filter(|slot| range.contains(&slot.index));
        let without = without.filter(|s| s.live.is_empty() && s.terminating.is_empty() && s.finished.is_empty());
        let node =
            |slot| Node::new(Thing::Instance, names::instance_name(self.name(), slot)).state(Tone::Waiting, "Missing");
        without.map(|slot| node(slot.index)).collect()
    }

    fn state_of(&self, pod: &Pod) -> Option<(State, String, String)> {
        pod_state(self.snapshot, pod)
    }

    /// All Pods while there are few in the whole tree; else those that are not well, and how many are.
    fn pods(&self, pods: &[&Pod], missing: Vec<Node>) -> Vec<Node> {
        let all: Vec<Node> = pods.iter().map(|pod| self.pod(pod)).chain(missing).collect();
        if self.lists_all {
            return all;
        }
        let (well, mut unwell): (Vec<Node>, Vec<Node>) =
            all.into_iter().partition(|node| node.tone == Some(Tone::Good));
        let hidden = unwell.len().saturating_sub(UNWELL_LISTED_MAX);
        unwell.sort_by_key(|node| node.tone != Some(Tone::Bad)); // stable: by slot within
        unwell.truncate(UNWELL_LISTED_MAX);
        if hidden > 0 {
            unwell.push(Node::new(Thing::Others, format!("… and {hidden} more")).state(Tone::Working, "not ready"));
        }
        if !well.is_empty() {
            let name = if well.len() == 1 { "1 Pod".to_owned() } else { format!("{} Pods", well.len()) };
            unwell.push(Node::new(Thing::Others, name).state(Tone::Good, "Running"));
        }
        unwell
    }

    fn pod(&self, pod: &Pod) -> Node {
        let (tone, status) = match self.state_of(pod) {
            None => (Tone::Good, "Running".to_owned()),
            Some((state, reason, _)) => {
                let tone = match (state, reason.as_str()) {
                    (State::NotReady, reason) if says_little(reason) => Tone::Working,
                    (State::Starting | State::Reloading, _) => Tone::Working,
                    (State::NotReady, "Unschedulable") | (State::Terminating, _) => Tone::Waiting,
                    (State::Outdated, _) => Tone::Neutral,
                    (State::Failed | State::NotReady | State::Missing, _) => Tone::Bad,
                };
                let terminating = state == State::Terminating || reason.is_empty();
                (tone, if terminating { state.as_str().to_owned() } else { reason })
            }
        };
        let main = || pod.containers.iter().filter(|container| !container.init);
        let mut words = Vec::new();
        if main().next().is_some() {
            words.push(format!("ready {}/{}", main().filter(|c| c.ready).count(), main().count()));
        }
        let restarts = pod.restarts();
        if restarts > 0 {
            words.push(format!("restarts {restarts}"));
        }
        if self.slots.wanted_at(pod.slot).is_some_and(|slot| slot.pin.is_some() && slot.assigned == Some(&pod.revision))
        {
            words.push("pinned".to_owned());
        }
        let mut node = Node::new(Thing::Pod, &pod.name).state(tone, status).info(words.join(", "));
        node.created = Some(pod.created);
        node.place = (pod.node.clone().unwrap_or_default(), pod.ip.clone().unwrap_or_default());
        node
    }
}
