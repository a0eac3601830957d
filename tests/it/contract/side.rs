//! One of the two servers: sends steps to it, and remembers what it has answered.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{Method, Request};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::{
    not_compared::Eyes,
    step::{BEGIN, CONTINUE, NAMESPACE, OTHER_UID, STALE, Step, UID, VERSION},
};
use crate::fake_apiserver::{faults::Verb, kinds::SERVICE_ACCOUNTS, object::meta_text};

/// An answer as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
}

impl Answer {
    /// `409 Conflict`, `200`.
    pub fn short(&self) -> String {
        let body = if self.body.is_array() { &self.body[0]["object"] } else { &self.body };
        let (code, inner) = (self.code, body["code"].as_u64().filter(|_| body["kind"] == "Status"));
        let inner = inner.filter(|inner| *inner != u64::from(code)).map(|inner| format!(" stream {inner}"));
        let reason = body["reason"].as_str().filter(|_| body["status"] == "Failure").unwrap_or_default();
        format!("{code}{} {reason}", inner.unwrap_or_default()).trim_end().to_owned()
    }
}

/// Where two answers differ, one line a place.
pub fn difference(fake: &Answer, real: &Answer) -> String {
    let mut places = Vec::new();
    if fake.code != real.code {
        places.push(format!("code: fake {}, real {}", fake.code, real.code));
    }
    compare(&fake.body, &real.body, "", &mut places);
    places.join("\n  ")
}

fn compare(fake: &Value, real: &Value, path: &str, places: &mut Vec<String>) {
    match (fake, real) {
        (Value::Object(fake), Value::Object(real)) => {
            let names: BTreeSet<&String> = fake.keys().chain(real.keys()).collect();
            for name in names {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                compare(&of(fake), &of(real), &format!("{path}/{name}"), places);
            }
        }
        (Value::Array(fake), Value::Array(real)) if fake.len() == real.len() => {
            for (index, (fake, real)) in fake.iter().zip(real).enumerate() {
                compare(fake, real, &format!("{path}/{index}"), places);
            }
        }
        _ if fake == real => {}
        _ => places.push(format!("{path}: fake {fake}, real {real}")),
    }
}

/// A server, and what it said so far.
pub struct Side {
    pub name: &'static str,
    pub client: Client,
    pub namespace: String,
    /// (resource, name) → (uid, resourceVersion), as last answered.
    known: BTreeMap<(&'static str, String), (String, String)>,
    /// Resource → resourceVersion of the first list.
    begins: BTreeMap<&'static str, String>,
    continue_: String,
    eyes: Eyes,
}

impl Side {
    pub fn new(name: &'static str, client: Client, namespace: &str) -> Self {
        Self {
            name,
            client,
            namespace: namespace.to_owned(),
            known: BTreeMap::new(),
            begins: BTreeMap::new(),
            continue_: String::new(),
            eyes: Eyes::default(),
        }
    }

    /// The namespace, with what a Pod needs there.
    pub async fn make_namespace(&self) {
        let namespace = json!({"metadata": {"name": self.namespace}});
        let (code, body) = self.send(Method::POST, "/api/v1/namespaces", "application/json", &namespace).await;
        assert_eq!(code, 201, "{body}");
        let account = Step::create(&SERVICE_ACCOUNTS, json!({"metadata": {"name": "default"}}));
        let path = account.path(&self.namespace);
        let (code, body) = self.send(Method::POST, &path, account.content_type, &account.body).await;
        // The controller may have been faster.
        assert!(matches!(code, 201 | 409), "{body}");
    }

    /// Sends a step; the answer as it is compared.
    pub async fn take(&mut self, step: &Step) -> Answer {
        let (code, body) = self.ask(step).await;
        self.remember(step, &body);
        Answer { code, body: self.eyes.see(step, &body) }
    }

    /// The same for several, at the same time.
    pub async fn take_all(&mut self, steps: &[Step]) -> Vec<Answer> {
        let answers = futures::future::join_all(steps.iter().map(|step| self.ask(step))).await;
        let answers = steps.iter().zip(answers);
        answers.map(|(step, (code, body))| Answer { code, body: self.eyes.see(step, &body) }).collect()
    }

    /// Sends a step; the answer as it came.
    pub async fn ask(&self, step: &Step) -> (u16, Value) {
        let mut body = step.body.clone();
        self.fill(step, &mut body);
        let mut path = step.path(&self.namespace);
        for (index, (name, value)) in step.query.iter().enumerate() {
            let mut value = Value::String(value.clone());
            self.fill(step, &mut value);
            let value = value.as_str().unwrap_or_default().replace(' ', "+").replace('=', "%3D").replace(',', "%2C");
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(&[*name, value.as_str()].join("="));
        }
        let method = match step.verb {
            Verb::Create => Method::POST,
            Verb::Update => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete | Verb::DeleteCollection => Method::DELETE,
            Verb::Get | Verb::List | Verb::Watch => Method::GET,
        };
        self.send(method, &path, step.content_type, &body).await
    }

    /// Asks again until the answer is as `expected`, or too much time has passed.
    pub async fn take_until(&mut self, step: &Step, expected: impl Fn(&Answer) -> bool) -> Answer {
        for _ in 0..100 {
            let answer = self.take(step).await;
            if expected(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.take(step).await
    }

    /// Whatever a test needs that is not a step.
    pub async fn post(&self, path: &str, object: &Value) -> (u16, Value) {
        self.send(Method::POST, path, "application/json", object).await
    }

    /// The same, merge patch.
    pub async fn merge(&self, path: &str, object: &Value) -> (u16, Value) {
        self.send(Method::PATCH, path, "application/merge-patch+json", object).await
    }

    /// The same, GET.
    pub async fn fetch(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, "application/json", &Value::Null).await
    }

    /// Lines of a watch come as an array.
    async fn send(&self, method: Method, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.body(Body::from(body)).expect("a request");
        let response = self.client.send(request).await.unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name));
        let code = response.status().as_u16();
        let text = response.into_body().collect().await.expect("an answer").to_bytes();
        let mut lines: Vec<Value> =
            serde_json::Deserializer::from_slice(&text).into_iter().map(|line| line.expect("JSON")).collect();
        let is_watch = path.contains("watch=true") && code == 200;
        (code, if is_watch { Value::Array(lines) } else { lines.pop().unwrap_or_default() })
    }

    /// Puts what is known in the place of placeholders.
    fn fill(&self, step: &Step, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(|field| self.fill(step, field)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(step, item)),
            Value::String(text) if text.starts_with('$') => {
                let filled = self.filled(step, text);
                *text = filled;
            }
            _ => {}
        }
    }

    fn filled(&self, step: &Step, placeholder: &str) -> String {
        // `$uid:owner`: of another object of the same kind.
        let (what, name) = placeholder.split_once(':').unwrap_or((placeholder, &step.name));
        let known = self.known.get(&(step.kind.resource, name.to_owned())).cloned();
        let (uid, version) = known.unwrap_or_else(|| (OTHER_UID.to_owned(), "1".to_owned()));
        match what {
            UID => uid,
            VERSION => version,
            STALE => version.parse::<u64>().map_or(0, |version| (version - 1).max(1)).to_string(),
            CONTINUE => self.continue_.clone(),
            NAMESPACE => self.namespace.clone(),
            BEGIN => self.begins.get(step.kind.resource).cloned().unwrap_or_default(),
            _ => panic!("no such placeholder: {placeholder}"),
        }
    }

    fn remember(&mut self, step: &Step, body: &Value) {
        if step.is_dry_run() {
            return;
        }
        if step.verb == Verb::List {
            meta_text(body, "continue").clone_into(&mut self.continue_);
            self.begins.entry(step.kind.resource).or_insert_with(|| meta_text(body, "resourceVersion").to_owned());
        }
        let items = body["items"].as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
        for object in items.iter().filter(|object| !meta_text(object, "uid").is_empty()) {
            let (uid, version) = (meta_text(object, "uid").to_owned(), meta_text(object, "resourceVersion").to_owned());
            self.known.insert((step.kind.resource, meta_text(object, "name").to_owned()), (uid, version));
        }
    }
}
