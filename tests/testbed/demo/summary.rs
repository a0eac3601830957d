//! What was measured, and whether it is good enough. Pure.
use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};

use super::{
    ledger::{Bounds, Observed},
    listeners::Listeners,
    writes::Writes,
};
use crate::{
    feed::ledger::FeedVerdict,
    load::tally::{Cause, Report},
};

/// So long after a process was killed requests may meet it: nobody can know earlier.
const AFTER_KILL: SignedDuration = SignedDuration::from_secs(3);
/// Seconds that may pass until a proxy's last request to the old version is counted.
const FAREWELL: SignedDuration = SignedDuration::from_secs(2);

/// One scene.
#[derive(Clone, Debug)]
pub struct Scene {
    pub title: String,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub bounds: Bounds,
    pub observed: Observed,
    /// A process that was killed during it.
    pub kill: Option<Kill>,
    /// By the operator, if the API server notes who writes.
    pub writes: Option<Writes>,
    /// A version that answers again from its beginning on.
    pub again: Option<&'static str>,
    /// A version that must not answer once the scene has ended, until another one has it again.
    pub gone: Option<&'static str>,
}

/// A process killed on purpose.
#[derive(Clone, Debug)]
pub struct Kill {
    pub pod: String,
    pub at: Timestamp,
    /// When its Pod was seen not ready.
    pub seen_at: Timestamp,
    /// When it was seen ready again.
    pub back_at: Timestamp,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Summary {
    pub scenes: Vec<Scene>,
    pub load: Report,
    pub listeners: Listeners,
    /// Versions that must have answered, and one that must not.
    pub good: Vec<&'static str>,
    pub broken: &'static str,
}

impl Summary {
    /// What is not as it must be; nothing means that the demo has passed.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for scene in &self.scenes {
            problems.extend(scene.observed.problems.iter().map(|problem| format!("{}: {problem}", scene.title)));
            problems.extend(self.stragglers(scene));
        }
        let counts = &self.load.counts;
        if counts.failed > 0 {
            problems.push(format!("{} requests failed: {}", counts.failed, causes(&self.load.failures_by_cause)));
        }
        let untimely = self.load.breaks.iter().filter(|it| it.retried && !self.is_excused(it.at)).count() as u64;
        if untimely > 0 {
            let seconds = AFTER_KILL.as_secs();
            problems.push(format!("{untimely} requests were tried twice outside the {seconds} s after the kill"));
        }
        if self.load.breaks_omitted > 0 {
            problems.push("too many broken connections to tell all their times".into());
        }
        for version in &self.good {
            if !counts.versions.contains_key(*version) {
                problems.push(format!("version {version} never answered"));
            }
        }
        if counts.versions.contains_key(self.broken) {
            problems.push(format!("version {} answered, although it cannot start", self.broken));
        }
        problems.extend(self.silence());
        problems.extend(self.listeners.problems());
        problems
    }

    /// Answers of a version that had gone.
    fn stragglers(&self, scene: &Scene) -> Option<String> {
        let gone = scene.gone?;
        let again = self.scenes.iter().filter(|later| later.began >= scene.ended && later.again == Some(gone));
        let until = again.map(|later| later.began).min().unwrap_or(Timestamp::MAX);
        let is_late = |at: Timestamp| at >= scene.ended + FAREWELL && at.as_second() < until.as_second();
        let late = self.load.seconds.iter().filter(|second| is_late(second.at));
        let answers: u64 = late.filter_map(|second| second.counts.versions.get(gone)).sum();
        (answers > 0).then(|| format!("{}: version {gone} gave {answers} answers after it had gone", scene.title))
    }

    /// The first whole second without a good answer: the load must not have paused.
    fn silence(&self) -> Option<String> {
        let (first, last) = (self.load.started_at.as_second() + 1, self.load.ended_at.as_second() - 1);
        let served = |second| self.load.seconds.iter().any(|it| it.at.as_second() == second && it.counts.ok > 0);
        let silent = (first..=last).find(|second| !served(*second))?;
        Some(format!("no request was answered in second {} of the load", silent - self.load.started_at.as_second()))
    }

    fn is_excused(&self, at: Timestamp) -> bool {
        let kills = self.scenes.iter().filter_map(|scene| scene.kill.as_ref());
        kills.into_iter().any(|kill| at >= kill.at && at.duration_since(kill.at) <= AFTER_KILL)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<36}{:>8}{:>10}{:>18}{:>17}{:>12}",
            "", "took", "new Pods", "fewest available", "most Pods", "API writes"
        )?;
        for scene in &self.scenes {
            let Scene { bounds, observed, .. } = scene;
            let allowed = |seen: usize, allowed: usize| format!("{seen} (allowed {allowed})");
            // One instance less is what the kill itself takes.
            let minimum = bounds.available_min - usize::from(scene.kill.is_some()).min(bounds.available_min);
            writeln!(
                out,
                "{:<36}{:>8}{:>10}{:>18}{:>17}{:>12}",
                scene.title,
                seconds(scene.ended.duration_since(scene.began)),
                observed.created,
                allowed(observed.lowest_available, minimum),
                allowed(observed.most_pods, bounds.pods_max),
                scene.writes.as_ref().map_or("?".into(), |writes| writes.values().sum::<u64>().to_string()),
            )?;
        }
        writeln!(out)?;
        self.write_writes(out)?;
        self.write_kills(out)?;
        self.write_load(out)?;
        self.write_listeners(out)
    }
}

impl Summary {
    fn write_writes(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(scene) = self.scenes.iter().find(|scene| scene.gone.is_some()) else { return Ok(()) };
        let Some(writes) = &scene.writes else {
            return writeln!(out, "API writes: not counted, the API server keeps no audit log beside the kubeconfig");
        };
        let instances = scene.observed.created.max(1) as f64;
        let list: Vec<_> = writes.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        writeln!(
            out,
            "API writes of the operator, by the API server's audit log, without leases: {:.1} per replaced instance\n  {}: {}",
            writes.values().sum::<u64>() as f64 / instances,
            scene.title,
            list.join(", "),
        )
    }

    fn write_kills(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kill in self.scenes.iter().filter_map(|scene| scene.kill.as_ref()) {
            let after = |at: Timestamp| seconds(at.duration_since(kill.at));
            let (seen, back) = (after(kill.seen_at), after(kill.back_at));
            writeln!(out, "SIGKILL of {}: seen after {seen}, back after {back}", kill.pod)?;
        }
        Ok(())
    }

    fn write_load(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { counts, latency, .. } = &self.load;
        let took = self.load.ended_at.duration_since(self.load.started_at);
        let rate = counts.sent as f64 / took.as_secs_f64().max(1.0);
        writeln!(
            out,
            "requests: {} sent in {} ({rate:.0}/s), {} failed, {} tried twice",
            counts.sent,
            seconds(took),
            counts.failed,
            counts.retried
        )?;
        for (cause, count) in &self.load.retries_by_cause {
            writeln!(out, "  tried twice, {cause}: {count}, {}", self.when(*cause))?;
        }
        if counts.failed > 0 {
            writeln!(out, "  failed: {}", causes(&self.load.failures_by_cause))?;
        }
        if self.load.skipped > 0 {
            writeln!(out, "  {} more were due, but this machine was too slow to send them in time", self.load.skipped)?;
        }
        let answers: Vec<_> = counts.versions.iter().map(|(version, count)| format!("{version}: {count}")).collect();
        writeln!(out, "  answers by version: {}", answers.join(", "))?;
        writeln!(
            out,
            "  latency: median {:.1} ms, 99 % {:.1} ms, 99.9 % {:.1} ms, longest {:.1} ms",
            latency.p50_milliseconds, latency.p99_milliseconds, latency.p999_milliseconds, latency.max_milliseconds
        )
    }

    fn write_listeners(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listeners { verdict, gaps, takeover, read_again, old_way } = &self.listeners;
        let sum = |of: fn(&FeedVerdict) -> u64| verdict.0.values().map(of).sum::<u64>();
        let (median, longest) = (gaps.get(gaps.len() / 2).unwrap_or(&0.0), gaps.last().unwrap_or(&0.0));
        writeln!(
            out,
            "listeners: {} messages of {} feeds read, {} lost or left out, {} read twice, {} read by two at once",
            sum(|feed| feed.position),
            verdict.0.len(),
            sum(|feed| feed.problems.len() as u64),
            sum(|feed| feed.duplicates),
            sum(|feed| feed.overlaps.len() as u64),
        )?;
        writeln!(
            out,
            "  {} planned moves: no feed was read for {median:.0} ms (median), {longest:.0} ms (longest), stop and start included",
            gaps.len()
        )?;
        writeln!(out, "  SIGKILL of an agent: others read what it had after {:.1} s", takeover.as_secs_f64())?;
        writeln!(
            out,
            "  feeds that store no position and heed no token, at the same kill: {read_again} messages read twice (at least once)"
        )?;
        let text = |gaps: &[f64]| {
            let seconds = |gap: Option<&f64>| format!("{:.1}", gap.unwrap_or(&0.0) / 1_000.0);
            format!("{} to {} s", seconds(gaps.first()), seconds(gaps.last()))
        };
        writeln!(
            out,
            "  the old way, imitated (locks: 30 s expiry, asked for every 5 s): replaced, not read for {}; killed, for {}",
            text(&old_way.replaced),
            text(&old_way.killed)
        )
    }

    /// When second tries of this cause happened: relative to the kill, else by scene.
    fn when(&self, cause: Cause) -> String {
        let times: Vec<_> =
            self.load.breaks.iter().filter(|it| it.retried && it.cause == cause).map(|it| it.at).collect();
        let kill = self.scenes.iter().find_map(|scene| scene.kill.as_ref());
        if let Some(kill) = kill
            && times.iter().all(|at| self.is_excused(*at))
            && let (Some(first), Some(last)) = (times.first(), times.last())
        {
            let after = |at: &Timestamp| seconds(at.duration_since(kill.at));
            let (first, last) = (after(first), after(last));
            let span = if first == last { last } else { format!("{first} to {last}") };
            return format!("{span} after the SIGKILL");
        }
        let scenes: Vec<_> = self
            .scenes
            .iter()
            .map(|scene| (times.iter().filter(|at| (scene.began..=scene.ended).contains(*at)).count(), &scene.title))
            .filter(|(count, _)| *count > 0)
            .map(|(count, title)| format!("{count} during {title}"))
            .collect();
        scenes.join(", ")
    }
}

fn causes(causes: &BTreeMap<Cause, u64>) -> String {
    causes.iter().map(|(cause, count)| format!("{count} × {cause}")).collect::<Vec<_>>().join(", ")
}

fn seconds(duration: SignedDuration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.1} s") }
}
