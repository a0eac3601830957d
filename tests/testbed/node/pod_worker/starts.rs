//! How containers begin.
use std::{sync::Arc, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Lifecycle, LifecycleHandler};

use super::{
    super::{
        container::{self, Outcome, Surroundings},
        events::Severity,
        hooks::Hook,
        model::{Health, PULL_ERROR, Waiting},
        process::Process,
    },
    Event, Run, Worker,
};

/// How long a failed pull is told as such before it is told as back-off: until the kubelet would
/// have looked at the Pod again.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// When a start that needs a person is tried again, as by the kubelet.
const RETRY: Duration = Duration::from_secs(10);

impl Worker {
    pub(super) fn start(&mut self, position: usize, now: Timestamp) {
        let Some(spec) = self.spec(position) else { return };
        let container = &mut self.containers[position];
        container.starting = true;
        let number = container.attempt.as_ref().map_or(0, |attempt| attempt.number + 1);
        let failed_at = container.end().map(|end| end.finished_at);
        if let Some(failed_at) = failed_at {
            container.crashes.advance(failed_at, now);
        }
        let surroundings = Surroundings {
            host: Arc::clone(&self.host),
            pod: Arc::clone(&self.order.pod),
            dir: self.dir.clone(),
            facts: self.facts(),
        };
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let outcome = surroundings.start(&spec, number).await;
            let _ = sender.send(Event::Attempted(position, outcome)).await;
        });
    }

    pub(super) fn attempted(&mut self, position: usize, outcome: Outcome) {
        let container = &mut self.containers[position];
        container.starting = false;
        container.health = Health::default();
        match outcome {
            Outcome::Attempted(attempt, process) => {
                let problem = attempt.end.as_ref().map(|end| end.message.clone().unwrap_or_default());
                container.not_before = None;
                container.resources.clone_from(&container.allocated);
                container.anew = false;
                container.previous = container.attempt.replace(attempt);
                container.waiting = problem.clone().map(|message| Waiting { reason: "RunContainerError", message });
                match (process, problem) {
                    (Some(process), _) => {
                        self.note(Some(position), Severity::Normal, "Started", "Container started");
                        self.attend(position, process);
                        self.begin(position);
                    }
                    (None, problem) => {
                        let message = format!("Error: {}", problem.unwrap_or_default());
                        self.note(Some(position), Severity::Warning, "Failed", &message);
                    }
                }
            }
            Outcome::Waiting(waiting) => self.not_attempted(position, waiting),
        }
    }

    fn not_attempted(&mut self, position: usize, waiting: Waiting) {
        let now = Timestamp::now();
        let container = &mut self.containers[position];
        let wait = if waiting.reason == PULL_ERROR {
            container.pulls.advance(now, now);
            container.pull_error_until = Some(now + PULL_ERROR_SHOWN);
            container.pulls.wait(now)
        } else {
            RETRY
        };
        container.not_before = Some(now + wait);
        let reason = if waiting.reason == "InvalidImageName" { waiting.reason } else { "Failed" };
        let message = format!("Error: {}: {}", waiting.reason, waiting.message);
        container.waiting = Some(waiting);
        self.note(Some(position), Severity::Warning, reason, &message);
    }

    /// Watches a container's process.
    pub(super) fn attend(&mut self, position: usize, process: Process) {
        let number = self.containers[position].restarts();
        let sender = self.sender.clone();
        self.runs[position] = Run { process: Some(process.clone()), deadline: None };
        tokio::spawn(async move {
            let end = process.end().await;
            let _ = sender.send(Event::Ended(position, number, end)).await;
        });
    }

    /// What follows the start of a process.
    fn begin(&mut self, position: usize) {
        let number = self.containers[position].restarts();
        let hook = self.hook(position, |lifecycle| lifecycle.post_start);
        let spec = self.spec(position).unwrap_or_default();
        self.containers[position].health = Health {
            hook_runs: hook.is_some(),
            started: spec.startup_probe.is_none(),
            ready: spec.readiness_probe.is_none(),
        };
        let Some(hook) = hook else {
            self.probe(position, Duration::ZERO);
            return;
        };
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let outcome = hook.run(Duration::MAX).await;
            let _ = sender.send(Event::Hooked(position, number, outcome)).await;
        });
    }

    pub(super) fn hooked(&mut self, position: usize, number: u32, outcome: Result<()>) {
        if !self.runs(position, number) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.containers[position].health.hook_runs = false;
                self.probe(position, Duration::ZERO);
            }
            Err(error) => {
                let message = format!("PostStartHook failed: {error:#}");
                self.note(Some(position), Severity::Warning, "FailedPostStartHook", &message);
                self.kill(position, "FailedPostStartHook", None);
            }
        }
    }

    /// One of a container's hooks.
    pub(super) fn hook(
        &self,
        position: usize,
        choose: impl FnOnce(Lifecycle) -> Option<LifecycleHandler>,
    ) -> Option<Hook> {
        let spec = self.spec(position)?;
        let handler = choose(spec.lifecycle.clone()?)?;
        let number = self.containers[position].attempt.as_ref()?.number;
        Some(Hook {
            handler,
            dir: self.dir.attempt(&spec.name, number),
            pod_ip: self.address,
            ports: container::named_ports(&spec),
        })
    }
}
