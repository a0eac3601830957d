//! What this process has told applications of their Pods, and what they answered. Nothing else knows it: the next process
//! tells them once more.
use jiff::Timestamp;

/// The calls to one application about one change in place of its Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Which change: [`crate::snapshot::InPlace::at`].
    pub of: Timestamp,
    /// When the last call was begun.
    pub began_at: Timestamp,
    /// Calls that have come to an end.
    pub tries: u32,
    /// The last call has come to none yet.
    pub is_on: bool,
    /// When the last call that has come to an end was begun; None: none has.
    pub asked_at: Option<Timestamp>,
    /// No call has been answered at all: no connection, or no answer in time.
    pub is_unreachable: bool,
    /// Calls in a row that were not answered well.
    pub failures: u32,
    /// When the first of them was begun.
    pub failing_since: Option<Timestamp>,
    /// What the last call that has come to an end gave: it has reloaded, or why that is not known.
    pub answer: Option<Result<(), String>>,
}
