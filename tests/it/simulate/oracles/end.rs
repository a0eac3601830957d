//! What must hold at the end, when nothing goes wrong any more.
use std::{collections::BTreeMap, sync::Arc};

use baton::{
    api::names::{ANNOTATION_IN_PLACE, LABEL_INSTANCE, LABEL_REVISION},
    snapshot::{PodPhase, Ranges},
};
use serde_json::Value;

use crate::{
    fake_apiserver::{
        ApiServer,
        kinds::{CONTROLLER_REVISIONS, PODS, ROLLOUTS, SERVICES},
        object::Object,
    },
    simulate::{
        oracles::story,
        scenario::{ROLLOUT, Scenario},
        users::{image_of_pin, is_settled, reason},
        versions::{Behaviour, version_of},
    },
};

/// What is added to the version of a Pod that is not Ready.
const NOT_READY: &str = " (not ready)";

/// The end of a history, without what depends on its course: uids, resourceVersions, times, attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Reason of Ready.
    pub reason: String,
    /// Types and statuses of the conditions.
    pub conditions: Vec<String>,
    /// Image by slot, or what else tells the version, of Pods that are Ready.
    pub images: BTreeMap<i32, Vec<String>>,
}

/// What is there.
pub fn of(server: &ApiServer) -> Option<End> {
    let actor = server.actor("judge");
    let rollout = actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1)?;
    let mut end = End { reason: reason(&rollout, "Ready").unwrap_or_default().to_owned(), ..End::default() };
    // Whether the version had completed before the last instance went is a matter of the course of things.
    if end.reason == "Unproven" && rollout["spec"]["replicas"] == 0 {
        "Complete".clone_into(&mut end.reason);
    }
    for condition in rollout["status"]["conditions"].as_array().into_iter().flatten() {
        // Whether a version of the past had time to fail, and a dry run an answer, is a matter of its course.
        if condition["type"] == "Degraded" || condition["type"] == "TemplateValid" {
            continue;
        }
        end.conditions.push(format!("{}={}", text(&condition["type"]), text(&condition["status"])));
    }
    for object in actor.list(&PODS, ROLLOUT.0) {
        let Some(pod) = story::pod(&object).filter(|_| story::owner(&object) == Some(rollout.uid())) else { continue };
        if pod.is_live() && pod.phase != PodPhase::Failed && object["metadata"]["labels"][LABEL_INSTANCE].is_string() {
            let image = version_of(object.value());
            let state = if pod.is_ready() { "" } else { NOT_READY };
            end.images.entry(pod.slot).or_default().push(format!("{image}{state}"));
        }
    }
    Some(end)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A Pod of ours has these resources by its specification and by its kubelet's word, and no note of them.
fn has_cpu(pod: &Object, resources: &Value) -> bool {
    let is_counted = pod["metadata"]["labels"][LABEL_INSTANCE].is_string();
    let note = text(&pod["metadata"]["annotations"][ANNOTATION_IN_PLACE]);
    let told = [&pod["spec"]["containers"][0]["resources"], &pod["status"]["containerStatuses"][0]["resources"]];
    !is_counted || resources.is_null() || (told == [resources; 2] && !note.contains("\"resources\""))
}

/// Whether the Rollout has come to rest. Finished Pods of its own must have been cleared away.
pub fn is_at_rest(server: &ApiServer) -> bool {
    let actor = server.actor("judge");
    let Some(rollout) = actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1) else { return false };
    let is_to_be_cleared = |pod: &Arc<Object>| {
        story::owner(pod) == Some(rollout.uid())
            && pod["metadata"]["labels"][LABEL_INSTANCE].is_string()
            && ["Failed", "Succeeded"].contains(&text(&pod["status"]["phase"]))
    };
    // With strategy BlueGreen the old set stays for a while; where the new one has failed and nothing goes back, for ever.
    let is_there = |end: &End| ["Complete", "RolledBack", "Aborted"].contains(&end.reason.as_str());
    let has_two_sets =
        || of(server).filter(is_there).is_some_and(|end| end.images.values().any(|images| images.len() > 1));
    is_settled(&rollout) && !actor.list(&PODS, ROLLOUT.0).iter().any(is_to_be_cleared) && !has_two_sets()
}

/// Instances that do not work at the stable version (of the last batch, where status was lost) have used up what may be
/// unavailable, and no Pod may stand beside another: it is given up, as documented.
pub fn is_used_up(server: &ApiServer, end: &End) -> bool {
    let actor = server.actor("judge");
    let Some(rollout) = actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1) else { return false };
    let stable = actor.get(&CONTROLLER_REVISIONS, ROLLOUT.0, text(&rollout["status"]["currentRevision"]));
    let Some(stable) = stable.map(|stable| version_of(&stable["data"]["template"]).to_owned()) else { return false };
    let is_broken = |image: &String| *image == format!("{stable}{NOT_READY}");
    let strategy = &rollout["spec"]["strategy"];
    let never_surges =
        strategy["maxSurge"] == 0 || ["InPlaceIfPossible", "InPlaceOnly"].contains(&text(&strategy["update"]));
    !Behaviour::of_image(&stable).works()
        && never_surges
        && ["ProgressDeadlineExceeded", "RollbackStuck"].contains(&&*end.reason)
        && end.images.values().flatten().any(is_broken)
}

/// Whether the end is one that the last word explains.
pub fn explain(server: &ApiServer, scenario: &Scenario) -> Result<(), String> {
    let Some(end) = of(server) else { return Err("there is no Rollout".into()) };
    let actor = server.actor("judge");
    let rollout = actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1).ok_or("there is no Rollout")?;
    let replicas = rollout["spec"]["replicas"].as_i64().unwrap_or_default() as i32;
    let named = &rollout["spec"]["strategy"]["blueGreen"]["activeService"];
    // Which it has named before, status alone remembers.
    let has_key =
        |service: &&Arc<Object>| !scenario.forgets() && service["spec"]["selector"][LABEL_REVISION].is_string();
    if let Some(left) = actor.list(&SERVICES, ROLLOUT.0).iter().filter(has_key).find(|service| *named != service.name())
    {
        return Err(format!(
            "Service {}, which spec.strategy names no more: {}",
            left.name(),
            left["spec"]["selector"]
        ));
    }
    let wanted = version_of(&rollout["spec"]["template"]);
    let pin_of = |slot: i32| {
        let mut pins = rollout["spec"]["pins"].as_array().into_iter().flatten();
        pins.find(|pin| Ranges::parse(text(&pin["instances"])).0.contains(&slot))
    };
    // Of a revision that an operator had begun to clear away before it saw the pin, what is there stays.
    let is_elsewhere =
        |pin: &Value, images: &[String]| image_of_pin(&actor, &rollout, pin).is_some_and(|image| images != [image]);
    let mut pinned = end.images.iter().filter_map(|(slot, images)| Some((*slot, pin_of(*slot)?, images)));
    // Instances of a version that does not work may have used up what there is.
    let first = pinned.find(|(_, pin, images)| is_elsewhere(pin, images)).filter(|_| scenario.last.works());
    if let Some((slot, pin, images)) = first {
        return Err(format!("instance {slot} runs {images:?}, and is pinned by {pin}"));
    }
    let runs = |image: &str| {
        let slots: Vec<i32> = end.images.keys().copied().collect();
        let mut others = end.images.iter().filter(|(slot, _)| pin_of(**slot).is_none());
        slots == (0..replicas).collect::<Vec<_>>() && others.all(|(_, images)| images.as_slice() == [image])
    };
    if scenario.last.works() || replicas == 0 {
        let is_complete = end.reason == "Complete" && runs(wanted);
        let cpu = &rollout["spec"]["template"]["spec"]["containers"][0]["resources"];
        if let Some(pod) = actor
            .list(&PODS, ROLLOUT.0)
            .iter()
            .filter(|pod| is_complete && story::owner(pod) == Some(rollout.uid()))
            .filter(|pod| story::pod(pod).is_none_or(|pod| pin_of(pod.slot).is_none()))
            .find(|pod| !has_cpu(pod, cpu))
        {
            return Err(format!("{} has not got {cpu}: {}", pod.name(), pod.value()));
        }
        return (is_complete || is_used_up(server, &end))
            .then_some(())
            .ok_or_else(|| format!("{wanted} is not complete: {end:?}"));
    }
    // What a user deletes of it, status still remembers.
    let has_completed = rollout["status"]["currentRevision"].is_string()
        || actor.list(&CONTROLLER_REVISIONS, ROLLOUT.0).iter().any(|revision| {
            story::owner(revision) == Some(rollout.uid())
                && revision["metadata"]["annotations"]["baton.dev/completed-at"].is_string()
        });
    let stable = text(&rollout["status"]["currentRevision"]);
    let pauses = rollout["spec"]["strategy"]["onFailure"] == "Pause";
    let works = |image: &String| Behaviour::of_image(image.trim_end_matches(NOT_READY)).works();
    let is_of_what_works = end.images.values().flatten().all(works);
    let is_explained = match end.reason.as_str() {
        "FirstRevisionFailed" => !has_completed,
        "FailureThreshold" | "ProgressDeadlineExceeded" => has_completed && pauses,
        // A version that does not work fails in every instance.
        "PartlyRolledBack" => {
            has_completed && rollout["spec"]["strategy"]["onFailure"] == "RollbackFailed" && is_of_what_works
        }
        "RolledBack" => has_completed && !pauses && is_of_what_works,
        // A user has deleted what there was to go back to, or it was available for just as long as it took to complete.
        "RollbackStuck" if has_completed && !pauses && !stable.is_empty() => actor
            .get(&CONTROLLER_REVISIONS, ROLLOUT.0, stable)
            .is_none_or(|revision| !Behaviour::of_image(version_of(&revision["data"]["template"])).works()),
        _ => false,
    };
    is_explained.then_some(()).ok_or_else(|| format!("{wanted} ends unexplained: {end:?}"))
}
