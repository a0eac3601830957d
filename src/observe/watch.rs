//! One list-and-watch, for ever: list, watch from there, resume where it ended, list anew when the API server has
//! forgotten that place.
//!
//! What it guards against, each seen in the field: HTTP 410 at the start of a watch and in mid-stream; lists that work while
//! watches are refused, which without growing pauses would be a storm of full lists; a connection that is
//! open and says nothing (the watch is asked to end well before `silence`, and bookmarks come at least then, so silence
//! means a dead connection); an end by the server under load, after which it resumes at once; a re-list, which is told as
//! one [`Event::Listed`], because what vanished in between is never told.
use std::{fmt::Debug, time::Duration};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
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

use super::page::{self, Page, PageError};
use crate::snapshot::{
    guard::{Bounded, DeserializeGuard, Guarded},
    index::Event,
};

/// What can be watched.
pub trait Watchable: Resource + Bounded + Clone + DeserializeOwned + Debug + Send + 'static {}
impl<K: Resource + Bounded + Clone + DeserializeOwned + Debug + Send + 'static> Watchable for K {}

/// How watches are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A watch that has told nothing for so long, not even a bookmark, is dead.
    pub silence: Duration,
    /// Objects asked for in one page of a list.
    pub page_size: u32,
    /// Longest time for one page of a list.
    pub list_timeout: Duration,
    /// Longest time for a watch to begin: after a silence of the network the client may try a dead connection first.
    pub begin_timeout: Duration,
    /// Counts how watches ended.
    pub ends: Family<EndLabels, Counter>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            silence: Duration::from_mins(1),
            page_size: 500,
            list_timeout: Duration::from_secs(30),
            begin_timeout: Duration::from_secs(10),
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
    refused: Vec<watch::Receiver<bool>>,
}

impl Default for Refresher {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(1), done: Vec::new(), refused: Vec::new() }
    }
}

impl Refresher {
    /// The watch's end of this, for one more watch.
    pub fn subscribe(&mut self) -> Refresh {
        let ((done, seen), (refused, is_refused)) = (watch::channel(0), watch::channel(false));
        self.done.push(seen);
        self.refused.push(is_refused);
        Refresh { wanted: self.wanted.subscribe(), done, refused }
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

    /// True while some watch may not list: the API server has refused it (403), or does not serve the kind (404).
    pub fn is_refused(&self) -> bool {
        self.refused.iter().any(|refused| *refused.borrow())
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
    refused: watch::Sender<bool>,
}

impl Refresh {
    /// Returns when a list is asked for; never once it cannot be asked any more.
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
    /// Nothing came for so long.
    Silent(Duration),
    /// A new list is wanted.
    Refresh,
    /// Otherwise.
    Failed(Failure),
}

impl End {
    fn cause(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent(_) => "silent",
            Self::Refresh => "refresh",
            Self::Failed(failure) if failure.is_expired() => "expired",
            Self::Failed(_) => "failed",
        }
    }
}

/// Failures in a row after which our place is not trusted any more and a list is taken.
const FAILURES_UNTIL_LIST: u32 = 3;
/// The longest pause between tries that cost little; at most 3 s with its jitter.
const ASKING_OFTEN_MILLIS: u64 = 2_500;
/// Lists of one kind are at least so far apart.
const LIST_SPACING: Duration = Duration::from_millis(100);
/// A watch that has lived for so long works, whether or not it had something to tell.
const LIFE_SIGN: Duration = Duration::from_secs(1);

/// One list-and-watch.
pub struct Watch<K> {
    /// Where. What cannot be read is told as that, and keeps nothing else from being told.
    pub api: Api<DeserializeGuard<K>>,
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
    pub async fn run(mut self, mut sink: impl FnMut(Event<DeserializeGuard<K>>)) {
        let mut failures = Failures::default();
        loop {
            let number = *self.refresh.wanted.borrow_and_update();
            let began = Instant::now();
            let listed = self.list().await;
            let is_refused = listed.as_ref().is_err_and(|failure| is_refusal((failure.verb, failure.code)));
            self.refresh.refused.send_replace(is_refused);
            match listed {
                Ok((objects, resource_version)) => {
                    failures.listed(self.name);
                    sink(Event::Listed { objects, resource_version: resource_version.clone() });
                    self.refresh.done.send_replace(number);
                    if let Err(failure) = self.follow(resource_version, &mut sink, &mut failures).await {
                        let pause = failures.add(self.name, &failure, self.required, &mut self.rng);
                        // Lists work: who asks for one need not wait until watches do.
                        let _ = tokio::time::timeout(pause, self.refresh.asked()).await;
                    }
                    tokio::time::sleep_until(began + LIST_SPACING).await;
                }
                Err(failure) => {
                    let pause = failures.add(self.name, &failure, self.required, &mut self.rng);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// All objects, page by page, and the resourceVersion they are of: a quorum read.
    async fn list(&self) -> Result<(Vec<DeserializeGuard<K>>, String), Failure> {
        let mut limit = self.settings.page_size.max(1);
        let mut params = ListParams::default();
        params.label_selector.clone_from(&self.selection.labels);
        params.field_selector.clone_from(&self.selection.fields);
        let mut objects = Vec::new();
        loop {
            params.limit = Some(limit);
            let page = tokio::time::timeout(self.settings.list_timeout, page::read(&self.api, &params)).await;
            let page = page.map_err(|_| Failure::silence(Verb::List, self.settings.list_timeout))?;
            let Page { metadata, items } = match page {
                Ok(page) => page,
                // Fewer at once, from the same place.
                Err(PageError::TooLarge) if limit > 1 => {
                    limit = (limit / 4).max(1);
                    tracing::debug!(kind = self.name, limit, "a page is too large; smaller ones are asked for");
                    continue;
                }
                Err(PageError::TooLarge) => return Err(Failure::new(Verb::List, "one object is too large to be read")),
                Err(PageError::Failed(error)) => return Err(Failure::of(Verb::List, error)),
            };
            objects.extend(items.into_iter().filter(|object| self.has_name(object)));
            match metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok((objects, metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// What has none that can be read is nothing that could be told of.
    fn has_name(&self, object: &DeserializeGuard<K>) -> bool {
        let has_name = object.unreadable().is_none() || object.meta().name.is_some();
        if !has_name {
            tracing::warn!(kind = self.name, error = object.unreadable(), "an object without a name cannot be read");
        }
        has_name
    }

    /// Watches from `resource_version`, resuming as long as that is possible. Returns when a list is needed; with the last
    /// failure if no watch has worked since the one before, so that this does not go round at full speed.
    async fn follow(
        &mut self,
        mut resource_version: String,
        sink: &mut impl FnMut(Event<DeserializeGuard<K>>),
        failures: &mut Failures,
    ) -> Result<(), Failure> {
        let mut has_worked = false;
        let mut failed = 0;
        loop {
            let before = resource_version.clone();
            let (end, life) = match self.begin(&resource_version).await {
                Ok(stream) => {
                    let began = Instant::now();
                    (self.tell(stream, &mut resource_version, sink).await, began.elapsed())
                }
                Err(end) => (end, Duration::ZERO),
            };
            self.settings.ends.get_or_create(&EndLabels { kind: self.name, cause: end.cause() }).inc();
            let works = resource_version != before || (life >= LIFE_SIGN && !matches!(end, End::Silent(_)));
            if works {
                has_worked = true;
                failed = 0;
                failures.over(self.name);
            }
            let failure = match end {
                End::Refresh => return Ok(()),
                // At once: under load the server ends watches in the middle of what we wait for. Only a server that ends
                // them as soon as they begin is given a pause.
                End::Closed if works => continue,
                End::Closed => Failure::new(Verb::Watch, "it ended as soon as it began"),
                End::Silent(time) => Failure::silence(Verb::Watch, time),
                End::Failed(failure) => failure,
            };
            failed += 1;
            // One that has not worked yet is reported where those are counted.
            if has_worked && failed == 1 {
                tracing::warn!(kind = self.name, error = failure.message, "watch failed, going on");
            }
            if failure.is_expired() || failed >= FAILURES_UNTIL_LIST {
                return if has_worked { Ok(()) } else { Err(failure) };
            }
            tokio::time::sleep(jittered(Duration::from_millis(50 << failed), &mut self.rng)).await;
        }
    }

    /// Begins one watch request.
    async fn begin(&self, resource_version: &str) -> Result<Frames<K>, End> {
        // Asked to end well before it would count as silent; shortly before it ends, the server sends a bookmark.
        let seconds = (self.settings.silence * 3 / 4).as_secs().max(1);
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: u32::try_from(seconds).ok(),
            bookmarks: true,
            send_initial_events: false,
        };
        let patience = self.settings.begin_timeout.min(self.settings.silence);
        match tokio::time::timeout(patience, self.api.watch(&params, resource_version)).await {
            Err(_) => Err(End::Silent(patience)),
            Ok(Err(error)) => Err(End::Failed(Failure::of(Verb::Watch, error))),
            Ok(Ok(stream)) => Ok(stream.boxed()),
        }
    }

    /// Passes on what one watch tells, until it ends. `resource_version` is kept at the last place told.
    async fn tell(
        &mut self,
        mut stream: Frames<K>,
        resource_version: &mut String,
        sink: &mut impl FnMut(Event<DeserializeGuard<K>>),
    ) -> End {
        loop {
            let next = tokio::select! {
                biased;
                () = self.refresh.asked() => return End::Refresh,
                next = tokio::time::timeout(self.settings.silence, stream.try_next()) => next,
            };
            let event = match next {
                Err(_) => return End::Silent(self.settings.silence),
                Ok(Err(error)) => return End::Failed(Failure::of(Verb::Watch, error)),
                Ok(Ok(None)) => return End::Closed,
                Ok(Ok(Some(event))) => event,
            };
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) = &event {
                if let Some(version) = object.meta().resource_version.as_ref() {
                    resource_version.clone_from(version);
                }
                if !self.has_name(object) {
                    continue;
                }
            }
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => sink(Event::Applied(object)),
                WatchEvent::Deleted(object) => sink(Event::Deleted(object)),
                WatchEvent::Bookmark(bookmark) => {
                    resource_version.clone_from(&bookmark.metadata.resource_version);
                    sink(Event::Progressed(bookmark.metadata.resource_version));
                }
                WatchEvent::Error(status) => return End::Failed(Failure::of(Verb::Watch, kube::Error::Api(status))),
            }
        }
    }
}

/// What a watch tells.
type Frames<K> = BoxStream<'static, kube::Result<WatchEvent<DeserializeGuard<K>>>>;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    List,
    Watch,
}

/// Why it failed.
#[derive(Debug)]
struct Failure {
    verb: Verb,
    /// HTTP status; 0 without an answer.
    code: u16,
    message: String,
}

impl Failure {
    fn new(verb: Verb, message: impl Into<String>) -> Self {
        Self { verb, code: 0, message: message.into() }
    }

    fn silence(verb: Verb, time: Duration) -> Self {
        Self::new(verb, format!("nothing came for {} s", time.as_secs()))
    }

    fn of(verb: Verb, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self { verb, code: status.code, message: status.message },
            other => Self::new(verb, other.to_string()),
        }
    }

    /// The server no longer knows our place: only a list helps.
    fn is_expired(&self) -> bool {
        self.code == 410
    }
}

/// It stays so until a person acts, and to ask costs little.
fn is_refusal((verb, code): (Verb, u16)) -> bool {
    verb == Verb::List && matches!(code, 403 | 404)
}

/// No connection, or a list that is not answered in time: at most one list is under way.
fn is_no_answer((verb, code): (Verb, u16)) -> bool {
    verb == Verb::List && code == 0
}

/// Failures in a row, of lists and of watches from them: one line in the log per kind of failure, a growing pause between
/// tries.
#[derive(Default)]
struct Failures {
    count: u32,
    last: Option<(Verb, u16)>,
}

impl Failures {
    fn add(&mut self, kind: &str, failure: &Failure, required: bool, rng: &mut fastrand::Rng) -> Duration {
        let this = (failure.verb, failure.code);
        let last = self.last.replace(this);
        let is_new = last != Some(this);
        let was_refused = last.is_some_and(is_refusal);
        let was_silent = last.is_some_and(is_no_answer) && !is_no_answer(this);
        let begins_anew = was_silent || (was_refused && !is_refusal(this));
        self.count = if begins_anew { 1 } else { self.count.saturating_add(1) };
        let (verb, code, error) = (failure.verb, failure.code, &failure.message);
        match code {
            403 if !required && verb == Verb::List => {
                if is_new {
                    tracing::info!(kind, error, "not allowed to list and watch; doing without");
                }
                return jittered(Duration::from_mins(10), rng);
            }
            404 if is_new => tracing::warn!(
                kind,
                "not served by this cluster; waiting for its CustomResourceDefinition (kubectl apply -f crds/)"
            ),
            403 if is_new => {
                tracing::error!(kind, ?verb, error, "not allowed to list and watch; waiting for a role that allows it");
            }
            _ if is_new => tracing::warn!(kind, ?verb, code, error, "cannot list and watch, trying again"),
            _ => tracing::debug!(kind, ?verb, code, error, count = self.count, "still cannot list and watch"),
        }
        // A refusal ends by a person's act, and an outage at a moment that only a try can find: this must not add to the wait then. An
        // API server that answers with errors has too much to do already.
        let longest = if is_refusal(this) || is_no_answer(this) { ASKING_OFTEN_MILLIS } else { 15_000 };
        jittered(Duration::from_millis((100_u64 << self.count.min(10)).min(longest)), rng)
    }

    /// A list has worked. Whether watches do is not known yet, so the pauses stay long.
    fn listed(&mut self, kind: &str) {
        if self.last.take_if(|(verb, _)| *verb == Verb::List).is_some() {
            tracing::info!(kind, "listed after {} failures", self.count);
        }
    }

    /// A watch has worked.
    fn over(&mut self, kind: &str) {
        if self.last.take().is_some() {
            tracing::info!(kind, "watched again after {} failures", self.count);
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
