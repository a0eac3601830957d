use std::sync::{Arc, Mutex};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::{
    scripted::{self, Answer, Call},
    snapshot::wire::PodView,
};

fn pod(name: &str, resource_version: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "resourceVersion": resource_version.to_string()}})
}

fn list(resource_version: u32, items: &[Value], next: &str) -> Answer {
    let metadata = json!({"resourceVersion": resource_version.to_string(), "continue": next});
    Answer::ok(json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}))
}

fn frame(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(resource_version: u32) -> Value {
    frame(
        "BOOKMARK",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": resource_version.to_string()}}),
    )
}

/// What the sink got, as text: `listed@5[a]`, `a@6`, `-a@7`, `@8`.
type Told = Arc<Mutex<Vec<String>>>;

/// A running watch over scripted answers (lists, then watches, each in order; after the last: no answer).
struct Rig {
    told: Told,
    calls: Arc<Mutex<Vec<Call>>>,
    refresher: Refresher,
    ends: Family<EndLabels, Counter>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn new(lists: Vec<Answer>, watches: Vec<Answer>) -> Self {
        Self::with(lists, watches, true)
    }

    fn with(lists: Vec<Answer>, watches: Vec<Answer>, required: bool) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (lists, watches) = (Mutex::new(lists.into_iter()), Mutex::new(watches.into_iter()));
        let seen = calls.clone();
        let client = scripted::client(move |call| {
            let answers = if call.is_watch() { &watches } else { &lists };
            seen.lock().unwrap().push(call);
            answers.lock().unwrap().next().unwrap_or(Answer::Never)
        });
        let mut refresher = Refresher::default();
        let settings = Settings { page_size: 2, ..Settings::default() };
        let watch = Watch::<PodView> {
            api: Api::all(client),
            name: "Pod",
            selection: Selection::labels("baton.dev/rollout"),
            settings: settings.clone(),
            refresh: refresher.subscribe(),
            rng: fastrand::Rng::with_seed(1),
            required,
        };
        let told = Told::default();
        let sink = told.clone();
        let task = tokio::spawn(watch.run(move |event| {
            let at = |object: &DeserializeGuard<PodView>| {
                format!("{}@{}", object.name_any(), object.resource_version().unwrap_or_default())
            };
            sink.lock().unwrap().push(match event {
                Event::Listed { objects, resource_version } => {
                    let names: Vec<_> = objects.iter().map(ResourceExt::name_any).collect();
                    format!("listed@{resource_version}[{}]", names.join(","))
                }
                Event::Applied(object) => at(&object),
                Event::Deleted(object) => format!("-{}", at(&object)),
                Event::Progressed(resource_version) => format!("@{resource_version}"),
            });
        }));
        Self { told, calls, refresher, ends: settings.ends, task }
    }

    /// Lets time pass until so much was told; fails after ten (virtual) minutes.
    async fn tells(&self, expected: &[&str]) {
        let wait = async {
            while self.told.lock().unwrap().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_mins(10), wait).await;
        assert_eq!(*self.told.lock().unwrap(), expected, "{in_time:?}");
    }

    /// resourceVersion that each watch was begun at.
    fn watched_from(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.is_watch()).map(|call| call.query["resourceVersion"].clone()).collect()
    }

    fn lists(&self) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| !call.is_watch()).count()
    }

    fn ended(&self, cause: &'static str) -> u64 {
        self.ends.get_or_create(&EndLabels { kind: "Pod", cause }).get()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// After a silence of the network the client tries a dead connection of its pool first: seen to cost 30 s.
#[tokio::test(start_paused = true)]
async fn a_watch_that_does_not_begin_is_given_up_soon() {
    let began = Instant::now();
    let rig = Rig::new(vec![list(5, &[], "")], vec![Answer::Never, Answer::watch([bookmark(6)])]);
    rig.tells(&["listed@5[]", "@6"]).await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn lists_page_by_page_then_watches_from_there() {
    let pages = vec![list(5, &[pod("a", 1), pod("b", 2)], "more"), list(5, &[pod("c", 3)], "")];
    let watch = Answer::watch([frame("MODIFIED", &pod("a", 6)), frame("DELETED", &pod("b", 7)), bookmark(8)]);
    let rig = Rig::new(pages, vec![watch]);
    rig.tells(&["listed@5[a,b,c]", "a@6", "-b@7", "@8"]).await;
    let calls = rig.calls.lock().unwrap().clone();
    assert_eq!(calls[1].query["continue"], "more");
    assert_eq!(calls[0].query["labelSelector"], "baton.dev%2Frollout");
    assert_eq!(calls[2].query["allowWatchBookmarks"], "true");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ended_by_the_server_resumes_at_once_from_the_last_version() {
    let watches = vec![Answer::watch([frame("ADDED", &pod("a", 6))]), Answer::watch([frame("ADDED", &pod("b", 9))])];
    let began = Instant::now();
    let rig = Rig::new(vec![list(5, &[], "")], watches);
    rig.tells(&["listed@5[]", "a@6", "b@9"]).await;
    assert_eq!(rig.watched_from()[..2], ["5", "6"]);
    assert!(began.elapsed() < Duration::from_millis(30), "resumed after {:?}", began.elapsed());
}

/// kube's own watcher freezes for ever on this one.
#[tokio::test(start_paused = true)]
async fn http_410_at_the_start_of_a_watch_leads_to_a_list() {
    let watches = vec![Answer::failure(410, "Expired", "too old resource version: 5 (70)")];
    let rig = Rig::new(vec![list(5, &[pod("a", 5)], ""), list(71, &[], "")], watches);
    rig.tells(&["listed@5[a]", "listed@71[]"]).await;
    assert_eq!(rig.ended("expired"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_410_within_the_stream_leads_to_a_list() {
    let expired = frame("ERROR", &scripted::failure(410, "Expired", "too old resource version"));
    let watches = vec![Answer::watch([frame("ADDED", &pod("a", 6)), expired])];
    let rig = Rig::new(vec![list(5, &[], ""), list(71, &[], "")], watches);
    rig.tells(&["listed@5[]", "a@6", "listed@71[]"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_given_up_and_resumed() {
    let (_held, silent) = tokio::sync::mpsc::unbounded_channel();
    let watches = vec![Answer::Watch(silent), Answer::watch([frame("ADDED", &pod("a", 6))])];
    let began = Instant::now();
    let rig = Rig::new(vec![list(5, &[], "")], watches);
    rig.tells(&["listed@5[]", "a@6"]).await;
    assert_eq!(rig.ended("silent"), 1);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_mins(1) && waited < Duration::from_secs(62), "{waited:?}");
}

/// Full lists in ten minutes of an API server that answers every list, and every watch in this one way.
async fn lists_in_ten_minutes(watch: impl Fn() -> Answer, required: bool) -> usize {
    let watches = (0..10_000).map(|_| watch()).collect();
    let lists = (0..10_000).map(|_| list(5, &[pod("a", 5)], "")).collect();
    let rig = Rig::with(lists, watches, required);
    tokio::time::sleep(Duration::from_mins(10)).await;
    rig.lists()
}

/// One full list costs the API server as much as thousands of watch events: eight while the pause grows to 15 s, then four
/// a minute.
#[tokio::test(start_paused = true)]
async fn watches_that_never_work_are_not_a_storm_of_lists() {
    let expired = || Answer::failure(410, "Expired", "too old resource version");
    let expired_within =
        || Answer::watch([frame("ERROR", &scripted::failure(410, "Expired", "too old resource version"))]);
    let forbidden = || Answer::failure(403, "Forbidden", "pods is forbidden: cannot watch");
    let broken = || Answer::failure(500, "InternalError", "etcd is gone");
    let ended_at_once = || Answer::watch([]);
    let lists = [
        lists_in_ten_minutes(expired, true).await,
        lists_in_ten_minutes(expired_within, true).await,
        lists_in_ten_minutes(forbidden, true).await,
        lists_in_ten_minutes(forbidden, false).await,
        lists_in_ten_minutes(broken, true).await,
        lists_in_ten_minutes(ended_at_once, true).await,
    ];
    assert!(lists.iter().all(|lists| (40..=55).contains(lists)), "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_works_ends_the_long_pauses() {
    let expired = || Answer::failure(410, "Expired", "too old resource version");
    let mut watches: Vec<_> = (0..20).map(|_| expired()).collect();
    watches.push(Answer::watch([frame("ADDED", &pod("b", 6))]));
    watches.extend([expired(), expired()]);
    let rig = Rig::new((0..100).map(|n| list(n, &[], "")).collect(), watches);
    let began = Instant::now();
    while rig.told.lock().unwrap().iter().all(|told| told != "b@6") {
        assert!(began.elapsed() < Duration::from_hours(1), "it never works again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(began.elapsed() > Duration::from_mins(2), "the pauses have grown: {:?}", began.elapsed());
    let lists = rig.lists();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.lists() - lists, 2, "one at once, one after the shortest pause");
}

#[tokio::test(start_paused = true)]
async fn a_list_on_request_is_not_delayed_by_watches_that_never_work() {
    let refusals = (0..1_000).map(|_| Answer::failure(403, "Forbidden", "cannot watch")).collect();
    let rig = Rig::new((0..1_000).map(|n| list(n, &[], "")).collect(), refusals);
    tokio::time::sleep(Duration::from_mins(5)).await;
    let began = Instant::now();
    rig.refresher.wait(rig.refresher.request()).await;
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_on_request_is_one_that_began_after_it() {
    let (_held, quiet) = tokio::sync::mpsc::unbounded_channel();
    let rig = Rig::new(vec![list(5, &[pod("a", 5)], ""), list(9, &[], "")], vec![Answer::Watch(quiet)]);
    rig.tells(&["listed@5[a]"]).await;
    assert!(rig.refresher.reached(1));
    let number = rig.refresher.request();
    assert!(!rig.refresher.reached(number));
    rig.refresher.wait(number).await;
    rig.tells(&["listed@5[a]", "listed@9[]"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_definition_is_waited_for() {
    let missing = || Answer::failure(404, "NotFound", "the server could not find the requested resource");
    let rig = Rig::new(vec![missing(), missing(), missing(), list(5, &[], "")], Vec::new());
    assert!(!rig.refresher.reached(1));
    rig.tells(&["listed@5[]"]).await;
    assert!(rig.refresher.reached(1));
}

#[tokio::test(start_paused = true)]
async fn a_list_without_an_answer_is_tried_again() {
    let rig = Rig::new(vec![Answer::Never, list(5, &[], "")], Vec::new());
    rig.tells(&["listed@5[]"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_needed_and_not_allowed_is_asked_for_rarely() {
    let refusals = (0..1_000).map(|_| Answer::failure(403, "Forbidden", "nodes is forbidden")).collect();
    let rig = Rig::with(refusals, Vec::new(), false);
    tokio::time::sleep(Duration::from_hours(1)).await;
    let calls = rig.calls.lock().unwrap().len();
    assert!((5..=8).contains(&calls), "{calls} calls in an hour");
}

/// An API server that comes back after an outage is found within 3 s, and is asked anew where it first answers with errors.
#[test]
fn pauses_stay_short_while_the_api_server_does_not_answer() {
    let (mut failures, mut rng) = (Failures::default(), fastrand::Rng::with_seed(1));
    let mut pause = |failure: Failure| failures.add("Pod", &failure, true, &mut rng);
    for _ in 0..20 {
        assert!(pause(Failure::new(Verb::List, "connection refused")) <= Duration::from_secs(3));
    }
    let unready = || Failure { verb: Verb::List, code: 503, message: "starting".into() };
    assert!(pause(unready()) < Duration::from_millis(500));
    let grown = (0..20).map(|_| pause(unready())).max();
    assert!(grown > Some(Duration::from_secs(10)), "{grown:?}");
}
