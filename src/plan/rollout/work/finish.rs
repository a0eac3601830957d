//! The last step: what comes before acts that end containers, what Pods say of themselves, and who is asked.
use super::{Planner, Work, exit, health, keep, reload, resize, says, soak};
use crate::plan::rollout::pod;

impl Planner<'_, '_, '_> {
    pub(super) fn finish(mut self) -> Work {
        let snapshot = self.view.snapshot;
        let exits = exit::walk(snapshot, &mut self.changes, self.alarm);
        if let Some(hold) = exit::hold(snapshot, &exits.handing_over) {
            self.note(hold);
        }
        if let Some(hold) = exit::draining(snapshot, &exits.draining) {
            self.note(hold);
        }
        let (mut leaving, mut changed) = (exits.handing_over, exits.changed);
        changed.extend(resize::asked_outside(snapshot, &self.changes));
        if self.alive.is_some() {
            // Nothing is handed to what is about to leave.
            leaving.extend(self.changes.iter().filter_map(exit::ended_by).map(str::to_owned));
        }
        self.changes.extend(says::in_service(snapshot, &changed));
        self.changes.extend(exits.gates);
        self.changes.extend(exits.asks);
        leaving.extend(changed);
        leaving.extend(pod::resize::interrupted(snapshot));
        let drained = says::drained(snapshot, &leaving, &self.changes);
        self.changes.extend(drained);
        resize::carry_on(snapshot, &mut self.changes, self.alarm);
        let told = reload::tell(snapshot, &self.changes, self.alarm);
        self.changes.extend(told);
        let asked = health::ask(self.view, &leaving, &self.changes, self.alarm);
        self.changes.extend(asked);
        let asked = soak::ask(self.view, self.alarm);
        self.changes.extend(asked);
        keep::keep(self.view, &mut self.changes, self.alarm);
        let (hold, aside, not_in_place) = (self.hold, self.aside, self.not_in_place);
        let (attempts, drained_late) = (self.attempts.remembered(), exits.late);
        Work { changes: self.changes, attempts, leaving, hold, aside, not_in_place, drained_late }
    }
}
