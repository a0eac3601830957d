//! What a kubelet does with the container of an agent: starts it, sees its end late, tells of that, starts it again; ends it
//! with its Pod, and some time after a Pod that was deleted by force.
use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Due, World, node_name, report::settle_gates};
use crate::{
    fake_apiserver::{
        kinds::PODS,
        object::{Object, whole_seconds},
    },
    simulate::{
        listeners::{Ended, Listeners},
        versions::Stage,
    },
};

/// Restarts that are told. With three a Pod counts as failed, and how often its agent has been killed here is no fault of
/// its version.
const RESTARTS_TOLD_MAX: u32 = 2;

/// Agents, and the containers that they run in.
pub struct Containers {
    agents: Listeners,
    rng: fastrand::Rng,
    /// By uid of the Pod. They may outlive it.
    all: BTreeMap<String, Container>,
    /// Nodes that are not only silent, but cut off or dead.
    lost: BTreeMap<usize, Loss>,
}

/// What has become of a silent node.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    KubeletOnly,
    CutOff,
    WithoutPower,
}

/// The container of an agent.
struct Container {
    node: usize,
    number: u32,
    started: Timestamp,
    runs: bool,
    last: Option<End>,
    /// It is not started again.
    is_over: bool,
    /// Its Pod's course says when it starts and ends.
    is_staged: bool,
    exchange: Exchange,
}

/// The end of a container, as its kubelet tells it.
#[derive(Clone, Copy)]
struct End {
    number: u32,
    started: Timestamp,
    finished: Timestamp,
    /// Else the container's runtime knows only that it has lost it.
    was_seen: bool,
}

/// How far a container is on its way to another image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exchange {
    /// It is to run what it runs.
    None,
    /// It has been told to end.
    Ending,
    /// It has ended, and the Pod's new course says when the next one starts.
    Ended,
}

impl Container {
    /// Writes what the kubelet knows of it.
    fn tell(&self, pod: &mut Value) {
        let ended = |end: End| {
            json!({"terminated": {"exitCode": if end.was_seen { 137 } else { 255 }, "reason": "Error",
                "containerID": format!("sim://{}", end.number), "startedAt": whole_seconds(end.started),
                "finishedAt": whole_seconds(end.finished)}})
        };
        let status = &mut pod["status"]["containerStatuses"][0];
        if !status.is_object() {
            return;
        }
        if self.runs {
            status["state"] = json!({"running": {"startedAt": whole_seconds(self.started)}});
            status["containerID"] = json!(format!("sim://{}", self.number));
        } else if let Some(last) = self.last.filter(|_| !self.is_of_course()) {
            status["state"] = ended(last);
            status["ready"] = json!(false);
        }
        status["lastState"] = self.last.filter(|_| self.runs || self.is_of_course()).map_or_else(|| json!({}), ended);
        if !self.is_staged {
            status["restartCount"] = json!((self.number - 1).min(RESTARTS_TOLD_MAX));
        }
    }
}

impl World {
    /// Has agents run in the Pods that have one.
    pub fn run_agents(&mut self, agents: &Listeners, rng: fastrand::Rng) {
        let (all, lost) = (BTreeMap::new(), BTreeMap::new());
        self.containers = Some(Containers { agents: agents.clone(), rng, all, lost });
    }

    fn agents_after(&mut self, from: u64, to: u64, due: Due) {
        if let Some(containers) = &mut self.containers {
            let pause = Duration::from_millis(containers.rng.u64(from..to));
            self.after(pause, due);
        }
    }

    /// What the node's clock shows: that of its own machine, where agents run there.
    pub(super) fn now_for(&self, uid: &str) -> Timestamp {
        let node = self.containers.as_ref().and_then(|containers| Some((containers, containers.all.get(uid)?)));
        node.map_or_else(|| self.clock.now(), |(containers, container)| containers.agents.wall(container.node))
    }

    /// A container runs from now on, unless it does already; or it ends, as its Pod's course has it.
    pub(super) fn stage_container(&mut self, uid: &str, stage: Stage) {
        let is_staged = self.pods.get(uid).is_some_and(|pod| pod.crashes);
        match stage {
            Stage::Running => self.start_container(uid, is_staged),
            Stage::Crashed(_) => self.stop_container(uid),
            _ => {}
        }
    }

    fn start_container(&mut self, uid: &str, is_staged: bool) {
        let Some(pod) = self.pods.get(uid) else { return };
        let (object, node) = (self.kubelet.get(&PODS, &pod.namespace, &pod.name), pod.node.clone());
        let Some(object) = object.filter(|object| object.uid() == uid && has_agent(object)) else { return };
        let Some(containers) = &mut self.containers else { return };
        let Some(node) = (0..super::NODES_MAX).find(|number| Some(node_name(*number)) == node) else { return };
        let started = containers.agents.wall(node);
        let container = containers.all.entry(uid.to_owned()).or_insert(Container {
            node,
            number: 0,
            started,
            runs: false,
            last: None,
            is_over: false,
            is_staged,
            exchange: Exchange::None,
        });
        let is_of_course = is_staged || container.exchange == Exchange::Ended;
        if container.runs || container.is_over || (container.last.is_some() && !is_of_course) {
            return;
        }
        (container.number, container.started, container.runs) = (container.number + 1, started, true);
        (container.is_staged, container.exchange) = (is_staged, Exchange::None);
        containers.agents.launch(&object, node, container.number);
    }

    /// SIGKILL to all that is in it.
    pub(super) fn stop_container(&mut self, uid: &str) {
        let Some(containers) = &mut self.containers else { return };
        let Some(container) = containers.all.get_mut(uid).filter(|container| container.runs) else { return };
        container.end(containers.agents.wall(container.node));
        containers.agents.kill_in(uid);
    }

    /// The same, if it is this one that runs.
    pub(super) fn kill_container(&mut self, uid: &str, number: u32) {
        let containers = self.containers.as_ref();
        if containers.and_then(|containers| containers.all.get(uid)).is_some_and(|container| container.number == number)
        {
            self.stop_container(uid);
        }
    }

    /// An agent has run in this Pod.
    pub(super) fn has_container(&self, uid: &str) -> bool {
        self.containers.as_ref().is_some_and(|containers| containers.all.contains_key(uid))
    }

    /// The container of an agent is to make room for one of another image: the agent is told to end. False: none lives there.
    pub(super) fn ends_for_exchange(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.get(uid).filter(|_| self.has_container(uid)) else { return false };
        if self.is_silent(pod) {
            self.agents_after(500, 1_500, Due::Exchange(uid.to_owned()));
            return true;
        }
        let object = self.kubelet.get(&PODS, &pod.namespace, &pod.name);
        let grace = object.and_then(|object| object["spec"]["terminationGracePeriodSeconds"].as_u64());
        let Some(containers) = &mut self.containers else { return false };
        let Some(container) = containers.all.get_mut(uid) else { return false };
        if containers.agents.lives_in(uid) {
            container.exchange = Exchange::Ending;
            self.terminate(uid, grace.unwrap_or_default());
            return true;
        }
        if container.runs {
            container.end(containers.agents.wall(container.node));
        }
        container.exchange = Exchange::Ended;
        false
    }

    /// It will not be started again.
    pub(super) fn give_up_container(&mut self, uid: &str) {
        self.stop_container(uid);
        if let Some(container) = self.containers.as_mut().and_then(|containers| containers.all.get_mut(uid)) {
            container.is_over = true;
        }
    }

    /// Writes what the kubelet knows of a Pod's container.
    pub(super) fn tell_of_container(&self, uid: &str, pod: &mut Value, now: Timestamp) {
        if let Some(container) = self.containers.as_ref().and_then(|containers| containers.all.get(uid)) {
            container.tell(pod);
            settle_gates(pod, now);
        }
    }

    /// An agent has ended, or its container runtime has lost it. Its kubelet sees that a moment later.
    pub(super) fn agent_ended(&mut self, ended: &Ended) {
        let Some(containers) = &mut self.containers else { return };
        let wall = |node| containers.agents.wall(node);
        let Some(container) = containers.all.get_mut(&ended.pod) else { return };
        if container.number != ended.container {
            return;
        }
        if container.runs {
            container.end_as(wall(container.node), ended.was_seen);
        }
        if !self.pods.contains_key(&ended.pod) {
            containers.all.remove(&ended.pod);
            return;
        }
        self.agents_after(10, 1_100, Due::Noticed(ended.pod.clone(), ended.container));
    }

    /// The kubelet has seen the end of a container.
    pub(super) fn notice_end(&mut self, uid: &str, number: u32) {
        let Some(pod) = self.pods.get(uid) else { return };
        let is_this = |container: &&Container| container.number == number && !container.runs;
        let container = self.containers.as_ref().and_then(|containers| containers.all.get(uid)).filter(is_this);
        let Some(container) = container else { return };
        let (is_over, is_staged, exchange) = (container.is_over, container.is_staged, container.exchange);
        if self.is_silent(pod) {
            self.agents_after(500, 1_500, Due::Noticed(uid.to_owned(), number));
        } else if pod.is_ending {
            self.agents_after(10, 1_500, Due::End(uid.to_owned()));
        } else if exchange == Exchange::Ending {
            self.exchange(uid);
        } else if !is_over && !is_staged {
            let now = self.now_for(uid);
            self.write_status(uid, |object| self.tell_of_container(uid, object, now));
            self.agents_after(50, 4_000, Due::Restart(uid.to_owned()));
        }
    }

    /// The kubelet starts a container again.
    pub(super) fn restart(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid).filter(|pod| !pod.is_ending) else { return };
        if self.is_silent(pod) {
            return self.agents_after(500, 1_500, Due::Restart(uid.to_owned()));
        }
        let Some(containers) = &mut self.containers else { return };
        let may_start = |container: &&mut Container| !container.is_over && container.exchange == Exchange::None;
        let Some(container) = containers.all.get_mut(uid).filter(may_start) else { return };
        let last = container.last.take();
        self.start_container(uid, false);
        if let Some(container) = self.containers.as_mut().and_then(|containers| containers.all.get_mut(uid)) {
            container.last = last;
        }
        let now = self.now_for(uid);
        self.write_status(uid, |object| self.tell_of_container(uid, object, now));
        // While its course goes on, that says what comes.
        if let Some((life, stage)) = self.pods.get(uid).and_then(|pod| Some((pod.life, pod.settled?))) {
            self.agents_after(10, 3_000, Due::Stage(uid.to_owned(), life, stage));
        }
    }

    /// The kubelet is to end a Pod that has an agent; false: it has none.
    pub(super) fn end_container(&mut self, object: &Object) -> bool {
        let uid = object.uid();
        let runs = self.containers.as_ref().is_some_and(|containers| containers.agents.lives_in(uid));
        if !runs {
            return false;
        }
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or_default();
        self.agents_after(0, 1_500, Due::Terminate(uid.to_owned(), grace));
        true
    }

    /// The object is gone, and its processes may not be.
    pub(super) fn orphan_container(&mut self, uid: &str) {
        let Some(containers) = &mut self.containers else { return };
        if containers.agents.lives_in(uid) {
            let grace = containers.rng.u64(0..7);
            self.agents_after(0, 2_000, Due::Terminate(uid.to_owned(), grace));
        } else {
            containers.all.remove(uid);
        }
    }

    /// SIGTERM, and SIGKILL once the grace is over. A silent node does so when it is back.
    pub(super) fn terminate(&mut self, uid: &str, grace: u64) {
        let Some(containers) = &self.containers else { return };
        let Some(container) = containers.all.get(uid) else { return };
        if self.silent.contains(&node_name(container.node)) {
            return self.agents_after(500, 1_500, Due::Terminate(uid.to_owned(), grace));
        }
        containers.agents.terminate(uid);
        let number = container.number;
        self.after(Duration::from_secs(grace), Due::Kill(uid.to_owned(), number));
    }

    /// The conditions that gates wait for have changed.
    pub(super) fn see_gates(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid) else { return };
        if self.is_silent(pod) {
            return;
        }
        let now = self.now_for(uid);
        self.write_status(uid, |object| settle_gates(object, now));
    }

    /// Of an object whose gates may have changed.
    pub(super) fn watch_gates(&mut self, uid: &str, before: &Object, object: &Object) {
        let gates = |object: &Object| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let ours = conditions.filter(|condition| condition["type"].as_str().is_some_and(|t| t.contains('/')));
            ours.cloned().collect::<Vec<_>>()
        };
        if gates(before) == gates(object) {
            return;
        }
        let due = Due::Gates(uid.to_owned());
        if self.containers.is_some() { self.agents_after(1, 1_000, due) } else { self.after_millis(1, 1_000, due) }
    }

    /// A node falls silent: its kubelet alone, or it is cut off, or without power.
    pub(super) fn lose_agents(&mut self, node: usize) {
        let Some(containers) = &mut self.containers else { return };
        let loss = [Loss::KubeletOnly, Loss::CutOff, Loss::WithoutPower][containers.rng.usize(..3)];
        self.trace.say("world", format_args!("{} is silent: {loss:?}", node_name(node)));
        containers.lost.insert(node, loss);
        match loss {
            Loss::KubeletOnly => {}
            Loss::CutOff => containers.agents.cut_node(node, true),
            Loss::WithoutPower => {
                let here = containers.all.iter().filter(|(_, container)| container.node == node);
                let here: Vec<String> = here.map(|(uid, _)| uid.clone()).collect();
                for uid in &here {
                    containers.agents.kill_in(uid);
                }
            }
        }
    }

    /// A node is back.
    pub(super) fn regain_agents(&mut self, node: usize) {
        let Some(containers) = &mut self.containers else { return };
        if containers.lost.remove(&node) == Some(Loss::CutOff) {
            containers.agents.cut_node(node, false);
        }
    }
}

impl Container {
    /// What it is at, when it does not run, its Pod's course says.
    fn is_of_course(&self) -> bool {
        self.is_staged || self.exchange == Exchange::Ended
    }

    fn end(&mut self, now: Timestamp) {
        self.end_as(now, true);
    }

    fn end_as(&mut self, finished: Timestamp, was_seen: bool) {
        let end = End { number: self.number, started: self.started, finished, was_seen };
        (self.last, self.runs) = (Some(end), false);
    }
}

fn has_agent(pod: &Object) -> bool {
    pod["metadata"]["annotations"][baton::api::names::ANNOTATION_HAS_AGENT].is_string()
}
