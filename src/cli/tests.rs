//! The looks, as plain text.
use serde_json::json;

use super::draw::{
    self, Options,
    list::{Row, list},
};
use crate::{
    api::{Time, rollout::UpdateMethod},
    plan::rollout::{
        fold::World,
        plan,
        tests::{
            fixture::{Fixture, at},
            worlds::give_images,
        },
    },
    snapshot::{Agents, Container, ContainerState, PodPhase, Snapshot},
    status::rollout::status,
    view::{
        Tone,
        preview::preview,
        rollout::{PODS_LISTED_MAX, view},
    },
};

/// A snapshot as it would be fetched: with the status that the operator would have written, and containers.
fn seen(mut fixture: Fixture) -> Snapshot {
    let snapshot = &mut fixture.snapshot;
    snapshot.rollout.metadata.creation_timestamp = Some(Time(at(-7 * 86_400)));
    for pod in snapshot.pods_mut().filter(|pod| pod.containers.is_empty()) {
        let running = ContainerState::Running;
        let ready = pod.ready_since.is_some();
        pod.containers = vec![Container { name: "web".into(), ready, state: running, ..Container::default() }];
    }
    let written = status(snapshot, &plan(snapshot), &[]);
    snapshot.rollout.status = Some(written);
    fixture.snapshot
}

fn look(snapshot: &Snapshot, wide: bool) -> String {
    let options = Options { wide, width: None, now: at(0) };
    let lines = draw::rollout(&view(snapshot, PODS_LISTED_MAX), options).join("\n");
    anstream::adapter::strip_str(&lines).to_string()
}

#[test]
fn each_instance_has_a_line() {
    let fixture = Fixture::new("b ab! .", 'b', strategy(2, 1, 1)).opened(2);
    let told = draw::instances(&crate::view::instances::instances(&seen(fixture)), false);
    let expected = [
        "INSTANCE  POD      VERSION  TARGET  STATE      REASON",
        "web-0     web-0-b  b        b       Available",
        "web-1     web-1-a  a        b       Available",
        "web-1     web-1-b  b        b       Failed     CrashLoopBackOff",
        "web-2                       a       Missing",
    ];
    assert_eq!(told, expected);
}

fn strategy(batch: i32, surge: i32, unavailable: i32) -> serde_json::Value {
    json!({"strategy": {"batchSize": batch, "maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn in_mid_roll() {
    let mut fixture = Fixture::new("b b ab~ ab~ a a a a", 'b', strategy(2, 2, 0)).opened(4);
    let pulling = fixture.snapshot.pods_mut().find(|pod| pod.slot == 3 && pod.revision == "b").unwrap();
    pulling.phase = PodPhase::Pending;
    pulling.created = at(-12);
    pulling.started_at = Some(at(-12));
    pulling.initialized_at = Some(at(-12));
    let waiting = ContainerState::Waiting { reason: "ImagePullBackOff".into(), message: "no such image".into() };
    pulling.containers = vec![Container { name: "web".into(), state: waiting, ..Container::default() }];
    insta::assert_snapshot!("in_mid_roll", look(&seen(fixture), false));
}

#[test]
fn complete_and_wide() {
    let mut fixture = Fixture::new("a a a", 'a', json!({})).settled();
    for (pod, last) in fixture.snapshot.pods_mut().zip(1..) {
        pod.ip = Some(format!("10.0.0.{last}"));
    }
    insta::assert_snapshot!("complete_and_wide", look(&seen(fixture), true));
}

#[test]
fn rolled_back_says_what_runs_and_what_to_do() {
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    let mut world = World::new(Fixture::new("a a a", 'b', spec).snapshot, 5);
    world.broken = vec!["b".into()];
    world.run(|_, _| {});
    let mut fixture = Fixture::new("", 'b', json!({}));
    fixture.snapshot = world.snapshot;
    fixture.snapshot.rollout.status = None;
    let fixture = fixture.settled();
    insta::assert_snapshot!("rolled_back", look(&seen(fixture), false));
}

/// Instances that went back from a version are none of its batch any more.
#[test]
fn a_batch_tells_who_went_back() {
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": {"batchSize": 2, "maxSurge": 2, "onFailure": "RollbackFailed"}});
    for (slots, line) in
        [("b! b! a", "✖ went back  instances 0-1"), ("b! b a", "✔ done       instances 1; 0 went back")]
    {
        let mut world = World::new(Fixture::new(slots, 'b', spec.clone()).opened(2).snapshot, 5);
        world.run(|_, _| {});
        let mut fixture = Fixture::new("", 'b', json!({}));
        fixture.snapshot = world.snapshot;
        let told = look(&seen(fixture), false);
        let batch = told.lines().find(|line| line.contains("batch 1/2")).unwrap();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(words(batch).join(" ").contains(&words(line).join(" ")), "{told}");
    }
}

#[test]
fn an_instance_without_a_pod_has_a_line() {
    let fixture = Fixture::new("b . b- a", 'b', strategy(3, 1, 1)).opened(3);
    insta::assert_snapshot!("missing", look(&seen(fixture), false));
}

#[test]
fn many_pods_are_collapsed_to_those_that_are_not_well() {
    let slots: Vec<&str> = (0..400)
        .map(|slot| match slot {
            149 => "ab!",
            150..170 => "ab~",
            0..149 | 170..200 => "b",
            _ => "a",
        })
        .collect();
    let spec = json!({"strategy": {"batchSize": 20, "maxSurge": 30, "maxUnavailable": 0, "failureThreshold": 5}});
    let fixture = Fixture::new(&slots.join(" "), 'b', spec).opened(200);
    let text = look(&seen(fixture), false);
    assert!(text.lines().count() < 40, "{text}");
    insta::assert_snapshot!("many", text);
}

#[test]
fn a_line_for_logs() {
    let fixture = Fixture::new("b ab~ a a", 'b', strategy(2, 1, 0)).opened(2);
    let line = draw::line(&view(&seen(fixture), PODS_LISTED_MAX).header);
    let line = anstream::adapter::strip_str(&line).to_string();
    assert_eq!(line, "◌ RollingOut  a → b  1/4  batch 1/2: web-1 (ContainersNotReady)");
}

#[test]
fn an_honest_eta() {
    let eta = |fixture: Fixture| view(&seen(fixture), PODS_LISTED_MAX).header.eta_seconds;
    let mut fixture = Fixture::new("b b b~ a a a", 'b', strategy(3, 1, 1)).opened(3);
    let paced = |fixture: &mut Fixture| {
        for (pod, second) in fixture.snapshot.pods_mut().filter(|pod| pod.is_ready()).zip([-5, 0, 0, 0, 0]) {
            pod.ready_since = Some(at(second));
        }
    };
    paced(&mut fixture);
    assert_eq!(eta(fixture), Some(20), "two in 10 s since the batch was opened, four are left");
    assert_eq!(eta(Fixture::new("b b~ b~ a a a", 'b', strategy(3, 1, 1)).opened(3)), None, "one is no pace");
    let asks = json!({"strategy": {"batches": [{"upTo": 3}, {"upTo": 4, "pause": {}}], "maxSurge": 1}});
    let mut fixture = Fixture::new("b b b~ a a a", 'b', asks).opened(3);
    paced(&mut fixture);
    assert_eq!(eta(fixture), None, "it is unknown when a person approves");
}

fn foretold(fixture: Fixture) -> String {
    let replicas = fixture.snapshot.rollout.spec.replicas;
    let lines = draw::preview("web", replicas, &preview(fixture.snapshot), 0).join("\n");
    anstream::adapter::strip_str(&lines).to_string()
}

#[test]
fn plan_tells_batches_pauses_and_bounds() {
    let batches = json!([{"upTo": 1, "pause": {}}, {"upTo": 3, "pause": {"seconds": 600}}]);
    let spec = json!({"strategy": {"batches": batches, "maxSurge": 2, "maxUnavailable": 1}});
    insta::assert_snapshot!("plan_batches", foretold(Fixture::new("a a a a a a", 'b', spec).settled()));
}

/// R21 X12: also before the first instance, and after the last; and what is already approved is none.
#[test]
fn plan_tells_where_a_person_is_asked() {
    let of = |slots: &str, batches: serde_json::Value| {
        Fixture::new(slots, 'b', json!({"strategy": {"batches": batches, "maxSurge": 1, "maxUnavailable": 0}}))
    };
    let staging = of("a", json!([{"upTo": 1, "pause": {}}]));
    let both = json!([{"upTo": 0, "pause": {}}, {"upTo": "50%"}, {"upTo": 1, "pause": {"seconds": 60}}]);
    let waits = of("b b", json!([{"upTo": "100%", "pause": {}}])).opened(2).settled();
    let mut approved = of("a", json!([{"upTo": 1, "pause": {}}])).settled();
    approved.snapshot.rollout.spec.approve =
        Some(crate::api::rollout::Approve { run: 1, batch: -1, ..Default::default() });
    let all = [staging.settled(), of("a a a a", both).settled(), waits, approved].map(foretold).join("\n\n");
    insta::assert_snapshot!("plan_pauses", all);
}

#[test]
fn plan_of_a_new_one_of_scaling_and_of_nothing() {
    let mut fresh = Fixture::new(". . .", 'a', json!({}));
    fresh.snapshot.revisions.clear();
    fresh.snapshot.template_checks.clear();
    let mut scaled = Fixture::new("a a a", 'a', json!({})).settled();
    scaled.snapshot.rollout.spec.replicas = 5;
    let nothing = Fixture::new("a a a", 'a', json!({})).settled();
    let mut restart = Fixture::new("a a a", 'a', strategy(2, 1, 0)).settled();
    restart.snapshot.rollout.spec.restart_at = Some(Time(at(-1)));
    let mut later = Fixture::new("a a a", 'a', strategy(2, 0, 1)).settled();
    later.snapshot.rollout.spec.restart_at = Some(Time(at(3600)));
    let paused = Fixture::new("a a", 'b', json!({"paused": true})).settled();
    let mut pinned = Fixture::new("a a", 'a', json!({})).settled();
    let pins = json!([{"instances": "1", "revision": "web-nope"}, {"instances": "77", "revision": "a"}]);
    pinned.snapshot.rollout.spec.pins = serde_json::from_value(pins).unwrap();
    let all = vec![fresh, scaled, nothing, restart, later, paused, pinned];
    let all = all.into_iter().map(foretold).collect::<Vec<_>>().join("\n\n");
    insta::assert_snapshot!("plan_others", all);
}

/// On a terminal of 80 columns lines are broken at spaces, and what goes on stands below the column it belongs to.
#[test]
fn plan_fits_a_terminal() {
    let batches = json!([{"upTo": 1, "pause": {}}, {"upTo": 3, "pause": {"seconds": 600}}]);
    let spec = json!({"strategy": {"batches": batches, "maxSurge": 2, "maxUnavailable": 1}});
    let told = foretold(Fixture::new("a a a a a a", 'b', spec).settled());
    let folded: Vec<String> = told.lines().flat_map(|line| draw::folded(line, Some(80))).collect();
    assert!(folded.iter().all(|line| line.chars().count() <= 80), "{}", folded.join("\n"));
    insta::assert_snapshot!("plan_folded", folded.join("\n"));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&folded.join("\n")), words(&told), "nothing is lost");
    assert_eq!(draw::folded("a line", None), ["a line"]);
    assert_eq!(draw::folded("a line  of a table", Some(9)), ["a line of", "a table"], "too narrow for columns");
}

/// A line for each Rollout: on a terminal what is long is cut short, not wrapped.
#[test]
fn rollouts_have_a_line_each() {
    let row = |name: &str, tone, word: &str, message: &str| Row {
        namespace: "shop".into(),
        name: name.into(),
        ready: "3/4".into(),
        updated: 3,
        state: (tone, word.into()),
        version: "1.0 → 1.1".into(),
        created: Some(at(-90)),
        message: message.into(),
    };
    let long =
        "batch 1/2 is done; waiting for approval: kubectl baton approve web, or set spec.approve to {run: 6, batch: 1}";
    let all = [row("web", Tone::Waiting, "AwaitingApproval", long), row("worker", Tone::Good, "Complete", "")];
    let look = |width, wide, everywhere| {
        let lines = list(&all, everywhere, Options { wide, width, now: at(0) });
        assert!(
            width.is_none_or(|width| lines.iter().all(|line| console::measure_text_width(line) <= width)),
            "{lines:?}"
        );
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    };
    let narrow = "\
NAME    READY  UP-TO-DATE  STATUS              VERSION    AGE  MESSAGE
web     3/4    3           ◷ AwaitingApproval  1.0 → 1.1  90s  batch 1/2 is don…
worker  3/4    3           ✔ Complete          1.0 → 1.1  90s";
    assert_eq!(look(Some(80), false, false), narrow);
    assert!(
        look(None, false, true).contains("NAMESPACE  NAME") && look(None, false, true).contains("kubectl baton appr…")
    );
    assert!(look(None, true, false).contains(long), "wide is as wide as it is");
}

/// X12 B4: which Pods stay, which do not, and why; and what pins do.
#[test]
fn plan_tells_what_is_changed_in_place_and_what_is_pinned() {
    let world = |want: char, change: fn(&mut Fixture)| {
        let strategy = json!({"strategy": {"batchSize": 2, "maxUnavailable": 1, "maxSurge": 0}});
        let mut fixture = Fixture::new("a a a", want, strategy);
        give_images(&mut fixture.snapshot);
        change(&mut fixture);
        foretold(fixture)
    };
    let template = |fixture: &mut Fixture| {
        fixture.snapshot.rollout.spec.template.0["spec"]["hostname"] = json!("other");
    };
    let pinned = |fixture: &mut Fixture| {
        let pins = json!([{"instances": "1", "revision": "c"}]);
        fixture.snapshot.rollout.spec.pins = serde_json::from_value(pins).unwrap();
    };
    let replaced = |fixture: &mut Fixture| {
        fixture.snapshot.rollout.spec.strategy.update = UpdateMethod::Replace;
        let pins = json!([{"instances": "1", "revision": "c"}]);
        fixture.snapshot.rollout.spec.pins = serde_json::from_value(pins).unwrap();
    };
    let resources = |fixture: &mut Fixture| {
        let spec = &mut fixture.snapshot.rollout.spec;
        spec.template.0["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": 2}});
        spec.version = Some("bigger".into());
    };
    let worlds =
        [world('b', |_| ()), world('b', template), world('a', pinned), world('a', replaced), world('a', resources)];
    let unknown = world('b', |fixture| fixture.snapshot.agents = Agents::Unknown);
    assert_eq!(unknown, worlds[0], "kubectl does not hear of agents");
    insta::assert_snapshot!("plan_in_place", worlds.join("\n\n"));
    let snapshot = Fixture::new("a a a", 'b', json!({"strategy": {"batchSize": 2}})).snapshot;
    let preview = preview(snapshot);
    assert_eq!(preview.interrupted.into_iter().collect::<Vec<_>>(), ["web-0-a", "web-1-a", "web-2-a"]);
}

/// Where the application is told, and what keeps another change from that.
#[test]
fn plan_tells_what_is_reloaded() {
    let spec = json!({"strategy": {"update": "HotReload", "hotReload": {"httpPost": {"path": "/reload", "port": 8080}},
        "batchSize": 2, "maxUnavailable": 0, "maxSurge": 1}});
    let reloaded = Fixture::new("a a a", 'b', spec.clone());
    let mut replaced = Fixture::new("a a a", 'b', spec);
    replaced.snapshot.rollout.spec.template.0["spec"]["containers"][0]["image"] = json!("example.local/web:2");
    let preview = preview(reloaded.snapshot.clone());
    assert!(preview.interrupted.is_empty(), "no listener moves: {:?}", preview.interrupted);
    insta::assert_snapshot!("plan_reload", [foretold(reloaded), foretold(replaced)].join("\n\n"));
}

/// B3: what a person is asked for before clients get it.
#[test]
fn plan_tells_who_decides_on_the_switch() {
    let world = |promote| {
        let settings = json!({"activeService": "web", "previewService": "web-preview", "promote": promote});
        let spec = json!({"strategy": {"type": "BlueGreen", "blueGreen": settings}});
        foretold(Fixture::new("a a", 'b', spec).serving(Some('a')))
    };
    insta::assert_snapshot!("plan_blue_green", [world("Auto"), world("Manual")].join("\n\n"));
    let spec = json!({"strategy": {"type": "BlueGreen", "blueGreen": {"activeService": "web"}}});
    let mut claimed = Fixture::new("a a", 'b', spec).serving(Some('a'));
    claimed.snapshot.services.claimed_by = Some("shop".into());
    let told = foretold(claimed);
    let mut left = Fixture::new("a a", 'b', strategy(1, 1, 0)).serving(Some('a'));
    let active = std::mem::take(&mut left.snapshot.services.active);
    left.snapshot.services.former = [("web".to_owned(), active)].into();
    insta::assert_snapshot!("plan_let_go", foretold(left));
    assert!(told.ends_with("It waits: Rollout shop names the same Service: a Service belongs to one Rollout; name others in spec.strategy.blueGreen"), "{told}");
}
