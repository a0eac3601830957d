//! What the index tells of ListenerSets: order of events, re-lists, and for how long a session has been silent.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::bounds::FAST_PODS_MAX,
    snapshot::{
        lease::{Claim, Holder},
        listener_set::{Course, SetSnapshot},
    },
};

pub(super) fn decode<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: name.into() }
}

pub(super) fn set(name: &str, uid: &str, spec: &Value) -> Event<DeserializeGuard<ListenerSet>> {
    let metadata = json!({"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "5", "generation": 1});
    Event::Applied(decode(json!({"metadata": metadata, "spec": spec})))
}

pub(super) fn by_selector() -> Value {
    json!({"selector": {"matchLabels": {"app": "bots"}}, "listeners": [{"name": "a"}]})
}

fn pod(name: &str, labels: &Value) -> PodView {
    let metadata = json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "7", "labels": labels, "annotations": {"baton.dev/listener-sets": "bots, fast"}});
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    decode(json!({"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}))
}

/// A session of Pod `pod`, claimed by this boot (0: unclaimed), renewed at this second.
fn session(pod: &str, version: u32, boot: u32, renewed: u32, duration: u32) -> Value {
    let holder = (boot > 0).then(|| format!("{pod}/uid-{pod}/{boot}-r"));
    json!({
        "metadata": {
            "name": format!("session.{pod}"), "namespace": "shop", "uid": format!("uid-session-{pod}"),
            "resourceVersion": version.to_string(), "labels": {"baton.dev/lease": "session"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": format!("uid-{pod}")}],
        },
        "spec": {
            "holderIdentity": holder, "leaseTransitions": boot, "leaseDurationSeconds": duration,
            "renewTime": format!("2026-01-01T10:00:{renewed:02}.000000Z"),
        },
    })
}

/// The ownership of `listener` of set `bots` (uid `u1`).
fn ownership(listener: &str, version: u32, holder: Option<&str>) -> Value {
    json!({
        "metadata": {
            "name": format!("listener.bots.{listener}"), "namespace": "shop", "uid": format!("uid-lease-{listener}"),
            "resourceVersion": version.to_string(), "labels": {"baton.dev/lease": "listener"},
            "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "u1",
                "controller": true}],
        },
        "spec": {"holderIdentity": holder.map(|pod| format!("{pod}/uid-{pod}/1-r")), "leaseTransitions": 3},
    })
}

fn applied<K: serde::de::DeserializeOwned>(value: Value) -> Event<K> {
    Event::Applied(decode(value))
}

pub(super) fn listed<K: serde::de::DeserializeOwned>(values: Vec<Value>) -> Event<K> {
    Event::Listed { objects: values.into_iter().map(decode).collect(), resource_version: "90".into() }
}

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn look(index: &Index, seconds: u64) -> SetSnapshot {
    let moment = Moment { now: Timestamp::UNIX_EPOCH, uptime: at(seconds) };
    index.set_snapshot(&key("bots"), &SetMemories::default(), moment).unwrap().0
}

/// Set `bots` and Pod `a`, which serves it.
pub(super) fn index() -> Index {
    let mut index = Index::default();
    index.on_set(&None, set("bots", "u1", &by_selector()));
    index.on_agent_pod(&None, Event::Applied(pod("a", &json!({"app": "bots"}))));
    index
}

fn watched(index: &Index, pod: &str, seconds: u64) -> (u64, u64, u64) {
    let seen = look(index, seconds).sessions[pod].watched.clone();
    (seen.silent_for.as_secs(), seen.claimed_for.as_secs(), seen.duration.as_secs())
}

#[test]
fn silence_begins_with_the_event_and_ends_with_a_sign_of_life() {
    let mut index = index();
    assert!(look(&index, 9).sessions.is_empty());
    let touched = index.on_lease(&None, applied(session("a", 10, 0, 0, 15)), at(10));
    assert_eq!(touched.sets, [key("bots")].into());
    assert_eq!(watched(&index, "a", 14), (4, 4, 15));
    let touched = index.on_lease(&None, applied(session("a", 11, 1, 1, 15)), at(20));
    assert_eq!(touched.sets, [key("bots")].into());
    // A renewal that says nothing else touches no set.
    let touched = index.on_lease(&None, applied(session("a", 12, 1, 4, 15)), at(23));
    assert!(touched.is_empty(), "{touched:?}");
    assert_eq!(watched(&index, "a", 25), (2, 5, 15));
    // A letter is no sign of life of its reader; it concerns the set that wrote it.
    let mut letter = session("a", 13, 1, 4, 15);
    letter["metadata"]["annotations"] = json!({"inbox.baton.dev/bots": r#"[{"listener":"a","epoch":1}]"#});
    assert_eq!(index.on_lease(&None, applied(letter), at(26)).sets, [key("bots")].into());
    assert_eq!(watched(&index, "a", 27), (4, 7, 15));
    assert_eq!(look(&index, 27).sessions["a"].inbox.len(), 1);
    // What was silent is heard again: a set that counted on its silence is to know.
    assert_eq!(index.on_lease(&None, applied(session("a", 14, 1, 7, 15)), at(33)).sets, [key("bots")].into());
}

/// The API server lists by name, and so an ownership before the session of its holder.
#[test]
fn a_session_that_is_listed_is_not_missing() {
    let mut index = index();
    index.on_lease(&None, listed(vec![ownership("a", 20, Some("a")), session("a", 10, 1, 1, 15)]), at(10));
    assert_eq!(watched(&index, "a", 14), (4, 4, 15));
}

/// Its agent writes the duration after it has read the profile; it may not have been reported yet.
#[test]
fn the_profile_that_is_asked_for_counts() {
    let mut index = index();
    let mut lease = session("a", 10, 1, 1, 5);
    lease["metadata"]["annotations"] = json!({"baton.dev/profile": "Calm"});
    index.on_lease(&None, applied(lease), at(1));
    assert_eq!(watched(&index, "a", 4).2, 90);
}

/// L4: a Pod of the same name whose container crashes again and again must not keep what the one before it held.
#[test]
fn no_claim_of_a_namesake_begins_the_wait_for_the_one_before_anew() {
    let mut index = index();
    index.on_lease(&None, applied(session("a", 10, 1, 1, 15)), at(1));
    let mut heir = |boot: u32, second: u32| {
        let mut lease = session("a", 20 + boot, boot, second, 15);
        lease["metadata"]["uid"] = json!("uid-heir");
        lease["metadata"]["ownerReferences"][0]["uid"] = json!("uid-heir");
        lease["spec"]["holderIdentity"] = json!((boot > 0).then(|| format!("a/uid-heir/{boot}-r")));
        index.on_lease(&None, applied(lease), at(second.into()));
        let watched = look(&index, second.into()).sessions["a"].watched.clone();
        (watched.of_pod_for.as_secs(), watched.claimed_for.as_secs(), watched.duration.as_secs())
    };
    assert_eq!([heir(0, 4), heir(1, 8), heir(2, 14), heir(3, 19)], [(0, 0, 15), (4, 0, 15), (10, 0, 15), (15, 0, 15)]);
    index.on_lease(&None, applied(ownership("a", 40, Some("a"))), at(20));
    let gone: Event<LeaseView> = Event::Deleted(decode(session("a", 41, 3, 19, 15)));
    index.on_lease(&None, gone, at(21));
    assert_eq!(look(&index, 25).sessions["a"].watched.of_pod_for.as_secs(), 4, "then it is missing");
}

/// The set before served another Rollout, or other Pods, and what it ran may not have stopped.
#[test]
fn a_pod_of_others_that_holds_something_of_an_earlier_set_is_seen() {
    let mut index = index();
    let mut lease = session("elsewhere", 10, 1, 1, 15);
    let report = |count: u32| json!({"report.baton.dev/bots": format!(r#"{{"set":"u0","count":{count}}}"#)});
    lease["metadata"]["annotations"] = report(1);
    index.on_lease(&None, applied(lease.clone()), at(1));
    assert!(look(&index, 2).sessions["elsewhere"].holds_of_earlier_set);
    lease["metadata"]["annotations"] = report(0);
    index.on_lease(&None, applied(lease), at(2));
    assert!(!look(&index, 2).sessions.contains_key("elsewhere"));
}

#[test]
fn a_relist_that_shows_the_same_makes_nothing_younger() {
    let mut index = index();
    index.on_lease(&None, listed(vec![session("a", 10, 1, 1, 15), ownership("a", 20, Some("a"))]), at(10));
    index.on_lease(&None, listed(vec![session("a", 10, 1, 1, 15), ownership("a", 20, Some("a"))]), at(18));
    assert_eq!(watched(&index, "a", 20), (10, 10, 15));
    // Renewed in between, however often: one sign of life.
    index.on_lease(&None, listed(vec![session("a", 31, 1, 9, 15), ownership("a", 20, Some("a"))]), at(21));
    assert_eq!(watched(&index, "a", 22), (1, 12, 15));
}

#[test]
fn the_longest_duration_of_the_last_two_signs_of_life_counts() {
    let mut index = index();
    index.on_lease(&None, applied(session("a", 10, 1, 1, 90)), at(1));
    index.on_lease(&None, applied(session("a", 11, 1, 4, 15)), at(4));
    assert_eq!(watched(&index, "a", 4).2, 90);
    index.on_lease(&None, applied(session("a", 12, 1, 7, 15)), at(7));
    assert_eq!(watched(&index, "a", 7).2, 15);
    // Shortened between two renewals, by another than the agent: its agent may not know before the second one.
    index.on_lease(&None, applied(session("a", 20, 1, 7, 5)), at(8));
    index.on_lease(&None, applied(session("a", 21, 1, 10, 5)), at(10));
    assert_eq!(watched(&index, "a", 10).2, 15);
    index.on_lease(&None, applied(session("a", 22, 1, 13, 5)), at(13));
    assert_eq!(watched(&index, "a", 13).2, 5);
    // A duration that no profile has: the nearest; none: the longest.
    index.on_lease(&None, applied(session("a", 23, 1, 14, 1)), at(14));
    index.on_lease(&None, applied(session("a", 24, 1, 15, 1)), at(15));
    assert_eq!(watched(&index, "a", 15).2, 5);
    index.on_lease(&None, applied(session("a", 25, 1, 16, 0)), at(16));
    assert_eq!(watched(&index, "a", 16).2, 90);
}

/// B3: who is cut off goes by the duration that his last renewal had, however short that of a Pod of his name is.
#[test]
fn a_pod_of_the_same_name_does_not_shorten_what_the_one_before_believes() {
    let mut index = index();
    index.on_lease(&None, applied(session("a", 10, 1, 1, 90)), at(1));
    let mut heir = |version, boot, renewed| {
        let mut lease = session("a", version, boot, renewed, 15);
        lease["metadata"]["uid"] = json!("uid-heir");
        index.on_lease(&None, applied(lease), at(u64::from(renewed)));
        [renewed + 15, 93, 94].map(|second| watched(&index, "a", second.into()).2)
    };
    assert_eq!(heir(20, 0, 4), [90, 90, 90], "made 3 s after the last sign of life, which 90 s belong to");
    heir(21, 1, 5);
    assert_eq!(heir(22, 1, 8), [90, 90, 90], "claimed at 5");
    assert_eq!(watched(&index, "a", 95).2, 15);
}

#[test]
fn what_an_ownership_names_is_missed_from_when_it_was_first_seen_missing() {
    let mut index = index();
    index.on_lease(&None, applied(session("b", 10, 1, 1, 15)), at(1));
    index.on_lease(&None, applied(ownership("a", 20, Some("b"))), at(2));
    index.on_lease(&None, Event::Deleted(decode(session("b", 30, 1, 1, 15))), at(5));
    assert_eq!(watched(&index, "b", 19), (14, 14, 15));
    assert_eq!(look(&index, 19).sessions["b"].watched.session, None);
    // Never shown by any watch: how long its agent may believe in it is not known.
    index.on_lease(&None, applied(ownership("x", 40, Some("c"))), at(20));
    assert_eq!(watched(&index, "c", 21), (1, 1, 90));
    // A list that still lacks it makes it no younger; made again it is another claim.
    index.on_lease(&None, listed(vec![ownership("a", 20, Some("b")), ownership("x", 40, Some("c"))]), at(30));
    assert_eq!(watched(&index, "b", 31).0, 26);
    index.on_lease(&None, applied(session("b", 50, 0, 1, 15)), at(32));
    assert_eq!(watched(&index, "b", 33).1, 1);
    // Once nothing names it, it is forgotten.
    index.on_lease(&None, applied(ownership("x", 41, Some("a"))), at(34));
    assert!(!look(&index, 35).sessions.contains_key("c"));
    assert_eq!(index.sets.leases.session(&key("c"), "bots", "u1", at(35)), None);
}

/// Without the label a Lease counts as deleted.
#[test]
fn a_lease_that_is_not_ours_says_nothing() {
    let mut index = index();
    index.on_lease(&None, applied(ownership("a", 20, Some("a"))), at(1));
    let mut relabelled = ownership("a", 21, Some("a"));
    relabelled["metadata"]["labels"]["baton.dev/lease"] = json!("session");
    index.on_lease(&None, applied(relabelled), at(2));
    let mut foreign = ownership("b", 22, Some("a"));
    foreign["metadata"]["ownerReferences"][0]["kind"] = json!("Deployment");
    index.on_lease(&None, applied(foreign), at(2));
    let mut of_namesake = ownership("c", 23, Some("a"));
    of_namesake["metadata"]["ownerReferences"][0]["uid"] = json!("u0");
    index.on_lease(&None, applied(of_namesake), at(2));
    assert!(look(&index, 3).ownerships.is_empty());
    assert_eq!(index.version(Kind::Lease, &key("listener.bots.c")), Some(("uid-lease-c", "23")));
}

#[test]
fn a_move_concerns_the_rollouts_of_both_pods() {
    let mut index = index();
    let owner = json!([{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "r1", "controller": true}]);
    for name in ["w0", "w1"] {
        let labels = json!({"baton.dev/instance": "0", "baton.dev/revision": "r", "baton.dev/rollout": "web"});
        let mut view = pod(name, &labels);
        view.metadata.owner_references = decode(owner.clone());
        index.on_pod(&None, Event::Applied(view));
    }
    let touched = index.on_lease(&None, applied(ownership("a", 20, Some("w0"))), at(1));
    assert_eq!(touched, Touched { rollouts: [key("web")].into(), sets: [key("bots")].into() });
    let touched = index.on_lease(&None, applied(ownership("a", 21, Some("a"))), at(2));
    assert_eq!(touched.rollouts, [key("web")].into());
    // What a Rollout's event touches: the sets that its Pods serve.
    index.on_set(&None, set("web-bots", "u2", &json!({"rolloutRef": {"name": "web"}, "listeners": []})));
    assert_eq!(index.with_their_sets([key("web")].into()).sets, [key("web-bots")].into());
}

#[test]
fn a_pod_concerns_the_sets_whose_selector_selects_it_or_did() {
    let mut index = index();
    assert_eq!(look(&index, 0).pods.len(), 1);
    assert_eq!(look(&index, 0).pods[0].course, Course::Target);
    let same = index.on_agent_pod(&None, Event::Applied(pod("a", &json!({"app": "bots"}))));
    assert!(same.is_empty());
    let gone = index.on_agent_pod(&None, Event::Applied(pod("a", &json!({"app": "other"}))));
    assert_eq!(gone.sets, [key("bots")].into());
    assert!(look(&index, 0).pods.is_empty());
    assert_eq!(index.on_agent_pod(&None, listed(Vec::new())).sets, [key("bots")].into());
}

#[test]
fn sets_that_share_a_pod_know_what_the_other_asks_of_its_agent() {
    let mut index = index();
    let mut fast = by_selector();
    fast["session"] = json!({"profile": "Fast"});
    index.on_set(&None, set("fast", "u2", &fast));
    index.on_lease(&None, applied(session("a", 10, 1, 1, 15)), at(1));
    assert_eq!(look(&index, 2).sessions["a"].other_profiles, [SessionProfile::Fast]);
    // More Pods than Fast is for.
    for number in 0..FAST_PODS_MAX {
        index.on_agent_pod(&None, Event::Applied(pod(&format!("b{number}"), &json!({"app": "bots"}))));
    }
    assert_eq!(look(&index, 3).sessions["a"].other_profiles, [SessionProfile::Default]);
}

/// A set that leaves Pods asks nothing of their sessions any more: the others may ask for less.
#[test]
fn sets_that_share_pods_are_told_when_one_asks_anew() {
    let mut index = index();
    let mut version = 5;
    let mut changed = |spec: &Value| {
        version += 1;
        let metadata = json!({"name": "fast", "namespace": "shop", "uid": "u2", "resourceVersion": version.to_string(),
            "generation": version});
        index.on_set(&None, applied(json!({"metadata": metadata, "spec": spec})))
    };
    let both = Touched { sets: [key("bots"), key("fast")].into(), rollouts: BTreeSet::new() };
    let mut spec = by_selector();
    spec["session"] = json!({"profile": "Fast"});
    assert_eq!(changed(&spec), both);
    spec["listeners"] = json!([{"name": "b"}]);
    let alone = Touched { sets: [key("fast")].into(), rollouts: BTreeSet::new() };
    assert_eq!(changed(&spec), alone, "what it runs is its own affair");
    spec["selector"] = json!({"matchLabels": {"app": "feeds"}});
    assert_eq!(changed(&spec), both);
    spec.as_object_mut().unwrap().remove("selector");
    spec["rolloutRef"] = json!({"name": "web"});
    assert_eq!(changed(&spec), Touched { rollouts: [key("web")].into(), ..both.clone() });
    spec["rolloutRef"] = json!({"name": "api"});
    assert_eq!(changed(&spec), Touched { rollouts: [key("api"), key("web")].into(), ..both.clone() });
    spec["session"] = json!({"profile": "Calm"});
    assert_eq!(changed(&spec), Touched { rollouts: [key("api")].into(), ..both });
}

#[test]
fn a_report_is_of_the_set_that_it_names() {
    let mut index = index();
    let mut lease = session("a", 10, 1, 1, 15);
    let report = |uid: &str| json!({"report.baton.dev/bots": format!(r#"{{"set":"{uid}","count":2}}"#)});
    lease["metadata"]["annotations"] = report("u1");
    index.on_lease(&None, applied(lease.clone()), at(1));
    assert_eq!(look(&index, 2).sessions["a"].report.as_ref().map(|report| report.count), Some(2));
    lease["metadata"]["annotations"] = report("u0");
    index.on_lease(&None, applied(lease), at(2));
    let seen = look(&index, 2).sessions.remove("a").unwrap();
    assert!(seen.report.is_none() && seen.holds_of_earlier_set);
    assert_eq!(seen.watched.session.unwrap().claim, Claim::Held(Holder::parse("a/uid-a/1-r").unwrap()));
}

#[test]
fn leases_end_as_the_last_list_says() {
    let leases = [
        session("a", 10, 1, 1, 15),
        session("b", 11, 2, 1, 15),
        ownership("a", 12, Some("a")),
        ownership("b", 13, Some("b")),
        ownership("c", 14, None),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut lived = index();
        for step in 0..rng.u64(..30) {
            let lease = rng.choice(&leases).unwrap().clone();
            let event = if rng.bool() { applied(lease) } else { Event::Deleted(decode(lease)) };
            lived.on_lease(&None, event, at(step));
        }
        let last: Vec<Value> = leases.iter().filter(|_| rng.bool()).cloned().collect();
        lived.on_lease(&None, listed(last.clone()), at(40));
        let mut fresh = index();
        fresh.on_lease(&None, listed(last), at(40));
        assert_eq!(lived.sets.leases.content(), fresh.sets.leases.content());
    }
}

/// Pods of a Rollout that was deleted and made again may have the names that they had.
#[test]
fn which_pods_are_to_leave_goes_with_their_rollout() {
    let rollout = || -> DeserializeGuard<crate::api::Rollout> {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "uid-web", "resourceVersion": "3"});
        decode(json!({"metadata": metadata, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}}}))
    };
    let mut index = Index::default();
    index.on_set(&None, set("bots", "u1", &json!({"rolloutRef": {"name": "web"}, "listeners": [{"name": "a"}]})));
    index.on_rollout(&None, Event::Applied(rollout()));
    assert_eq!(index.on_leaving(&key("web"), &["web-0-a".to_owned()].into()).sets, [key("bots")].into());
    assert_eq!(look(&index, 1).leaving.len(), 1);
    assert!(index.on_leaving(&key("web"), &["web-0-a".to_owned()].into()).is_empty(), "the same again");
    index.on_rollout(&None, Event::Deleted(rollout()));
    index.on_rollout(&None, Event::Applied(rollout()));
    assert_eq!(look(&index, 1).leaving.len(), 0);
}

/// What the plugin shows, which watches no Pods.
#[test]
fn sessions_are_known_without_pods_by_what_they_tell() {
    let mut index = Index::default();
    index.on_set(&None, set("bots", "u1", &by_selector()));
    let told = |pod: &str, annotation: &str, text: &str| {
        let mut lease = session(pod, 10, 1, 1, 15);
        lease["metadata"]["annotations"] = json!({annotation: text});
        applied(lease)
    };
    index.on_lease(&None, told("b", "report.baton.dev/bots", r#"{"set":"u1","count":0}"#), at(1));
    index.on_lease(&None, told("c", "inbox.baton.dev/bots", "[]"), at(1));
    index.on_lease(&None, told("d", "report.baton.dev/feeds", "{}"), at(1));
    index.on_lease(&None, applied(session("e", 10, 1, 1, 15)), at(1));
    index.on_lease(&None, applied(ownership("a", 11, Some("e"))), at(1));
    let seen = index.set_without_pods(&key("bots"), Moment { now: Timestamp::UNIX_EPOCH, uptime: at(2) }).unwrap();
    assert_eq!(seen.sessions.keys().collect::<Vec<_>>(), ["b", "c", "e"]);
    assert_eq!((seen.pods.len(), seen.ownerships.len()), (0, 1));
    assert!(seen.sessions["b"].report.is_some());
}

/// What is known of Pod `a` of a Rollout that serves `bots`, which tells this of it.
fn agent_seen(report: &Value, holder: Option<&str>) -> crate::snapshot::AgentSeen {
    let mut index = Index::default();
    let rollout = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "r1", "resourceVersion": "5", "generation": 1},
        "spec": {"replicas": 1, "selector": {"matchLabels": {}}, "template": {}},
    });
    index.on_rollout(&None, listed(vec![rollout]));
    index.on_set(&None, Event::Listed { objects: Vec::new(), resource_version: "5".into() });
    index.on_set(&None, set("bots", "u1", &json!({"rolloutRef": {"name": "web"}, "listeners": [{"name": "a"}]})));
    let pod = json!({
        "metadata": {
            "name": "a", "namespace": "shop", "uid": "uid-a", "resourceVersion": "7",
            "labels": {"baton.dev/rollout": "web", "baton.dev/instance": "0", "baton.dev/revision": "web-b"},
            "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "r1",
                "controller": true}],
        },
    });
    index.on_pod(&None, listed(vec![pod]));
    let mut lease = session("a", 10, 1, 1, 15);
    lease["metadata"]["annotations"] = json!({"report.baton.dev/bots": report.to_string()});
    index.on_lease(&None, listed(vec![lease, ownership("a", 11, holder)]), at(1));
    let snapshot = index.snapshot(&key("web"), &Recollection::default(), Timestamp::UNIX_EPOCH).unwrap();
    snapshot.agents.of("a").unwrap().clone()
}

/// A15: what a Pod still has, of each set: what names it, and what has not been proven to have ended.
#[test]
fn a_pod_is_busy_with_what_it_holds_or_still_runs() {
    let busy = |count: u32, holder: Option<&str>| agent_seen(&json!({"set": "u1", "count": count}), holder).busy;
    let some = |number| vec![("bots".to_owned(), number)];
    assert_eq!(busy(0, Some("a")), some(1), "it is its own, told or not");
    assert_eq!(busy(2, None), some(2), "what runs has yet to be proven to have ended");
    assert_eq!(busy(0, None), []);
}

/// With a start budget what has failed waits for a permit, and fails its instance all the same.
#[test]
fn what_has_failed_and_waits_for_a_permit_has_failed() {
    let failing = |state: &str, failures: u32| {
        let unit = json!({"state": state, "epoch": 3, "failures": failures, "reason": "ConnectTimeout", "message": "no answer"});
        let failing = agent_seen(&json!({"set": "u1", "count": 1, "units": {"a": unit}}), Some("a")).failing;
        failing.map(|(failures, listener, _)| (failures, listener))
    };
    assert_eq!(failing("Failed", 3), Some((3, "a".to_owned())));
    assert_eq!(failing("Waiting", 3), Some((3, "a".to_owned())));
    assert_eq!(failing("Waiting", 0), None, "it has only ended, or awaits its first start");
    assert_eq!(failing("Starting", 3), None, "it may yet succeed");
}
