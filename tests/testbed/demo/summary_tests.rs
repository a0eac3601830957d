//! What passes and what does not.
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    ledger::{Bounds, Observed},
    listeners::Listeners,
    old_way::OldWay,
    summary::{Kill, Scene, Summary},
};
use crate::{
    feed::ledger::{FeedVerdict, Verdict},
    load::tally::{Break, Cause, Counts, Latency, Report, Second},
};

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_000_000 + milliseconds).unwrap()
}

fn counts(versions: &[(&str, u64)]) -> Counts {
    let versions: BTreeMap<_, _> = versions.iter().map(|(version, count)| ((*version).to_owned(), *count)).collect();
    let ok = versions.values().sum();
    Counts { sent: ok, ok, failed: 0, retried: 0, versions }
}

/// Ten seconds of load and a roll from 1.0 to 1.1 in seconds 2 to 5, with a kill at second 3: nothing is wrong.
fn good() -> Summary {
    let seconds = (0..10).map(|second| {
        let version = if second < 5 { "1.0" } else { "1.1" };
        Second { at: at(second * 1_000), counts: counts(&[(version, 100)]) }
    });
    let load = Report {
        started_at: at(0),
        ended_at: at(9_900),
        counts: Counts { retried: 1, ..counts(&[("1.0", 500), ("1.1", 500)]) },
        skipped: 0,
        retries_by_cause: [(Cause::Refused, 1)].into(),
        failures_by_cause: BTreeMap::new(),
        latency: Latency {
            p50_milliseconds: 1.0,
            p90_milliseconds: 1.0,
            p99_milliseconds: 2.0,
            p999_milliseconds: 3.0,
            max_milliseconds: 4.0,
        },
        breaks: vec![retry_at(3_200)],
        breaks_omitted: 0,
        seconds: seconds.collect(),
    };
    let scene = Scene {
        title: "1.0 → 1.1".into(),
        began: at(2_000),
        ended: at(5_000),
        bounds: Bounds { available_min: 7, pods_max: 10 },
        observed: Observed { lowest_available: 6, most_pods: 10, created: 8, problems: vec![] },
        kill: Some(Kill { pod: "web-0-abc".into(), at: at(3_000), seen_at: at(3_150), back_at: at(4_000) }),
        writes: Some([("create pods".to_owned(), 8), ("update rollouts/status".to_owned(), 12)].into()),
        again: None,
        gone: Some("1.0"),
    };
    Summary { scenes: vec![scene], load, listeners: listeners(), good: vec!["1.0", "1.1"], broken: "1.2-broken" }
}

/// Twelve feeds, each of whose listeners moved once.
fn listeners() -> Listeners {
    let feed = FeedVerdict { position: 1_000, gaps: vec![20_000], ..FeedVerdict::default() };
    let feeds = (0..12).map(|number| (format!("feed-{number}"), feed.clone())).collect();
    let takeover = std::time::Duration::from_secs(1);
    let old_way = OldWay { replaced: vec![2_000.0, 4_500.0], killed: vec![31_000.0, 34_000.0] };
    Listeners { verdict: Verdict(feeds), gaps: vec![20.0; 12], takeover, read_again: 250, old_way }
}

/// What the exchange says is wrong, is wrong; and each listener must have moved.
#[test]
fn listeners_that_lose_or_double_do_not_pass() {
    assert_eq!(good().problems(), Vec::<String>::new());
    let mut lost = good();
    lost.listeners.verdict.0.get_mut("feed-3").unwrap().problems.push("messages 4 to 5 were left out".into());
    assert_eq!(lost.problems(), ["feed-3: messages 4 to 5 were left out"]);
    let mut two = good();
    two.listeners.verdict.0.get_mut("feed-3").unwrap().overlaps.push("a worked 3 ms after b had begun".into());
    assert_eq!(two.problems().len(), 1);
    let mut unmoved = good();
    unmoved.listeners.gaps.pop();
    assert_eq!(unmoved.problems().len(), 1);
}

fn retry_at(milliseconds: i64) -> Break {
    Break {
        at: at(milliseconds),
        cause: Cause::Refused,
        retried: true,
        endpoint: "10.244.1.2:8080".into(),
        pod: "web-0-abc".into(),
    }
}

/// The one problem that `change` makes of a good run.
fn check(change: impl FnOnce(&mut Summary), expect: &str) {
    let mut summary = good();
    change(&mut summary);
    let problems = summary.problems();
    assert!(problems.len() == 1 && problems[0].contains(expect), "expected {expect:?}, got {problems:?}");
}

#[test]
fn a_good_run_passes() {
    assert_eq!(good().problems(), [] as [&str; 0]);
}

#[test]
fn whatever_is_wrong_is_told() {
    check(
        |it| {
            it.load.counts.failed = 1;
            it.load.failures_by_cause = [(Cause::Timeout, 1)].into();
        },
        "1 requests failed: 1 × timeout",
    );
    check(|it| it.load.breaks.push(retry_at(6_001)), "1 requests were tried twice outside the 3 s");
    check(|it| it.load.breaks.push(retry_at(2_999)), "1 requests were tried twice outside the 3 s");
    check(|it| it.load.breaks_omitted = 1, "too many broken connections");
    check(|it| it.scenes[0].observed.problems.push("6 available, 7 required".into()), "6 available, 7 required");
    check(|it| it.good.push("1.3"), "version 1.3 never answered");
    check(|it| it.load.counts.versions.extend([("1.2-broken".into(), 1)]), "answered, although it cannot start");
    check(|it| it.load.seconds[8].counts.versions.extend([("1.0".into(), 2)]), "version 1.0 gave 2 answers after");
    check(|it| it.load.seconds[4].counts.ok = 0, "no request was answered in second 4");
    check(|it| drop(it.load.seconds.remove(6)), "no request was answered in second 6");
}

/// One instance that goes back has its version answer again; once it has come forward, no more.
#[test]
fn a_version_may_answer_again_where_a_scene_says_so() {
    let mut summary = good();
    let back =
        Scene { began: at(7_000), ended: at(8_000), again: Some("1.0"), kill: None, ..summary.scenes[0].clone() };
    summary.scenes.push(back);
    summary.load.seconds[7].counts.versions.extend([("1.0".into(), 2)]);
    assert_eq!(summary.problems(), [] as [&str; 0]);
    summary.scenes[1].began = at(8_000);
    assert_eq!(summary.problems().len(), 1, "{:?}", summary.problems());
}

#[test]
fn the_summary_reads_well() {
    insta::assert_snapshot!(good().to_string());
}

#[test]
fn retries_that_have_no_excuse_are_told_by_scene() {
    let mut summary = good();
    summary.load.breaks.push(retry_at(2_500));
    summary.load.retries_by_cause = [(Cause::Refused, 2)].into();
    let text = summary.to_string();
    assert!(text.contains("tried twice, refused: 2, 2 during 1.0 → 1.1"), "{text}");
}
