//! The server as clients meet it.
use std::time::Duration;

use baton::{api::Rollout, operator::clock::Clock};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use super::{
    ApiServer, Options,
    delete::DeleteOptions,
    faults::{Ending, Fate, Faults, Request, Then, Verb},
    kinds::{CONFIG_MAPS, PODS, ROLLOUTS},
};

/// A server whose clock is tokio's.
pub(super) fn server() -> ApiServer {
    let start = tokio::time::Instant::now();
    let epoch: jiff::Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
    let clock = Clock::new(move || epoch + jiff::SignedDuration::try_from(start.elapsed()).unwrap());
    ApiServer::new(Options::new(1, clock))
}

pub(super) fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
    }))
    .unwrap()
}

pub(super) fn pods(server: &ApiServer) -> Api<Pod> {
    Api::namespaced(server.client("test"), "shop")
}

pub(super) fn code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

/// What the operator says on a Pod leaves alone what the kubelet says.
#[tokio::test(start_paused = true)]
async fn conditions_are_merged_by_type() {
    let server = server();
    let api: Api<Pod> = Api::namespaced(server.client("operator"), "shop");
    api.create(&PostParams::default(), &pod("a")).await.unwrap();
    for (type_, status) in [("Ready", "False"), ("baton.dev/in-service", "True"), ("Ready", "True")] {
        let patch = json!({"status": {"conditions": [{"type": type_, "status": status}]}});
        api.patch_status("a", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }
    let conditions = api.get("a").await.unwrap().status.unwrap().conditions.unwrap();
    let said: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
    assert_eq!(said, [("Ready", "True"), ("baton.dev/in-service", "True")]);
}

#[tokio::test(start_paused = true)]
async fn an_object_lives_as_on_a_real_server() {
    let server = server();
    let api = pods(&server);
    let created = api.create(&PostParams::default(), &pod("a")).await.unwrap();
    assert_eq!(created.metadata.resource_version.as_deref(), Some("101"));
    assert_eq!(created.metadata.generation, Some(1));
    assert_eq!(code(&api.create(&PostParams::default(), &pod("a")).await.unwrap_err()), 409);
    let patch = json!({"metadata": {"resourceVersion": "100"}});
    let stale = api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap_err();
    assert_eq!(code(&stale), 409);
    server.actor("scheduler").bind("shop", "a", "node-1").unwrap();
    let marked = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    assert_eq!(marked.metadata.deletion_timestamp.unwrap().0.to_string(), "2026-01-01T10:00:30Z");
    server.actor("kubelet").finish_pod("shop", "a", &created.metadata.uid.unwrap()).unwrap();
    assert_eq!(code(&api.get("a").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_a_list_began() {
    let server = server();
    let api = pods(&server);
    api.create(&PostParams::default(), &pod("a")).await.unwrap();
    let list = api.list(&ListParams::default().labels("app=web")).await.unwrap();
    assert_eq!((list.items.len(), list.metadata.resource_version.as_deref()), (1, Some("101")));
    let params = WatchParams::default().labels("app=web").timeout(20);
    let mut stream = api.watch(&params, "101").await.unwrap().boxed();
    let actor = server.actor("user");
    actor.create(&PODS, "shop", serde_json::to_value(pod("b")).unwrap()).unwrap();
    actor.edit(&PODS, "shop", "a", |pod| pod["metadata"]["labels"] = json!({})).unwrap();
    let mut told = Vec::new();
    while let Some(event) = stream.try_next().await.unwrap() {
        told.push(match event {
            WatchEvent::Added(pod) => format!("added {}", pod.metadata.name.unwrap()),
            WatchEvent::Deleted(pod) => {
                format!("deleted {}@{}", pod.metadata.name.unwrap(), pod.metadata.resource_version.unwrap())
            }
            WatchEvent::Bookmark(bookmark) => format!("bookmark {}", bookmark.metadata.resource_version),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(told, ["added b", "deleted a@103", "bookmark 103"]);
    assert!(server.streams().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_is_gone() {
    let server = server();
    let api = pods(&server);
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &pod(name)).await.unwrap();
    }
    let page = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (2, Some(1)));
    let token = page.metadata.continue_.unwrap();
    server.actor("user").delete(&PODS, "shop", "c", &DeleteOptions::default()).unwrap();
    let rest = api.list(&ListParams::default().continue_token(&token)).await.unwrap();
    assert_eq!(rest.items.len(), 1, "pages are of one moment");
    server.compact(105);
    assert_eq!(code(&api.list(&ListParams::default().continue_token(&token)).await.unwrap_err()), 410);
    let mut stream = api.watch(&WatchParams::default(), "101").await.unwrap().boxed();
    let Some(WatchEvent::Error(status)) = stream.try_next().await.unwrap() else { panic!("no error") };
    assert_eq!(status.code, 410);
    let mut stream = api.watch(&WatchParams::default(), "105").await.unwrap().boxed();
    server.end_streams(|_| true, Ending::Expired);
    assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Error(_))));
    assert!(stream.try_next().await.unwrap().is_none());
}

/// Loses the answer of every write, after a second.
struct Lossy;

impl Faults for Lossy {
    fn before(&mut self, request: &Request, _: &super::store::Store) -> Fate {
        if request.verb.is_write() { Fate::delayed(Duration::from_secs(1)) } else { Fate::default() }
    }

    fn after(&mut self, request: &Request, _: u16, _: &super::store::Store) -> Fate {
        Fate::now(if request.verb.is_write() { Then::Lose } else { Then::Deliver })
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gives_up_does_not_take_back_what_it_sent() {
    let server = server();
    server.set_faults(Lossy);
    let api = pods(&server);
    let given_up =
        tokio::time::timeout(Duration::from_millis(500), api.create(&PostParams::default(), &pod("a"))).await;
    assert!(given_up.is_err());
    assert_eq!(code(&api.get("a").await.unwrap_err()), 404);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(api.get("a").await.is_ok());
    let codes: Vec<_> = server.audit(|audit| audit.entries().map(|e| (e.request.verb, e.code, e.is_done)).collect());
    assert_eq!(codes, [(Verb::Get, 404, true), (Verb::Create, 0, true), (Verb::Get, 200, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_is_defaulted_and_its_status_is_apart() {
    let server = server();
    let user = server.actor("user");
    let rollout = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "unknown": 1,
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}},
    }});
    let created = user.create(&ROLLOUTS, "shop", rollout).unwrap();
    assert_eq!(created["status"]["conditions"][0]["reason"], "Pending");
    assert_eq!(created["spec"]["minReadySeconds"], 0);
    assert!(created["spec"]["unknown"].is_null());
    let api: Api<Rollout> = Api::namespaced(server.client("test"), "shop");
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}, "status": {"readyReplicas": 7}}));
    let scaled = api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((scaled.metadata.generation, scaled.spec.replicas), (Some(2), 4));
    let told =
        user.edit_status(&ROLLOUTS, "shop", "web", |rollout| rollout["status"]["readyReplicas"] = json!(2)).unwrap();
    assert_eq!((&told["metadata"]["generation"], &told["status"]["readyReplicas"]), (&json!(2), &json!(2)));
    let again = user.edit_status(&ROLLOUTS, "shop", "web", |_| {}).unwrap();
    assert_eq!(again.revision(), told.revision(), "nothing to write, nothing written");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_created_by_put() {
    let server = server();
    let api: Api<Lease> = Api::namespaced(server.client("test"), "shop");
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "lock"}, "spec": {"holderIdentity": "a"}})).unwrap();
    let created = api.replace("lock", &PostParams::default(), &lease).await.unwrap();
    assert_eq!(code(&api.replace("lock", &PostParams::default(), &lease).await.unwrap_err()), 422);
    assert!(api.replace("lock", &PostParams::default(), &created).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn garbage_goes_when_its_last_owner_has() {
    let server = server();
    let user = server.actor("user");
    let owner = user.create(&CONFIG_MAPS, "shop", json!({"metadata": {"name": "owner"}})).unwrap();
    let reference = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid});
    let dependent = |name: &str, uids: &[&str]| json!({"metadata": {"name": name, "ownerReferences": uids.iter().map(|uid| reference(uid)).collect::<Value>()}});
    user.create(&CONFIG_MAPS, "shop", dependent("one", &[owner.uid()])).unwrap();
    user.create(&CONFIG_MAPS, "shop", dependent("two", &[owner.uid(), "gone"])).unwrap();
    let names = || user.list(&CONFIG_MAPS, "").iter().map(|object| object.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(server.collect_garbage(), 1, "only a dead owner is struck off");
    assert_eq!(names(), ["one", "owner", "two"]);
    user.delete(&CONFIG_MAPS, "shop", "owner", &DeleteOptions::default()).unwrap();
    assert_eq!(server.collect_garbage(), 2);
    assert_eq!(names(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn subscribers_are_told_in_order_also_of_what_they_write() {
    let server = server();
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let actor = server.actor("controller");
    let first = sender.clone();
    server.subscribe(move |commit| {
        first.send(format!("1: {}", commit.change.key)).unwrap();
        if commit.change.key == "shop/a" {
            actor.create(&CONFIG_MAPS, "shop", json!({"metadata": {"name": "b"}})).unwrap();
        }
    });
    server.subscribe(move |commit| sender.send(format!("2: {} by {}", commit.change.key, commit.who)).unwrap());
    server.actor("user").create(&CONFIG_MAPS, "shop", json!({"metadata": {"name": "a"}})).unwrap();
    let mut seen = Vec::new();
    while let Ok(line) = told.try_recv() {
        seen.push(line);
    }
    assert_eq!(seen, ["1: shop/a", "2: shop/a by user", "1: shop/b", "2: shop/b by controller"]);
}
