//! What is said of a listener.

/// What becomes of a listener, beside what its Leases say: for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Note {
    /// The seat that it is to move to.
    pub to: Option<usize>,
    /// Letters about this stand, or are written now.
    pub is_moving: bool,
    /// Its Pod is waited for, and no other one can take it.
    pub is_stranded: bool,
    /// One CamelCase word; empty when nothing is to be said.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Note {
    pub(super) fn say(&mut self, reason: &'static str, message: impl Into<String>) {
        (self.reason, self.message) = (reason, message.into());
    }
}
