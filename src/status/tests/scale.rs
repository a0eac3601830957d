//! A status stays small enough to be read, written and kept in etcd, however much there is to tell.
use std::sync::Arc;

use serde_json::{Value, json};

use super::status_of;
use crate::{
    api::{bounds, status::HistoryEntry},
    plan::rollout::tests::fixture::{Fixture, at},
    snapshot::{Pod, Ranges, Snapshot},
};

const INSTANCES: i32 = bounds::REPLICAS_MAX;
const REVISIONS: i32 = 50;

/// Each instance runs another revision than its neighbours, and every third one is not ready.
fn interleaved() -> Snapshot {
    let spec = json!({"replicas": INSTANCES, "strategy": {"maxUnavailable": "10%"}});
    let mut snapshot = Fixture::new("a a~", 'b', spec).opened(INSTANCES / 2).snapshot;
    let (ready, unready) = (snapshot.pods[0].clone(), snapshot.pods[1].clone());
    let names: Vec<String> = (0..REVISIONS).map(|number| format!("web-5b8f9c7d{number:02}")).collect();
    let known = snapshot.revisions[0].clone();
    snapshot.revisions.extend(names.iter().zip(10..).map(|(name, number)| {
        let (name, hash) = (name.clone(), name[4..].to_owned());
        crate::snapshot::Revision { name, hash, number, ..known.clone() }
    }));
    let pod = |slot: i32| {
        let number = slot % REVISIONS;
        Arc::new(Pod {
            name: format!("web-{slot}-5b8f9c7d{number:02}"),
            uid: format!("uid-{slot}"),
            slot,
            revision: names[number as usize].clone(),
            version: format!("1.4.{number}"),
            ..Pod::clone(if slot % 3 == 0 { &unready } else { &ready })
        })
    };
    snapshot.pods = (0..INSTANCES).map(pod).collect();
    snapshot
}

/// A past change that is as long as one can be.
fn long_entry(run: i64) -> HistoryEntry {
    HistoryEntry {
        kind: "InstanceRollback".into(),
        run,
        revision: "web-5b8f9c7d01".into(),
        version: "1.4.1".into(),
        instances: (0..1_000).map(|number| number * 2).collect::<Ranges>().within(bounds::INSTANCES_CHARS_MAX),
        by: Some("system:serviceaccount:deployments:pipeline".into()),
        reason: Some("原因 ".repeat(bounds::MESSAGE_CHARS_MAX / 3)),
        started_at: Some(crate::api::Time(at(run))),
        completed_at: Some(crate::api::Time(at(run + 1))),
        result: "Succeeded".into(),
        ..HistoryEntry::default()
    }
}

fn bytes(status: &impl serde::Serialize) -> usize {
    serde_json::to_vec(status).unwrap().len()
}

/// X2
#[test]
fn the_status_of_10_000_instances_at_50_revisions_is_below_64_kib() {
    let mut snapshot = interleaved();
    let before = snapshot.rollout.status.as_mut().unwrap();
    before.history.extend((0..60).map(|run| long_entry(-run)));
    let status = status_of(&snapshot);
    assert_eq!((status.versions.len(), status.versions_omitted), (REVISIONS as usize, 0));
    assert!(bytes(&status) < 64 * 1_024, "{} bytes", bytes(&status));
    for version in &status.versions {
        let (told, ready) = (Ranges::parse(&version.instances).0.len(), Ranges::parse(&version.ready).0.len());
        assert_eq!(told as i32 + version.instances_omitted, INSTANCES / REVISIONS, "{version:?}");
        assert!(told > 20 && ready > 20, "{version:?}");
        let is_ready = |pod: &&Arc<Pod>| pod.revision == version.revision && pod.is_ready();
        assert_eq!(ready + version.ready_omitted as usize, snapshot.pods.iter().filter(is_ready).count());
    }
    assert!(status.history.len() == bounds::HISTORY_MAX && status.exceptions_omitted > 0);
    // Looked at again, the same bytes: else it would be written for ever.
    snapshot.rollout.status = Some(serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap());
    assert_eq!(serde_json::to_value(status_of(&snapshot)).unwrap(), serde_json::to_value(&status).unwrap());
}

#[test]
fn one_long_list_has_the_room_that_short_ones_leave() {
    let mut snapshot = interleaved();
    let mut pods: Vec<Pod> = snapshot.pods.iter().take(3_000).map(|pod| Pod::clone(pod)).collect();
    for pod in pods.iter_mut().filter(|pod| pod.slot > 10) {
        pod.revision = if pod.slot % 2 == 0 { "a" } else { "web-5b8f9c7d00" }.into();
    }
    snapshot.pods = pods.into_iter().map(Arc::new).collect();
    let status = status_of(&snapshot);
    let longest = status.versions.iter().map(|version| version.instances.len()).max().unwrap();
    assert!(longest > 5_000 && longest <= bounds::RANGES_CHARS_MAX, "{longest}");
    let few: Vec<Value> = status.versions.iter().map(|version| json!(version.instances_omitted)).collect();
    assert!(few.iter().any(|omitted| *omitted == 0), "{few:?}");
}

/// What is long ago is told in fewer words; what was there stays there.
#[test]
fn old_entries_of_the_history_lose_words_first() {
    let mut snapshot = Fixture::new("a a", 'a', json!({})).settled().snapshot;
    let before = snapshot.rollout.status.as_mut().unwrap();
    before.history.extend((0..40).map(|run| long_entry(-run)));
    let history = status_of(&snapshot).history;
    let long = |entry: &&HistoryEntry| entry.kind == "InstanceRollback";
    let words: Vec<usize> = history.iter().filter(long).map(|entry| entry.reason.as_deref().unwrap().len()).collect();
    assert_eq!(words.len(), 40);
    assert_eq!(words[0], long_entry(0).reason.unwrap().len());
    assert!(words[39] < 80 && words.is_sorted_by(|newer, older| newer >= older), "{words:?}");
    let oldest = &history.last().unwrap().instances;
    assert!(oldest.starts_with("0,2,4,") && oldest.len() <= 80 && !oldest.ends_with(','), "{oldest}");
}

/// What is known again by its words keeps them, or it would begin anew with every look.
#[test]
fn what_is_in_progress_keeps_its_words() {
    let mut snapshot = Fixture::new("a a", 'a', json!({})).settled().snapshot;
    let before = snapshot.rollout.status.as_mut().unwrap();
    let going_on = |run| HistoryEntry { result: "InProgress".into(), completed_at: None, ..long_entry(run) };
    before.history.extend((0..20).map(|run| if run % 2 == 0 { going_on(-run) } else { long_entry(-run) }));
    let mut told = before.history.clone();
    crate::status::history::shorten_the_oldest(&mut told);
    let kept = |entry: &&HistoryEntry| entry.result == "InProgress" && entry.kind == "InstanceRollback";
    let whole = long_entry(0);
    assert_eq!(told.iter().filter(kept).count(), 10);
    assert!(told.iter().filter(kept).all(|entry| entry.reason == whole.reason && entry.instances == whole.instances));
}
