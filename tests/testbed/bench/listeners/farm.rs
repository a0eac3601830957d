//! Agents of simulated Pods: the code of the real ones, from the claim of a session to the hand-over, all in this process.
//! What they run is a note of when a listener starts and stops.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use baton::agent::{
    boottime::Boottime,
    clocks::Clocks,
    exec::{Cause, Ended, Environment, Proof, children::Exit},
    session::{
        api::Connect,
        boot::Boot,
        hands::Options,
        runner::{Happening, Id, Runner},
        settings,
        units::{Health, Notice},
    },
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    runtime::watcher::{self, Event},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    task::{AbortHandle, JoinSet},
};

use super::super::subject::{APP, NAMESPACE};

/// Longer than any roll: nobody leaves before its listeners are taken.
const DRAIN: Duration = Duration::from_hours(1);
/// Crashes that an agent may be behind by.
const CRASHES_MAX: usize = 16;

/// What listeners did.
#[derive(Default)]
pub struct Notes {
    /// Where each runs.
    running: BTreeMap<String, String>,
    /// When each has last stopped, and was not started since.
    stopped: BTreeMap<String, Instant>,
    /// From each stop to the next start, wherever it was.
    gaps: Vec<Duration>,
    /// Started while it ran.
    overlaps: usize,
}

impl Notes {
    fn started(&mut self, listener: &str, pod: &str) {
        if let Some(at) = self.stopped.remove(listener) {
            self.gaps.push(at.elapsed());
        }
        if self.running.insert(listener.to_owned(), pod.to_owned()).is_some() {
            self.overlaps += 1;
        }
    }

    fn ended(&mut self, listener: &str) {
        self.running.remove(listener);
        self.stopped.insert(listener.to_owned(), Instant::now());
    }
}

/// An agent, by the name of its Pod.
struct Agent {
    /// Of its Pod.
    uid: String,
    task: AbortHandle,
    notices: mpsc::Sender<Notice>,
}

#[derive(Default)]
struct Agents {
    live: BTreeMap<String, Agent>,
    /// uids of Pods whose agents were killed: what the watch still tells of these brings none back.
    killed: BTreeSet<String>,
}

/// The agents.
#[derive(Clone)]
pub struct Farm {
    notes: Arc<Mutex<Notes>>,
    agents: Arc<Mutex<Agents>>,
    /// Names of listeners that crash.
    crashes: broadcast::Sender<String>,
    config: Config,
}

impl Farm {
    /// Gives every Pod of the benchmark an agent, as one of `tasks`.
    pub fn start(config: Config, client: Client, tasks: &mut JoinSet<()>) -> Self {
        let farm = Self::new(config);
        tasks.spawn(farm.clone().follow(Api::namespaced(client, NAMESPACE)));
        farm
    }

    fn new(config: Config) -> Self {
        Self { notes: Arc::default(), agents: Arc::default(), crashes: broadcast::Sender::new(CRASHES_MAX), config }
    }

    async fn follow(self, pods: Api<Pod>) {
        let mut agents = JoinSet::new();
        let config = watcher::Config::default().labels(&format!("app={APP}"));
        let mut events = pin!(watcher::watcher(pods, config));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => self.meet(&pod, &mut agents),
                Ok(Event::Delete(pod)) => self.kill(&pod.name_any()),
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => {
                    eprintln!("  the watch on Pods: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn meet(&self, pod: &Pod, tasks: &mut JoinSet<()>) {
        let name = pod.name_any();
        let mut agents = lock(&self.agents);
        if pod.metadata.deletion_timestamp.is_some() {
            if let Some(agent) = agents.live.get(&name) {
                let _ = agent.notices.try_send(Notice::Terminate); // or it was told before
            }
            return;
        }
        let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let uid = pod.uid().unwrap_or_default();
        if runs && !agents.live.contains_key(&name) && !agents.killed.contains(&uid) {
            let (notices, incoming) = mpsc::channel(4);
            let (boot, runner) = (self.boot(pod, incoming), Noting::new(&name, self));
            let task = tasks.spawn(async move {
                if let Err(error) = boot.live(async { Ok(runner) }).await {
                    eprintln!("  an agent has ended: {error:#}");
                }
            });
            agents.live.insert(name, Agent { uid, task, notices });
        }
    }

    fn boot(&self, pod: &Pod, notices: mpsc::Receiver<Notice>) -> Boot {
        let config = self.config.clone();
        let connect: Connect = Arc::new(move || Client::try_from(config.clone()).context("cannot make a client"));
        let revision = pod.annotations().get("baton.dev/revision").cloned().unwrap_or_default();
        Boot {
            connect,
            clocks: Clocks::system(),
            rng: fastrand::Rng::new(),
            pod: settings::Pod {
                pod_name: pod.name_any(),
                pod_uid: pod.uid().unwrap_or_default(),
                pod_namespace: NAMESPACE.to_owned(),
                revision: revision.clone(),
            },
            options: Options { ready_on_tick: false, drain_timeout: DRAIN, revision, is_orphan: || false },
            notices,
            health: watch::Sender::new(Health::default()),
        }
    }

    /// Ends an agent as the loss of its machine does: it says nothing more.
    pub fn kill(&self, pod: &str) {
        let mut agents = lock(&self.agents);
        let Some(agent) = agents.live.remove(pod) else { return };
        agent.task.abort();
        agents.killed.insert(agent.uid);
        drop(agents);
        let mut notes = lock(&self.notes);
        let held: Vec<String> =
            notes.running.iter().filter(|(_, at)| *at == pod).map(|(name, _)| name.clone()).collect();
        for listener in held {
            notes.ended(&listener);
        }
    }

    /// Ends a listener as a crash of its program does.
    pub fn crash(&self, listener: &str) {
        let _ = self.crashes.send(listener.to_owned()); // or no agent is there
    }

    /// Some Pod that runs listeners, and how many.
    pub fn busiest(&self) -> Option<(String, usize)> {
        let mut held: BTreeMap<String, usize> = BTreeMap::new();
        for pod in lock(&self.notes).running.values() {
            *held.entry(pod.clone()).or_default() += 1;
        }
        held.into_iter().max_by_key(|(_, count)| *count)
    }

    /// Those that run now.
    pub fn running(&self) -> Vec<String> {
        lock(&self.notes).running.keys().cloned().collect()
    }

    /// Gaps since the last time that this was asked, in milliseconds, sorted; and how many were started while they ran.
    pub fn take_gaps(&self) -> (Vec<f64>, usize) {
        let mut notes = lock(&self.notes);
        let mut gaps: Vec<f64> =
            std::mem::take(&mut notes.gaps).iter().map(|gap| gap.as_secs_f64() * 1_000.0).collect();
        gaps.sort_by(f64::total_cmp);
        (gaps, std::mem::take(&mut notes.overlaps))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listeners that are notes.
struct Noting {
    pod: String,
    notes: Arc<Mutex<Notes>>,
    names: BTreeMap<Id, String>,
    happened: VecDeque<(Id, Happening)>,
    crashes: broadcast::Receiver<String>,
}

impl Noting {
    fn new(pod: &str, farm: &Farm) -> Self {
        Self {
            pod: pod.to_owned(),
            notes: farm.notes.clone(),
            names: BTreeMap::new(),
            happened: VecDeque::new(),
            crashes: farm.crashes.subscribe(),
        }
    }

    fn end(&mut self, id: &Id, cause: Cause, code: u8) -> Option<(Id, Happening)> {
        lock(&self.notes).ended(&self.names.remove(id)?);
        let ended = Ended { cause, exit: Some(Exit::Code(code)), proof: Proof::Agent };
        Some((id.clone(), Happening::Ended(ended)))
    }

    /// The next one that crashes here.
    async fn crash(&mut self) -> (Id, Happening) {
        loop {
            match self.crashes.recv().await {
                Ok(listener) => {
                    let id = self.names.iter().find(|(_, name)| **name == listener).map(|(id, _)| id.clone());
                    if let Some(crashed) = id.and_then(|id| self.end(&id, Cause::Exited, 1)) {
                        return crashed;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Runner for Noting {
    fn prepare(&mut self, id: &Id, _task: Environment) {
        self.happened.push_back((id.clone(), Happening::Prepared));
    }

    fn unprepare(&mut self, _id: &Id) {}

    fn start(&mut self, id: &Id, task: Environment, _until: Boottime) -> io::Result<()> {
        lock(&self.notes).started(&task.listener, &self.pod);
        self.names.insert(id.clone(), task.listener);
        Ok(())
    }

    fn stop(&mut self, id: &Id, _grace: Duration) {
        let stopped = self.end(id, Cause::Stopped, 0);
        self.happened.extend(stopped);
    }

    fn extend(&mut self, _until: Boottime) {}

    async fn next(&mut self) -> (Id, Happening) {
        match self.happened.pop_front() {
            Some(happened) => happened,
            None => self.crash().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the watch tells late, or once more after it has broken.
    #[tokio::test]
    async fn a_killed_pod_does_not_come_back() {
        let config = Config::new("http://127.0.0.1:1".parse().unwrap()); // nobody answers, which keeps an agent waiting
        let farm = Farm::new(config);
        let mut tasks = JoinSet::new();
        let mut meet = |uid: &str| {
            let metadata = json!({"name": "web-0", "namespace": NAMESPACE, "uid": uid});
            let pod = json!({"metadata": metadata, "status": {"phase": "Running"}});
            farm.meet(&serde_json::from_value(pod).unwrap(), &mut tasks);
            lock(&farm.agents).live.len()
        };
        assert_eq!(meet("u1"), 1);
        farm.kill("web-0");
        assert_eq!(meet("u1"), 0);
        assert_eq!(meet("u2"), 1, "another Pod of that name");
    }
}
