//! Pods with agents, Leases, a controller: in steps of one second.
mod agents;
mod check;
mod server;

pub use check::check;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    api::{ListenerSet, ListenerSetStatus, names, session::SessionProfile},
    plan::{
        Applied,
        listener_set::{
            SetRecollection,
            change::{SetChange, SetPlan},
            note_write,
            ownership::Write,
            plan,
            session::Boottime,
            unit::{Runs, Unit},
        },
    },
    snapshot::{
        ContainerEnd,
        lease::{Claim, Holder, Letter, Named, Ownership, Session, Watched},
        listener,
        listener_set::{Course, OwnershipSeen, PodEnds, SessionSeen, SetPod, SetSnapshot},
        report::{AgentInfo, Gap, Report},
    },
};

/// A Pod and its agent, with what is wrong with it.
#[allow(clippy::struct_excessive_bools)]
pub struct Pod {
    pub seen: SetPod,
    pub profile: SessionProfile,
    /// Its agent's process.
    pub agent: Option<Agent>,
    /// It has one that starts again when it ends.
    pub has_agent: bool,
    /// Its object was deleted by force, and its processes were not.
    pub is_gone: bool,
    /// Its agent does not reach the API server.
    pub is_cut_off: bool,
    /// Its agent learns of what it owns by letters only.
    pub is_deaf: bool,
    /// Its agent stops nothing.
    pub hangs: bool,
    /// Listeners that do not start here.
    pub cannot: BTreeSet<String>,
    starts: u32,
}

pub struct Agent {
    pub me: Holder,
    started_at: u64,
    pub deadline: Boottime,
    /// By name and uid of the ownership Lease.
    pub units: BTreeMap<(String, String), Unit>,
    failures: BTreeMap<String, u32>,
    inbox: BTreeMap<String, Letter>,
    renewed_at: u64,
    pub draining: bool,
    reported: Report,
    gaps: Vec<Gap>,
}

/// Seconds between two rounds of the garbage collector.
const COLLECTS_EACH: u64 = 20;
/// Seconds without a change after which there will be none: what the collector takes is over D and a stop later.
const QUIET: u64 = COLLECTS_EACH + 25;

/// What an observer remembers of a session.
#[derive(Clone)]
struct Watch {
    seen: Option<(Claim, u32, Option<Timestamp>)>,
    silent_since: u64,
    claimed: Option<(Claim, u32)>,
    claimed_since: u64,
    durations: [Duration; 2],
}

pub struct World {
    pub now: u64,
    pub set: ListenerSet,
    pub pods: BTreeMap<String, Pod>,
    pub sessions: BTreeMap<String, SessionSeen>,
    pub leases: BTreeMap<String, OwnershipSeen>,
    pub memory: SetRecollection,
    pub is_rolling: bool,
    pub pods_in_the_end: usize,
    pub lost_nodes: BTreeSet<String>,
    /// Pods that the Rollout deletes once they hold nothing.
    pub leaving: BTreeSet<String>,
    /// Changes that were written, of all looks.
    pub writes: usize,
    /// Planned moves of each listener.
    pub moves: BTreeMap<String, u32>,
    watches: BTreeMap<String, Watch>,
    started: BTreeSet<(String, u32)>,
    pub epochs: BTreeMap<String, u32>,
    names: u32,
    versions: u64,
}

pub fn time(second: u64) -> Timestamp {
    Timestamp::from_second(1_767_261_600).unwrap() + SignedDuration::from_secs(second as i64)
}

impl World {
    pub fn new(spec: &serde_json::Value, pods: usize) -> Self {
        let object = json!({"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet",
            "metadata": {"name": "bots", "namespace": "shop", "uid": "uid-set", "generation": 1}, "spec": spec});
        let mut world = Self {
            now: 1_000,
            set: serde_json::from_value(object).unwrap(),
            pods: BTreeMap::new(),
            sessions: BTreeMap::new(),
            leases: BTreeMap::new(),
            memory: SetRecollection::default(),
            is_rolling: false,
            pods_in_the_end: pods,
            lost_nodes: BTreeSet::new(),
            leaving: BTreeSet::new(),
            writes: 0,
            moves: BTreeMap::new(),
            watches: BTreeMap::new(),
            started: BTreeSet::new(),
            epochs: BTreeMap::new(),
            names: 0,
            versions: 0,
        };
        for slot in 0..pods {
            world.add_pod(slot as i32);
        }
        world
    }

    /// A set of so many numbered listeners, in so many Pods.
    pub fn of(listeners: usize, pods: usize) -> Self {
        Self::new(&json!({"rolloutRef": {"name": "web"}, "count": {"count": listeners}}), pods)
    }

    /// A new Pod, on a node of its own.
    pub fn add_pod(&mut self, slot: i32) -> String {
        self.names += 1;
        let name = format!("web-{slot}-{}", self.names);
        let seen = SetPod {
            name: name.clone(),
            uid: format!("uid-{}", self.names),
            resource_version: "1".into(),
            slot: Some(slot),
            node: Some(format!("node-{}", self.names)),
            course: Course::Target,
            is_ready: true,
            is_terminating: false,
            grace_seconds: Some(65),
            ends: PodEnds::default(),
        };
        let pod = Pod {
            seen,
            profile: SessionProfile::Default,
            agent: None,
            has_agent: true,
            is_gone: false,
            is_cut_off: false,
            is_deaf: false,
            hangs: false,
            cannot: BTreeSet::new(),
            starts: 0,
        };
        self.pods.insert(name.clone(), pod);
        name
    }

    /// Its object and its processes are gone, and what it owns.
    pub fn delete_pod(&mut self, name: &str) {
        self.pods.remove(name);
        self.sessions.remove(name);
    }

    /// Its object and what it owns are gone; its processes run on until they notice.
    pub fn force_delete_pod(&mut self, name: &str) {
        self.sessions.remove(name);
        if let Some(pod) = self.pods.get_mut(name) {
            (pod.is_gone, pod.is_cut_off) = (true, true);
        }
    }

    /// Its container ends, and is started again. The kubelet says so.
    pub fn crash(&mut self, name: &str) {
        let now = self.now;
        let Some(pod) = self.pods.get_mut(name) else { return };
        let Some(agent) = pod.agent.take() else { return };
        pod.seen.ends.agent = vec![ContainerEnd {
            container_id: Some("containerd://1".into()),
            started_at: Some(time(agent.started_at)),
            finished_at: Some(time(now)),
        }];
    }

    /// Its container was started again, and has ended before its agent claimed the session. The kubelet tells of that one alone.
    pub fn crash_again(&mut self, name: &str) {
        let now = Some(time(self.now));
        let Some(pod) = self.pods.get_mut(name) else { return };
        pod.seen.ends.agent.iter_mut().for_each(|end| (end.started_at, end.finished_at) = (now, now));
    }

    fn version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    /// What the controller sees now.
    pub fn snapshot(&mut self) -> SetSnapshot {
        let mut sessions = self.sessions.clone();
        let holders = self.leases.values().filter_map(|seen| seen.ownership.holder.as_ref());
        let names: BTreeSet<String> = self
            .pods
            .keys()
            .cloned()
            .chain(holders.map(|holder| holder.pod.clone()))
            .chain(self.watches.keys().cloned())
            .collect();
        for name in names {
            let session = self.sessions.get(&name).and_then(|seen| seen.watched.session.clone());
            let seen = session.as_ref().map(|own| (own.claim.clone(), own.boot, own.renewed_at));
            let claimed = session.as_ref().map(|own| (own.claim.clone(), own.boot));
            let duration = session.as_ref().map_or(Duration::from_secs(15), |own| own.duration);
            let now = self.now;
            let watch = self.watches.entry(name.clone()).or_insert_with(|| Watch {
                seen: seen.clone(),
                silent_since: now,
                claimed: claimed.clone(),
                claimed_since: now,
                durations: [duration; 2],
            });
            if watch.seen != seen {
                (watch.seen, watch.silent_since) = (seen, now);
                watch.durations = [watch.durations[1], duration];
            }
            if watch.claimed != claimed {
                (watch.claimed, watch.claimed_since) = (claimed, now);
            }
            let watched = Watched {
                fenced: session.as_ref().and_then(|session| session.claim.fenced().cloned()),
                session,
                silent_for: Duration::from_secs(now - watch.silent_since),
                claimed_for: Duration::from_secs(now - watch.claimed_since),
                of_pod_for: Duration::from_secs(now - watch.claimed_since),
                duration: watch.durations.into_iter().max().unwrap(),
            };
            let entry = sessions.entry(name.clone()).or_insert_with(|| missing(&name));
            entry.watched = watched;
        }
        let listeners = listener::read(&self.set, None);
        SetSnapshot {
            set: self.set.clone(),
            listeners: listeners.map(Arc::new),
            pods: self.pods.values().filter(|pod| !pod.is_gone).map(|pod| pod.seen.clone()).collect(),
            sessions,
            ownerships: self.leases.clone(),
            taken_names: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            leaving: self.leaving.clone(),
            pods_in_the_end: self.pods_in_the_end,
            is_rolling: self.is_rolling,
            lost_nodes: self.lost_nodes.clone(),
            now: time(self.now),
            uptime: Duration::from_secs(self.now),
        }
    }

    /// The controller looks, and writes.
    pub fn look(&mut self) -> SetPlan {
        let snapshot = self.snapshot();
        let (planned, memory) = plan(&snapshot, &self.memory);
        check(&snapshot, &planned);
        self.memory = memory;
        self.store_floor(&planned);
        for change in &planned.changes {
            if self.write(change) {
                note_write(&mut self.memory, change, &Applied::Done { resource_version: String::new() });
            }
        }
        planned
    }

    /// The controller looks, and gets no further than to store the floor.
    pub fn remember(&mut self) {
        let snapshot = self.snapshot();
        let (planned, memory) = plan(&snapshot, &self.memory);
        self.memory = memory;
        self.store_floor(&planned);
    }

    /// Another operator begins, and looks before anything happens. Of a process whose Leases are all gone no one can know:
    /// it is as if the one before lived on for that.
    pub fn restart_operator(&mut self) {
        self.remember();
        let before = std::mem::take(&mut self.memory);
        self.memory.vanished = before.vanished;
        self.memory.vanished.retain(|(_, holder), _| !self.sessions.contains_key(&holder.pod));
        self.remember();
    }

    /// A person deletes the Lease of a listener.
    pub fn delete_lease(&mut self, listener: &str) {
        self.remember(); // an epoch that no operator has ever seen is lost
        self.leases.remove(listener);
    }

    /// What the controller would do now, without doing it.
    pub fn dry_look(&mut self) -> SetPlan {
        let snapshot = self.snapshot();
        plan(&snapshot, &self.memory).0
    }

    pub fn store_floor(&mut self, planned: &SetPlan) {
        let status = self.set.status.get_or_insert_with(ListenerSetStatus::default);
        let floor = i32::try_from(planned.epoch_floor).unwrap();
        if status.epoch_floor != floor {
            assert!(status.epoch_floor < floor, "the floor went down");
            status.epoch_floor = floor;
            self.writes += 1;
        }
    }

    /// A second passes: agents, then the controller.
    pub fn tick(&mut self) -> SetPlan {
        self.pass();
        self.look()
    }

    /// A second passes for all but the controller.
    pub fn pass(&mut self) {
        self.now += 1;
        if self.now.is_multiple_of(COLLECTS_EACH) {
            self.collect_garbage();
        }
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.start_agent(&name);
            for _ in 0..3 {
                self.renew(&name);
                self.step_units(&name);
            }
        }
        self.check_running();
        let now = self.boottime();
        self.pods.retain(|_, pod| !pod.is_gone || pod.agent.as_ref().is_some_and(|agent| now < agent.deadline));
        let watched: Vec<String> = self.watches.keys().filter(|name| !self.pods.contains_key(*name)).cloned().collect();
        let named = |name: &String| {
            self.leases.values().any(|seen| seen.ownership.holder.as_ref().is_some_and(|h| h.pod == *name))
        };
        let forgotten: Vec<String> = watched.into_iter().filter(|name| !named(name)).collect();
        for name in &forgotten {
            self.watches.remove(name);
        }
    }

    /// A session that a late write made for a Pod that was gone by then has no owner.
    fn collect_garbage(&mut self) {
        let pods = &self.pods;
        let is_owned = |own: &Session| pods.values().any(|pod| !pod.is_gone && pod.seen.uid == own.pod_uid);
        self.sessions.retain(|_, seen| seen.watched.session.as_ref().is_none_or(is_owned));
    }

    /// Until nothing is planned for some seconds. Panics when that does not come about.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..400 {
            quiet = if self.tick().changes.is_empty() { quiet + 1 } else { 0 };
            if quiet > QUIET {
                return;
            }
        }
        panic!("never quiet: {:#?}", self.dry_look());
    }

    pub fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| drop(self.tick()));
    }

    fn boottime(&self) -> Boottime {
        Boottime(Duration::from_secs(self.now))
    }

    /// Pods by the listeners that run in them, with the epoch.
    pub fn running(&self) -> BTreeMap<String, String> {
        let mut running = BTreeMap::new();
        for (name, pod) in &self.pods {
            for (listener, unit) in pod.agent.iter().flat_map(|agent| &agent.units) {
                if matches!(unit.runs, Runs::Epoch { .. }) {
                    running.insert(listener.0.clone(), name.clone());
                }
            }
        }
        running
    }

    /// How many listeners run in each Pod.
    pub fn loads(&self) -> Vec<usize> {
        let running = self.running();
        self.pods.keys().map(|pod| running.values().filter(|at| *at == pod).count()).collect()
    }
}

fn missing(pod: &str) -> SessionSeen {
    SessionSeen {
        lease: names::session_lease_name(pod).unwrap(),
        uid: String::new(),
        watched: Watched {
            session: None,
            silent_for: Duration::ZERO,
            claimed_for: Duration::ZERO,
            of_pod_for: Duration::ZERO,
            fenced: None,
            duration: Duration::from_secs(15),
        },
        profile: None,
        info: AgentInfo::default(),
        report: None,
        holds_of_earlier_set: false,
        inbox: BTreeMap::new(),
        other_profiles: Vec::new(),
    }
}
