//! Requests in, answers out: what lies between a client and the state, faults included.
//!
//! A request that takes time is a task of its own: a client that gives up does not take back what it sent.
use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request as HttpRequest, Response,
    body::{Bytes, Frame},
};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{BoxError, Service};

use super::{
    ApiServer, State,
    audit::Entry,
    delete::{DeleteOptions, Deleted, Propagation},
    faults::{Fate, Request, StreamInfo, Then, Verb},
    kinds::Kind,
    list::ListQuery,
    object::Object,
    path::{Path, Query},
    refusal::Refusal,
    scale,
    selectors::Selector,
    validate::Cause,
    watch::{Pull, WatchQuery, expired_line},
    write::{Caller, Edit, Target},
};

/// Body of an answer.
pub type Stream = UnsyncBoxBody<Bytes, BoxError>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Stream>, BoxError>> + Send>>;

/// What a client of this name talks to.
pub fn service(
    server: ApiServer,
    who: &str,
) -> impl Service<HttpRequest<Body>, Response = Response<Stream>, Error = BoxError, Future = Answering>
+ Send
+ 'static
+ use<> {
    let who: Arc<str> = who.into();
    tower::service_fn(move |request: HttpRequest<Body>| -> Answering {
        let (server, who) = (server.clone(), who.clone());
        Box::pin(async move { answer(server, who, request).await })
    })
}

/// A request, read.
struct Call {
    request: Request,
    query: Query,
    body: Bytes,
    content_type: String,
}

/// What is answered.
enum Reply {
    Text(u16, Bytes),
    Watch(StreamInfo, Option<Arc<Notify>>),
}

async fn answer(server: ApiServer, who: Arc<str>, request: HttpRequest<Body>) -> Result<Response<Stream>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if parts.uri.path() == "/version" {
        let version = json!({"major": "1", "minor": "37", "gitVersion": "v1.37.1", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return respond(200, full(version.to_string().into()));
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let path = match Path::parse(parts.uri.path()) {
        Ok(path) => path,
        Err(refusal) => return refuse(&refusal),
    };
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let request = Request {
        id: server.lock().next_request(),
        who,
        verb: verb(&parts.method, &path, &query),
        kind: path.kind,
        namespace: path.namespace,
        name: path.name,
        subresource: path.subresource,
        is_dry_run: query.text("dryRun") == "All" || parts.method == Method::DELETE && body_is_dry_run(&body),
        delete: None,
    };
    let mut call = Call { request, query, body, content_type: content_type.to_owned() };
    call.tell_more();
    let fate = {
        let State { faults, store, .. } = &mut *server.lock();
        faults.before(&call.request, store)
    };
    if fate == Fate::default() {
        return deliver(server, call).await;
    }
    let late = tokio::spawn(async move {
        tokio::time::sleep(fate.delay).await;
        let end = match fate.then {
            Then::Deliver => return deliver(server, call).await,
            end => end,
        };
        note(&server, &call.request, if let Then::Answer(refusal) = &end { refusal.code } else { 0 }, false);
        finish(end).await
    });
    late.await?
}

fn body_is_dry_run(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["dryRun"] == json!(["All"]))
}

fn verb(method: &Method, path: &Path, query: &Query) -> Verb {
    match (method, path.name.is_empty()) {
        (&Method::POST, _) => Verb::Create,
        (&Method::PUT, _) => Verb::Update,
        (&Method::PATCH, _) => Verb::Patch,
        (&Method::DELETE, false) => Verb::Delete,
        (&Method::DELETE, true) => Verb::DeleteCollection,
        (_, true) if query.flag("watch") => Verb::Watch,
        (_, true) => Verb::List,
        (_, false) => Verb::Get,
    }
}

/// The request has arrived: it is done, and then its answer travels.
async fn deliver(server: ApiServer, call: Call) -> Result<Response<Stream>, BoxError> {
    let done = {
        let Request { who, id, is_dry_run, .. } = &call.request;
        server.act((who, *id), *is_dry_run, |state, caller| state.perform(caller, &call))
    };
    let reply = done.unwrap_or_else(|refusal| Reply::Text(refusal.code, refusal.to_json().to_string().into()));
    let code = if let Reply::Text(code, _) = &reply { *code } else { 200 };
    let fate = {
        let State { faults, store, .. } = &mut *server.lock();
        faults.after(&call.request, code, store)
    };
    let told = match &fate.then {
        Then::Deliver => code,
        Then::Answer(refusal) => refusal.code,
        Then::Lose | Then::Reset => 0,
    };
    note(&server, &call.request, told, true);
    if !fate.delay.is_zero() {
        tokio::time::sleep(fate.delay).await;
    }
    match (fate.then, reply) {
        (Then::Deliver, Reply::Text(code, text)) => respond(code, full(text)),
        (Then::Deliver, Reply::Watch(info, wake)) => respond(200, watching(server, info.id, wake)),
        (end, _) => {
            server.lock().streams.close(call.request.id);
            finish(end).await
        }
    }
}

fn note(server: &ApiServer, request: &Request, code: u16, is_done: bool) {
    server.note(Entry { request: request.clone(), code, is_done });
}

/// Anything but what was meant.
async fn finish(end: Then) -> Result<Response<Stream>, BoxError> {
    match end {
        Then::Answer(refusal) => refuse(&refusal),
        Then::Reset => Err(reset()),
        Then::Deliver | Then::Lose => std::future::pending().await,
    }
}

fn reset() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

fn refuse(refusal: &Refusal) -> Result<Response<Stream>, BoxError> {
    respond(refusal.code, full(refusal.to_json().to_string().into()))
}

fn full(text: Bytes) -> Stream {
    Full::new(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn respond(code: u16, body: Stream) -> Result<Response<Stream>, BoxError> {
    Ok(Response::builder().status(code).header("content-type", "application/json").body(body)?)
}

/// Ends the watch on the server's side when the client drops its body.
struct Watching {
    server: ApiServer,
    id: u64,
    wake: Arc<Notify>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.server.lock().streams.close(self.id);
    }
}

/// The body of a watch; without `wake` its place was compacted, which is all it says.
fn watching(server: ApiServer, id: u64, wake: Option<Arc<Notify>>) -> Stream {
    let Some(wake) = wake else { return full(expired_line().into()) };
    let lines = futures::stream::unfold(Watching { server, id, wake }, |watching| async {
        loop {
            let pull = {
                let mut state = watching.server.lock();
                let revision = state.store.revision();
                state.streams.pull(watching.id, revision)
            };
            match pull {
                Pull::Text(text) => return Some((Ok(Frame::data(Bytes::from(text))), watching)),
                Pull::Closed => return None,
                Pull::Reset => return Some((Err(reset()), watching)),
                Pull::Wait(until) => {
                    let _ = tokio::time::timeout_at(until, watching.wake.notified()).await;
                }
            }
        }
    });
    StreamBody::new(lines).boxed_unsync()
}

impl State {
    fn perform(&mut self, caller: &Caller, call: &Call) -> Result<Reply, Refusal> {
        let Request { verb, kind, namespace, name, subresource, .. } = &call.request;
        let (kind, target) = (*kind, Target { kind, namespace, name, subresource });
        if *subresource == "scale" && verb.is_write() {
            return self.scale(caller, target, call.edit()?).map(|object| json_reply(200, &scale::of(&object)));
        }
        match verb {
            Verb::Get => {
                let found = self.store.get(kind, namespace, name).ok_or_else(|| Refusal::not_found(kind, name))?;
                Ok(if *subresource == "scale" { json_reply(200, &scale::of(found)) } else { object_reply(200, found) })
            }
            Verb::List => {
                let cached = self.faults.cached_revision(&call.request, &self.store);
                let page = call.list_query()?.run(&self.store, kind, namespace, cached)?;
                Ok(Reply::Text(200, page.text(kind)))
            }
            Verb::Watch => self.watch(call),
            Verb::Create => {
                let object = self.create(caller, kind, namespace, call.json()?)?;
                Ok(object_reply(201, &object))
            }
            Verb::Update | Verb::Patch => {
                let (object, is_new) = self.update(caller, target, call.edit()?)?;
                Ok(object_reply(if is_new { 201 } else { 200 }, &object))
            }
            Verb::Delete => {
                let deleted = self.delete(caller, target, &call.delete_options()?)?;
                Ok(deleted_reply(kind, &deleted))
            }
            // Nobody uses it: whoever begins to is told.
            Verb::DeleteCollection => Err(Refusal::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )),
        }
    }

    fn watch(&mut self, call: &Call) -> Result<Reply, Refusal> {
        let Request { id, who, kind, namespace, .. } = call.request.clone();
        let info = StreamInfo { id, who, kind, namespace };
        let cached = self.faults.cached_revision(&call.request, &self.store);
        let query = WatchQuery {
            selector: call.selector()?,
            resource_version: call.query.text("resourceVersion").to_owned(),
            timeout_seconds: call.query.number("timeoutSeconds"),
            bookmarks: call.query.flag("allowWatchBookmarks"),
        };
        let wake = self.streams.open(info.clone(), query, &self.store, self.faults.as_mut(), cached)?;
        Ok(Reply::Watch(info, wake))
    }
}

impl Call {
    /// What faults and oracles want to know of the body.
    fn tell_more(&mut self) {
        match self.request.verb {
            Verb::Delete => self.request.delete = self.delete_options().ok(),
            Verb::Create => {
                let body = self.json().unwrap_or_default();
                body["metadata"]["name"].as_str().unwrap_or_default().clone_into(&mut self.request.name);
            }
            _ => {}
        }
    }

    fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::bad_request(format!("cannot read the body: {error}")))
    }

    fn edit(&self) -> Result<Edit<'static>, Refusal> {
        if self.request.verb == Verb::Update {
            return Ok(Edit::Replace(self.json()?));
        }
        match self.content_type.as_str() {
            "application/merge-patch+json" => Ok(Edit::Merge(self.json()?)),
            "application/strategic-merge-patch+json" => Ok(Edit::Strategic(self.json()?)),
            "application/json-patch+json" => serde_json::from_slice(&self.body)
                .map(Edit::Json)
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}"))),
            other => Err(Refusal::new(
                415,
                "UnsupportedMediaType",
                format!("the body of the request was in an unknown format: {other}"),
            )),
        }
    }

    fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(self.query.text("labelSelector"), self.query.text("fieldSelector"))
    }

    fn list_query(&self) -> Result<ListQuery, Refusal> {
        Ok(ListQuery {
            selector: self.selector()?,
            limit: self.query.number("limit").unwrap_or_default(),
            continue_: self.query.text("continue").to_owned(),
            resource_version: self.query.text("resourceVersion").to_owned(),
            version_match: self.query.text("resourceVersionMatch").to_owned(),
        })
    }

    /// From the body, or the query where there is none.
    fn delete_options(&self) -> Result<DeleteOptions, Refusal> {
        let body = if self.body.is_empty() { Value::Null } else { self.json()? };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let policy = body["propagationPolicy"].as_str().unwrap_or_else(|| self.query.text("propagationPolicy"));
        let propagation = match policy {
            "" => None,
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            other => {
                let known = ["Foreground", "Background", "Orphan", "nil"].map(|policy| format!("{policy:?}"));
                let cause = Cause::unsupported("propagationPolicy", &json!(other), &known);
                return Err(Refusal::invalid_as("DeleteOptions", "meta.k8s.io", "", &[cause]));
            }
        };
        Ok(DeleteOptions {
            grace_seconds: body["gracePeriodSeconds"].as_i64().or_else(|| self.query.number("gracePeriodSeconds")),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            propagation,
        })
    }
}

fn object_reply(code: u16, object: &Object) -> Reply {
    Reply::Text(code, object.text().clone())
}

fn json_reply(code: u16, value: &Value) -> Reply {
    Reply::Text(code, value.to_string().into())
}

fn deleted_reply(kind: &Kind, deleted: &Deleted) -> Reply {
    match deleted {
        Deleted::Later(object) => object_reply(200, object),
        Deleted::Now(object) if kind.returns_deleted => object_reply(200, object),
        Deleted::Now(object) => {
            let details =
                json!({"name": object.name(), "group": kind.group, "kind": kind.resource, "uid": object.uid()});
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            json_reply(200, &status)
        }
    }
}
