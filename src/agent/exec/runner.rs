//! Listeners as children: one command for all of them, each told by its environment which it is.
use std::{collections::BTreeMap, ffi::OsString, io, time::Duration};

use tokio::sync::mpsc;

use super::{Control, Environment, Event, Guarded, Guards, Line, Spec};
use crate::agent::{
    boottime::Boottime,
    session::runner::{Happening, Id, Runner},
};

/// Happenings not yet taken, of all children together. A child whose lines nobody takes waits with its writing.
const HAPPENINGS_MAX: usize = 256;

/// Runs one child for each listener, under its guard.
pub struct Children {
    guards: Guards,
    command: Vec<OsString>,
    controls: BTreeMap<Id, Control>,
    sender: mpsc::Sender<(Id, Happening)>,
    happenings: mpsc::Receiver<(Id, Happening)>,
    /// Listeners that were prepared, which takes nothing: the command is not started before its turn.
    prepared: Vec<Id>,
}

impl Children {
    /// Runs `command`, a program and its arguments.
    pub fn new(guards: Guards, command: Vec<OsString>) -> Self {
        let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
        Self { guards, command, controls: BTreeMap::new(), sender, happenings, prepared: Vec::new() }
    }
}

impl Runner for Children {
    fn prepare(&mut self, id: &Id, _task: Environment) {
        self.prepared.push(id.clone());
    }

    fn unprepare(&mut self, _id: &Id) {}

    fn start(&mut self, id: &Id, task: Environment, until: Boottime) -> io::Result<()> {
        let spec = Spec { command: self.command.clone(), environment: task };
        let Guarded { control, mut events } = self.guards.spawn(&spec, until)?;
        self.controls.insert(id.clone(), control);
        let (id, sender) = (id.clone(), self.sender.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let happening = match event {
                    Event::Line(Line::Resume(json)) => Happening::Resume(json),
                    Event::Line(Line::Tick) => Happening::Works,
                    Event::Line(Line::Failed(why)) => Happening::Failed(why),
                    Event::Line(Line::Refused(why)) => {
                        tracing::warn!(?why, "skipped a line that a listener wrote to file descriptor 3");
                        continue;
                    }
                    Event::GuardLost => continue, // its end follows
                    Event::Ended(ended) => Happening::Ended(ended),
                };
                if sender.send((id.clone(), happening)).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn stop(&mut self, id: &Id, grace: Duration) {
        if let Some(control) = self.controls.get(id) {
            control.stop(grace);
        }
    }

    fn extend(&mut self, until: Boottime) {
        self.controls.values().for_each(|control| control.extend(until));
    }

    async fn next(&mut self) -> (Id, Happening) {
        if let Some(id) = self.prepared.pop() {
            return (id, Happening::Prepared);
        }
        match self.happenings.recv().await {
            Some((id, happening)) => {
                if matches!(happening, Happening::Ended(_)) {
                    self.controls.remove(&id);
                }
                (id, happening)
            }
            // Cannot be: we hold a sender.
            None => std::future::pending().await,
        }
    }
}
