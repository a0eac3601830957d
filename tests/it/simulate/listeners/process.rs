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

/// An agent that lives.
pub struct Process {
    pub pod: String,
    pub pod_uid: String,
    pub container: u32,
    pub node: usize,
    pub stands_still: StandsStill,
    /// As it has claimed its session.
    pub identity: Option<Holder>,
    notices: mpsc::Sender<Notice>,
    task: AbortHandle,
}

/// Until when a process does nothing.
#[derive(Clone)]
pub struct StandsStill(Arc<Mutex<Instant>>);

impl StandsStill {
    pub fn until(&self, time: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    fn ends(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does nothing while it is to stand still.
struct Still<F> {
    until: StandsStill,
    sleep: Pin<Box<Sleep>>,
    inner: Pin<Box<F>>,
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
        let stands_still = StandsStill(Arc::new(Mutex::new(Instant::now())));
        let clocks = self.0.machines[node].clocks();
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
        let runner = Simulated::new(self.clone(), &who, clocks, rng);
        self.0.alive.bear(&who);
        self.0.trace.say(&who, format_args!("starts on node-{node}"));
        let (listeners, me, until) = (self.clone(), who.clone(), stands_still.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let inner = Box::pin(boot.live(async { Ok(runner) }));
            let live = Still { until, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), inner };
            let outcome = live.await;
            listeners.bury(&me, &outcome.map_or_else(|error| format!("ends: {error:#}"), |()| "ends".to_owned()));
        });
        let process = Process {
            pod: pod.name().to_owned(),
            pod_uid: pod.uid().to_owned(),
            container,
            node,
            stands_still,
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
        let _ = self.0.ends.send(Ended { pod: process.pod_uid, container: process.container });
    }

    /// The process in this Pod, if any lives.
    fn in_pod(&self, uid: &str) -> Option<String> {
        let state = self.state();
        state.processes.iter().find(|(_, process)| process.pod_uid == uid).map(|(who, _)| who.clone())
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
