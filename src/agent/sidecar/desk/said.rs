//! What the application says of its listeners, and asks.
use super::{Desk, Entry, HAPPENINGS_MAX, PREPARE_RETRY, Stage, millis, name_of};
use crate::{
    agent::{
        exec::{Cause, Proof, on_one_line},
        session::runner::{Happening, Id},
        sidecar::refusal::Refusal,
    },
    plan::listener_set::session::Boottime,
    sdk::wire::{self, Answer, DROPS_BEFORE, Name, Word, presentable},
};

impl Desk {
    /// An answer about a listener.
    ///
    /// # Errors
    /// It does not fit what is known.
    pub fn hear(&mut self, name: &Name, word: Word, answer: Answer, now: Boottime) -> Result<(), Refusal> {
        self.pass(now);
        // What is no JSON cannot be here.
        let resume = answer.resume.and_then(|resume| Some(on_one_line(resume.get())?.get().to_owned()));
        let reason = answer.reason.map(|reason| presentable(&reason));
        let most = wire::RESUME_BYTES_MAX;
        let is_too_long = resume.as_ref().is_some_and(|resume| resume.len() > most);
        let too_long = format!("is longer than {most} bytes of JSON: keep a position, not data");
        if is_too_long && word != Word::Stopped {
            return Err(Refusal::too_large("resume", too_long));
        }
        if word != Word::Stopped && self.happenings.len() >= HAPPENINGS_MAX {
            return Err(Refusal::busy());
        }
        let Some(token) = answer.token else {
            return self.hear_of_prepared(name, word, reason.as_deref(), now);
        };
        if word == Word::Stopped && self.leftovers.get(&token).is_some_and(|leftover| leftover.name == *name) {
            self.leftovers.remove(&token);
            return Ok(());
        }
        let known = self.tokens.get(&token).cloned();
        let is_known =
            |id: &Id| self.entries.get(id).is_some_and(|entry| name_of(&entry.task) == *name && was_told(entry));
        let Some(id) = known.filter(is_known) else {
            return Err(Refusal::unknown(
                "token",
                format!("{name} does not run under {token} here: stop it, if you have not"),
            ));
        };
        match word {
            Word::Prepared => return Err(Refusal::bad("token", format!("{name} was started; answer `started`"))),
            Word::Started | Word::Tick => self.happen(&id, Happening::Works),
            Word::Resume => {
                let missing = || Refusal::bad("resume", "is missing: any JSON from which a successor goes on".into());
                self.happen(&id, Happening::Resume(resume.ok_or_else(missing)?));
            }
            Word::Failed => {
                let missing = || Refusal::bad("reason", "is missing: `Reason: a sentence`".into());
                self.happen(&id, Happening::Failed(reason.ok_or_else(missing)?));
            }
            Word::Stopped => {
                // Its end counts, with any text.
                if is_too_long {
                    self.happen(&id, Happening::Failed(format!("ResumeTooLong: its last resume value {too_long}")));
                } else if let Some(resume) = resume {
                    self.happen(&id, Happening::Resume(resume));
                }
                if let Some(reason) = reason {
                    self.happen(&id, Happening::Failed(reason));
                }
                let was_asked = matches!(&self.entries[&id].stage, Stage::Runs(run) if run.stop.is_some());
                self.end(&id, if was_asked { Cause::Stopped } else { Cause::Exited }, Proof::Application);
            }
        }
        Ok(())
    }

    fn hear_of_prepared(
        &mut self,
        name: &Name,
        word: Word,
        reason: Option<&str>,
        now: Boottime,
    ) -> Result<(), Refusal> {
        if !matches!(word, Word::Prepared | Word::Failed) {
            return Err(Refusal::bad("token", format!("is missing: that of the `start` of {name}")));
        }
        let ids = self.names.get(name).into_iter().flatten().cloned().collect::<Vec<_>>();
        let mut is_known = false;
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            match (&entry.stage, word) {
                (Stage::Prepared, Word::Prepared) => is_known = true,
                (Stage::Prepares { told: true }, Word::Prepared) => {
                    (entry.stage, is_known) = (Stage::Prepared, true);
                    self.happen(&id, Happening::Prepared);
                }
                (Stage::Prepares { told: true } | Stage::Prepared, _) => {
                    (entry.stage, is_known, self.is_stale) = (Stage::Rests(now.after(PREPARE_RETRY)), true, true);
                    let reason = reason.unwrap_or("it could not be prepared").to_owned();
                    self.happen(&id, Happening::Failed(reason));
                }
                _ => {}
            }
        }
        let unknown =
            || Refusal::unknown("listener", format!("{name} is not to be prepared here: drop what was prepared"));
        if is_known { Ok(()) } else { Err(unknown()) }
    }

    /// What holds for a listener that runs.
    ///
    /// # Errors
    /// It does not run here.
    pub fn fence(&self, name: &Name, now: Boottime) -> Result<wire::Fence, Refusal> {
        let ids = self.names.get(name).into_iter().flatten();
        let run = ids.filter_map(|id| self.entries.get(id)).find_map(|entry| match &entry.stage {
            Stage::Runs(run) if run.told => Some((entry.task.fence_token.clone(), run)),
            _ => None,
        });
        let Some((token, run)) = run else {
            return Err(Refusal::unknown("listener", format!("{name} does not run here: stop it, if you have not")));
        };
        let by = run.stop.map_or(self.told, |by| by.min(self.told));
        let mine = run.stop.is_none() && now.after(DROPS_BEFORE) < by;
        Ok(wire::Fence { token, mine, deadline: by.as_nanos(), milliseconds: millis(by, now) })
    }
}

fn was_told(entry: &Entry) -> bool {
    matches!(&entry.stage, Stage::Runs(run) if run.told)
}
