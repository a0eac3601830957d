//! What the application is told: the one stream of events, from its beginning to its end.
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Connected, Desk, Entry, Leftover, RUNNING_MAX, Stage, Stream, UNKNOWN_GRACE, millis, name_of};
use crate::{
    agent::{
        exec::{Cause, Proof, on_one_line},
        session::runner::{Happening, Id},
        sidecar::refusal::Refusal,
    },
    plan::listener_set::session::Boottime,
    sdk::wire::{self, DROPS_BEFORE, Event, Name, Open, Running, STOPS_BEFORE},
};

impl Desk {
    /// A stream is opened by an instance, which runs what it says and nothing else.
    ///
    /// # Errors
    /// Another instance has a stream; the same one has opened this or a later one before; more is named than there can be.
    pub fn connect(&mut self, open: Open, now: Boottime) -> Result<Connected, Refusal> {
        self.pass(now);
        let Open { instance, stream: by_number, running } = open;
        if let Some(stream) = self.stream.as_ref().filter(|stream| stream.instance != instance) {
            let message = format!(
                "{} is connected: one process of the application runs all listeners of the Pod. Wait until its stream has \
                 ended",
                stream.instance
            );
            return Err(Refusal::conflict("instance", message));
        }
        if let Some((_, last)) = self.last.as_ref().filter(|(by, last)| *by == instance && *last >= by_number) {
            let message = format!(
                "is {by_number}, and this process has opened stream {last}: count each one, and say anew what runs. A client \
                 that connects again by itself, with the same URL, cannot be used"
            );
            return Err(Refusal::conflict("stream", message));
        }
        if running.len() > RUNNING_MAX {
            return Err(Refusal::bad("running", format!("has {} entries, at most {RUNNING_MAX}", running.len())));
        }
        self.hang_up();
        self.number += 1;
        let replaces = self.last.as_ref().is_some_and(|(last, _)| *last != instance);
        self.last = Some((instance.clone(), by_number));
        self.stream = Some(Stream { number: self.number, instance, until: Boottime::default() });
        self.account_for(running, now, "ApplicationRestarted: the application does not run it any more");
        (self.earlier, self.is_stale) = (None, true);
        for (id, entry) in &self.entries {
            match &entry.stage {
                Stage::Prepares { .. } => _ = self.to_tell.prepares.insert(id.clone()),
                Stage::Runs(run) if !run.told => _ = self.to_tell.starts.insert(id.clone()),
                Stage::Runs(run) if run.stop.is_some() => _ = self.to_tell.stops.insert(entry.task.fence_token.clone()),
                _ => {}
            }
        }
        Ok(Connected { number: self.number, replaces })
    }

    /// What is not named has ended; what is named, and was not started by us, or has ended by its deadline, is to end.
    fn account_for(&mut self, running: Vec<Running>, now: Boottime, complaint: &str) {
        let named: BTreeMap<String, Name> =
            running.into_iter().map(|Running { set, listener, token }| (token, Name { set, listener })).collect();
        let missing = |(_, entry): &(&Id, &Entry)| {
            matches!(&entry.stage, Stage::Runs(run) if run.told) && !named.contains_key(&entry.task.fence_token)
        };
        let missing: Vec<Id> = self.entries.iter().filter(missing).map(|(id, _)| id.clone()).collect();
        for id in missing {
            self.end_of_run(&id, complaint);
        }
        self.leftovers.retain(|token, _| named.contains_key(token));
        let by = self.earlier.unwrap_or_default().max(now.after(UNKNOWN_GRACE));
        for (token, name) in named {
            if !self.tokens.contains_key(&token) {
                self.leftovers.entry(token.clone()).or_insert(Leftover { name, by });
                self.to_tell.stops.insert(token);
            }
        }
    }

    /// The stream of this number has ended; that of a later one goes on.
    pub fn disconnect(&mut self, number: u64) {
        if self.stream.as_ref().is_some_and(|stream| stream.number == number) {
            self.hang_up();
        }
    }

    /// The process that had the stream of this number is dead, so nothing of what it ran is left. It does not count once a
    /// later stream was opened: what that one has said is newer.
    pub fn died(&mut self, number: u64, now: Boottime) {
        if self.number == number {
            self.disconnect(number);
            self.account_for(Vec::new(), now, "ApplicationEnded: the process of the application has ended");
            self.is_stale = true;
        }
    }

    /// No later stream than this was opened.
    pub fn is_last(&self, number: u64) -> bool {
        self.number == number
    }

    /// The stream is none any more.
    pub(super) fn hang_up(&mut self) {
        self.stream = None;
        self.to_tell.stops.clear();
        self.to_tell.unprepares.clear();
        // What was prepared was on that stream: if it is still wanted, it is asked for anew.
        let prepared: Vec<Id> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.stage, Stage::Prepared | Stage::Prepares { told: true }))
            .map(|(id, _)| id.clone())
            .collect();
        for id in prepared {
            // Not its failure: it is asked for again at once.
            self.end(&id, Cause::Deadline, Proof::Application);
        }
    }

    /// This stream is still the one.
    pub fn is_stream(&self, number: u64) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.number == number)
    }

    /// What to put on this stream next.
    pub fn tell(&mut self, number: u64, now: Boottime) -> Option<Event> {
        self.pass(now);
        let stream = self.stream.as_mut().filter(|stream| stream.number == number)?;
        // Stops before any later deadline: what was said of one of them then bounds the other.
        while let Some(token) = self.to_tell.stops.pop_first() {
            self.is_stale = true;
            if let Some(stop) = stop(&mut self.entries, &self.tokens, &mut self.leftovers, &token, self.sent, now) {
                return Some(Event::Stop(stop));
            }
        }
        if stream.until != self.until {
            (stream.until, self.told) = (self.until, self.until);
            (self.sent, self.is_stale) = (self.sent.max(self.until), true);
            return Some(Event::Deadline(wire::Deadline {
                deadline: self.until.as_nanos(),
                milliseconds: millis(self.until, now),
            }));
        }
        if let Some(name) = self.to_tell.unprepares.pop_first() {
            return Some(Event::Unprepare(name));
        }
        while let Some(id) = self.to_tell.prepares.pop_first() {
            let Some(Entry { task, stage: Stage::Prepares { told } }) = self.entries.get_mut(&id) else { continue };
            *told = true;
            return Some(Event::Prepare(wire::Prepare {
                set: task.set.clone(),
                listener: task.listener.clone(),
                config: raw(&task.config),
                connect_timeout_seconds: task.connect_timeout_seconds,
                use_proxy: task.use_proxy,
            }));
        }
        // Too late for any work: the next renewal moves it.
        if now.after(STOPS_BEFORE) >= self.until {
            return None;
        }
        while let Some(id) = self.to_tell.starts.pop_first() {
            let Some(Entry { task, stage: Stage::Runs(run) }) = self.entries.get_mut(&id) else { continue };
            (run.told, self.is_stale) = (true, true);
            (self.sent, self.told) = (self.sent.max(self.until), self.until);
            let was_alone = run.was_alone;
            let start = wire::Start {
                set: task.set.clone(),
                listener: task.listener.clone(),
                token: task.fence_token.clone(),
                config: raw(&task.config),
                resume: task.resume.as_deref().map(raw),
                connect_timeout_seconds: task.connect_timeout_seconds,
                use_proxy: task.use_proxy,
                deadline: self.until.as_nanos(),
                milliseconds: millis(self.until, now),
                stop_timeout_seconds: task.stop_timeout_seconds,
            };
            if was_alone {
                let why = "StartTimeout: its application came late, and has yet to say that it works";
                self.happen(&id, Happening::Failed(why.to_owned()));
            }
            return Some(Event::Start(start));
        }
        None
    }
}

fn stop(
    entries: &mut BTreeMap<Id, Entry>,
    tokens: &BTreeMap<String, Id>,
    leftovers: &mut BTreeMap<String, Leftover>,
    token: &str,
    sent: Boottime,
    now: Boottime,
) -> Option<wire::Stop> {
    let soonest = now.after(DROPS_BEFORE);
    let (name, by) = if let Some(leftover) = leftovers.get_mut(token) {
        leftover.by = leftover.by.max(soonest);
        (leftover.name.clone(), leftover.by)
    } else {
        let Entry { task, stage: Stage::Runs(run) } = entries.get_mut(tokens.get(token)?)? else { return None };
        let by = run.stop?.max(soonest);
        run.told_stop = Some((by, run.bound(sent)));
        (name_of(task), by)
    };
    Some(wire::Stop {
        set: name.set,
        listener: name.listener,
        token: token.to_owned(),
        deadline: by.as_nanos(),
        milliseconds: millis(by, now),
    })
}

/// As it stands in a Lease, where it may be anything; what is no JSON is told as null.
fn raw(json: &str) -> Box<RawValue> {
    on_one_line(json).unwrap_or_else(|| RawValue::NULL.to_owned())
}
