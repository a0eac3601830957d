//! Inboxes of sessions, written beside the looks: nothing rests on a letter, so that no look waits for one, and an API server
//! that is slow about one Lease holds up no take-over. What is on its way counts as if it stood there; what was not written
//! is planned again.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{applications::OnAnswer, shares::Shares};
use crate::{
    plan::Applied,
    snapshot::{index::ObjectKey, lease::Letter, listener_set::SetSnapshot},
};

/// Pause after letters that were not written, unless the API server names another.
const PAUSE: Duration = Duration::from_secs(1);

/// Letters that are on their way. Clones share them.
#[derive(Clone)]
pub struct Letters {
    on_end: OnAnswer,
    shares: Shares,
    /// By ListenerSet, then by name of the session Lease: one write each at a time.
    sent: Arc<Mutex<BTreeMap<ObjectKey, BTreeMap<String, Sent>>>>,
}

/// The latest inbox of this set that was sent to a session.
struct Sent {
    /// uid of the Lease.
    uid: String,
    letters: BTreeMap<String, Letter>,
    /// The resourceVersion that it was written at; None while there is no answer.
    written_at: Option<String>,
    /// Others were planned meanwhile.
    is_outdated: bool,
}

impl Letters {
    /// `on_end` is called when the set is to be looked at again: letters were not written, or others wait for them.
    /// At most `most` of one namespace are on their way.
    pub(super) fn new(on_end: OnAnswer, most: usize) -> Self {
        Self { on_end, shares: Shares::new(most), sent: Arc::default() }
    }

    /// Lets the inboxes of this set's sessions be what was sent to them last, until the watch has told of it. `is_told`:
    /// whether that has come as far as a resourceVersion.
    pub fn show(&self, key: &ObjectKey, snapshot: &mut SetSnapshot, is_told: impl Fn(&str) -> bool) {
        let mut all = self.lock();
        let Some(sent) = all.get_mut(key) else { return };
        sent.retain(|_, sent| sent.written_at.as_ref().is_none_or(|at| !is_told(at)));
        for seen in snapshot.sessions.values_mut() {
            if let Some(sent) = sent.get(&seen.lease).filter(|sent| sent.uid == seen.uid) {
                seen.inbox.clone_from(&sent.letters);
            }
        }
        if sent.is_empty() {
            all.remove(key);
        }
    }

    /// The set is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Begins to replace the inbox that a set has in this session Lease (name, uid), by `write`.
    pub(super) fn send(
        &self,
        key: ObjectKey,
        (lease, uid): (&str, &str),
        letters: &BTreeMap<String, Letter>,
        write: impl Future<Output = Applied> + Send + 'static,
    ) {
        {
            let mut all = self.lock();
            let sent = all.entry(key.clone()).or_default();
            if let Some(going) = sent.get_mut(lease).filter(|sent| sent.written_at.is_none()) {
                going.is_outdated = true;
                return;
            }
            let (uid, letters) = (uid.to_owned(), letters.clone());
            sent.insert(lease.to_owned(), Sent { uid, letters, written_at: None, is_outdated: false });
        }
        let (own, lease) = (self.clone(), lease.to_owned());
        tokio::spawn(async move {
            let share = own.shares.of(&key.namespace);
            // Closed never: an error cannot happen.
            let permit = share.acquire().await;
            let applied = write.await;
            drop(permit);
            if let Applied::Done { resource_version } = applied {
                own.written(&key, &lease, resource_version);
                return;
            }
            tracing::debug!(object = %key, lease, ?applied, "letters were not written");
            let pause = match applied {
                Applied::Unknown { retry_after: Some(pause), .. } => pause.unsigned_abs(),
                _ => PAUSE,
            };
            tokio::time::sleep(pause).await;
            if let Some(sent) = own.lock().get_mut(&key) {
                sent.remove(&lease);
            }
            (own.on_end)(key);
        });
    }

    fn written(&self, key: &ObjectKey, lease: &str, resource_version: String) {
        let is_outdated = {
            let mut all = self.lock();
            let Some(sent) = all.get_mut(key).and_then(|sent| sent.get_mut(lease)) else { return };
            sent.written_at = Some(resource_version);
            sent.is_outdated
        };
        if is_outdated {
            (self.on_end)(key.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, BTreeMap<String, Sent>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
