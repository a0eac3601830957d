//! An API server of a few lines, whose watch tells only when the test says so.
use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::scripted::{Answer, Call, failure};

/// What the API server holds and does.
#[derive(Default)]
pub struct World {
    pub objects: BTreeMap<String, Value>,
    pub version: u64,
    pub watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    /// Events that the watches have not told yet.
    pub untold: VecDeque<(String, Value)>,
    /// Tells every event at once.
    pub tells: bool,
    /// Requests other than lists and watches, as `POST /path`.
    pub calls: Vec<String>,
    pub lists: usize,
    /// What is refused: beginning of the request line, HTTP status, reason, message. Status 0: performed, not answered.
    pub refusal: Option<(String, u16, String)>,
}

/// `/api/v1/pods` or `/apis/baton.dev/v1alpha1/rollouts` → `pods`, `rollouts`.
pub fn kind_of(path: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or_default();
    ["pods", "rollouts", "controllerrevisions", "listenersets", "leases", "services"]
        .into_iter()
        .find(|kind| last == *kind || path.contains(&format!("/{kind}/")))
        .unwrap_or(last)
        .to_owned()
}

impl World {
    pub fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let is_new = !self.objects.contains_key(path);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if is_new {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
            object["metadata"]["creationTimestamp"] = json!("2026-01-01T10:00:00Z");
        }
        self.objects.insert(path.to_owned(), object.clone());
        let what = if is_new { "ADDED" } else { "MODIFIED" };
        self.untold.push_back((kind_of(path), json!({"type": what, "object": object})));
        if self.tells {
            self.tell();
        }
        object
    }

    /// The watches tell what has happened.
    pub fn tell(&mut self) {
        while let Some((kind, event)) = self.untold.pop_front() {
            for (_, watcher) in self.watchers.iter().filter(|(of, _)| *of == kind) {
                let _ = watcher.send(event.clone());
            }
        }
    }

    pub fn answer(&mut self, call: &Call) -> Answer {
        let kind = kind_of(&call.path);
        if call.is_watch() {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watchers.push((kind, sender));
            return Answer::Watch(receiver);
        }
        if call.method == "GET" && call.path.ends_with(&kind) {
            self.lists += 1;
            let items: Vec<&Value> =
                self.objects.iter().filter(|(path, _)| kind_of(path) == kind).map(|o| o.1).collect();
            return Answer::ok(json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items}));
        }
        let dry_run = if call.query.contains_key("dryRun") { "dry-run " } else { "" };
        self.calls.push(format!("{dry_run}{}", call.line()));
        let refusal = self.refusal.clone().filter(|(line, ..)| call.line().starts_with(line));
        if let Some((_, code, message)) = refusal.clone().filter(|(_, code, _)| *code != 0) {
            return Answer::Json(code, failure(code, if code == 409 { "Conflict" } else { "Other" }, &message));
        }
        let answer = self.perform(call);
        if refusal.is_some() { Answer::Never } else { answer }
    }

    fn perform(&mut self, call: &Call) -> Answer {
        if call.query.contains_key("dryRun") || call.path.contains("events") {
            return Answer::Json(201, call.body.clone());
        }
        match call.method.as_str() {
            "POST" => {
                let path = format!("{}/{}", call.path, call.body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return Answer::failure(409, "AlreadyExists", "already exists");
                }
                Answer::Json(201, self.put(&path, call.body.clone()))
            }
            "PUT" => {
                let path = call.path.trim_end_matches("/status").to_owned();
                let mut object = self.objects[&path].clone();
                if object["metadata"]["resourceVersion"] != call.body["metadata"]["resourceVersion"] {
                    return Answer::failure(409, "Conflict", "modified");
                }
                object["status"] = call.body["status"].clone();
                Answer::ok(self.put(&path, object))
            }
            "PATCH" => {
                let mut object = self.objects[&call.path].clone();
                let named = &call.body["metadata"]["resourceVersion"];
                if named.is_string() && object["metadata"]["resourceVersion"] != *named {
                    return Answer::failure(409, "Conflict", "modified");
                }
                json_patch::merge(&mut object, &call.body);
                Answer::ok(self.put(&call.path, object))
            }
            "DELETE" => {
                let Some(mut object) = self.objects.remove(&call.path) else {
                    return Answer::failure(404, "NotFound", "no");
                };
                self.version += 1;
                object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.untold.push_back((kind_of(&call.path), json!({"type": "DELETED", "object": object})));
                if self.tells {
                    self.tell();
                }
                Answer::ok(object)
            }
            _ => {
                self.objects.get(&call.path).cloned().map_or_else(|| Answer::failure(404, "NotFound", "no"), Answer::ok)
            }
        }
    }
}
