//! What is known of the application: a pure state machine. What the agent wants and what the application says go in; what
//! to tell the application and what has happened to listeners come out.
//!
//! Nothing here can stop a process. So a listener that the application was told to start has ended only when
//! - the application says so: by `stopped`, or by a new stream that does not name it among what runs;
//! - or the last deadline that it can have been told has passed, and [`STOPPED_BY`] more.
//!
//! "Can have been told" counts from what was put on a stream, whether it arrived or not; what was never put on one never
//! began. A stop that names an earlier time counts only for deadlines that came after it on the stream: who has those has it
//! too.
//!
//! Here is what the agent wants, and what time says; `stream` has what the application is told, `said` what it answers.
mod said;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    agent::{
        exec::{Cause, Ended, Environment, GUARD_MARGIN, Proof},
        session::runner::{Happening, Id},
    },
    plan::listener_set::session::Boottime,
    sdk::wire::Name,
};

/// So long after its deadline the application counts as stopped. As with a guard: deadlines are that much before K, see
/// [`crate::agent::session::pace::Deadlines::kill`].
pub const STOPPED_BY: Duration = GUARD_MARGIN;
/// What an unknown process has begun has so long to stop.
const UNKNOWN_GRACE: Duration = Duration::from_secs(1);
/// Pause after an application could not prepare a listener.
const PREPARE_RETRY: Duration = Duration::from_secs(2);
/// Happenings that were not taken: beyond that what the application says is refused, except that something has stopped.
const HAPPENINGS_MAX: usize = 4096;
/// Listeners that an application may say it runs.
const RUNNING_MAX: usize = 10_000;

const ABSENT: &str = "NoApplication: no application is connected to the agent of this Pod";

/// See the module.
#[derive(Debug, Default)]
pub struct Desk {
    stream: Option<Stream>,
    /// How many streams there were.
    number: u64,
    /// The instance that had the last one, and the number it gave to it.
    last: Option<(String, u64)>,
    /// Until when the agent lets things run.
    until: Boottime,
    /// The latest deadline that was ever put on a stream.
    sent: Boottime,
    /// The last one that was, which may be earlier.
    told: Boottime,
    entries: BTreeMap<Id, Entry>,
    names: BTreeMap<Name, BTreeSet<Id>>,
    tokens: BTreeMap<String, Id>,
    /// What the application says it runs, and no present start explains, by token.
    leftovers: BTreeMap<String, Leftover>,
    /// A deadline that an earlier agent may have told, and it has not been said yet that nothing of that runs.
    earlier: Option<Boottime>,
    to_tell: ToTell,
    happenings: VecDeque<(Id, Happening)>,
    /// When something happens without a message, as last worked out.
    wake: Option<Boottime>,
    /// It is to be worked out anew.
    is_stale: bool,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    instance: String,
    /// The last deadline told on it.
    until: Boottime,
}

/// A stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The stream's number here.
    pub number: u64,
    /// Another instance had the one before.
    pub replaces: bool,
}

/// What is to be put on the stream. Sets, so that it is bounded by the listeners there are.
#[derive(Debug, Default)]
struct ToTell {
    stops: BTreeSet<String>,
    unprepares: BTreeSet<Name>,
    prepares: BTreeSet<Id>,
    starts: BTreeSet<Id>,
}

#[derive(Debug)]
struct Entry {
    task: Environment,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// To be prepared; `told` on the present stream.
    Prepares {
        told: bool,
    },
    Prepared,
    /// It could not be prepared, which is told at this time: who hears it asks again at once.
    Rests(Boottime),
    Runs(Run),
}

#[derive(Debug, Default)]
struct Run {
    /// It was put on a stream.
    told: bool,
    /// It is to stop by then.
    stop: Option<Boottime>,
    /// The same as it was put on a stream, and what the application could count on before it.
    told_stop: Option<(Boottime, Boottime)>,
    /// It was said that there is no application for it.
    was_alone: bool,
}

impl Run {
    /// The latest time at which it can still run, by all that was ever said of it; `sent`: to all.
    fn bound(&self, sent: Boottime) -> Boottime {
        self.told_stop.map_or(sent, |(by, floor)| floor.max(by.min(sent)))
    }
}

#[derive(Debug)]
struct Leftover {
    name: Name,
    by: Boottime,
}

impl Desk {
    /// `earlier`: a deadline that an earlier agent of this Pod may have told.
    pub fn new(earlier: Option<Boottime>) -> Self {
        Self { earlier, is_stale: true, ..Self::default() }
    }

    /// The same; an earlier agent has seen this instance open a stream of this number.
    #[must_use]
    pub fn after(self, last: Option<(String, u64)>) -> Self {
        Self { last, ..self }
    }

    /// Nothing that an earlier agent has begun runs: a session may be claimed.
    pub fn is_clear(&mut self, now: Boottime) -> bool {
        self.pass(now);
        self.earlier.is_none() && self.leftovers.is_empty()
    }

    /// An application is connected.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// The latest deadline that may have been told.
    pub fn sent(&self) -> Boottime {
        self.sent
    }

    /// See [`crate::agent::session::runner::Runner::prepare`].
    pub fn prepare(&mut self, id: &Id, task: Environment) {
        self.remember(id, Entry { task, stage: Stage::Prepares { told: false } });
        self.to_tell.prepares.insert(id.clone());
    }

    /// See [`crate::agent::session::runner::Runner::unprepare`].
    pub fn unprepare(&mut self, id: &Id) {
        let Some(Entry { task, stage: Stage::Prepares { .. } | Stage::Prepared | Stage::Rests(_) }) =
            self.entries.get(id)
        else {
            return;
        };
        self.to_tell.unprepares.insert(name_of(task));
        self.forget(id);
        self.happenings.retain(|(other, _)| other != id);
    }

    /// See [`crate::agent::session::runner::Runner::start`]. Without an application it waits for one.
    ///
    /// # Errors
    /// The application still runs another start of it, which should have ended.
    pub fn start(&mut self, id: &Id, task: Environment, until: Boottime) -> Result<(), String> {
        let name = name_of(&task);
        if let Some((token, _)) = self.leftovers.iter().find(|(_, leftover)| leftover.name == name) {
            return Err(format!("the application still runs it under the earlier token {token}"));
        }
        self.until = until;
        let was_alone = self.stream.is_none();
        self.remember(id, Entry { task, stage: Stage::Runs(Run { was_alone, ..Run::default() }) });
        self.to_tell.starts.insert(id.clone());
        if was_alone {
            self.happen(id, Happening::Failed(ABSENT.to_owned()));
        }
        Ok(())
    }

    /// See [`crate::agent::session::runner::Runner::stop`].
    pub fn stop(&mut self, id: &Id, grace: Duration, now: Boottime) {
        let Some(Entry { task, stage: Stage::Runs(run) }) = self.entries.get_mut(id) else { return };
        let by = now.after(grace);
        let by = run.stop.map_or(by, |earlier| earlier.min(by));
        if run.told {
            run.stop = Some(by);
            self.to_tell.stops.insert(task.fence_token.clone());
        } else {
            self.end(id, Cause::Stopped, Proof::Agent);
        }
    }

    /// See [`crate::agent::session::runner::Runner::extend`].
    pub fn extend(&mut self, until: Boottime) {
        self.until = until;
    }

    /// What has happened next.
    pub fn happened(&mut self, now: Boottime) -> Option<(Id, Happening)> {
        self.pass(now);
        self.happenings.pop_front()
    }

    /// When something happens without a message.
    pub fn wake(&mut self) -> Option<Boottime> {
        if std::mem::take(&mut self.is_stale) {
            let entry = |entry: &Entry| match &entry.stage {
                Stage::Rests(until) => Some(*until),
                Stage::Runs(run) if run.told => Some(run.bound(self.sent).after(STOPPED_BY)),
                _ => None,
            };
            let unknown = self.leftovers.values().map(|leftover| leftover.by).chain(self.earlier);
            let unknown = unknown.map(|by| by.after(STOPPED_BY));
            self.wake = self.entries.values().filter_map(entry).chain(unknown).min();
        }
        self.wake
    }

    fn pass(&mut self, now: Boottime) {
        if self.wake().is_none_or(|wake| now < wake) {
            return;
        }
        self.is_stale = true;
        let is_past = |by: Boottime| now >= by.after(STOPPED_BY);
        self.earlier = self.earlier.filter(|by| !is_past(*by));
        self.leftovers.retain(|_, leftover| !is_past(leftover.by));
        let mut over = Vec::new();
        for (id, entry) in &self.entries {
            match &entry.stage {
                Stage::Rests(until) if now >= *until => over.push((id.clone(), None)),
                Stage::Runs(run) if run.told && is_past(run.bound(self.sent)) => {
                    let is_late = run.told_stop.is_some_and(|(by, _)| by <= self.sent);
                    over.push((id.clone(), Some(if is_late { Cause::StopTimeout } else { Cause::Deadline })));
                }
                _ => {}
            }
        }
        let is_connected = self.stream.is_some();
        for (id, cause) in over {
            match cause {
                None => self.end(&id, Cause::Exited, Proof::Application),
                // Its end was not asked for: its application is gone.
                Some(Cause::Deadline) if !is_connected => self.end_of_run(&id, ABSENT),
                Some(cause) => {
                    self.end(&id, cause, Proof::Deadline);
                    // It has said nothing in time, and may read only now what it was told. A later deadline must not follow
                    // that on the same stream: before it gets one it says anew what runs.
                    self.hang_up();
                }
            }
        }
    }

    /// Ends what was started: asked for, or with this complaint.
    fn end_of_run(&mut self, id: &Id, complaint: &str) {
        let Some(Entry { stage: Stage::Runs(run), .. }) = self.entries.get(id) else { return };
        if run.stop.is_some() {
            self.end(id, Cause::Stopped, Proof::Application);
        } else {
            self.happen(id, Happening::Failed(complaint.to_owned()));
            self.end(id, Cause::Exited, Proof::Application);
        }
    }

    fn end(&mut self, id: &Id, cause: Cause, proof: Proof) {
        self.forget(id);
        self.happen(id, Happening::Ended(Ended { cause, exit: None, proof }));
    }

    fn happen(&mut self, id: &Id, happening: Happening) {
        self.happenings.push_back((id.clone(), happening));
    }

    fn remember(&mut self, id: &Id, entry: Entry) {
        self.forget(id);
        // What was said of it while it was being prepared; of a start it would be taken for the end of that.
        self.happenings.retain(|(other, _)| other != id);
        self.names.entry(name_of(&entry.task)).or_default().insert(id.clone());
        if matches!(entry.stage, Stage::Runs(_)) {
            self.tokens.insert(entry.task.fence_token.clone(), id.clone());
        }
        self.entries.insert(id.clone(), entry);
    }

    fn forget(&mut self, id: &Id) {
        let Some(Entry { task, .. }) = self.entries.remove(id) else { return };
        self.is_stale = true;
        let name = name_of(&task);
        if let Some(ids) = self.names.get_mut(&name) {
            ids.remove(id);
            if ids.is_empty() {
                self.names.remove(&name);
            }
        }
        if self.tokens.get(&task.fence_token) == Some(id) {
            self.tokens.remove(&task.fence_token);
        }
        self.to_tell.prepares.remove(id);
        self.to_tell.starts.remove(id);
        self.to_tell.stops.remove(&task.fence_token);
    }
}

fn name_of(task: &Environment) -> Name {
    Name { set: task.set.clone(), listener: task.listener.clone() }
}

fn millis(at: Boottime, now: Boottime) -> u64 {
    u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "desk/tests.rs"]
mod tests;
