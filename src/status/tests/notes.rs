//! What people do to a run: approvals, pauses and unpinning in the history and in Events.
use serde_json::json;

use super::status_of;
use crate::{
    api::{
        RolloutStatus,
        bounds::HISTORY_NOTES_MAX,
        rollout::{Approve, Request},
    },
    plan::{
        in_place::NotInPlace,
        rollout::tests::fixture::{Fixture, at},
    },
    status::{NoticeKind, not_in_place, notices, strategy_warning},
};

/// Writes the status down; the Events of that.
fn write(fixture: &mut Fixture) -> Vec<String> {
    let before = fixture.snapshot.rollout.status.clone().unwrap_or_default();
    let after = status_of(&fixture.snapshot);
    let told = notices("web", &before, &after).into_iter().map(|notice| format!("{}: {}", notice.reason, notice.note));
    let told = told.collect();
    fixture.snapshot.rollout.status = Some(after);
    told
}

fn history(fixture: &Fixture) -> Vec<String> {
    let entries = fixture.snapshot.rollout.status.iter().flat_map(|status| &status.history);
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let batch = |batch: Option<i32>| batch.map(|batch| format!(" {batch}")).unwrap_or_default();
    let line =
        entries.map(|it| format!("{}{} {} {}: {}", it.kind, batch(it.batch), it.run, word(&it.by), word(&it.reason)));
    line.collect()
}

fn waiting() -> Fixture {
    let batches = json!([{"upTo": 1, "pause": {}}, {"upTo": 2, "pause": {}}]);
    let mut fixture = Fixture::new("b a a", 'b', json!({"strategy": {"batches": batches}})).opened(1).settled();
    write(&mut fixture);
    fixture
}

fn approve(batch: i32, by: &str, reason: &str) -> Approve {
    Approve { run: 1, batch, by: Some(by.into()), reason: Some(reason.into()) }
}

/// C9: the one who approves stands in the history, once for each pause.
#[test]
fn who_has_approved_is_told() {
    let mut fixture = waiting();
    fixture.snapshot.rollout.spec.approve = Some(approve(1, "ann", "looks good"));
    let told = write(&mut fixture);
    assert!(told.contains(&"Approved: run 1: batch 1 approved by ann: looks good".to_owned()), "{told:?}");
    assert_eq!(history(&fixture)[0], "Approve 1 1 ann: looks good");
    let written = fixture.snapshot.rollout.status.clone();
    assert!(write(&mut fixture).iter().all(|event| !event.starts_with("Approved")));
    assert_eq!(fixture.snapshot.rollout.status.unwrap().history, written.unwrap().history);

    let mut fixture = waiting();
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: 1, batch: -1, ..Approve::default() });
    assert!(write(&mut fixture).contains(&"Approved: run 1: all pauses approved".to_owned()));
    // Of no run, or of one that is not on.
    let mut fixture = waiting();
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: 7, batch: 1, ..Approve::default() });
    write(&mut fixture);
    assert!(history(&fixture)[0].starts_with("Deploy"), "{:?}", history(&fixture));
}

/// C9
#[test]
fn who_has_paused_and_resumed_is_told() {
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    write(&mut fixture);
    let ask = |fixture: &mut Fixture, paused: bool, id: &str, by: &str| {
        fixture.snapshot.rollout.spec.paused = paused;
        let reason = Some("lunch".to_owned());
        fixture.snapshot.rollout.spec.request = Some(Request { id: Some(id.into()), by: Some(by.into()), reason });
        write(fixture)
    };
    let told = ask(&mut fixture, true, "pause-1", "ann");
    assert!(
        told.contains(&"RolloutPaused: spec.paused was set by ann (lunch): nothing new is begun".to_owned()),
        "{told:?}"
    );
    assert_eq!(history(&fixture)[0], "Pause 1 ann: lunch");
    assert_eq!(write(&mut fixture), Vec::<String>::new());
    // The same request is not the resumer's.
    let told = ask(&mut fixture, false, "pause-1", "ann");
    assert!(told.contains(&"RolloutResumed: spec.paused was unset".to_owned()), "{told:?}");
    ask(&mut fixture, true, "pause-2", "bob");
    ask(&mut fixture, false, "resume-3", "carol");
    assert_eq!(history(&fixture)[..3], ["Resume 1 carol: lunch", "Pause 1 bob: lunch", "Resume 1 -: -"]);
}

/// C9: an operator of before this entry existed has left the condition alone. An upgrade is no pause.
#[test]
fn an_upgrade_is_no_pause() {
    let mut fixture = Fixture::new("a a", 'a', json!({"paused": true})).settled();
    write(&mut fixture);
    fixture.snapshot.rollout.status.as_mut().unwrap().history.retain(|entry| entry.kind != "Pause");
    assert_eq!(write(&mut fixture), Vec::<String>::new());
    assert!(history(&fixture).iter().all(|entry| !entry.starts_with("Pause")));
}

/// C9: the request to unpin had an id: one without may be about what was before.
#[test]
fn who_has_unpinned_is_told_once() {
    let unpin = |id: Option<&str>| {
        let pins = json!({"pins": [{"instances": "0", "revision": "c", "request": {"by": "ann"}}]});
        let mut fixture = Fixture::new("c a a", 'a', pins).settled();
        write(&mut fixture);
        fixture.snapshot.rollout.spec.pins.clear();
        let (id, by, reason) = (id.map(str::to_owned), Some("bob".to_owned()), Some("it is mended".to_owned()));
        fixture.snapshot.rollout.spec.request = Some(Request { id, by, reason });
        let told = write(&mut fixture);
        assert_eq!(write(&mut fixture), Vec::<String>::new());
        (told, history(&fixture)[0].clone())
    };
    let (told, entry) = unpin(Some("unpin-1"));
    assert!(told.contains(&"UnpinStarted: instances 0: c → a, asked for by bob: it is mended".to_owned()), "{told:?}");
    assert_eq!(entry, "Unpin 1 bob: it is mended");
    assert_eq!(unpin(None).1, "Unpin 1 -: -");
}

/// However often a person pauses or approves, what was deployed stays in the list.
#[test]
fn notes_push_out_no_run() {
    let mut fixture = waiting();
    for number in 0..100 {
        fixture.snapshot.now = at(number);
        fixture.snapshot.rollout.spec.paused = number % 2 == 0;
        fixture.snapshot.rollout.spec.approve = (number > 10).then(|| approve(0, "ann", "early"));
        write(&mut fixture);
    }
    let notes = |entry: &&String| ["Pause", "Resume", "Approve"].iter().any(|kind| entry.starts_with(kind));
    let told = history(&fixture);
    assert_eq!(told.iter().filter(notes).count(), HISTORY_NOTES_MAX);
    assert_eq!(told.iter().filter(|entry| entry.starts_with("Approve")).count(), 1, "as long as the spec says so");
    assert!(told.last().unwrap().starts_with("Deploy"), "{told:?}");
    let written = fixture.snapshot.rollout.status.clone().unwrap().history;
    write(&mut fixture);
    assert_eq!(fixture.snapshot.rollout.status.unwrap().history, written);
}

/// What people write as with other kinds is the reason where a request gives none.
#[test]
fn an_annotation_tells_why() {
    let mut fixture = Fixture::new("a a", 'b', json!({}));
    let annotate = |fixture: &mut Fixture, why: &str| {
        let own = [("kubernetes.io/change-cause".to_owned(), why.to_owned())].into();
        fixture.snapshot.rollout.metadata.annotations = Some(own);
    };
    annotate(&mut fixture, " TICKET-9 ");
    write(&mut fixture);
    assert_eq!(history(&fixture)[0], "Deploy 1 -: TICKET-9");
    let mut fixture = Fixture::new("a a", 'b', json!({"request": {"by": "ann", "reason": "prices"}}));
    annotate(&mut fixture, "TICKET-9");
    write(&mut fixture);
    assert_eq!(history(&fixture)[0], "Deploy 1 ann: prices");
}

/// Once for each spec: what decides are its batches and how many instances it has.
#[test]
fn batches_that_do_not_rise_are_warned_of() {
    let batches = json!([{"upTo": "50%", "pause": {}}, {"upTo": 1}]);
    let of = |replicas: i32| Fixture::new("", 'a', json!({"replicas": replicas, "strategy": {"batches": batches}}));
    let seen = |generation: i64| RolloutStatus { observed_generation: Some(generation), ..RolloutStatus::default() };
    let warned = |replicas: i32, before: i64, after: i64| {
        strategy_warning(&of(replicas).snapshot.rollout.spec, &seen(before), &seen(after))
    };
    let notice = warned(8, 1, 2).unwrap();
    assert_eq!((notice.kind, notice.reason), (NoticeKind::Warning, "StrategyWarning"));
    assert!(notice.note.starts_with("spec.strategy.batches[1].upTo is 1 of 8 instances"), "{}", notice.note);
    assert_eq!([warned(8, 2, 2), warned(2, 1, 2)], [None, None]);
}

/// B4
#[test]
fn what_is_not_changed_in_place_is_told_by_the_first() {
    let note = |more| {
        let found = NotInPlace { slot: 1, why: "spec.template.spec.volumes differs".into(), more };
        not_in_place("web", &found).note
    };
    assert_eq!(note(0), "web-1 gets another Pod: spec.template.spec.volumes differs");
    assert_eq!(note(2), "web-1 and 2 further instances get other Pods; web-1: spec.template.spec.volumes differs");
}
