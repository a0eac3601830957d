//! Calls to the applications of Pods that say whether an instance is well, or drained. Only this process knows of them: the next
//! one asks anew.
use std::collections::BTreeMap;

use super::Telling;

/// What an application is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Whether it may go into service: `spec.health`.
    Health,
    /// The same of an instance that is in service: whether the operator reaches any Pod at all.
    Reference,
    /// Whether it is drained: `spec.drain`.
    Drain,
    /// Whether it is still well: `spec.soak`.
    Soak,
}

/// The calls of a Rollout, by uid of the Pod and purpose.
pub type Calls = BTreeMap<(String, Purpose), Telling>;

/// Why an application has not said what it was asked to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In a few words.
    pub said: String,
    /// It has not answered at all.
    pub is_unreachable: bool,
}
