//! Watches a namespace's Pods from outside the operator and remembers the worst moments.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::watcher::{self, Event},
};

/// The worst moments so far. A watch tells every state in order, so none is missed.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    /// Fewest Ready, not terminating Pods since `floor_from` were Ready for the first time.
    pub available_min: Option<usize>,
    /// Most Pods at once, terminating ones included, finished ones not.
    pub total_max: usize,
    /// Names of the Pods seen, once a uid.
    pub created: Vec<String>,
}

/// A watch in the background; ends with the value.
pub struct Bounds {
    worst: Arc<Mutex<Worst>>,
    task: tokio::task::JoinHandle<()>,
}

impl Bounds {
    /// Starts watching; the floor counts once `floor_from` Pods are Ready.
    pub fn watch(pods: Api<Pod>, floor_from: usize) -> Self {
        let worst = Arc::new(Mutex::new(Worst::default()));
        let shared = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            let mut known: BTreeMap<String, Pod> = BTreeMap::new();
            let mut seen = std::collections::BTreeSet::new();
            let mut events = watcher::watcher(pods, watcher::Config::default()).boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                        let name = pod.metadata.name.clone().unwrap_or_default();
                        if seen.insert(pod.metadata.uid.clone()) {
                            shared.lock().unwrap().created.push(name.clone());
                        }
                        known.insert(name, pod);
                    }
                    Ok(Event::Delete(pod)) => {
                        known.remove(&pod.metadata.name.clone().unwrap_or_default());
                    }
                    Ok(Event::Init) => known.clear(),
                    Ok(Event::InitDone) | Err(_) => {}
                }
                let mut worst = shared.lock().unwrap();
                let ready = known.values().filter(|pod| is_ready(pod)).count();
                if let Some(fewest) = &mut worst.available_min {
                    *fewest = ready.min(*fewest);
                } else if ready >= floor_from {
                    worst.available_min = Some(ready);
                }
                worst.total_max = worst.total_max.max(known.values().filter(|pod| !is_finished(pod)).count());
            }
        });
        Self { worst, task }
    }

    pub fn worst(&self) -> Worst {
        self.worst.lock().unwrap().clone()
    }

    /// Fails when a bound was broken at any moment.
    pub fn assert(&self, available_min: usize, total_max: usize) {
        let worst = self.worst();
        let fewest = worst.available_min.expect("the floor was never reached");
        assert!(fewest >= available_min, "{fewest} available, allowed are no fewer than {available_min}");
        assert!(worst.total_max <= total_max, "{} Pods, allowed are {total_max}", worst.total_max);
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ready and not terminating.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}
