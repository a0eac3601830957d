//! How much of what is bounded one namespace may have.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

/// So many permits of each namespace with calls in flight. Clones share them.
#[derive(Clone)]
pub(super) struct Shares {
    most: usize,
    by_namespace: Arc<Mutex<BTreeMap<String, Weak<Semaphore>>>>,
}

impl Shares {
    /// At most `most` each.
    pub(super) fn new(most: usize) -> Self {
        Self { most, by_namespace: Arc::default() }
    }

    /// Those of this namespace, kept while any is held or awaited.
    pub(super) fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut shares = self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.most));
        shares.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }
}
