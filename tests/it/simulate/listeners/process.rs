//! Agents as processes: the real code of one session, which dies, stands still and starts again with its container.
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use baton::{
    agent::session::{
        boot::Boot,
        hands::Options,
        settings::Pod,
        units::{Health, Notice},
    },
    api::names,
    snapshot::lease::Holder,
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, Sleep},
};

use super::{Ended, Listeners, runner::Simulated};
use crate::fake_apiserver::object::Object;

/// An agent that finds another in its Pod looks again so often.
const LOCK_RETRY: Duration = Duration::from_millis(500);

/// An agent that lives.
pub struct Process {
    pub pod: String,
    pub pod_uid: String,
    pub container: u32,
    pub node: usize,
    pub stands_still: StandsStill,
    /// Its container runtime has lost it: it lives on, cut off, and nobody kills it.
    pub is_lost: bool,
    /// As it has claimed its session.
    pub identity: Option<Holder>,
    notices: mpsc::Sender<Notice>,
    task: AbortHandle,
}

/// Until when a process does nothing.
#[derive(Clone)]
pub struct StandsStill(Arc<Mutex<Instant>>);

impl StandsStill {
    /// It does not.
    pub fn none() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn until(&self, time: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    pub fn ends(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does nothing while it is to stand still.
pub struct Still<F> {
    until: StandsStill,
    sleep: Pin<Box<Sleep>>,
    inner: Pin<Box<F>>,
}

impl<F> Still<F> {
    pub fn new(until: StandsStill, inner: F) -> Self {
        Self { until, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), inner: Box::pin(inner) }
    }
}

impl<F: Future> Future for Still<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let ends = self.until.ends();
        if Instant::now() < ends {
            self.sleep.as_mut().reset(ends);
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.inner.as_mut().poll(context)
    }
}

impl Listeners {
    /// A container of this Pod starts, and its agent with it.
    pub fn launch(&self, pod: &Object, node: usize, container: u32) {
        let who = self.name_of(pod, container);
        let (notices, incoming) = mpsc::channel(16);
        let (machine, stands_still) = (&self.0.machines[node], StandsStill::none());
        stands_still.until(machine.stands_still.ends());
        let clocks = machine.clocks();
        let (mut rng, mut own) = {
            let mut state = self.state();
            (state.rng.fork(), state.rng.fork())
        };
        let delay = Duration::from_millis(own.u64(1..1_500));
        let revision = pod["metadata"]["annotations"][names::ANNOTATION_REVISION].as_str().unwrap_or_default();
        let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let (server, name) = (self.0.server.clone(), who.clone());
        let boot = Boot {
            connect: Arc::new(move || Ok(server.client(&name))),
            clocks: clocks.clone(),
            rng: rng.fork(),
            pod: Pod {
                pod_name: pod.name().to_owned(),
                pod_uid: pod.uid().to_owned(),
                pod_namespace: pod.namespace().to_owned(),
                revision: revision.to_owned(),
            },
            options: Options {
                ready_on_tick: self.0.rates.says_when_it_works,
                drain_timeout: Duration::from_secs(grace.saturating_sub(5)),
                revision: revision.to_owned(),
                is_orphan: || false,
            },
            notices: incoming,
            health: watch::Sender::new(Health::default()),
        };
        let runner = Simulated::new(self.clone(), &who, node, rng);
        self.0.alive.bear(&who);
        self.0.trace.say(&who, format_args!("starts on node-{node}"));
        let (listeners, me, until, pod_uid) = (self.clone(), who.clone(), stands_still.clone(), pod.uid().to_owned());
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // It has the lock of its Pod's agents, and so each that its kubelet starts would end at once.
            while listeners.has_lost(&pod_uid) {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            let outcome = Still::new(until, boot.live(async { Ok(runner) })).await;
            listeners.bury(&me, &outcome.map_or_else(|error| format!("ends: {error:#}"), |()| "ends".to_owned()));
        });
        let process = Process {
            pod: pod.name().to_owned(),
            pod_uid: pod.uid().to_owned(),
            container,
            node,
            stands_still,
            is_lost: false,
            identity: None,
            notices,
            task: task.abort_handle(),
        };
        self.state().processes.insert(who, process);
    }

    /// `web-0-x+2`; of a later Pod of this name `web-0-x~5f2a+2`: what the one before has sent may still come.
    fn name_of(&self, pod: &Object, container: u32) -> String {
        let mut state = self.state();
        let first = state.first_uids.entry(pod.name().to_owned()).or_insert_with(|| pod.uid().to_owned());
        let later = if first == pod.uid() { String::new() } else { format!("~{}", &pod.uid()[..4]) };
        format!("{}{later}+{container}", pod.name())
    }

    /// SIGKILL.
    pub fn kill(&self, who: &str) {
        let task = self.state().processes.get(who).map(|process| process.task.clone());
        if let Some(task) = task {
            task.abort();
            self.bury(who, "is killed");
        }
    }

    /// It is dead, and what it ran with it: it was PID 1 of its container.
    fn bury(&self, who: &str, how: &str) {
        let Some(process) = self.state().processes.remove(who) else { return };
        self.0.alive.bury(who);
        self.0.trace.say(who, how);
        self.state().ledger.died(who);
        let _ = self.0.ends.send(Ended { pod: process.pod_uid, container: process.container, was_seen: true });
    }

    /// The process in this Pod, if any lives.
    fn in_pod(&self, uid: &str) -> Option<String> {
        let state = self.state();
        let mut here = state.processes.iter().filter(|(_, process)| process.pod_uid == uid && !process.is_lost);
        here.next().map(|(who, _)| who.clone())
    }

    fn has_lost(&self, uid: &str) -> bool {
        self.state().processes.values().any(|process| process.pod_uid == uid && process.is_lost)
    }

    /// The shim of some agent's container dies, and its processes live on without a network. Its kubelet tells an end that it
    /// has not seen. The agent ends by itself once others may have taken over.
    pub fn lose_some(&self, number: usize) {
        let Some(who) = self.nth(number) else { return };
        let ended = {
            let mut state = self.state();
            let kill_after = state.ledger.excuses.kill_after;
            let Some(process) = state.processes.get_mut(&who).filter(|process| !process.is_lost) else { return };
            process.is_lost = true;
            let ended = Ended { pod: process.pod_uid.clone(), container: process.container, was_seen: false };
            (ended, kill_after * 2)
        };
        self.0.trace.say(&who, "is lost by its container runtime");
        self.0.weather.lose(&who);
        let _ = self.0.ends.send(ended.0);
        let listeners = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ended.1).await;
            listeners.kill(&who);
        });
    }

    /// Whether an agent lives in this Pod.
    pub fn lives_in(&self, uid: &str) -> bool {
        self.in_pod(uid).is_some()
    }

    /// SIGTERM to the agent of a Pod.
    pub fn terminate(&self, uid: &str) {
        if let Some(who) = self.in_pod(uid) {
            self.0.trace.say(&who, "SIGTERM");
            if let Some(process) = self.state().processes.get(&who) {
                let _ = process.notices.try_send(Notice::Terminate);
            }
        }
    }

    /// SIGKILL to the agent of a Pod.
    pub fn kill_in(&self, uid: &str) {
        if let Some(who) = self.in_pod(uid) {
            self.kill(&who);
        }
    }
}
