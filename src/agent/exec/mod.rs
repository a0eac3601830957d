//! One child process per listener, and the proof that it has stopped.
//!
//! ```text
//! agent  (PID 1 of the container, or a subreaper)      tells deadlines, hears how it ended
//!  ├─> guard a  (subreaper, own session, one thread)   kills at the deadline, reaps until ECHILD, tells
//!  │     └─> child a  (own process group)              a shim first, then the listener's command
//!  │           └─> what it starts
//!  └─> guard b …
//! ```
//! Guard and shim are this program again, with hidden subcommands: a step between fork and exec is the one thing that safe
//! Rust cannot take.
//!
//! - [`guarded`]: the agent's side: [`Guards::spawn`], [`Control`], [`Events`];
//! - [`guard`] and [`shim`]: the other processes;
//! - [`runner`]: listeners as children, for the rest of the agent;
//! - [`children`]: killing and reaping; `nursery`: the agent's part of it;
//! - [`environment`] and [`lines`]: what a child is told, and what it says; `wire`, `rights`: agent and guard among themselves.
//!
//! # What stops a listener, and what proves it
//! A guard kills its child and everything below at the deadline that it was last told (CLOCK_BOOTTIME, absolute), at the end
//! of a stop's grace, once the child has ended, and when the agent is gone. It says that the listener has ended only when
//! `waitpid` has answered ECHILD. Nothing escapes that: as a subreaper the guard becomes the parent of everyone below who
//! loses theirs, also if they used sessions, groups, forks and signals, and it signals its own children alone, whose
//! process ids cannot be used again before it reaps them.
//!
//! | what happens | who kills | with the agent as PID 1 | otherwise |
//! |---|---|---|---|
//! | the agent is stopped (SIGSTOP, or starved) past the deadline | the guard | all dead | all dead |
//! | the agent dies | the kernel (PID 1), else the guard | all dead | all dead |
//! | the guard dies | kernel (child), agent (the rest) | all dead | all dead |
//! | the guard is stopped past the deadline | the agent kills it, [`GUARD_MARGIN`] later, and all below | all dead | all dead |
//! | agent and guard die at once | the kernel | all dead | **the child only**, see below |
//! | the agent dies while the guard is stopped | the kernel | all dead | **none, until the guard goes on** |
//! | agent and guard are both stopped | none | runs on | runs on |
//!
//! *Both die at once, and the agent is not PID 1*: the child dies, as its PDEATHSIG tells the kernel to (unless it has changed
//! its user id, which clears that). What it had started beside itself goes to the next subreaper or PID 1 of the machine or
//! container; no process kills it, and none can tell the next agent whether it lives. So the exclusive use of a listener holds
//! under any death of processes only with the agent as PID 1 of its container, as the manifests have it.
//! *Both stopped* is what a paused machine looks like: what it writes afterwards is kept out by the fencing token alone.
//!
//! The guard has SIGTERM for its PDEATHSIG, and takes it for news: with SIGKILL it would die with the agent, and what the
//! child started beside itself would live.
//!
//! What the kernel cannot kill (a process in uninterruptible sleep) is not proven dead, and not told as such. A program that
//! makes processes in someone else's name (a container engine, `systemd-run`, a job of another Pod) starts nothing *below*
//! the guard, and nothing here knows of it. There is no use of cgroup.kill: its file can hardly ever be written in a Pod, and
//! nothing rests on killing all at the same instant.
//!
//! # What the agent must keep to
//! It has no children but guards: another process that becomes its child is taken for the remains of a dead guard, and killed. That
//! includes what `kubectl exec` leaves running in the background when the agent is PID 1.
pub mod children;
pub mod environment;
pub mod guard;
pub mod guarded;
pub mod lines;
mod nursery;
mod rights;
pub mod runner;
pub mod shim;
mod wire;

use std::ffi::OsString;

pub use children::Exit;
pub use environment::{Environment, on_one_line};
pub use guarded::{Control, Events, GUARD_MARGIN, Guarded, Guards};
pub use lines::{Line, Refusal};
pub use runner::Children;

/// This very program, also where its file has been replaced or cannot be seen.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Program, searched in PATH, and arguments.
    pub command: Vec<OsString>,
    /// Besides the agent's own environment.
    pub environment: Environment,
}

/// What happens to a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote something to file descriptor 3. All it has written comes before its end.
    Line(Line),
    /// The guard has died without proof of the end, or was killed for missing the deadline; the agent kills and reaps.
    GuardLost,
    /// Nothing of it is left: it may be started elsewhere. The last event.
    Ended(Ended),
}

/// How nothing was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why it ended.
    pub cause: Cause,
    /// How the child itself ended, where there was one and the guard has seen it.
    pub exit: Option<Exit>,
    /// Who has seen that nothing is left.
    pub proof: Proof,
}

/// Why a listener's processes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The child ended without being asked to.
    Exited,
    /// The child ended after it was asked to.
    Stopped,
    /// It was killed at the end of the grace.
    StopTimeout,
    /// It was killed at the deadline.
    Deadline,
    /// No process could be started.
    NotStarted,
    /// Its guard died, and with it everything below.
    GuardLost,
}

/// Who says that nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The guard's `waitpid`: ECHILD.
    Guard,
    /// The agent's, after the guard's death: it has no child left that is not a living guard. Or nothing had begun.
    Agent,
    /// The application beside the agent has said so.
    Application,
    /// The application beside the agent must have stopped it by now.
    Deadline,
}
