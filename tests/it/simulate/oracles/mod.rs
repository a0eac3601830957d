//! What must hold of every commit and of every request that operators send.
//!
//! Long because: it is the one place that hears of every request and commit.
mod adoption;
mod bounds;
mod changed;
pub mod end;
mod hooks;
mod pauses;
mod proofs;
mod revisions;
mod service;
pub mod story;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton::{
    api::{
        Rollout,
        names::{ANNOTATION_HAS_AGENT, LABEL_HOOK, LABEL_REVISION},
    },
    operator::clock::Clock,
    snapshot::{Pod, wire::NodeView},
};
use jiff::SignedDuration;
use serde::Deserialize;
use tokio::time::Instant;

use self::{
    bounds::Glass,
    changed::{Changed, what_is_changed},
    revisions::Revisions,
    service::{is_in_use, left_behind},
    story::{Ended, Story, any_pod, owner},
};
use super::{
    applications::Applications,
    process::{LEASE, SYSTEM, Skew, process_of},
    trace::Trace,
};
use crate::fake_apiserver::{
    Commit,
    faults::{Request, Verb},
    kinds::{CONTROLLER_REVISIONS, EVENTS, JOBS, LEASES, LISTENER_SETS, NODES, PODS, ROLLOUTS, SERVICES},
    object::Object,
    store::Store,
};

/// A write that takes longer than this comes from a client that has given up on it.
const LATE: Duration = Duration::from_secs(10);
/// Requests that one process may send in a minute.
const REQUESTS_PER_MINUTE_MAX: u32 = 1_500;

/// The judge. Clones are the same one.
#[derive(Clone)]
pub struct Judge(Arc<Mutex<Docket>>);

/// Everything that judgement rests on.
pub struct Docket {
    trace: Trace,
    clock: Clock,
    /// Clocks of the operators.
    skews: Vec<Skew>,
    /// The oldest view that an operator may act on.
    age: Duration,
    /// Jobs.
    hooks: hooks::Hooks,
    /// Pods have agents.
    pub has_agents: bool,
    /// Applications are told.
    pub applications: Option<Applications>,
    stories: BTreeMap<String, Story>,
    /// Nodes that are lost, and since when it is these: what somebody may still see, and last the present.
    lost: VecDeque<(Instant, Arc<BTreeSet<String>>)>,
    revisions: BTreeMap<String, Revisions>,
    holder: Option<String>,
    /// The revision that each Service selects alone, by the Service's name.
    selected: BTreeMap<String, String>,
    /// What each process has read last of a Rollout, past its cache.
    read: BTreeMap<(String, String), Arc<Rollout>>,
    /// Processes that have read a ListenerSet since: they are about to delete a Pod that does not let go of a listener.
    kill: BTreeSet<String>,
    /// Writes to Pods, by id of the request.
    sent: BTreeMap<u64, Sent>,
    requests: BTreeMap<String, (u64, u32)>,
    /// When something other than the lock was written last.
    pub last_write: Instant,
    /// Writes by operators other than of the lock.
    pub writes: u64,
    /// Writes by everybody else.
    pub writes_of_others: u64,
}

/// A write under way.
struct Sent {
    at: Instant,
    /// Revision of the last commit before it was sent: of later ones its sender cannot know.
    revision: u64,
    /// For what.
    read: Option<Read>,
    /// What the Services selected then.
    selected: BTreeMap<String, String>,
}

/// What was read before a Pod is deleted.
enum Read {
    /// The Pod's Rollout.
    Rollout(Arc<Rollout>),
    /// A ListenerSet: what bounds the Rollout does not bound this.
    ListenerSet,
}

impl Judge {
    /// `clock` is the world's; `age` the oldest view that an operator may act on.
    pub fn new(trace: &Trace, clock: Clock, skews: Vec<Skew>, age: Duration) -> Self {
        Self(Arc::new(Mutex::new(Docket {
            trace: trace.clone(),
            clock,
            skews,
            age,
            hooks: hooks::Hooks::default(),
            has_agents: false,
            applications: None,
            stories: BTreeMap::new(),
            lost: [(Instant::now(), Arc::default())].into(),
            revisions: BTreeMap::new(),
            holder: None,
            selected: BTreeMap::new(),
            read: BTreeMap::new(),
            kill: BTreeSet::new(),
            sent: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_write: Instant::now(),
            writes: 0,
            writes_of_others: 0,
        })))
    }

    /// Looks at, or changes, what judgement rests on.
    pub fn docket(&self) -> MutexGuard<'_, Docket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Docket {
    /// An operator sends a request.
    pub fn sent(&mut self, request: &Request, store: &Store) {
        self.count(request);
        if !is_operator(&request.who) || !request.verb.is_write() || *request.kind == LEASES || request.is_dry_run {
            return;
        }
        let lease = store.get(&LEASES, SYSTEM, LEASE);
        let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default();
        if lease.is_some() && process_of(holder).as_deref() != Some(&*request.who) {
            self.accuse(
                "lock",
                format_args!("{} writes {} while the lock is held by {holder:?}", request.who, request.name),
            );
        }
        if *request.kind == PODS {
            let owner =
                store.get(&PODS, &request.namespace, &request.name).and_then(|pod| owner(pod).map(str::to_owned));
            let read = owner.and_then(|uid| self.read.get(&(request.who.to_string(), uid)).cloned()).map(Read::Rollout);
            let read = if self.kill.contains(&*request.who) { Some(Read::ListenerSet) } else { read };
            self.sent.insert(
                request.id,
                Sent { at: Instant::now(), revision: store.revision(), read, selected: self.selected.clone() },
            );
        }
        if *request.kind == PODS && request.verb == Verb::Delete {
            self.check_preconditions(request);
        }
    }

    fn check_preconditions(&self, request: &Request) {
        let options = request.delete.clone().unwrap_or_default();
        if options.uid.is_none() || options.resource_version.is_none() {
            self.accuse("R10", format_args!("{} deletes {} with {options:?}", request.who, request.name));
        }
    }

    /// No hot loop.
    fn count(&mut self, request: &Request) {
        let minute = self.trace.start().elapsed().as_secs() / 60;
        let (of, count) = self.requests.entry(request.who.to_string()).or_default();
        if *of != minute {
            (*of, *count) = (minute, 0);
        }
        *count += 1;
        if *count == REQUESTS_PER_MINUTE_MAX {
            self.accuse(
                "hot loop",
                format_args!("{} sends {REQUESTS_PER_MINUTE_MAX} requests in a minute", request.who),
            );
        }
    }

    /// An operator is being answered what a Rollout or a ListenerSet is now.
    pub fn answered(&mut self, request: &Request, code: u16, store: &Store) {
        if request.verb != Verb::Get || code != 200 {
            return;
        }
        if *request.kind == LISTENER_SETS {
            self.kill.insert(request.who.to_string());
        } else if *request.kind == ROLLOUTS {
            self.kill.remove(&*request.who);
            let found = store.get(&ROLLOUTS, &request.namespace, &request.name);
            // Every version was told before it can be read.
            let rollout = found.and_then(|found| self.stories.get(found.uid())?.rollout());
            if let Some((found, rollout)) = found.zip(rollout) {
                self.read.insert((request.who.to_string(), found.uid().to_owned()), rollout.clone());
            }
        }
    }

    /// Something was written.
    pub fn committed(&mut self, commit: &Commit) {
        let change = &commit.change;
        let is_ours = is_operator(&commit.who);
        if *change.kind == LEASES {
            if change.object.name() != LEASE {
                return; // of agents
            }
            let holder = change.after().and_then(|lease| lease["spec"]["holderIdentity"].as_str());
            self.holder = holder.and_then(process_of);
            return;
        }
        self.last_write = Instant::now();
        self.writes += u64::from(is_ours);
        self.writes_of_others += u64::from(!is_ours);
        if *change.kind == JOBS {
            let verdict = self.hooks.job_written(change);
            self.judge([("hooks", verdict)]);
        } else if *change.kind == ROLLOUTS {
            self.rollout_written(commit, is_ours);
        } else if *change.kind == PODS {
            self.pod_written(commit, is_ours);
        } else if *change.kind == CONTROLLER_REVISIONS {
            if let Some(owner) = owner(&change.object) {
                let (owner, name) = (owner.to_owned(), change.object.name().to_owned());
                if is_ours && change.is_gone {
                    self.judge_cleaning(&owner, &name);
                } else if is_ours {
                    self.judge_completion(change);
                }
                let revisions = self.revisions.entry(owner).or_default();
                // A Rollout before, of the same name, may have had its Service select it.
                if self.selected.values().any(|selected| *selected == name) {
                    revisions.selected(&name);
                }
                revisions.written(name, change.is_gone, is_ours);
            }
        } else if *change.kind == SERVICES {
            let name = change.object.name().to_owned();
            let after = change.after();
            match after.and_then(|service| service["spec"]["selector"][LABEL_REVISION].as_str()) {
                None => drop(self.selected.remove(&name)),
                Some(selected) => {
                    self.revisions.values_mut().for_each(|revisions| revisions.selected(selected));
                    self.selected.insert(name, selected.to_owned());
                }
            }
        } else if *change.kind == NODES {
            self.node_written(commit);
        } else if *change.kind == EVENTS && change.object["reason"] == "InternalError" {
            self.accuse("R18", format_args!("{}", change.object["message"]));
        }
    }

    fn node_written(&mut self, commit: &Commit) {
        let node = NodeView::deserialize(commit.change.object.value()).unwrap_or_default();
        let Some((_, known)) = self.lost.back() else { return };
        let mut lost = (**known).clone();
        if commit.change.is_gone || !node.is_ready() {
            lost.insert(commit.change.object.name().to_owned());
        } else {
            lost.remove(commit.change.object.name());
        }
        if lost != **known {
            let (now, lost) = (Instant::now(), Arc::new(lost));
            for story in self.stories.values_mut() {
                story.nodes_changed(&lost, self.age);
            }
            self.lost.push_back((now, lost));
            while self.lost.len() > 1 && self.lost[1].0 + self.age < now {
                self.lost.pop_front();
            }
        }
    }

    fn rollout_written(&mut self, commit: &Commit, is_ours: bool) {
        let object = &commit.change.object;
        let uid = object.uid().to_owned();
        let age = self.age;
        if !self.stories.contains_key(&uid) {
            let mut story = Story::begin(object.name(), &self.lost);
            let earlier = self.stories.values().filter(|earlier| earlier.name == object.name());
            earlier.for_each(|earlier| story.proofs.inherit(&earlier.proofs));
            self.stories.insert(uid.clone(), story);
        }
        let Some(story) = self.stories.get_mut(&uid) else { return };
        if commit.change.is_gone {
            story.deleted_at.get_or_insert(Instant::now());
            return;
        }
        let rollout = match Rollout::deserialize(object.value()) {
            Ok(rollout) => Arc::new(rollout),
            Err(error) => return self.accuse("world", format_args!("a Rollout that cannot be read: {error}")),
        };
        let told = rollout.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
        let before = story.observed_generation;
        story.observed_generation = told;
        let known = story.rollout().cloned();
        story.versioned(rollout.clone(), age);
        if let Some(known) = known.filter(|_| is_ours) {
            self.judge_opening(object.uid(), &known);
        }
        if is_ours && told < before {
            self.accuse("R13", format_args!("observedGeneration goes from {before} back to {told}"));
        }
        let revisions = self.revisions.get(object.uid()).cloned().unwrap_or_default();
        let has_reloaded =
            |pod: &Pod| self.applications.as_ref().is_none_or(|applications| applications.has_reloaded(pod));
        let completeness = |story: &Story| story.completeness(&rollout, &revisions, self.glass(), has_reloaded);
        if !is_ours {
            return;
        }
        self.judge([("hooks", self.hooks.status_written(&rollout))]);
        let story = &self.stories[object.uid()];
        let (blame, stable) = (story.proofs.blame(&rollout), story.proofs.stable(&rollout));
        self.judge([("R13", completeness(story)), ("B7", blame), ("R13", stable)]);
    }

    fn pod_written(&mut self, commit: &Commit, is_ours: bool) {
        let change = &commit.change;
        let (before, object) = (change.before.as_ref(), &change.object);
        if object["metadata"]["labels"][LABEL_HOOK].is_string() {
            return; // of a Job
        }
        let is_adopted = is_ours && before.is_some_and(|before| owner(before).is_none()) && owner(object).is_some();
        if is_adopted {
            self.judge_adoption(commit);
        }
        let owned = before.filter(|_| !is_adopted).map_or_else(|| owner(object), |before| owner(before));
        let Some(uid) = owned.map(str::to_owned) else {
            // An adoption without an answer is settled so.
            let is_overtaken =
                || before.is_some_and(|before| matches!(what_is_changed(before, object), Changed::Overtaken));
            if is_ours && !is_overtaken() {
                self.accuse("R10", format_args!("{} writes {}, which is nobody's of ours", commit.who, object.name()));
            }
            return;
        };
        let is_marked = |object: &crate::fake_apiserver::object::Object| object.is_terminating();
        let is_deletion = before.is_some_and(|before| !is_marked(before)) && (change.is_gone || is_marked(object));
        if is_ours && is_deletion {
            self.judge_deletion(commit, &uid);
        } else if let Some(before) = before.filter(|_| is_ours && !is_adopted && !change.is_gone) {
            match what_is_changed(before, object) {
                Changed::Service | Changed::Overtaken | Changed::Resized | Changed::Relabelled | Changed::Noted => {}
                Changed::OutOfService | Changed::InPlace => self.judge_interruption(commit, &uid),
                Changed::Kept => self.judge_keeping(commit, &uid),
                Changed::InService => self.forgive(commit, &uid),
                Changed::Other => self.accuse("R10", format_args!("{} changes {}", commit.who, object.name())),
            }
        }
        let age = self.age;
        let story = self.stories.entry(uid.clone()).or_insert_with(|| Story::begin("?", &self.lost));
        // Relabelled or orphaned, it is nobody's.
        let present =
            change.after().filter(|object| owner(object) == Some(uid.as_str())).and_then(|object| any_pod(object));
        story.pod_written(object.uid(), present, age);
        if is_ours && before.is_none() {
            self.judge_creation(commit, &uid);
        } else if is_ours && before.is_some_and(|before| what_is_changed(before, object).is_of_revision()) {
            self.judge_revision(&uid, object);
        }
    }

    /// R1 where a Pod stays: it leaves service, or is given another image.
    fn judge_interruption(&mut self, commit: &Commit, owner: &str) {
        // An agent that has lost its session is out of service whatever that costs.
        if self.has_agents {
            return;
        }
        self.judge_deletion(commit, owner);
    }

    /// A failed Pod is kept for a look: for its slot it is as good as deleted. One with an agent would have two owners beside it.
    fn judge_keeping(&mut self, commit: &Commit, owner: &str) {
        let object = &commit.change.object;
        if object["metadata"]["annotations"][ANNOTATION_HAS_AGENT].is_string() {
            self.accuse("L1", format_args!("{} has an agent, and is kept", object.name()));
        }
        self.judge_deletion(commit, owner);
    }

    /// It is in service again.
    fn forgive(&mut self, commit: &Commit, owner: &str) {
        if let Some(story) = self.stories.get_mut(owner) {
            story.ended.remove(commit.change.object.uid());
        }
    }

    /// R4: what a Pod is given in place.
    fn judge_revision(&mut self, owner: &str, object: &Object) {
        let glass = self.glass();
        let known = self.revisions.get(owner).cloned().unwrap_or_default();
        let Some(story) = self.stories.get(owner) else { return };
        if let Err(how) = revisions::is_assigned(story, object, &known, &[&self.selected], glass) {
            self.accuse("R4", how);
        }
    }

    fn judge_deletion(&mut self, commit: &Commit, owner: &str) {
        let object = &commit.change.object;
        let glass = self.glass();
        let sent = self.sent.get(&commit.request);
        // Where another operator has switched a Service meanwhile, no client can prevent what it did not know of.
        let selected: Vec<_> = [Some(&self.selected), sent.map(|sent| &sent.selected)].into_iter().flatten().collect();
        let sent = sent.and_then(|sent| Some((sent.read.as_ref()?, sent.revision)));
        let Some(story) = self.stories.get_mut(owner) else { return };
        let verdict = match sent {
            None => {
                Err(("R10", format!("{} is deleted by {} that has not read its Rollout", object.name(), commit.who)))
            }
            Some((Read::ListenerSet, _)) => Ok(()),
            Some((Read::Rollout(read), _)) if read.metadata.deletion_timestamp.is_some() => {
                Err(("R17", format!("{} is deleted for a Rollout that is being deleted", object.name())))
            }
            Some((Read::Rollout(read), until)) => {
                let knows = |ended: &Ended| ended.by == commit.who || ended.revision <= until;
                let is_in_use = |pod: &Pod| selected.iter().all(|selected| is_in_use(pod, read, selected));
                match left_behind(object, read, &selected) {
                    Some(how) => Err(("B3", how)),
                    None => {
                        bounds::deletion(story, object.uid(), read, knows, is_in_use, glass).map_err(|how| ("R1", how))
                    }
                }
            }
        };
        let ended = Ended { by: commit.who.clone(), revision: commit.change.revision };
        story.ended.insert(object.uid().to_owned(), ended);
        if let Err((property, how)) = verdict {
            self.accuse(property, how);
        }
    }

    fn judge_creation(&mut self, commit: &Commit, owner: &str) {
        let object = &commit.change.object;
        let sent = self.sent.get(&commit.request);
        let is_late = sent.is_none_or(|sent| sent.at.elapsed() > LATE);
        let selected: Vec<_> = [Some(&self.selected), sent.map(|sent| &sent.selected)].into_iter().flatten().collect();
        let is_stray = is_late || self.holder.as_deref() != Some(&*commit.who);
        let glass = self.glass();
        let known = self.revisions.get(owner).cloned().unwrap_or_default();
        let Some(story) = self.stories.get_mut(owner) else { return };
        story.made.insert(object.uid().to_owned(), story.now().number);
        if is_stray {
            story.strays.insert(object.uid().to_owned());
            self.trace.say("oracle", format_args!("{} came late, or from an operator without the lock", object.name()));
            return;
        }
        let revision = object["metadata"]["labels"][LABEL_REVISION].as_str().unwrap_or_default().to_owned();
        let is_new = |rollout: &&Arc<Rollout>| {
            let status = rollout.status.clone().unwrap_or_default();
            let is = |of: &Option<String>| of.as_deref() == Some(revision.as_str());
            is(&status.target_revision) && status.current_revision.is_some() && !is(&status.current_revision)
        };
        let told = story.rollout().filter(is_new).map(|rollout| self.hooks.pod_made(owner, rollout, &revision));
        let verdicts = [
            ("hooks", told.unwrap_or(Ok(()))),
            ("R2", bounds::creation(story, glass)),
            ("B1", bounds::is_alone(story, object.uid(), glass)),
            ("R4", revisions::is_assigned(story, object, &known, &selected, glass)),
            ("R9", revisions::is_alone(story, object, glass)),
            ("R17", story.is_wanted(glass)),
        ];
        self.judge(verdicts);
    }

    /// How operators may see the world now.
    fn glass(&self) -> Glass {
        let elapsed = SignedDuration::try_from(self.trace.start().elapsed()).unwrap_or_default();
        let ahead =
            self.skews.iter().map(|skew| skew.ahead(elapsed)).max().unwrap_or_default().max(SignedDuration::ZERO);
        Glass { age: self.age, latest: self.clock.now() + ahead + SignedDuration::from_secs(1), ahead }
    }

    fn judge<const N: usize>(&self, verdicts: [(&str, Result<(), String>); N]) {
        for (property, verdict) in verdicts {
            if let Err(how) = verdict {
                self.accuse(property, how);
            }
        }
    }

    fn accuse(&self, property: &str, how: impl std::fmt::Display) {
        self.trace.break_promise(property, how);
    }
}

/// Processes of operators are called `a.1`.
pub fn is_operator(who: &str) -> bool {
    who.contains('.')
}
