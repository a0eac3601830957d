//! What this process has told applications of their Pods, and what they answered. Nothing else knows it: the next process
//! tells them once more.
use jiff::Timestamp;

use super::call::Refused;

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

impl Telling {
    /// A call begins. `before`: what is known of earlier ones; it counts if they were about the same.
    pub fn begun(before: Option<Self>, of: Timestamp, now: Timestamp) -> Self {
        match before.filter(|before| before.of == of) {
            Some(before) => Self { began_at: now, is_on: true, ..before },
            None => Self { of, began_at: now, is_on: true, is_unreachable: true, ..Self::default() },
        }
    }

    /// The call has come to an end. None: it was not made.
    pub fn end(&mut self, answer: Option<Result<(), Refused>>) {
        self.is_on = false;
        let Some(answer) = answer else { return };
        self.tries = self.tries.saturating_add(1);
        self.asked_at = Some(self.began_at);
        if answer.is_ok() {
            (self.failures, self.failing_since) = (0, None);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.failing_since.get_or_insert(self.began_at);
        }
        self.is_unreachable &= answer.as_ref().is_err_and(|refused| refused.is_unreachable);
        self.answer = Some(answer.map_err(|refused| refused.said));
    }
}
