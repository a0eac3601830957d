//! One Pod's life on this node: a loop that waits for news (of the API, of processes, of the clock),
//! does what is due, and tells the API server.
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod, PodStatus};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    container::{Outcome, Surroundings, recover},
    hooks::Hook,
    host::Host,
    lifecycle::{self, Progress, Step},
    model::{self, Container, End, Health, Kind, PULL_ERROR, RestartPolicy},
    process::Process,
    status::{Situation, pod_status},
    stop::{MINIMUM, Stop},
    store::PodDir,
    tell::Teller,
};

/// More events than this at once make their senders wait.
const EVENT_QUEUE: usize = 64;
/// How long a failed pull is told as such before it is told as back-off: until the kubelet would
/// have looked at the Pod again.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// When a start that needs a person is tried again, as by the kubelet.
const RETRY: Duration = Duration::from_secs(10);
const DEADLINE_EXCEEDED: (&str, &str) =
    ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What the API says about a Pod.
#[derive(Clone, Debug)]
pub struct Order {
    pub pod: Arc<Pod>,
    /// The object is gone.
    pub gone: bool,
}

/// What the Pod's own tasks report. Containers are given by position and the number of the start.
enum Event {
    Attempted(usize, Outcome),
    /// The postStart hook has ended.
    Hooked(usize, u32, Result<()>),
    Ended(usize, u32, End),
}

/// The process of a container, and the end that it has been set.
#[derive(Default)]
struct Run {
    process: Option<Process>,
    deadline: Option<watch::Sender<Instant>>,
}

/// See the module.
pub struct Worker {
    host: Arc<Host>,
    orders: watch::Receiver<Order>,
    order: Order,
    dir: PodDir,
    policy: RestartPolicy,
    address: Ipv4Addr,
    start_time: Timestamp,
    /// In the order of [`model::specs`], as `runs`.
    containers: Vec<Container>,
    runs: Vec<Run>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    teller: Teller,
    status: PodStatus,
    /// When everything must have ended, once that has been decided.
    deadline: Option<Instant>,
    /// The Pod has failed as a whole.
    failure: Option<(&'static str, &'static str)>,
    wake_at: Option<Timestamp>,
}

impl Worker {
    /// Returns when nothing of the Pod is left, here and in the API.
    pub async fn run(host: Arc<Host>, orders: watch::Receiver<Order>) -> Result<()> {
        let mut worker = Self::new(host, orders).await?;
        while !worker.finished() {
            worker.act();
            worker.wait().await;
        }
        worker.host.addresses.release(worker.address);
        worker.dir.remove()?;
        Ok(())
    }

    async fn new(host: Arc<Host>, mut orders: watch::Receiver<Order>) -> Result<Self> {
        let order = orders.borrow_and_update().clone();
        let pod = &order.pod;
        let dir = PodDir::new(&host.state, model::uid(pod));
        dir.write_pod(pod)?;
        let address = host.addresses.take(&dir)?;
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let containers = model::containers(pod, host.back_off_scale());
        let mut worker = Self {
            policy: RestartPolicy::of(&spec),
            start_time: status.start_time.as_ref().map_or_else(Timestamp::now, |time| time.0),
            runs: containers.iter().map(|_| Run::default()).collect(),
            teller: Teller::new(Arc::clone(&host), pod),
            containers,
            dir,
            address,
            events,
            sender,
            status,
            deadline: None,
            failure: None,
            wake_at: None,
            order,
            orders,
            host,
        };
        worker.recover().await?;
        Ok(worker)
    }

    /// Takes up what an earlier run of the node has started.
    async fn recover(&mut self) -> Result<()> {
        if self.settled() && self.status.reason.as_deref() == Some(DEADLINE_EXCEEDED.0) {
            self.failure = Some(DEADLINE_EXCEEDED);
        }
        for position in 0..self.containers.len() {
            let (attempt, previous, process) = recover(&self.dir, &self.containers[position].name).await?;
            let container = &mut self.containers[position];
            container.attempt = attempt;
            container.previous = previous;
            if let Some(process) = process {
                let told = self.status.container_statuses.iter().chain(&self.status.init_container_statuses).flatten();
                let id = container.attempt.as_ref().map(|attempt| &attempt.id);
                let told = told.into_iter().find(|told| told.container_id.as_ref() == id);
                container.health = Health {
                    hook_runs: false,
                    started: told.is_some_and(|told| told.started == Some(true)),
                    ready: told.is_some_and(|told| told.ready),
                };
                self.attend(position, process);
            }
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.order.gone && self.ended() && self.containers.iter().all(|container| !container.starting)
    }

    /// Nothing runs, and nothing will.
    fn ended(&self) -> bool {
        self.halted() && !self.containers.iter().any(Container::active)
    }

    /// Nothing may start any more.
    fn halted(&self) -> bool {
        self.deleted() || self.failure.is_some() || self.settled()
    }

    fn deleted(&self) -> bool {
        self.order.gone || self.order.pod.metadata.deletion_timestamp.is_some()
    }

    /// The API has this Pod as ended, so it stays so.
    fn settled(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Timestamp::now();
        self.wake_at = None;
        self.check_deadline(now);
        if self.halted() || self.progress() == Progress::Finished || self.progress() == Progress::InitFailed {
            self.set_deadline();
        }
        let next = lifecycle::next(self.policy, &self.containers, self.halted(), now);
        self.wake_at = self.wake_at.into_iter().chain(next.wake_at).min();
        for step in next.steps {
            match step {
                Step::Start(position) => self.start(position, now),
                Step::Stop(position) => self.stop(position),
                Step::Hold(position, waiting) => self.containers[position].waiting = Some(waiting),
            }
        }
        self.tell(now);
    }

    fn progress(&self) -> Progress {
        lifecycle::progress(self.policy, &self.containers)
    }

    /// activeDeadlineSeconds: counted from the start of the Pod.
    fn check_deadline(&mut self, now: Timestamp) {
        let spec = self.order.pod.spec.as_ref();
        let Some(seconds) = spec.and_then(|spec| spec.active_deadline_seconds) else { return };
        if self.halted() || self.progress() == Progress::Finished {
            return;
        }
        let deadline = self.start_time + Duration::from_secs(seconds.max(0) as u64);
        if deadline <= now {
            self.failure = Some(DEADLINE_EXCEEDED);
        } else {
            self.wake_at = Some(deadline);
        }
    }

    /// Sets when everything must have ended; a deletion may bring it forward, never put it off.
    fn set_deadline(&mut self) {
        let metadata = &self.order.pod.metadata;
        let spec = self.order.pod.spec.as_ref();
        let of_spec = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE_SECONDS);
        let grace = metadata.deletion_grace_period_seconds.unwrap_or(of_spec).max(0) as u64;
        let grace = if self.order.gone { MINIMUM } else { Duration::from_secs(grace) };
        let deadline = self.deadline.into_iter().chain([Instant::now() + grace]).min();
        self.deadline = deadline;
        let Some(deadline) = deadline else { return };
        for run in &self.runs {
            if let Some(sender) = &run.deadline {
                sender.send_if_modified(|current| {
                    let sooner = deadline < *current;
                    *current = deadline.min(*current);
                    sooner
                });
            }
        }
    }

    fn spec(&self, position: usize) -> Option<ContainerSpec> {
        model::specs(&self.order.pod).nth(position).map(|(spec, _)| spec.clone())
    }

    fn start(&mut self, position: usize, now: Timestamp) {
        let Some(spec) = self.spec(position) else { return };
        let container = &mut self.containers[position];
        container.starting = true;
        let number = container.attempt.as_ref().map_or(0, |attempt| attempt.number + 1);
        let failed_at = container.end().map(|end| end.finished_at);
        if let Some(failed_at) = failed_at {
            container.crashes.advance(failed_at, now);
        }
        let surroundings = Surroundings {
            host: Arc::clone(&self.host),
            pod: Arc::clone(&self.order.pod),
            dir: self.dir.clone(),
            pod_ip: self.address.into(),
        };
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let outcome = surroundings.start(&spec, number).await;
            let _ = sender.send(Event::Attempted(position, outcome)).await;
        });
    }

    fn stop(&mut self, position: usize) {
        let (Some(process), Some(deadline)) = (self.runs[position].process.clone(), self.deadline) else { return };
        let after = match self.containers[position].kind {
            Kind::Sidecar => self.processes_after(position),
            Kind::Init | Kind::Main => Vec::new(),
        };
        let in_time = deadline > Instant::now();
        let hook = self.hook(position, false).filter(|_| in_time && !self.order.gone);
        let (sender, deadline) = watch::channel(deadline);
        self.containers[position].stopping = true;
        self.runs[position].deadline = Some(sender);
        let keep = if self.order.gone { self.host.settings.borrow().keep_force_deleted } else { Duration::ZERO };
        let stop = Stop { process, hook, deadline, after, signal: nix::sys::signal::Signal::SIGTERM };
        let who = format!("{} container {}", model::full_name(&self.order.pod), self.containers[position].name);
        tokio::spawn(async move {
            sleep(keep).await;
            if let Err(error) = stop.run().await {
                tracing::warn!("{who}: preStop hook: {error:#}");
            }
        });
    }

    /// A sidecar ends after the main containers and after sidecars that started later.
    fn processes_after(&self, position: usize) -> Vec<Process> {
        self.runs[position + 1..].iter().filter_map(|run| run.process.clone()).collect()
    }

    fn hook(&self, position: usize, post_start: bool) -> Option<Hook> {
        let spec = self.spec(position)?;
        let lifecycle = spec.lifecycle?;
        let handler = if post_start { lifecycle.post_start } else { lifecycle.pre_stop }?;
        let number = self.containers[position].attempt.as_ref()?.number;
        let ports = spec.ports.into_iter().flatten();
        Some(Hook {
            handler,
            dir: self.dir.attempt(&spec.name, number),
            pod_ip: self.address.into(),
            ports: ports.filter_map(|port| Some((port.name?, u16::try_from(port.container_port).ok()?))).collect(),
        })
    }

    fn tell(&mut self, now: Timestamp) {
        let already_settled = self.settled() && !self.containers.iter().any(|container| container.attempt.is_some());
        if !already_settled && !self.order.gone && !self.teller.deleting() {
            self.status = pod_status(&Situation {
                pod: &self.order.pod,
                containers: &self.containers,
                pod_ip: Some(self.address.into()),
                host_ip: self.host.address(),
                start_time: self.start_time,
                ended: self.ended(),
                failure: self.failure,
                told: self.status.conditions.as_deref().unwrap_or_default(),
                now,
            });
            self.teller.status(self.status.clone());
        }
        if self.deleted() && !self.order.gone && self.ended() && self.teller.done() {
            self.teller.delete();
        }
    }

    /// Returns when there may be something to do.
    async fn wait(&mut self) {
        let now = Timestamp::now();
        let pause = self.wake_at.map(|time| Duration::try_from(time.duration_since(now)).unwrap_or_default());
        tokio::select! {
            biased;
            changed = self.orders.changed() => match changed {
                Ok(()) => self.take_order(),
                // The node is ending.
                Err(_) => std::future::pending().await,
            },
            Some(event) = self.events.recv() => self.take(event),
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = self.teller.work() => {}
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    fn take_order(&mut self) {
        self.order = self.orders.borrow_and_update().clone();
        if let Err(error) = self.dir.write_pod(&self.order.pod) {
            tracing::error!("{error:#}");
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Attempted(position, outcome) => self.attempted(position, outcome),
            Event::Hooked(position, number, outcome) => self.hooked(position, number, outcome),
            Event::Ended(position, number, end) => self.container_ended(position, number, end),
        }
    }

    fn attempted(&mut self, position: usize, outcome: Outcome) {
        let now = Timestamp::now();
        let container = &mut self.containers[position];
        container.starting = false;
        container.health = Health::default();
        match outcome {
            Outcome::Attempted(attempt, process) => {
                container.not_before = None;
                container.waiting = attempt.end.as_ref().map(|end| model::Waiting {
                    reason: "RunContainerError",
                    message: end.message.clone().unwrap_or_default(),
                });
                container.previous = container.attempt.replace(attempt);
                if let Some(process) = process {
                    self.attend(position, process);
                    self.begin(position);
                }
            }
            Outcome::Waiting(waiting) => {
                let wait = if waiting.reason == PULL_ERROR {
                    container.pulls.advance(now, now);
                    container.pull_error_until = Some(now + PULL_ERROR_SHOWN);
                    container.pulls.wait(now)
                } else {
                    RETRY
                };
                container.not_before = Some(now + wait);
                container.waiting = Some(waiting);
            }
        }
    }

    /// Watches a container's process.
    fn attend(&mut self, position: usize, process: Process) {
        let number = self.containers[position].restarts();
        let sender = self.sender.clone();
        self.runs[position] = Run { process: Some(process.clone()), deadline: None };
        tokio::spawn(async move {
            let end = process.end().await;
            let _ = sender.send(Event::Ended(position, number, end)).await;
        });
    }

    /// What follows the start of a process.
    fn begin(&mut self, position: usize) {
        let number = self.containers[position].restarts();
        let hook = self.hook(position, true);
        self.containers[position].health = Health { hook_runs: hook.is_some(), started: true, ready: true };
        let Some(hook) = hook else { return };
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let outcome = hook.run(Duration::MAX).await;
            let _ = sender.send(Event::Hooked(position, number, outcome)).await;
        });
    }

    fn hooked(&mut self, position: usize, number: u32, outcome: Result<()>) {
        let container = &mut self.containers[position];
        if container.restarts() != number || !container.running() {
            return;
        }
        container.health.hook_runs = false;
        if let Err(error) = outcome {
            tracing::warn!("{}: postStart hook: {error:#}", model::full_name(&self.order.pod));
        }
    }

    fn container_ended(&mut self, position: usize, number: u32, end: End) {
        let container = &mut self.containers[position];
        let Some(attempt) = container.attempt.as_mut().filter(|attempt| attempt.number == number) else { return };
        attempt.end = Some(end);
        container.stopping = false;
        container.health = Health::default();
        self.runs[position] = Run::default();
    }
}
