//! What may go wrong between a client and its API server. A simulation decides; by default nothing does.
use std::{sync::Arc, time::Duration};

use super::{
    delete::DeleteOptions,
    kinds::Kind,
    refusal::Refusal,
    store::{Change, Store},
};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// True for what changes something.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }

    /// As in an RBAC rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// A request, as far as faults and audits care.
#[derive(Clone, Debug)]
pub struct Request {
    /// Numbered from 1.
    pub id: u64,
    /// The process that asks: the name given to `client` or `actor`.
    pub who: Arc<str>,
    pub verb: Verb,
    pub kind: &'static Kind,
    /// Empty: all namespaces, or a kind that is in none.
    pub namespace: String,
    /// Empty for lists and watches, and for creates without one.
    pub name: String,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: &'static str,
    pub is_dry_run: bool,
    /// Of a DELETE.
    pub delete: Option<DeleteOptions>,
}

/// What becomes of a request on its way to the server, or of the answer on its way back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fate {
    /// First it takes so long.
    pub delay: Duration,
    /// Then this happens.
    pub then: Then,
}

/// See [`Fate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Then {
    /// It arrives.
    #[default]
    Deliver,
    /// It is lost, and nobody ever answers.
    Lose,
    /// The connection breaks.
    Reset,
    /// Something else answers.
    Answer(Refusal),
}

impl Fate {
    /// Arrives after this time.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, then: Then::Deliver }
    }

    /// This, at once.
    pub fn now(then: Then) -> Self {
        Self { delay: Duration::ZERO, then }
    }
}

/// A watch.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// That of its request.
    pub id: u64,
    pub who: Arc<str>,
    pub kind: &'static Kind,
    /// Empty: all.
    pub namespace: String,
}

/// What becomes of a watch. Times count from its beginning. It may be changed while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamFate {
    /// Every event takes so long. [`Faults::event`] may add to it; order is kept.
    pub lag: Duration,
    /// Events of one object within this time are told as one.
    pub coalesce: Option<Duration>,
    /// From then on nothing comes, not even an end.
    pub silent_after: Option<Duration>,
    /// It ends then.
    pub end_after: Option<(Duration, Ending)>,
}

/// How a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In good order.
    Closed,
    /// The connection breaks.
    Reset,
    /// With an ERROR event, 410 Expired.
    Expired,
}

/// Decides about faults. Called while the server is locked: it must not call the server, only decide.
pub trait Faults: Send {
    /// In front of a request: what becomes of it before anything is done.
    fn before(&mut self, _request: &Request, _store: &Store) -> Fate {
        Fate::default()
    }

    /// Between commit and answer. `code` is what would be answered.
    fn after(&mut self, _request: &Request, _code: u16, _store: &Store) -> Fate {
        Fate::default()
    }

    /// How far the server that this process talks to has come: what a list or watch at "0" is answered from. At most the
    /// latest; from before the last compaction is the latest.
    fn cached_revision(&mut self, _request: &Request, store: &Store) -> u64 {
        store.revision()
    }

    /// When a watch begins.
    fn stream(&mut self, _stream: &StreamInfo) -> StreamFate {
        StreamFate::default()
    }

    /// How much longer than the watch's `lag` this event takes.
    fn event(&mut self, _stream: &StreamInfo, _change: &Change) -> Duration {
        Duration::ZERO
    }
}

/// Nothing goes wrong.
pub struct NoFaults;

impl Faults for NoFaults {}
