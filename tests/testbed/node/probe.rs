//! Probes: asked again and again, told only when the verdict changes.
use std::{fmt, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Probe, TCPSocketAction};
use tokio::{
    net::TcpStream,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};

use super::{exec, http, store::AttemptDir};

/// A container without initialDelaySeconds gets this long before it must answer.
const FIRST_LIVENESS: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Purpose {
    pub fn probe_of(self, container: &ContainerSpec) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// One answer of a probe.
pub struct Answer {
    /// Nothing if the probe succeeded.
    pub problem: Option<String>,
    /// What counts, if this answer has changed it.
    pub verdict: Option<bool>,
}

/// A container that runs, as its probes see it.
pub struct Target {
    pub dir: AttemptDir,
    pub pod_ip: IpAddr,
    /// The container's named ports.
    pub ports: Vec<(String, u16)>,
    /// How much of initialDelaySeconds is over.
    pub age: Duration,
}

/// A probe of a container that runs.
pub struct Prober {
    probe: Probe,
    target: Target,
    begin: Instant,
    /// The pause before the next extra try, see [`Prober::next`].
    early: Option<Duration>,
    ticks: Interval,
    tally: Tally,
}

impl Prober {
    pub fn new(probe: Probe, purpose: Purpose, target: Target) -> Self {
        let delay = Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0) as u64);
        let period = Duration::from_secs(probe.period_seconds.unwrap_or(10).max(1) as u64);
        let begin = Instant::now() + delay.saturating_sub(target.age);
        let (early, first) = match purpose {
            Purpose::Startup | Purpose::Readiness => (Some(Duration::ZERO), begin + period),
            // No process listens from its first millisecond on.
            Purpose::Liveness => (None, begin.max(Instant::now() + period.min(FIRST_LIVENESS))),
        };
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { tally: Tally::of(&probe), probe, target, begin, early, ticks }
    }

    /// Probes when it is time to. Until its first success, and for one period at most, a container is
    /// probed for its start or readiness more often, and failures do not count: so it is ready early.
    pub async fn next(&mut self) -> Answer {
        sleep_until(self.begin).await;
        while let Some(pause) = self.early {
            tokio::select! {
                _ = self.ticks.tick() => {
                    self.early = None;
                    return self.counted().await;
                }
                () = sleep(pause) => {}
            }
            self.early = Some((pause * 2).max(SHORTEST_PAUSE));
            if self.ask().await.is_ok() {
                self.early = None;
                return Answer { problem: None, verdict: self.tally.count(true) };
            }
        }
        self.ticks.tick().await;
        self.counted().await
    }

    async fn counted(&mut self) -> Answer {
        let problem = self.ask().await.err().map(|error| format!("{error:#}"));
        let verdict = self.tally.count(problem.is_none());
        Answer { problem, verdict }
    }

    async fn ask(&self) -> Result<()> {
        let limit = Duration::from_secs(self.probe.timeout_seconds.unwrap_or(1).max(1) as u64);
        if let Some(action) = &self.probe.exec {
            let command = action.command.clone().unwrap_or_default();
            let output = exec::run(&self.target.dir, &command, limit).await?;
            ensure!(output.exit_code == 0, "{}", output.text.trim());
            return Ok(());
        }
        let ask = async {
            if let Some(action) = &self.probe.http_get {
                let target = http::Target::of(action, self.target.pod_ip, &self.target.ports)?;
                let answer = target.get().await.with_context(|| format!("Get {target}"))?;
                ensure!(answer.successful(), "{answer}");
            } else if let Some(action) = &self.probe.tcp_socket {
                self.connect(action).await?;
            } else {
                ensure!(self.probe.grpc.is_none(), "this node does not probe by gRPC");
            }
            Ok(())
        };
        timeout(limit, ask).await.context("context deadline exceeded (timeout while probing)")?
    }

    async fn connect(&self, action: &TCPSocketAction) -> Result<()> {
        let host =
            action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| self.target.pod_ip.to_string());
        let port = http::port(&action.port, &self.target.ports)?;
        TcpStream::connect((host.as_str(), port)).await.with_context(|| format!("dial tcp {host}:{port}"))?;
        Ok(())
    }
}

/// Counts equal answers in a row against the thresholds.
#[derive(Debug)]
struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    in_a_row: u32,
    verdict: Option<bool>,
}

impl Tally {
    fn of(probe: &Probe) -> Self {
        let threshold = |given: Option<i32>, default| given.map_or(default, |given| given.max(1) as u32);
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            in_a_row: 0,
            verdict: None,
        }
    }

    /// The verdict, if this answer changes it.
    fn count(&mut self, success: bool) -> Option<bool> {
        self.in_a_row = if self.last == Some(success) { self.in_a_row + 1 } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.in_a_row < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` and `-` are answers; the result shows each change of the verdict, `.` where there is none.
    fn verdicts(success_threshold: i32, failure_threshold: i32, answers: &str) -> String {
        let probe = Probe {
            success_threshold: Some(success_threshold),
            failure_threshold: Some(failure_threshold),
            ..Probe::default()
        };
        let mut tally = Tally::of(&probe);
        let symbol = |answer| match tally.count(answer == '+') {
            None => '.',
            Some(true) => '+',
            Some(false) => '-',
        };
        answers.chars().map(symbol).collect()
    }

    #[test]
    fn thresholds_count_equal_answers_in_a_row() {
        assert_eq!(verdicts(1, 3, "+--+---+"), "+.....-+");
        assert_eq!(verdicts(2, 1, "-+-++-"), "-...+-");
        assert_eq!(verdicts(1, 1, "++--"), "+.-.");
    }
}
