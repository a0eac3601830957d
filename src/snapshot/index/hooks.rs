//! Jobs of hooks and their Pods. The Jobs are filed under the Rollout that controls them; their Pods, which a Job controls, under
//! the Rollout that they name, so that they touch it also when their Job is gone.
use std::{collections::BTreeSet, sync::Arc};

use super::{
    event::{Event, ObjectKey, Scope},
    order::is_at_least,
    shelf::Shelf,
};
use crate::{
    api::names::ANNOTATION_ROLLOUT,
    snapshot::{
        hook::{self, HookJob, HookJobs, HookPod, SeenHooks},
        owner::{ORPHANED, Owner},
        wire::{self, JobView, PodView},
    },
};

#[derive(Clone, Debug, Default)]
pub(super) struct Hooks {
    jobs: Shelf<HookJob>,
    pods: Shelf<HookPod>,
}

impl Hooks {
    pub fn take_jobs(&mut self, scope: &Scope, event: Event<JobView>) -> BTreeSet<ObjectKey> {
        self.jobs.take(scope, event, |view| Some((Some(wire::owner(&view.metadata)?), hook::job(view))))
    }

    pub fn take_pods(&mut self, scope: &Scope, event: Event<PodView>) -> BTreeSet<ObjectKey> {
        self.pods.take(scope, event, |view| {
            let named = view.metadata.annotations.as_ref()?.get(ANNOTATION_ROLLOUT)?.clone();
            Some((Some(named_by(named)), hook::pod(view)?))
        })
    }

    /// Those of a Rollout.
    pub fn of(&self, namespace: &str, owner: &Owner) -> HookJobs {
        if self.jobs.progress(namespace).is_none() || self.pods.progress(namespace).is_none() {
            return HookJobs::Unknown;
        }
        let mut jobs: Vec<HookJob> = self.jobs.owned_by(namespace, owner).map(|job| HookJob::clone(job)).collect();
        jobs.sort_by(|a, b| (a.run, a.created, &a.name).cmp(&(b.run, b.created, &b.name)));
        let named = named_by(owner.name.clone());
        let pods: Vec<HookPod> =
            self.pods.owned_by(namespace, &named).map(|pod: &Arc<HookPod>| HookPod::clone(pod)).collect();
        let told = self.pods.progress(namespace).unwrap_or_default();
        let is_untold =
            |job: &&HookJob| job.end.is_some() && !told.is_empty() && !is_at_least(told, &job.resource_version);
        let told_of_jobs = self.jobs.progress(namespace).unwrap_or_default();
        let is_unseen = |pod: &&HookPod| {
            let is_seen = jobs.iter().any(|job| job.name == pod.job);
            !is_seen && !told_of_jobs.is_empty() && !is_at_least(told_of_jobs, &pod.resource_version)
        };
        let unseen = pods.iter().filter(is_unseen).map(|pod| pod.job.clone());
        let untold = jobs.iter().filter(is_untold).map(|job| job.name.clone()).chain(unseen).collect();
        HookJobs::Seen(SeenHooks { jobs, pods, untold })
    }

    /// uid and resourceVersion of a Job.
    pub fn version(&self, key: &ObjectKey) -> Option<(&str, &str)> {
        self.jobs.get(key).map(|job| (job.uid.as_str(), job.resource_version.as_str()))
    }

    /// How far the watch on Jobs has told.
    pub fn progress(&self, namespace: &str) -> Option<&str> {
        self.jobs.progress(namespace)
    }
}

/// A Pod of a hook names the Rollout; its controller is the Job.
fn named_by(rollout: String) -> Owner {
    Owner { name: rollout, uid: ORPHANED.to_owned() }
}
