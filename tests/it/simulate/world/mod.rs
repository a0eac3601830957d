//! Everything in a cluster but the operators and the users: scheduler, kubelets, the node controller, the garbage
//! collector. They see every commit at once and act after times of their own.
mod changes;
mod containers;
mod jobs;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use baton::operator::clock::Clock;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

pub use self::changes::MAY_BE_INFEASIBLE;
use self::{
    changes::{cpu_of, image_of},
    containers::Containers,
    report::{Seen, report, report_eviction, report_silence, settle_gates},
};
use super::{
    listeners::Ended,
    trace::Trace,
    versions::{Behaviour, Stage, behaviour_of, life},
};
use crate::fake_apiserver::{
    ApiServer, Commit,
    actor::Actor,
    delete::DeleteOptions,
    kinds::{JOBS, NODES, PODS},
    object::Object,
};

/// Number of nodes.
pub const NODES_MAX: usize = 3;
/// How long a node may be silent before it counts as lost.
const NODE_GRACE: Duration = Duration::from_secs(8);
/// How long after that its Pods are deleted.
const TOLERATION: Duration = Duration::from_secs(20);

/// What somebody does to the world.
#[derive(Clone, Debug)]
pub enum Order {
    /// A node falls silent.
    Silence(usize),
    /// A node is back.
    Return(usize),
    /// The node of some Pod throws it out; which, is drawn.
    Evict,
}

/// The cluster.
pub struct World {
    server: ApiServer,
    kubelet: Actor,
    clock: Clock,
    trace: Trace,
    rng: fastrand::Rng,
    pods: BTreeMap<String, Pod>,
    silent: BTreeSet<String>,
    agenda: BTreeMap<(Instant, u64), Due>,
    entries: u64,
    collects_garbage: bool,
    /// Of agents, in histories that have them.
    containers: Option<Containers>,
}

/// A Pod on its way. By uid.
struct Pod {
    namespace: String,
    name: String,
    node: Option<String>,
    stages: std::vec::IntoIter<(Duration, Stage)>,
    /// The last of them, once it has come to that.
    settled: Option<Stage>,
    is_ending: bool,
    /// Its version ends by itself, again and again.
    crashes: bool,
    /// The image that its kubelet has seen last.
    image: String,
    /// The image that its stages are of: what its container is started from.
    starting: String,
    /// The same of its cpu.
    cpu: String,
    seen: Seen,
    /// Its container runs.
    runs: bool,
    /// Images that it was given: what was to come with an earlier one does not.
    life: u32,
}

enum Due {
    Bind(String),
    /// With the life that it is of.
    Stage(String, u32, Stage),
    /// The kubelet sees that the spec has changed.
    Spec(String),
    /// The container of an earlier image has ended.
    Exchange(String),
    /// The kubelet sees that the resources have changed.
    Resources(String),
    /// Its node has room for them.
    Room(String),
    End(String),
    Garbage,
    Lost(String),
    Taint(String),
    /// The end of a container is seen.
    Noticed(String, u32),
    Restart(String),
    /// SIGTERM, with a grace in seconds.
    Terminate(String, u64),
    /// SIGKILL to this container.
    Kill(String, u32),
    /// Conditions of readiness gates are seen.
    Gates(String),
    /// The Job of this name and uid gets its Pod.
    JobPod(String, String),
    /// The Pod of a hook ends.
    HookEnd(String, String),
    /// The Job controller says how.
    JobEnd(String, String, bool),
    /// The kubelet has ended the Pod of a hook.
    HookGone(String, String),
}

impl World {
    /// With all nodes ready. `clock` is that of the nodes.
    pub fn new(server: &ApiServer, clock: Clock, trace: &Trace, rng: fastrand::Rng) -> Self {
        let world = Self {
            server: server.clone(),
            kubelet: server.actor("kubelet"),
            clock,
            trace: trace.clone(),
            rng,
            pods: BTreeMap::new(),
            silent: BTreeSet::new(),
            agenda: BTreeMap::new(),
            entries: 0,
            collects_garbage: false,
            containers: None,
        };
        for node in 0..NODES_MAX {
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            let node = json!({"metadata": {"name": node_name(node)}, "status": status});
            world.kubelet.create(&NODES, "", node).expect("a Node");
        }
        world
    }

    /// Runs until dropped.
    pub async fn run(
        mut self,
        mut commits: mpsc::UnboundedReceiver<Commit>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut ends: Option<mpsc::UnboundedReceiver<Ended>>,
    ) {
        loop {
            let next = self.agenda.keys().next().map_or_else(|| Instant::now() + Duration::from_hours(1), |key| key.0);
            tokio::select! {
                biased;
                Some(commit) = commits.recv() => self.notice(&commit),
                Some(order) = orders.recv() => self.obey(&order),
                Some(ended) = next_end(&mut ends) => self.agent_ended(&ended),
                () = tokio::time::sleep_until(next) => self.act(),
            }
        }
    }

    fn after(&mut self, pause: Duration, due: Due) {
        self.entries += 1;
        self.agenda.insert((Instant::now() + pause, self.entries), due);
    }

    fn after_millis(&mut self, from: u64, to: u64, due: Due) {
        let pause = Duration::from_millis(self.rng.u64(from..to));
        self.after(pause, due);
    }

    fn notice(&mut self, commit: &Commit) {
        let object = &commit.change.object;
        // Also of an owner that begins to go: it may wait for what the collector does to its dependents.
        if commit.change.is_gone || commit.change.before.is_none() || object.is_terminating() {
            self.want_garbage_collected();
        }
        if *commit.change.kind == JOBS {
            return self.job_written(commit);
        }
        if *commit.change.kind != PODS {
            return;
        }
        if jobs::is_hook(object) {
            return self.hook_pod_written(commit);
        }
        if commit.change.is_gone {
            self.pods.remove(object.uid());
            self.orphan_container(object.uid());
        } else if commit.change.before.is_none() {
            self.meet(object);
        } else if object.is_terminating() {
            self.begin_end(object);
        } else if let Some(before) = commit.change.before.as_deref() {
            self.watch_gates(object.uid(), before, object);
            self.watch_resources(before, object);
            if image_of(before) != image_of(object) {
                self.after_millis(1, 1_500, Due::Spec(object.uid().to_owned()));
            }
        }
    }

    fn want_garbage_collected(&mut self) {
        if !self.collects_garbage {
            self.collects_garbage = true;
            self.after_millis(50, 3_000, Due::Garbage);
        }
    }

    fn meet(&mut self, object: &Object) {
        let image = image_of(object).to_owned();
        let cpu = cpu_of(object).to_owned();
        let behaviour = behaviour_of(object);
        let stages = life(behaviour, &mut self.rng).into_iter();
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let uid = object.uid().to_owned();
        self.pods.insert(
            uid.clone(),
            Pod {
                namespace,
                name,
                node: None,
                stages,
                settled: None,
                is_ending: false,
                crashes: behaviour == Behaviour::Crash,
                seen: Seen { image: image.clone(), cpu: cpu.clone(), ..Seen::default() },
                starting: image.clone(),
                image,
                cpu,
                runs: false,
                life: 0,
            },
        );
        self.after_millis(1, 500, Due::Bind(uid));
    }

    /// The kubelet stops the program: at once, soon, or only when the grace is over.
    fn begin_end(&mut self, object: &Object) {
        let Some(pod) = self.pods.get_mut(object.uid()).filter(|pod| !pod.is_ending) else { return };
        pod.is_ending = true;
        if self.end_container(object) {
            return;
        }
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or_default() * 1_000;
        let takes = match self.rng.u8(0..10) {
            0..6 => self.rng.u64(1..=grace.clamp(1, 2_000)),
            6..8 => self.rng.u64(0..=grace),
            _ => grace,
        };
        self.after(Duration::from_millis(takes), Due::End(object.uid().to_owned()));
    }

    fn act(&mut self) {
        let Some(((_, _), due)) = self.agenda.pop_first() else { return };
        match due {
            Due::Bind(uid) => self.bind(&uid),
            Due::Stage(uid, life, stage) => self.come_to(&uid, life, stage),
            Due::Spec(uid) => self.see_spec(&uid),
            Due::Exchange(uid) => self.exchange(&uid),
            Due::Resources(uid) => self.see_resources(&uid),
            Due::Room(uid) => self.make_room(&uid),
            Due::End(uid) => self.end(&uid),
            Due::Garbage => {
                self.collects_garbage = false;
                if self.server.collect_garbage() > 0 {
                    self.want_garbage_collected();
                }
            }
            Due::Lost(node) => self.lose(&node),
            Due::Taint(node) => self.taint(&node),
            Due::Noticed(uid, number) => self.notice_end(&uid, number),
            Due::Restart(uid) => self.restart(&uid),
            Due::Terminate(uid, grace) => self.terminate(&uid, grace),
            Due::Kill(uid, number) => self.kill_container(&uid, number),
            Due::Gates(uid) => self.see_gates(&uid),
            Due::JobPod(name, uid) => self.make_job_pod(&name, &uid),
            Due::HookEnd(name, uid) => self.end_hook(&name, &uid),
            Due::JobEnd(name, uid, is_well) => self.end_job(&name, &uid, is_well),
            Due::HookGone(name, uid) => self.finish_hook(&name, &uid),
        }
    }

    fn bind(&mut self, uid: &str) {
        let ready: Vec<String> = (0..NODES_MAX).map(node_name).filter(|node| !self.silent.contains(node)).collect();
        if ready.is_empty() {
            self.after_millis(1_000, 2_000, Due::Bind(uid.to_owned()));
            return;
        }
        let node = ready[self.rng.usize(..ready.len())].clone();
        let Some(pod) = self.pods.get_mut(uid).filter(|pod| !pod.is_ending) else { return };
        if self.kubelet.bind(&pod.namespace, &pod.name, &node).is_ok() {
            pod.node = Some(node);
            self.next_stage(uid);
        }
    }

    /// True: there is another one.
    fn next_stage(&mut self, uid: &str) -> bool {
        let next = self.pods.get_mut(uid).and_then(|pod| Some((pod.life, pod.stages.next()?)));
        if let Some((life, (pause, stage))) = next {
            self.after(pause, Due::Stage(uid.to_owned(), life, stage));
        }
        next.is_some()
    }

    /// A silent node reports nothing until it is back; nor does one about a Pod that it ends.
    fn come_to(&mut self, uid: &str, life: u32, stage: Stage) {
        let Some(pod) = self.pods.get(uid).filter(|pod| !pod.is_ending && pod.life == life) else { return };
        if self.is_silent(pod) {
            self.after_millis(500, 1_500, Due::Stage(uid.to_owned(), life, stage));
            return;
        }
        self.stage_container(uid, stage);
        let counts = self.containers.is_none();
        if let Some(pod) = self.pods.get_mut(uid) {
            let runs = matches!(stage, Stage::Running | Stage::Ready);
            if runs && !pod.runs {
                pod.seen.container += u32::from(counts);
                pod.seen.image.clone_from(&pod.starting);
                if pod.seen.held.is_none() {
                    pod.seen.cpu.clone_from(&pod.cpu);
                }
            }
            pod.runs = runs;
        }
        self.tell(uid, Some(stage));
        if !self.next_stage(uid)
            && let Some(pod) = self.pods.get_mut(uid)
        {
            pod.settled = Some(stage);
        }
    }

    /// Writes a status: at a stage, or as before, but of the spec that the kubelet goes by now.
    fn tell(&mut self, uid: &str, stage: Option<Stage>) {
        let now = self.now_for(uid);
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let object = self.kubelet.get(&PODS, &pod.namespace, &pod.name);
        let generation = object.filter(|object| image_of(object) == pod.image && cpu_of(object) == pod.cpu);
        let generation = generation.and_then(|object| object["metadata"]["generation"].as_i64());
        pod.seen.generation = generation.unwrap_or(pod.seen.generation);
        let seen = pod.seen.clone();
        self.write_status(uid, |object| {
            match stage {
                Some(stage) => report(object, stage, &seen, now),
                None => object["status"]["observedGeneration"] = json!(seen.generation),
            }
            changes::tell_resources(object, &seen);
            self.tell_of_container(uid, object, now);
            settle_gates(object, now);
        });
    }

    fn write_status(&self, uid: &str, mut write: impl FnMut(&mut Value)) {
        let Some(pod) = self.pods.get(uid) else { return };
        let is_it = self
            .kubelet
            .get(&PODS, &pod.namespace, &pod.name)
            .is_some_and(|object| object.uid() == uid && object["status"]["phase"] != "Failed");
        if is_it {
            let _ = self.kubelet.edit_status(&PODS, &pod.namespace, &pod.name, &mut write);
        }
    }

    fn end(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid) else { return };
        if self.is_silent(pod) {
            self.after_millis(500, 1_500, Due::End(uid.to_owned()));
        } else {
            let _ = self.kubelet.finish_pod(&pod.namespace, &pod.name, uid);
        }
    }

    fn is_silent(&self, pod: &Pod) -> bool {
        pod.node.as_ref().is_some_and(|node| self.silent.contains(node))
    }

    fn obey(&mut self, order: &Order) {
        self.trace.say("world", format_args!("{order:?}"));
        match order {
            Order::Silence(node) => {
                self.silent.insert(node_name(*node));
                self.after(NODE_GRACE, Due::Lost(node_name(*node)));
                self.lose_agents(*node);
            }
            Order::Return(node) => {
                self.silent.remove(&node_name(*node));
                self.set_ready(&node_name(*node), true);
                self.restore(&node_name(*node));
                self.regain_agents(*node);
            }
            Order::Evict => self.evict(),
        }
    }

    fn set_ready(&self, node: &str, is: bool) {
        let status = if is { "True" } else { "Unknown" };
        let write = |node: &mut Value| node["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        let _ = self.kubelet.edit_status(&NODES, "", node, write);
    }

    fn pods_of(&self, node: &str) -> Vec<String> {
        let here = self.pods.iter().filter(|(_, pod)| pod.node.as_deref() == Some(node));
        here.map(|(uid, _)| uid.clone()).collect()
    }

    fn lose(&mut self, node: &str) {
        if !self.silent.contains(node) {
            return;
        }
        self.trace.say("world", format_args!("{node} is lost"));
        self.set_ready(node, false);
        let now = self.clock.now();
        self.pods_of(node).iter().for_each(|uid| self.write_status(uid, |pod| report_silence(pod, now)));
        self.after(TOLERATION, Due::Taint(node.to_owned()));
    }

    /// Its Pods are deleted, and nobody there ends them.
    fn taint(&mut self, node: &str) {
        if !self.silent.contains(node) {
            return;
        }
        for uid in self.pods_of(node) {
            let pod = &self.pods[&uid];
            let options = DeleteOptions { uid: Some(uid.clone()), ..DeleteOptions::default() };
            let _ = self.kubelet.delete(&PODS, &pod.namespace, &pod.name, &options);
        }
    }

    /// Pods that were Ready when the node fell silent are so again.
    fn restore(&mut self, node: &str) {
        let now = self.clock.now();
        for uid in self.pods_of(node) {
            if !self.pods[&uid].is_ending {
                let seen = &self.pods[&uid].seen;
                self.write_status(&uid, |pod| {
                    if pod["status"]["containerStatuses"][0]["ready"] == true {
                        report(pod, Stage::Ready, seen, now);
                        changes::tell_resources(pod, seen);
                        self.tell_of_container(&uid, pod, now);
                        settle_gates(pod, now);
                    }
                });
            }
        }
    }

    fn evict(&mut self) {
        let candidates: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.node.is_some() && !pod.is_ending)
            .map(|(uid, _)| uid.clone())
            .collect();
        if !candidates.is_empty() {
            let uid = candidates[self.rng.usize(..candidates.len())].clone();
            self.give_up_container(&uid);
            let now = self.clock.now();
            self.write_status(&uid, |pod| report_eviction(pod, now));
        }
    }
}

/// Never, where there are no agents.
async fn next_end(ends: &mut Option<mpsc::UnboundedReceiver<Ended>>) -> Option<Ended> {
    match ends {
        Some(ends) => ends.recv().await,
        None => std::future::pending().await,
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}
