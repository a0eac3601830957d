//! What status must remember: run, opened batches, and the clock of the progress deadline.
mod begin;
mod clock;
mod conclude;
pub(super) mod hooks;
mod open;
pub(super) mod soak;

pub(super) use begin::begin_run;
pub(super) use clock::run_clock;
pub(super) use conclude::conclude;
pub(super) use open::open_batches;

use crate::{
    api::{RolloutStatus, hooks::HooksStatus, status::BatchStatus},
    plan::change::Memory,
};

impl Memory {
    /// What status remembers.
    pub fn of(status: Option<&RolloutStatus>) -> Self {
        let Some(status) = status else { return Self::default() };
        Self {
            run: status.run.unwrap_or(0),
            update: status.update_revision.clone(),
            stable: status.current_revision.clone(),
            effective: status.target_revision.clone(),
            batch: status.batch.clone().map(|batch| BatchStatus { updated: 0, ..batch }), // observed, not remembered
            failed: status.failed.clone(),
            attempts: status.attempts.clone(),
            hooks: status.hooks.clone().unwrap_or_default(),
            soak: status.soak.clone(),
            services: status.services.clone(),
        }
    }

    /// Writes it into a status; what is observed there stays.
    pub fn write(&self, status: &mut RolloutStatus) {
        status.run = (self.run > 0).then_some(self.run);
        status.update_revision.clone_from(&self.update);
        status.current_revision.clone_from(&self.stable);
        status.target_revision.clone_from(&self.effective);
        let updated = status.batch.as_ref().map_or(0, |batch| batch.updated);
        status.batch = self.batch.clone().map(|batch| BatchStatus { updated, ..batch });
        status.failed.clone_from(&self.failed);
        status.attempts.clone_from(&self.attempts);
        status.hooks = Some(self.hooks.clone()).filter(|hooks| *hooks != HooksStatus::default());
        status.soak.clone_from(&self.soak);
        status.services.clone_from(&self.services);
    }
}
