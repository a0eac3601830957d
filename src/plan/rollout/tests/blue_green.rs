//! Strategy BlueGreen: a second set, one switch, and what stays how long.
use serde_json::json;

use super::{
    fixture::{Fixture, at, say},
    folds::tell,
};
use crate::{
    api::{
        RolloutStatus, Time,
        rollout::{Abort, Approve},
    },
    plan::{
        Change, Memory, Plan, PodAct, Seen, Selection, revision,
        rollout::{
            Done,
            fold::{End, World},
            plan, slots,
        },
    },
    snapshot::{ServiceSeen, SessionState, Snapshot, Switched},
};

fn spec(more: &serde_json::Value) -> serde_json::Value {
    let mut settings = json!({"activeService": "web"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"progressDeadlineSeconds": 60, "strategy": {"type": "BlueGreen", "blueGreen": settings}})
}

fn blue_green(slots: &str, want: char) -> Fixture {
    Fixture::new(slots, want, spec(&json!({}))).serving(Some('a'))
}

fn begun(slots: &str) -> Fixture {
    let opened = slots.split_whitespace().count() as i32;
    blue_green(slots, 'b').opened(opened).settled()
}

/// What is done, without what holds.
fn does(fixture: &Fixture) -> String {
    say(&Plan { hold: None, ..plan(&fixture.snapshot) })
}

fn selects(snapshot: &Snapshot) -> Option<&str> {
    snapshot.services.active.seen().and_then(|service| service.revision())
}

fn switched_from(fixture: &mut Fixture, from: char, second: i64) {
    let ServiceSeen::Seen(service) = &mut fixture.snapshot.services.active else { unreachable!() };
    service.switched = Some(Switched { from: from.to_string(), at: at(second) });
}

/// B3: the second set, the switch, and the old set half a minute later.
#[test]
fn a_whole_second_set_then_one_switch() {
    let snapshot =
        Fixture::new("a a", 'b', spec(&json!({"previewService": "web-preview"}))).serving(Some('a')).snapshot;
    let mut world = World::new(snapshot, 5);
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_eq!(selects(&world.snapshot), Some("b"));
    insta::assert_snapshot!("blue_green", story);
}

/// B3 C11: within the delay the way back is one switch: no Pod is made, none has gone.
#[test]
fn the_way_back_is_one_switch() {
    let mut world = World::new(blue_green("a a", 'b').snapshot, 5);
    while selects(&world.snapshot) != Some("b") || world.snapshot.rollout.status.as_ref().unwrap().batch.is_some() {
        let planned = plan(&world.snapshot);
        if world.is_quiet(&planned) {
            let next = world.next_event(planned.wake_at).unwrap();
            world.advance(next);
        }
        world.apply(&planned, &planned.changes);
    }
    let back = Fixture::new("", 'a', json!({})).snapshot.rollout;
    world.snapshot.rollout.spec.version = back.spec.version;
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_eq!(selects(&world.snapshot), Some("a"));
    insta::assert_snapshot!("blue_green_back", story);
}

/// B3 B7: clients never see a version that does not come up.
#[test]
fn a_broken_set_is_never_switched_to() {
    let mut world = World::new(blue_green("a a", 'b').snapshot, 5);
    world.broken = vec!["b".into()];
    let (story, end) = tell(&mut world);
    assert_eq!((end, selects(&world.snapshot)), (End::Done, Some("a")));
    insta::assert_snapshot!("blue_green_broken", story);
}

/// B3: with nothing to go back to it switches as soon as it can, also where a person decides later.
#[test]
fn the_first_version_is_switched_to_by_itself() {
    let mut snapshot = Fixture::new(". .", 'b', spec(&json!({"promote": "Manual"}))).serving(None).snapshot;
    snapshot.revisions.retain(|revision| revision.name == "b");
    let mut world = World::new(snapshot, 5);
    let mut held = Vec::new();
    let end = world.run(|_, step| held.extend(step.hold.as_ref().map(|hold| hold.reason.as_str())));
    assert_eq!((end, selects(&world.snapshot)), (End::Done, Some("b")));
    assert!(!held.contains(&"AwaitingApproval"), "{held:?}");
}

/// B3: a person says when.
#[test]
fn a_person_decides_when_to_switch() {
    let manual = spec(&json!({"promote": "Manual", "previewService": "web-preview"}));
    let mut fixture = Fixture::new("ab ab", 'b', manual).serving(Some('a')).opened(2).settled();
    let message = "hold AwaitingApproval: b is available as Service web-preview; waiting for approval to switch Service web to it: kubectl baton promote web, or set spec.approve to {run: 1, batch: 1}";
    assert_eq!(fixture.looks(), format!("Service web-preview: b; {message}"));
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: 1, batch: 1, ..Approve::default() });
    assert_eq!(does(&fixture), "Service web: a → b; Service web-preview: b");
    // Clients have used it before.
    fixture.snapshot.rollout.spec.approve = None;
    fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap().completed_at = Some(at(-2000));
    assert_eq!(does(&fixture), "Service web: a → b; Service web-preview: b");
    fixture.snapshot.rollout.spec.paused = true;
    assert!(
        fixture.looks().ends_with("hold Paused: spec.paused is true: kubectl baton resume web"),
        "{}",
        fixture.looks()
    );
}

#[test]
fn it_is_switched_when_every_instance_is_available() {
    assert_eq!(does(&begun("a a")), "+web-0-b Forward; +web-1-b Forward");
    assert_eq!(does(&begun("ab ab~")), "");
    assert_eq!(does(&begun("ab ab")), "Service web: a → b");
}

/// B3 R5: what either set loses comes back at its own revision; clients' Pods first.
#[test]
fn both_sets_are_kept_whole() {
    assert_eq!(does(&begun("a b")), "+web-1-a Refill; +web-0-b Forward");
    assert_eq!(does(&begun("ab b~")), "+web-1-a Refill");
    let mut grown = begun("ab ab");
    grown.snapshot.rollout.spec.replicas = 3;
    assert_eq!(does(&grown.settled()), "+web-2-a Refill; +web-2-b Forward");
    let mut shrunk = begun("ab ab ab");
    shrunk.snapshot.rollout.spec.replicas = 2;
    assert_eq!(does(&shrunk.settled()), "Service web: a → b; -web-2-a Scale; -web-2-b Scale");
    // After the switch it is the other set that they use.
    assert_eq!(does(&switched("b a", 'b').settled()), "+web-1-b Back; +web-0-a Refill");
    let mut broken = begun("ab a~b ab");
    broken.snapshot.rollout.spec.replicas = 2;
    assert_eq!(does(&broken.settled()), "Service web: a → b; -web-2-b Scale", "clients need the other one");
}

/// Clients use `b`, which has completed, since 20 s; before it was `a`.
fn switched(slots: &str, want: char) -> Fixture {
    let mut fixture = Fixture::new(slots, want, spec(&json!({}))).serving(Some('b'));
    fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap().completed_at = Some(at(-20));
    switched_from(&mut fixture, 'a', -20);
    fixture
}

/// B3: what clients used a moment ago stays for its time, also if it is superseded, or beyond replicas.
#[test]
fn what_clients_used_a_moment_ago_stays_for_its_time() {
    let mut third = switched("ab ab", 'c').opened(2).settled();
    let held = "hold OldPods: web-0-a (a) and 1 more must end before c starts; clients used them until a moment ago, they stay until 1970-01-12T13:46:50Z (spec.strategy.blueGreen.scaleDownDelaySeconds)";
    assert_eq!((third.looks().as_str(), plan(&third.snapshot).wake_at), (held, Some(at(10))));
    let mut hurried = switched("ab ab", 'c').opened(2).settled();
    hurried.snapshot.rollout.spec.strategy.blue_green.as_mut().unwrap().scale_down_delay_seconds = 5;
    assert_eq!(does(&hurried), "-web-0-a Superseded; -web-1-a Superseded", "who cannot wait says so");
    third.snapshot.now = at(10);
    assert_eq!(does(&third), "-web-0-a Superseded; -web-1-a Superseded");
    let broken = switched("a~b ab", 'c').opened(2).settled();
    assert_eq!(does(&broken), "-web-0-a Superseded", "no client uses it");
    let mut shrunk = switched("ab ab ab", 'b');
    shrunk.snapshot.rollout.spec.replicas = 2;
    let mut shrunk = shrunk.settled();
    assert_eq!((does(&shrunk).as_str(), plan(&shrunk.snapshot).wake_at), ("-web-2-b Scale", Some(at(10))));
    shrunk.snapshot.pods.retain(|pod| pod.name != "web-2-b");
    let memory = Memory::of(shrunk.snapshot.rollout.status.as_ref());
    assert!(
        slots(&shrunk.snapshot, &memory).done() == Done::All,
        "what stays for clients keeps nothing from being complete"
    );
    shrunk.snapshot.pods.retain(|pod| pod.name != "web-1-b");
    assert!(does(&shrunk).contains("+web-1-b"), "they take no room from what clients use: {}", shrunk.looks());
    shrunk.snapshot.now = at(10);
    assert!(does(&shrunk).contains("-web-2-a Scale"), "{}", shrunk.looks());
    let mut back = switched("ab ab", 'a').opened(2);
    back.snapshot.rollout.spec.restart_at = Some(Time(at(-1)));
    let mut back = back.settled();
    assert_eq!(does(&back), "", "a restart is no reason to end them either");
    back.snapshot.now = at(10);
    assert_eq!(does(&back.settled()), "-web-0-a Restart; -web-1-a Restart");
}

/// B3 C11: while no Pod of the set in use answers, going back waits for no second instance; a version that clients have
/// not used is another matter.
#[test]
fn the_way_back_is_not_made_to_wait_while_clients_get_nothing() {
    assert_eq!(does(&switched("ab! a~b!", 'a').opened(2).settled()), "Service web: b → a");
    assert_eq!(does(&switched("ab a~b!", 'a').opened(2).settled()), "", "one of them answers");
    assert_eq!(does(&switched("a~b! a~b!", 'a').opened(2).settled()), "", "that has no Ready Pod either");
    assert_eq!(does(&switched("cb! c~b!", 'c').opened(2).settled()), "", "clients have not tried it");
    let mut paused = switched("ab! a~b!", 'a').opened(2).settled();
    paused.snapshot.rollout.spec.paused = true;
    assert_eq!(does(&paused.settled()), "");
}

/// B3 X8: it completes once the listeners have come with the clients; one that fails in the new set takes all back.
#[test]
fn a_run_is_over_when_its_listeners_have_moved() {
    let holding = |old, new| {
        let mut fixture = begun("ab ab").serving(Some('b'));
        switched_from(&mut fixture, 'a', 0);
        fixture.holding(&[("web-0-a", old, old), ("web-1-a", 0, 0), ("web-0-b", new, new), ("web-1-b", 0, 0)])
    };
    let mut moving = holding(2, 0);
    assert_eq!(moving.looks(), "hold PreviousBatchNotHealthy: batch 1/1: web-0 (its listeners move)");
    assert_eq!(holding(0, 2).looks(), "b completed");
    moving.agent("web-0-b").failing = Some((3, "feed-1".into(), "ConnectTimeout".into()));
    let moving = moving.settled();
    assert_eq!(
        does(&moving),
        "b failed (ListenerFailed: web-0: listener feed-1 has failed 3 times in a row: ConnectTimeout)"
    );
    let mut world = World::new(moving.snapshot, 5);
    assert_eq!((world.run(|_, _| {}), selects(&world.snapshot)), (End::Done, Some("a")));
    let mut alone = holding(2, 0);
    alone.agent("web-0-b").session = SessionState::Unclaimed;
    assert_eq!(alone.looks(), "b completed", "no Pod could take them");
}

/// B3: a preview that is superseded ends before the next one is made; what clients use stays.
#[test]
fn a_superseded_preview_ends_first() {
    assert_eq!(does(&begun("ac ac")), "-web-0-c Superseded; -web-1-c Superseded");
    let ending = begun("ac- a");
    assert_eq!(does(&ending), "");
    assert!(ending.looks().contains("hold OldPods: web-0-c (c) must end before b starts"), "{}", ending.looks());
    let lost = begun("c .");
    assert_eq!(does(&lost), "-web-0-c Superseded; +web-0-a Refill; +web-1-a Refill", "clients wait for nothing");
}

/// B3: given up before the switch, the new set goes at once; clients notice nothing.
#[test]
fn an_abort_before_the_switch_ends_the_new_set() {
    let mut fixture = begun("ab ab~");
    fixture.snapshot.rollout.spec.abort = Some(Abort { run: 1 });
    assert_eq!(does(&fixture), "b failed (Aborted: run 1 was aborted)");
    let mut world = World::new(fixture.snapshot, 5);
    assert_eq!(world.run(|_, _| {}), End::Done);
    assert_eq!(selects(&world.snapshot), Some("a"));
    assert!(world.snapshot.pods.iter().all(|pod| pod.revision == "a") && world.snapshot.pods.len() == 2);
}

/// The old set stays until its time is over, also under another leader: the Service says when it was switched.
#[test]
fn the_old_set_stays_for_a_while() {
    let mut fixture = switched("ab ab", 'b').settled();
    assert_eq!((does(&fixture).as_str(), plan(&fixture.snapshot).wake_at), ("", Some(at(10))));
    fixture.snapshot.now = at(10);
    assert_eq!(does(&fixture), "-web-0-a Superseded; -web-1-a Superseded");
}

/// An operator that does not know the Service ends no Pod that clients may use, and begins nothing.
#[test]
fn without_a_service_nothing_is_begun() {
    let looks = |seen: ServiceSeen, opened: i32| {
        let mut fixture = blue_green("ac ac", 'b').opened(opened);
        fixture.snapshot.services.active = seen;
        fixture.settled().looks()
    };
    for opened in [0, 2] {
        let unknown = looks(ServiceSeen::Unknown, opened);
        assert!(!unknown.contains("+web") && !unknown.contains("-web"), "{unknown}");
    }
    let missing = "hold ServiceMissing: there is no Service web: create it, or name another in spec.strategy.blueGreen.activeService";
    assert_eq!(looks(ServiceSeen::Missing, 0), missing);
    let mut fixture = begun("ab ab");
    let mut invalid = |key: &str, value: Option<&str>| {
        let ServiceSeen::Seen(service) = &mut fixture.snapshot.services.active else { unreachable!() };
        service.selector = value.map(|value| (key.to_owned(), value.to_owned())).into_iter().collect();
        fixture.looks()
    };
    let other =
        "hold ServiceInvalid: Service web selects app=other, which Pods of spec.template do not have: make them agree";
    assert_eq!(invalid("app", Some("other")), other);
    assert_eq!(invalid("baton.dev/rollout", Some("web")), "Service web: a → b", "it says which Rollout's");
    fixture.snapshot.services.claimed_by = Some("shop".into());
    assert!(fixture.looks().starts_with("hold ServiceInvalid: Rollout shop names the same Service"));
}

/// R1: as long as the Service is not known, what another set has is no comfort to clients of this one (seed 1680000368).
#[test]
fn without_a_service_nothing_that_either_set_may_need_is_scaled_away() {
    let looks = |slots: &str, seen: ServiceSeen| {
        let mut fixture = begun(slots);
        fixture.snapshot.rollout.spec.replicas = 2;
        fixture.snapshot.services.active = seen;
        fixture.settled().looks()
    };
    let unknown = looks("a~b a ab", ServiceSeen::Unknown);
    assert!(!unknown.contains("-web") && unknown.contains("ServiceUnread"), "{unknown}");
    assert!(looks("a a a", ServiceSeen::Unknown).contains("-web-2-a Scale"), "all that clients can use");
    assert!(looks("a a ab~", ServiceSeen::Unknown).contains("-web-2-b Scale"), "no client uses it");
}

/// The key was taken away: clients get no Pod of the new set before its time.
#[test]
fn a_key_that_is_gone_is_set_again() {
    let mut fixture = begun("ab ab~");
    fixture = fixture.serving(None).settled();
    assert_eq!(does(&fixture), "Service web: a");
    assert_eq!(does(&Fixture::new("a a", 'a', spec(&json!({}))).serving(None).settled()), "Service web: a");
    // What clients used, as far as anybody remembers; else what takes least from them.
    fixture.snapshot.rollout.status.as_mut().unwrap().active_revision = Some("b".into());
    assert_eq!(does(&fixture.settled()), "Service web: b");
    let most = |slots| does(&begun(slots).serving(None).settled());
    assert_eq!(most("a~b a~b ab~"), "Service web: b");
    assert_eq!(most("ab a~b ab~"), "Service web: a", "as many of both");
    let mut gone = begun("ab ab~").serving(Some('x')).settled();
    assert_eq!(does(&gone), "Service web: x → a", "it selects what does not exist");
    gone.snapshot.rollout.status.as_mut().unwrap().active_revision = Some("x".into());
    assert_eq!(does(&gone), "Service web: x → a");
}

/// B3: after a change of strategy or Services, clients get Pods of every version before one leaves.
#[test]
fn a_service_that_is_named_no_more_is_let_go_first() {
    let left = |seen: ServiceSeen, want: char| {
        let strategy = json!({"strategy": {"maxSurge": 0, "maxUnavailable": 1}});
        let mut fixture = Fixture::new("a a", want, strategy).serving(None);
        let services = std::mem::take(&mut fixture.snapshot.services);
        assert!(services.active.seen().is_some());
        fixture.snapshot.services.former = [("web".to_owned(), seen)].into();
        fixture.opened(2).settled()
    };
    let seen = |revision| Fixture::new("", 'a', json!({})).serving(revision).snapshot.services.active;
    let held = "hold ServiceUnread: spec.strategy names Service web no more, which still selects a alone: no Pod is ended or changed until it selects Pods of any version";
    let selecting = left(seen(Some('a')), 'b');
    assert_eq!(selecting.looks(), format!("Service web: any; {held}"));
    assert_eq!(plan(&selecting.snapshot).memory.services, ["web"]);
    assert_eq!(does(&left(seen(Some('a')), 'a')), "Service web: any", "also at rest");
    assert!(!does(&left(ServiceSeen::Unknown, 'b')).contains("-web"), "it may select them");
    for free in [seen(None), ServiceSeen::Missing] {
        let free = left(free, 'b');
        assert!(plan(&free.snapshot).memory.services.is_empty());
        assert_eq!(does(&free), "-web-0-a Forward");
    }
    let mut world = World::new(selecting.snapshot, 5);
    let mut story = Vec::new();
    assert_eq!(world.run(|_, step| story.extend(step.changes.iter().map(Change::verb))), End::Done);
    let at = |verb| story.iter().position(|done| *done == verb).unwrap();
    assert!(at("SwitchService") < at("DeletePod"), "{story:?}");
}

/// B3: it is let go also if the strategy changes in the next moment.
#[test]
fn a_service_is_remembered_before_it_is_switched() {
    let mut fixture = Fixture::new("b b", 'b', spec(&json!({}))).opened(2).settled();
    fixture = fixture.serving(None);
    let first = plan(&fixture.snapshot);
    assert_eq!((does(&fixture).as_str(), first.memory.services), ("", vec!["web".to_owned()]));
    assert!(does(&fixture.settled()).contains("Service web: b"));
}

/// Seed 1620001943: from batches to a second set, when all instances had the new version. As long as its Service was not read a
/// whole set of the old one was made that no instance ran any more.
#[test]
fn no_set_is_made_anew_for_clients_of_whom_nobody_knows() {
    let fixture = Fixture::new("b b", 'b', spec(&json!({}))).opened(2).settled();
    assert!(!does(&fixture).contains("-a"), "{}", fixture.looks());
    let fixture = Fixture::new("b ab b", 'b', spec(&json!({}))).opened(3).settled();
    assert!(does(&fixture).contains("+web-0-a Refill"), "in doubt clients use the stable one: {}", fixture.looks());
}

/// Seed 1650001600: it was complete once, and its revision was deleted since.
#[test]
fn the_way_back_needs_nobodys_word() {
    let mut fixture =
        Fixture::new("ac ac", 'b', spec(&json!({"promote": "Manual"}))).serving(Some('c')).opened(2).settled();
    for revision in &mut fixture.snapshot.revisions {
        revision.completed_at = None;
        revision.failed_at = Some(at(-1)).filter(|_| revision.name == "b");
    }
    assert_eq!(does(&fixture.settled()), "Service web: c → a");
}

/// A restart: a new Pod beside each old one, within the set that clients use.
#[test]
fn a_restart_goes_with_surge() {
    let mut fixture = blue_green("a a", 'a');
    fixture.snapshot.rollout.spec.restart_at = Some(Time(at(-1)));
    assert_eq!(does(&fixture.settled()), "+web-0-a-1 Restart; +web-1-a-1 Restart");
}

/// Seed 1510000253: the key was taken away, the stable revision was deleted, and its Pods are lost. What is left of a version
/// that was superseded stayed for clients who may use it, and the next one waited for it to end.
///
/// R15
#[test]
fn what_is_left_of_an_abandoned_version_holds_the_next_one_no_longer_than_clients_use_it() {
    for (slots, first) in [("c c", "Service web: c"), ("c~ c~", "-web-0-c Superseded; -web-1-c Superseded")] {
        let mut fixture = Fixture::new(slots, 'b', spec(&json!({}))).serving(None).opened(2);
        fixture.snapshot.revisions.retain(|revision| revision.name != "a");
        let fixture = fixture.settled();
        assert_eq!(does(&fixture), first, "{}", fixture.looks());
        let mut world = World::new(fixture.snapshot, 5);
        assert_eq!(world.run(|_, _| ()), End::Done);
        assert_eq!((super::faults::revisions_run(&world).as_str(), selects(&world.snapshot)), ("bb", Some("b")));
    }
}

/// A preview was never given to clients: with another strategy it has yet to begin, batch by batch.
#[test]
fn a_preview_that_waits_for_its_switch_begins_anew_with_another_strategy() {
    let strategy = json!({"strategy": {"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1}});
    let mut fixture = Fixture::new("ab ab", 'b', strategy).serving(Some('a')).opened(2);
    let services = std::mem::take(&mut fixture.snapshot.services);
    fixture.snapshot.services.former = [("web".to_owned(), services.active)].into();
    let first = plan(&fixture.snapshot);
    assert_eq!(first.memory.batch.as_ref().map(|batch| batch.opened), Some(0), "{}", say(&first));
    assert!(first.changes.is_empty(), "it is remembered before the Service does not say it any more: {}", say(&first));
    let fixture = fixture.settled();
    assert!(does(&fixture).starts_with("Service web: any"), "{}", fixture.looks());
    let mut world = World::new(fixture.snapshot, 5);
    let mut most_at_once = 0;
    let end = world.run(|_, step| {
        let leaves = |change: &&Change| matches!(change, Change::Pod { seen: Seen { name, .. }, act: PodAct::Delete { .. } } if name.ends_with("-a"));
        most_at_once = most_at_once.max(step.changes.iter().filter(leaves).count());
    });
    assert_eq!((end, most_at_once), (End::Done, 1));
    assert_eq!(super::faults::revisions_run(&world), "bb");
}

/// What a strategy before has left beside an instance that has arrived is surplus: nothing is pinned.
#[test]
fn an_old_set_that_is_left_over_is_surplus() {
    let strategy = json!({"strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut fixture = Fixture::new("ac ac", 'a', strategy).settled();
    fixture.snapshot.rollout.status.as_mut().unwrap().batch = None;
    assert_eq!(does(&fixture), "-web-0-c Surplus; -web-1-c Surplus");
}

/// A tool that applies the Service server-side, by force, leaves `spec.selector` alone where its manifest has none.
#[test]
fn a_service_without_a_selector_is_given_the_rollouts() {
    let mut fixture = begun("ab ab");
    let ServiceSeen::Seen(service) = &mut fixture.snapshot.services.active else { panic!("a Service") };
    service.selector.clear();
    let snapshot = fixture.settled().snapshot;
    let given = plan(&snapshot).changes.into_iter().find_map(|change| match change {
        Change::Service { seen: Seen { name, .. }, select: Selection { revision, labels, .. } } => {
            Some((name, revision, labels))
        }
        _ => None,
    });
    let labels = [("app".to_owned(), "web".to_owned())].into();
    assert_eq!(given, Some(("web".into(), Some("b".into()), labels)));
    let mut world = World::new(snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    let ServiceSeen::Seen(service) = &world.snapshot.services.active else { panic!("a Service") };
    assert_eq!(service.selector.get("app").map(String::as_str), Some("web"));
    assert_eq!(service.revision(), Some("b"));
}

/// Seed 4242000899: before anything has completed a version may be superseded again and again, and what was Ready stayed.
#[test]
fn sets_of_superseded_first_versions_do_not_pile_up() {
    let looks = |slots: &str, seen: Option<ServiceSeen>| {
        let ready_late = json!({"minReadySeconds": 500, "progressDeadlineSeconds": 600});
        let mut fixture = Fixture::new(slots, 'c', spec(&json!({}))).serving(None);
        let mut all = serde_json::to_value(&fixture.snapshot.rollout.spec).unwrap();
        all.as_object_mut().unwrap().extend(ready_late.as_object().unwrap().clone());
        fixture.snapshot.rollout.spec = serde_json::from_value(all).unwrap();
        fixture.snapshot.revisions.iter_mut().for_each(|revision| revision.completed_at = None);
        let data = revision::data(&fixture.snapshot.rollout.spec);
        fixture.snapshot.revisions.iter_mut().filter(|it| it.name == "c").for_each(|it| it.data = data.clone());
        if let Some(seen) = seen {
            fixture.snapshot.services.active = seen;
        }
        let run = RolloutStatus { run: Some(3), update_revision: Some("b".into()), ..RolloutStatus::default() };
        fixture.snapshot.rollout.status = Some(run);
        fixture.settled().looks()
    };
    assert!(looks("a", None).starts_with("+web-0-c Refill; "), "beside one of another version it is made");
    let waits = "hold OldPods: web-0-a (a) and 1 more must end before c starts";
    assert_eq!(looks("ab", None), format!("-web-0-b Superseded; {waits}"));
    assert_eq!(looks("ab", Some(ServiceSeen::Missing)).split("; ").next(), Some("-web-0-b Superseded"));
    let unread = looks("ab", Some(ServiceSeen::Unknown));
    assert!(!unread.contains("web-0-c") && !unread.contains("-web-0-b "), "clients may use either: {unread}");
}
