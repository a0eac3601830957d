//! One list-and-watch, for ever: list, watch from there, resume where it ended, list anew when the API server has
//! forgotten that place.
//!
//! What it guards against, each seen in the field: HTTP 410 at the start of a watch and in mid-stream; a connection that is
//! open and says nothing (the watch is asked to end well before `silence`, and bookmarks come at least then, so silence
//! means a dead connection); an end by the server under load, after which it resumes at once; a re-list, which is told as
//! one [`Event::Listed`], because nobody ever tells what vanished in between.
use std::{fmt::Debug, time::Duration};

use futures::TryStreamExt;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};

use crate::snapshot::index::Event;

/// What can be watched.
pub trait Watchable: Resource + Clone + DeserializeOwned + Debug + Send + 'static {}
impl<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static> Watchable for K {}

/// How watches are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A watch that has told nothing for so long, not even a bookmark, is dead.
    pub silence: Duration,
    /// Objects asked for in one page of a list.
    pub page_size: u32,
    /// Longest time for one page of a list, or for a watch to begin.
    pub call_timeout: Duration,
    /// Counts how watches ended.
    pub ends: Family<EndLabels, Counter>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            silence: Duration::from_mins(1),
            page_size: 500,
            call_timeout: Duration::from_secs(30),
            ends: Family::default(),
        }
    }
}

/// Labels of the number of watches that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// Kind that was watched.
    pub kind: &'static str,
    /// How it ended.
    pub cause: &'static str,
}

/// Which objects of a kind.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selection {
    /// Those that this label selector selects.
    pub fn labels(selector: &str) -> Self {
        Self { labels: Some(selector.to_owned()), fields: None }
    }

    /// The one object of this name.
    pub fn name(name: &str) -> Self {
        Self { labels: None, fields: Some(format!("metadata.name={name}")) }
    }
}

/// Asks the watches of one kind for a new list, and tells when all of them have it. Lists are numbered; the first is 1.
pub struct Refresher {
    wanted: watch::Sender<u64>,
    done: Vec<watch::Receiver<u64>>,
}

impl Default for Refresher {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(1), done: Vec::new() }
    }
}

impl Refresher {
    /// The watch's end of this, for one more watch.
    pub fn subscribe(&mut self) -> Refresh {
        let (done, seen) = watch::channel(0);
        self.done.push(seen);
        Refresh { wanted: self.wanted.subscribe(), done }
    }

    /// Asks for a list that begins after this call; its number.
    pub fn request(&self) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        number
    }

    /// True when every watch has a list of at least this number.
    pub fn reached(&self, number: u64) -> bool {
        self.done.iter().all(|done| *done.borrow() >= number)
    }

    /// Waits for that.
    pub async fn wait(&self, number: u64) {
        for done in &self.done {
            // An error means that the watch task is gone; then the process is ending.
            let _ = done.clone().wait_for(|done| *done >= number).await;
        }
    }
}

/// The watch's end of a [`Refresher`].
pub struct Refresh {
    wanted: watch::Receiver<u64>,
    done: watch::Sender<u64>,
}

impl Refresh {
    /// Returns when a list is asked for; never when nobody can ask any more.
    async fn asked(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// How a watch, or the attempt to begin one, ended.
enum End {
    /// By the server, in good order.
    Closed,
    /// The server no longer knows our place (410): only a list helps.
    Expired,
    /// Nothing came for too long.
    Silent,
    /// A new list is wanted.
    Refresh,
    /// Otherwise.
    Failed(String),
}

impl End {
    fn cause(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Silent => "silent",
            Self::Refresh => "refresh",
            Self::Failed(_) => "failed",
        }
    }
}

/// Failures in a row after which our place is not trusted any more and a list is taken.
const FAILURES_UNTIL_LIST: u32 = 3;
/// Lists of one kind are at least so far apart.
const LIST_SPACING: Duration = Duration::from_millis(100);

/// One list-and-watch.
pub struct Watch<K> {
    /// Where.
    pub api: Api<K>,
    /// Kind, for logs and metrics.
    pub name: &'static str,
    /// Which objects.
    pub selection: Selection,
    /// How.
    pub settings: Settings,
    /// When to list anew.
    pub refresh: Refresh,
    /// For jitter.
    pub rng: fastrand::Rng,
    /// Whether the operator cannot work without it. If not, a refusal (403) is logged once and asked about rarely.
    pub required: bool,
}

impl<K: Watchable> Watch<K> {
    /// Runs until dropped. `sink` gets every event, in order, and must not block.
    pub async fn run(mut self, mut sink: impl FnMut(Event<K>)) {
        let mut failures = Failures::default();
        loop {
            let number = *self.refresh.wanted.borrow_and_update();
            let began = Instant::now();
            match self.list().await {
                Ok((objects, resource_version)) => {
                    failures.over(self.name);
                    sink(Event::Listed { objects, resource_version: resource_version.clone() });
                    self.refresh.done.send_replace(number);
                    self.follow(resource_version, &mut sink).await;
                    tokio::time::sleep_until(began + LIST_SPACING).await;
                }
                Err(error) => {
                    let pause = failures.add(self.name, &error, self.required, &mut self.rng);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// All objects, page by page, and the resourceVersion they are of: a quorum read.
    async fn list(&self) -> Result<(Vec<K>, String), Failure> {
        let mut params = ListParams { limit: Some(self.settings.page_size), ..ListParams::default() };
        params.label_selector.clone_from(&self.selection.labels);
        params.field_selector.clone_from(&self.selection.fields);
        let mut objects = Vec::new();
        loop {
            let page = tokio::time::timeout(self.settings.call_timeout, self.api.list(&params)).await;
            let page = page.map_err(|_| Failure::timeout("list", self.settings.call_timeout))??;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok((objects, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Watches from `resource_version`, resuming as long as that is possible. Returns when a list is needed.
    async fn follow(&mut self, mut resource_version: String, sink: &mut impl FnMut(Event<K>)) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let before = resource_version.clone();
            let end = self.watch(&mut resource_version, sink).await;
            self.settings.ends.get_or_create(&EndLabels { kind: self.name, cause: end.cause() }).inc();
            if resource_version != before {
                failures = 0;
            }
            match end {
                End::Expired => {
                    tracing::info!(kind = self.name, "watch expired, listing anew");
                    return;
                }
                End::Refresh => return,
                // At once: under load the server ends watches in the middle of what we wait for. Only a server that ends
                // them as soon as they begin is given a pause.
                End::Closed if began.elapsed() >= Duration::from_secs(1) || resource_version != before => continue,
                End::Closed => failures += 1,
                End::Silent => {
                    tracing::warn!(kind = self.name, seconds = self.settings.silence.as_secs(), "watch fell silent");
                    failures += 1;
                }
                End::Failed(error) => {
                    if failures == 0 {
                        tracing::warn!(kind = self.name, error, "watch failed, resuming");
                    }
                    failures += 1;
                }
            }
            if failures >= FAILURES_UNTIL_LIST {
                return;
            }
            tokio::time::sleep(jittered(Duration::from_millis(50 << failures), &mut self.rng)).await;
        }
    }

    /// One watch request, until it ends. `resource_version` is kept at the last place told.
    async fn watch(&mut self, resource_version: &mut String, sink: &mut impl FnMut(Event<K>)) -> End {
        // Asked to end well before it would count as silent; shortly before it ends, the server sends a bookmark.
        let seconds = (self.settings.silence * 3 / 4).as_secs().max(1);
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: u32::try_from(seconds).ok(),
            bookmarks: true,
            send_initial_events: false,
        };
        let begin = tokio::time::timeout(self.settings.call_timeout, self.api.watch(&params, resource_version)).await;
        let mut stream = match begin {
            Err(_) => return End::Silent,
            Ok(Err(error)) => return end_of(&error),
            Ok(Ok(stream)) => Box::pin(stream),
        };
        loop {
            let next = tokio::select! {
                biased;
                () = self.refresh.asked() => return End::Refresh,
                next = tokio::time::timeout(self.settings.silence, stream.try_next()) => next,
            };
            let event = match next {
                Err(_) => return End::Silent,
                Ok(Err(error)) => return end_of(&error),
                Ok(Ok(None)) => return End::Closed,
                Ok(Ok(Some(event))) => event,
            };
            let object_version = |object: &K| object.meta().resource_version.clone().unwrap_or_default();
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *resource_version = object_version(&object);
                    sink(Event::Applied(object));
                }
                WatchEvent::Deleted(object) => {
                    *resource_version = object_version(&object);
                    sink(Event::Deleted(object));
                }
                WatchEvent::Bookmark(bookmark) => {
                    resource_version.clone_from(&bookmark.metadata.resource_version);
                    sink(Event::Progressed(bookmark.metadata.resource_version));
                }
                WatchEvent::Error(status) => return end_of(&kube::Error::Api(status)),
            }
        }
    }
}

fn end_of(error: &kube::Error) -> End {
    match error {
        kube::Error::Api(status) if status.code == 410 => End::Expired,
        other => End::Failed(other.to_string()),
    }
}

/// Why a list failed.
#[derive(Debug)]
struct Failure {
    /// HTTP status; 0 without an answer.
    code: u16,
    message: String,
}

impl Failure {
    fn timeout(call: &str, after: Duration) -> Self {
        Self { code: 0, message: format!("{call}: no answer within {} s", after.as_secs()) }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self { code: status.code, message: status.message },
            other => Self { code: 0, message: other.to_string() },
        }
    }
}

/// Failed lists in a row: one line in the log per kind of failure, a growing pause between tries.
#[derive(Default)]
struct Failures {
    count: u32,
    code: Option<u16>,
}

impl Failures {
    fn add(&mut self, kind: &str, failure: &Failure, required: bool, rng: &mut fastrand::Rng) -> Duration {
        let is_new = self.code.replace(failure.code) != Some(failure.code);
        self.count = if is_new { 1 } else { self.count + 1 };
        let error = &failure.message;
        match failure.code {
            403 if !required => {
                if is_new {
                    tracing::info!(kind, error, "not allowed to watch; doing without");
                }
                return jittered(Duration::from_mins(10), rng);
            }
            404 if is_new => tracing::warn!(
                kind,
                "not served by this cluster; waiting for its CustomResourceDefinition (kubectl apply -f crds/)"
            ),
            403 if is_new => {
                tracing::error!(kind, error, "not allowed to list and watch; waiting for the operator's role");
            }
            _ if is_new => tracing::warn!(kind, error, "cannot list, trying again"),
            _ => tracing::debug!(kind, error, count = self.count, "still cannot list"),
        }
        // 404 and 403 end by somebody's act: look often enough that nobody waits for us.
        let longest = if matches!(failure.code, 403 | 404) { 2_000 } else { 15_000 };
        jittered(Duration::from_millis((100_u64 << self.count.min(10)).min(longest)), rng)
    }

    fn over(&mut self, kind: &str) {
        if self.code.take().is_some() {
            tracing::info!(kind, "listed after {} failures", self.count);
        }
        self.count = 0;
    }
}

/// Between 80 % and 120 % of it.
fn jittered(pause: Duration, rng: &mut fastrand::Rng) -> Duration {
    pause.mul_f64(0.8 + 0.4 * rng.f64())
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
