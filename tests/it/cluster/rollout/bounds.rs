//! Watches a namespace's Pods from outside the operator and remembers the worst moments.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};

/// How long the watch may take to tell what a list shows already.
const CATCH_UP: Duration = Duration::from_mins(1);

/// The worst moments so far. A watch tells every state in order, so none is missed; only what happens between the end of
/// a watch that cannot be resumed and the next list is not seen.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    /// Fewest Ready, not terminating Pods since `floor_from` were Ready for the first time.
    pub available_min: Option<usize>,
    /// Most Pods at once, terminating ones included, finished ones not.
    pub total_max: usize,
    /// Most revisions at once, of the same Pods.
    pub revisions_max: usize,
    /// Names of the Pods that were created since the beginning, once a uid.
    pub created: Vec<String>,
}

/// A watch in the background; ends with the value.
pub struct Bounds {
    pods: Api<Pod>,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Bounds {
    /// Starts watching, and returns once the Pods that are there are known; the floor counts once `floor_from` Pods are
    /// Ready.
    pub async fn watch(pods: Api<Pod>, floor_from: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen { floor_from, ..Seen::default() }));
        let shared = Arc::clone(&seen);
        let mut events = watcher::watcher(pods.clone(), watcher::Config::default()).default_backoff().boxed();
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                // An error is the end of a connection, and the watch goes on where it was.
                if let Ok(event) = event {
                    shared.lock().unwrap().take(event);
                }
            }
        });
        let bounds = Self { pods, seen, task };
        bounds.wait(|seen| seen.known.is_some()).await;
        bounds
    }

    pub fn worst(&self) -> Worst {
        self.seen().worst.clone()
    }

    /// Fails when a bound was broken at any moment until now.
    pub async fn assert(&self, available_min: usize, total_max: usize) {
        self.catch_up().await;
        let worst = self.worst();
        let fewest = worst.available_min.expect("the floor was never reached");
        assert!(fewest >= available_min, "{fewest} available, allowed are no fewer than {available_min}");
        assert!(worst.total_max <= total_max, "{} Pods, allowed are {total_max}", worst.total_max);
    }

    /// Waits until all that happened before now was told.
    async fn catch_up(&self) {
        let list = self.pods.list(&ListParams::default()).await.unwrap();
        let now = list.metadata.resource_version.unwrap().parse().unwrap();
        let newest = list.items.iter().map(version).max().unwrap_or_default();
        let has_told = |seen: &Seen| {
            let is_listed = |pod: &Pod| list.items.iter().any(|listed| listed.metadata.uid == pod.metadata.uid);
            let mut known = seen.known.iter().flat_map(BTreeMap::values);
            // Any other change of a Pod that is not listed was its end.
            seen.told >= newest && known.all(|pod| is_listed(pod) || version(pod) > now)
        };
        self.wait(has_told).await;
    }

    async fn wait(&self, is: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + CATCH_UP;
        while !is(&self.seen()) {
            assert!(Instant::now() < deadline, "the watch on the Pods tells nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the watch has told.
#[derive(Default)]
struct Seen {
    floor_from: usize,
    worst: Worst,
    /// The Pods by name; None until there was a list.
    known: Option<BTreeMap<String, Pod>>,
    /// The list that is coming in.
    listed: BTreeMap<String, Pod>,
    uids: BTreeSet<Option<String>>,
    /// The newest resourceVersion.
    told: u64,
}

impl Seen {
    fn take(&mut self, event: Event<Pod>) {
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
        if let Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) = &event {
            self.told = self.told.max(version(pod));
        }
        match (event, &mut self.known) {
            (Event::Init, _) => self.listed.clear(),
            (Event::InitApply(pod), _) => {
                self.note(&pod);
                self.listed.insert(name(&pod), pod);
            }
            // A part of a list is no state of the world: nothing is measured before its end.
            (Event::InitDone, known) => {
                *known = Some(std::mem::take(&mut self.listed));
                self.measure();
            }
            (Event::Apply(pod), Some(known)) => {
                known.insert(name(&pod), pod.clone());
                self.note(&pod);
                self.measure();
            }
            (Event::Delete(pod), Some(known)) => {
                known.remove(&name(&pod));
                self.measure();
            }
            (Event::Apply(_) | Event::Delete(_), None) => unreachable!("a watch begins with a list"),
        }
    }

    /// Those of the first list were there before.
    fn note(&mut self, pod: &Pod) {
        if self.uids.insert(pod.metadata.uid.clone()) && self.known.is_some() {
            self.worst.created.push(pod.metadata.name.clone().unwrap_or_default());
        }
    }

    fn measure(&mut self) {
        let known = || self.known.iter().flat_map(BTreeMap::values);
        let ready = known().filter(|pod| is_ready(pod)).count();
        let total = known().filter(|pod| !is_finished(pod)).count();
        let revisions: BTreeSet<_> = known().filter(|pod| !is_finished(pod)).map(revision).collect();
        let worst = &mut self.worst;
        if let Some(fewest) = &mut worst.available_min {
            *fewest = ready.min(*fewest);
        } else if ready >= self.floor_from {
            worst.available_min = Some(ready);
        }
        worst.total_max = worst.total_max.max(total);
        worst.revisions_max = worst.revisions_max.max(revisions.len());
    }
}

/// Name of its ControllerRevision.
pub fn revision(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get("baton.dev/revision")
}

/// resourceVersion, in the order of time.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str, ready: bool, terminating: bool) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "uid": uid, "deletionTimestamp": terminating.then_some("2026-01-01T00:00:00Z")},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn list(seen: &mut Seen, pods: &[Pod]) {
        seen.take(Event::Init);
        for pod in pods {
            seen.take(Event::InitApply(pod.clone()));
        }
        seen.take(Event::InitDone);
    }

    #[test]
    fn a_second_list_is_one_moment_and_creates_nothing() {
        let mut seen = Seen { floor_from: 2, ..Seen::default() };
        let pods = [pod("a", "1", true, false), pod("b", "2", true, false), pod("c", "3", true, true)];
        list(&mut seen, &pods);
        list(&mut seen, &pods);
        assert_eq!((seen.worst.available_min, seen.worst.total_max), (Some(2), 3));
        assert!(seen.worst.created.is_empty(), "those there before count for nothing: {:?}", seen.worst.created);
    }

    #[test]
    fn what_came_and_went_is_seen() {
        let mut seen = Seen { floor_from: 2, ..Seen::default() };
        list(&mut seen, &[pod("a", "1", true, false), pod("b", "2", true, false)]);
        seen.take(Event::Apply(pod("b", "2", true, true)));
        seen.take(Event::Apply(pod("b-1", "3", true, false)));
        seen.take(Event::Delete(pod("b", "2", true, true)));
        assert_eq!((seen.worst.available_min, seen.worst.total_max), (Some(1), 3));
        assert_eq!(seen.worst.created, ["b-1"]);
        list(&mut seen, &[pod("a", "1", true, false), pod("b-2", "4", true, false)]);
        assert_eq!(seen.worst.created, ["b-1", "b-2"], "also what a later list shows for the first time");
    }
}
