//! Strategy Recreate: no Pod is created while one of another revision is alive.
use std::collections::BTreeSet;

use crate::{
    plan::rollout::{pod::counts::counts, policy::Policy},
    snapshot::{Pod, Snapshot},
};

/// The revisions that are alive, or will be by what is planned.
pub(crate) struct Alive<'a>(BTreeSet<&'a str>);

impl<'a> Alive<'a> {
    /// None where revisions may live side by side.
    pub fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let alive = || all(snapshot).filter(|pod| counts(snapshot, pod)).map(|pod| pod.revision.as_str());
        Policy::of(&snapshot.rollout.spec).is_one_at_a_time().then(|| Self(alive().collect()))
    }

    /// Notes a Pod of this revision as planned; false when others are alive.
    pub fn admit(&mut self, revision: &'a str) -> bool {
        let is_alone = self.0.iter().all(|alive| *alive == revision);
        if is_alone {
            self.0.insert(revision);
        }
        is_alone
    }
}

/// All Pods that run something: also failed ones that were kept for a look by the strategy before.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = &Pod> {
    snapshot.pods.iter().chain(&snapshot.specimens).map(|pod| &**pod)
}

/// The only revision that is alive, if it serves: beside it no other can be made. While the next one is held, lost Pods come back at
/// it, whichever it is.
pub(crate) fn alone(snapshot: &Snapshot) -> Option<&str> {
    if !Policy::of(&snapshot.rollout.spec).is_one_at_a_time() {
        return None;
    }
    let min_ready_seconds = snapshot.rollout.spec.min_ready_seconds;
    let serving = snapshot.pods.iter().find(|pod| pod.is_available(min_ready_seconds, snapshot.now))?;
    let revision = serving.revision.as_str();
    in_the_way(snapshot, revision).next().is_none().then_some(revision)
}

/// Pods that must end before one of this revision is created.
pub(crate) fn in_the_way<'s>(snapshot: &'s Snapshot, revision: &'s str) -> impl Iterator<Item = &'s Pod> {
    let pods = all(snapshot).filter(|_| Policy::of(&snapshot.rollout.spec).is_one_at_a_time());
    pods.filter(move |pod| pod.revision != revision && counts(snapshot, pod))
}

/// Pods whose deletion was requested and whose end was not seen, but is not waited for any more.
pub fn unconfirmed(snapshot: &Snapshot) -> impl Iterator<Item = &Pod> {
    let pods = all(snapshot).filter(|_| Policy::of(&snapshot.rollout.spec).is_one_at_a_time());
    pods.filter(|pod| pod.deletion.is_some() && !pod.is_finished() && !counts(snapshot, pod))
}
