//! I8: The staleness barrier: no decision before our own writes have come back on the watch.
//!
//! A write leaves a condition here; the next look at the object waits until the [`Index`] meets all of them. A write whose
//! answer was lost is a [`Doubt`], which a read of the object settles. Nothing expires: a condition that is not met in time
//! leads to a new list from the API server (a quorum read, so it contains every write that was answered before it), never
//! to the assumption that all is well.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::snapshot::index::{Index, Kind, ObjectKey};

/// How long an own write may take to come back before the kind is listed anew.
pub const ECHO_TIMEOUT: Duration = Duration::from_secs(30);

/// After this a write without an answer is not done any more: `--request-timeout` of the API server is a minute, and an answer
/// that never came was waited for.
const LATE_WRITES_WITHIN: Duration = Duration::from_mins(2);

/// What must be seen before the next decision about one Rollout.
#[derive(Debug, Default)]
pub struct Barrier {
    /// The watch must have told everything up to here.
    reached: BTreeSet<(Kind, String)>,
    /// (kind, name) → (uid, resourceVersion) that must be superseded, by a newer version or the object's end.
    superseded: BTreeMap<(Kind, String), (String, String)>,
    /// Writes that may or may not have happened, and since when that is not known.
    doubts: BTreeMap<Doubt, Instant>,
    /// A list of this number, or a later one, must have been taken.
    lists: BTreeMap<Kind, u64>,
    /// When to ask for a list because the above is not met.
    overdue_at: Option<Instant>,
}

/// A write without an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// (uid, resourceVersion) that the write required; None for a create.
    pub version: Option<(String, String)>,
}

impl Barrier {
    /// After a create, or one that found its own earlier work: the watch must get as far as its resourceVersion. That is enough for any state of the object
    /// since.
    pub fn await_version(&mut self, kind: Kind, resource_version: &str) {
        self.reached.insert((kind, resource_version.to_owned()));
        self.start_clock();
    }

    /// After a write to an object at this very version, or one that failed because the version is no longer the latest:
    /// the version must be superseded.
    pub fn await_successor(&mut self, kind: Kind, name: &str, uid: &str, resource_version: &str) {
        self.superseded.insert((kind, name.to_owned()), (uid.to_owned(), resource_version.to_owned()));
        self.start_clock();
    }

    /// After a write that may or may not have happened: nothing is decided until [`Self::settle`].
    pub fn doubt(&mut self, doubt: Doubt) {
        self.doubts.entry(doubt).or_insert_with(Instant::now);
    }

    /// What is to be settled, and whether the write can still be done: an API server ends a request that takes longer.
    pub fn doubts(&self) -> impl Iterator<Item = (&Doubt, bool)> {
        self.doubts.iter().map(|(doubt, since)| (doubt, since.elapsed() < LATE_WRITES_WITHIN))
    }

    /// A read after the write has found the object at this (uid, resourceVersion), or not at all: the watches must tell
    /// as much.
    pub fn settle(&mut self, doubt: &Doubt, found: Option<(String, String)>) {
        self.doubts.remove(doubt);
        match (&doubt.version, found) {
            (None, Some((_, resource_version))) => self.await_version(doubt.kind, &resource_version),
            (Some(before), found) if found.as_ref() != Some(before) => {
                self.await_successor(doubt.kind, &doubt.name, &before.0, &before.1);
            }
            _ => {}
        }
    }

    fn start_clock(&mut self) {
        self.overdue_at = Some(Instant::now() + ECHO_TIMEOUT);
    }

    /// True when nothing is awaited any more. Conditions once met are forgotten.
    pub fn is_met(&mut self, index: &Index, namespace: &str, has_list: impl Fn(Kind, u64) -> bool) -> bool {
        let listed: Vec<Kind> =
            self.lists.iter().filter(|(kind, number)| has_list(**kind, **number)).map(|(kind, _)| *kind).collect();
        for kind in listed {
            // The list was asked for after every write noted here, so it shows what became of all of them.
            self.lists.remove(&kind);
            self.reached.retain(|(of, _)| *of != kind);
            self.superseded.retain(|(of, _), _| *of != kind);
        }
        let key = |name: &str| ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() };
        self.reached.retain(|(kind, version)| !index.has_reached(*kind, namespace, version));
        self.superseded.retain(|(kind, name), (uid, version)| {
            index.version(*kind, &key(name)) == Some((uid.as_str(), version.as_str()))
        });
        let met = self.doubts.is_empty() && self.awaited().is_empty();
        if met {
            self.overdue_at = None;
        }
        met
    }

    /// Kinds of which something is awaited.
    fn awaited(&self) -> BTreeSet<Kind> {
        let reached = self.reached.iter().map(|(kind, _)| *kind);
        let superseded = self.superseded.keys().map(|(kind, _)| *kind);
        reached.chain(superseded).chain(self.lists.keys().copied()).collect()
    }

    /// When to look again even if no watch moves.
    pub fn overdue_at(&self) -> Option<Instant> {
        self.overdue_at
    }

    /// Asks for new lists of what has been awaited for too long; returns these kinds.
    pub fn hasten(&mut self, now: Instant, request: impl Fn(Kind) -> u64) -> BTreeSet<Kind> {
        if self.overdue_at.is_none_or(|at| now < at) {
            return BTreeSet::new();
        }
        let awaited = self.awaited();
        for kind in &awaited {
            self.lists.insert(*kind, request(*kind));
        }
        self.start_clock();
        awaited
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::*;
    use crate::snapshot::{index::Event, wire::PodView};

    fn pod(name: &str, resource_version: &str) -> PodView {
        let owner = OwnerReference {
            api_version: "baton.dev/v1alpha1".into(),
            kind: "Rollout".into(),
            name: "web".into(),
            uid: "u1".into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        let labels = [("baton.dev/instance", "0"), ("baton.dev/revision", "r")];
        PodView {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("shop".into()),
                uid: Some(format!("uid-of-{name}")),
                resource_version: Some(resource_version.into()),
                owner_references: Some(vec![owner]),
                labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
                ..ObjectMeta::default()
            },
            ..PodView::default()
        }
    }

    fn index_at(resource_version: &str, pods: &[PodView]) -> Index {
        let mut index = Index::default();
        let listed = Event::Listed { objects: pods.to_vec(), resource_version: resource_version.into() };
        index.on_pod(&None, listed);
        index
    }

    fn is_met(barrier: &mut Barrier, index: &Index) -> bool {
        barrier.is_met(index, "shop", |_, _| false)
    }

    #[tokio::test]
    async fn a_create_is_awaited_until_the_watch_has_come_that_far() {
        let mut barrier = Barrier::default();
        assert!(is_met(&mut barrier, &Index::default()));
        barrier.await_version(Kind::Pod, "12");
        assert!(!is_met(&mut barrier, &index_at("11", &[])));
        // Created and gone again in between: known as well.
        assert!(is_met(&mut barrier, &index_at("13", &[])));
    }

    #[tokio::test]
    async fn a_delete_is_awaited_until_the_version_we_saw_is_superseded() {
        let mut barrier = Barrier::default();
        barrier.await_successor(Kind::Pod, "a", "uid-of-a", "7");
        assert!(!is_met(&mut barrier, &index_at("99", &[pod("a", "7")])));
        assert!(is_met(&mut barrier, &index_at("99", &[pod("a", "8")])));
        barrier.await_successor(Kind::Pod, "a", "uid-of-a", "8");
        assert!(is_met(&mut barrier, &index_at("99", &[])));
    }

    /// Expectations never expire as fulfilled (kubernetes#129795): time alone only leads to a new list.
    #[tokio::test(start_paused = true)]
    async fn time_alone_never_meets_the_barrier() {
        let mut barrier = Barrier::default();
        barrier.await_version(Kind::Pod, "12");
        let stale = index_at("11", &[]);
        assert!(barrier.hasten(Instant::now(), |_| 5).is_empty());
        tokio::time::advance(ECHO_TIMEOUT).await;
        assert_eq!(barrier.hasten(Instant::now(), |_| 5), [Kind::Pod].into());
        assert!(!barrier.is_met(&stale, "shop", |_, number| number <= 4));
        assert!(barrier.is_met(&stale, "shop", |_, number| number <= 5), "a list asked for after the write shows it");
        assert_eq!(barrier.overdue_at(), None);
    }

    /// What cannot be overtaken must not hold up everything for ever.
    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_not_waited_for_longer_than_it_can_take() {
        let mut barrier = Barrier::default();
        let doubt = Doubt { kind: Kind::Pod, name: "a".into(), version: None };
        barrier.doubt(doubt.clone());
        tokio::time::advance(LATE_WRITES_WITHIN / 2).await;
        barrier.doubt(doubt);
        assert!(barrier.doubts().all(|(_, may_come)| may_come));
        tokio::time::advance(LATE_WRITES_WITHIN / 2).await;
        assert!(barrier.doubts().all(|(_, may_come)| !may_come), "counted from the first");
    }

    #[tokio::test]
    async fn a_write_without_an_answer_is_settled_by_a_read_only() {
        let version = |of: &str| Some(("uid-of-a".to_owned(), of.to_owned()));
        // (what the write required, what the read finds, what the watch tells, whether that is enough)
        let cases = [
            (None, None, vec![], true),
            (None, version("12"), vec![], false),
            (None, version("12"), vec![pod("a", "12")], true),
            (version("7"), version("7"), vec![pod("a", "7")], true),
            (version("7"), version("8"), vec![pod("a", "7")], false),
            (version("7"), version("8"), vec![pod("a", "8")], true),
            (version("7"), None, vec![pod("a", "7")], false),
            (version("7"), None, vec![], true),
        ];
        for (required, found, told, enough) in cases {
            let mut barrier = Barrier::default();
            let doubt = Doubt { kind: Kind::Pod, name: "a".into(), version: required };
            barrier.doubt(doubt.clone());
            let newest = told.first().and_then(|pod| pod.metadata.resource_version.clone()).unwrap_or("11".into());
            let index = index_at(&newest, &told);
            assert!(!is_met(&mut barrier, &index), "with any event");
            barrier.settle(&doubt, found.clone());
            assert_eq!(is_met(&mut barrier, &index), enough, "{doubt:?} {found:?}");
        }
    }
}
