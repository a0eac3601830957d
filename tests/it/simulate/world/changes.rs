//! What a kubelet does with a Pod that is changed: it sees that late. Another image it runs in another container. Other resources
//! it gives to what runs, or by a start anew, where the container's policy is that; or it has no room for them.
use serde_json::{Value, json};

use super::{Due, World, report::Seen};
use crate::{
    fake_apiserver::{
        kinds::PODS,
        object::{Object, whole_seconds},
    },
    simulate::versions::{Behaviour, life},
};

/// On Pods that may be told that their node never has room for more.
pub const MAY_BE_INFEASIBLE: &str = "simulation/may-be-infeasible";

pub(super) fn image_of(pod: &Object) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

/// What a Pod's specification requests.
pub(super) fn cpu_of(pod: &Object) -> &str {
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str().unwrap_or_default()
}

/// Writes what the kubelet says of a Pod's resources.
pub(super) fn tell_resources(pod: &mut Value, seen: &Seen) {
    if seen.cpu.is_empty() {
        return;
    }
    if pod["status"]["containerStatuses"][0].is_object() {
        pod["status"]["containerStatuses"][0]["resources"] = json!({"requests": {"cpu": seen.cpu}});
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    conditions.retain(|condition| condition["type"] != "PodResizePending");
    if let Some((reason, since)) = &seen.held {
        conditions.push(json!({
            "type": "PodResizePending", "status": "True", "reason": reason, "message": "no room",
            "lastTransitionTime": since, "observedGeneration": seen.generation,
        }));
    }
}

impl World {
    /// The kubelet sees another image: it ends the container that it has, and may tell of the new spec before.
    pub(super) fn see_spec(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid).filter(|pod| !pod.is_ending) else { return };
        if self.is_silent(pod) {
            return self.after_millis(500, 1_500, Due::Spec(uid.to_owned()));
        }
        let Some(object) = self.kubelet.get(&PODS, &pod.namespace, &pod.name).filter(|object| object.uid() == uid)
        else {
            return;
        };
        let image = image_of(&object).to_owned();
        let is_other = image != pod.image;
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.crashes = Behaviour::of_image(&image) == Behaviour::Crash;
            pod.image = image;
        }
        if is_other {
            self.after_millis(1, 3_000, Due::Exchange(uid.to_owned()));
        }
        // Before it has come to anything its first status tells of this.
        if object["status"]["startTime"].is_string() && (!is_other || self.rng.bool()) {
            self.tell(uid, None);
        }
    }

    pub(super) fn exchange(&mut self, uid: &str) {
        if self.pods.get(uid).is_none_or(|pod| pod.is_ending) || self.ends_for_exchange(uid) {
            return;
        }
        let had_run = self.has_container(uid);
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let had_run = had_run || pod.seen.container > 0;
        pod.seen.exchanged += u32::from(had_run);
        (pod.runs, pod.settled, pod.life) = (false, None, pod.life + 1);
        pod.starting.clone_from(&pod.image);
        pod.stages = life(Behaviour::of_image(&pod.image), &mut self.rng).into_iter();
        if pod.node.is_some() {
            self.next_stage(uid);
        }
    }

    /// Somebody has written other resources.
    pub(super) fn watch_resources(&mut self, before: &Object, object: &Object) {
        if cpu_of(before) != cpu_of(object) {
            self.after_millis(1, 1_500, Due::Resources(object.uid().to_owned()));
        }
    }

    /// The kubelet sees them.
    pub(super) fn see_resources(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid).filter(|pod| !pod.is_ending) else { return };
        if self.is_silent(pod) {
            return self.after_millis(500, 1_500, Due::Resources(uid.to_owned()));
        }
        let object = self.kubelet.get(&PODS, &pod.namespace, &pod.name).filter(|object| object.uid() == uid);
        let Some(object) = object.filter(|object| cpu_of(object) != pod.cpu) else { return };
        let may_never = object["metadata"]["annotations"][MAY_BE_INFEASIBLE].is_string();
        let (cpu, now) = (cpu_of(&object).to_owned(), json!(whole_seconds(self.now_for(uid))));
        let held = match self.rng.u8(0..10) {
            0 if may_never => Some("Infeasible"),
            1 | 2 => Some("Deferred"),
            _ => None,
        };
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.cpu = cpu;
            // What it has is enough for less, and is given back at once.
            pod.seen.held = held.filter(|_| pod.cpu != pod.seen.cpu).map(|reason| (reason, now));
        }
        if held == Some("Deferred") {
            self.after_millis(1_000, if may_never { 120_000 } else { 40_000 }, Due::Room(uid.to_owned()));
        }
        self.give(uid);
    }

    /// There is room by now.
    pub(super) fn make_room(&mut self, uid: &str) {
        if let Some(pod) =
            self.pods.get_mut(uid).filter(|pod| pod.seen.held.as_ref().is_some_and(|(why, _)| *why == "Deferred"))
        {
            pod.seen.held = None;
            self.give(uid);
        }
    }

    fn give(&mut self, uid: &str) {
        let Some(pod) = self.pods.get_mut(uid).filter(|pod| !pod.is_ending) else { return };
        let object = self.kubelet.get(&PODS, &pod.namespace, &pod.name);
        let policy = object.map(|object| object["spec"]["containers"][0]["resizePolicy"][0]["restartPolicy"].clone());
        let starts_anew = policy.is_some_and(|policy| policy == "RestartContainer");
        let is_due = pod.seen.held.is_none() && pod.seen.cpu != pod.cpu;
        if is_due && pod.runs && starts_anew {
            self.after_millis(1, 3_000, Due::Exchange(uid.to_owned()));
        } else if is_due {
            pod.seen.cpu.clone_from(&pod.cpu);
        }
        self.tell(uid, None);
    }
}
