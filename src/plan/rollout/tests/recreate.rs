//! Strategy Recreate: the old ones end, then the new ones start.
use serde_json::json;

use super::{
    fixture::{Fixture, at},
    folds::{assert_all_at, tell, world},
};
use crate::{
    api::Time,
    plan::rollout::{fold::End, plan},
    snapshot::{AgentSeen, Agents, SessionState, TemplateCheck},
};

fn recreate() -> serde_json::Value {
    json!({"progressDeadlineSeconds": 30, "strategy": {"type": "Recreate"}})
}

fn looks(slots: &str, opened: i32) -> String {
    Fixture::new(slots, 'b', recreate()).opened(opened).looks()
}

/// B1
#[test]
fn all_old_pods_end_before_the_first_new_one_is_made() {
    let mut world = world("a a a", 'b', recreate());
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'b');
    insta::assert_snapshot!("recreate", story);
}

/// B1 B7: the way back takes the same care.
#[test]
fn a_broken_revision_ends_before_the_old_one_starts_again() {
    let mut world = world("a a", 'b', recreate());
    world.broken = vec!["b".into()];
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'a');
    insta::assert_snapshot!("recreate_back", story);
}

/// B1: it waits for every Pod, also where its own slot is free.
#[test]
fn what_it_waits_for_is_said() {
    let waits = "hold OldPods: web-1-a (a) must end before b starts";
    assert_eq!(looks(". a- . .", 4), waits);
    assert_eq!(looks(". a- c- .", 4), "hold OldPods: web-1-a (a) and 1 more must end before b starts");
    let finished = looks(". ax .", 3);
    assert!(
        finished.starts_with("-web-1-a Finished; +web-0-b Forward; +web-2-b Forward"),
        "it runs no more: {finished}"
    );
}

/// B1: a Pod whose end is not confirmed is not waited for without end, and that is reported.
#[test]
fn a_pod_that_does_not_end_is_given_up() {
    let mut fixture = Fixture::new(". a-", 'b', json!({"strategy": {"type": "Recreate"}})).opened(2);
    fixture.snapshot.now = at(39); // its grace period ended at 10
    assert!(fixture.looks().starts_with("hold OldPods"));
    assert_eq!(plan(&fixture.snapshot).wake_at, Some(at(40)));
    fixture.snapshot.now = at(40);
    assert!(fixture.looks().starts_with("+web-0-b Forward; +web-1-b Forward"), "{}", fixture.looks());
    fixture.snapshot.now = at(0);
    fixture.snapshot.lost_nodes.insert("node-1".into());
    assert!(fixture.looks().starts_with("+web-0-b"), "its node is lost");
    let names: Vec<_> = super::super::unconfirmed(&fixture.snapshot).map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["web-1-a"]);
}

/// B1 R5
#[test]
fn a_lost_pod_comes_back_at_its_own_revision() {
    let spec = json!({"paused": true, "strategy": {"type": "Recreate"}});
    assert_eq!(
        Fixture::new("a .", 'b', spec).opened(0).looks(),
        "+web-1-a Refill; hold Paused: spec.paused is true: kubectl baton resume web"
    );
    assert_eq!(looks("b .", 2), "+web-1-b Forward; hold PreviousBatchNotHealthy: batch 1/1: web-1 (not created yet)");
}

/// B1 R5: nothing may be made beside what runs: while the next version is held, what is lost comes back as that.
#[test]
fn what_is_lost_while_the_next_version_is_held_comes_back_as_what_runs() {
    let held = |slots| {
        let spec = json!({"paused": true, "strategy": {"type": "Recreate"}});
        Fixture::new(slots, 'c', spec).opened(0).settled().looks()
    };
    assert_eq!(held("b b ."), "+web-2-b Refill; hold Paused: spec.paused is true: kubectl baton resume web");
    assert_eq!(
        held("b b! ."),
        "+web-2-b Refill; hold Paused: spec.paused is true: kubectl baton resume web",
        "one of them works"
    );
    assert_eq!(
        held("b! b! ."),
        "-web-0-b Back; -web-1-b Back; hold Paused: spec.paused is true: kubectl baton resume web",
        "none does"
    );
    assert_eq!(
        held(". . ."),
        "+web-0-a Refill; +web-1-a Refill; +web-2-a Refill; hold Paused: spec.paused is true: kubectl baton resume web"
    );
}

/// What is new by scaling joins the run; its revision is never in doubt.
#[test]
fn scaling_joins_the_run() {
    let mut fixture = Fixture::new("b b", 'b', recreate()).opened(2);
    fixture.snapshot.rollout.spec.replicas = 3;
    let fixture = fixture.settled();
    assert_eq!(plan(&fixture.snapshot).memory.batch.map(|batch| batch.opened), Some(3));
    assert!(fixture.looks().starts_with("+web-2-b Forward"), "{}", fixture.looks());
}

/// A restart: all at once, too.
#[test]
fn a_restart_replaces_all_at_once() {
    let mut fixture = Fixture::new("a a a", 'a', recreate());
    fixture.snapshot.rollout.spec.restart_at = Some(Time(at(-1)));
    assert!(fixture.settled().looks().starts_with("-web-0-a Restart; -web-1-a Restart; -web-2-a Restart"));
}

/// The deadline is about new Pods; as long as old ones take to end none is late.
#[test]
fn nobody_is_late_while_old_pods_end() {
    let mut fixture = Fixture::new(". a-", 'b', recreate()).opened(2);
    fixture.snapshot.pod_mut(0).deletion = Some(at(900));
    fixture.snapshot.now = at(600);
    let memory = plan(&fixture.snapshot).memory;
    assert_eq!((memory.failed, memory.batch.unwrap().deadline_from), (None, None));
}

/// No Pod could take over: they end with what they hold, and nothing is handed to those that end with them.
#[test]
fn listeners_stop_with_their_pods() {
    let mut fixture = Fixture::new("a a", 'b', recreate()).opened(2);
    let seen = AgentSeen { session: SessionState::Held, held: 2, running: 2, ..AgentSeen::default() };
    fixture.snapshot.agents = Agents::Seen(["web-0-a", "web-1-a"].map(|pod| (pod.to_owned(), seen.clone())).into());
    let fixture = fixture.settled();
    assert!(fixture.looks().starts_with("-web-0-a Forward; -web-1-a Forward"), "{}", fixture.looks());
    assert_eq!(plan(&fixture.snapshot).leaving, Some(["web-0-a", "web-1-a"].map(str::to_owned).into()));
}

/// All would end at once, and come back as what was complete before: an older version.
#[test]
fn a_restart_is_no_reason_to_go_back_while_the_next_version_is_held() {
    let spec = json!({"restartAt": at(-1).to_string(), "strategy": {"type": "Recreate"}});
    let mut fixture = Fixture::new("b b", 'c', spec).opened(0);
    let refused = TemplateCheck::Refused { message: "denied".into(), recheck_at: at(60) };
    fixture.snapshot.template_checks.insert("c".into(), refused);
    let looks = fixture.settled().looks();
    assert!(!looks.contains("-web"), "{looks}");
}
