//! What a seed decides before anything happens: the Rollout, its users' deeds, the processes, what goes wrong.
use std::{collections::BTreeSet, time::Duration};

use baton::api::names::{AGENT_OWN, ANNOTATION_HAS_AGENT};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    Extras,
    faults::Plan,
    listeners,
    process::Skew,
    users::{Act, Deed},
    versions::{BAD, Behaviour, GOOD, VERSION, version_of},
    world::MAY_BE_INFEASIBLE,
};

/// So many seeds in a row share a story: Rollout, versions, users and clocks. What goes wrong, and what is left to chance, is
/// each one's own. One undisturbed run stands beside all of them, which takes as long as one that is disturbed.
pub const TELLINGS: u64 = 4;

/// The story that a seed tells.
pub fn story(seed: u64) -> u64 {
    seed / TELLINGS
}

/// A seed, spelled out.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What all random numbers of the history follow from.
    pub numbers: u64,
    /// As a user first applies it.
    pub rollout: Value,
    /// What users do, in this order; the last deed is the one that must come true.
    pub deeds: Vec<Deed>,
    /// Users wait until what they asked for has settled before they ask for more.
    pub is_patient: bool,
    /// How the last version behaves.
    pub last: Behaviour,
    /// The last word leaves pins: those of versions that work, of other instances than the first.
    pub keeps_pins: bool,
    /// Whoever approves passes one pause at a time.
    pub approves_one_by_one: bool,
    /// Operators: clock, and whether they restart within their Pod.
    pub operators: Vec<(Skew, bool)>,
    /// Offset of the nodes' clock.
    pub node_skew: Skew,
    /// What goes wrong.
    pub faults: Plan,
    /// ListenerSets, in a share of the seeds.
    pub listeners: Option<listeners::plan::Plan>,
}

/// The operators' names.
pub const OPERATORS: [&str; 3] = ["a", "b", "c"];
/// Most instances that anybody asks for.
pub const INSTANCES_MAX: u32 = 8;
/// Services that BlueGreen may name.
pub const SERVICES: [&str; 2] = ["web", "web-2"];
/// The Rollout's name and namespace.
pub const ROLLOUT: (&str, &str) = ("shop", "web");

impl Scenario {
    /// Of a seed. Undisturbed: one operator with an exact clock, and nothing goes wrong; users
    /// do the same, whichever seed of the story it is.
    pub fn new(seed: u64, is_undisturbed: bool, extras: Extras) -> Self {
        let (story, telling) = (story(seed), if is_undisturbed { 0 } else { seed % TELLINGS });
        let numbers = story ^ (telling << 56);
        let retold = (telling > 0).then(|| fastrand::Rng::with_seed(numbers));
        let mut rng = fastrand::Rng::with_seed(story);
        let (mut own, mut deeds_rng, mut faults_rng) = (rng.fork(), rng.fork(), rng.fork());
        let (mut listeners_rng, mut pins_rng, mut ways_rng) = (rng.fork(), rng.fork(), rng.fork());
        let mut pauses_rng = rng.fork();
        let mut kept_rng = rng.fork();
        let last = if own.u8(0..10) < 7 { draw(&mut own, &GOOD) } else { draw(&mut own, &BAD) };
        let is_patient = own.bool();
        let mut rollout = rollout(&mut own, last);
        let mut deeds = deeds(&mut deeds_rng, last);
        if extras.keep_failed && rollout["spec"]["strategy"]["maxSurge"] != 0 {
            let (pods, seconds) = (kept_rng.i32(1..=2), draw(&mut kept_rng, &[1, 20, 600]));
            rollout["spec"]["strategy"]["keepFailed"] = json!({"pods": pods, "seconds": seconds});
        }
        rollout["spec"]["hooks"] = if extras.hooks { hooks(&mut rng) } else { json!([]) };
        let mut keeps_pins = false;
        if extras.pins {
            deeds = with_pins(&mut pins_rng, deeds);
            if pins_rng.u8(0..3) == 0 {
                rollout["spec"]["strategy"]["onFailure"] = json!("RollbackFailed");
            }
            keeps_pins = pins_rng.bool();
        }
        if extras.in_place {
            let strategy = &mut rollout["spec"]["strategy"];
            // What Pods of a deleted revision can be given nobody knows: InPlaceOnly then waits for a person, and says so.
            let is_known = !deeds.iter().any(|deed| matches!(deed.act, Act::DeleteRevision));
            let update = if ways_rng.bool() || !is_known { "InPlaceIfPossible" } else { "InPlaceOnly" };
            strategy["update"] = json!(if strategy["maxUnavailable"] == 0 { "InPlaceIfPossible" } else { update });
        }
        if extras.resources {
            give_resources(&mut ways_rng, &mut rollout);
        }
        if extras.hot_reload {
            let strategy = &mut rollout["spec"]["strategy"];
            strategy["update"] = json!("HotReload");
            strategy["hotReload"] = json!({"httpPost": {"path": "/reload", "port": 80}, "timeoutSeconds": 90});
            let template = &mut rollout["spec"]["template"];
            let version = version_of(template).to_owned();
            template["metadata"]["annotations"] = json!({VERSION: version});
            template["spec"]["containers"][0]["image"] = json!(format!("example.local/web:{}", Behaviour::Good.tag(0)));
        }
        if extras.pauses {
            let strategy = &mut rollout["spec"]["strategy"];
            strategy.as_object_mut().expect("a strategy").remove("batchSize");
            strategy["batches"] = batches_with_pauses(&mut pauses_rng);
            deeds = with_approvals(&mut pauses_rng, deeds);
        }
        if extras.strategies {
            let batched = rollout["spec"]["strategy"].clone();
            rollout["spec"]["strategy"] = all_at_once(&mut ways_rng, &batched, SERVICES[0]);
            deeds = with_keys_taken(&mut ways_rng, deeds);
            deeds = with_strategies_changed(&mut ways_rng, &batched, deeds);
        }
        let mut skews = [0; 3].map(|_| skew(&mut own));
        if extras.hot_reload {
            // The time-out counts from what the clock of one operator said, by that of another.
            skews =
                skews.map(|it| Skew { offset_millis: it.offset_millis % 3_000, drift_micros: it.drift_micros % 200 });
        }
        let count = if is_undisturbed { 1 } else { own.usize(2..=3) };
        let restarts = [0; 3].map(|_| own.bool());
        let node_skew = skew(&mut own);
        let operators = (0..count).map(|number| (skews[number], restarts[number])).collect();
        // Patient users take longer; what happens late meets them.
        let thinking: Duration = deeds.iter().map(|deed| deed.pause).sum();
        let duration = thinking + Duration::from_secs(20) * if is_patient { deeds.len() as u32 } else { 1 };
        if let Some(retold) = &retold {
            faults_rng = retold.clone();
        }
        let draw_listeners = || listeners::plan::Plan::draw(&mut listeners_rng, retold, duration);
        let mut scenario = Self {
            numbers,
            rollout,
            deeds,
            is_patient,
            last,
            keeps_pins,
            approves_one_by_one: extras.pauses,
            operators,
            node_skew,
            faults: Plan::swarm(&mut faults_rng, duration),
            listeners: extras.listeners.then(draw_listeners),
        };
        if scenario.listeners.is_some() {
            scenario.rollout["spec"]["template"]["metadata"]["annotations"] = json!({ANNOTATION_HAS_AGENT: AGENT_OWN});
        }
        // Where it takes minutes until a Pod counts as available, a version that works must not be late for that.
        if last.works() {
            let longer = u64::from(INSTANCES_MAX) * scenario.clocks_apart().as_secs();
            let deadline = &mut scenario.rollout["spec"]["progressDeadlineSeconds"];
            *deadline = json!(deadline.as_u64().unwrap_or_default() + longer);
        }
        if is_undisturbed {
            scenario.operators[0] = (Skew::NONE, true);
            scenario.node_skew = Skew::NONE;
            scenario.faults = Plan::default();
            scenario.listeners = scenario.listeners.map(listeners::plan::Plan::undisturbed);
        }
        scenario
    }

    /// The Services that the Rollout names at any time.
    pub fn services(&self) -> BTreeSet<&str> {
        let changed = self.deeds.iter().filter_map(|deed| match &deed.act {
            Act::Strategy(strategy) => Some(strategy),
            _ => None,
        });
        let strategies = changed.chain([&self.rollout["spec"]["strategy"]]);
        strategies.filter_map(|strategy| strategy["blueGreen"]["activeService"].as_str()).collect()
    }

    /// Whether somebody makes the operators forget what only status remembers.
    pub fn forgets(&self) -> bool {
        self.deeds.iter().any(|deed| matches!(deed.act, Act::WipeStatus | Act::Recreate(..)))
    }

    /// How far the nodes' clock is ahead of the operator's that is furthest behind, within the first hour.
    pub fn clocks_apart(&self) -> Duration {
        let nodes = ahead(&self.node_skew).into_iter().max().unwrap_or_default();
        let nodes = nodes + self.listeners.as_ref().map(listeners::plan::Plan::set_ahead).unwrap_or_default();
        (nodes - self.furthest_behind()).max(SignedDuration::ZERO).unsigned_abs()
    }

    /// How far the users' clock, by which they ask for things, is ahead of the same operator's.
    pub fn users_ahead(&self) -> Duration {
        (-self.furthest_behind()).max(SignedDuration::ZERO).unsigned_abs()
    }

    /// What an operator's clock is ahead by at the least.
    fn furthest_behind(&self) -> SignedDuration {
        self.operators.iter().flat_map(|(skew, _)| ahead(skew)).min().unwrap_or_default()
    }

    /// Whether each listener moves at most once in it: nothing happens but a change of the template, and no old Pod leaves
    /// before there is a new one.
    pub fn moves_once(&self) -> bool {
        let is_calm =
            |plan: &listeners::plan::Plan| plan.network.is_none() && plan.events.is_empty() && plan.deeds.is_empty();
        let steady = |tag: &str| !tag.ends_with("flap");
        let first = self.rollout["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        self.faults.is_none()
            && self.listeners.as_ref().is_some_and(is_calm)
            && self.deeds.iter().all(|deed| matches!(deed.act, Act::Create | Act::LastWord(_)))
            && self.last.works()
            && steady(&self.last.tag(0))
            && steady(first)
            && self.rollout["spec"]["strategy"]["maxUnavailable"] == 0
    }

    /// Whether the end must be that of the undisturbed run: where it does not depend on who was faster, nor on which revisions there
    /// were to pin to.
    pub fn is_confluent(&self) -> bool {
        let is_simple = |deed: &Deed| {
            matches!(deed.act, Act::Deploy(_) | Act::Scale(_) | Act::Restart | Act::DeletePod | Act::LastWord(_))
        };
        !self.keeps_pins && (self.last.works() || (self.is_patient && self.deeds.iter().all(is_simple)))
    }
}

/// How far a clock is ahead at first, and an hour later.
fn ahead(skew: &Skew) -> [SignedDuration; 2] {
    [0, 1].map(|hours| skew.ahead(SignedDuration::from_hours(hours)))
}

fn draw<T: Copy>(rng: &mut fastrand::Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn skew(rng: &mut fastrand::Rng) -> Skew {
    match rng.u8(0..6) {
        0..3 => Skew::NONE,
        3..5 => Skew { offset_millis: rng.i64(-3_000..3_000), drift_micros: rng.i64(-200..200) },
        _ => Skew { offset_millis: rng.i64(-300_000..300_000), drift_micros: rng.i64(-20_000..20_000) },
    }
}

fn rollout(rng: &mut fastrand::Rng, last: Behaviour) -> Value {
    let replicas = rng.i32(1..=6);
    let surge = draw(rng, &[json!(0), json!(1), json!(2), json!("25%"), json!("50%")].each_ref()).clone();
    let unavailable = draw(rng, &[json!(0), json!(1), json!(2), json!("25%")].each_ref()).clone();
    let unavailable = if surge == 0 && unavailable == 0 { json!(1) } else { unavailable };
    let mut strategy = json!({
        "maxSurge": surge,
        "maxUnavailable": unavailable,
        "failureThreshold": draw(rng, &[1, 1, 2]),
        "onFailure": draw(rng, &["Rollback", "Rollback", "Pause"]),
    });
    match rng.u8(0..4) {
        0 => {}
        1 => strategy["batchSize"] = json!(rng.i32(1..=3)),
        2 => {
            strategy["batches"] =
                json!([{"upTo": rng.i32(1..=2), "pause": {"seconds": rng.i32(1..=20)}}, {"upTo": "60%"}]);
        }
        _ => strategy["batches"] = json!([{"upTo": 1, "pause": {}}, {"upTo": "50%", "pause": {"seconds": 5}}]),
    }
    let deadline = if last == Behaviour::NeverReady { 90 } else { 600 };
    json!({
        "metadata": {"name": ROLLOUT.1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": ROLLOUT.1}},
            "minReadySeconds": draw(rng, &[0, 0, 1, 5]),
            "progressDeadlineSeconds": deadline,
            "revisionHistoryLimit": draw(rng, &[1, 10]),
            "strategy": strategy,
            "template": template(&draw(rng, &GOOD).tag(0), draw(rng, &[2, 10, 30])),
        },
    })
}

/// Pauses before the first instance, after the last, several at one place, and where others would be if there were more instances.
fn batches_with_pauses(rng: &mut fastrand::Rng) -> Value {
    let count = rng.i32(1..=INSTANCES_MAX as i32);
    let all = [
        json!([{"upTo": 0, "pause": {}}]),
        json!([{"upTo": "100%", "pause": {}}]),
        json!([{"upTo": count, "pause": {}}]),
        json!([{"upTo": 1, "pause": {}}, {"upTo": 1, "pause": {"seconds": 3}}, {"upTo": "100%", "pause": {}}]),
        json!([{"upTo": "50%"}, {"upTo": 1, "pause": {}}]),
        json!([{"upTo": 0, "pause": {"seconds": 4}}, {"upTo": count, "pause": {}}, {"upTo": 9, "pause": {"seconds": 20}}]),
    ];
    draw(rng, &all.each_ref()).clone()
}

/// The same deeds, and between them approvals of what waits.
fn with_approvals(rng: &mut fastrand::Rng, deeds: Vec<Deed>) -> Vec<Deed> {
    let mut all = Vec::new();
    for (number, deed) in deeds.into_iter().enumerate() {
        if number > 0 && rng.bool() {
            all.push(Deed { pause: pause(rng), act: Act::ApproveBatch });
        }
        all.push(deed);
    }
    all
}

/// Some hooks at some points; what they come to is in their names.
fn hooks(rng: &mut fastrand::Rng) -> Value {
    let all = [
        ("backup", "BeforeRollout", 0),
        ("flaky", "BeforeRollout", 2),
        ("migrate", "BeforeRollout", 0),
        ("warm", "BeforeBatch", 0),
        ("smoke", "AfterBatch", 0),
        ("tidy", "AfterRollout", 0),
        ("restore", "OnRollback", 0),
    ];
    let on_test = draw(rng, &["Wait", "Stop"]);
    let drawn = all.iter().filter(|_| rng.bool()).map(|(name, when, retries)| {
        let on_abort = if *when == "AfterBatch" { on_test } else { "Wait" };
        let failure = if *when == "AfterRollout" { "Ignore" } else { "Abort" };
        json!({
            "name": name, "when": when, "retries": retries, "onAbort": on_abort, "onFailure": failure,
            "timeoutSeconds": 300, "keep": 10, "keepDays": 30,
            "template": {"spec": {"containers": [{"name": "main", "image": "example.local/tool:1"}]}},
        })
    });
    drawn.collect()
}

/// Recreate, or BlueGreen with this Service; what it does upon failures stays.
fn all_at_once(rng: &mut fastrand::Rng, batched: &Value, service: &str) -> Value {
    let mut strategy = batched.clone();
    for field in ["batches", "batchSize"] {
        strategy.as_object_mut().expect("a strategy").remove(field);
    }
    strategy["type"] = json!("Recreate");
    if rng.u8(0..3) > 0 {
        strategy["type"] = json!("BlueGreen");
        let delay = draw(rng, &[0, 2, 30]);
        let promote = draw(rng, &["Auto", "Auto", "Manual"]);
        strategy["blueGreen"] = json!({"activeService": service, "promote": promote, "scaleDownDelaySeconds": delay});
    } else {
        strategy["keepFailed"] = Value::Null;
    }
    strategy
}

/// Containers request cpu, of which each version gets another amount.
fn give_resources(rng: &mut fastrand::Rng, rollout: &mut Value) {
    // Where another Pod may not take the place, a version that works must not be late for want of room.
    let may_be_infeasible = rollout["spec"]["strategy"]["update"] == "InPlaceIfPossible";
    let template = &mut rollout["spec"]["template"];
    if may_be_infeasible {
        template["metadata"]["annotations"] = json!({MAY_BE_INFEASIBLE: "1"});
    }
    let policy = draw(rng, &["NotRequired", "NotRequired", "RestartContainer"]);
    let container = &mut template["spec"]["containers"][0];
    container["resources"] = json!({"requests": {"cpu": "1"}});
    container["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
}

/// The same deeds, and in a third of the stories between them changes of strategy, or of the Service it names.
fn with_strategies_changed(rng: &mut fastrand::Rng, batched: &Value, deeds: Vec<Deed>) -> Vec<Deed> {
    if rng.u8(0..3) > 0 {
        return deeds;
    }
    let mut all = Vec::new();
    for (number, deed) in deeds.into_iter().enumerate() {
        if number > 0 && rng.u8(0..3) == 0 {
            let service = draw(rng, &SERVICES);
            let strategy = if rng.u8(0..3) == 0 { batched.clone() } else { all_at_once(rng, batched, service) };
            all.push(Deed { pause: pause(rng), act: Act::Strategy(strategy) });
        }
        all.push(deed);
    }
    all
}

/// The same deeds, and between them somebody who takes the key away that the Service is switched by.
fn with_keys_taken(rng: &mut fastrand::Rng, deeds: Vec<Deed>) -> Vec<Deed> {
    let mut all = Vec::new();
    for (number, deed) in deeds.into_iter().enumerate() {
        if number > 0 && rng.u8(0..6) == 0 {
            all.push(Deed { pause: pause(rng), act: Act::TakeKey });
        }
        all.push(deed);
    }
    all
}

fn template(tag: &str, grace_seconds: i64) -> Value {
    json!({
        "metadata": {"labels": {"app": ROLLOUT.1}},
        "spec": {
            "terminationGracePeriodSeconds": grace_seconds,
            "containers": [{"name": "app", "image": format!("example.local/web:{tag}")}],
        },
    })
}

/// First the creation, last the word that must come true.
fn deeds(rng: &mut fastrand::Rng, last: Behaviour) -> Vec<Deed> {
    let count = rng.u32(0..7);
    let mut deeds = vec![Deed { pause: pause(rng), act: Act::Create }];
    let mut tags = vec![];
    for number in 1..=count {
        let act = act(rng, number, &mut tags);
        deeds.push(Deed { pause: pause(rng), act });
    }
    deeds.push(Deed { pause: pause(rng), act: Act::LastWord(last.tag(count + 1)) });
    deeds
}

/// The same deeds, and pins between the first and the last.
fn with_pins(rng: &mut fastrand::Rng, deeds: Vec<Deed>) -> Vec<Deed> {
    let mut all = Vec::new();
    let last = deeds.len() - 1;
    for (number, deed) in deeds.into_iter().enumerate() {
        for _ in 0..if number == 0 { 0 } else { rng.u8(0..=if number == last { 2 } else { 1 }) } {
            let first = rng.i32(0..INSTANCES_MAX as i32);
            let last = first + rng.i32(0..3);
            let differs =
                rng.bool().then(|| draw(rng, &[GOOD[0], GOOD[0], GOOD[2], BAD[0], BAD[2]]).tag(100 + number as u32));
            let act = if rng.u8(0..5) == 0 { Act::Unpin } else { Act::Pin(format!("{first}-{last}"), differs) };
            all.push(Deed { pause: pause(rng), act });
        }
        all.push(deed);
    }
    all
}

fn act(rng: &mut fastrand::Rng, number: u32, tags: &mut Vec<String>) -> Act {
    match rng.u8(0..32) {
        0..10 => {
            let behaviour = if rng.u8(0..10) < 6 { draw(rng, &GOOD) } else { draw(rng, &BAD) };
            tags.push(behaviour.tag(number));
            Act::Deploy(behaviour.tag(number))
        }
        10..15 => Act::Scale(rng.i32(0..=INSTANCES_MAX as i32)),
        15 => Act::Pause(true),
        16 => Act::Pause(false),
        17..19 => Act::Approve,
        19 => Act::Abort,
        20 => Act::Retry,
        21 | 22 => Act::Restart,
        23 | 24 => Act::Deploy(tags.first().cloned().unwrap_or_else(|| Behaviour::Good.tag(0))),
        25 | 26 => Act::WipeStatus,
        27 => Act::Recreate(Duration::from_millis(rng.u64(0..20_000)), rng.u8(0..3)),
        28 | 29 => Act::DeletePod,
        30 => Act::DeleteRevision,
        _ => draw(rng, &[Act::Relabel, Act::Orphan].each_ref()).clone(),
    }
}

fn pause(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(match rng.u8(0..3) {
        0 => rng.u64(0..3_000),
        1 => rng.u64(0..20_000),
        _ => rng.u64(0..60_000),
    })
}
