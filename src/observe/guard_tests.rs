//! One object that cannot be read, beside others of its kind: in the first list, and in a watch event. A restart is a first list.
use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::scripted::{self, Answer, Call};

/// Stands in an object where the poison is to be.
const HERE: &str = "@poison@";

/// A watched kind: its path, the one object of it, times that may be anything, and a field whose value is looked at.
struct Watched {
    name: &'static str,
    path: &'static str,
    object: Value,
    times: &'static [&'static str],
    field: &'static str,
}

fn metadata(name: &str, labels: &Value, owner: &Value) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-01-01T10:00:00Z", "deletionTimestamp": "2026-01-01T10:00:00Z", "labels": labels,
        "ownerReferences": [owner], "managedFields": [{"manager": "p", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}, "time": "2026-01-01T10:00:00Z"}],
    })
}

const MANAGED: &str = "/metadata/managedFields/0/time";

fn kinds() -> Vec<Watched> {
    let at = "2026-01-01T10:00:00Z";
    let rollout = json!({"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "uid-web", "controller": true});
    let labels = json!({"baton.dev/instance": "0", "baton.dev/revision": "r", "baton.dev/rollout": "web"});
    let ended = json!({"terminated": {"exitCode": 1, "startedAt": at, "finishedAt": at}});
    let container = |state: Value| {
        json!({"name": "app", "ready": true, "restartCount": 0, "image": "", "imageID": "",
        "state": state, "lastState": ended})
    };
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a"});
    vec![
        Watched {
            name: "Rollout",
            path: "/apis/baton.dev/v1alpha1/rollouts",
            object: json!({"metadata": metadata("web", &json!({}), &json!({})), "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template, "restartAt": at, "retryAt": at,
            }, "status": {"run": 1}}),
            times: &[MANAGED, "/spec/restartAt", "/spec/retryAt"],
            field: "/spec/template",
        },
        Watched {
            name: "ListenerSet",
            path: "/apis/baton.dev/v1alpha1/listenersets",
            object: json!({"metadata": metadata("bots", &json!({}), &json!({})),
                "spec": {"selector": {"matchLabels": {"app": "bots"}}, "listeners": [{"name": "a"}]}}),
            times: &[MANAGED],
            field: "/spec/listeners",
        },
        Watched {
            name: "ControllerRevision",
            path: "/apis/apps/v1/controllerrevisions",
            object: json!({"metadata": metadata("web-r", &labels, &rollout), "data": {"template": template}, "revision": 1}),
            times: &[MANAGED, "/metadata/creationTimestamp", "/metadata/deletionTimestamp"],
            field: "/revision",
        },
        Watched {
            name: "Pod",
            path: "/api/v1/pods",
            object: json!({"metadata": metadata("web-0", &labels, &rollout), "spec": {"nodeName": "node-0"}, "status": {
                "phase": "Running", "startTime": at, "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}],
                "containerStatuses": [container(json!({"running": {"startedAt": at}}))],
                "initContainerStatuses": [container(ended.clone())],
            }}),
            times: &[
                MANAGED,
                "/metadata/creationTimestamp",
                "/metadata/deletionTimestamp",
                "/status/startTime",
                "/status/conditions/0/lastTransitionTime",
                "/status/containerStatuses/0/state/running/startedAt",
                "/status/containerStatuses/0/lastState/terminated/startedAt",
                "/status/containerStatuses/0/lastState/terminated/finishedAt",
                "/status/initContainerStatuses/0/state/terminated/finishedAt",
            ],
            field: "/status/phase",
        },
        Watched {
            name: "Lease",
            path: "/apis/coordination.k8s.io/v1/leases",
            object: json!({"metadata": metadata("session.a", &json!({"baton.dev/lease": "session"}), &pod), "spec": {
                "holderIdentity": "a/uid-a/1-r", "leaseTransitions": 1, "leaseDurationSeconds": 15, "renewTime": at, "acquireTime": at,
            }}),
            times: &[MANAGED, "/spec/renewTime", "/spec/acquireTime"],
            field: "/spec/holderIdentity",
        },
        Watched {
            name: "Node",
            path: "/api/v1/nodes",
            object: json!({"metadata": metadata("node-0", &json!({}), &json!({})), "status": {"conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": at, "lastTransitionTime": at}]}}),
            times: &[MANAGED, "/status/conditions/0/lastHeartbeatTime", "/status/conditions/0/lastTransitionTime"],
            field: "/status/conditions",
        },
    ]
}

/// What is wrong: its name, the place, the text that stands there, and whether the object can be read all the same.
fn poisons(kind: &Watched) -> Vec<(String, &'static str, String, Option<bool>)> {
    let mut all: Vec<_> = Vec::new();
    for place in kind.times {
        for time in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z", "10000-01-01T00:59:59Z"] {
            // Of Rollouts alone times are read that are no metadata and not decoded by us.
            let is_read = (kind.name != "Rollout" || *place == MANAGED).then_some(true);
            all.push((format!("{place} {time}"), *place, json!(time).to_string(), is_read));
        }
    }
    let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
    let wrong = if kind.field == "/revision" { json!("x") } else { json!(7) };
    for (name, text) in [
        ("wrong type", wrong.to_string()),
        ("depth", deep),
        ("1e400", "1e400".to_owned()),
        ("1.4 MB", json!("x".repeat(1_400_000)).to_string()),
    ] {
        all.push((name.to_owned(), kind.field, text, Some(false)));
    }
    all
}

/// The kind's object under another name, at this version, with a text in this place.
fn text(kind: &Watched, name: &str, version: u32, poison: Option<(&str, &str)>) -> String {
    let mut object = kind.object.clone();
    let own = object["metadata"]["name"].as_str().unwrap().to_owned();
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(if name == own { format!("uid-{own}") } else { format!("uid-{name}") });
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    let Some((place, text)) = poison else { return object.to_string() };
    *object.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = json!(HERE);
    object.to_string().replace(&json!(HERE).to_string(), text)
}

/// An API server that lists these texts, by path, and whose watches tell what the test says.
#[derive(Default)]
struct Server {
    items: BTreeMap<String, Vec<String>>,
    watches: Vec<(String, mpsc::UnboundedSender<String>)>,
    lists: usize,
}

impl Server {
    fn answer(&mut self, call: &Call) -> Answer {
        if call.is_watch() {
            let (sender, lines) = mpsc::unbounded_channel();
            self.watches.push((call.path.clone(), sender));
            return Answer::Lines(lines);
        }
        self.lists += 1;
        let items = self.items.get(&call.path).map(|items| items.join(",")).unwrap_or_default();
        Answer::Text(format!(r#"{{"kind":"List","metadata":{{"resourceVersion":"5"}},"items":[{items}]}}"#))
    }

    fn tell(&self, path: &str, what: &str, object: &str) {
        let line = format!(r#"{{"type":"{what}","object":{object}}}"#);
        self.watches.iter().filter(|(of, _)| of == path).for_each(|(_, watch)| drop(watch.send(line.clone())));
    }
}

/// What is known of the kind: versions by name, and names of what cannot be read.
fn known(observer: &Observer, kind: &Watched) -> (BTreeMap<String, String>, Vec<String>) {
    observer.look(|index| {
        let of = match kind.name {
            "Rollout" => Kind::Rollout,
            "Pod" => Kind::Pod,
            "ControllerRevision" => Kind::Revision,
            "ListenerSet" => Kind::ListenerSet,
            _ => Kind::Lease,
        };
        let names = [kind.object["metadata"]["name"].as_str().unwrap(), evil(kind)];
        let version = |name: &&str| {
            let key = ObjectKey { namespace: "shop".into(), name: (*name).to_owned() };
            index.version(of, &key).map(|(_, version)| ((*name).to_owned(), version.to_owned()))
        };
        let mut unreadable: Vec<_> =
            index.unreadables().filter(|(of, ..)| *of == kind.name).map(|(_, key, _)| key.name.clone()).collect();
        unreadable.dedup();
        (names.iter().filter_map(version).collect(), unreadable)
    })
}

fn evil(kind: &Watched) -> &'static str {
    if kind.name == "Lease" { "session.evil" } else { "evil" }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(2);
    while !holds() {
        assert!(Instant::now() < end, "not within 2 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The good object of every kind, and an observer of them.
async fn start(kinds: &[Watched], poisoned: Option<(&Watched, &str)>) -> (Arc<Mutex<Server>>, Observer, JoinSet<()>) {
    let mut server = Server::default();
    for kind in kinds {
        let own = kind.object["metadata"]["name"].as_str().unwrap();
        // Before and after the others.
        let poison = poisoned.filter(|(of, _)| of.name == kind.name).map(|(_, text)| text.to_owned());
        let items = poison.into_iter().chain([text(kind, own, 5, None)]);
        server.items.insert(kind.path.to_owned(), items.collect());
    }
    let server = Arc::new(Mutex::new(server));
    let answering = server.clone();
    let client = scripted::client(move |call| answering.lock().unwrap().answer(&call));
    let trigger: Trigger = Arc::new(|_| ());
    let (mut rng, mut tasks) = (fastrand::Rng::with_seed(1), JoinSet::new());
    let observer = Observer::start(&client, &[None], &Settings::default(), &mut rng, &trigger, &mut tasks);
    let shop = ObjectKey { namespace: "shop".into(), name: "bots".into() };
    until("everything is listed", || observer.is_synced() && observer.look(|index| index.is_set_listed(&shop))).await;
    let watches = || server.lock().unwrap().watches.len();
    until("everything is watched", || watches() >= 9).await;
    (server, observer, tasks)
}

fn judge(observer: &Observer, kind: &Watched, version: &str, case: &str, is_read: Option<bool>) {
    let (versions, unreadable) = known(observer, kind);
    let is_unreadable = unreadable == [evil(kind)];
    assert!(is_unreadable || unreadable.is_empty(), "{case}: {unreadable:?}");
    assert_eq!(is_read.unwrap_or(!is_unreadable), !is_unreadable, "{case}");
    if kind.name != "Node" {
        let own = kind.object["metadata"]["name"].as_str().unwrap();
        assert_eq!(versions.get(own).map(String::as_str), Some(version), "{case}: the others");
        assert!(versions.contains_key(evil(kind)), "{case}: it is there");
    }
}

/// S11: for every watched kind and everything that may be wrong with an object, in the first list.
#[tokio::test(start_paused = true)]
async fn a_list_with_one_object_that_cannot_be_read_tells_of_the_others() {
    let kinds = kinds();
    for kind in &kinds {
        for (name, place, poison, is_read) in poisons(kind) {
            let case = format!("{} {name}", kind.name);
            let poisoned = text(kind, evil(kind), 5, Some((place, &poison)));
            let (server, observer, _tasks) = start(&kinds, Some((kind, &poisoned))).await;
            judge(&observer, kind, "5", &case, is_read);
            assert_eq!(server.lock().unwrap().lists, 9, "{case}: once each");
        }
    }
}

/// S11: the same in a watch event, of an object that was known before.
#[tokio::test(start_paused = true)]
async fn a_watch_event_of_what_cannot_be_read_is_followed_by_others() {
    let kinds = kinds();
    for kind in &kinds {
        let own = kind.object["metadata"]["name"].as_str().unwrap();
        let before = text(kind, evil(kind), 5, None);
        let (server, observer, _tasks) = start(&kinds, Some((kind, &before))).await;
        for (number, (name, place, poison, is_read)) in (10..).step_by(10).zip(poisons(kind)) {
            let case = format!("{} {name}", kind.name);
            let poisoned = text(kind, evil(kind), number, Some((place, &poison)));
            let next = text(kind, own, number + 1, None);
            {
                let server = server.lock().unwrap();
                server.tell(kind.path, "MODIFIED", &poisoned);
                server.tell(kind.path, "MODIFIED", &next);
            }
            let version = (number + 1).to_string();
            if kind.name == "Node" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                until(&case, || known(&observer, kind).0.get(own) == Some(&version)).await;
            }
            judge(&observer, kind, &version, &case, is_read);
        }
        assert_eq!(server.lock().unwrap().lists, 9, "{}: nothing is listed anew", kind.name);
        server.lock().unwrap().tell(kind.path, "MODIFIED", &text(kind, evil(kind), 900, None));
        until("it is readable again", || known(&observer, kind).1.is_empty()).await;
    }
}
