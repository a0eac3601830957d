//! HotReload: who is told, how often, when a batch goes on, and what becomes of who does not answer.
use serde_json::{Value, json};

use super::{
    faults::{live, revisions_run, world},
    fixture::{Fixture, at, say},
};
use crate::{
    api::{Time, names, rollout::UpdateMethod},
    plan::{
        Change, Question, RevisionAct, in_place,
        rollout::{
            fold::{End, World},
            plan, reload,
        },
    },
    snapshot::{InPlace, Pod, Revision, Snapshot, Telling, in_place::Reload},
};

fn spec(more: &Value) -> Value {
    let mut strategy = json!({"update": "HotReload", "hotReload": {"httpPost": {"path": "/reload", "port": 8080}},
        "batchSize": 1, "maxUnavailable": 0});
    strategy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"strategy": strategy})
}

fn uids(world: &World) -> Vec<String> {
    world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect()
}

fn verbs(world: &mut World) -> (End, Vec<String>) {
    let mut said = Vec::new();
    let of_pods = |change: &&Change| {
        !matches!(change, Change::Revision { act: RevisionAct::Mark(_), .. } | Change::Ask(Question::Template { .. }))
    };
    let end = world.run(|_, step| {
        let words = step.changes.iter().filter(of_pods).map(|change| format!("{} {}", change.verb(), change.name()));
        said.extend(words);
    });
    (end, said)
}

fn failed(world: &World) -> (String, String) {
    let failed = world.snapshot.rollout.status.as_ref().and_then(|status| status.failed.clone()).unwrap();
    (failed.reason, failed.message)
}

/// A Pod that was patched at 0, its application untold; the run is on and opened for it.
fn patched(more: &Value) -> Fixture {
    let mut fixture = Fixture::new("b a", 'b', spec(more)).opened(1);
    let in_place = InPlace { at: at(0), containers: [].into(), resources: [].into(), reload: Some(Reload::default()) };
    fixture.snapshot.pod_mut(0).in_place = Some(in_place);
    fixture.settled()
}

fn telling(snapshot: &mut Snapshot, tries: u32, began: i64, answer: Option<Result<(), String>>) {
    let uid = snapshot.pods[0].uid.clone();
    let is_on = answer.is_none();
    let asked_at = Some(at(began)).filter(|_| !is_on);
    snapshot
        .tellings
        .insert(uid, Telling { of: at(0), began_at: at(began), tries, is_on, asked_at, answer, ..Telling::default() });
}

/// B4: the Pods stay and serve on; the next batch waits for the answer.
#[test]
fn each_application_is_told_and_answers_before_the_next() {
    let mut world = world("a a", 'b', spec(&json!({})));
    let before = uids(&world);
    let (end, said) = verbs(&mut world);
    assert_eq!((end, revisions_run(&world).as_str(), uids(&world)), (End::Done, "bb", before));
    let each = |pod: &str| ["ChangeInPlace", "TellApplication", "NoteReloaded"].map(|verb| format!("{verb} {pod}"));
    assert_eq!(said, [each("web-0-a"), each("web-1-a")].concat());
    assert!(world.snapshot.pods.iter().all(|pod| pod.ready_since == Some(at(-400)) && pod.told_at().is_some()));
}

#[test]
fn whatever_else_differs_replaces_the_pod() {
    for (field, value) in [("image", json!("example.local/web:2")), ("env", json!([{"name": "A", "value": "1"}]))] {
        let mut world = world("a a", 'b', spec(&json!({"maxSurge": 1})));
        world.snapshot.rollout.spec.template.0["spec"]["containers"][0][field] = value;
        let before = uids(&world);
        let (end, said) = verbs(&mut world);
        assert_eq!(end, End::Done);
        assert!(said.iter().all(|said| !said.starts_with("ChangeInPlace") && !said.starts_with("Tell")), "{said:?}");
        assert!(uids(&world).iter().all(|uid| !before.contains(uid)));
        assert!(world.snapshot.pods.iter().all(|pod| pod.in_service.is_none()), "no Pod leaves service: no gate");
    }
}

/// B7: who does not reload in time has failed; on the way back all are told of what they had.
#[test]
fn who_does_not_reload_is_taken_back() {
    let mut world = world("a a", 'b', spec(&json!({})));
    world.broken = vec!["b".into()];
    let before = uids(&world);
    live(&mut world, 179);
    assert_eq!((revisions_run(&world).as_str(), world.snapshot.tellings.len()), ("ba", 1));
    live(&mut world, 1_000);
    assert_eq!((revisions_run(&world).as_str(), uids(&world)), ("aa", before));
    let (reason, message) = failed(&world);
    assert_eq!(reason, "ReloadFailed");
    let expected = "web-0: its application has yet to answer POST :8080/reload with 200: answered 503, for 180 s";
    assert_eq!(message, expected);
    assert!(world.snapshot.pods[0].told_at().is_some(), "of what it has again");
    assert!(world.snapshot.pods[1].in_place.is_none(), "and who was told nothing is not");
}

/// Its batch may never come: the run that gave it that was superseded, or it was unpinned since.
#[test]
fn what_refuses_a_version_that_nobody_asks_for_any_more_goes_back() {
    let mut fixture = Fixture::new("b~ c", 'b', spec(&json!({}))).opened(1).settled();
    let in_place = InPlace { at: at(0), containers: [].into(), resources: [].into(), reload: Some(Reload::default()) };
    fixture.snapshot.pod_mut(1).in_place = Some(in_place);
    let uid = fixture.snapshot.pods[1].uid.clone();
    let refused = |asked: i64| {
        let answer = Some(Err("answered 500".to_owned()));
        Telling { of: at(0), began_at: at(asked), tries: 9, asked_at: Some(at(asked)), answer, ..Telling::default() }
    };
    fixture.snapshot.tellings.insert(uid.clone(), refused(179));
    fixture.snapshot.now = at(180);
    assert!(!fixture.looks().contains("web-1-c to"), "it has been asked in time alone: {}", fixture.looks());
    fixture.snapshot.tellings.insert(uid, refused(180));
    assert!(fixture.looks().starts_with("web-1-c to a Back"), "{}", fixture.looks());
    let mut paused = fixture.snapshot.clone();
    paused.rollout.spec.paused = true;
    assert!(!say(&plan(&paused)).contains("web-1-c to"), "it serves: {}", say(&plan(&paused)));
    // Where that takes another Pod it stays until its batch comes.
    let stable = fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "a").unwrap();
    stable.data["template"]["spec"]["containers"][0]["image"] = json!("example.local/web:0");
    assert!(!fixture.looks().contains("web-1"), "{}", fixture.looks());
}

#[test]
fn who_does_not_answer_is_asked_again_and_again() {
    let mut fixture = patched(&json!({}));
    assert_eq!(
        fixture.looks(),
        "tell web-0-b; hold PreviousBatchNotHealthy: batch 1/2: web-0 (its application has yet to answer POST :8080/reload with 200)"
    );
    for (tries, pause) in [(1, 1), (2, 2), (3, 5), (4, 10), (5, 10), (1_000_000, 10)] {
        telling(&mut fixture.snapshot, tries, 20, Some(Err("answered 503: not yet".into())));
        fixture.snapshot.now = at(20 + pause - 1);
        let held = plan(&fixture.snapshot);
        assert!(
            say(&held).starts_with("hold PreviousBatchNotHealthy") && say(&held).contains("200: answered 503: not yet")
        );
        assert_eq!(held.wake_at, Some(at(20 + pause)), "after {tries}");
        fixture.snapshot.now = at(20 + pause);
        assert!(fixture.looks().starts_with("tell web-0-b"));
    }
    telling(&mut fixture.snapshot, 3, 90, Some(Err("answered 503".into())));
    assert!(fixture.looks().starts_with("tell web-0-b"), "the clock was set back: {}", fixture.looks());
    telling(&mut fixture.snapshot, 3, 20, None);
    assert!(fixture.looks().starts_with("hold"), "one call at a time: {}", fixture.looks());
    telling(&mut fixture.snapshot, 3, 20, Some(Ok(())));
    assert!(fixture.looks().starts_with("web-0-b has reloaded"), "{}", fixture.looks());
    // An answer about another change says nothing of this one.
    fixture.snapshot.tellings.values_mut().for_each(|telling| telling.of = at(-5));
    assert!(fixture.looks().starts_with("tell web-0-b"), "{}", fixture.looks());
    // And without the strategy no application is told.
    fixture.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceIfPossible;
    assert!(!fixture.looks().contains("tell"), "{}", fixture.looks());
}

/// Many that do not answer do not keep others waiting for ever.
#[test]
fn so_many_are_told_at_once_the_least_told_first() {
    let mut fixture = Fixture::new(&["b"; 40].join(" "), 'b', spec(&json!({"batchSize": 40}))).opened(40);
    for pod in fixture.snapshot.pods_mut() {
        pod.in_place =
            Some(InPlace { at: at(0), containers: [].into(), resources: [].into(), reload: Some(Reload::default()) });
    }
    let mut fixture = fixture.settled();
    let told = |fixture: &Fixture| fixture.looks().split("; ").filter(|word| word.starts_with("tell ")).count();
    assert_eq!(told(&fixture), 32);
    telling(&mut fixture.snapshot, 1, -100, Some(Err("no".into())));
    assert_eq!(told(&fixture), 32);
    assert!(!fixture.looks().contains("tell web-0-b;"), "its turn comes after the others: {}", fixture.looks());
    telling(&mut fixture.snapshot, 1, 0, None);
    assert_eq!(told(&fixture), 31);
}

/// An operator that was away for longer than the time-out asks before it judges.
#[test]
fn who_was_not_asked_has_not_failed() {
    let mut fixture = patched(&json!({}));
    fixture.snapshot.now = at(400);
    let planned = plan(&fixture.snapshot);
    assert!(say(&planned).starts_with("tell web-0-b"), "{}", say(&planned));
    assert_eq!(planned.memory.failed, None);
    telling(&mut fixture.snapshot, 1, 400, Some(Err("Connection refused".into())));
    let planned = plan(&fixture.snapshot);
    assert_eq!(planned.memory.failed.map(|failed| failed.reason).as_deref(), Some("ReloadFailed"));
    assert_eq!(reload::failure(&fixture.snapshot, &fixture.snapshot.pods[0]).unwrap().at, Some(at(180)));
}

/// Where many are told, calls wait for one another: who was last called before its time was over is called again, and soon.
#[test]
fn who_was_not_asked_again_has_not_failed() {
    let mut fixture = patched(&json!({}));
    fixture.snapshot.now = at(182);
    telling(&mut fixture.snapshot, 4, 179, Some(Err("answered 503: not yet".into())));
    let planned = plan(&fixture.snapshot);
    assert_eq!((planned.memory.failed.is_none(), planned.wake_at), (true, Some(at(189))), "{}", say(&planned));
    fixture.snapshot.now = at(189);
    assert!(fixture.looks().starts_with("tell web-0-b"), "{}", fixture.looks());
    telling(&mut fixture.snapshot, 5, 189, Some(Err("answered 503: not yet".into())));
    assert!(plan(&fixture.snapshot).memory.failed.is_some());
}

/// What a new version does in its first minReadySeconds counts: from when the application runs it.
#[test]
fn a_batch_waits_for_min_ready_seconds_after_the_answer() {
    let mut fixture = patched(&json!({}));
    fixture.snapshot.rollout.spec.min_ready_seconds = 30;
    fixture.snapshot.now = at(10);
    let in_place = fixture.snapshot.pod_mut(0).in_place.as_mut().unwrap();
    in_place.reload = Some(Reload { told_at: Some(at(5)) });
    let planned = plan(&fixture.snapshot);
    assert!(say(&planned).contains("web-0 (ready, available at 1970-01-12T13:47:15Z)"), "{}", say(&planned));
    assert_eq!(planned.wake_at, Some(at(35)));
    fixture.snapshot.now = at(35);
    let planned = plan(&fixture.snapshot);
    assert_eq!(planned.memory.batch.map(|batch| batch.opened), Some(2), "the next batch");
}

/// The application may be mended in place: it is asked on, and with spec.retryAt it gets a new Pod.
#[test]
fn a_retry_makes_new_pods_and_judges_them_anew() {
    let mut world = world("a a", 'b', spec(&json!({"onFailure": "Pause"})));
    world.broken = vec!["b".into()];
    live(&mut world, 400);
    assert_eq!((revisions_run(&world).as_str(), failed(&world).0.as_str()), ("ba", "ReloadFailed"));
    let before = world.snapshot.tellings.values().map(|telling| telling.tries).sum::<u32>();
    live(&mut world, 600);
    let asked = world.snapshot.tellings.values().map(|telling| telling.tries).sum::<u32>() - before;
    assert_eq!(asked, 10, "once a minute");
    world.broken.clear();
    world.snapshot.rollout.spec.retry_at = Some(Time(world.snapshot.now));
    let before = uids(&world);
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bb");
    assert!(!before.contains(&world.snapshot.pods[0].uid), "{:?}", world.snapshot.pods);
    assert!(world.snapshot.pods.iter().all(|pod| pod.untold_since().is_none()));
}

/// What crashes may read its files again in minutes, or never.
#[test]
fn who_does_not_serve_gets_a_new_pod() {
    let fixture = Fixture::new("a~ a", 'b', spec(&json!({"batchSize": 2}))).opened(2);
    assert!(fixture.looks().contains("-web-0-a Forward; web-1-a to b Forward"), "{}", fixture.looks());
}

/// A Pod that ends is not asked.
#[test]
fn who_leaves_is_not_told() {
    let mut fixture = patched(&json!({}));
    fixture.snapshot.pod_mut(0).deletion = Some(at(10));
    assert!(!fixture.looks().contains("tell"), "{}", fixture.looks());
}

/// The Pod says in one write what it is now and that its application is to be told; and then that it was.
#[test]
fn what_is_due_stands_on_the_pod() {
    let data = |tier: &str| json!({"version": "2", "template": {"metadata": {"labels": {"tier": tier}}, "spec": {"containers": []}}});
    let revision = |name: &str, tier: &str| Revision { data: data(tier), ..revision_named(name) };
    let pod = patched(&json!({})).snapshot.pods[0].clone();
    let pod = Pod { in_place: None, ..(*pod).clone() };
    let patch = in_place::patch(&pod, &revision("aaa", "1"), &revision("bbb", "2"), true, at(5)).unwrap().pod;
    assert_eq!(patch["metadata"]["labels"]["tier"], "2");
    let note = patch["metadata"]["annotations"][names::ANNOTATION_IN_PLACE].as_str().unwrap().to_owned();
    assert_eq!(note, r#"{"at":"1970-01-12T13:46:45Z","containers":{},"reload":{}}"#);
    let pod = Pod { in_place: serde_json::from_str(&note).unwrap(), ..pod };
    assert_eq!(pod.untold_since(), Some(at(5)));
    let patch = in_place::reloaded(&pod, at(9)).unwrap();
    assert_eq!((&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]), (&json!(pod.uid), &json!("7")));
    let note = patch["metadata"]["annotations"][names::ANNOTATION_IN_PLACE].as_str().unwrap().to_owned();
    let pod = Pod { in_place: serde_json::from_str(&note).unwrap(), ..pod };
    assert_eq!((pod.untold_since(), pod.told_at(), pod.in_place.unwrap().at), (None, Some(at(9)), at(5)));
}

fn revision_named(name: &str) -> Revision {
    Revision { name: name.into(), ..super::fixture::revision_named('a', 1) }
}
