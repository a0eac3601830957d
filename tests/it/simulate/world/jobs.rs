//! The Job controller and the Pods of Jobs: each Job gets a Pod a while after it was made, the Pod ends, and the Job says so a
//! while after that. What a hook comes to, its name says: `flaky` fails at its first attempt.
use baton::api::names::{LABEL_ATTEMPT, LABEL_HOOK};
use serde_json::{Value, json};

use super::{Due, World};
use crate::fake_apiserver::{
    Commit,
    kinds::{JOBS, PODS},
    object::{Object, whole_seconds},
};

/// How a hook's Pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ends,
    Fails,
    /// It is evicted.
    Disrupted,
}

/// It is the Pod of a hook.
pub(super) fn is_hook(object: &Object) -> bool {
    object["metadata"]["labels"][LABEL_HOOK].is_string() && object["kind"] == "Pod"
}

impl World {
    pub(super) fn job_written(&mut self, commit: &Commit) {
        let object = &commit.change.object;
        if commit.change.before.is_none() && !commit.change.is_gone {
            self.after_millis(50, 3_000, Due::JobPod(object.name().to_owned(), object.uid().to_owned()));
        }
    }

    pub(super) fn hook_pod_written(&mut self, commit: &Commit) {
        let object = &commit.change.object;
        if object.is_terminating() && !commit.change.is_gone {
            self.after_millis(10, 2_000, Due::HookGone(object.name().to_owned(), object.uid().to_owned()));
        } else if commit.change.before.is_none() {
            let most = if self.rng.u8(0..5) == 0 { 60_000 } else { 6_000 };
            self.after_millis(200, most, Due::HookEnd(object.name().to_owned(), object.uid().to_owned()));
        }
    }

    /// The Job controller makes the Pod of a Job.
    pub(super) fn make_job_pod(&mut self, name: &str, uid: &str) {
        let Some(job) = self.job(name, uid) else { return };
        let template = &job["spec"]["template"];
        let pod = json!({
            "metadata": {
                "name": format!("{name}-{}", self.rng.u32(10_000..99_999)),
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid,
                    "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": template["spec"],
        });
        if self.kubelet.create(&PODS, job.namespace(), pod).is_err() {
            self.after_millis(1_000, 3_000, Due::JobPod(name.to_owned(), uid.to_owned()));
        }
    }

    fn job(&self, name: &str, uid: &str) -> Option<std::sync::Arc<Object>> {
        let jobs = self.kubelet.list(&JOBS, "");
        jobs.into_iter().find(|job| job.name() == name && job.uid() == uid && !job.is_terminating())
    }

    fn hook_pod(&self, name: &str, uid: &str) -> Option<std::sync::Arc<Object>> {
        self.kubelet.list(&PODS, "").into_iter().find(|pod| pod.name() == name && pod.uid() == uid)
    }

    pub(super) fn end_hook(&mut self, name: &str, uid: &str) {
        let Some(pod) = self.hook_pod(name, uid).filter(|pod| !pod.is_terminating()) else { return };
        let (job, job_uid) = {
            let owner = &pod["metadata"]["ownerReferences"][0];
            (
                owner["name"].as_str().unwrap_or_default().to_owned(),
                owner["uid"].as_str().unwrap_or_default().to_owned(),
            )
        };
        let Some(owner) = self.job(&job, &job_uid) else { return };
        let fate = self.fate(&owner);
        let now = json!(whole_seconds(self.clock.now()));
        let _ = self.kubelet.edit_status(&PODS, pod.namespace(), name, |pod| tell(pod, fate, &now));
        self.after_millis(10, 4_000, Due::JobEnd(job, job_uid, fate == Fate::Ends));
    }

    fn fate(&mut self, job: &Object) -> Fate {
        let label = |name: &str| job["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
        let (hook, attempt) = (label(LABEL_HOOK), label(LABEL_ATTEMPT));
        match hook.as_str() {
            "flaky" if attempt == "1" => Fate::Fails,
            _ if attempt == "1" && self.rng.u8(0..12) == 0 => Fate::Disrupted,
            _ => Fate::Ends,
        }
    }

    pub(super) fn end_job(&mut self, name: &str, uid: &str, is_well: bool) {
        let Some(job) = self.job(name, uid) else { return };
        let now = json!(whole_seconds(self.clock.now()));
        let (type_, reason) =
            if is_well { ("Complete", "CompletionsReached") } else { ("Failed", "BackoffLimitExceeded") };
        let _ = self.kubelet.edit_status(&JOBS, job.namespace(), name, |job| {
            let condition = json!({"type": type_, "status": "True", "reason": reason, "lastTransitionTime": now});
            job["status"]["conditions"] = json!([condition]);
        });
    }

    pub(super) fn finish_hook(&mut self, name: &str, uid: &str) {
        if let Some(pod) = self.hook_pod(name, uid) {
            let _ = self.kubelet.finish_pod(pod.namespace(), name, uid);
        }
    }
}

/// Writes how a hook's Pod has ended.
fn tell(pod: &mut Value, fate: Fate, now: &Value) {
    let (phase, code) = if fate == Fate::Ends { ("Succeeded", 0) } else { ("Failed", 3) };
    let message = if fate == Fate::Ends { "b1" } else { "no" };
    pod["status"]["phase"] = json!(phase);
    pod["status"]["containerStatuses"] = json!([{
        "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message, "startedAt": now,
            "finishedAt": now, "containerID": "sim://1"}},
    }]);
    if fate == Fate::Disrupted {
        pod["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True",
            "reason": "EvictionByEvictionAPI", "lastTransitionTime": now}]);
    }
}
