//! One history, from a scenario to its end: on a thread of its own, in simulated time.
use std::{collections::BTreeMap, fmt, time::Duration};

use baton::operator::clock::Clock;
use jiff::Timestamp;
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::JoinSet,
    time::Instant,
};

use super::{
    applications::Applications,
    faults::{Mishap, Network, Networks, Weather, orders},
    listeners::{self, Listeners},
    oracles::{
        Judge,
        end::{self, End},
    },
    process::{Alive, Blow, Operator, Skew, WATCH_SILENCE},
    randomness, replay,
    scenario::{INSTANCES_MAX, OPERATORS, ROLLOUT, Scenario},
    trace::{Keeps, Trace},
    users::{User, approve_everything},
    world::{NODES_MAX, Order, World},
};
use crate::fake_apiserver::{
    ApiServer, Commit, Options,
    admission::pod_quota,
    kinds::{LEASES, PODS},
};

/// What users do takes less than this: a longer one waits for something that does not come.
const DEEDS_WITHIN: Duration = Duration::from_hours(2);
/// Once nothing goes wrong any more, all is settled within this time, and what clocks that differ add to it.
const REST_WITHIN: Duration = Duration::from_mins(30);
/// Settled means that nothing has been written for so long.
const STILLNESS: Duration = Duration::from_secs(45);
/// After that, nothing may happen for so long.
const IDLE: Duration = Duration::from_mins(1);
/// What the one Pod that is left has tried in vain, it tries again within this time: until then it stays where it is.
const TRIED_AGAIN: Duration = Duration::from_mins(6);
/// `spec.progressDeadlineSeconds` where the spec does not say it.
const DEADLINE: Duration = Duration::from_mins(10);
/// Requests that an idle operator may send meanwhile, other than about the lock.
const IDLE_REQUESTS_MAX: usize = 30;

/// What came of a history.
pub struct Outcome {
    /// Its trace, as far as it was kept.
    pub lines: Vec<String>,
    /// The promise that was broken, if any.
    pub broken: Option<String>,
    /// How it ended.
    pub end: Option<End>,
    /// Whether it ended so because what does not work used up what may be unavailable: a matter of its course.
    pub is_used_up: bool,
    /// Overlaps of a listener's processes that are documented.
    pub overlaps: u64,
}

/// Runs a scenario. Panics of operators are theirs to catch; ours fail the seed.
pub fn run(scenario: &Scenario, keeps: Keeps) -> Outcome {
    let scenario = scenario.clone();
    let running = std::thread::Builder::new().name(format!("seed {}", scenario.numbers)).spawn(move || {
        randomness::seed_thread(scenario.numbers);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let trace = Trace::new(keeps);
            let _logs = (keeps == Keeps::Logs).then(|| replay::logs_into(&trace));
            History::new(&scenario, trace).live().await
        })
    });
    let ended = running.expect("a thread").join();
    ended.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let broken = Some(format!("panic: {}", message.unwrap_or_default()));
        Outcome { lines: Vec::new(), broken, end: None, is_used_up: false, overlaps: 0 }
    })
}

struct History<'s> {
    scenario: &'s Scenario,
    trace: Trace,
    server: ApiServer,
    judge: Judge,
    clock: Clock,
    epoch: Timestamp,
    rng: fastrand::Rng,
    weather: Weather,
    alive: Alive,
    blows: BTreeMap<String, UnboundedSender<Blow>>,
    tasks: JoinSet<()>,
    listeners: Option<Listeners>,
    applications: Applications,
}

impl<'s> History<'s> {
    fn new(scenario: &'s Scenario, trace: Trace) -> Self {
        let epoch: Timestamp = "2026-01-01T10:00:00Z".parse().expect("a time");
        let clock = Skew::NONE.clock(epoch, trace.start());
        let server = ApiServer::new(Options::new(scenario.numbers, clock.clone()));
        let skews: Vec<Skew> = scenario.operators.iter().map(|(skew, _)| *skew).chain([Skew::NONE]).collect();
        let judge = Judge::new(&trace, clock.clone(), skews, scenario.faults.oldest_view());
        // Numbers that nothing else depends on.
        let applications = Applications::new(&trace, fastrand::Rng::with_seed(scenario.numbers ^ (5 << 48)));
        Self {
            scenario,
            trace,
            server,
            judge,
            clock,
            epoch,
            rng: fastrand::Rng::with_seed(scenario.numbers ^ 0x5eed),
            weather: Weather::new(),
            alive: Alive::default(),
            blows: BTreeMap::new(),
            tasks: JoinSet::new(),
            listeners: None,
            applications,
        }
    }

    async fn live(mut self) -> Outcome {
        let orders = self.start_world();
        self.start_operators();
        let user = User {
            actor: self.server.actor("user"),
            trace: self.trace.clone(),
            clock: self.clock.clone(),
            rng: self.rng.fork(),
        };
        let trace = self.trace.clone();
        tokio::select! {
            biased;
            () = trace.broken() => {}
            () = self.course(user, orders) => {}
        }
        self.tasks.abort_all();
        let (lines, broken) = self.trace.take();
        let overlaps = self.listeners.as_ref().map_or(0, Listeners::overlaps);
        let end = end::of(&self.server);
        let is_used_up = end.as_ref().is_some_and(|end| end::is_used_up(&self.server, end));
        self.server.close();
        Outcome { lines, broken, end, is_used_up, overlaps }
    }

    async fn course(&mut self, user: User, orders: UnboundedSender<Order>) {
        let mishaps = tokio::spawn(mishaps(
            self.scenario.clone(),
            self.blows.clone(),
            orders.clone(),
            self.weather.clone(),
            self.server.clone(),
            self.trace.clone(),
        ));
        let mishaps_of_agents = tokio::spawn(listeners::plan::happen(
            self.scenario.listeners.clone(),
            self.listeners.clone(),
            self.weather.clone(),
            self.trace.clone(),
        ));
        let asking = async { tokio::join!(user.live(self.scenario), self.ask_for_listeners()) };
        if tokio::time::timeout(DEEDS_WITHIN, asking).await.is_err() {
            return self.trace.break_promise("liveness", format_args!("users still wait after {DEEDS_WITHIN:?}"));
        }
        self.tasks.spawn(approve_everything(self.server.actor("approver"), self.scenario.approves_one_by_one));
        let is_disturbed = |plan: &listeners::plan::Plan| !plan.network.is_none() || !plan.events.is_empty();
        if !self.scenario.faults.is_none() || self.scenario.listeners.as_ref().is_some_and(is_disturbed) {
            tokio::time::sleep(Duration::from_millis(self.rng.u64(0..40_000))).await;
        }
        mishaps.abort();
        mishaps_of_agents.abort();
        self.clear_up(&orders);
        self.come_to_rest().await;
    }

    fn start_world(&mut self) -> UnboundedSender<Order> {
        let node_clock = self.scenario.node_skew.clock(self.epoch, self.trace.start());
        let mut ends = None;
        if let Some(plan) = &self.scenario.listeners {
            let of_world = (&self.server, &self.trace);
            let (agents, ended) =
                Listeners::new(plan, of_world, (&self.alive, &self.weather), &node_clock, self.numbers_of(2));
            (self.listeners, ends) = (Some(agents), Some(ended));
            self.judge.docket().has_agents = true;
        }
        let are_told = self.scenario.rollout["spec"]["strategy"]["update"] == "HotReload";
        let applications = Some(self.applications.clone()).filter(|_| are_told);
        self.judge.docket().applications.clone_from(&applications);
        let (commits, told) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let (judge, trace, agents) = (self.judge.clone(), self.trace.clone(), self.listeners.clone());
        self.server.subscribe(move |commit: &Commit| {
            if *commit.change.kind != LEASES {
                trace.say(&commit.who, fmt::from_fn(|out| out.write_str(&replay::line(commit))));
            }
            judge.docket().committed(commit);
            if let Some(agents) = &agents {
                agents.committed(commit);
            }
            if let Some(applications) = &applications {
                applications.committed(commit);
            }
            let _ = commits.send(commit.clone());
        });
        let mut world = World::new(&self.server, node_clock, &self.trace, self.rng.fork());
        if let Some(agents) = &self.listeners {
            world.run_agents(agents, self.numbers_of(3));
        }
        self.tasks.spawn(world.run(told, ordered, ends));
        orders
    }

    /// Random numbers that nothing else in this history depends on.
    fn numbers_of(&self, whose: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.scenario.numbers ^ (whose << 48))
    }

    fn start_operators(&mut self) {
        let mut waiting = Vec::new();
        for (name, (skew, restarts_in_place)) in OPERATORS.iter().zip(&self.scenario.operators) {
            let (blows, hit) = mpsc::unbounded_channel();
            self.blows.insert((*name).to_owned(), blows);
            let operator = Operator {
                name: (*name).to_owned(),
                server: self.server.clone(),
                trace: self.trace.clone(),
                skew: *skew,
                epoch: self.epoch,
                rng: self.rng.fork(),
                post: self.applications.post(),
                restarts_in_place: *restarts_in_place,
                alive: self.alive.clone(),
            };
            waiting.push((operator, hit));
        }
        let agents = self.scenario.listeners.as_ref().map(|plan| Network {
            plan: plan.network.clone(),
            weather: self.weather.clone(),
            judge: self.judge.clone(),
            trace: self.trace.clone(),
            rng: self.numbers_of(4),
            alive: self.alive.clone(),
            blows: BTreeMap::new(),
        });
        let operators = Network {
            plan: self.scenario.faults.clone(),
            weather: self.weather.clone(),
            judge: self.judge.clone(),
            trace: self.trace.clone(),
            rng: self.rng.fork(),
            alive: self.alive.clone(),
            blows: self.blows.clone(),
        };
        self.server.set_faults(Networks { operators, agents });
        for (operator, hit) in waiting {
            self.tasks.spawn(operator.keep_running(hit));
        }
    }

    async fn ask_for_listeners(&self) {
        if let Some(plan) = &self.scenario.listeners {
            let user = listeners::users::User {
                actor: self.server.actor("user"),
                trace: self.trace.clone(),
                clock: self.clock.clone(),
            };
            user.live(plan).await;
        }
    }

    fn clear_up(&self, orders: &UnboundedSender<Order>) {
        self.trace.say("sky", "clears up");
        self.weather.clear_up();
        self.applications.clear_up();
        if let Some(agents) = &self.listeners {
            agents.clear_up();
        }
        self.server.set_policy("quota", None);
        for node in 0..NODES_MAX {
            let _ = orders.send(Order::Return(node));
        }
    }

    /// Liveness: whether all has settled in time.
    async fn settles(&self) -> bool {
        let began = Instant::now();
        // A Pod counts as available only once the operator's clock has come to when its node says that it was ready.
        let apart = self.scenario.clocks_apart();
        let within = REST_WITHIN + apart * INSTANCES_MAX * 2; // there and back, one by one
        // And what a watch that has fallen silent did not tell is known only once it counts as silent.
        let untold = if self.scenario.faults.silent > 0.0 { WATCH_SILENCE } else { Duration::ZERO };
        // Those that stay where others have gone back are late one by one.
        let deadline =
            self.scenario.rollout["spec"]["progressDeadlineSeconds"].as_u64().map_or(DEADLINE, Duration::from_secs);
        let undecided = || {
            let is_partly = end::of(&self.server).is_some_and(|end| end.reason == "PartlyRolledBack");
            if is_partly { deadline } else { Duration::ZERO }
        };
        // What users ask for counts by their clock.
        let apart = apart.max(self.scenario.users_ahead());
        let is_still = || self.judge.docket().last_write.elapsed() > STILLNESS + apart + untold.max(undecided());
        let agents = self.listeners.as_ref();
        let have_agents_rest = || {
            agents.is_none_or(|agents| agents.writes().2.elapsed() > STILLNESS && listeners::end::is_at_rest(agents))
        };
        loop {
            // What waits for approval gets it in this time.
            tokio::time::sleep(Duration::from_secs(5)).await;
            if is_still() && end::is_at_rest(&self.server) && have_agents_rest() {
                return true;
            }
            if began.elapsed() > within + undecided() {
                let (end, sets) = (end::of(&self.server), agents.map(listeners::end::tell));
                let how = format_args!("no rest after {within:?}: {end:?} {sets:?}");
                self.trace.break_promise("liveness", how);
                return false;
            }
        }
    }

    /// Liveness, then silence.
    async fn come_to_rest(&self) {
        if !self.settles().await {
            return;
        }
        let agents = self.listeners.as_ref();
        if agents.is_some_and(|agents| listeners::end::explain(agents).is_err()) {
            tokio::time::sleep(TRIED_AGAIN).await;
            if !self.settles().await {
                return;
            }
        }
        let requests = |server: &ApiServer| -> u64 {
            server.audit(|audit| {
                audit
                    .counts()
                    .iter()
                    .filter(|((who, _, kind), _)| super::oracles::is_operator(who) && *kind != "leases")
                    .map(|(_, count)| count)
                    .sum()
            })
        };
        let writes = || {
            let docket = self.judge.docket();
            (docket.writes, docket.writes_of_others)
        };
        let written_by_agents = || agents.map_or((0, 0), |agents| (agents.writes().0, agents.writes().1));
        let (before, asked, by_agents) = (writes(), requests(&self.server), written_by_agents());
        tokio::time::sleep(IDLE).await;
        let written = writes().0 - before.0;
        // A Pod that goes on crashing is told of; where not all is well, an instance that becomes late by mere time as well.
        let is_complete = end::of(&self.server).is_some_and(|end| end.reason == "Complete");
        let by_time = if is_complete { 0 } else { u64::from(INSTANCES_MAX) };
        let heard = writes().1 - before.1 + by_time;
        let requested = (requests(&self.server) - asked) as usize / self.scenario.operators.len();
        if written > heard {
            self.trace.break_promise("idle", format_args!("{written} writes where {heard} things happen"));
        } else if requested > IDLE_REQUESTS_MAX + 2 * heard as usize {
            self.trace.break_promise("idle", format_args!("{requested} requests in {IDLE:?} while nothing happens"));
        } else if let Err(how) = end::explain(&self.server, self.scenario) {
            self.trace.break_promise("end", how);
        }
        if self.scenario.moves_once()
            && let Some(how) = agents.and_then(listeners::end::restless)
        {
            self.trace.break_promise("L5", how);
        }
        let (renewals, ownerships) = written_by_agents();
        // L12: one for each R of the fastest profile, and few more; of a Pod that crashes again and again, too.
        let pods = self.server.actor("judge").list(&PODS, ROLLOUT.0).len().max(agents.map_or(0, Listeners::count));
        let renewals_max = pods as u64 * (IDLE.as_secs() + 10);
        if ownerships > by_agents.1 || renewals - by_agents.0 > renewals_max {
            let (more, renewals) = (ownerships - by_agents.1, renewals - by_agents.0);
            self.trace.break_promise("idle", format_args!("{more} ownerships and {renewals} sessions written"));
        }
        let Some(agents) = agents else { return };
        if listeners::end::explain(agents).is_err() {
            tokio::time::sleep(TRIED_AGAIN).await;
            if let Err(how) = listeners::end::explain(agents) {
                self.trace.break_promise("end", how);
            }
        }
    }
}

/// What happens at given times.
async fn mishaps(
    scenario: Scenario,
    blows: BTreeMap<String, UnboundedSender<Blow>>,
    orders_of_world: UnboundedSender<Order>,
    weather: Weather,
    server: ApiServer,
    trace: Trace,
) {
    for (at, mishap) in scenario.faults.events {
        tokio::time::sleep_until(trace.start() + at).await;
        trace.say("sky", format_args!("{mishap:?}"));
        let blow = |operator: usize, blow: Blow| {
            if let Some(blows) = blows.get(OPERATORS[operator]) {
                let _ = blows.send(blow);
            }
        };
        match mishap {
            Mishap::Kill(operator, time) => blow(operator, Blow::Kill(time)),
            Mishap::Terminate(operator, time) => blow(operator, Blow::Terminate(time)),
            Mishap::Cut(operator, time) => weather.cut(OPERATORS[operator], time),
            Mishap::Pause(operator, time) => weather.pause(OPERATORS[operator], time),
            Mishap::Outage(time) => weather.outage(time),
            Mishap::Compact => server.compact(u64::MAX),
            Mishap::Quota(pods, time) => {
                server.set_policy("quota", Some(pod_quota(ROLLOUT.0, pods)));
                let server = server.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    server.set_policy("quota", None);
                });
            }
            Mishap::Silence(..) | Mishap::Evict => {}
        }
        let (now, later) = orders(mishap);
        now.map(|order| orders_of_world.send(order));
        if let Some((time, order)) = later {
            let orders_of_world = orders_of_world.clone();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                let _ = orders_of_world.send(order);
            });
        }
    }
}
