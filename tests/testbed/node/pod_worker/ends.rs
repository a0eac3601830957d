//! How containers end.
use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        container,
        events::Severity,
        lifecycle::Progress,
        model::{self, End, Health, Kind},
        process::Process,
        stop::{MINIMUM, Stop},
    },
    DEADLINE_EXCEEDED, Run, Worker,
};

const DEFAULT_GRACE_SECONDS: i64 = 30;

impl Worker {
    /// activeDeadlineSeconds: counted from the start of the Pod.
    pub(super) fn check_active_deadline(&mut self, now: Timestamp) {
        let spec = self.order.pod.spec.as_ref();
        let Some(seconds) = spec.and_then(|spec| spec.active_deadline_seconds) else { return };
        if self.halted() || self.progress() == Progress::Finished {
            return;
        }
        let deadline = self.start_time + Duration::from_secs(seconds.max(0) as u64);
        if deadline <= now {
            self.failure = Some(DEADLINE_EXCEEDED);
            self.note(None, Severity::Normal, DEADLINE_EXCEEDED.0, DEADLINE_EXCEEDED.1);
        } else {
            self.wake_at = Some(deadline);
        }
    }

    /// Sets when everything must have ended. A deletion may bring it forward; only the switch `keep-force-deleted`
    /// puts it off.
    pub(super) fn set_deadline(&mut self) {
        let deadline = if self.forced() { self.forced_deadline() } else { self.graceful_deadline() };
        self.deadline = Some(deadline);
        for sender in self.runs.iter().filter_map(|run| run.deadline.as_ref()) {
            sender.send_if_modified(|current| std::mem::replace(current, deadline) != deadline);
        }
    }

    fn graceful_deadline(&self) -> Instant {
        let grace = self.order.pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| self.grace_seconds());
        let deadline = Instant::now() + Duration::from_secs(grace.max(0) as u64);
        self.deadline.map_or(deadline, |earlier| earlier.min(deadline))
    }

    /// Fixed when the Pod is found to be deleted by force.
    fn forced_deadline(&mut self) -> Instant {
        let keep = *self.host.keep_force_deleted.borrow();
        let earlier = self.deadline;
        *self.forced_deadline.get_or_insert_with(|| {
            let deadline = Instant::now() + keep + MINIMUM;
            earlier.filter(|_| keep.is_zero()).map_or(deadline, |earlier| earlier.min(deadline))
        })
    }

    /// Deleted without a grace period: the object is gone or will be in a moment.
    fn forced(&self) -> bool {
        self.order.gone || self.order.pod.metadata.deletion_grace_period_seconds == Some(0)
    }

    fn grace_seconds(&self) -> i64 {
        let spec = self.order.pod.spec.as_ref();
        spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE_SECONDS)
    }

    /// Ends one container, which then is subject to the restart policy.
    pub(super) fn kill(&mut self, position: usize, why: &str, grace_seconds: Option<i64>) {
        if self.containers[position].stopping {
            return;
        }
        let message = format!("Container {} {why}", self.containers[position].name);
        self.note(Some(position), Severity::Normal, "Killing", &message);
        let grace = grace_seconds.unwrap_or_else(|| self.grace_seconds()).max(0) as u64;
        self.end(position, Instant::now() + Duration::from_secs(grace));
    }

    /// Ends one container for good.
    pub(super) fn stop(&mut self, position: usize, deadline: Instant) {
        let message = format!("Stopping container {}", self.containers[position].name);
        self.note(Some(position), Severity::Normal, "Killing", &message);
        self.end(position, deadline);
    }

    fn end(&mut self, position: usize, deadline: Instant) {
        let Some(process) = self.runs[position].process.clone() else { return };
        let after = match self.containers[position].kind {
            Kind::Sidecar if self.halted() => self.processes_after(position),
            _ => Vec::new(),
        };
        // A force-deleted Pod's hooks have no time to run.
        let in_time = deadline > Instant::now() && !self.forced();
        let hook = if in_time { self.hook(position, |lifecycle| lifecycle.pre_stop) } else { None };
        // What `keep-force-deleted` gives them comes before the end begins.
        let begin = self.forced_deadline.map(|forced| forced - MINIMUM);
        let (sender, deadline) = watch::channel(deadline);
        self.containers[position].stopping = true;
        self.runs[position].deadline = Some(sender);
        let stop = Stop { process, hook, deadline, after };
        let pod = Arc::clone(&self.order.pod);
        let host = Arc::clone(&self.host);
        tokio::spawn(async move {
            if let Some(begin) = begin {
                sleep_until(begin).await;
            }
            if let Err(error) = stop.run().await {
                let message = format!("PreStopHook failed: {error:#}");
                host.events.tell(&pod, None, Severity::Warning, "FailedPreStopHook", &message);
            }
        });
    }

    /// A sidecar ends after the main containers and after sidecars that started later.
    fn processes_after(&self, position: usize) -> Vec<Process> {
        self.runs[position + 1..].iter().filter_map(|run| run.process.clone()).collect()
    }

    pub(super) fn container_ended(&mut self, position: usize, number: u32, end: End) {
        let Some(spec) = self.spec(position) else { return };
        let container = &mut self.containers[position];
        let Some(attempt) = container.attempt.as_mut().filter(|attempt| attempt.number == number) else { return };
        tracing::debug!(
            "{}: container {} ended with {}",
            model::full_name(&self.order.pod),
            container.name,
            end.exit_code
        );
        attempt.end = Some(container::last_words(&self.dir, &spec, number, end));
        container.stopping = false;
        container.health = Health::default();
        self.runs[position] = Run::default();
    }
}
