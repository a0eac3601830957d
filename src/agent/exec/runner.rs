//! Listeners as children: one command for all of them, each told by its environment which it is.
//!
//! *Warm* ones are started when their listener is to come, and wait for one line on their standard input: with it their turn
//! has come. Until then they may connect, and must not consume; that is the application's to see to. Those that were not
//! prepared, such as after a crash, get the line at once: the application has one way to begin.
use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::unix::pipe, sync::mpsc};

use super::{Control, Environment, Event, Events, Guarded, Guards, Line, Spec};
use crate::agent::{
    boottime::Boottime,
    session::runner::{Happening, Id, Runner},
};

/// Happenings not yet taken, of all children together. A child whose lines are not taken waits with its writing.
const HAPPENINGS_MAX: usize = 256;
/// How long a child that waits for its turn may take to end when it will not come.
const UNPREPARE_GRACE: Duration = Duration::from_secs(5);

/// Runs one child for each listener, under its guard.
pub struct Children {
    guards: Guards,
    command: Vec<OsString>,
    is_warm: bool,
    lacks_record: bool,
    known: BTreeMap<Id, Child>,
    sender: mpsc::Sender<(Id, Happening)>,
    happenings: mpsc::Receiver<(Id, Happening)>,
    /// What takes no process: the command is not started before its turn, or cannot be.
    at_once: VecDeque<Id>,
    /// When everything that runs is killed, as last said.
    until: Boottime,
}

/// A child that has not ended.
struct Child {
    control: Control,
    turn: Turn,
}

enum Turn {
    /// It was told to start.
    Come,
    /// It was started with this, and waits.
    Awaited(Box<Environment>, pipe::Sender),
    /// It will not come, and is to end: what it says is not read. Then another is prepared, if one is named.
    Never(Option<Box<Environment>>),
}

impl Children {
    /// Runs `command`, a program and its arguments.
    pub fn new(guards: Guards, command: Vec<OsString>) -> Self {
        let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
        let (known, at_once) = (BTreeMap::new(), VecDeque::new());
        let until = Boottime::default();
        Self { guards, command, is_warm: false, lacks_record: false, known, sender, happenings, at_once, until }
    }

    /// The same; `is_warm`: its children connect before their turn.
    #[must_use]
    pub fn warm(self, is_warm: bool) -> Self {
        Self { is_warm, ..self }
    }

    /// The same; `lacks_record`: see [`Runner::lacks_record`].
    #[must_use]
    pub fn without_record(self, lacks_record: bool) -> Self {
        Self { lacks_record, ..self }
    }

    fn spawn(
        &mut self,
        id: &Id,
        environment: Environment,
        until: Boottime,
        input: Option<BorrowedFd<'_>>,
        patience: Option<Duration>,
    ) -> io::Result<Control> {
        let spec = Spec { command: self.command.clone(), environment };
        let Guarded { control, events } = self.guards.spawn_reading(&spec, until, input)?;
        tokio::spawn(tell(id.clone(), events, self.sender.clone(), patience));
        Ok(control)
    }

    /// Starts a child that waits for its turn.
    fn wait(&mut self, id: &Id, task: &Environment, patience: Option<Duration>, until: Boottime) -> io::Result<()> {
        let (read, write) = io::pipe()?;
        let write = pipe::Sender::from_owned_fd(write.into())?;
        let task = task.before_its_turn();
        let control = self.spawn(id, task.clone(), until, Some(read.as_fd()), patience)?;
        self.known.insert(id.clone(), Child { control, turn: Turn::Awaited(Box::new(task), write) });
        Ok(())
    }

    /// Tells a child that waits that its turn has come.
    fn call(&mut self, id: &Id, task: &Environment) -> io::Result<()> {
        let Some(child) = self.known.get_mut(id) else { return Err(io::ErrorKind::NotFound.into()) };
        let is_same = |prepared: &Environment| *prepared == task.before_its_turn();
        match std::mem::replace(&mut child.turn, Turn::Come) {
            Turn::Awaited(prepared, input) if is_same(&prepared) => write_line(input, task.start_line()),
            _ => {
                child.turn = Turn::Never(None);
                child.control.stop(Duration::ZERO);
                Err(io::Error::other("what was prepared of it with other settings, or was not to come, has yet to end"))
            }
        }
    }

    fn prepare_warm(&mut self, id: &Id, task: &Environment) {
        // The others wait no longer than this for it to be prepared, and would look for another Pod.
        let patience = Duration::from_secs(task.connect_timeout_seconds.into()) * 3 / 4;
        let until = self.until;
        if let Err(error) = self.wait(id, task, Some(patience), until) {
            // It may still be started when its turn has come.
            tracing::warn!(%error, "a listener cannot be prepared");
            self.at_once.push_back(id.clone());
        }
    }

    /// What concerns the rest of the agent.
    fn heard(&mut self, id: Id, happening: Happening) -> Option<(Id, Happening)> {
        let is_end = matches!(happening, Happening::Ended(_));
        if !matches!(self.known.get(&id)?.turn, Turn::Never(_)) {
            if is_end {
                self.known.remove(&id);
            }
            return Some((id, happening));
        }
        if is_end && let Some(Child { turn: Turn::Never(Some(task)), .. }) = self.known.remove(&id) {
            self.prepare_warm(&id, &task);
        }
        None
    }
}

impl Runner for Children {
    fn prepare(&mut self, id: &Id, task: Environment) {
        match self.known.get_mut(id) {
            _ if !self.is_warm => self.at_once.push_back(id.clone()),
            None => self.prepare_warm(id, &task),
            Some(Child { turn: Turn::Never(again), .. }) => *again = Some(Box::new(task)),
            Some(_) => self.at_once.push_back(id.clone()), // it is there
        }
    }

    fn unprepare(&mut self, id: &Id) {
        if let Some(child) = self.known.get_mut(id)
            && !matches!(child.turn, Turn::Come)
        {
            child.turn = Turn::Never(None);
            child.control.stop(UNPREPARE_GRACE);
        }
    }

    fn start(&mut self, id: &Id, task: Environment, until: Boottime) -> io::Result<()> {
        if !self.is_warm {
            let control = self.spawn(id, task, until, None, None)?;
            self.known.insert(id.clone(), Child { control, turn: Turn::Come });
            return Ok(());
        }
        match self.known.get(id) {
            None => self.wait(id, &task, None, until)?,
            Some(child) => child.control.extend(until),
        }
        self.call(id, &task)
    }

    fn stop(&mut self, id: &Id, grace: Duration) {
        if let Some(child) = self.known.get(id) {
            child.control.stop(grace);
        }
    }

    fn extend(&mut self, until: Boottime) {
        self.until = until;
        self.known.values().for_each(|child| child.control.extend(until));
    }

    fn lacks_record(&self) -> bool {
        self.lacks_record
    }

    async fn next(&mut self) -> (Id, Happening) {
        loop {
            if let Some(id) = self.at_once.pop_front() {
                return (id, Happening::Prepared);
            }
            match self.happenings.recv().await {
                Some((id, happening)) => {
                    if let Some(heard) = self.heard(id, happening) {
                        return heard;
                    }
                }
                // Cannot be: we hold a sender.
                None => std::future::pending().await,
            }
        }
    }
}

/// Passes on what happens to a child. One that has not said within `patience` that it is prepared is taken for it: it will
/// be told its turn all the same, and it is not waited for longer than one that is started only then.
async fn tell(id: Id, mut events: Events, sender: mpsc::Sender<(Id, Happening)>, mut patience: Option<Duration>) {
    let late = tokio::time::sleep(patience.unwrap_or_default());
    tokio::pin!(late);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut late, if patience.is_some() => {
                tracing::warn!("a listener has not said that it is prepared: it goes on without");
                Some(Event::Line(Line::Prepared))
            }
        };
        let happening = match event {
            None => return,
            Some(Event::Line(Line::Resume(json))) => Happening::Resume(json),
            Some(Event::Line(Line::Tick)) => Happening::Works,
            Some(Event::Line(Line::Prepared)) => {
                patience = None;
                Happening::Prepared
            }
            Some(Event::Line(Line::Failed(why))) => Happening::Failed(why),
            Some(Event::Line(Line::Refused(why))) => {
                tracing::warn!(?why, "skipped a line that a listener wrote to file descriptor 3");
                continue;
            }
            Some(Event::GuardLost) => continue, // its end follows
            Some(Event::Ended(ended)) => Happening::Ended(ended),
        };
        if sender.send((id.clone(), happening)).await.is_err() {
            return;
        }
    }
}

/// Writes the one line that there will be, and closes. At once: not through the runtime, which may not have heard yet that
/// there is room. A pipe that is shorter than the line takes the rest as the child reads.
fn write_line(mut input: pipe::Sender, line: String) -> io::Result<()> {
    let written = match nix::unistd::write(&input, line.as_bytes()) {
        Ok(written) => written,
        Err(nix::errno::Errno::EAGAIN) => 0,
        Err(error) => return Err(error.into()),
    };
    if written < line.len() {
        tokio::spawn(async move {
            let _ = input.write_all(&line.as_bytes()[written..]).await; // or it has ended
        });
    }
    Ok(())
}
