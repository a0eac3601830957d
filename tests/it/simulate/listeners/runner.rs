//! What agents run: listeners as processes that take their time to start and to stop, end by themselves, or hang; each under
//! a guard that kills it at the last deadline that it was told, by its machine's clock, whatever has become of the agent.
use std::{collections::BTreeMap, io, time::Duration};

use baton::agent::{
    boottime::Boottime,
    clocks::Clocks,
    exec::{Cause, Ended, Environment, Exit, Proof},
    session::runner::{Happening, Id, Runner},
};
use tokio::sync::{mpsc, watch};

use super::{Listeners, process::Still};

/// What an agent runs listeners with.
pub struct Simulated {
    listeners: Listeners,
    who: String,
    node: usize,
    clocks: Clocks,
    rng: fastrand::Rng,
    runs: BTreeMap<Id, watch::Sender<Orders>>,
    sender: mpsc::UnboundedSender<(Id, Happening)>,
    happenings: mpsc::UnboundedReceiver<(Id, Happening)>,
}

/// What a guard was told last.
#[derive(Clone, Copy, Debug)]
struct Orders {
    until: Boottime,
    stop_by: Option<Boottime>,
}

/// What a listener does of its own accord.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// It says after this time that it works; None: never.
    pub works_after: Option<Duration>,
    /// It ends after this time, unasked.
    pub exits_after: Option<Duration>,
    /// It takes so long to stop; None: until it is killed.
    pub stops_after: Option<Duration>,
    /// Its guard kills it so late.
    pub guard_lag: Duration,
    /// It tells where to resume so often.
    pub tells_every: Duration,
}

impl Simulated {
    pub fn new(listeners: Listeners, who: &str, node: usize, rng: fastrand::Rng) -> Self {
        let (sender, happenings) = mpsc::unbounded_channel();
        let clocks = listeners.0.machines[node].clocks();
        Self { listeners, who: who.to_owned(), node, clocks, rng, runs: BTreeMap::new(), sender, happenings }
    }

    fn later(&self, id: &Id, pause: Duration, happening: Happening) {
        let (sender, id) = (self.sender.clone(), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = sender.send((id, happening));
        });
    }
}

impl Runner for Simulated {
    fn prepare(&mut self, id: &Id, _task: Environment) {
        let pause = Duration::from_millis(self.rng.u64(0..800));
        self.later(id, pause, Happening::Prepared);
    }

    fn unprepare(&mut self, _id: &Id) {}

    fn start(&mut self, id: &Id, task: Environment, until: Boottime) -> io::Result<()> {
        let habits = self.listeners.habits(&self.who, &task.listener, &mut self.rng).ok_or_else(|| {
            io::Error::other("no process can be started") // now and then
        })?;
        let Some(run) = self.listeners.state().ledger.begin(&self.who, self.node, &task) else {
            return Err(io::Error::other("this agent is dead"));
        };
        let (orders, told) = watch::channel(Orders { until, stop_by: None });
        self.runs.insert(id.clone(), orders);
        let guard = Guard {
            listeners: self.listeners.clone(),
            run,
            clocks: self.clocks.clone(),
            habits,
            told,
            sender: self.sender.clone(),
            id: id.clone(),
        };
        let resume = task.resume.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        let stands_still = self.listeners.0.machines[self.node].stands_still.clone();
        tokio::spawn(Still::new(stands_still, guard.watch(resume)));
        Ok(())
    }

    fn stop(&mut self, id: &Id, grace: Duration) {
        let by = self.clocks.boottime().after(grace);
        if let Some(orders) = self.runs.get(id) {
            orders.send_modify(|orders| orders.stop_by = Some(orders.stop_by.map_or(by, |earlier| earlier.min(by))));
        }
    }

    fn extend(&mut self, until: Boottime) {
        self.runs.values().for_each(|orders| orders.send_modify(|orders| orders.until = until));
    }

    async fn next(&mut self) -> (Id, Happening) {
        match self.happenings.recv().await {
            Some((id, happening)) => {
                if matches!(happening, Happening::Ended(_)) {
                    self.runs.remove(&id);
                }
                (id, happening)
            }
            None => std::future::pending().await, // cannot be: we hold a sender
        }
    }
}

/// One listener and its guard.
struct Guard {
    listeners: Listeners,
    run: u64,
    clocks: Clocks,
    habits: Habits,
    told: watch::Receiver<Orders>,
    sender: mpsc::UnboundedSender<(Id, Happening)>,
    id: Id,
}

impl Guard {
    /// Until the listener is dead. It goes on from what it was told.
    async fn watch(mut self, resume: u64) {
        let mut at = resume;
        let cause = self.live(&mut at).await;
        let exit = match cause {
            Cause::Exited => Some(Exit::Code(1)),
            Cause::Stopped => Some(Exit::Code(0)),
            _ => Some(Exit::Signal(9)),
        };
        // Its last word, where it had time for one.
        if cause == Cause::Stopped {
            at += 1;
            self.say_resume(at);
        }
        self.listeners.state().ledger.ended(self.run, &format!("{cause:?}"));
        let _ = self.sender.send((self.id, Happening::Ended(Ended { cause, exit, proof: Proof::Guard })));
    }

    fn say_resume(&self, at: u64) {
        self.listeners.state().ledger.said(self.run, at);
        let _ = self.sender.send((self.id.clone(), Happening::Resume(at.to_string())));
    }

    async fn live(&mut self, at: &mut u64) -> Cause {
        let far = Duration::from_hours(10_000);
        let begin = tokio::time::Instant::now();
        let works_at = begin + self.habits.works_after.unwrap_or(far);
        let exits_at = begin + self.habits.exits_after.unwrap_or(far);
        let (mut has_said, mut stops_at, mut tells_at) = (false, begin + far, works_at + self.habits.tells_every);
        let Ok(mut alarm) = self.clocks.alarm() else { return Cause::NotStarted };
        loop {
            let orders = *self.told.borrow_and_update();
            if orders.stop_by.is_some() && stops_at == begin + far {
                stops_at = tokio::time::Instant::now() + self.habits.stops_after.unwrap_or(far);
            }
            let kill_at = orders.stop_by.map_or(orders.until, |by| by.min(orders.until)).after(self.habits.guard_lag);
            tokio::select! {
                biased;
                rung = alarm.at(kill_at) => {
                    let is_stop = orders.stop_by.is_some_and(|by| by <= orders.until);
                    return if rung.is_err() || !is_stop { Cause::Deadline } else { Cause::StopTimeout };
                }
                changed = self.told.changed() => if changed.is_err() {
                    std::future::pending::<()>().await; // the agent is dead, and the ledger knows
                },
                () = tokio::time::sleep_until(stops_at) => return Cause::Stopped,
                () = tokio::time::sleep_until(works_at), if !has_said => {
                    has_said = true;
                    let _ = self.sender.send((self.id.clone(), Happening::Works));
                }
                () = tokio::time::sleep_until(tells_at), if has_said && !self.listeners.is_over() => {
                    tells_at += self.habits.tells_every;
                    *at += 1;
                    self.say_resume(*at);
                }
                () = tokio::time::sleep_until(exits_at), if !self.listeners.is_over() => return Cause::Exited,
            }
        }
    }
}

impl Listeners {
    fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// How a listener behaves that is started now; None: it cannot be started. None fails more than twice in a row in one
    /// Pod: with that a version of its Rollout would count as broken.
    fn habits(&self, who: &str, listener: &str, rng: &mut fastrand::Rng) -> Option<Habits> {
        let rates = self.0.rates;
        let mut chance = |rate: f64| rate > 0.0 && rng.f64() < rate;
        let (fails, exits, hangs, never) =
            (chance(rates.fails), chance(rates.exits), chance(rates.hangs), chance(rates.never_works));
        let mut millis = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
        let habits = Habits {
            works_after: Some(millis(1, 1_500)),
            exits_after: Some(millis(100, 70_000)),
            stops_after: Some(if millis(0, 4).is_zero() { millis(500, 5_000) } else { millis(1, 500) }),
            guard_lag: millis(0, 400),
            tells_every: millis(5_000, 120_000),
        };
        let mut state = self.state();
        let may_fail = !state.is_over && state.ledger.failures(super::pod_of(who), listener) < 2;
        let (fails, exits, never) = (fails && may_fail, exits && may_fail, never && may_fail);
        state.ledger.is_to_fail(super::pod_of(who), listener, fails || exits || never);
        let is_over = state.is_over;
        drop(state);
        (!fails).then_some(Habits {
            works_after: habits.works_after.filter(|_| !never),
            exits_after: habits.exits_after.filter(|_| exits),
            stops_after: habits.stops_after.filter(|_| is_over || !hangs),
            ..habits
        })
    }
}
