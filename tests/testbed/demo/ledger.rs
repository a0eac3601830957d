//! The judge's book: Pods as they come and go, and the bounds of the scene. Pure: `now` comes with each event.
use std::collections::BTreeMap;

use baton::api::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

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
    /// Since when the Pod is Ready, to the second as the API has it.
    pub ready_since: Option<Timestamp>,
    /// Failed or Succeeded: it holds nothing any more.
    pub finished: bool,
    /// Restarts of its containers.
    pub restarts: i32,
}

impl Facts {
    /// Ready, and to stay.
    pub fn in_service(&self) -> bool {
        self.ready_since.is_some() && !self.terminating && !self.finished
    }

    /// In service for the spec's minReadySeconds.
    fn available(&self, min_ready: SignedDuration, now: Timestamp) -> bool {
        self.in_service() && self.ready_since.is_some_and(|since| now.duration_since(since) >= min_ready)
    }

    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|it| it.type_ == "Ready" && it.status == "True");
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            instance: pod.labels().get(names::LABEL_INSTANCE).and_then(|it| it.parse().ok()).unwrap_or(-1),
            version: pod.annotations().get(names::ANNOTATION_VERSION).cloned().unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            ready_since: ready.and_then(|it| it.last_transition_time.as_ref()).map(|time| time.0),
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
pub struct Killed {
    uid: String,
    /// When it was first seen out of service.
    pub seen_at: Option<Timestamp>,
    /// When it was seen in service again.
    pub back_at: Option<Timestamp>,
    /// One available instance less is not the operator's doing, until there were enough again.
    excused: bool,
}

/// Pods, and the scene that is judged.
#[derive(Default)]
pub struct Ledger {
    /// The spec's minReadySeconds.
    min_ready: SignedDuration,
    /// By uid.
    pub pods: BTreeMap<String, Facts>,
    /// Absent between scenes.
    pub bounds: Option<Bounds>,
    pub observed: Observed,
    pub killed: Option<Killed>,
    told: Told,
}

/// The worst that has been told of a scene.
#[derive(Default)]
struct Told {
    available: Option<usize>,
    pods: Option<usize>,
}

impl Ledger {
    pub fn new(min_ready: SignedDuration) -> Self {
        Self { min_ready, ..Self::default() }
    }

    /// Judges from here on.
    pub fn begin(&mut self, bounds: Bounds, now: Timestamp) {
        self.bounds = Some(bounds);
        self.killed = None;
        self.told = Told::default();
        self.observed =
            Observed { lowest_available: self.available(now), most_pods: self.count(), ..Observed::default() };
    }

    fn available(&self, now: Timestamp) -> usize {
        self.pods.values().filter(|pod| pod.available(self.min_ready, now)).count()
    }

    fn count(&self) -> usize {
        self.pods.values().filter(|pod| !pod.finished).count()
    }

    /// Somebody else is about to kill the process of this Pod.
    pub fn killed(&mut self, uid: &str) {
        self.killed = Some(Killed { uid: uid.to_owned(), seen_at: None, back_at: None, excused: true });
    }

    /// A Pod came into being or changed.
    pub fn apply(&mut self, pod: &Facts, now: Timestamp) {
        let before = self.pods.insert(pod.uid.clone(), pod.clone());
        if before.is_none() {
            self.observed.created += 1;
        }
        self.follow_killed(pod, now);
        let retired = before.is_some_and(|before| before.available(self.min_ready, now)) && pod.terminating;
        self.judge(now, retired.then_some(&*pod.name));
    }

    /// A Pod is gone.
    pub fn delete(&mut self, uid: &str, now: Timestamp) {
        self.pods.remove(uid);
        self.judge(now, None);
    }

    fn follow_killed(&mut self, pod: &Facts, now: Timestamp) {
        if let Some(killed) = self.killed.as_mut().filter(|killed| killed.uid == pod.uid) {
            match (pod.in_service(), killed.seen_at) {
                (false, None) => killed.seen_at = Some(now),
                (true, Some(_)) if killed.back_at.is_none() => killed.back_at = Some(now),
                _ => {}
            }
        }
    }

    /// `retired`: the available Pod whose deletion was asked for just now, if that is what happened.
    fn judge(&mut self, now: Timestamp, retired: Option<&str>) {
        let Some(bounds) = self.bounds else { return };
        let (available, pods) = (self.available(now), self.count());
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
        // Each is told when it happens and when it gets worse, not with every event meanwhile.
        if available + excuse < available_min && self.told.available.is_none_or(|told| available < told) {
            self.told.available = Some(available);
            self.problem(format!("{now:.3}: {available} available, {available_min} required"));
        }
        if let Some(name) = retired
            && available + hearsay < available_min
        {
            self.problem(format!("{now:.3}: {name} retired with {available} left, {available_min} required"));
        }
        if pods > pods_max && self.told.pods.is_none_or(|told| pods > told) {
            self.told.pods = Some(pods);
            self.problem(format!("{now:.3}: {pods} Pods, {pods_max} allowed"));
        }
    }

    pub fn problem(&mut self, text: String) {
        if self.observed.problems.len() < PROBLEMS_MAX {
            self.observed.problems.push(text);
        }
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
            ready_since: Some(at(0)),
            finished: false,
            restarts: 0,
        }
    }

    /// Four available Pods a, b, c, d; one may be missing.
    fn four_available() -> Ledger {
        let mut ledger = Ledger::default();
        for uid in ["a", "b", "c", "d"] {
            ledger.apply(&pod(uid), at(0));
        }
        ledger.begin(BOUNDS, at(0));
        ledger
    }

    fn retire(ledger: &mut Ledger, uid: &str, seconds: i64) {
        ledger.apply(&Facts { terminating: true, ..pod(uid) }, at(seconds));
    }

    fn lose(ledger: &mut Ledger, uid: &str, seconds: i64) {
        ledger.apply(&Facts { ready_since: None, ..pod(uid) }, at(seconds));
    }

    #[test]
    fn a_proper_replacement_breaks_no_bound() {
        let mut ledger = four_available();
        ledger.apply(&Facts { ready_since: None, ..pod("e") }, at(1));
        retire(&mut ledger, "a", 2);
        ledger.apply(&pod("e"), at(3));
        ledger.delete("a", at(4));
        let expect = Observed { lowest_available: 3, most_pods: 5, created: 1, problems: vec![] };
        assert_eq!(ledger.observed, expect);
    }

    #[test]
    fn a_ready_pod_counts_only_after_its_time() {
        let mut ledger = four_available();
        ledger.min_ready = SignedDuration::from_secs(2);
        ledger.apply(&Facts { ready_since: Some(at(10)), ..pod("e") }, at(10));
        retire(&mut ledger, "a", 10);
        assert_eq!(ledger.observed.problems, [] as [&str; 0]);
        retire(&mut ledger, "b", 11);
        assert_eq!(ledger.observed.problems.len(), 2, "e does not count yet");
        let mut ledger = four_available();
        ledger.min_ready = SignedDuration::from_secs(2);
        ledger.apply(&Facts { ready_since: Some(at(10)), ..pod("e") }, at(10));
        retire(&mut ledger, "a", 12);
        retire(&mut ledger, "b", 12);
        assert_eq!(ledger.observed.problems, [] as [&str; 0], "e counts in the place of b");
    }

    #[test]
    fn too_few_available_and_too_many_pods_are_told() {
        let mut ledger = four_available();
        retire(&mut ledger, "a", 1);
        assert_eq!(ledger.observed.problems, [] as [&str; 0]);
        retire(&mut ledger, "b", 2);
        assert_eq!(ledger.observed.problems.len(), 2, "too few, and by whom: {:?}", ledger.observed.problems);
        for uid in ["e", "f"] {
            ledger.apply(&Facts { ready_since: None, ..pod(uid) }, at(3));
        }
        assert!(ledger.observed.problems.last().unwrap().contains("6 Pods, 5 allowed"));
        assert_eq!((ledger.observed.lowest_available, ledger.observed.most_pods), (2, 6));
    }

    #[test]
    fn a_kill_excuses_one_missing_instance_until_there_are_enough_again() {
        let mut ledger = four_available();
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
        let mut early = four_available();
        early.killed("b");
        lose(&mut early, "b", 2);
        retire(&mut early, "a", 2);
        assert_eq!(early.observed.problems, [] as [&str; 0], "the operator could not know yet");

        let mut late = four_available();
        late.killed("b");
        lose(&mut late, "b", 2);
        lose(&mut late, "b", 3);
        late.pods.remove("d");
        late.judge(at(4), Some("d"));
        let problems = &late.observed.problems;
        assert!(problems.iter().any(|it| it.contains("d retired with 2 left")), "{problems:?}");
    }
}
