//! How a worker takes up a Pod that an earlier run of the node has had.
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use super::{
    super::{
        container,
        model::{Attempt, End, Health},
        process::unknown_end,
    },
    DEADLINE_EXCEEDED, Worker,
};

impl Worker {
    /// Takes up what the state folder and the API say of the containers.
    pub(super) async fn recover(&mut self) -> Result<()> {
        if self.settled() && self.status.reason.as_deref() == Some(DEADLINE_EXCEEDED.0) {
            self.failure = Some(DEADLINE_EXCEEDED);
        }
        for position in 0..self.containers.len() {
            let Some(spec) = self.spec(position) else { continue };
            let (attempt, previous, process) = container::recover(&self.dir, &spec).await?;
            let told = self.told(&spec.name).cloned();
            let settled = self.settled();
            let container = &mut self.containers[position];
            container.previous = previous;
            container.attempt = match (attempt, &told) {
                (Some(attempt), _) => Some(attempt),
                // The state folder has been lost, and the processes with it.
                (None, Some(told)) if !settled => lost(told),
                (None, _) => None,
            };
            let Some(process) = process else { continue };
            let same = |told: &&ContainerStatus| {
                told.container_id.as_ref() == container.attempt.as_ref().map(|attempt| &attempt.id)
            };
            let told = told.as_ref().filter(same);
            if let Some(resources) = told.and_then(|told| told.resources.clone()) {
                container.allocated.clone_from(&resources);
                container.resources = resources;
            }
            // The node may have died before it told anything; without a probe there is nothing to find out either.
            container.health = Health {
                hook_runs: false,
                started: spec.startup_probe.is_none() || told.is_some_and(|told| told.started == Some(true)),
                ready: spec.readiness_probe.is_none() || told.is_some_and(|told| told.ready),
            };
            let started_at = container.attempt.as_ref().map(|attempt| attempt.started_at);
            let age = started_at.and_then(|time| Duration::try_from(Timestamp::now().duration_since(time)).ok());
            self.attend(position, process);
            self.probe(position, age.unwrap_or_default());
        }
        Ok(())
    }

    /// What the API says of a container.
    fn told(&self, name: &str) -> Option<&ContainerStatus> {
        let mut told = self.status.init_container_statuses.iter().chain(&self.status.container_statuses).flatten();
        told.find(|told| told.name == name)
    }
}

/// A start that only the API knows of: it counts, and has ended.
fn lost(told: &ContainerStatus) -> Option<Attempt> {
    let state = told.state.clone().unwrap_or_default();
    let last = told.last_state.clone().unwrap_or_default();
    let terminated = state.terminated.or(last.terminated.filter(|_| state.running.is_none()));
    let started_at = match (&state.running, &terminated) {
        (Some(running), _) => running.started_at.clone(),
        (None, terminated) => terminated.as_ref().and_then(|terminated| terminated.started_at.clone()),
    };
    Some(Attempt {
        number: told.restart_count.max(0) as u32,
        id: told.container_id.clone()?,
        image: told.image.clone(),
        image_id: told.image_id.clone(),
        started_at: started_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        end: Some(terminated.map_or_else(unknown_end, end)),
    })
}

fn end(terminated: ContainerStateTerminated) -> End {
    End {
        exit_code: terminated.exit_code,
        signal: terminated.signal,
        reason: terminated.reason.unwrap_or_default(),
        message: terminated.message,
        finished_at: terminated.finished_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    }
}
