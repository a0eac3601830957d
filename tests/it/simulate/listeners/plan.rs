//! What a seed decides about listeners, from numbers of its own: the histories of seeds without them do not depend on it.
use std::time::Duration;

use baton::api::session::SessionProfile;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Listeners, machine::Pace};
use crate::simulate::process::WATCH_SILENCE;
use crate::simulate::{faults, scenario::OPERATORS, trace::Trace, world::NODES_MAX};

/// ListenerSets, and what happens to them and to agents.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As a user first applies them, each after a pause.
    pub sets: Vec<(Duration, Value)>,
    /// What users do afterwards, in this order.
    pub deeds: Vec<Deed>,
    /// Nodes.
    pub machines: Vec<Pace>,
    /// What listeners do.
    pub rates: Rates,
    /// What goes wrong between agents and API server.
    pub network: faults::Plan,
    /// What goes wrong at a time.
    pub events: Vec<(Duration, Mishap)>,
}

/// Chances for each start of a listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// It cannot be started.
    pub fails: f64,
    /// It ends by itself.
    pub exits: f64,
    /// It stops only when it is killed.
    pub hangs: f64,
    /// It never says that it works.
    pub never_works: f64,
    /// Agents wait until it says so.
    pub says_when_it_works: bool,
}

/// Something a user does, and how long they think before.
#[derive(Clone, Debug)]
pub struct Deed {
    pub pause: Duration,
    /// Number of the set.
    pub set: usize,
    pub act: Act,
}

/// Something that is done to a set or its Leases. Which listener or Lease, is a number.
#[derive(Clone, Debug)]
pub enum Act {
    Add,
    Remove(usize),
    /// Stopped becomes Started, and back.
    Switch(usize),
    Configure(usize),
    Recover,
    /// Not by force.
    Release(usize),
    /// By force, whether its holder lives or not.
    Force(usize),
    /// Takes a listener out of this set, and puts it into the other one.
    Move(usize),
    /// Writes into a session what cannot be decoded, and takes it out after this time.
    Spoil(usize, Duration),
    /// Deletes the set, and creates it again after this time.
    Recreate(Duration),
    MaxPerPod(u64),
    Budget(Option<(u64, u64)>),
    Profile(&'static str),
    DeleteSession(usize),
    DeleteOwnership(usize),
    /// Deletes a Pod by force: its processes live on.
    ForceDelete(usize),
}

/// Something that happens once to agents.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    Kill(usize),
    Cut(usize, Duration),
    Pause(usize, Duration),
    /// A node's time of day is set by so many milliseconds.
    SetClock(usize, i64),
    /// All operators are cut off.
    OperatorsAway(Duration),
    /// The shim of a container dies, and its processes live on.
    LoseShim(usize),
    /// A node is paused, without a step of its time of day once it goes on.
    PauseNode(usize, Duration),
    /// The API server answers late.
    SlowAnswers(Duration),
    /// What an agent watches is stuck; its renewals are answered.
    Deafen(usize, Duration),
}

impl Plan {
    /// Of a history that lasts so long.
    pub fn draw(rng: &mut fastrand::Rng, retold: Option<fastrand::Rng>, duration: Duration) -> Self {
        rng.u8(..); // nothing any more; but without it every seed would be another history
        let mut own = rng.fork();
        let mut deeds_rng = rng.fork();
        let mut faults_rng = retold.map_or_else(|| rng.fork(), |mut retold| retold.fork());
        let count = if own.u8(0..4) == 0 { 2 } else { 1 };
        let sets = (0..count).map(|number| (millis(&mut own, 30_000), set(&mut own, number))).collect();
        let machines = (0..NODES_MAX).map(|_| pace(&mut own)).collect();
        let mut rate = |max: f64| if own.bool() { 0.0 } else { own.f64() * max };
        let mut rates = Rates {
            fails: rate(0.05),
            exits: rate(0.08),
            hangs: rate(0.1),
            never_works: rate(0.03),
            says_when_it_works: false,
        };
        rates.says_when_it_works = own.bool();
        let deeds = match deeds_rng.u8(0..3) {
            0 => Vec::new(),
            _ => (0..deeds_rng.u32(1..8)).map(|_| deed(&mut deeds_rng, count)).collect(),
        };
        let network = faults::Plan::swarm_of_agents(&mut faults_rng);
        let mut events: Vec<(Duration, Mishap)> = (0..faults_rng.usize(0..8))
            .map(|_| (duration.mul_f64(faults_rng.f64()), mishap(&mut faults_rng)))
            .collect();
        let (mut edges_rng, mut deeds) = (rng.fork(), deeds);
        for _ in 0..edges_rng.usize(0..3) * edges_rng.usize(0..2) {
            deeds.insert(edges_rng.usize(..=deeds.len()), edge(&mut edges_rng, count));
        }
        for _ in 0..faults_rng.usize(0..4) * faults_rng.usize(0..2) {
            let at = duration.mul_f64(faults_rng.f64());
            events.extend(edges(&mut faults_rng, at));
        }
        events.sort_by_key(|(at, _)| *at);
        Self { sets, deeds, machines, rates, network, events }
    }

    /// How far any node's time of day comes to be ahead of what it would be, by being set.
    pub fn set_ahead(&self) -> SignedDuration {
        let mut now = [0_i64; NODES_MAX];
        let mut most = 0;
        for (_, mishap) in &self.events {
            if let Mishap::SetClock(node, millis) = mishap {
                now[*node] += millis;
                most = most.max(now[*node]);
            }
        }
        SignedDuration::from_millis(most)
    }

    /// K of the slowest profile that is asked for at any time.
    pub fn kill_after(&self) -> Duration {
        let first = self.sets.iter().filter_map(|(_, set)| set["spec"]["session"]["profile"].as_str());
        let later = self.deeds.iter().filter_map(|deed| match deed.act {
            Act::Profile(profile) => Some(profile),
            _ => None,
        });
        let profile = |name: &str| match name {
            "Calm" => SessionProfile::Calm,
            "Fast" => SessionProfile::Fast,
            _ => SessionProfile::Default,
        };
        // A set without a Lease yet has the default.
        let all = first.chain(later).map(profile).chain([SessionProfile::Default]);
        all.map(|profile| profile.times().kill).max().unwrap_or_default()
    }

    /// How late an agent may come to know of what was written while it renews its session: once its watch counts as silent,
    /// which may be stuck, and so may be what is asked then; or never, and then it stops by K.
    pub fn hears_within(&self) -> Duration {
        if self.network.is_none() && self.events.is_empty() {
            return Duration::ZERO;
        }
        let stuck = self.events.iter().map(|(_, mishap)| match mishap {
            Mishap::Deafen(_, time) | Mishap::SlowAnswers(time) => *time,
            _ => Duration::ZERO,
        });
        self.kill_after() + WATCH_SILENCE + stuck.sum::<Duration>()
    }

    /// The same, where nothing goes wrong.
    pub fn undisturbed(mut self) -> Self {
        self.rates = Rates { says_when_it_works: self.rates.says_when_it_works, ..Rates::default() };
        self.machines = vec![Pace { booted_before: Duration::from_hours(1), drift_micros: 0 }; NODES_MAX];
        self.deeds.retain(|deed| {
            let act = &deed.act;
            !matches!(act, Act::DeleteSession(_) | Act::DeleteOwnership(_) | Act::ForceDelete(_) | Act::Spoil(..))
        });
        (self.network, self.events) = (faults::Plan::default(), Vec::new());
        self
    }
}

/// What happens to agents at given times.
pub async fn happen(plan: Option<Plan>, agents: Option<Listeners>, weather: faults::Weather, trace: Trace) {
    let (Some(plan), Some(agents)) = (plan, agents) else { return };
    for (at, mishap) in plan.events {
        tokio::time::sleep_until(trace.start() + at).await;
        trace.say("sky", format_args!("{mishap:?}"));
        match mishap {
            Mishap::Kill(which) => agents.kill_some(which),
            Mishap::Cut(which, time) => agents.cut_some(which, time),
            Mishap::Pause(which, time) => agents.pause_some(which, time),
            Mishap::SetClock(node, millis) => agents.set_wall(node, millis),
            Mishap::OperatorsAway(time) => OPERATORS.iter().for_each(|operator| weather.cut(operator, time)),
            Mishap::LoseShim(which) => agents.lose_some(which),
            Mishap::PauseNode(node, time) => agents.pause_node(node, time),
            Mishap::SlowAnswers(time) => weather.slow_down(time),
            Mishap::Deafen(which, time) => agents.deafen_some(which, time),
        }
    }
}

fn millis(rng: &mut fastrand::Rng, below: u64) -> Duration {
    Duration::from_millis(rng.u64(0..below))
}

fn pace(rng: &mut fastrand::Rng) -> Pace {
    let drift_micros = if rng.bool() { 0 } else { rng.i64(-20_000..20_000) };
    Pace { booted_before: Duration::from_millis(rng.u64(1_000..1 << 40)), drift_micros }
}

fn set(rng: &mut fastrand::Rng, number: usize) -> Value {
    let listeners: Vec<Value> = (0..rng.usize(1..7)).map(|listener| json!({"name": format!("l{listener}")})).collect();
    let profile = ["Default", "Default", "Default", "Fast", "Calm"][rng.usize(..5)];
    let checkpoint = [0, 0, 5][rng.usize(..3)];
    let mut spec = json!({
        "rolloutRef": {"name": crate::simulate::scenario::ROLLOUT.1},
        "listeners": listeners,
        "defaults": {
            "connectTimeoutSeconds": 5, "startTimeoutSeconds": rng.u32(5..30), "stopTimeoutSeconds": rng.u32(1..15),
        },
        "session": {"profile": profile},
        "handoff": {
            "prepare": rng.u8(0..4) > 0, "timeoutSeconds": rng.u32(5..40), "checkpointSeconds": checkpoint,
            "maxInFlight": rng.u32(1..10), "maxInFlightPerPod": rng.u32(1..5),
        },
    });
    if rng.u8(0..8) == 0 {
        spec["startBudget"] = json!({"permits": rng.u32(1..3), "periodSeconds": rng.u32(1..6)});
    }
    json!({"metadata": {"name": format!("bots{number}")}, "spec": spec})
}

fn deed(rng: &mut fastrand::Rng, sets: usize) -> Deed {
    let which = rng.usize(..64);
    let act = match rng.u8(0..24) {
        0..3 => Act::Add,
        3..5 => Act::Remove(which),
        5..9 => Act::Switch(which),
        9..12 => Act::Configure(which),
        12 => Act::Recover,
        13 | 14 => Act::Release(which),
        15 | 16 => Act::Recreate(millis(rng, 20_000)),
        17 => Act::MaxPerPod(rng.u64(0..4)),
        18 => Act::Budget(rng.bool().then(|| (rng.u64(1..3), rng.u64(1..6)))),
        19 => Act::Profile(["Default", "Fast", "Calm"][rng.usize(..3)]),
        20 => Act::DeleteSession(which),
        21 => Act::DeleteOwnership(which),
        _ => Act::ForceDelete(which),
    };
    let below = [3_000, 20_000, 60_000][rng.usize(..3)];
    Deed { pause: millis(rng, below), set: rng.usize(..sets), act }
}

/// What a review found that no history had.
fn edge(rng: &mut fastrand::Rng, sets: usize) -> Deed {
    let which = rng.usize(..64);
    let act = match rng.u8(0..6) {
        0..3 => Act::Force(which),
        3 => Act::Move(which),
        _ => Act::Spoil(which, millis(rng, 60_000)),
    };
    Deed { pause: millis(rng, 20_000), set: rng.usize(..sets), act }
}

/// The same of what happens to agents: a node that was paused may be told the time soon after it goes on.
fn edges(rng: &mut fastrand::Rng, at: Duration) -> Vec<(Duration, Mishap)> {
    let (which, node) = (rng.usize(..64), rng.usize(..NODES_MAX));
    let below = [5_000, 20_000, 120_000][rng.usize(..3)];
    let time = millis(rng, below);
    match rng.u8(0..7) {
        0 | 1 => vec![(at, Mishap::LoseShim(which))],
        2 => vec![(at, Mishap::PauseNode(node, time))],
        3 => {
            let told = at + time + millis(rng, 10_000);
            let missed = i64::try_from(time.as_millis()).unwrap_or_default();
            vec![(at, Mishap::PauseNode(node, time)), (told, Mishap::SetClock(node, missed))]
        }
        4 => vec![(at, Mishap::SlowAnswers(time))],
        5 => vec![(at, Mishap::Deafen(which, time))],
        // As by a leap second, or by an hour.
        _ => vec![(at, Mishap::SetClock(node, [1_000, -1_000, 2_500, -2_500, 3_600_000, -3_600_000][rng.usize(..6)]))],
    }
}

fn mishap(rng: &mut fastrand::Rng) -> Mishap {
    let which = rng.usize(..64);
    let below = [3_000, 20_000, 90_000][rng.usize(..3)];
    let time = millis(rng, below);
    match rng.u8(0..12) {
        0..3 => Mishap::Kill(which),
        3..6 => Mishap::Cut(which, time),
        6..9 => Mishap::Pause(which, time),
        9 | 10 => Mishap::SetClock(which % NODES_MAX, rng.i64(-600_000..600_000)),
        _ => Mishap::OperatorsAway(time * 2),
    }
}
