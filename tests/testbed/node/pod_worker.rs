//! One Pod's life on this node: a loop that waits for news (of the API, of processes, of the clock),
//! does what is due, and tells the API server.
use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod, PodStatus};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    container::Outcome,
    downward::Facts,
    events::Severity,
    host::Host,
    lifecycle::{self, Progress, Step},
    model::{self, Container, End, Kind, RestartPolicy, Waiting},
    probe::{Answer, Purpose},
    process::Process,
    resize,
    status::{Situation, pod_status},
    store::PodDir,
    tell::Teller,
    unsupported,
    volume_keeper::Keeper,
};

mod ends;
mod health;
mod recovery;
mod starts;

/// More events than this at once make their senders wait.
const EVENT_QUEUE: usize = 64;
/// When a Pod that found no free address tries again.
const ADDRESS_RETRY: Duration = Duration::from_secs(5);
const DEADLINE_EXCEEDED: (&str, &str) =
    ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");

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
    Probed(usize, u32, Purpose, Answer),
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
    address: IpAddr,
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
    /// The same of a Pod that was deleted by force.
    forced_deadline: Option<Instant>,
    /// The Pod has failed as a whole.
    failure: Option<(&'static str, &'static str)>,
    wake_at: Option<Timestamp>,
    /// Outcomes of making the volumes; the first success lets containers start.
    volumes: mpsc::Receiver<Result<()>>,
    mounted: bool,
    keeper: AbortOnDropHandle<()>,
}

impl Worker {
    /// Returns when nothing of the Pod is left, here and in the API.
    pub async fn run(host: Arc<Host>, mut orders: watch::Receiver<Order>) -> Result<()> {
        let Some((dir, address)) = settle(&host, &mut orders).await? else { return Ok(()) };
        let mut worker = Self::new(host, orders, dir, address);
        worker.recover().await?;
        worker.allocate();
        worker.note_unsupported();
        while !worker.finished() {
            worker.act();
            worker.wait().await;
        }
        worker.keeper.abort();
        let _ = (&mut worker.keeper).await; // it writes no more
        worker.host.addresses.release(worker.address);
        worker.dir.end_orphans();
        worker.dir.remove()?;
        Ok(())
    }

    fn new(host: Arc<Host>, mut orders: watch::Receiver<Order>, dir: PodDir, address: IpAddr) -> Self {
        let order = orders.borrow_and_update().clone();
        let pod = &order.pod;
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let containers = model::containers(pod);
        let (outcomes, volumes) = mpsc::channel(1);
        let facts = Facts { pod_ip: address, host_ip: host.address() };
        let keeper = Keeper { host: Arc::clone(&host), orders: orders.clone(), dir: dir.clone(), facts };
        Self {
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
            forced_deadline: None,
            failure: None,
            wake_at: None,
            volumes,
            mounted: false,
            keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run(outcomes))),
            order,
            orders,
            host,
        }
    }

    fn note_unsupported(&self) {
        let fields = unsupported::fields(&self.order.pod);
        if !fields.is_empty() && self.containers.iter().all(|container| container.attempt.is_none()) {
            let message = format!("this node does nothing about {}", fields.join(", "));
            self.note(None, Severity::Warning, "Unsupported", &message);
        }
    }

    fn finished(&self) -> bool {
        self.order.gone && self.ended()
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

    fn progress(&self) -> Progress {
        lifecycle::progress(self.policy, &self.containers)
    }

    fn spec(&self, position: usize) -> Option<ContainerSpec> {
        model::specs(&self.order.pod).nth(position).map(|(spec, _)| spec.clone())
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Timestamp::now();
        self.wake_at = None;
        self.check_active_deadline(now);
        if self.halted() || matches!(self.progress(), Progress::Finished | Progress::InitFailed) {
            self.set_deadline();
        }
        let next = lifecycle::next(self.policy, &self.containers, self.halted(), now);
        self.wake_at = self.wake_at.into_iter().chain(next.wake_at).min();
        for step in next.steps {
            match step {
                Step::Start(position) if self.mounted => self.start(position, now),
                Step::Start(_) => {}
                Step::Exchange(position) => self.kill(position, "definition changed, will be restarted", None),
                Step::Stop(position) => self.stop(position, self.deadline.unwrap_or_else(Instant::now)),
                Step::Hold(position, waiting) => self.hold(position, waiting),
            }
        }
        self.tell(now);
    }

    fn hold(&mut self, position: usize, waiting: Waiting) {
        self.note(Some(position), Severity::Warning, "BackOff", &waiting.message);
        self.containers[position].waiting = Some(waiting);
    }

    fn tell(&mut self, now: Timestamp) {
        let settled_before = self.settled() && self.containers.iter().all(|container| container.attempt.is_none());
        if !settled_before && !self.order.gone && !self.teller.deleting() {
            self.status = pod_status(&Situation {
                pod: &self.order.pod,
                containers: &self.containers,
                pod_ip: self.mounted.then_some(self.address),
                host_ip: self.host.address(),
                start_time: self.start_time,
                ended: self.ended(),
                failure: self.failure,
                told: &self.status,
                now,
            });
            self.teller.status(self.status.clone());
        }
        if self.deleted() && !self.order.gone && self.ended() && self.teller.done() {
            self.dir.end_orphans();
            self.teller.delete();
        }
    }

    /// Tells an event about the Pod or one of its containers.
    fn note(&self, position: Option<usize>, severity: Severity, reason: &'static str, message: &str) {
        let field_path = position.map(|position| {
            let container = &self.containers[position];
            let list = if container.kind == Kind::Main { "containers" } else { "initContainers" };
            format!("spec.{list}{{{}}}", container.name)
        });
        self.host.events.tell(&self.order.pod, field_path, severity, reason, message);
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
            Some(outcome) = self.volumes.recv() => self.volumes_made(outcome),
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = self.teller.work() => {}
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    fn volumes_made(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.mounted = true,
            Err(error) => self.note(None, Severity::Warning, "FailedMount", &format!("{error:#}")),
        }
    }

    fn facts(&self) -> Facts {
        Facts { pod_ip: self.address, host_ip: self.host.address() }
    }

    fn take_order(&mut self) {
        self.order = self.orders.borrow_and_update().clone();
        self.teller.heard(&self.order.pod);
        for (container, (spec, _)) in self.containers.iter_mut().zip(model::specs(&self.order.pod)) {
            container.give(spec.image.as_deref().unwrap_or_default());
        }
        self.allocate();
        if let Err(error) = self.dir.write_pod(&self.order.pod) {
            tracing::error!("{error:#}");
        }
    }

    /// Sets resources aside, if there is room for them.
    fn allocate(&mut self) {
        if resize::refusal(&self.order.pod).is_none() {
            for (container, (spec, _)) in self.containers.iter_mut().zip(model::specs(&self.order.pod)) {
                container.allocate(spec);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Attempted(position, outcome) => self.attempted(position, outcome),
            Event::Hooked(position, number, outcome) => self.hooked(position, number, outcome),
            Event::Probed(position, number, purpose, answer) => self.probed(position, number, purpose, &answer),
            Event::Ended(position, number, end) => self.container_ended(position, number, end),
        }
    }

    /// Whether this start of the container is the one that runs.
    fn runs(&self, position: usize, number: u32) -> bool {
        let container = &self.containers[position];
        container.running() && container.restarts() == number
    }
}

/// Gives a Pod its folder and address; nothing if it is gone before there is a free one.
async fn settle(host: &Host, orders: &mut watch::Receiver<Order>) -> Result<Option<(PodDir, IpAddr)>> {
    loop {
        let Order { pod, gone } = orders.borrow_and_update().clone();
        let dir = PodDir::new(&host.state, model::uid(&pod));
        dir.write_pod(&pod)?;
        if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            return Ok(Some((dir, host.address())));
        }
        match host.addresses.take(&dir) {
            Ok(address) => return Ok(Some((dir, address.into()))),
            Err(_) if gone => {
                dir.remove()?;
                return Ok(None);
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error:#}");
                host.events.tell(&pod, None, Severity::Warning, "FailedCreatePodSandBox", &message);
            }
        }
        tokio::select! {
            () = sleep(ADDRESS_RETRY) => {}
            _ = orders.changed() => {}
        }
    }
}
