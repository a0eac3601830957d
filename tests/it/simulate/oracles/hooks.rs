//! O1, O2, O3, O5: hooks run once to success, one at a time, before what they come before, and nothing else counts as success.
use std::collections::{BTreeMap, BTreeSet};

use baton::api::{
    Rollout,
    hooks::HookPoint,
    names::{ANNOTATION_HOOK_KEY, ANNOTATION_POINT, LABEL_HOOK, LABEL_REVISION},
};

use super::story::owner;
use crate::fake_apiserver::{object::Object, store::Change};

/// What is known of the hooks of all Rollouts.
#[derive(Default)]
pub struct Hooks {
    /// By uid of the Rollout, and of the Job: what it is for, and whether it has ended.
    jobs: BTreeMap<String, BTreeMap<String, Known>>,
    /// Keys of hooks that have succeeded, by Job.
    succeeded: BTreeMap<String, String>,
    /// Names of Jobs that are Complete.
    complete: BTreeSet<String>,
}

struct Known {
    hook: String,
    point: String,
    revision: String,
    /// None: it has not ended; else whether it is Complete.
    end: Option<bool>,
}

impl Hooks {
    /// A Job was written: what is wrong with that.
    pub fn job_written(&mut self, change: &Change) -> Result<(), String> {
        let object = &change.object;
        let Some(rollout) = owner(object).map(str::to_owned) else { return Ok(()) };
        let jobs = self.jobs.entry(rollout).or_default();
        if change.is_gone {
            jobs.remove(object.uid());
            return Ok(());
        }
        let text = |place: &str, name: &str| object["metadata"][place][name].as_str().unwrap_or_default().to_owned();
        let known = Known {
            hook: text("labels", LABEL_HOOK),
            point: text("annotations", ANNOTATION_POINT),
            revision: text("labels", LABEL_REVISION),
            end: end_of(object),
        };
        if known.end.is_none()
            && let Some((_, other)) = jobs.iter().find(|(uid, job)| *uid != object.uid() && job.end.is_none())
        {
            return Err(format!("O3: {} is made while a Job of hook {} has not ended", object.name(), other.hook));
        }
        let key = text("annotations", ANNOTATION_HOOK_KEY);
        if known.end == Some(true) {
            self.complete.insert(object.name().to_owned());
            let first = self.succeeded.entry(key).or_insert_with(|| object.uid().to_owned());
            if first != object.uid() {
                return Err(format!("O1: hook {} at {} has succeeded twice", known.hook, known.point));
            }
        }
        jobs.insert(object.uid().to_owned(), known);
        Ok(())
    }

    /// O2: a Pod of a revision that has not been stable is made by an operator.
    pub fn pod_made(&self, uid: &str, rollout: &Rollout, revision: &str) -> Result<(), String> {
        let wanted = rollout.spec.hooks.iter().filter(|hook| hook.when == HookPoint::BeforeRollout);
        let none = BTreeMap::new();
        let jobs = self.jobs.get(uid).unwrap_or(&none);
        for hook in wanted {
            let is_it = |job: &&Known| job.hook == hook.name && job.revision == revision && job.end == Some(true);
            if !jobs.values().any(|job| is_it(&job)) {
                return Err(format!("O2: a Pod of {revision} is made before hook {} has succeeded", hook.name));
            }
        }
        Ok(())
    }

    /// O5: status tells of no success that no Job has had.
    pub fn status_written(&self, rollout: &Rollout) -> Result<(), String> {
        let log = rollout.status.iter().filter_map(|status| status.hooks.as_ref()).flat_map(|hooks| &hooks.log);
        let mut succeeded = log.filter(|record| record.result == "Succeeded");
        match succeeded.find(|record| !self.complete.contains(&record.job)) {
            Some(record) => Err(format!("O5: Job {} is told to have succeeded", record.job)),
            None => Ok(()),
        }
    }
}

fn end_of(job: &Object) -> Option<bool> {
    let conditions = job["status"]["conditions"].as_array()?;
    let is = |type_: &str| conditions.iter().any(|it| it["type"] == type_ && it["status"] == "True");
    if is("Failed") { Some(false) } else { is("Complete").then_some(true) }
}
