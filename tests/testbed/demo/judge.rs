//! What really is there: a watch on Pods of our own, independent of what the operator says of itself.
//!
//! The API server delivers every change of a Pod, in order: no state between two of them is missed. So the lowest
//! number available and the most Pods at once are exact, not sampled.
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use baton::api::names;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event},
};
use tokio::{sync::watch, task::JoinSet, time};

use super::ledger::{Bounds, Facts, Ledger, Observed};

/// Follows the Pods of one Rollout.
#[derive(Clone)]
pub struct Judge {
    ledger: Arc<Mutex<Ledger>>,
    changed: watch::Sender<()>,
}

impl Judge {
    /// Begins to watch, as one of `tasks`, and returns once the present Pods are known.
    pub async fn start(
        api: Api<Pod>,
        rollout: &str,
        min_ready: SignedDuration,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let judge = Self { ledger: Arc::new(Mutex::new(Ledger::new(min_ready))), changed: watch::Sender::new(()) };
        let config = watcher::Config::default().labels(&format!("{}={rollout}", names::LABEL_ROLLOUT));
        let mut listed = judge.changed.subscribe();
        tasks.spawn(judge.clone().follow(api, config));
        time::timeout(Duration::from_secs(30), listed.changed()).await??;
        Ok(judge)
    }

    async fn follow(self, api: Api<Pod>, config: watcher::Config) {
        loop {
            let mut listed = BTreeMap::new();
            let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
            while let Some(event) = events.next().await {
                let now = Timestamp::now();
                match event {
                    // A part of a list is no state of the world.
                    Ok(Event::Init) => {
                        listed.clear();
                        continue;
                    }
                    Ok(Event::InitApply(pod)) => {
                        listed.insert(pod.uid().unwrap_or_default(), Facts::of(&pod));
                        continue;
                    }
                    Ok(Event::InitDone) => {
                        let mut ledger = self.lock();
                        ledger.pods = std::mem::take(&mut listed);
                        if ledger.bounds.is_some() {
                            ledger.problem(format!("{now}: the watch on Pods was interrupted: states were missed"));
                        }
                    }
                    Ok(Event::Apply(pod)) => self.lock().apply(&Facts::of(&pod), now),
                    Ok(Event::Delete(pod)) => self.lock().delete(&pod.uid().unwrap_or_default(), now),
                    Err(error) => {
                        eprintln!("demo: watch on Pods: {error}");
                        break;
                    }
                }
                self.changed.send_replace(());
            }
            time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Counts from here on, against these bounds.
    pub fn begin(&self, bounds: Bounds) {
        self.lock().begin(bounds, Timestamp::now());
    }

    /// Stops counting, and says what was seen.
    pub fn end(&self) -> Observed {
        let mut ledger = self.lock();
        ledger.bounds = None;
        std::mem::take(&mut ledger.observed)
    }

    /// To be called right before the process of this Pod is killed.
    pub fn excuse(&self, uid: &str) {
        self.lock().killed(uid);
    }

    /// When the killed process was seen to be gone, and its instance to be back.
    pub fn killed(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        let ledger = self.lock();
        let killed = ledger.killed.as_ref()?;
        Some((killed.seen_at?, killed.back_at))
    }

    /// Waits until `find` finds something in the Pods (sorted by instance, then name).
    pub async fn until<T>(&self, seconds: u64, what: &str, find: impl Fn(&[Facts]) -> Option<T>) -> Result<T> {
        let mut changed = self.changed.subscribe();
        let search = async {
            loop {
                if let Some(found) = find(&self.pods()) {
                    return found;
                }
                // The sender is ours: it cannot be gone.
                let _ = changed.changed().await;
            }
        };
        match time::timeout(Duration::from_secs(seconds), search).await {
            Ok(found) => Ok(found),
            Err(_) => bail!("not within {seconds} s: {what}; Pods: {:#?}", self.pods()),
        }
    }

    /// The present Pods, sorted by instance, then name.
    pub fn pods(&self) -> Vec<Facts> {
        let mut pods: Vec<_> = self.lock().pods.values().cloned().collect();
        pods.sort_by(|a, b| (a.instance, &a.name).cmp(&(b.instance, &b.name)));
        pods
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
