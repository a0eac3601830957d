//! A ListenerSet: header, and tree of Pods and the listeners that they hold.
//!
//! Who holds what is in the Leases, and so it is read from these; what is wrong with a listener, the operator says in
//! status. Where the two disagree for a moment the Leases are newer.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    age::age,
    rollout::spoken,
    tree::{Node, Thing, Tone},
};
use crate::{
    api::{
        ConditionStatus, ConditionType,
        listener_set::ListenerState,
        listener_set_status::{LastMove, ListenerException, ListenerSetStatus},
        session::SessionProfile,
    },
    plan::listener_set::change::Stage,
    snapshot::{
        lease::{Claim, Holder, Order},
        listener::Wanted,
        listener_set::{OwnershipSeen, SessionSeen, SetSnapshot},
        report::UnitState,
    },
    status::listener_set::stage_word,
};

/// A tree of more listeners is not read by anybody.
pub const LISTENERS_LISTED_MAX: usize = 50;
/// A tree of more Pods neither: those with which all is well are drawn as one.
const PODS_LISTED_MAX: usize = 50;
/// Listeners that are not well, the most in one Pod.
const UNWELL_LISTED_MAX: usize = 10;

/// Everything a face shows of one ListenerSet.
#[derive(Clone, Debug, PartialEq)]
pub struct SetView {
    /// The lines above the tree.
    pub header: SetHeader,
    /// The ListenerSet with its Pods and their listeners.
    pub tree: Node,
}

/// The ListenerSet in a few words.
#[derive(Clone, Debug, PartialEq)]
pub struct SetHeader {
    /// Its name.
    pub name: String,
    /// How its state is meant.
    pub tone: Tone,
    /// Reason of the Ready condition.
    pub state: String,
    /// Its message.
    pub message: String,
    /// `NoAgent: …`, of the Degraded condition; empty when nothing is.
    pub warning: String,
    /// Listeners that run.
    pub running: i32,
    /// Listeners that should run.
    pub wanted: i32,
    /// Listeners that their Pods cannot get to run.
    pub failed: i32,
    /// Pods that hold listeners.
    pub holders: usize,
    /// How fast a lost Pod is noticed.
    pub profile: SessionProfile,
    /// The last planned move.
    pub last_move: Option<LastMove>,
}

/// The view of a ListenerSet as it is now. Above `listed_max` listeners, only those that are not well are listed.
pub fn view(snapshot: &SetSnapshot, listed_max: usize) -> SetView {
    let status = snapshot.set.status.clone().unwrap_or_default();
    let painter = Painter::new(snapshot, &status);
    let lines = painter.lines();
    let header = painter.header(&lines);
    let mut tree = Node::new(Thing::ListenerSet, header.name.clone()).state(header.tone, header.state.clone());
    tree.created = snapshot.set.metadata.creation_timestamp.as_ref().map(|at| at.0);
    tree.children = painter.pods(&lines, lines.len() <= listed_max);
    SetView { header, tree }
}

/// One listener.
struct Line<'a> {
    name: &'a str,
    stage: Stage,
    holder: Option<&'a Holder>,
    seen: Option<&'a OwnershipSeen>,
    exception: Option<&'a ListenerException>,
    /// The Pod that it is about to move to, and whether that is prepared.
    to: Option<(&'a str, bool)>,
    /// Its holder is not heard of: what it last said of the listener may be over.
    is_unknown: bool,
}

impl Line<'_> {
    fn runs(&self) -> bool {
        self.stage == Stage::Running && !self.is_unknown
    }
}

struct Painter<'a> {
    snapshot: &'a SetSnapshot,
    status: &'a ListenerSetStatus,
    /// None: they are not known.
    wanted: Option<BTreeMap<&'a str, &'a Wanted>>,
    /// Listeners that run, as the agent of their holder tells.
    running: BTreeSet<&'a str>,
}

impl<'a> Painter<'a> {
    fn new(snapshot: &'a SetSnapshot, status: &'a ListenerSetStatus) -> Self {
        let wanted = snapshot.listeners.as_ref().ok();
        let wanted = wanted.map(|wanted| wanted.iter().map(|wanted| (wanted.name.as_str(), wanted)).collect());
        let mut held: BTreeMap<&Holder, Vec<(&str, u32)>> = BTreeMap::new();
        for (name, seen) in &snapshot.ownerships {
            if let Some(holder) = &seen.ownership.holder {
                held.entry(holder).or_default().push((name, seen.ownership.epoch));
            }
        }
        let mut running = BTreeSet::new();
        for (holder, held) in held {
            let report = snapshot.sessions.get(&holder.pod).filter(|session| claim(session) == Some(holder));
            let runs = report.and_then(|session| session.report.as_ref()?.running(&held)).unwrap_or_default();
            running.extend(held.into_iter().zip(runs).filter(|(_, runs)| *runs).map(|((name, _), _)| name));
        }
        Self { snapshot, status, wanted, running }
    }

    fn header(&self, lines: &[Line<'_>]) -> SetHeader {
        let set = &self.snapshot.set;
        let is_seen = self.status.observed_generation >= set.metadata.generation;
        let (tone, state, message) = spoken(&self.status.conditions, is_seen);
        let degraded =
            self.status.conditions.iter().find(|condition| {
                condition.type_ == ConditionType::Degraded && condition.status == ConditionStatus::True
            });
        let warning = degraded
            .filter(|degraded| degraded.message != message) // the worst is said once
            .map(|degraded| format!("{}: {}", degraded.reason, degraded.message));
        let unread = self.snapshot.listeners.as_ref().err().filter(|error| state != error.reason);
        let unread = unread.map(|error| format!("{}: {}", error.reason, error.message));
        let (running, wanted, failed) = self.counts(lines);
        let holders: BTreeSet<&str> = lines.iter().filter_map(|line| Some(line.holder?.pod.as_str())).collect();
        SetHeader {
            name: set.metadata.name.clone().unwrap_or_default(),
            tone,
            state,
            warning: warning.or(unread).unwrap_or_default(),
            message,
            running,
            wanted,
            failed,
            holders: holders.len(),
            profile: set.spec.session.profile,
            last_move: self.status.last_move.clone(),
        }
    }

    /// How many run, should run, and cannot be got to run. Where it is not known which listeners there are, the operator's
    /// numbers are the only ones.
    fn counts(&self, lines: &[Line<'_>]) -> (i32, i32, i32) {
        let said = self.status;
        if self.wanted.is_none() && said.observed_generation.is_some() {
            return (said.running + said.moving, said.listeners - said.stopped, said.failed);
        }
        let count =
            |is: fn(&Line<'_>) -> bool| i32::try_from(lines.iter().filter(|line| is(line)).count()).unwrap_or(i32::MAX);
        let running = count(|line| matches!(line.stage, Stage::Running | Stage::Moving) && !line.is_unknown);
        let wanted = count(|line| !matches!(line.stage, Stage::Stopped | Stage::Stopping | Stage::Retiring));
        (running, wanted, count(|line| line.stage == Stage::Failed))
    }

    /// All listeners of the set, and those that are leaving it, by name.
    fn lines(&self) -> Vec<Line<'_>> {
        let exceptions: BTreeMap<&str, &ListenerException> =
            self.status.exceptions.iter().map(|exception| (exception.listener.as_str(), exception)).collect();
        let mut to = BTreeMap::new();
        for (pod, session) in &self.snapshot.sessions {
            for (name, letter) in session.inbox.iter().filter(|(_, letter)| letter.order == Order::Incoming) {
                let unit = session.report.as_ref().and_then(|report| report.units.get(name));
                let is_prepared = unit.is_some_and(|unit| unit.state == UnitState::Prepared);
                to.insert((name.as_str(), letter.epoch), (pod.as_str(), is_prepared));
            }
        }
        let wanted = self.wanted.iter().flat_map(BTreeMap::keys).copied();
        let names: BTreeSet<&str> = wanted.chain(self.snapshot.ownerships.keys().map(String::as_str)).collect();
        let lines = names.into_iter().map(|name| {
            let seen = self.snapshot.ownerships.get(name);
            let holder = seen.and_then(|seen| seen.ownership.holder.as_ref());
            let epoch = seen.map_or(0, |seen| seen.ownership.epoch);
            let to = to.get(&(name, epoch)).copied().filter(|(pod, _)| holder.is_some_and(|holder| holder.pod != *pod));
            let said = self.stage(name, holder, epoch);
            let stage = if said == Stage::Running && to.is_some() { Stage::Moving } else { said };
            let is_there = |exception: &&&ListenerException| {
                exception.holder == holder.map_or("", |holder| holder.pod.as_str())
                    && (stage != Stage::Running || stage_of(exception) == Some(Stage::Moving))
            };
            let exception = exceptions.get(name).filter(is_there).copied();
            let stage = exception.and_then(stage_of).unwrap_or(stage);
            let session = holder.and_then(|holder| self.snapshot.sessions.get(&holder.pod));
            let is_told = matches!(stage, Stage::Running | Stage::Moving | Stage::Starting | Stage::Failed);
            let is_unknown = is_told && session.is_some_and(|session| self.is_silent(session));
            Line { name, stage, holder, seen, exception, to, is_unknown }
        });
        lines.collect()
    }

    /// What the Leases say of a listener.
    fn stage(&self, name: &str, holder: Option<&Holder>, epoch: u32) -> Stage {
        let wanted = self.wanted.as_ref().map(|wanted| wanted.get(name));
        let should_run = match wanted {
            Some(None) => return Stage::Retiring,
            Some(Some(wanted)) => wanted.state == ListenerState::Started,
            None => true,
        };
        let Some(holder) = holder else { return if should_run { Stage::Unassigned } else { Stage::Stopped } };
        let session = self.snapshot.sessions.get(&holder.pod).filter(|session| claim(session) == Some(holder));
        let Some(session) = session else { return Stage::Orphaned };
        let unit = session.report.as_ref().and_then(|report| report.units.get(name));
        match unit.filter(|unit| unit.epoch == epoch).map(|unit| unit.state) {
            Some(UnitState::Failed) => Stage::Failed,
            Some(UnitState::Stopping) => Stage::Stopping,
            _ if !should_run => Stage::Stopping,
            _ if self.running.contains(name) => Stage::Running,
            _ => Stage::Starting,
        }
    }

    /// Pods by name, then what no Pod holds.
    fn pods(&self, lines: &[Line<'_>], lists_all: bool) -> Vec<Node> {
        let mut by_pod: BTreeMap<&str, Vec<&Line<'_>>> =
            self.snapshot.sessions.keys().map(|pod| (pod.as_str(), Vec::new())).collect();
        let mut nobodys = Vec::new();
        for line in lines {
            match line.holder {
                Some(holder) => by_pod.entry(&holder.pod).or_default().push(line),
                None => nobodys.push(line),
            }
        }
        let lists_pods = lists_all || by_pod.len() <= PODS_LISTED_MAX;
        let (mut nodes, mut well, mut of_well) = (Vec::new(), 0, 0);
        for (pod, lines) in by_pod {
            let node = self.pod(pod, &lines, lists_all);
            if !lists_pods && node.tone == Some(Tone::Good) && lines.iter().all(|line| line.runs()) {
                (well, of_well) = (well + 1, of_well + lines.len());
            } else {
                nodes.push(node);
            }
        }
        if well > 0 {
            let node = Node::new(Thing::Others, counted(well, "Pod")).state(Tone::Good, SESSION_HELD);
            nodes.push(node.info(counted(of_well, "listener")));
        }
        nodes.extend(self.listeners(&nobodys, lists_all));
        nodes
    }

    fn pod(&self, pod: &str, lines: &[&Line<'_>], lists_all: bool) -> Node {
        let seen = self.snapshot.sessions.get(pod);
        let session = seen.and_then(|seen| Some((seen, seen.watched.session.as_ref()?)));
        let mut words = vec![counted(lines.len(), "listener")];
        let mut node = Node::new(Thing::Pod, pod);
        let Some((seen, session)) = session else {
            return self.with_listeners(node.state(Tone::Bad, "NoSession").info(words.concat()), lines, lists_all);
        };
        if !seen.info.revision.is_empty() {
            words.push(format!("revision {}", seen.info.revision));
        }
        words.extend(session.renewed_at.map(|at| format!("renewed {} ago", self.since(at))));
        let (tone, state) = match session.claim {
            Claim::Held(_) if self.is_silent(seen) => (Tone::Bad, "Silent"),
            Claim::Held(_) if seen.info.draining => (Tone::Waiting, "Draining"),
            Claim::Held(_) => (Tone::Good, SESSION_HELD),
            Claim::Fenced(_) => (Tone::Bad, "Fenced"),
            Claim::Empty | Claim::Foreign | Claim::Unreadable => (Tone::Waiting, "NoAgent"),
        };
        node.created = session.acquired_at;
        self.with_listeners(node.state(tone, state).info(words.join(", ")), lines, lists_all)
    }

    fn with_listeners(&self, node: Node, lines: &[&Line<'_>], lists_all: bool) -> Node {
        Node { children: self.listeners(lines, lists_all), ..node }
    }

    /// All of them while there are few in the whole set; else those that are not well, and how many are.
    fn listeners(&self, lines: &[&Line<'_>], lists_all: bool) -> Vec<Node> {
        if lists_all {
            return lines.iter().map(|line| self.listener(line)).collect();
        }
        let is_well = |line: &Line<'_>| line.runs() || line.stage == Stage::Stopped;
        let mut unwell: Vec<&&Line<'_>> = lines.iter().filter(|line| !is_well(line)).collect();
        unwell.sort_by_key(|line| line.stage); // stable: by name within
        let mut nodes: Vec<Node> = unwell.iter().take(UNWELL_LISTED_MAX).map(|line| self.listener(line)).collect();
        if let Some(first) = unwell.get(UNWELL_LISTED_MAX) {
            let name = format!("… and {} more", unwell.len() - UNWELL_LISTED_MAX);
            nodes.push(Node::new(Thing::Others, name).state(tone(first.stage), "not running"));
        }
        for stage in [Stage::Running, Stage::Stopped] {
            let number = lines.iter().filter(|line| line.stage == stage && is_well(line)).count();
            let node = Node::new(Thing::Others, counted(number, "listener")).state(tone(stage), stage_word(stage));
            nodes.extend((number > 0).then_some(node));
        }
        nodes
    }

    fn listener(&self, line: &Line<'_>) -> Node {
        let mut words = Vec::new();
        if let Some(exception) = line.exception.filter(|exception| !exception.reason.is_empty()) {
            words.push(exception.reason.clone());
        }
        if let Some(seen) = line.seen {
            words.push(format!("epoch {}", seen.ownership.epoch));
        }
        if let Some((to, is_prepared)) = line.to {
            words.push(format!("to {to}{}", if is_prepared { " (prepared)" } else { "" }));
        } else if let Some(from) = from(line) {
            words.push(format!("from {from}"));
        }
        words.extend(self.gap(line).map(|millis| format!("gap {millis} ms")));
        // Whether one that no Pod holds is missed, is not known without the list.
        let is_missed = self.wanted.is_some() || line.exception.is_some();
        let (tone, word) = match line.stage {
            Stage::Unassigned if !is_missed => (Tone::Neutral, NOT_HELD),
            _ if line.is_unknown => (Tone::Bad, UNKNOWN),
            stage => (tone(stage), stage_word(stage)),
        };
        let mut node = Node::new(Thing::Listener, line.name).state(tone, word);
        let since = line.exception.and_then(|exception| exception.since.as_ref()).map(|at| at.0);
        node.created = since.or_else(|| line.holder.and(line.seen?.acquired_at));
        node.info(words.join(", "))
    }

    /// How long it ran nowhere on its way to where it is.
    fn gap(&self, line: &Line<'_>) -> Option<u32> {
        let epoch = line.seen?.ownership.epoch;
        let gaps = &self.snapshot.sessions.get(&line.holder?.pod)?.report.as_ref()?.gaps;
        gaps.iter().find(|gap| gap.listener == line.name && gap.epoch == epoch).map(|gap| gap.millis)
    }

    /// Its session has run out. By two clocks; the operator judges by one: it is only said, and nothing rests on it.
    fn is_silent(&self, session: &SessionSeen) -> bool {
        let renewed_at = session.watched.session.as_ref().and_then(|session| session.renewed_at);
        let silent_for = renewed_at.map_or(0, |at| self.snapshot.now.as_second() - at.as_second());
        silent_for > i64::try_from(session.watched.duration.as_secs()).unwrap_or(i64::MAX)
    }

    fn since(&self, at: Timestamp) -> String {
        age(self.snapshot.now.as_second() - at.as_second())
    }
}

const SESSION_HELD: &str = "SessionHeld";
const NOT_HELD: &str = "NotHeld";
/// As of a Pod on a node that is not heard of.
const UNKNOWN: &str = "Unknown";

/// The Pod that it came from; its own, where it was started again in place, says nothing.
fn from(line: &Line<'_>) -> Option<String> {
    let from = Holder::parse(line.seen?.from.as_ref()?)?.pod;
    line.holder.is_none_or(|holder| holder.pod != from).then_some(from)
}

/// The boot that holds this session.
fn claim(session: &SessionSeen) -> Option<&Holder> {
    match &session.watched.session.as_ref()?.claim {
        Claim::Held(holder) => Some(holder),
        _ => None,
    }
}

fn stage_of(exception: &ListenerException) -> Option<Stage> {
    use Stage::{Failed, Moving, Orphaned, Retiring, Starting, Stopping, Unassigned};
    let stages = [Failed, Orphaned, Unassigned, Moving, Starting, Stopping, Retiring];
    stages.into_iter().find(|stage| stage_word(*stage) == exception.state)
}

fn tone(stage: Stage) -> Tone {
    match stage {
        Stage::Failed | Stage::Orphaned => Tone::Bad,
        Stage::Unassigned | Stage::Stopping | Stage::Retiring => Tone::Waiting,
        Stage::Moving | Stage::Starting => Tone::Working,
        Stage::Running => Tone::Good,
        Stage::Stopped => Tone::Neutral,
    }
}

fn counted(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
