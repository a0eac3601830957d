//! What really is there: a watch on the Pods of its own, the same for every subject. The API server delivers every change
//! of a Pod, in order: no state between two of them is missed, so extremes are exact, not sampled.
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use baton::snapshot::wire::PodView;
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event},
};
use tokio::{sync::watch, task::JoinSet, time};

use super::subject::{APP, VERSION_LABEL};

/// What counts of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    version: u32,
    ready: bool,
    terminating: bool,
}

impl Facts {
    fn of(pod: &PodView) -> Self {
        let ready = pod.status.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
        let version = pod.labels().get(VERSION_LABEL).and_then(|it| it.parse().ok()).unwrap_or(0);
        Self { version, ready, terminating: pod.metadata.deletion_timestamp.is_some() }
    }
}

/// How many Pods there are, of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not terminating.
    pub live: usize,
    pub terminating: usize,
    /// Live and Ready; minReadySeconds is 0.
    pub available: usize,
    /// Available at the version that is waited for.
    pub updated: usize,
}

/// Extremes since [`Census::begin`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extremes {
    pub fewest_available: usize,
    /// Not terminating.
    pub most_live: usize,
    pub most_with_terminating: usize,
    /// The watch has missed states.
    pub interrupted: bool,
}

#[derive(Default)]
struct Book {
    /// By uid.
    pods: BTreeMap<String, Facts>,
    wanted: u32,
    counts: Counts,
    extremes: Extremes,
}

impl Book {
    fn put(&mut self, uid: String, facts: Option<Facts>) {
        let before = match facts {
            Some(facts) => self.pods.insert(uid, facts),
            None => self.pods.remove(&uid),
        };
        if let Some(before) = before {
            self.count(before, usize::wrapping_sub);
        }
        if let Some(facts) = facts {
            self.count(facts, usize::wrapping_add);
        }
        let Counts { live, terminating, available, .. } = self.counts;
        let extremes = &mut self.extremes;
        extremes.fewest_available = extremes.fewest_available.min(available);
        extremes.most_live = extremes.most_live.max(live);
        extremes.most_with_terminating = extremes.most_with_terminating.max(live + terminating);
    }

    fn count(&mut self, facts: Facts, change: fn(usize, usize) -> usize) {
        let counts = &mut self.counts;
        let add = |slot: &mut usize| *slot = change(*slot, 1);
        if facts.terminating {
            add(&mut counts.terminating);
            return;
        }
        add(&mut counts.live);
        if facts.ready {
            add(&mut counts.available);
            if facts.version == self.wanted {
                add(&mut counts.updated);
            }
        }
    }

    /// Takes a complete list in the place of everything known.
    fn reset(&mut self, pods: BTreeMap<String, Facts>) {
        self.counts = Counts::default();
        self.pods.clear();
        // Not one by one through `put`: an empty world on the way would be an extreme.
        for facts in pods.values() {
            self.count(*facts, usize::wrapping_add);
        }
        self.pods = pods;
        self.extremes.interrupted = true;
    }

    fn begin(&mut self, version: u32) {
        self.wanted = version;
        let pods = std::mem::take(&mut self.pods);
        self.reset(pods);
        let Counts { live, terminating, available, .. } = self.counts;
        self.extremes = Extremes {
            fewest_available: available,
            most_live: live,
            most_with_terminating: live + terminating,
            interrupted: false,
        };
    }
}

/// Follows the Pods of a run.
#[derive(Clone)]
pub struct Census {
    book: Arc<Mutex<Book>>,
    changed: watch::Sender<()>,
}

impl Census {
    /// Begins to watch, as one of `tasks`, and returns once the present Pods are known.
    pub async fn start(api: Api<PodView>, tasks: &mut JoinSet<()>) -> Result<Self> {
        let census = Self { book: Arc::default(), changed: watch::Sender::new(()) };
        let mut listed = census.changed.subscribe();
        tasks.spawn(census.clone().follow(api));
        time::timeout(Duration::from_secs(30), listed.changed()).await??;
        Ok(census)
    }

    async fn follow(self, api: Api<PodView>) {
        let config = watcher::Config::default().labels(&format!("app={APP}"));
        let mut listed = BTreeMap::new();
        // It resumes a watch that the server ends where it was, and lists anew only where it must.
        let mut events = pin!(watcher::watcher(api, config));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => drop(listed.insert(pod.uid().unwrap_or_default(), Facts::of(&pod))),
                Ok(Event::InitDone) => self.lock().reset(std::mem::take(&mut listed)),
                Ok(Event::Apply(pod)) => self.lock().put(pod.uid().unwrap_or_default(), Some(Facts::of(&pod))),
                Ok(Event::Delete(pod)) => self.lock().put(pod.uid().unwrap_or_default(), None),
                Err(error) => {
                    eprintln!("  the watch on Pods: {error}");
                    time::sleep(Duration::from_millis(50)).await;
                }
            }
            self.changed.send_replace(());
        }
    }

    /// Counts from here on, and waits for Pods of this version.
    pub fn begin(&self, version: u32) {
        self.lock().begin(version);
    }

    pub fn extremes(&self) -> Extremes {
        self.lock().extremes
    }

    /// Waits until `is_it` holds; answers when it was seen.
    pub async fn until(&self, patience: Duration, is_it: impl Fn(Counts) -> bool) -> Result<Instant> {
        let mut changed = self.changed.subscribe();
        let search = async {
            loop {
                if is_it(self.lock().counts) {
                    return Instant::now();
                }
                // The sender is ours: it cannot be gone.
                let _ = changed.changed().await;
            }
        };
        match time::timeout(patience, search).await {
            Ok(at) => Ok(at),
            Err(_) => bail!("not within {} s; there are {:?}", patience.as_secs(), self.lock().counts),
        }
    }

    /// Waits until there are exactly so many Pods, all of them updated and available.
    pub async fn until_settled(&self, pods: usize, patience: Duration) -> Result<Instant> {
        let settled = Counts { live: pods, terminating: 0, available: pods, updated: pods };
        self.until(patience, |counts| counts == settled).await
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(book: &mut Book, uid: &str, version: u32, ready: bool, terminating: bool) {
        book.put(uid.into(), Some(Facts { version, ready, terminating }));
    }

    #[test]
    fn extremes_are_those_of_every_moment() {
        let mut book = Book::default();
        for uid in ["a", "b", "c"] {
            put(&mut book, uid, 1, true, false);
        }
        book.begin(2);
        put(&mut book, "a", 1, true, true);
        put(&mut book, "d", 2, false, false);
        put(&mut book, "b", 1, true, true);
        book.put("a".into(), None);
        put(&mut book, "d", 2, true, false);
        let counts = Counts { live: 2, terminating: 1, available: 2, updated: 1 };
        assert_eq!(book.counts, counts);
        let extremes = Extremes { fewest_available: 1, most_live: 3, most_with_terminating: 4, interrupted: false };
        assert_eq!(book.extremes, extremes);
    }

    #[test]
    fn a_new_list_says_that_states_were_missed() {
        let mut book = Book::default();
        put(&mut book, "a", 1, true, false);
        book.begin(1);
        assert!(!book.extremes.interrupted);
        book.reset([("b".into(), Facts { version: 1, ready: true, terminating: false })].into());
        assert!(book.extremes.interrupted);
        assert_eq!((book.counts.updated, book.extremes.fewest_available), (1, 1), "no empty world in between");
    }
}
