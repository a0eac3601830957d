//! What has become of one Rollout, by uid, as the API server knows it: the world's own truth, and its recent past, because
//! operators see that.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use baton::{
    api::Rollout,
    snapshot::{
        Pod,
        wire::{self, PodView},
    },
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::proofs::Proofs;
use crate::fake_apiserver::object::Object;

/// A Rollout, over its life.
pub struct Story {
    pub name: String,
    /// Its versions with the time from which each was the latest.
    pub versions: VecDeque<(Instant, Arc<Rollout>)>,
    /// Its Pods at times, each until the next. The last is the present.
    pub moments: VecDeque<Moment>,
    /// Pods that an operator has marked for deletion.
    pub ended: BTreeMap<String, Ended>,
    /// Pods that operators have made, with the number of the moment that shows them first.
    pub made: BTreeMap<String, u64>,
    /// Of these, those that came in late, or from an operator that had lost the lock.
    pub strays: BTreeSet<String>,
    /// When its deletion was asked for.
    pub deleted_at: Option<Instant>,
    /// Highest generation that an operator has told of.
    pub observed_generation: i64,
    /// What its Pods have shown.
    pub proofs: Proofs,
}

/// A deletion by an operator.
pub struct Ended {
    /// The process.
    pub by: Arc<str>,
    /// Of the commit.
    pub revision: u64,
}

/// Pods at a time.
#[derive(Clone)]
pub struct Moment {
    pub at: Instant,
    /// Counted from 0.
    pub number: u64,
    pub pods: Arc<BTreeMap<String, Arc<Pod>>>,
    /// Those that are kept for a look.
    pub specimens: Arc<BTreeMap<String, Arc<Pod>>>,
    pub lost_nodes: Arc<BTreeSet<String>>,
}

impl Story {
    /// Of a Rollout that has just been created. Whoever looks at it may see the nodes as they were before.
    pub fn begin(name: &str, lost: &VecDeque<(Instant, Arc<BTreeSet<String>>)>) -> Self {
        let moments = lost.iter().zip(0..).map(|((at, lost_nodes), number)| {
            let (at, lost_nodes) = (*at, lost_nodes.clone());
            Moment { at, number, pods: Arc::default(), specimens: Arc::default(), lost_nodes }
        });
        Self {
            name: name.to_owned(),
            versions: VecDeque::new(),
            moments: moments.collect(),
            ended: BTreeMap::new(),
            made: BTreeMap::new(),
            strays: BTreeSet::new(),
            deleted_at: None,
            observed_generation: 0,
            proofs: Proofs::default(),
        }
    }

    /// The Rollout was written.
    pub fn versioned(&mut self, rollout: Arc<Rollout>, remembered: Duration) {
        let now = Instant::now();
        if rollout.metadata.deletion_timestamp.is_some() {
            self.deleted_at.get_or_insert(now);
        }
        self.versions.push_back((now, rollout));
        while self.versions.len() > 1 && self.versions[1].0 + remembered < now {
            self.versions.pop_front();
        }
    }

    /// One of its Pods was written, or is gone (None).
    pub fn pod_written(&mut self, uid: &str, pod: Option<Pod>, remembered: Duration) {
        let (mut pods, mut specimens) = ((*self.now().pods).clone(), (*self.now().specimens).clone());
        pods.remove(uid);
        specimens.remove(uid);
        if let Some(pod) = pod {
            self.proofs.note(&pod);
            let place = if pod.specimen.is_some() { &mut specimens } else { &mut pods };
            place.insert(uid.to_owned(), Arc::new(pod));
        }
        let (pods, specimens) = (Arc::new(pods), Arc::new(specimens));
        let lost_nodes = self.now().lost_nodes.clone();
        let number = self.now().number + 1;
        self.remember(Moment { at: Instant::now(), number, pods, specimens, lost_nodes }, remembered);
    }

    /// Other nodes are lost now.
    pub fn nodes_changed(&mut self, lost_nodes: &Arc<BTreeSet<String>>, remembered: Duration) {
        let (at, number, lost_nodes) = (Instant::now(), self.now().number + 1, lost_nodes.clone());
        let moment = Moment { at, number, lost_nodes, ..self.now().clone() };
        self.remember(moment, remembered);
    }

    fn remember(&mut self, moment: Moment, remembered: Duration) {
        let now = moment.at;
        self.moments.push_back(moment);
        while self.moments.len() > 1 && self.moments[1].at + remembered < now {
            self.moments.pop_front();
        }
    }

    /// The present.
    pub fn now(&self) -> &Moment {
        self.moments.back().expect("a story has a beginning")
    }

    /// The latest version.
    pub fn rollout(&self) -> Option<&Arc<Rollout>> {
        self.versions.back().map(|(_, rollout)| rollout)
    }

    /// Versions that somebody may see whose view is at most this old, newest first.
    pub fn versions_seen(&self, age: Duration) -> impl Iterator<Item = &Arc<Rollout>> {
        let horizon = Instant::now().checked_sub(age);
        let oldest = self.versions.partition_point(|(from, _)| horizon.is_some_and(|horizon| *from <= horizon));
        self.versions.range(oldest.saturating_sub(1)..).rev().map(|(_, rollout)| rollout)
    }

    /// Moments that somebody may see whose view is at most this old, newest first.
    pub fn moments_seen(&self, age: Duration) -> impl Iterator<Item = &Moment> {
        let horizon = Instant::now().checked_sub(age);
        let oldest = self.moments.partition_point(|moment| horizon.is_some_and(|horizon| moment.at <= horizon));
        self.moments.range(oldest.saturating_sub(1)..).rev()
    }
}

/// A Pod as the operator reads it; None where it is not one of a slot.
pub fn pod(object: &Object) -> Option<Pod> {
    any_pod(object).filter(|pod| pod.specimen.is_none())
}

/// The same, or one that is kept for a look.
pub fn any_pod(object: &Object) -> Option<Pod> {
    wire::pod(PodView::deserialize(object.value()).ok()?)
}

/// uid of the Rollout that controls an object.
pub fn owner(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true && owner["kind"] == "Rollout")?;
    owner["uid"].as_str()
}
