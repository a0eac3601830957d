//! Crash take-over: a listener is nobody else's before its owner is certainly dead, and somebody's soon after.
use std::{
    fs,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, PostParams, PropagationPolicy},
};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::stage::{Listeners, agent, guard, shim, signal};

/// Two Pods and four listeners, whose sessions end soon.
async fn two_pods(name: &str) -> Listeners {
    two_pods_of(Listeners::new(name).await, "Fast").await
}

async fn two_pods_of(listeners: Listeners, profile: &str) -> Listeners {
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.listen(4, json!({"session": {"profile": profile}})).await;
    listeners.running(60, 4).await;
    // They have connected, too.
    for feed in ["feed-0", "feed-1", "feed-2", "feed-3"] {
        listeners.flows(20, feed).await;
    }
    listeners
}

/// A11, L2: an application that dies is started again where it was, as another epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_is_restarted_in_place() {
    let listeners = two_pods("crash-child").await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    signal(Signal::SIGKILL, holder.split('/').next().unwrap(), "listener", Some("feed-0"));
    listeners.flows(20, "feed-0").await;
    assert_eq!(listeners.ownership("feed-0").await, (epoch + 1, holder));
    assert_eq!(listeners.connections("feed-0"), 2);
    listeners.judge(4, true);
}

/// A7: the end of a container is a fact, and need not be waited out.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_succeeded_at_once() {
    let listeners = two_pods("crash-agent").await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    signal(Signal::SIGKILL, holder.split('/').next().unwrap(), "bots", None);
    listeners.taken_over("feed-0", (epoch, &holder)).await;
    listeners.running(30, 4).await;
    listeners.judge(4, true);
}

/// A6: a Pod that somebody deletes hands over before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_hands_over() {
    let listeners = two_pods("crash-delete").await;
    let (_, holder) = listeners.ownership("feed-0").await;
    let pod = holder.split('/').next().unwrap();
    listeners.stage.delete_pod(pod).await;
    listeners.until_held_by_others(60, pod).await;
    listeners.running(60, 4).await;
    let gaps = listeners.judge(4, false);
    println!("gaps in ms: {gaps:?}");
    assert!(gaps.len() >= 2, "both of its listeners said good-bye");
}

/// L1: the Pod object is gone, its process is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_by_force_is_not_dead() {
    let listeners = two_pods("crash-force").await;
    let (_, holder) = listeners.ownership("feed-0").await;
    listeners.node(&["keep-force-deleted", "30"]);
    let by_force = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let by_force = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..by_force };
    listeners.stage.pods().delete(holder.split('/').next().unwrap(), &by_force).await.unwrap();
    listeners.running(60, 4).await;
    listeners.flows(20, "feed-0").await;
    listeners.node(&["keep-force-deleted", "0"]);
    listeners.judge(4, true);
}

/// L1: the kubelet reports the end of a container whose shim was killed, with exit code 255, while its processes live on.
/// The container cannot start again, because a ConfigMap that it needs is gone: so this end stays the last one.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_shim_was_killed_is_not_dead() {
    let listeners = Listeners::new("crash-shim").await;
    let needed: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "needed"}})).unwrap();
    let config_maps: Api<ConfigMap> = Api::namespaced(listeners.stage.client.clone(), &listeners.stage.namespace);
    config_maps.create(&PostParams::default(), &needed).await.unwrap();
    listeners
        .roll_as("1", json!({"replicas": 2}), |template| {
            template["metadata"]["annotations"]["testbed.baton.dev/outlives-shim"] = json!("true");
            template["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "needed"}}]);
        })
        .await;
    listeners.listen(4, json!({})).await;
    listeners.running(60, 4).await;
    let before = listeners.ownership("feed-0").await;
    let pod = before.1.split('/').next().unwrap();
    config_maps.delete("needed", &DeleteParams::default()).await.unwrap();
    kill(shim(agent(pod, "feed-0")), Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let status = listeners.stage.pods().get(pod).await.unwrap().status.unwrap();
        let container = json!(status.container_statuses.unwrap()[0]);
        if ["state", "lastState"].iter().any(|state| container[state]["terminated"]["exitCode"] == 255) {
            break;
        }
        assert!(Instant::now() < deadline, "{container:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    listeners.flows(20, "feed-0").await;
    assert_eq!(listeners.ownership("feed-0").await, before, "its agent renews, and keeps what it has");
    listeners.judge(4, false);
}

/// L1: guards end what a stopped agent runs, before anybody else may run it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_loses_its_listeners_without_running_them_twice() {
    let listeners = two_pods("crash-stop").await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    let pod = holder.split('/').next().unwrap().to_owned();
    signal(Signal::SIGSTOP, &pod, "bots", None);
    tokio::time::sleep(Duration::from_secs(8)).await; // longer than D
    listeners.taken_over("feed-0", (epoch, &holder)).await;
    signal(Signal::SIGCONT, &pod, "bots", None);
    listeners.running(60, 4).await;
    listeners.judge(4, true);
}

/// L11: healthy holders need no operator.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_nothing_moves_and_nothing_stops() {
    let mut listeners = two_pods_of(Listeners::new("crash-operator").await, "Default").await;
    let before = listeners.holders().await;
    listeners.stage.kill_operator();
    tokio::time::sleep(Duration::from_secs(31)).await; // more than twice D
    assert_eq!(listeners.holders().await, before);
    listeners.stage.start_operator();
    listeners.running(30, 4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(listeners.holders().await, before);
    for feed in listeners.verdict().values() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(1), "{feed:#}");
    }
    listeners.judge(4, false);
}

/// H3: an API server that answers late is there: no listener stops.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_answers_late() {
    let listeners = Listeners::behind_a_proxy("crash-late").await;
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.listen(4, json!({})).await;
    listeners.running(60, 4).await;
    listeners.tell_proxy("late");
    tokio::time::sleep(Duration::from_secs(30)).await; // three times S
    for (name, feed) in listeners.verdict() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(1), "nothing has stopped: {feed:#}");
        listeners.flows(1, &name).await;
    }
    listeners.tell_proxy("pass");
    listeners.judge(4, false);
}

/// An API server that is away for less than S stops nothing; for more, everything stops, and starts again once.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_agents_cannot_reach() {
    let listeners = Listeners::behind_a_proxy("crash-partition").await;
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.listen(4, json!({})).await;
    listeners.running(60, 4).await;
    let before = listeners.holders().await;
    listeners.tell_proxy("silent");
    tokio::time::sleep(Duration::from_secs(3)).await;
    listeners.tell_proxy("pass");
    listeners.tell_proxy("cut");
    tokio::time::sleep(Duration::from_secs(10)).await; // S after the last renewal before
    for feed in listeners.verdict().values() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(1), "nothing has stopped: {feed:#}");
    }
    listeners.tell_proxy("silent");
    tokio::time::sleep(Duration::from_secs(17)).await; // longer than D: everything has stopped, and nobody is fenced
    let position = |feed: &str| listeners.verdict()[feed]["position"].as_u64();
    let stood_at = position("feed-0");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(position("feed-0"), stood_at, "it has stopped");
    listeners.tell_proxy("pass");
    listeners.tell_proxy("cut");
    for feed in ["feed-0", "feed-1", "feed-2", "feed-3"] {
        listeners.flows(30, feed).await;
    }
    listeners.running(30, 4).await;
    assert_eq!(listeners.holders().await, before, "most nodes silent at once: nobody is taken for dead");
    for feed in listeners.verdict().values() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(2), "it starts again once: {feed:#}");
    }
    listeners.judge(4, false);
}

/// L1: a guard that is stopped cannot stop its child; the agent kills both, and only then hands over.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_guard_does_not_keep_a_listener_from_moving() {
    let listeners = Listeners::new("crash-guard").await;
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.listen(4, json!({"defaults": {"stopTimeoutSeconds": 2}})).await;
    listeners.running(60, 4).await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    let pod = holder.split('/').next().unwrap().to_owned();
    kill(guard(&pod, "feed-0"), Signal::SIGSTOP).unwrap();
    listeners.stage.delete_pod(&pod).await;
    listeners.until_held_by_others(60, &pod).await;
    listeners.flows(30, "feed-0").await;
    assert!(listeners.ownership("feed-0").await.0 > epoch);
    listeners.running(60, 4).await;
    listeners.judge(4, true);
}

/// L1: a Pod that stood still as a whole, as a machine that was paused does, goes on with what is another's by now: its
/// token is old, and what it writes then is refused. Its agent ends it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_stood_still_is_kept_out_by_its_token() {
    let listeners = two_pods_of(Listeners::fenced("crash-pause").await, "Fast").await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    let pod = holder.split('/').next().unwrap().to_owned();
    let namespace = listeners.stage.namespace.clone();
    listeners.node(&["pause", &namespace, &pod]);
    tokio::time::sleep(Duration::from_secs(8)).await; // longer than D
    listeners.taken_over("feed-0", (epoch, &holder)).await;
    listeners.node(&["resume", &namespace, &pod]);
    listeners.running(60, 4).await;
    listeners.flows(20, "feed-0").await;
    let verdict = listeners.verdict();
    let refused: u64 = verdict
        .values()
        .flat_map(|feed| feed["connections"].as_array().into_iter().flatten())
        .filter_map(|connection| connection["refused"].as_u64())
        .sum();
    println!("refused for an old token: {refused}");
    listeners.judge(4, false);
}

/// A token that is no good for a while stops nothing; one that stays bad does, in time for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_good() {
    let listeners = Listeners::new("crash-token").await;
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.listen(4, json!({})).await;
    listeners.running(60, 4).await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    let uid = holder.split('/').nth(1).unwrap();
    let token = listeners.token_of(uid);
    let good = fs::read(&token).unwrap();
    // Half of S: the API server says 401, which is no answer to who holds what.
    fs::write(&token, "no.good.token").unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    fs::write(&token, &good).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(listeners.ownership("feed-0").await, (epoch, holder.clone()));
    assert_eq!(listeners.connections("feed-0"), 1, "it has not stopped");
    fs::write(&token, "no.good.token").unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while listeners.ownership("feed-0").await.1 == holder {
        assert!(Instant::now() < deadline, "{}", listeners.explain());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    listeners.flows(30, "feed-0").await;
    fs::write(&token, &good).unwrap();
    listeners.running(60, 4).await;
    listeners.judge(4, true);
}

/// L2: a Lease that somebody deletes is made again, and its listener starts once more, of a higher epoch. Its holder, who
/// stood still meanwhile, wakes to a Lease that is not his: he cannot bring the old one back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_while_its_holder_stands_still() {
    let listeners = two_pods("crash-lease").await;
    let (epoch, holder) = listeners.ownership("feed-0").await;
    let pod = holder.split('/').next().unwrap().to_owned();
    signal(Signal::SIGSTOP, &pod, "bots", None);
    listeners.leases().delete("listener.bots.feed-0", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await; // longer than D
    listeners.taken_over("feed-0", (epoch, &holder)).await;
    signal(Signal::SIGCONT, &pod, "bots", None);
    listeners.running(60, 4).await;
    listeners.judge(4, true);
}
