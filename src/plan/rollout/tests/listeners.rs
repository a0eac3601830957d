//! Pods that hold listeners: when they leave, when their batch is done, when it has failed.
use serde_json::json;

use super::fixture::{Fixture, at, say};
use crate::{
    api::status::Failed,
    plan::{revision, rollout::plan},
    snapshot::{AgentSeen, Agents, SessionState},
};

/// One at a time beside the old one.
fn surging(slots: &str, opened: i32) -> Fixture {
    let strategy = json!({"maxSurge": 1, "maxUnavailable": 0, "batchSize": 1});
    Fixture::new(slots, 'b', json!({"strategy": strategy})).opened(opened)
}

impl Fixture {
    /// These Pods' agents hold so many listeners, of which so many run.
    pub(super) fn holding(mut self, held: &[(&str, u32, u32)]) -> Self {
        let busy = |held| if held > 0 { vec![("bots".to_owned(), held)] } else { Vec::new() };
        let seen = |held, running| AgentSeen {
            session: SessionState::Held,
            held,
            running,
            busy: busy(held),
            ..AgentSeen::default()
        };
        let agents = held.iter().map(|(pod, held, running)| ((*pod).to_owned(), seen(*held, *running)));
        self.snapshot.agents = Agents::Seen(agents.collect());
        self
    }

    pub(super) fn agent(&mut self, pod: &str) -> &mut AgentSeen {
        let Agents::Seen(agents) = &mut self.snapshot.agents else { panic!("no agents are asked for") };
        agents.entry(pod.to_owned()).or_default()
    }
}

/// X8: the old Pod of a slot stays until others have what it holds.
#[test]
fn a_pod_that_holds_listeners_leaves_when_they_have_moved() {
    let leaves = "-web-0-a Forward; hold PreviousBatchNotHealthy: batch 1/2: web-0 (old Pod leaves)";
    assert_eq!(surging("ab a", 1).looks(), leaves);
    let world = surging("ab a", 1).holding(&[("web-0-a", 2, 2), ("web-0-b", 0, 0), ("web-1-a", 2, 2)]);
    let held = plan(&world.snapshot);
    assert_eq!(held.leaving, Some(["web-0-a".to_owned()].into()));
    let text = "web-0-a has 2 of bots; hold HandingOver: web-0-a leaves, or is changed, once others have taken over its listeners (2 to move)";
    assert_eq!(say(&held), text);
    let moved = surging("ab a", 1).holding(&[("web-0-a", 0, 0), ("web-0-b", 2, 1), ("web-1-a", 2, 2)]);
    assert_eq!(moved.looks(), leaves);
}

/// Waiting gains nothing if no agent could take over; what is not Ready is not waited for either.
#[test]
fn a_pod_without_an_heir_leaves_at_once() {
    for held in [&[("web-0-a", 2, 2)][..], &[("web-0-a", 2, 2), ("elsewhere", 0, 0)]] {
        assert!(surging("ab a", 1).holding(held).looks().starts_with("-web-0-a Forward"));
    }
    let mut draining = surging("ab a", 1).holding(&[("web-0-a", 2, 2), ("web-0-b", 0, 0)]);
    draining.agent("web-0-b").draining = true;
    assert!(draining.looks().starts_with("-web-0-a Forward"));
    let broken = surging("a~b a", 1).holding(&[("web-0-a", 2, 2), ("web-0-b", 0, 0)]);
    assert!(broken.looks().starts_with("-web-0-a Forward"));
}

/// X8: the next batch waits for the listeners of this one.
#[test]
fn a_batch_is_done_when_its_listeners_run() {
    let waits = surging("b a", 1).holding(&[("web-0-b", 2, 1), ("web-1-a", 2, 2)]);
    assert_eq!(waits.looks(), "hold PreviousBatchNotHealthy: batch 1/2: web-0 (its listeners start)");
    let done = surging("b a", 1).holding(&[("web-0-b", 2, 2), ("web-1-a", 2, 2)]);
    let opened = plan(&done.snapshot).memory.batch.map(|batch| batch.opened);
    assert_eq!(opened, Some(2));
}

#[test]
fn a_listener_that_keeps_failing_on_a_new_pod_fails_its_instance() {
    let failing = |times| {
        let mut world = surging("b a", 1).holding(&[("web-0-b", 2, 1), ("web-1-a", 2, 2)]);
        world.agent("web-0-b").failing = Some((times, "feed-1".into(), "ConnectTimeout".into()));
        plan(&world.snapshot).memory.failed.map(|failed| (failed.reason, failed.message))
    };
    assert_eq!(failing(2), None);
    let message = "web-0: listener feed-1 has failed 3 times in a row: ConnectTimeout";
    assert_eq!(failing(3), Some(("ListenerFailed".into(), message.into())));
}

/// X8: with a start budget the listeners of one Pod take longer than the deadline allows a Pod; each that moves is progress, up
/// to the last one, and a while longer: then the old Pod leaves and, without surge, the new one comes.
#[test]
fn a_hand_over_that_gets_on_is_not_late() {
    let failed = |mut world: Fixture, gained: Option<i64>| {
        world.snapshot.now = at(1_000);
        world.agent("web-1-a").last_gained = gained.map(at);
        plan(&world.snapshot).memory.failed.map(|failed| failed.reason)
    };
    let late = Some("ProgressDeadlineExceeded".to_owned());
    let others = [("web-0-b", 2, 2), ("web-1-a", 2, 2)];
    let surge = |held| surging("ab a", 1).holding(&[&[("web-0-a", held, held)], &others[..]].concat());
    assert_eq!((failed(surge(2), None), failed(surge(2), Some(399))), (late.clone(), late.clone()), "600 s ago");
    assert_eq!([2, 0].map(|held| failed(surge(held), Some(401))), [None, None]);
    let starting = surging("b a", 1).holding(&[("web-0-b", 2, 1), ("web-1-a", 2, 2)]);
    assert_eq!(failed(starting, Some(990)), None, "the last one has yet to start");
    let strategy = json!({"strategy": {"maxUnavailable": 1, "batchSize": 1}});
    for (slots, held) in [("a a", 2), ("a a", 0), ("a- a", 0), (". a", 0)] {
        let world = Fixture::new(slots, 'b', strategy.clone()).opened(1);
        let world = world.holding(&[("web-0-a", held, held), ("web-1-a", 2, 2)]);
        assert_eq!(failed(world, Some(990)), None, "{slots} {held}");
    }
    // What has been seen of it is remembered: the next operator may not have heard of any listener yet.
    let mut world = surge(2);
    world.snapshot.now = at(500);
    world.agent("web-1-a").last_gained = Some(at(450));
    let from = plan(&world.snapshot).memory.batch.unwrap().deadline_from;
    assert_eq!(from.unwrap().0, at(450));
    world.agent("web-1-a").last_gained = Some(at(299));
    assert_eq!(plan(&world.snapshot).memory.batch.unwrap().deadline_from.unwrap().0, at(0), "a write now and then");
    // The clock of a node that is an hour ahead, or a little.
    assert_eq!((failed(surge(2), Some(4_600)), failed(surge(2), Some(1_003))), (late, None));
}

/// A listener that no new Pod can run is handed round among those that have failed with it: others are late all the same.
#[test]
fn a_listener_that_is_handed_round_puts_off_no_deadline() {
    let strategy = json!({"maxSurge": 1, "maxUnavailable": 0, "batchSize": 3, "failureThreshold": 3});
    let failed = |slots: &str| {
        let world = Fixture::new("b b b~", 'b', json!({"strategy": strategy})).opened(3);
        let mut world = world.holding(&[("web-0-b", 2, 1), ("web-1-b", 2, 2), ("web-2-b", 0, 0)]);
        world.snapshot.now = at(1_000);
        world.agent("web-0-b").last_gained = Some(at(990));
        let status = world.snapshot.rollout.status.as_mut().unwrap();
        let (run, revision, reason) = (status.run.unwrap(), "b".into(), "ListenerFailed".into());
        status.failed = Some(Failed { run, revision, reason, slots: slots.into(), ..Failed::default() });
        let failed = plan(&world.snapshot).memory.failed.unwrap();
        (failed.slots, failed.at.is_some())
    };
    assert_eq!(failed("1"), ("1".to_owned(), false), "web-0 has not failed: it gets on");
    assert_eq!(failed("0-1"), ("0-2".to_owned(), true));
}

/// A15: what leaves says what it still has, and when it has nothing any more. What stays costs no write.
#[test]
fn a_pod_that_leaves_says_whether_it_is_drained() {
    let leaving = |held: u32, says: Option<bool>| {
        let mut world = Fixture::new("a-a a", 'a', json!({})).settled().holding(&[
            ("web-0-a", held, held),
            ("web-0-a1", 1, 1),
            ("web-1-a", 1, 1),
        ]);
        let name = world.snapshot.pods.iter().find(|pod| pod.deletion.is_some()).unwrap().name.clone();
        let Agents::Seen(agents) = &mut world.snapshot.agents else { unreachable!() };
        let seen = agents.remove("web-0-a").unwrap();
        agents.insert(name.clone(), seen);
        world.snapshot.pods_mut().find(|pod| pod.name == name).unwrap().drained = says;
        world.looks().replace(&name, "it")
    };
    assert_eq!([None, Some(true)].map(|says| leaving(2, says)), ["it has 2 of bots", "it has 2 of bots"]);
    assert_eq!([None, Some(false)].map(|says| leaving(0, says)), ["it drained", "it drained"]);
    assert_eq!((leaving(2, Some(false)).as_str(), leaving(0, Some(true)).as_str()), ("", ""), "it is said once");
    let staying = |held: u32, says: Option<bool>| {
        let mut world = Fixture::new("a", 'a', json!({})).settled().holding(&[("web-0-a", held, held)]);
        world.snapshot.pod_mut(0).drained = says;
        world.looks()
    };
    assert_eq!([(2, None), (0, None), (2, Some(false))].map(|(held, says)| staying(held, says)), ["", "", ""]);
    assert_eq!(staying(1, Some(true)), "web-0-a has 1 of bots", "it was to leave, and stays");
    let mut unknown = Fixture::new("a-", 'a', json!({})).settled().holding(&[]);
    assert_eq!(unknown.looks().matches("drained").count(), 0, "what it runs is not known");
    unknown.agent("web-0-a").session = SessionState::Lost;
    assert_eq!(unknown.looks().matches("drained").count(), 0);
}

/// A15: the readiness gate says what is known of the session.
#[test]
fn the_gate_opens_with_the_session() {
    let gated = |says| {
        let mut world = Fixture::new("a a", 'a', json!({})).settled();
        (world.snapshot.pod_mut(0).in_service, world.snapshot.pod_mut(0).has_agent) = (Some(says), true);
        world
    };
    assert_eq!(gated(false).looks(), "web-0-a in service: true", "no agent is asked for");
    assert_eq!(gated(true).looks(), "");
    // It has yet to be claimed: a new Pod waits, and one that serves goes on.
    assert_eq!([false, true].map(|says| gated(says).holding(&[]).looks()), ["", ""]);
    assert_eq!(gated(false).holding(&[("web-0-a", 0, 0)]).looks(), "web-0-a in service: true");
    let mut lost = gated(true).holding(&[]);
    lost.agent("web-0-a").session = SessionState::Lost;
    assert_eq!(lost.looks(), "web-0-a in service: false");
    for says in [false, true] {
        let mut unknown = gated(says);
        unknown.snapshot.agents = Agents::Unknown;
        assert_eq!(unknown.looks(), "", "what is not known changes nothing");
    }
}

/// A15
#[test]
fn only_a_pod_with_an_agent_has_the_gate() {
    let gates = |annotations: serde_json::Value, own: serde_json::Value| {
        let template =
            json!({"metadata": {"annotations": annotations}, "spec": {"containers": [], "readinessGates": own}});
        let data = json!({"template": template});
        let (rollout, namespace, rollout_uid, revision, hash) = ("web", "shop", "u", "web-b", "b");
        let recipe = revision::PodRecipe {
            rollout,
            namespace,
            rollout_uid,
            slot: 0,
            revision,
            hash,
            data: &data,
            restarted_at: None,
            package_sha256: None,
            agent_image: Some("registry/agent:1"),
            is_gated: false,
        };
        revision::pod(&recipe, "web-0-b").unwrap()["spec"]["readinessGates"].clone()
    };
    let (ours, own) = (json!({"conditionType": "baton.dev/in-service"}), json!([{"conditionType": "example.com/own"}]));
    assert_eq!(gates(json!({}), own.clone()), own);
    for value in ["own", "install", "sidecar"] {
        assert_eq!(gates(json!({"baton.dev/agent": value}), own.clone()), json!([own[0], ours]), "{value}");
    }
}
