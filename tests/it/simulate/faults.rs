//! What goes wrong between operators and API server, and with the operators: each seed has a subset of it, at rates of its
//! own (swarm testing: what always happens hides what rarely does).
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::{sync::mpsc::UnboundedSender, time::Instant};

use super::{
    listeners::is_agent,
    oracles::Judge,
    process::{Alive, Blow},
    trace::Trace,
    world::{NODES_MAX, Order},
};
use crate::fake_apiserver::{
    faults::{Ending, Fate, Faults, Request, StreamFate, StreamInfo, Then, Verb},
    kinds::LEASES,
    refusal::Refusal,
    store::{Change, Store},
};

/// How long an answer takes from an API server that is slow.
const SLOW_MILLIS: Range<u64> = 2_000..5_000;

/// What goes wrong. Rates are chances per request, per watch or per event; 0: never.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Each request, and each answer, takes up to so long.
    latency_millis: u64,
    /// Some take much longer: longer than their client waits, even.
    slow: f64,
    lose_request: f64,
    lose_answer: f64,
    reset: f64,
    /// 409, 429, 500, 503 or 504 instead of being done.
    refuse: f64,
    /// 500, 503 or 504 although it was done.
    refuse_late: f64,
    /// Events of each kind come so late.
    lag_max_millis: u64,
    /// One event takes so long in addition.
    hiccup: f64,
    coalesce: f64,
    pub silent: f64,
    cut: f64,
    expire: f64,
    /// A process dies on sending a request, or on its being done.
    kill: f64,
    /// Things that happen at a time, counted from the beginning.
    pub events: Vec<(Duration, Mishap)>,
}

/// Something that happens once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mishap {
    Kill(usize, Duration),
    Terminate(usize, Duration),
    /// An operator cannot reach the API server, nor it the operator.
    Cut(usize, Duration),
    /// An operator stands still: what it sends leaves later, and it hears nothing.
    Pause(usize, Duration),
    /// Nobody can reach the API server.
    Outage(Duration),
    /// The API server forgets its past.
    Compact,
    /// Only so many Pods are allowed, for a time.
    Quota(usize, Duration),
    Silence(usize, Duration),
    Evict,
}

impl Plan {
    /// A random subset, at random rates.
    /// Mishaps are spread over `duration`.
    pub fn swarm(rng: &mut fastrand::Rng, duration: Duration) -> Self {
        let mut rate = |max: f64| if rng.bool() { 0.0 } else { rng.f64() * max };
        let mut plan = Self {
            slow: rate(0.02),
            lose_request: rate(0.05),
            lose_answer: rate(0.05),
            reset: rate(0.05),
            refuse: rate(0.1),
            refuse_late: rate(0.05),
            hiccup: rate(0.05),
            coalesce: rate(1.0),
            silent: rate(0.3),
            cut: rate(0.8),
            expire: rate(0.5),
            kill: rate(0.01),
            ..Self::default()
        };
        plan.latency_millis = [0, 5, 50, 500][rng.usize(..4)];
        plan.lag_max_millis = [0, 0, 100, 3_000, 20_000][rng.usize(..5)];
        for _ in 0..rng.usize(0..8) {
            let at = duration.mul_f64(rng.f64());
            plan.events.push((at, Mishap::draw(rng)));
        }
        plan.events.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The same between agents and API server. None of them dies of a request: that is for [`Mishap`]s of theirs.
    pub fn swarm_of_agents(rng: &mut fastrand::Rng) -> Self {
        let mut plan = Self { kill: 0.0, ..Self::swarm(rng, Duration::ZERO) };
        plan.latency_millis = [0, 5, 50, 500, 3_000][rng.usize(..5)];
        plan.lag_max_millis = [0, 0, 100, 1_000][rng.usize(..4)];
        plan.events.clear();
        plan
    }

    /// Nothing at all.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The oldest view that an operator may act on.
    pub fn oldest_view(&self) -> Duration {
        let is_calm =
            self.latency_millis == 0 && self.lag_max_millis == 0 && self.events.is_empty() && self.silent == 0.0;
        // A watch may be silent for a minute before it is begun anew, and calls take their time.
        if is_calm { Duration::from_secs(30) } else { Duration::from_mins(3) }
    }
}

impl Mishap {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let who = rng.usize(..3);
        let time = Duration::from_millis(match rng.u8(0..3) {
            0 => rng.u64(0..3_000),
            1 => rng.u64(0..20_000),
            _ => rng.u64(0..60_000),
        });
        match rng.u8(0..18) {
            0..3 => Self::Kill(who, time),
            3..5 => Self::Terminate(who, time),
            5..8 => Self::Cut(who, time),
            8..11 => Self::Pause(who, time),
            11 => Self::Outage(time),
            12..14 => Self::Compact,
            14 => Self::Quota(rng.usize(0..4), time),
            15 => Self::Silence(rng.usize(..NODES_MAX), time),
            _ => Self::Evict,
        }
    }
}

/// What is the matter with the network now. Clones share it.
#[derive(Clone)]
pub struct Weather(Arc<Mutex<Conditions>>);

#[derive(Default)]
struct Conditions {
    is_over: bool,
    outage_until: Option<Instant>,
    /// By operator.
    cut_until: BTreeMap<String, Instant>,
    paused_until: BTreeMap<String, Instant>,
    /// By process: what it watches is stuck.
    deaf_until: BTreeMap<String, Instant>,
    /// Processes that are cut off for good.
    lost: BTreeSet<String>,
    /// Every answer takes long.
    slow_until: Option<Instant>,
}

impl Weather {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    fn now(&self) -> MutexGuard<'_, Conditions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing goes wrong any more.
    pub fn clear_up(&self) {
        let mut now = self.now();
        *now = Conditions { is_over: true, lost: std::mem::take(&mut now.lost), ..Conditions::default() };
    }

    pub fn lose(&self, who: &str) {
        self.now().lost.insert(who.to_owned());
    }

    pub fn deafen(&self, who: &str, time: Duration) {
        self.now().deaf_until.insert(who.to_owned(), Instant::now() + time);
    }

    /// Whoever asks gets an answer, but late.
    pub fn slow_down(&self, time: Duration) {
        self.now().slow_until = Some(Instant::now() + time);
    }

    pub fn cut(&self, operator: &str, time: Duration) {
        self.now().cut_until.insert(operator.to_owned(), Instant::now() + time);
    }

    pub fn pause(&self, operator: &str, time: Duration) {
        self.now().paused_until.insert(operator.to_owned(), Instant::now() + time);
    }

    /// Everybody can reach the API server again.
    pub fn mend(&self, who: &str) {
        self.now().cut_until.remove(who);
    }

    pub fn outage(&self, time: Duration) {
        self.now().outage_until = Some(Instant::now() + time);
    }
}

/// Between operators and API server.
pub struct Network {
    pub plan: Plan,
    pub weather: Weather,
    pub judge: Judge,
    pub trace: Trace,
    pub rng: fastrand::Rng,
    pub alive: Alive,
    /// By operator.
    pub blows: BTreeMap<String, UnboundedSender<Blow>>,
}

/// The network of operators, and that of agents.
pub struct Networks {
    pub operators: Network,
    pub agents: Option<Network>,
}

impl Networks {
    fn of(&mut self, who: &str) -> &mut Network {
        let agents = self.agents.as_mut().filter(|_| is_agent(who));
        agents.unwrap_or(&mut self.operators)
    }
}

impl Faults for Networks {
    fn before(&mut self, request: &Request, store: &Store) -> Fate {
        self.of(&request.who).before(request, store)
    }

    fn after(&mut self, request: &Request, code: u16, store: &Store) -> Fate {
        self.of(&request.who).after(request, code, store)
    }

    fn stream(&mut self, stream: &StreamInfo) -> StreamFate {
        self.of(&stream.who).stream(stream)
    }

    fn event(&mut self, stream: &StreamInfo, change: &Change) -> Duration {
        self.of(&stream.who).event(stream, change)
    }
}

/// What a request asks for, for people.
fn line(request: &Request) -> String {
    let part = if request.subresource.is_empty() { String::new() } else { format!("/{}", request.subresource) };
    let dry = if request.is_dry_run { " (dry run)" } else { "" };
    format!("{} {} {}{part}{dry}", request.verb.as_str(), request.kind.resource, request.name)
}

impl Network {
    fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.rng.f64() < rate
    }

    fn millis(&mut self, below: u64) -> Duration {
        if below == 0 { Duration::ZERO } else { Duration::from_millis(self.rng.u64(..below)) }
    }

    /// From the name of a process: its operator, or its Pod.
    fn operator(who: &str) -> &str {
        who.split(['.', '+']).next().unwrap_or(who)
    }

    /// Whether the process dies of this.
    fn kills(&mut self, who: &str) -> bool {
        let rate = self.plan.kill;
        if !self.chance(rate) {
            return false;
        }
        let pause = self.millis(20_000);
        self.alive.bury(who);
        if let Some(blows) = self.blows.get(Self::operator(who)) {
            let _ = blows.send(Blow::Kill(pause));
        }
        true
    }

    fn refusal(&mut self, request: &Request) -> Refusal {
        let name = &request.name;
        match self.rng.u8(0..5) {
            0 if matches!(request.verb, Verb::Update | Verb::Patch) => Refusal::modified(request.kind, name),
            1 => {
                let mut refusal = Refusal::new(429, "TooManyRequests", "too many requests, please try again later");
                refusal.details = json!({"retryAfterSeconds": self.rng.u8(1..5)});
                refusal
            }
            _ => self.failure(),
        }
    }

    fn failure(&mut self) -> Refusal {
        let (code, reason) =
            [(500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")][self.rng.usize(..3)];
        Refusal::new(code, reason, "etcdserver: request timed out")
    }

    /// Where the way to the API server is closed: until when.
    fn closed(&self, who: &str) -> (bool, Option<Duration>) {
        let now = Instant::now();
        let weather = self.weather.now();
        let of = |map: &BTreeMap<String, Instant>| map.get(Self::operator(who)).copied().filter(|until| *until > now);
        let is_cut = of(&weather.cut_until).is_some() || weather.outage_until.is_some_and(|until| until > now);
        (is_cut, of(&weather.paused_until).map(|until| until - now))
    }

    fn is_lost(&self, who: &str) -> bool {
        self.weather.now().lost.contains(who)
    }

    /// How much longer an answer takes now.
    fn slowness(&mut self) -> Duration {
        let is_slow = self.weather.now().slow_until.is_some_and(|until| until > Instant::now());
        if is_slow { Duration::from_millis(self.rng.u64(SLOW_MILLIS)) } else { Duration::ZERO }
    }

    fn is_over(&self) -> bool {
        self.weather.now().is_over
    }

    fn way_there(&mut self, request: &Request) -> Fate {
        if self.is_lost(&request.who) {
            return Fate::now(Then::Lose);
        }
        if self.is_over() {
            return Fate::default();
        }
        let (is_cut, paused) = self.closed(&request.who);
        if is_cut {
            return Fate::now(Then::Lose);
        }
        if self.kills(&request.who) {
            self.trace.say(&request.who, format_args!("dies on sending {}", line(request)));
            return Fate::now(Then::Lose);
        }
        let mut delay = self.millis(self.plan.latency_millis) + paused.unwrap_or_default();
        if self.chance(self.plan.slow) {
            delay += self.millis(30_000);
        }
        let then = if self.chance(self.plan.lose_request) {
            Then::Lose
        } else if self.chance(self.plan.reset) {
            Then::Reset
        } else if self.chance(self.plan.refuse) {
            Then::Answer(self.refusal(request))
        } else {
            Then::Deliver
        };
        Fate { delay, then }
    }

    fn way_back(&mut self, request: &Request, code: u16) -> Fate {
        if self.is_lost(&request.who) {
            return Fate::now(Then::Lose);
        }
        if self.is_over() {
            return Fate::default();
        }
        let (is_cut, paused) = self.closed(&request.who);
        if is_cut {
            return Fate::now(Then::Lose);
        }
        if request.verb.is_write() && code < 300 && self.kills(&request.who) {
            self.trace.say(&request.who, format_args!("dies of {}", line(request)));
            return Fate::now(Then::Lose);
        }
        let delay = self.millis(self.plan.latency_millis) + self.slowness() + paused.unwrap_or_default();
        let then = if self.chance(self.plan.lose_answer) {
            Then::Lose
        } else if request.verb.is_write() && self.chance(self.plan.refuse_late) {
            Then::Answer(self.failure())
        } else {
            Then::Deliver
        };
        Fate { delay, then }
    }
}

impl Faults for Network {
    fn before(&mut self, request: &Request, store: &Store) -> Fate {
        if !self.alive.has(&request.who) {
            return Fate::now(Then::Lose);
        }
        self.judge.docket().sent(request, store);
        let fate = self.way_there(request);
        if fate.then != Then::Deliver || fate.delay > Duration::from_secs(2) {
            self.trace.say(&request.who, format_args!("sends {}: {}", line(request), spell(&fate)));
        }
        fate
    }

    fn after(&mut self, request: &Request, code: u16, store: &Store) -> Fate {
        if !self.alive.has(&request.who) {
            return Fate::now(Then::Lose);
        }
        let fate = self.way_back(request, code);
        if fate.then == Then::Deliver {
            self.judge.docket().answered(request, code, store);
        }
        let is_told = *request.kind != LEASES && (request.verb.is_write() || request.verb == Verb::Get);
        if fate.then != Then::Deliver || is_told || fate.delay > Duration::from_secs(2) {
            self.trace.say(&request.who, format_args!("{} -> {code} {}", line(request), spell(&fate)));
        }
        fate
    }

    fn stream(&mut self, _: &StreamInfo) -> StreamFate {
        if self.is_over() {
            return StreamFate::default();
        }
        let lag = self.millis(self.plan.lag_max_millis);
        let coalesce = self.chance(self.plan.coalesce).then(|| self.millis(2_000));
        let silent_after = self.chance(self.plan.silent).then(|| self.millis(60_000));
        let ending = if self.chance(self.plan.expire) {
            Ending::Expired
        } else {
            [Ending::Closed, Ending::Reset][self.rng.usize(..2)]
        };
        let end_after = self.chance(self.plan.cut).then(|| (self.millis(40_000), ending));
        StreamFate { lag, coalesce, silent_after, end_after }
    }

    fn event(&mut self, stream: &StreamInfo, _: &Change) -> Duration {
        if self.is_lost(&stream.who) {
            return Duration::from_hours(24);
        }
        if self.is_over() {
            return Duration::ZERO;
        }
        let (is_cut, paused) = self.closed(&stream.who);
        let hiccup = if self.chance(self.plan.hiccup) { self.millis(10_000) } else { Duration::ZERO };
        // TCP repeats: what is cut off comes later, as the watch is not told of its end.
        let deaf = self.weather.now().deaf_until.get(&*stream.who).copied();
        let deaf = deaf.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        paused.unwrap_or_default() + hiccup + deaf + if is_cut { Duration::from_mins(2) } else { Duration::ZERO }
    }
}

fn spell(fate: &Fate) -> String {
    let delay = if fate.delay.is_zero() { String::new() } else { format!("after {} ms ", fate.delay.as_millis()) };
    let then = match &fate.then {
        Then::Deliver => String::new(),
        Then::Lose => "LOST".into(),
        Then::Reset => "RESET".into(),
        Then::Answer(refusal) => format!("ANSWERED {} {}", refusal.code, refusal.reason),
    };
    delay + &then
}

/// Orders that go with a mishap: now, and after its time.
pub fn orders(mishap: Mishap) -> (Option<Order>, Option<(Duration, Order)>) {
    match mishap {
        Mishap::Silence(node, time) => (Some(Order::Silence(node)), Some((time, Order::Return(node)))),
        Mishap::Evict => (Some(Order::Evict), None),
        _ => (None, None),
    }
}
