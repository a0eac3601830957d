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
use tokio::{sync::watch, time};

/// Problems kept; one is enough to fail.
const PROBLEMS_MAX: usize = 20;
/// So long after a kill was seen here the operator may not have seen it yet, and rightly retire one more.
const HEARSAY: SignedDuration = SignedDuration::from_secs(1);

/// A Pod as the judge sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub name: String,
    pub uid: String,
    pub instance: i32,
    pub version: String,
    pub terminating: bool,
    pub ready: bool,
    /// Failed or Succeeded: it holds nothing any more.
    pub finished: bool,
    /// Restarts of its containers.
    pub restarts: i32,
}

impl Facts {
    pub fn available(&self) -> bool {
        self.ready && !self.terminating && !self.finished
    }

    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let condition = |name: &str| {
            let all = status.and_then(|status| status.conditions.as_ref());
            all.is_some_and(|all| all.iter().any(|it| it.type_ == name && it.status == "True"))
        };
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            instance: pod.labels().get(names::LABEL_INSTANCE).and_then(|it| it.parse().ok()).unwrap_or(-1),
            version: pod.annotations().get(names::ANNOTATION_VERSION).cloned().unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            ready: condition("Ready"),
            finished: matches!(status.and_then(|it| it.phase.as_deref()), Some("Failed" | "Succeeded")),
            restarts: containers.iter().flat_map(|all| all.iter()).map(|it| it.restart_count).sum(),
        }
    }
}

/// What a scene must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many instances are available at any time.
    pub available_min: usize,
    /// At most so many Pods exist at any time, terminating ones included.
    pub pods_max: usize,
}

/// What a scene was seen to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub lowest_available: usize,
    pub most_pods: usize,
    /// Pods that came into being.
    pub created: usize,
    /// Bounds that were broken, in words.
    pub problems: Vec<String>,
}

/// An instance whose process somebody else has killed.
struct Killed {
    uid: String,
    /// When it was first seen not available.
    seen_at: Option<Timestamp>,
    back_at: Option<Timestamp>,
    /// One available instance less is not the operator's doing, until there were enough again.
    excused: bool,
}

/// Pods, and the scene that is judged. Pure: `now` comes with each event.
#[derive(Default)]
struct Ledger {
    pods: BTreeMap<String, Facts>,
    bounds: Option<Bounds>,
    observed: Observed,
    killed: Option<Killed>,
}

impl Ledger {
    fn begin(&mut self, bounds: Bounds) {
        self.bounds = Some(bounds);
        self.killed = None;
        self.observed = Observed { lowest_available: self.available(), most_pods: self.count(), ..Observed::default() };
    }

    fn available(&self) -> usize {
        self.pods.values().filter(|pod| pod.available()).count()
    }

    fn count(&self) -> usize {
        self.pods.values().filter(|pod| !pod.finished).count()
    }

    fn killed(&mut self, uid: &str) {
        self.killed = Some(Killed { uid: uid.to_owned(), seen_at: None, back_at: None, excused: true });
    }

    fn apply(&mut self, pod: &Facts, now: Timestamp) {
        let before = self.pods.insert(pod.uid.clone(), pod.clone());
        if before.is_none() {
            self.observed.created += 1;
        }
        self.follow_killed(pod, now);
        let retired = before.is_some_and(|before| before.available()) && pod.terminating;
        self.judge(now, retired.then_some(&*pod.name));
    }

    fn delete(&mut self, uid: &str, now: Timestamp) {
        self.pods.remove(uid);
        self.judge(now, None);
    }

    fn follow_killed(&mut self, pod: &Facts, now: Timestamp) {
        if let Some(killed) = self.killed.as_mut().filter(|killed| killed.uid == pod.uid) {
            match (pod.available(), killed.seen_at) {
                (false, None) => killed.seen_at = Some(now),
                (true, Some(_)) if killed.back_at.is_none() => killed.back_at = Some(now),
                _ => {}
            }
        }
    }

    /// `retired`: the available Pod whose deletion was asked for just now, if that is what happened.
    fn judge(&mut self, now: Timestamp, retired: Option<&str>) {
        let Some(bounds) = self.bounds else { return };
        let (available, pods) = (self.available(), self.count());
        let mut excuse = 0;
        let mut hearsay = 0;
        if let Some(killed) = self.killed.as_mut().filter(|killed| killed.excused) {
            let known = killed.seen_at.is_some_and(|seen| now.duration_since(seen) >= HEARSAY);
            if known && available >= bounds.available_min {
                killed.excused = false;
            } else {
                excuse = 1;
                hearsay = usize::from(!known);
            }
        }
        self.observed.lowest_available = self.observed.lowest_available.min(available);
        self.observed.most_pods = self.observed.most_pods.max(pods);
        let Bounds { available_min, pods_max } = bounds;
        if available + excuse < available_min {
            self.problem(format!("{now}: {available} available, {available_min} required"));
        }
        if let Some(name) = retired
            && available + hearsay < available_min
        {
            self.problem(format!("{now}: {name} retired with {available} left, {available_min} required"));
        }
        if pods > pods_max {
            self.problem(format!("{now}: {pods} Pods, {pods_max} allowed"));
        }
    }

    fn problem(&mut self, text: String) {
        if self.observed.problems.len() < PROBLEMS_MAX {
            self.observed.problems.push(text);
        }
    }
}

/// Follows the Pods of one Rollout.
#[derive(Clone)]
pub struct Judge {
    ledger: Arc<Mutex<Ledger>>,
    changed: watch::Sender<()>,
}

impl Judge {
    /// Begins to watch, and returns once the present Pods are known.
    pub async fn start(api: Api<Pod>, rollout: &str) -> Result<Self> {
        let judge = Self { ledger: Arc::default(), changed: watch::Sender::new(()) };
        let config = watcher::Config::default().labels(&format!("{}={rollout}", names::LABEL_ROLLOUT));
        let mut listed = judge.changed.subscribe();
        tokio::spawn(judge.clone().follow(api, config));
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
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(pod)) => drop(listed.insert(pod.uid().unwrap_or_default(), Facts::of(&pod))),
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
        self.lock().begin(bounds);
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

    fn pods(&self) -> Vec<Facts> {
        let mut pods: Vec<_> = self.lock().pods.values().cloned().collect();
        pods.sort_by(|a, b| (a.instance, &a.name).cmp(&(b.instance, &b.name)));
        pods
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { available_min: 3, pods_max: 5 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn pod(uid: &str) -> Facts {
        Facts {
            name: uid.into(),
            uid: uid.into(),
            instance: 0,
            version: "1.0".into(),
            terminating: false,
            ready: true,
            finished: false,
            restarts: 0,
        }
    }

    /// Four available Pods a, b, c, d; one may be missing.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for uid in ["a", "b", "c", "d"] {
            ledger.apply(&pod(uid), at(0));
        }
        ledger.begin(BOUNDS);
        ledger
    }

    fn retire(ledger: &mut Ledger, uid: &str, seconds: i64) {
        ledger.apply(&Facts { terminating: true, ..pod(uid) }, at(seconds));
    }

    fn lose(ledger: &mut Ledger, uid: &str, seconds: i64) {
        ledger.apply(&Facts { ready: false, ..pod(uid) }, at(seconds));
    }

    #[test]
    fn a_proper_replacement_breaks_no_bound() {
        let mut ledger = ledger();
        ledger.apply(&Facts { ready: false, ..pod("e") }, at(1));
        retire(&mut ledger, "a", 2);
        ledger.apply(&pod("e"), at(3));
        ledger.delete("a", at(4));
        let expect = Observed { lowest_available: 3, most_pods: 5, created: 1, problems: vec![] };
        assert_eq!(ledger.observed, expect);
    }

    #[test]
    fn too_few_available_and_too_many_pods_are_told() {
        let mut ledger = ledger();
        retire(&mut ledger, "a", 1);
        assert_eq!(ledger.observed.problems, [] as [&str; 0]);
        retire(&mut ledger, "b", 2);
        assert_eq!(ledger.observed.problems.len(), 2, "too few, and by whom: {:?}", ledger.observed.problems);
        for uid in ["e", "f"] {
            ledger.apply(&Facts { ready: false, ..pod(uid) }, at(3));
        }
        assert!(ledger.observed.problems.last().unwrap().contains("6 Pods, 5 allowed"));
        assert_eq!((ledger.observed.lowest_available, ledger.observed.most_pods), (2, 6));
    }

    #[test]
    fn a_kill_excuses_one_missing_instance_until_there_are_enough_again() {
        let mut ledger = ledger();
        retire(&mut ledger, "a", 1);
        ledger.killed("b");
        lose(&mut ledger, "b", 2);
        assert_eq!(ledger.observed.problems, [] as [&str; 0]);
        ledger.apply(&pod("b"), at(5));
        lose(&mut ledger, "c", 6);
        assert_eq!(ledger.observed.problems.len(), 1, "a second loss has no excuse");
    }

    #[test]
    fn a_kill_excuses_no_retirement_once_it_is_known() {
        let mut early = ledger();
        early.killed("b");
        lose(&mut early, "b", 2);
        retire(&mut early, "a", 2);
        assert_eq!(early.observed.problems, [] as [&str; 0], "the operator could not know yet");

        let mut late = ledger();
        late.killed("b");
        lose(&mut late, "b", 2);
        lose(&mut late, "b", 3);
        late.pods.remove("d");
        late.judge(at(4), Some("d"));
        let problems = &late.observed.problems;
        assert!(problems.iter().any(|it| it.contains("d retired with 2 left")), "{problems:?}");
    }
}
