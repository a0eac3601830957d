//! Faults do what they say.
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    ApiServer, Store,
    delete::DeleteOptions,
    faults::{Ending, Fate, Faults, Request, StreamFate, StreamInfo, Then, Verb},
    kinds::PODS,
    refusal::Refusal,
    tests::{code, pod, pods, server},
};

/// Every watch has this fate.
struct Streams(StreamFate);

impl Faults for Streams {
    fn stream(&mut self, _: &StreamInfo) -> StreamFate {
        self.0.clone()
    }
}

type Watch = BoxStream<'static, kube::Result<WatchEvent<Pod>>>;

async fn watch(server: &ApiServer, seconds: u32) -> Watch {
    let version = server.look(Store::revision).to_string();
    pods(server).watch(&WatchParams::default().timeout(seconds), &version).await.unwrap().boxed()
}

fn create(server: &ApiServer, name: &str) {
    server.actor("user").create(&PODS, "shop", serde_json::to_value(pod(name)).unwrap()).unwrap();
}

fn delete(server: &ApiServer, name: &str) {
    server.actor("user").delete(&PODS, "shop", name, &DeleteOptions::default()).unwrap();
}

fn line(event: &WatchEvent<Pod>) -> String {
    match event {
        WatchEvent::Added(pod) => format!("added {}", pod.metadata.name.as_deref().unwrap()),
        WatchEvent::Modified(pod) => format!("modified {}", pod.metadata.name.as_deref().unwrap()),
        WatchEvent::Deleted(pod) => format!("deleted {}", pod.metadata.name.as_deref().unwrap()),
        WatchEvent::Bookmark(bookmark) => format!("bookmark {}", bookmark.metadata.resource_version),
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

/// What a watch tells until it ends, with the seconds since `start`.
async fn told(mut watch: Watch, start: Instant) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(event) = watch.try_next().await.unwrap() {
        lines.push(format!("{} s {}", start.elapsed().as_secs(), line(&event)));
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_lagging_watch_tells_late_and_never_bookmarks_what_it_has_not_told() {
    let server = server();
    server.set_faults(Streams(StreamFate { lag: Duration::from_secs(100), ..StreamFate::default() }));
    let watch = watch(&server, 150).await;
    let start = Instant::now();
    create(&server, "a");
    tokio::time::sleep(Duration::from_secs(30)).await;
    create(&server, "b");
    let expected = ["60 s bookmark 100", "100 s added a", "120 s bookmark 101", "130 s added b", "148 s bookmark 102"];
    assert_eq!(told(watch, start).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_coalescing_watch_tells_of_an_object_once() {
    let server = server();
    create(&server, "old");
    let coalesce = Some(Duration::from_secs(5));
    server.set_faults(Streams(StreamFate { coalesce, ..StreamFate::default() }));
    let watch = watch(&server, 10).await;
    let start = Instant::now();
    create(&server, "brief");
    delete(&server, "brief");
    delete(&server, "old");
    create(&server, "new");
    create(&server, "old");
    let lines = told(watch, start).await;
    assert_eq!(lines[..2], ["5 s added new", "5 s modified old"], "a replaced object looks changed: {lines:?}");
    assert!(lines[2..].iter().all(|line| line.contains("bookmark")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_does_not_even_end() {
    let server = server();
    let silent_after = Some(Duration::from_secs(3));
    server.set_faults(Streams(StreamFate { silent_after, ..StreamFate::default() }));
    let mut watch = watch(&server, 10).await;
    create(&server, "a");
    assert_eq!(line(&watch.try_next().await.unwrap().unwrap()), "added a");
    tokio::time::sleep(Duration::from_secs(4)).await;
    create(&server, "b");
    assert!(tokio::time::timeout(Duration::from_hours(1), watch.try_next()).await.is_err());
    server.end_streams(|stream| *stream.kind == PODS, Ending::Reset);
    assert!(watch.try_next().await.is_err());
}

/// The process `behind` talks to a server that has come as far as this.
struct Behind(u64);

impl Faults for Behind {
    fn cached_revision(&mut self, request: &Request, store: &Store) -> u64 {
        if &*request.who == "behind" { self.0 } else { store.revision() }
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_asks_for_any_version_gets_an_old_one() {
    let server = server();
    create(&server, "a");
    create(&server, "b");
    server.set_faults(Behind(101));
    let count = async |who: &str, params: ListParams| {
        let api: Api<Pod> = Api::namespaced(server.client(who), "shop");
        let list = api.list(&params).await.unwrap();
        (list.items.len(), list.metadata.resource_version.unwrap())
    };
    assert_eq!(count("behind", ListParams::default().match_any()).await, (1, "101".to_owned()));
    assert_eq!(count("behind", ListParams::default()).await, (2, "102".to_owned()));
    assert_eq!(count("other", ListParams::default().match_any()).await, (2, "102".to_owned()));
}

/// The first create is refused before it is done, the second after, the third breaks the connection.
struct Refusing(usize);

impl Faults for Refusing {
    fn before(&mut self, request: &Request, _: &Store) -> Fate {
        self.0 += usize::from(request.verb == Verb::Create);
        if request.verb == Verb::Create && self.0 == 1 {
            Fate::now(Then::Answer(Refusal::too_many_requests()))
        } else {
            Fate::default()
        }
    }

    fn after(&mut self, request: &Request, _: u16, _: &Store) -> Fate {
        match (request.verb, self.0) {
            (Verb::Create, 2) => Fate::now(Then::Answer(Refusal::timeout())),
            (Verb::Create, 3) => Fate { delay: Duration::from_secs(1), then: Then::Reset },
            _ => Fate::default(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_nothing_of_what_was_done() {
    let server = server();
    server.set_faults(Refusing(0));
    let api = pods(&server);
    for (name, expected, is_done) in [("a", 429, false), ("b", 504, true), ("c", 0, true)] {
        let refused = api.create(&PostParams::default(), &pod(name)).await.unwrap_err();
        assert_eq!((code(&refused), api.get_opt(name).await.unwrap().is_some()), (expected, is_done), "{name}");
    }
    let noted = server.audit(|audit| {
        let creates = audit.entries().filter(|entry| entry.request.verb == Verb::Create);
        creates.map(|entry| (entry.code, entry.is_done)).collect::<Vec<_>>()
    });
    assert_eq!(noted, [(429, false), (504, true), (0, true)]);
}

/// Delays requests by whatever comes.
struct Delays(fastrand::Rng);

impl Faults for Delays {
    fn before(&mut self, _: &Request, _: &Store) -> Fate {
        Fate::delayed(Duration::from_millis(self.0.u64(..50)))
    }
}

/// Everything that happened, in text.
async fn history(seed: u64) -> Vec<String> {
    let server = server();
    server.set_faults(Delays(fastrand::Rng::with_seed(seed)));
    let (sender, mut commits) = tokio::sync::mpsc::unbounded_channel();
    server.subscribe(move |commit| {
        let line = format!("{} {} {:?} {}", commit.at, commit.who, commit.verb, commit.change.object.value());
        sender.send(line).unwrap();
    });
    let writers = (0..5).map(|writer| {
        let api: Api<Pod> = Api::namespaced(server.client(&format!("writer-{writer}")), "shop");
        async move {
            for number in 0..10 {
                let _ = api.create(&PostParams::default(), &pod(&format!("pod-{number}"))).await;
            }
        }
    });
    futures::future::join_all(writers).await;
    let mut lines = Vec::new();
    while let Ok(line) = commits.try_recv() {
        lines.push(line);
    }
    lines
}

#[test]
fn a_seed_is_a_history() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(seed))
    };
    assert_eq!(run(1).len(), 10);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_nothing_behind() {
    let server = server();
    let api = pods(&server);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let shown = api.create(&params, &pod("a")).await.unwrap();
    assert!(shown.metadata.uid.is_some() && shown.metadata.resource_version.is_none());
    assert_eq!(server.look(Store::revision), 100);
    let generated: Value =
        json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let made = server.actor("user").create(&PODS, "shop", generated).unwrap();
    assert!(made.name().starts_with("web-") && made.name().len() == 9, "{}", made.name());
}
