//! Who runs what, by the world's own clock, and what the Leases say: judged at every start and every write.
//!
//! L1: of one listener (uid of its set, and name) no two processes live at any instant, whoever's they are, but for what
//! [`Excuses`] knows.
//! L2: no epoch is started twice, and each start has a higher one than that before, and a larger token.
//! L7: an ownership changes hands by the next epoch only.
use std::collections::{BTreeMap, BTreeSet};

use baton::{agent::exec::Environment, api::names, snapshot::lease::Holder};
use serde_json::Value;
use tokio::time::Instant;

use super::{excuses::Excuses, is_agent, process::Process};
use crate::{
    fake_apiserver::{
        Commit,
        faults::Verb,
        kinds::{LEASES, LISTENER_SETS, ROLLOUTS},
        object::Object,
    },
    simulate::{trace::Trace, users::reason},
};

/// Uid of the set, and name.
pub type Key = (String, String);

/// What was written and started so far.
pub struct Ledger {
    trace: Trace,
    runs: BTreeMap<u64, Run>,
    numbers: u64,
    /// What each version of an ownership said, by its resourceVersion.
    versions: BTreeMap<u64, Version>,
    last: BTreeMap<Key, Start>,
    /// Listeners whose Lease was deleted by somebody: where no operator saw its last epoch, that may come again.
    pub deleted: BTreeSet<Key>,
    /// Starts in a row that were made to fail, by Pod and listener.
    failures: BTreeMap<(String, String), u32>,
    /// Holders by listener, in order, without repetition.
    holders: BTreeMap<Key, Vec<String>>,
    /// How many these were when the template of the Rollout was changed, where all was settled then.
    marks: Vec<Option<BTreeMap<Key, usize>>>,
    /// Sets that say that they are complete, by uid.
    complete: BTreeSet<String>,
    pub excuses: Excuses,
    pub renewals: u64,
    pub ownerships: u64,
    pub last_ownership: Instant,
}

/// A process that lives.
pub struct Run {
    pub key: Key,
    /// Set and listener, in words.
    name: String,
    pub who: String,
    pub epoch: u64,
    at: u64,
    node: usize,
    /// Another has run beside it, which it is excused for.
    overlaps: bool,
}

struct Version {
    key: Key,
    holder: String,
    epoch: u64,
    by: String,
}

/// The last start of a listener, and how that ended.
struct Start {
    who: String,
    epoch: u64,
    token: u64,
    /// Where it told to resume, last.
    resume: u64,
    /// Its agent has seen it end in good order.
    was_stopped: bool,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn holder(lease: &Object) -> &str {
    text(&lease["spec"]["holderIdentity"])
}

fn epoch(lease: &Object) -> u64 {
    lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default()
}

fn owner<'a>(lease: &'a Object, kind: &str) -> &'a str {
    let owners = lease["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().find(|owner| owner["kind"] == kind).map_or("", |owner| text(&owner["uid"]))
}

impl Ledger {
    pub fn new(trace: &Trace) -> Self {
        Self {
            trace: trace.clone(),
            runs: BTreeMap::new(),
            numbers: 0,
            versions: BTreeMap::new(),
            last: BTreeMap::new(),
            deleted: BTreeSet::new(),
            failures: BTreeMap::new(),
            holders: BTreeMap::new(),
            marks: Vec::new(),
            complete: BTreeSet::new(),
            excuses: Excuses::default(),
            renewals: 0,
            ownerships: 0,
            last_ownership: Instant::now(),
        }
    }

    fn accuse(&self, property: &str, how: impl std::fmt::Display) {
        self.trace.break_promise(property, how);
    }

    /// Processes that live.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// An agent on this node starts a process. None: that agent is dead.
    pub fn begin(&mut self, who: &str, node: usize, task: &Environment) -> Option<u64> {
        let (set, token) = task.fence_token.rsplit_once('-')?;
        let (key, token): (Key, u64) = ((set.to_owned(), task.listener.clone()), token.parse().ok()?);
        let said = self.versions.get(&token).map(|version| (version.holder.clone(), version.epoch, version.by.clone()));
        let Some((holder, epoch, by)) = said.filter(|_| self.versions[&token].key == key) else {
            self.accuse("token", format_args!("{who} starts {} with the token {}", task.listener, task.fence_token));
            return None;
        };
        let name = format!("{}/{}", task.set, task.listener);
        self.trace.say(who, format_args!("starts {name}, epoch {epoch}, resuming at {:?}", task.resume));
        if Holder::parse(&holder).is_none_or(|holder| holder.pod != super::pod_of(who)) {
            self.accuse("start", format_args!("{who} starts {name}, which is {holder:?}'s at {token}"));
        }
        // It goes by what it knew before its machine stood still, or before the listener was given away by force.
        let excused = self.excuses.of_node(node).max(self.excuses.of_force(&key, epoch));
        let is_late = excused.is_some_and(|until| Instant::now() <= until);
        let overlaps = self.judge_overlap(&key, is_late, format_args!("{who} starts {name} with epoch {epoch}"));
        let resume = task.resume.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        if let Some(last) = self.last.get(&key) {
            if last.token >= token && !(is_late && last.token > token) {
                self.accuse("L2", format_args!("{name} is started with token {token}, after {}", last.token));
            }
            if last.epoch >= epoch && !self.deleted.contains(&key) && !(is_late && last.epoch > epoch) {
                self.accuse("L2", format_args!("{name} is started with epoch {epoch}, after {}", last.epoch));
            }
            // Where the one before was stopped, and gave it away itself, nothing is lost.
            if last.was_stopped && last.epoch + 1 == epoch && by == last.who && resume != last.resume {
                self.accuse("resume", format_args!("{name} resumes at {resume}, it was told {}", last.resume));
            }
        }
        if self.last.get(&key).is_none_or(|last| last.token < token) {
            self.last.insert(key.clone(), Start { who: who.to_owned(), epoch, token, resume, was_stopped: false });
        }
        self.numbers += 1;
        self.runs.insert(self.numbers, Run { key, name, who: who.to_owned(), epoch, at: resume, node, overlaps });
        Some(self.numbers)
    }

    /// L1, when this listener is started. Whether the one that starts is excused for running beside another.
    fn judge_overlap(&mut self, key: &Key, is_late: bool, how: std::fmt::Arguments<'_>) -> bool {
        let Some((number, other)) = self.runs.iter().find(|(_, run)| run.key == *key) else { return false };
        let (number, other, excused) =
            (*number, format!("{} with epoch {}", other.who, other.epoch), self.excused(other));
        let is_excused = excused.is_some_and(|until| Instant::now() <= until);
        if !is_excused && !is_late {
            self.accuse("L1", format_args!("{how} while it runs in {other}"));
            return false;
        }
        self.trace.say("judge", format_args!("{how} while it runs in {other}, as documented"));
        self.excuses.count += 1;
        if let Some(run) = self.runs.get_mut(&number).filter(|_| is_excused) {
            run.overlaps = true;
        }
        is_late
    }

    /// Until when it may run beside another.
    fn excused(&self, run: &Run) -> Option<Instant> {
        self.excuses.of_node(run.node).max(self.excuses.of_force(&run.key, run.epoch))
    }

    /// Whether what ran beside another has ended in time. With it ends the overlap of the other, for which that may have been
    /// excused instead.
    fn judge_end(&mut self, run: &Run) {
        let now = Instant::now();
        let is_over = |ledger: &Self, run: &Run| ledger.excused(run).is_none_or(|until| now > until);
        let beside = self.runs.values().find(|other| other.key == run.key && other.overlaps);
        let is_late = if run.overlaps { is_over(self, run) } else { beside.is_some_and(|other| is_over(self, other)) };
        if is_late {
            self.accuse(
                "L1",
                format_args!("{} with epoch {} runs beside another in {} for too long", run.name, run.epoch, run.who),
            );
        }
        self.runs.values_mut().filter(|other| other.key == run.key).for_each(|other| other.overlaps = false);
    }

    /// A process says where it would resume.
    pub fn said(&mut self, run: u64, at: u64) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.at = at;
        }
    }

    /// A process has ended.
    pub fn ended(&mut self, run: u64, how: &str) {
        let Some(run) = self.runs.remove(&run) else { return };
        self.trace.say(&run.who, format_args!("{} with epoch {} has ended: {how}", run.name, run.epoch));
        self.judge_end(&run);
        if let Some(last) = self.last.get_mut(&run.key).filter(|last| last.epoch == run.epoch) {
            (last.resume, last.was_stopped) = (run.at, true);
        }
    }

    /// All processes of this agent end with it.
    pub fn died(&mut self, who: &str) {
        let dead: Vec<u64> = self.runs.iter().filter(|(_, run)| run.who == who).map(|(number, _)| *number).collect();
        for number in dead {
            let Some(run) = self.runs.remove(&number) else { continue };
            self.trace.say(who, format_args!("{} with epoch {} dies with it", run.name, run.epoch));
            self.judge_end(&run);
        }
    }

    /// Starts in a row that were made to fail.
    pub fn failures(&self, pod: &str, listener: &str) -> u32 {
        self.failures.get(&(pod.to_owned(), listener.to_owned())).copied().unwrap_or(0)
    }

    /// The next start of it is, or is not, made to fail.
    pub fn is_to_fail(&mut self, pod: &str, listener: &str, is: bool) {
        let failures = self.failures.entry((pod.to_owned(), listener.to_owned())).or_default();
        *failures = if is { *failures + 1 } else { 0 };
    }

    /// A Lease was written.
    pub fn committed(&mut self, commit: &Commit, processes: &mut BTreeMap<String, Process>) {
        let change = &commit.change;
        if *change.kind == LISTENER_SETS {
            let is_complete = !change.is_gone && reason(&change.object, "Ready") == Some("Complete");
            if is_complete {
                self.complete.insert(change.object.uid().to_owned());
            } else {
                self.complete.remove(change.object.uid());
            }
        } else if *change.kind == ROLLOUTS {
            self.rollout_written(commit);
        }
        if *change.kind != LEASES {
            if is_agent(&commit.who) {
                self.accuse("policy", format_args!("{} writes {}", commit.who, change.object.name()));
            }
            return;
        }
        let name = change.object.name();
        let is_session = name.starts_with("session.");
        if is_agent(&commit.who) {
            match processes.get(&*commit.who) {
                Some(process) if is_session => self.judge_session(commit, process),
                Some(process) => self.judge_ownership(commit, process),
                // What it sent before its death.
                None => {}
            }
        }
        if is_session {
            self.renewals += 1;
            let claimed = Holder::parse(holder(&change.object));
            if let (Some(process), Some(claimed)) = (processes.get_mut(&*commit.who), claimed) {
                process.identity = Some(claimed);
            }
            if !is_agent(&commit.who)
                && change.before.as_ref().is_some_and(|before| holder(before) != holder(&change.object))
            {
                self.trace
                    .say(&commit.who, format_args!("{name}@{} is {:?} now", change.revision, holder(&change.object)));
            }
            if change.is_gone {
                self.trace.say(&commit.who, format_args!("{name} is gone"));
            }
        } else if name.starts_with("listener.") {
            self.ownership_written(commit);
        }
    }

    fn rollout_written(&mut self, commit: &Commit) {
        let (before, after) = (commit.change.before.as_ref(), &commit.change.object);
        if before.is_some_and(|before| before["spec"]["template"] != after["spec"]["template"]) {
            let sets: BTreeSet<&String> = self.holders.keys().map(|(set, _)| set).collect();
            let is_settled = before.is_some_and(|before| reason(before, "Ready") == Some("Complete"))
                && sets.into_iter().all(|set| self.complete.contains(set));
            let counts = self.holders.iter().map(|(key, holders)| (key.clone(), holders.len()));
            self.marks.push(is_settled.then(|| counts.collect()));
        }
    }

    /// L5: a listener that has moved more than once since the one change of the template, and how often.
    pub fn restless(&self) -> Option<(String, usize)> {
        let [Some(marks)] = self.marks.as_slice() else { return None };
        let moves = marks.iter().map(|(key, count)| (key.1.clone(), self.holders[key].len() - count));
        moves.into_iter().find(|(_, moves)| *moves > 1)
    }

    fn ownership_written(&mut self, commit: &Commit) {
        let (change, object) = (&commit.change, &commit.change.object);
        self.ownerships += 1;
        self.last_ownership = Instant::now();
        let listener = text(&object["metadata"]["annotations"][names::ANNOTATION_LISTENER]);
        let key = (owner(object, "ListenerSet").to_owned(), listener.to_owned());
        let (who, name, revision) = (&commit.who, object.name(), change.revision);
        if change.is_gone {
            self.trace.say(who, format_args!("{name}@{revision} is gone"));
            if &**who == "user" || owner(object, "ListenerSet").is_empty() {
                self.deleted.insert(key);
            }
            return;
        }
        let before = change.before.as_ref().map(|before| (holder(before).to_owned(), epoch(before)));
        let now = (holder(object).to_owned(), epoch(object));
        if before.as_ref() != Some(&now) {
            let pod = if now.0.is_empty() { "nobody" } else { &now.0 };
            self.trace.say(who, format_args!("{name}@{revision} is {pod}'s, epoch {}", now.1));
        }
        if let Some((was, epoch)) = before.filter(|before| *before != now)
            && now.1 != epoch + 1
        {
            self.accuse("L7", format_args!("{who} makes epoch {} of {epoch} in {name}, {was} {}", now.1, now.0));
        }
        let forced_at =
            |lease: &Object| text(&lease["metadata"]["annotations"][names::ANNOTATION_FORCED_AT]).to_owned();
        if change.before.as_ref().is_some_and(|before| forced_at(before) != forced_at(object)) {
            self.excuses.force(key.clone(), now.1);
        }
        let holders = self.holders.entry(key.clone()).or_default();
        if !now.0.is_empty() && holders.last().map(|last| pod_of_identity(last)) != Some(pod_of_identity(&now.0)) {
            holders.push(now.0.clone());
        }
        self.versions.insert(revision, Version { key, holder: now.0, epoch: now.1, by: who.to_string() });
    }

    /// What the policy for agents allows: to claim and renew the session of its own Pod.
    fn judge_session(&self, commit: &Commit, process: &Process) {
        let (change, who) = (&commit.change, &commit.who);
        let (name, own) = (change.object.name(), names::session_lease_name(&process.pod).unwrap_or_default());
        let Some(before) = change.before.as_ref().filter(|_| !change.is_gone && is_edit(commit.verb)) else {
            return self.accuse("policy", format_args!("{who} makes or deletes {name}"));
        };
        let (was, is) = (holder(before), holder(&change.object));
        let is_mine = Holder::parse(is).is_some_and(|holder| holder.uid == process.pod_uid);
        let is_next = epoch(&change.object) == epoch(before) + u64::from(was != is);
        if name != own || owner(before, "Pod") != process.pod_uid || !is_mine || !is_next {
            self.accuse("policy", format_args!("{who} writes {is:?} in the place of {was:?} into {name}"));
        }
    }

    /// And to give away what it holds.
    fn judge_ownership(&self, commit: &Commit, process: &Process) {
        let (change, who) = (&commit.change, &commit.who);
        let name = change.object.name();
        let is_held = change.before.as_ref().is_some_and(|before| {
            let held = Holder::parse(holder(before)).zip(process.identity.as_ref());
            // Or an earlier boot of its Pod held it.
            let is_own =
                held.is_some_and(|(held, me)| (&held.pod, &held.uid) == (&me.pod, &me.uid) && held.boot <= me.boot);
            is_own && epoch(&change.object) >= epoch(before)
        });
        if change.is_gone || !is_edit(commit.verb) || !is_held || !name.starts_with("listener.") {
            self.accuse("policy", format_args!("{who} writes {name}, which it does not hold"));
        }
    }
}

fn is_edit(verb: Verb) -> bool {
    matches!(verb, Verb::Patch | Verb::Update)
}

fn pod_of_identity(identity: &str) -> &str {
    identity.split('/').next().unwrap_or_default()
}
