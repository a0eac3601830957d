//! What a Rollout's plan says of its Pods, for the ListenerSets that they serve.
use std::collections::BTreeMap;

use crate::{
    plan::{
        change::Memory,
        rollout::{self, Slot, Slots},
    },
    snapshot::{
        Pod, Snapshot,
        listener_set::{Course, SetPod, SetSnapshot},
    },
};

/// Notes in `snapshot` what becomes of each of its Pods, which are those of `rollout`, and whether any is being replaced.
pub fn note(snapshot: &mut SetSnapshot, rollout: &Snapshot) {
    // What status holds, not what would be written next: listeners follow what is certain.
    let memory = Memory::of(rollout.rollout.status.as_ref());
    let slots = rollout::slots(rollout, &memory);
    // Slots that are not opened yet are assigned the revision before: what fails on the new one must not go back there.
    let effective = memory.effective.as_deref().filter(|_| memory.batch.is_some());
    // While an instance that is to stay is broken, Pods beyond replicas are kept for availability, and hold and take what
    // they can. Those that are to go all the same are in `leaving`.
    let are_all_ready = slots.wanted().all(|slot| slot.live.iter().any(|pod| pod.is_ready()));
    let beyond = if are_all_ready { Course::Leaves } else { Course::Stays };
    let courses = slots.all().flat_map(|slot| courses(&slots, slot, effective, beyond));
    let courses: BTreeMap<&str, Course> = courses.collect();
    for pod in &mut snapshot.pods {
        let course = courses.get(pod.name.as_str()).copied().filter(|_| !snapshot.leaving.contains(&pod.name));
        pod.course = course.unwrap_or(Course::Leaves);
    }
    // One that ends on a lost node may stay so for days, and its place is filled meanwhile.
    let lost_nodes = &snapshot.lost_nodes;
    let is_lost = |pod: &SetPod| pod.is_terminating && pod.node.as_ref().is_some_and(|node| lost_nodes.contains(node));
    let mut present = snapshot.pods.iter().filter(|pod| !is_lost(pod));
    snapshot.is_rolling = memory.batch.is_some() || present.any(|pod| pod.course != Course::Target);
}

/// `effective`: the revision that an open batch works towards. `beyond`: what becomes of Pods beyond replicas.
fn courses<'a>(
    slots: &'a Slots<'a>,
    slot: &'a Slot<'a>,
    effective: Option<&'a str>,
    beyond: Course,
) -> impl Iterator<Item = (&'a str, Course)> {
    let has_heir = slot.fresh && slot.live.first().is_some_and(|best| best.is_ready());
    let course = move |place: usize, pod: &Pod| {
        // What a slot is pinned to is meant to stay.
        let is_effective = slot.pin.is_some() || effective.is_none_or(|effective| pod.revision == effective);
        let is_target = Some(pod.revision.as_str()) == slot.assigned && is_effective && !slots.is_renewal_due(pod);
        match slot.assigned {
            // Listeners are where clients are.
            _ if !slots.is_told_in_use(pod) => Course::Leaves,
            // The revision that it is assigned was deleted: it runs on until its batch comes.
            None if slots.wanted_at(slot.index).is_some() => Course::Stays,
            None => beyond,
            Some(_) if place > 0 && has_heir => Course::Leaves,
            Some(_) if is_target => Course::Target,
            Some(_) => Course::Stays,
        }
    };
    let aside = slot.kept.iter().chain(&slot.others).map(|pod| (0, pod));
    let live = slot.live.iter().enumerate().chain(aside);
    let live = live.map(move |(place, pod)| (pod.name.as_str(), course(place, pod)));
    let ending = slot.finished.iter().chain(&slot.terminating).map(|pod| (pod.name.as_str(), Course::Leaves));
    live.chain(ending)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use serde_json::json;

    use super::*;
    use crate::{plan::rollout::tests::fixture::Fixture, snapshot::listener_set::SetPod};

    /// A word for each Pod of these slots: revision and course.
    fn told(rollout: &Snapshot) -> (Vec<String>, bool) {
        let set = json!({"metadata": {"name": "bots"}, "spec": {"rolloutRef": {"name": "web"}, "listeners": []}});
        let mut snapshot = SetSnapshot {
            set: serde_json::from_value(set).unwrap(),
            listeners: Ok(std::sync::Arc::default()),
            pods: rollout.pods.iter().map(|pod| SetPod::from(&**pod)).collect(),
            sessions: BTreeMap::new(),
            ownerships: BTreeMap::new(),
            taken_names: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            leaving: BTreeSet::new(),
            pods_in_the_end: 0,
            is_rolling: false,
            lost_nodes: BTreeSet::new(),
            now: rollout.now,
            uptime: Duration::ZERO,
        };
        note(&mut snapshot, rollout);
        let words = rollout.pods.iter().map(|pod| {
            let seen = snapshot.pods.iter().find(|known| known.name == pod.name).unwrap();
            format!("{}{} {:?}", pod.slot, pod.revision, seen.course)
        });
        (words.collect(), snapshot.is_rolling)
    }

    #[test]
    fn a_pod_leaves_when_its_heir_is_ready_and_not_before() {
        let rolling = Fixture::new("ab ab~ a a b-", 'b', json!({})).opened(3);
        let (courses, is_rolling) = told(&rolling.snapshot);
        assert_eq!(courses, ["0a Leaves", "0b Target", "1a Stays", "1b Target", "2a Stays", "3a Stays", "4b Leaves"]);
        assert!(is_rolling);
    }

    #[test]
    fn what_is_beyond_replicas_leaves() {
        let shrunk = Fixture::new("a a", 'a', json!({"replicas": 1})).settled();
        assert_eq!(told(&shrunk.snapshot).0, ["0a Target", "1a Leaves"]);
    }

    /// L4: the instances that are to stay are broken, and those beyond wait for them: nothing else can run what there is.
    #[test]
    fn what_is_beyond_replicas_takes_what_nobody_else_can() {
        let mut shrunk = Fixture::new("a~ a a", 'a', json!({"replicas": 1})).settled();
        assert_eq!(told(&shrunk.snapshot).0, ["0a Target", "1a Stays", "2a Stays"]);
        shrunk.snapshot.pods.remove(0);
        assert_eq!(told(&shrunk.snapshot), (vec!["1a Stays".to_owned(), "2a Stays".to_owned()], true));
        let half = Fixture::new("a a~ a", 'a', json!({"replicas": 2})).settled();
        assert_eq!(told(&half.snapshot).0, ["0a Target", "1a Target", "2a Stays"]);
        let all = Fixture::new("a a", 'a', json!({"replicas": 0})).settled();
        assert_eq!(told(&all.snapshot).0, ["0a Leaves", "1a Leaves"], "all go at once, and no Pod takes anything");
    }

    /// X8
    #[test]
    fn a_pinned_pod_is_a_target_in_any_run() {
        let spec = json!({"pins": [{"instances": "0,2", "revision": "c"}]});
        let rolling = Fixture::new("ac a c a", 'b', spec).opened(2);
        assert_eq!(told(&rolling.snapshot).0, ["0a Leaves", "0c Target", "1a Stays", "2c Target", "3a Stays"]);
    }

    /// B3 X8: before the switch the new set gets nothing; with it, all.
    #[test]
    fn listeners_are_where_clients_are() {
        let strategy = json!({"strategy": {"type": "BlueGreen", "blueGreen": {"activeService": "web"}}});
        let rolling = |serving| Fixture::new("ab ab", 'b', strategy.clone()).serving(Some(serving)).opened(2).snapshot;
        assert_eq!(told(&rolling('a')).0, ["0a Stays", "0b Leaves", "1a Stays", "1b Leaves"]);
        assert_eq!(told(&rolling('b')).0, ["0a Leaves", "0b Target", "1a Leaves", "1b Target"]);
        // An operator that has just started has yet to read the Service: nothing moves for that.
        let mut unread = rolling('a');
        unread.services.active = crate::snapshot::ServiceSeen::Unknown;
        unread.rollout.status.as_mut().unwrap().active_revision = Some("a".into());
        assert_eq!(told(&unread).0, ["0a Stays", "0b Leaves", "1a Stays", "1b Leaves"]);
        // Nor for a key that was taken away.
        unread.services = Fixture::new("", 'b', json!({})).serving(None).snapshot.services;
        assert_eq!(told(&unread).0, ["0a Stays", "0b Leaves", "1a Stays", "1b Leaves"]);
    }

    /// L4: the revision that the slots beyond the opened ones are assigned was deleted. Their Pods can take what others hand
    /// over all the same.
    #[test]
    fn what_is_of_a_deleted_revision_stays() {
        let mut rolling = Fixture::new("a a", 'b', json!({})).opened(1);
        rolling.snapshot.revisions.retain(|revision| revision.name != "a");
        assert_eq!(told(&rolling.snapshot).0, ["0a Stays", "1a Stays"]);
    }

    #[test]
    fn nothing_moves_while_nothing_is_replaced() {
        let quiet = Fixture::new("a a", 'a', json!({})).settled();
        assert_eq!(told(&quiet.snapshot), (vec!["0a Target".to_owned(), "1a Target".to_owned()], false));
    }
}
