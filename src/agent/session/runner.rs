//! What runs listeners, as the rest of the agent sees it.
use std::{io, time::Duration};

use crate::agent::{
    boottime::Boottime,
    exec::{Ended, Environment},
};

/// One listener, for as long as there is something of it: the uid of its ownership Lease.
pub type Id = String;

/// What happens to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It could start at once.
    Prepared,
    /// It works.
    Works,
    /// Where a successor goes on, as JSON. The last one counts.
    Resume(String),
    /// It says that something is wrong.
    Failed(String),
    /// Nothing of it is left, whether it was started or only prepared. The last of its happenings.
    Ended(Ended),
}

/// Runs listeners: as children here, or in an application beside the agent.
pub trait Runner {
    /// Connects without consuming. Answered by [`Happening::Prepared`], or by an end.
    fn prepare(&mut self, id: &Id, task: Environment);

    /// It will not come: nothing of it is to be left.
    fn unprepare(&mut self, id: &Id);

    /// Starts it; it is killed at `until` unless that is moved.
    ///
    /// # Errors
    /// It could not be started, and nothing of it is left.
    fn start(&mut self, id: &Id, task: Environment, until: Boottime) -> io::Result<()>;

    /// Asks it to end, and kills it after `grace`.
    fn stop(&mut self, id: &Id, grace: Duration);

    /// Everything that runs is killed at this time, instead of at that said before.
    fn extend(&mut self, until: Boottime);

    /// What an earlier agent of this Pod has begun could not be found, were there one: what would tell of it is new.
    fn lacks_record(&self) -> bool {
        false
    }

    /// The next happening. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = (Id, Happening)>;
}
