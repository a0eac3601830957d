//! What probes ask, and what follows from their answers.
use std::time::Duration;

use super::{
    super::{
        container,
        events::Severity,
        probe::{Answer, Prober, Purpose, Target},
    },
    Event, Worker,
};

impl Worker {
    /// Begins to probe a container: at first for its start only, if there is such a probe.
    /// `age`: how much of initialDelaySeconds is over.
    pub(super) fn probe(&mut self, position: usize, age: Duration) {
        if self.containers[position].health.started {
            self.ask(position, Purpose::Readiness, age);
            self.ask(position, Purpose::Liveness, age);
        } else {
            self.ask(position, Purpose::Startup, age);
        }
    }

    fn ask(&self, position: usize, purpose: Purpose, age: Duration) {
        let Some(spec) = self.spec(position) else { return };
        let Some(probe) = purpose.probe_of(&spec).cloned() else { return };
        let container = &self.containers[position];
        let (Some(attempt), Some(process)) = (&container.attempt, self.runs[position].process.clone()) else { return };
        let number = attempt.number;
        let target = Target {
            dir: self.dir.attempt(&spec.name, number),
            pod_ip: self.address,
            ports: container::named_ports(&spec),
            age,
        };
        let mut prober = Prober::new(probe, purpose, target);
        let sender = self.sender.clone();
        tokio::spawn(async move {
            loop {
                let answer = tokio::select! {
                    answer = prober.next() => answer,
                    _ = process.end() => return,
                };
                // Having succeeded once, a startup probe has done its work.
                let last = purpose == Purpose::Startup && answer.verdict == Some(true);
                let heard = sender.send(Event::Probed(position, number, purpose, answer)).await.is_ok();
                if last || !heard {
                    return;
                }
            }
        });
    }

    pub(super) fn probed(&mut self, position: usize, number: u32, purpose: Purpose, answer: &Answer) {
        // Only readiness matters to a container that is about to end.
        if !self.runs(position, number) || (self.containers[position].stopping && purpose != Purpose::Readiness) {
            return;
        }
        if let Some(problem) = &answer.problem {
            let message = format!("{purpose} probe failed: {problem}");
            self.note(Some(position), Severity::Warning, "Unhealthy", &message);
        }
        let health = &mut self.containers[position].health;
        match (purpose, answer.verdict) {
            (_, None) | (Purpose::Liveness, Some(true)) => {}
            (Purpose::Readiness, Some(ready)) => health.ready = ready,
            (Purpose::Startup, Some(true)) => {
                health.started = true;
                self.probe(position, Duration::ZERO);
            }
            (Purpose::Startup | Purpose::Liveness, Some(false)) => {
                let spec = self.spec(position).unwrap_or_default();
                let grace = purpose.probe_of(&spec).and_then(|probe| probe.termination_grace_period_seconds);
                let why = format!("failed {} probe, will be restarted", format!("{purpose}").to_lowercase());
                self.kill(position, &why, grace);
            }
        }
    }
}
