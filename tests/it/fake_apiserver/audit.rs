//! Who asked for what, and what was answered.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::faults::{Request, Verb};

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Entry {
    pub request: Request,
    /// HTTP status that was answered; 0 where the answer, or the request, was lost.
    pub code: u16,
    /// Whether it got as far as the store.
    pub is_done: bool,
}

/// The last requests, and a count of all.
pub struct Audit {
    entries: VecDeque<Entry>,
    entries_max: usize,
    counts: BTreeMap<(Arc<str>, Verb, &'static str), u64>,
}

impl Audit {
    /// Keeps so many entries.
    pub fn new(entries_max: usize) -> Self {
        Self { entries: VecDeque::new(), entries_max, counts: BTreeMap::new() }
    }

    /// Notes one.
    pub fn note(&mut self, entry: Entry) {
        let Request { who, verb, kind, .. } = &entry.request;
        *self.counts.entry((who.clone(), *verb, kind.resource)).or_default() += 1;
        self.entries.push_back(entry);
        if self.entries.len() > self.entries_max {
            self.entries.pop_front();
        }
    }

    /// The last ones, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How many so far: by process, verb and resource, dry runs and failures included.
    pub fn counts(&self) -> &BTreeMap<(Arc<str>, Verb, &'static str), u64> {
        &self.counts
    }
}
