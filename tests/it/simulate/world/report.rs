//! What a kubelet writes into a Pod's status.
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    fake_apiserver::object::whole_seconds,
    simulate::{applications::address_of, versions::Stage},
};

/// What a kubelet says of a Pod beside the stage that it has come to.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The generation of the spec that it goes by.
    pub generation: i64,
    /// The image of the newest container.
    pub image: String,
    /// Number of the newest container; 0 where they are not counted.
    pub container: u32,
    /// Containers that were ended to give the Pod another image, or other resources.
    pub exchanged: u32,
    /// The cpu that the container has; empty where none is asked for.
    pub cpu: String,
    /// Why it has not got another, and since when.
    pub held: Option<(&'static str, Value)>,
}

/// Writes that a Pod has come to this stage, as of `now` by the node's clock.
pub fn report(pod: &mut Value, stage: Stage, seen: &Seen, now: Timestamp) {
    let now = json!(whole_seconds(now));
    let ready = stage == Stage::Ready;
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    let address = address_of(pod["metadata"]["uid"].as_str().unwrap_or_default());
    let status = &mut pod["status"];
    status["podIP"] = json!(address);
    status["observedGeneration"] = json!(seen.generation);
    if status["startTime"].is_null() {
        status["startTime"] = now.clone();
        condition(status, "Initialized", true, &now);
    }
    condition(status, "ContainersReady", ready, &now);
    condition(status, "Ready", ready, &now);
    let is_running = matches!(stage, Stage::Running | Stage::Ready);
    status["phase"] = if is_running || status["phase"] == "Running" { json!("Running") } else { json!("Pending") };
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error", "startedAt": now, "finishedAt": now, "containerID": "sim://1"}});
    let before = status["containerStatuses"][0].clone();
    let (mut count, mut last) = (before["restartCount"].as_i64().unwrap_or_default(), before["lastState"].clone());
    let shown = match stage {
        Stage::Creating => json!({"waiting": {"reason": "ContainerCreating"}}),
        Stage::Waiting(reason) => json!({"waiting": {"reason": reason, "message": format!("no image {image}")}}),
        Stage::Running | Stage::Ready if before["state"]["running"].is_object() => before["state"].clone(),
        Stage::Running | Stage::Ready => json!({"running": {"startedAt": now}}),
        Stage::Crashed(_) => ended(1),
        Stage::BackOff(times) => {
            count = i64::from(times) + i64::from(seen.exchanged);
            last = ended(1);
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}})
        }
    };
    if last.is_null() {
        last = json!({});
    }
    count = count.max(i64::from(seen.exchanged));
    let mut container = json!({
        "name": "app", "image": seen.image, "imageID": "", "ready": ready,
        "restartCount": count, "state": shown, "lastState": last,
    });
    if seen.container > 0 {
        container["containerID"] = json!(format!("sim://{}", seen.container));
    }
    status["containerStatuses"] = json!([container]);
}

/// Has Ready say what containers and gates say.
pub fn settle_gates(pod: &mut Value, now: Timestamp) {
    let gates: Vec<String> = pod["spec"]["readinessGates"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|gate| gate["conditionType"].as_str().unwrap_or_default().to_owned())
        .collect();
    let status = &mut pod["status"];
    let is_running = status["containerStatuses"][0]["ready"] == true;
    let is_true = |type_: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
    };
    let is_ready = is_running && gates.iter().all(|gate| is_true(gate));
    let now = json!(whole_seconds(now));
    condition(status, "ContainersReady", is_running, &now);
    condition(status, "Ready", is_ready, &now);
}

/// Writes that nothing of a Pod is ready, because its node is silent.
pub fn report_silence(pod: &mut Value, now: Timestamp) {
    condition(&mut pod["status"], "Ready", false, &json!(whole_seconds(now)));
}

/// Writes that the node has thrown a Pod out.
pub fn report_eviction(pod: &mut Value, now: Timestamp) {
    let now = json!(whole_seconds(now));
    pod["status"]["phase"] = json!("Failed");
    pod["status"]["reason"] = json!("Evicted");
    pod["status"]["message"] = json!("the node was low on memory");
    condition(&mut pod["status"], "ContainersReady", false, &now);
    condition(&mut pod["status"], "Ready", false, &now);
    pod["status"]["containerStatuses"] = json!([]);
}

/// The time of a condition moves only when its status does.
fn condition(status: &mut Value, type_: &str, is: bool, now: &Value) {
    let is = if is { "True" } else { "False" };
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|known| known["type"] == type_) {
        Some(known) if known["status"] == is => {}
        Some(known) => *known = json!({"type": type_, "status": is, "lastTransitionTime": now}),
        None => conditions.push(json!({"type": type_, "status": is, "lastTransitionTime": now})),
    }
}
