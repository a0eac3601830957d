//! Changes in place: which Pods stay, at what pace, and when one is believed to run what it was given.
use serde_json::{Value, json};

use super::{
    faults::{live, revisions_run, world},
    fixture::{Fixture, at, say},
    worlds::give_images,
};
use crate::{
    api::{names, rollout::UpdateMethod},
    plan::{
        Change, HoldReason, in_place,
        rollout::{
            failure_of,
            fold::{End, World},
            plan,
        },
    },
    snapshot::{Agents, ChangeRefusal, Container, ContainerState, Pod, Revision, Snapshot},
};

fn imaged(slots: &str, want: char, spec: Value) -> World {
    let mut world = world(slots, want, spec);
    give_images(&mut world.snapshot);
    world
}

fn uids(world: &World) -> Vec<String> {
    world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect()
}

const OF_PODS: [&str; 4] = ["CreatePod", "DeletePod", "ChangeInPlace", "SetInService"];

fn verbs(world: &mut World) -> (End, Vec<String>) {
    let mut said = Vec::new();
    let end = world.run(|_, step| {
        let verbs: Vec<&str> = step.changes.iter().map(Change::verb).filter(|verb| OF_PODS.contains(verb)).collect();
        if !verbs.is_empty() {
            said.push(verbs.join(" "));
        }
    });
    (end, said)
}

/// B4: one after the other leaves service, is changed, and comes back; the Pods stay the Pods they are.
#[test]
fn images_are_changed_in_place() {
    let mut world = imaged("a a a", 'b', json!({"strategy": {"maxUnavailable": 1}}));
    let before = uids(&world);
    let (end, said) = verbs(&mut world);
    assert_eq!((end, revisions_run(&world).as_str(), uids(&world)), (End::Done, "bbb", before));
    assert_eq!(said, ["SetInService", "ChangeInPlace", "SetInService"].repeat(3), "one at a time, and none beside it");
}

/// B4: if no container is touched, no Pod is taken out of service.
#[test]
fn what_touches_no_container_costs_nothing() {
    let mut world = imaged("a a a", 'a', json!({}));
    world.snapshot.rollout.spec.template.0["metadata"]["labels"]["tier"] = json!("gold");
    let before = uids(&world);
    let (end, said) = verbs(&mut world);
    assert_eq!((end, said.len(), uids(&world)), (End::Done, 1, before), "{said:?}");
    assert_eq!(said[0], "ChangeInPlace ChangeInPlace ChangeInPlace");
    assert!(world.snapshot.pods.iter().all(|pod| pod.ready_since == Some(at(-400))));
}

#[test]
fn what_cannot_be_given_to_a_pod_replaces_it_or_is_told() {
    let mut world = imaged("a a", 'b', json!({"strategy": {"maxUnavailable": 1, "maxSurge": 0}}));
    world.snapshot.rollout.spec.template.0["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceOnly;
    let (end, said) = verbs(&mut world);
    let End::Held(hold) = end else { panic!("{end:?}") };
    assert_eq!((hold.reason, said.len()), (HoldReason::NotInPlace, 0));
    assert!(hold.message.starts_with("spec.template.spec.containers[web].env differs"), "{}", hold.message);
    live(&mut world, 10_000);
    assert_eq!(revisions_run(&world), "aa", "and it waits, beyond the progress deadline");
    let before = uids(&world);
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceIfPossible;
    assert_eq!(verbs(&mut world).0, End::Done);
    assert!(before.iter().all(|uid| !uids(&world).contains(uid)));
}

/// It would serve on, as far as anybody knows, until its container is gone. Where nothing else is permitted, so be it.
#[test]
fn a_pod_without_gate_is_replaced_once() {
    for (update, is_replaced) in [(UpdateMethod::InPlaceIfPossible, true), (UpdateMethod::InPlaceOnly, false)] {
        let mut world = imaged("a a", 'b', json!({"strategy": {"maxUnavailable": 1, "maxSurge": 0}}));
        world.snapshot.rollout.spec.strategy.update = update;
        world.snapshot.pods_mut().for_each(|pod| pod.in_service = None);
        let before = uids(&world);
        assert_eq!((verbs(&mut world).0, revisions_run(&world).as_str()), (End::Done, "bb"));
        assert_eq!(uids(&world) != before, is_replaced);
        assert_eq!(world.snapshot.pods.iter().all(|pod| pod.in_service == Some(true)), is_replaced);
    }
}

/// The API server may refuse what it would create: another Pod takes its place then, or it is told.
#[test]
fn a_refused_change_replaces_or_is_told() {
    let mut world = imaged("a a", 'b', json!({"strategy": {"maxUnavailable": 1, "maxSurge": 0}}));
    let refusal = ChangeRefusal { message: "denied by policy".into(), retry_at: at(60) };
    world.snapshot.change_refusals = [("b".to_owned(), refusal.clone())].into();
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceOnly;
    let mut fixture = Fixture { snapshot: world.snapshot.clone() }.opened(2);
    assert!(
        fixture
            .looks()
            .contains("hold NotInPlace: the API server refuses the change of Pods in place: denied by policy")
    );
    assert!(plan(&fixture.snapshot).wake_at.is_some_and(|wake_at| wake_at <= at(60)));
    fixture.snapshot.now = at(60);
    assert!(fixture.looks().contains("web-0-a in service: false"), "and tried again: {}", fixture.looks());
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceIfPossible;
    let before = uids(&world);
    assert_eq!(verbs(&mut world).0, End::Done);
    assert!(before.iter().all(|uid| !uids(&world).contains(uid)));
}

/// B4: the first instance, why, and how many more.
#[test]
fn why_pods_are_replaced_all_the_same_is_told() {
    let told = |maxes: (i32, i32), change: &dyn Fn(&mut Snapshot)| {
        let (unavailable, surge) = maxes;
        let mut world = imaged("a a a", 'b', json!({"strategy": {"maxUnavailable": unavailable, "maxSurge": surge}}));
        change(&mut world.snapshot);
        let found = plan(&Fixture { snapshot: world.snapshot }.opened(3).snapshot).not_in_place;
        found.map(|found| (found.slot, found.why, found.more))
    };
    assert_eq!(told((1, 1), &|_| {}), None);
    let of_field = told((1, 1), &|snapshot| {
        let env = json!([{"name": "A", "value": "1"}]);
        snapshot.rollout.spec.template.0["spec"]["containers"][0]["env"] = env.clone();
        let to = snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap();
        to.data["template"]["spec"]["containers"][0]["env"] = env;
    });
    let why = "spec.template.spec.containers[web].env differs, which a Pod cannot be given in place";
    assert_eq!(of_field, Some((0, why.into(), 2)));
    let refused = told((1, 1), &|snapshot| {
        let refusal = ChangeRefusal { message: "denied by policy".into(), retry_at: at(60) };
        snapshot.change_refusals = [("b".to_owned(), refusal)].into();
    });
    let why = "the API server refuses the change of Pods in place: denied by policy";
    assert_eq!(refused, Some((0, why.into(), 2)));
    let ungated = told((1, 1), &|snapshot| snapshot.pods_mut().for_each(|pod| pod.in_service = None));
    assert_eq!(
        ungated.map(|(slot, why, more)| (slot, why.contains("without the readiness gate"), more)),
        Some((0, true, 2))
    );
    let of_budget = told((0, 1), &|_| {});
    assert_eq!(
        of_budget.map(|(_, why, more)| (why.starts_with("spec.strategy.maxUnavailable is 0"), more)),
        Some((true, 2))
    );
    let unasked = told((1, 1), &|snapshot| snapshot.rollout.spec.strategy.update = UpdateMethod::Replace);
    assert_eq!(unasked, None);
}

/// The gate of a Pod that has no agent waits for none, also where a ListenerSet asks for one.
#[test]
fn a_pod_without_agent_waits_for_none() {
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    give_images(&mut fixture.snapshot);
    fixture.snapshot.agents = Agents::Seen([].into());
    for pod in fixture.snapshot.pods_mut() {
        (pod.in_service, pod.has_agent) = (Some(false), pod.slot == 1);
    }
    let said = say(&plan(&fixture.snapshot));
    assert!(said.contains("web-0-a in service: true") && !said.contains("web-1-a"), "{said}");
}

/// A Pod that a third revision has broken uses up no budget for ever, whether it was made of it or given it.
#[test]
fn what_an_abandoned_image_has_broken_goes_back() {
    let spec = json!({"progressDeadlineSeconds": 600, "strategy": {"batchSize": 1, "maxUnavailable": 1}});
    let mut world = imaged("a a a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 30);
    assert_eq!(revisions_run(&world), "baaa");
    world.snapshot.pods_mut().for_each(|pod| pod.slot = (pod.slot + 1) % 4); // it is not among those that change first
    let names = world.snapshot.pods.iter().map(|pod| pod.slot).collect::<Vec<_>>();
    assert_eq!(names, [1, 2, 3, 0]);
    world.snapshot.rollout.spec.version = Some("c".into());
    give_images(&mut world.snapshot);
    live(&mut world, 500);
    assert_eq!(revisions_run(&world), "cccc");
}

/// With maxUnavailable 0 another Pod stands in.
#[test]
fn where_none_may_be_missing_pods_are_replaced() {
    let mut world = imaged("a a", 'b', json!({"strategy": {"maxUnavailable": 0, "maxSurge": 1}}));
    let before = uids(&world);
    assert_eq!(verbs(&mut world).0, End::Done);
    assert!(before.iter().all(|uid| !uids(&world).contains(uid)));
}

/// A share of 0 by rounding is one: nothing else would ever change.
#[test]
fn a_share_that_rounds_to_none_is_one() {
    let mut world = imaged("a a a", 'b', json!({"strategy": {"maxUnavailable": "25%"}}));
    let before = uids(&world);
    assert_eq!(verbs(&mut world).0, End::Done);
    assert_eq!(uids(&world), before);
}

/// B7: a version that does not start goes back, in place as it came.
#[test]
fn a_failed_version_goes_back_in_place() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"batchSize": 1, "maxUnavailable": 1}});
    let mut world = imaged("a a a", 'b', spec);
    world.broken = vec!["b".into()];
    let before = uids(&world);
    live(&mut world, 300);
    assert_eq!((revisions_run(&world).as_str(), uids(&world)), ("aaa", before));
    let failed = world.snapshot.rollout.status.as_ref().unwrap().failed.as_ref().unwrap();
    assert_eq!((failed.reason.as_str(), failed.slots.as_str()), ("ProgressDeadlineExceeded", "0"));
    assert!(world.snapshot.pods.iter().all(|pod| pod.is_ready()));
}

/// A pause or a new spec between leaving service and the change: it comes back as it is.
#[test]
fn what_left_service_for_nothing_comes_back() {
    let mut world = imaged("a a", 'b', json!({"strategy": {"maxUnavailable": 1}}));
    while !world.snapshot.pods.iter().any(|pod| pod.in_service == Some(false)) {
        let planned = plan(&world.snapshot);
        world.apply(&planned, &planned.changes);
    }
    world.snapshot.rollout.spec.paused = true;
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "aa");
    assert!(world.snapshot.pods.iter().all(|pod| pod.is_ready()));
}

/// The kubelet says in its own time that a Pod without service is not ready: before that nothing is touched.
#[test]
fn a_pod_is_changed_once_the_kubelet_has_followed_its_gate() {
    let mut fixture = Fixture::new("a a", 'b', json!({"strategy": {"maxUnavailable": 1}}));
    give_images(&mut fixture.snapshot);
    let mut fixture = fixture.opened(2);
    assert_eq!(say(&plan(&fixture.snapshot)).split("; ").next(), Some("web-0-a in service: false"));
    fixture.snapshot.pod_mut(0).in_service = Some(false);
    assert!(plan(&fixture.snapshot).changes.is_empty(), "nor is another one taken out: {}", fixture.looks());
    (fixture.snapshot.pod_mut(0).ready_since, fixture.snapshot.pod_mut(0).in_service_since) = (None, Some(at(-1)));
    assert!(plan(&fixture.snapshot).changes.is_empty(), "those who send to it hear of that a moment later");
    assert_eq!(plan(&fixture.snapshot).wake_at, Some(at(1)));
    fixture.snapshot.now = at(1);
    assert_eq!(say(&plan(&fixture.snapshot)).split("; ").next(), Some("web-0-a to b Forward"));
}

fn running(id: &str, image: &str, started: i64) -> Container {
    Container {
        name: "web".into(),
        ready: true,
        restarts: 4,
        state: ContainerState::Running,
        id: id.into(),
        image: image.into(),
        started_at: Some(at(started)),
        ..Container::default()
    }
}

/// A Pod of revision a that was given the image of b, as its status tells next.
fn changed(container: Container) -> Pod {
    let mut fixture = Fixture::new("a", 'b', json!({}));
    give_images(&mut fixture.snapshot);
    let mut pod = (*fixture.snapshot.pods[0]).clone();
    pod.in_service = None;
    pod.containers = vec![Container { given: image("a"), ..running("old", &image("a"), -400) }];
    give(&mut pod, "b");
    pod.containers = vec![Container { given: image("b"), ..container }];
    pod
}

fn image(letter: &str) -> String {
    format!("example.local/web:{letter}")
}

/// As it is stored and read again.
fn give(pod: &mut Pod, letter: &str) {
    let text = json!(pod.remember(&["web"].into(), at(0))).to_string();
    pod.in_place = serde_json::from_str(&text).unwrap();
    pod.containers.iter_mut().for_each(|container| container.given = image(letter));
}

#[test]
fn a_container_is_believed_by_its_own_status_alone() {
    let is_there = |pod: &Pod, second: i64| pod.is_available(0, at(second));
    assert!(!is_there(&changed(running("old", "example.local/web:a", -400)), 1), "nothing has become of it yet");
    assert!(
        !is_there(&changed(running("old", "example.local/web:b", -400)), 999),
        "the old container is the old image's"
    );
    assert!(!is_there(&changed(running("", "example.local/web:b", -400)), 999), "it waits to be made");
    assert!(!is_there(&changed(running("again", "example.local/web:a", 1)), 2), "the old image, restarted");
    assert!(is_there(&changed(running("new", "example.local/web:b", 1)), 2));
    let mut unseen = changed(running("new", "example.local/web:b", 1));
    unseen.is_observed = false;
    assert!(!is_there(&unseen, 2), "a status of an earlier spec");
}

/// Some runtimes know an image of two tags by one of them, and one of none by its digest.
#[test]
fn another_name_of_the_image_is_believed_for_its_content_or_when_the_old_one_would_have_ended() {
    let with_ids = |before: &str, after: &str| {
        let mut pod = changed(running("new", "sha256:config", 1));
        let ran = pod.in_place.as_mut().unwrap().containers.get_mut("web").unwrap().ran.as_mut().unwrap();
        ran.image_id = Some(before.to_owned()).filter(|id| !id.is_empty());
        (pod.containers[0].image_id, pod.grace_seconds) = (after.to_owned(), Some(5));
        pod
    };
    assert!(with_ids("web@sha256:a", "web@sha256:b").is_available(0, at(2)), "it is none from before");
    let digest = format!("sha256:{}", "b".repeat(64));
    let mut by_digest = with_ids("", &format!("web@{digest}"));
    by_digest.containers[0].given = format!("example.local/web@{digest}");
    assert!(by_digest.is_available(0, at(2)));
    for mut pod in [with_ids("web@sha256:a", "web@sha256:a"), with_ids("", "")] {
        assert_eq!((pod.is_available(0, at(15)), pod.available_later(0, at(15))), (false, Some(at(16))));
        assert!(pod.is_available(0, at(16)));
        pod.containers[0].state = ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: String::new() };
        assert_eq!((pod.is_available(0, at(999)), pod.available_later(0, at(999))), (false, None));
    }
}

/// Seed 1630001322: its clock is behind by more than that time.
#[test]
fn another_name_is_believed_no_sooner_where_the_nodes_clock_is_behind() {
    let mut pod = changed(running("new", "sha256:config", -300));
    pod.grace_seconds = Some(5);
    assert_eq!((pod.is_available(0, at(14)), pod.available_later(0, at(14))), (false, Some(at(15))));
}

/// R19: out of service until it is believed, it is looked at when it is.
#[test]
fn what_is_believed_later_is_looked_at_then() {
    let mut fixture = Fixture::new("b", 'b', json!({})).settled();
    let mut pod = changed(running("new", "sha256:config", 1));
    (pod.revision, pod.in_service, pod.grace_seconds) = ("b".into(), Some(false), Some(5));
    fixture.snapshot.pods = vec![pod.into()];
    fixture.snapshot.now = at(2);
    let planned = plan(&fixture.snapshot);
    assert!(planned.wake_at.is_some_and(|wake_at| wake_at <= at(16)), "{:?}", planned.wake_at);
    fixture.snapshot.now = at(16);
    assert!(say(&plan(&fixture.snapshot)).contains("web-0-a in service: true"), "{}", fixture.looks());
}

/// What serves has been believed: another write to its spec, or a crash long after, takes nothing back.
#[test]
fn what_is_in_service_is_believed_for_good() {
    let mut pod = changed(running("newer", "sha256:config", 1));
    (pod.in_service, pod.is_observed) = (Some(true), false);
    assert!(pod.is_available(0, at(2)));
}

/// The image was taken back before the kubelet had seen the other one: the container that runs is the right one.
#[test]
fn what_was_taken_back_unseen_is_as_before() {
    let mut pod = changed(running("old", "example.local/web:a", -400));
    give(&mut pod, "a");
    assert!(pod.is_available(0, at(1)));
    pod.is_observed = false;
    assert!(!pod.is_available(0, at(1)), "unless the kubelet has yet to say so");
    pod.is_observed = true;
    give(&mut pod, "c");
    assert!(!pod.is_available(0, at(1)));
}

/// What a container did before it was changed is no failure of what it was given; what it goes on doing is.
#[test]
fn only_what_happens_since_counts() {
    let pod = changed(running("new", "example.local/web:b", 1));
    assert_eq!((pod.restarts_of(&pod.containers[0]), failure_of(&pod)), (0, None), "4 restarts were before");
    let fails = |reason: &str, message: &str, container: Container| {
        let state = ContainerState::Waiting { reason: reason.into(), message: message.into() };
        failure_of(&changed(Container { state, ..container })).map(|failure| failure.at)
    };
    let crashes = |id: &str, letter: &str| fails("CrashLoopBackOff", "back-off", running(id, &image(letter), 1));
    assert_eq!([crashes("old", "a"), crashes("again", "a"), crashes("new", "b")], [None, None, Some(None)]);
    // The kubelet tells of what was before for as long as it pulls the other image.
    let pulls = |letter: &str| fails("ErrImagePull", &format!("no {}", image(letter)), running("old", &image("a"), 1));
    assert_eq!([pulls("a"), pulls("b")], [None, Some(Some(at(60)))]);
}

fn differing(change: impl Fn(&mut Value)) -> Result<in_place::Difference, String> {
    let from = json!({"version": "1", "template": {
        "metadata": {"labels": {"app": "web", "old": "1"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}, {"name": "log", "image": "log:1", "args": ["a", "b"]}],
                 "initContainers": [{"name": "init", "image": "init:1"}]},
    }});
    let mut to = from.clone();
    change(&mut to);
    in_place::difference(&from, &to)
}

#[test]
fn what_differs_is_named() {
    let field = |change: fn(&mut Value)| differing(change).unwrap_err();
    for (change, named) in [
        (
            (|to| to["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"})) as fn(&mut Value),
            "spec.template.spec.nodeSelector",
        ),
        (
            |to| to["template"]["spec"]["containers"][1]["args"] = json!(["a"]),
            "spec.template.spec.containers[log].args",
        ),
        (
            |to| to["template"]["spec"]["initContainers"][0]["image"] = json!("init:2"),
            "spec.template.spec.initContainers",
        ),
        (
            |to| drop(to["template"]["spec"]["containers"].as_array_mut().unwrap().pop()),
            "spec.template.spec.containers ",
        ),
        (
            |to| to["template"]["metadata"]["annotations"] = json!({names::ANNOTATION_HAS_AGENT: "own"}),
            "spec.template.metadata.annotations[baton.dev/agent]",
        ),
        (|to| to["template"]["metadata"]["finalizers"] = json!(["x"]), "spec.template.metadata.finalizers"),
        (|to| to["package"] = json!({"url": "https://a.b/c.zip", "mountPath": "/opt/app"}), "spec.package"),
        (
            |to| to["template"]["spec"]["containers"][0]["image"] = json!("web:latest"),
            "spec.template.spec.containers[web].imagePullPolicy",
        ),
    ] {
        let why = field(change);
        assert!(why.starts_with(named), "{why}");
    }
}

/// C8: an image is what its reference says, as a container's is: what a first Pod got is not noted.
#[test]
fn a_package_that_is_an_image_is_replaced_only_by_another_one() {
    let data = |package: &str, web: &str| {
        let package = json!({"image": package, "mountPath": "/opt/app"});
        json!({"package": package, "template": {"spec": {"containers": [{"name": "web", "image": web}]}}})
    };
    let from = data("a.b/rules:1", "web:1");
    assert!(in_place::difference(&from, &data("a.b/rules:1", "web:2")).unwrap().restarts());
    let why = in_place::difference(&from, &data("a.b/rules:2", "web:2")).unwrap_err();
    assert_eq!(why, "spec.package.image differs, which a Pod cannot be given in place");
}

#[test]
fn a_patch_says_what_differs_and_nothing_else() {
    let from = json!({"version": "1", "template": {"metadata": {"labels": {"app": "web", "old": "1"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}, {"name": "log", "image": "log:1"}]}}});
    let mut to = from.clone();
    to["version"] = json!("2");
    to["template"]["metadata"]["labels"] = json!({"app": "web", "tier": "gold"});
    to["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    let fixture = Fixture::new("a", 'b', json!({}));
    let revision = |name: &str, data: &Value| Revision {
        name: format!("web-{name}"),
        hash: name.into(),
        data: data.clone(),
        ..fixture.snapshot.revisions[0].clone()
    };
    let mut pod = (*fixture.snapshot.pods[0]).clone();
    pod.containers = vec![Container { restarts: 0, given: "web:1".into(), ..running("id-1", "docker.io/web:1", -9) }];
    let patch = in_place::patch(&pod, &revision("aaa", &from), &revision("bbb", &to), false, at(5)).unwrap().pod;
    assert_eq!(patch["spec"], json!({"containers": [{"name": "web", "image": "web:2"}]}));
    let metadata = &patch["metadata"];
    assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&json!(pod.uid), &json!("7")));
    let labels =
        json!({"old": null, "tier": "gold", "baton.dev/revision": "web-bbb", "controller-revision-hash": "bbb"});
    assert_eq!(metadata["labels"], labels);
    let remembered =
        r#"{"at":"1970-01-12T13:46:45Z","containers":{"web":{"ran":{"id":"id-1","image":"web:1"},"restarts":0}}}"#;
    let annotations =
        json!({"baton.dev/revision": "web-bbb", "baton.dev/version": "2", "baton.dev/in-place": remembered});
    assert_eq!(metadata["annotations"], annotations);
}
