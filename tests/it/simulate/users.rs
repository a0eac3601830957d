//! People and their tools: what they ask for, and what they do to objects that are not theirs to touch.
use std::time::Duration;

use baton::{api::names::LABEL_HOOK, snapshot::Ranges};
use serde_json::{Value, json};

use super::{
    scenario::{ROLLOUT, Scenario},
    trace::Trace,
    versions::{Behaviour, VERSION},
};
use crate::fake_apiserver::{
    actor::Actor,
    delete::{DeleteOptions, Propagation},
    kinds::{CONTROLLER_REVISIONS, PODS, ROLLOUTS, SERVICES},
    object::Object,
};

/// Something a user does.
#[derive(Clone, Debug)]
pub enum Act {
    Create,
    /// A version, by tag.
    Deploy(String),
    Scale(i32),
    Pause(bool),
    /// All pauses of the run that is on.
    Approve,
    /// The pause that it waits at, or comes to next.
    ApproveBatch,
    /// The run that is on.
    Abort,
    Retry,
    Restart,
    WipeStatus,
    /// Pins these instances to some revision; or to one that differs from it in the version.
    Pin(String, Option<String>),
    /// Takes back all pins.
    Unpin,
    /// Has the Services select Pods of any revision.
    TakeKey,
    /// Another strategy, or other Services.
    Strategy(Value),
    /// Deletes the Rollout (in the background, its Pods first, or leaving them), and creates it again after this time.
    Recreate(Duration, u8),
    DeletePod,
    DeleteRevision,
    /// Takes a Pod out of the operator's hands by a label.
    Relabel,
    /// The same by the owner reference.
    Orphan,
    /// A version, with everything taken back that could hold it; pins of other instances may stay.
    LastWord(String),
}

/// An act, and how long its user thinks before.
#[derive(Clone, Debug)]
pub struct Deed {
    pub pause: Duration,
    pub act: Act,
}

/// Longest time that a patient user waits.
const PATIENCE: Duration = Duration::from_mins(5);

/// Somebody at a keyboard.
pub struct User {
    pub actor: Actor,
    pub trace: Trace,
    pub clock: baton::operator::clock::Clock,
    pub rng: fastrand::Rng,
}

impl User {
    /// Does everything in order; returns after the last word.
    pub async fn live(mut self, scenario: &Scenario) {
        for (number, deed) in scenario.deeds.iter().enumerate() {
            if scenario.is_patient && number > 0 {
                let _ = tokio::time::timeout(PATIENCE, self.settled()).await;
            }
            tokio::time::sleep(deed.pause).await;
            self.trace.say("user", format_args!("{:?}", deed.act));
            self.act(&deed.act, scenario).await;
        }
    }

    async fn settled(&self) {
        while !self.rollout().is_some_and(|rollout| is_settled(&rollout)) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn rollout(&self) -> Option<std::sync::Arc<Object>> {
        self.actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1)
    }

    fn edit(&self, edit: impl FnMut(&mut Value)) {
        if let Err(refusal) = self.actor.edit(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1, edit) {
            self.trace.say("user", format_args!("is refused: {}", refusal.message));
        }
    }

    async fn act(&mut self, act: &Act, scenario: &Scenario) {
        let run = self.rollout().and_then(|rollout| rollout["status"]["run"].as_i64()).unwrap_or(1).max(1);
        // What is asked for counts by the user's clock, which is right; creationTimestamps are whole seconds.
        let now = self.clock.now();
        match act {
            Act::Create => {
                self.create_services(scenario);
                let created = self.actor.create(&ROLLOUTS, ROLLOUT.0, scenario.rollout.clone());
                created.expect("a Rollout as a user writes it");
            }
            Act::Deploy(tag) => self.edit(|rollout| deploy(rollout, tag)),
            Act::Scale(replicas) => self.edit(|rollout| rollout["spec"]["replicas"] = json!(replicas)),
            Act::Pause(is) => self.edit(|rollout| rollout["spec"]["paused"] = json!(is)),
            Act::Approve => self.edit(|rollout| rollout["spec"]["approve"] = json!({"run": run, "batch": -1})),
            Act::ApproveBatch => self.edit(|rollout| approve_batch(rollout, run)),
            Act::Abort => self.edit(|rollout| rollout["spec"]["abort"] = json!({"run": run})),
            Act::Retry => self.edit(|rollout| rollout["spec"]["retryAt"] = json!(now.to_string())),
            Act::Restart => self.edit(|rollout| rollout["spec"]["restartAt"] = json!(now.to_string())),
            Act::WipeStatus => {
                let wipe = |rollout: &mut Value| rollout["status"] = json!({});
                let _ = self.actor.edit_status(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1, wipe);
            }
            Act::Pin(instances, differs) => self.pin(instances, differs.as_deref()),
            Act::Unpin => self.edit(|rollout| rollout["spec"]["pins"] = json!([])),
            Act::TakeKey => {
                let take = |service: &mut Value| service["spec"]["selector"] = json!({"app": ROLLOUT.1});
                for service in scenario.services() {
                    let _ = self.actor.edit(&SERVICES, ROLLOUT.0, service, take);
                }
            }
            Act::Strategy(strategy) => self.edit(|rollout| rollout["spec"]["strategy"] = strategy.clone()),
            Act::Recreate(pause, how) => self.recreate(*pause, *how).await,
            Act::DeletePod => self.touch_pod(|user, pod| {
                let _ = user.actor.delete(&PODS, ROLLOUT.0, pod.name(), &DeleteOptions::default());
            }),
            Act::DeleteRevision => self.delete_revision(),
            Act::Relabel => self.touch_pod(|user, pod| {
                let take = |pod: &mut Value| pod["metadata"]["labels"] = json!({"app": "mine"});
                let _ = user.actor.edit(&PODS, ROLLOUT.0, pod.name(), take);
            }),
            Act::Orphan => self.touch_pod(|user, pod| {
                let take = |pod: &mut Value| pod["metadata"]["ownerReferences"] = json!([]);
                let _ = user.actor.edit(&PODS, ROLLOUT.0, pod.name(), take);
            }),
            Act::LastWord(tag) => {
                let pins = if scenario.keeps_pins { self.pins_that_work() } else { Vec::new() };
                self.edit(|rollout| {
                    deploy(rollout, tag);
                    rollout["spec"]["paused"] = json!(false);
                    for answer in ["abort", "approve", "pins"] {
                        rollout["spec"].as_object_mut().expect("a spec").remove(answer);
                    }
                    if !pins.is_empty() {
                        rollout["spec"]["pins"] = json!(pins);
                    }
                });
            }
        }
    }

    /// Those that the Rollout names at any time.
    fn create_services(&self, scenario: &Scenario) {
        for name in scenario.services() {
            let ports = json!([{"port": 80}]);
            let spec = json!({"selector": {"app": ROLLOUT.1}, "ports": ports});
            let service =
                json!({"metadata": {"name": name, "annotations": {"baton.dev/rollout": ROLLOUT.1}}, "spec": spec});
            self.actor.create(&SERVICES, ROLLOUT.0, service).expect("a Service as a user writes it");
        }
    }

    /// On top of those that are there.
    fn pin(&mut self, instances: &str, differs: Option<&str>) {
        let revisions = self.actor.list(&CONTROLLER_REVISIONS, ROLLOUT.0);
        let drawn = self.rng.usize(..);
        let Some(revision) = revisions.get(drawn % revisions.len().max(1)).map(|revision| revision.name()) else {
            return;
        };
        let pin = match differs {
            None => json!({"instances": instances, "revision": revision}),
            Some(tag) => {
                let images = json!({"app": format!("example.local/web:{tag}")});
                json!({"instances": instances, "base": revision, "images": images})
            }
        };
        self.edit(|rollout| {
            let mut pins = rollout["spec"]["pins"].as_array().cloned().unwrap_or_default();
            pins.insert(0, pin.clone());
            rollout["spec"]["pins"] = Value::Array(pins);
        });
    }

    /// Those that let a run complete, and do so themselves.
    fn pins_that_work(&self) -> Vec<Value> {
        let Some(rollout) = self.rollout() else { return Vec::new() };
        let works = |pin: &&Value| {
            let versions = versions_of_pin(&self.actor, &rollout, pin);
            versions.is_some_and(|versions| versions.iter().all(|version| Behaviour::of_image(version).works()))
                && !Ranges::parse(pin["instances"].as_str().unwrap_or_default()).0.contains(&0)
        };
        rollout["spec"]["pins"].as_array().into_iter().flatten().filter(works).cloned().collect()
    }

    /// Some Pod with the Rollout's label.
    fn touch_pod(&mut self, touch: impl FnOnce(&Self, &Object)) {
        let mut pods = self.actor.list(&PODS, ROLLOUT.0);
        pods.retain(|pod| pod["metadata"]["labels"][LABEL_HOOK].is_null());
        let drawn = self.rng.usize(..);
        if !pods.is_empty() {
            let pod = pods[drawn % pods.len()].clone();
            self.trace.say("user", format_args!("takes {}", pod.name()));
            touch(self, &pod);
        }
    }

    fn delete_revision(&mut self) {
        let revisions = self.actor.list(&CONTROLLER_REVISIONS, ROLLOUT.0);
        let drawn = self.rng.usize(..);
        if !revisions.is_empty() {
            let name = revisions[drawn % revisions.len()].name();
            self.trace.say("user", format_args!("takes {name}"));
            let _ = self.actor.delete(&CONTROLLER_REVISIONS, ROLLOUT.0, name, &DeleteOptions::default());
        }
    }

    /// With the spec that it has now.
    async fn recreate(&mut self, pause: Duration, how: u8) {
        let Some(before) = self.rollout() else { return };
        let propagation = [Propagation::Background, Propagation::Foreground, Propagation::Orphan][usize::from(how)];
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let _ = self.actor.delete(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1, &options);
        tokio::time::sleep(pause).await;
        while self.rollout().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let again = json!({"metadata": {"name": ROLLOUT.1}, "spec": before["spec"]});
        self.actor.create(&ROLLOUTS, ROLLOUT.0, again).expect("the Rollout again");
    }
}

fn approve_batch(rollout: &mut Value, run: i64) {
    let batch = rollout["status"]["batch"]["index"].as_i64().unwrap_or_default();
    rollout["spec"]["approve"] = json!({"run": run, "batch": batch, "by": "ann", "reason": "looks good"});
}

/// Approves whatever waits for it, until dropped.
pub async fn approve_everything(actor: Actor, is_one_by_one: bool) {
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let Some(rollout) = actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1) else { continue };
        let run = rollout["status"]["run"].as_i64().unwrap_or(1).max(1);
        if reason(&rollout, "Ready") == Some("AwaitingApproval") {
            let approve = |rollout: &mut Value| {
                if is_one_by_one {
                    approve_batch(rollout, run);
                } else {
                    rollout["spec"]["approve"] = json!({"run": run, "batch": -1});
                }
            };
            let _ = actor.edit(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1, approve);
        }
    }
}

/// What a pin comes to; None: its revision is not there.
pub fn image_of_pin(actor: &Actor, rollout: &Object, pin: &Value) -> Option<String> {
    let [told, image] = versions_of_pin(actor, rollout, pin)?;
    Some(if told.is_empty() { image } else { told })
}

/// The version that applications of a pin are told, if they are, and the image that they start with. Both decide how they behave.
fn versions_of_pin(actor: &Actor, rollout: &Object, pin: &Value) -> Option<[String; 2]> {
    let name = pin["revision"].as_str().or(pin["base"].as_str())?;
    let revision = actor.get(&CONTROLLER_REVISIONS, ROLLOUT.0, name)?;
    let is_ours = revision["metadata"]["ownerReferences"][0]["uid"] == rollout.uid() && !revision.is_terminating();
    let template = &revision["data"]["template"];
    let told = template["metadata"]["annotations"][VERSION].as_str().unwrap_or_default();
    let image = pin["images"]["app"].as_str().or(template["spec"]["containers"][0]["image"].as_str())?;
    is_ours.then(|| [told, image].map(str::to_owned))
}

/// Where applications are told of versions, another image comes with each third.
fn deploy(rollout: &mut Value, tag: &str) {
    let version = json!(format!("example.local/web:{tag}"));
    let number: u32 = tag.split('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let template = &mut rollout["spec"]["template"];
    let container = &mut template["spec"]["containers"][0];
    if container["resources"].is_object() {
        container["resources"] = json!({"requests": {"cpu": (number % 3 + 1).to_string()}});
    }
    if !template["metadata"]["annotations"][VERSION].is_string() {
        template["spec"]["containers"][0]["image"] = version;
        return;
    }
    if number % 3 == 2 {
        template["spec"]["containers"][0]["image"] =
            json!(format!("example.local/web:{}", Behaviour::Good.tag(number)));
    }
    template["metadata"]["annotations"][VERSION] = version;
}

/// The reason of a condition.
pub fn reason<'a>(rollout: &'a Value, type_: &str) -> Option<&'a str> {
    condition(rollout, type_)?["reason"].as_str()
}

fn condition<'a>(rollout: &'a Value, type_: &str) -> Option<&'a Value> {
    rollout["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

/// Nothing more happens unless somebody does something.
pub fn is_settled(rollout: &Value) -> bool {
    let is_true = |type_: &str| condition(rollout, type_).is_some_and(|condition| condition["status"] == "True");
    let is_held = reason(rollout, "Ready") == Some("AwaitingApproval")
        || (reason(rollout, "Ready") == Some("Paused") && rollout["spec"]["paused"] == true);
    rollout["status"]["observedGeneration"] == rollout["metadata"]["generation"]
        && (is_true("Ready") || is_true("Stalled") || is_held)
}
