//! Watches: every change goes into the queue of each stream that selects it, with the time at which it will be told.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use super::{
    faults::{Ending, Faults, StreamFate, StreamInfo},
    kinds::Kind,
    list::parse_version,
    object::Object,
    refusal::Refusal,
    selectors::Selector,
    store::{Change, Store},
};

/// Time between bookmarks.
const BOOKMARK_PERIOD: Duration = Duration::from_mins(1);
/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// How long a watch lives whose client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

/// What a watch asks for.
#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    pub selector: Selector,
    /// Empty or "0": first what is there, then changes.
    pub resource_version: String,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
}

/// All watches.
#[derive(Default)]
pub struct Streams(BTreeMap<u64, Stream>);

struct Stream {
    info: StreamInfo,
    query: WatchQuery,
    fate: StreamFate,
    queue: VecDeque<Frame>,
    began: Instant,
    ends: Instant,
    next_bookmark: Instant,
    /// Everything up to here has been told.
    told: u64,
    /// Woken when there is something to tell, or the fate changes.
    wake: Arc<Notify>,
}

#[derive(Clone)]
struct Frame {
    due: Instant,
    revision: u64,
    event: Event,
    object: Arc<Object>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Added,
    Modified,
    Deleted,
}

/// What a stream says now.
pub enum Pull {
    /// Lines of JSON.
    Text(String),
    /// Nothing before this time, unless woken.
    Wait(Instant),
    Closed,
    Reset,
}

impl Streams {
    /// Begins one. What it is woken by, or None: its place is compacted, which it says and ends.
    ///
    /// # Errors
    /// 400, 504.
    pub fn open(
        &mut self,
        info: StreamInfo,
        query: WatchQuery,
        store: &Store,
        faults: &mut dyn Faults,
        cached: u64,
    ) -> Result<Option<Arc<Notify>>, Refusal> {
        // The real one answers so, and not as for a list.
        let unreadable = |refusal: Refusal| Refusal::new(500, "", refusal.message);
        let version = parse_version(&query.resource_version).map_err(unreadable)?.unwrap_or(0);
        if version > store.revision() {
            let message = format!("Too large resource version: {version}, current: {}", store.revision());
            return Err(Refusal::new(504, "Timeout", message));
        }
        let begin = if version == 0 { cached.min(store.revision()) } else { version };
        let now = Instant::now();
        let lifetime =
            query.timeout_seconds.filter(|seconds| *seconds > 0).map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let fate = faults.stream(&info);
        let ends = now + lifetime;
        let mut stream = Stream {
            queue: VecDeque::new(),
            began: now,
            ends,
            next_bookmark: (ends - LAST_BOOKMARK.min(lifetime)).min(now + BOOKMARK_PERIOD),
            told: begin,
            wake: Arc::default(),
            info,
            query,
            fate,
        };
        if version == 0 {
            let Ok(table) = store.at(stream.info.kind, begin) else { return Ok(None) };
            let shown = table.values().filter(|object| stream.shows(object)).cloned();
            for object in shown.collect::<Vec<_>>() {
                stream.queue.push_back(Frame { due: now, revision: begin, event: Event::Added, object });
            }
        }
        let Ok(changes) = store.since(stream.info.kind, begin) else { return Ok(None) };
        changes.for_each(|change| stream.feed(change, faults));
        let wake = stream.wake.clone();
        self.0.insert(stream.info.id, stream);
        Ok(Some(wake))
    }

    /// The client is gone.
    pub fn close(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// Tells every watch of a change.
    pub fn feed(&mut self, change: &Change, faults: &mut dyn Faults) {
        let of_kind = self.0.values_mut().filter(|stream| stream.info.kind == change.kind);
        of_kind.for_each(|stream| stream.feed(change, faults));
    }

    /// What a watch says now. `revision` is the store's.
    pub fn pull(&mut self, id: u64, revision: u64) -> Pull {
        self.0.get_mut(&id).map_or(Pull::Closed, |stream| stream.pull(revision, Instant::now()))
    }

    /// Watches that are open.
    pub fn infos(&self) -> impl Iterator<Item = &StreamInfo> {
        self.0.values().map(|stream| &stream.info)
    }

    /// Changes the fate of those that `which` names. Times in it count from now.
    pub fn change_fates(&mut self, which: impl Fn(&StreamInfo) -> bool, fate: &StreamFate) {
        for stream in self.0.values_mut().filter(|stream| which(&stream.info)) {
            stream.began = Instant::now();
            stream.fate = fate.clone();
            stream.wake.notify_one();
        }
    }
}

impl Stream {
    fn shows(&self, object: &Object) -> bool {
        (self.info.namespace.is_empty() || self.info.namespace == object.namespace())
            && self.query.selector.selects(object)
    }

    /// An object that begins or ceases to be selected is told as one that comes or goes.
    fn feed(&mut self, change: &Change, faults: &mut dyn Faults) {
        let was_shown = change.before.as_ref().is_some_and(|before| self.shows(before));
        let is_shown = change.after().is_some_and(|after| self.shows(after));
        let (event, object) = match (was_shown, is_shown) {
            (false, false) => return,
            (false, true) => (Event::Added, change.object.clone()),
            (true, true) => (Event::Modified, change.object.clone()),
            (true, false) if change.is_gone => (Event::Deleted, change.object.clone()),
            (true, false) => (Event::Deleted, self.last_shown(change)),
        };
        let due = Instant::now() + self.fate.lag + faults.event(&self.info, change);
        let due = self.queue.back().map_or(due, |last| last.due.max(due));
        self.queue.push_back(Frame { due, revision: change.revision, event, object });
        self.wake.notify_one();
    }

    /// Its last selected state, under the revision of the write that unselected it.
    #[allow(clippy::unused_self, reason = "reads better at the call")]
    fn last_shown(&self, change: &Change) -> Arc<Object> {
        let before = change.before.as_ref().unwrap_or(&change.object);
        Arc::new(Object::new(before.value().clone(), change.revision))
    }

    fn pull(&mut self, revision: u64, now: Instant) -> Pull {
        let silent_at = self.fate.silent_after.map(|after| self.began + after);
        if silent_at.is_some_and(|at| at <= now) {
            return Pull::Wait(now + Duration::from_hours(24));
        }
        if let Some((after, ending)) = self.fate.end_after
            && self.began + after <= now
        {
            self.ends = now;
            self.fate.end_after = None;
            return match ending {
                Ending::Closed => Pull::Closed,
                Ending::Reset => Pull::Reset,
                Ending::Expired => Pull::Text(expired_line()),
            };
        }
        let text = self.due(now);
        if !text.is_empty() {
            return Pull::Text(text);
        }
        if self.ends <= now {
            return Pull::Closed;
        }
        if self.next_bookmark <= now {
            return self.bookmark(revision);
        }
        let next_frame = self.queue.front().map(|frame| frame.due + self.fate.coalesce.unwrap_or_default());
        let cut = self.fate.end_after.map(|(after, _)| self.began + after);
        let times = [next_frame, cut, silent_at, Some(self.ends), Some(self.next_bookmark)];
        Pull::Wait(times.into_iter().flatten().min().unwrap_or(self.ends))
    }

    /// What is to be told by now.
    fn due(&mut self, now: Instant) -> String {
        if let (Some(window), Some(first)) = (self.fate.coalesce, self.queue.front())
            && first.due + window > now
        {
            return String::new();
        }
        let count = self.queue.iter().take_while(|frame| frame.due <= now).count();
        let mut frames: Vec<Frame> = self.queue.drain(..count).collect();
        self.told = frames.last().map_or(self.told, |frame| frame.revision);
        if self.fate.coalesce.is_some() {
            frames = coalesced(frames);
        }
        let mut text = String::with_capacity(frames.iter().map(|frame| frame.object.text().len() + 40).sum());
        for frame in &frames {
            frame.write(&mut text);
        }
        text
    }

    /// Never ahead of what is told.
    fn bookmark(&mut self, revision: u64) -> Pull {
        let last = self.ends - LAST_BOOKMARK.min(self.ends - self.began);
        let is_last = self.next_bookmark >= last;
        self.next_bookmark = if is_last { self.ends } else { (self.next_bookmark + BOOKMARK_PERIOD).min(last) };
        if !self.query.bookmarks {
            return Pull::Wait(Instant::now());
        }
        self.told = self.queue.front().map_or(revision, |frame| frame.revision - 1).max(self.told);
        Pull::Text(bookmark_line(self.info.kind, self.told))
    }
}

impl Frame {
    fn write(&self, text: &mut String) {
        let event = match self.event {
            Event::Added => "ADDED",
            Event::Modified => "MODIFIED",
            Event::Deleted => "DELETED",
        };
        let object = std::str::from_utf8(self.object.text()).unwrap_or("null");
        for part in [r#"{"type":""#, event, r#"","object":"#, object, "}\n"] {
            text.push_str(part);
        }
    }
}

/// Events of one object as one: its last state, in the place of its last event.
fn coalesced(frames: Vec<Frame>) -> Vec<Frame> {
    let mut last: BTreeMap<(String, String), Frame> = BTreeMap::new();
    for mut frame in frames {
        let key = (frame.object.namespace().to_owned(), frame.object.name().to_owned());
        let before = last.remove(&key).map(|before| before.event);
        frame.event = match (before, frame.event) {
            (Some(Event::Added), Event::Deleted) => continue,
            (Some(Event::Added), Event::Modified) => Event::Added,
            (Some(Event::Deleted), Event::Added) => Event::Modified,
            (_, event) => event,
        };
        last.insert(key, frame);
    }
    let mut frames: Vec<Frame> = last.into_values().collect();
    frames.sort_by_key(|frame| frame.revision);
    frames
}

fn bookmark_line(kind: &Kind, revision: u64) -> String {
    let metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
    format!("{}\n", json!({"type": "BOOKMARK", "object": object}))
}

/// What a watch says whose place is compacted.
pub fn expired_line() -> String {
    let status = Refusal::expired("too old resource version").to_json();
    format!("{}\n", json!({"type": "ERROR", "object": status}))
}
