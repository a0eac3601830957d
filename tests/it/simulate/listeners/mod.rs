//! Listeners in the simulation: the real agents, each in a simulated Pod, with simulated processes for what they run.
//!
//! - [`plan`]: what a seed decides; [`users`]: what people do to ListenerSets;
//! - [`machine`]: the clocks of nodes; [`process`]: agents as processes, which die, stand still and start again;
//!   [`runner`]: listeners as processes, each under a guard that goes by its machine's clock alone;
//! - [`ledger`]: what must hold of every start and of every write of an agent, and [`excuses`] for it; [`end`]: at the end.
//!
//! Kubelets are those of [`super::world`].
pub mod end;
mod excuses;
mod ledger;
mod machine;
pub mod plan;
mod process;
mod runner;
pub mod users;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use self::{ledger::Ledger, machine::Machine, plan::Rates, process::Process};
use super::{faults::Weather, process::Alive, trace::Trace};
use crate::fake_apiserver::ApiServer;

/// The processes of agents are called `web-0-x+2`: Pod and number of the container.
pub fn is_agent(who: &str) -> bool {
    who.contains('+')
}

/// An agent's process has ended, whatever ended it.
#[derive(Clone, Debug)]
pub struct Ended {
    /// uid of its Pod.
    pub pod: String,
    /// Number of its container.
    pub container: u32,
    /// The container runtime has seen it. Else the agent may live on.
    pub was_seen: bool,
}

/// All agents and what they run. Clones are the same ones.
#[derive(Clone)]
pub struct Listeners(Arc<Shared>);

struct Shared {
    server: ApiServer,
    trace: Trace,
    alive: Alive,
    weather: Weather,
    machines: Vec<Machine>,
    rates: Rates,
    state: Mutex<State>,
    ends: mpsc::UnboundedSender<Ended>,
}

struct State {
    rng: fastrand::Rng,
    /// By name.
    processes: BTreeMap<String, Process>,
    /// uid of the first Pod of each name.
    first_uids: BTreeMap<String, String>,
    ledger: Ledger,
    /// Nothing goes wrong any more.
    is_over: bool,
}

impl Listeners {
    /// None yet; the ends of agents are told to the receiver.
    pub fn new(
        plan: &plan::Plan,
        (server, trace): (&ApiServer, &Trace),
        (alive, weather): (&Alive, &Weather),
        node_clock: &baton::operator::clock::Clock,
        rng: fastrand::Rng,
    ) -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ends, told) = mpsc::unbounded_channel();
        let machines = plan.machines.iter().map(|pace| Machine::new(*pace, node_clock.clone(), trace.start()));
        let mut ledger = Ledger::new(trace);
        (ledger.excuses.kill_after, ledger.excuses.hears_within) = (plan.kill_after(), plan.hears_within());
        let state = State { rng, processes: BTreeMap::new(), first_uids: BTreeMap::new(), ledger, is_over: false };
        let shared = Shared {
            server: server.clone(),
            trace: trace.clone(),
            alive: alive.clone(),
            weather: weather.clone(),
            machines: machines.collect(),
            rates: plan.rates,
            state: Mutex::new(state),
            ends,
        };
        (Self(Arc::new(shared)), told)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was written.
    pub fn committed(&self, commit: &crate::fake_apiserver::Commit) {
        let mut state = self.state();
        let State { processes, ledger, .. } = &mut *state;
        ledger.committed(commit, processes);
    }

    /// What was written of Leases so far: renewals, ownerships; and when an ownership was written last.
    pub fn writes(&self) -> (u64, u64, Instant) {
        let state = self.state();
        (state.ledger.renewals, state.ledger.ownerships, state.ledger.last_ownership)
    }

    /// How many agents live.
    pub fn count(&self) -> usize {
        self.state().processes.len()
    }

    /// A machine's time of day.
    pub fn wall(&self, node: usize) -> jiff::Timestamp {
        self.0.machines[node].wall()
    }

    /// A machine's time of day is set by so many milliseconds.
    pub fn set_wall(&self, node: usize, millis: i64) {
        self.0.machines[node].set(millis);
    }

    /// Nothing goes wrong any more: who stands still goes on.
    pub fn clear_up(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.processes.values().for_each(|process| process.stands_still.until(Instant::now()));
        self.0.machines.iter().for_each(Machine::wake);
    }

    /// Overlaps that are documented.
    pub fn overlaps(&self) -> u64 {
        self.state().ledger.excuses.count
    }

    /// A node stands still: its clocks, its agents and what they run.
    pub fn pause_node(&self, node: usize, time: Duration) {
        let until = Instant::now() + time;
        self.0.machines[node].pause(until);
        let mut state = self.state();
        let State { processes, ledger, .. } = &mut *state;
        ledger.excuses.pause(node, until);
        for (who, process) in processes.iter().filter(|(_, process)| process.node == node) {
            self.0.weather.pause(pod_of(who), time);
            process.stands_still.until(until);
        }
    }

    /// Some agent hears nothing of Leases, and reaches the API server all the same.
    pub fn deafen_some(&self, number: usize, time: Duration) {
        let Some(who) = self.nth(number) else { return };
        self.0.trace.say(&who, format_args!("hears nothing for {} ms", time.as_millis()));
        self.0.weather.deafen(&who, time);
    }

    /// Processes of agents in these Pods that live, in order.
    fn nth(&self, number: usize) -> Option<String> {
        let state = self.state();
        let living: Vec<&String> = state.processes.keys().collect();
        (!living.is_empty()).then(|| living[number % living.len()].clone())
    }

    /// SIGKILL to some agent. The kernel kills what it runs.
    pub fn kill_some(&self, number: usize) {
        if let Some(who) = self.nth(number) {
            self.kill(&who);
        }
    }

    /// Some agent cannot reach the API server, nor it the agent.
    pub fn cut_some(&self, number: usize, time: Duration) {
        if let Some(who) = self.nth(number) {
            self.0.trace.say(&who, format_args!("is cut off for {} ms", time.as_millis()));
            self.0.weather.cut(pod_of(&who), time);
        }
    }

    /// SIGSTOP to some agent, and later SIGCONT. Its guards go on.
    pub fn pause_some(&self, number: usize, time: Duration) {
        let Some(who) = self.nth(number) else { return };
        self.0.trace.say(&who, format_args!("stands still for {} ms", time.as_millis()));
        self.0.weather.pause(pod_of(&who), time);
        if let Some(process) = self.state().processes.get(&who) {
            process.stands_still.until(Instant::now() + time);
        }
    }

    /// Agents on this node are cut off, or reached again.
    pub fn cut_node(&self, node: usize, is_cut: bool) {
        let state = self.state();
        for (who, _) in state.processes.iter().filter(|(_, process)| process.node == node) {
            if is_cut {
                self.0.weather.cut(pod_of(who), Duration::from_hours(24));
            } else {
                self.0.weather.mend(pod_of(who));
            }
        }
    }
}

/// The Pod that a process is in.
fn pod_of(who: &str) -> &str {
    who.split(['~', '+']).next().unwrap_or(who)
}
