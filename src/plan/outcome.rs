//! What became of a [`Change`], of a Rollout's plan or a ListenerSet's: the words in which `apply` answers `status` and the shell.
use jiff::SignedDuration;

use super::change::Change;
use crate::snapshot::{RefusalReason, TemplateCheck};

/// One change and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<C = Change> {
    /// The change.
    pub change: C,
    /// What became of it.
    pub result: Applied,
}

/// What the API server made of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// Written, now or before by ourselves (409 AlreadyExists on an object of ours); the object's resourceVersion (empty for
    /// a delete), for the staleness barrier.
    Done {
        /// Of the object.
        resource_version: String,
    },
    /// The object is gone, or changed since we looked (404, 409): planned anew, without an event.
    Stale,
    /// The name belongs to an object that is not ours: joins [`crate::snapshot::Snapshot::taken_names`], or
    /// [`crate::snapshot::listener_set::SetSnapshot::taken_names`].
    NameTaken,
    /// The API server refuses it for now or for good; backed off.
    Refused {
        /// Kind of refusal.
        reason: RefusalReason,
        /// The API server's sentence.
        message: String,
    },
    /// Verdict of [`Change::CheckTemplate`] or [`Change::CheckResize`].
    Checked(TemplateCheck),
    /// No answer, or a transient one (time-out, 429, 5xx): it may or may not have been written. Planned anew after a
    /// fresh look.
    Unknown {
        /// What went wrong.
        message: String,
        /// Retry-After, when the server named it.
        retry_after: Option<SignedDuration>,
    },
    /// Not sent: the controller lock's remaining time was shorter than a call may take.
    Fenced,
}
