//! What was found, in lines for people.
use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{end::End, run::Outcome};

/// Problems of one run that are printed.
const LINES_MAX: usize = 40;

/// Golden runs, and all that is held against them.
pub struct Report {
    writes_min: usize,
    writes_max: usize,
    /// Writes of a golden run by what they write, names left out.
    kinds: BTreeMap<String, usize>,
    end: End,
    took: Duration,
    began: Instant,
    /// By fault: runs, and those whose write never came.
    done: BTreeMap<String, (usize, usize)>,
    failed: Vec<String>,
    lowest_available: usize,
    most_pods: usize,
}

impl Report {
    /// Golden runs must agree.
    pub fn golden(golden: &[Outcome]) -> Result<Self> {
        for run in golden {
            ensure!(run.problems.is_empty(), "without any fault: {}", run.problems.join("\n"));
            let difference = golden[0].end.difference(&run.end);
            ensure!(difference.is_empty(), "two runs without faults end differently:\n{}", difference.join("\n"));
        }
        let longest = golden.iter().max_by_key(|run| run.writes.len());
        let mut kinds = BTreeMap::new();
        for write in longest.iter().flat_map(|run| &run.writes) {
            let what: Vec<_> = write.what.split(' ').take(2).collect();
            let dry = if write.what.ends_with("(dry run)") { " (dry run)" } else { "" };
            *kinds.entry(what.join(" ") + dry).or_default() += 1;
        }
        Ok(Self {
            writes_min: golden.iter().map(|run| run.writes.len()).min().unwrap_or(0),
            writes_max: longest.map_or(0, |run| run.writes.len()),
            kinds,
            end: golden.first().map(|run| run.end.clone()).unwrap_or_default(),
            took: golden.iter().map(|run| run.took).max().unwrap_or_default(),
            began: Instant::now(),
            done: BTreeMap::new(),
            failed: Vec::new(),
            lowest_available: golden.iter().map(|run| run.lowest_available).min().unwrap_or(0),
            most_pods: golden.iter().map(|run| run.most_pods).max().unwrap_or(0),
        })
    }

    pub fn writes_max(&self) -> usize {
        self.writes_max
    }

    /// Judges a run, and tells what is wrong with it.
    pub fn take(&mut self, run: &Outcome) {
        let Some(point) = run.point else { return };
        let (runs, missed) = self.done.entry(point.fault.to_string()).or_default();
        *runs += 1;
        *missed += usize::from(!run.struck);
        let mut problems = run.problems.clone();
        self.lowest_available = self.lowest_available.min(run.lowest_available);
        self.most_pods = self.most_pods.max(run.most_pods);
        if problems.is_empty() {
            problems = self.end.difference(&run.end);
        }
        let what = run.writes.get(point.write - 1).map_or("never came", |write| &*write.what);
        let verdict = if problems.is_empty() { "✔" } else { "✖" };
        println!("{verdict} {point} ({what}), {:.0} s", run.took.as_secs_f32());
        if !problems.is_empty() {
            let lines = problems.iter().flat_map(|problem| problem.lines()).take(LINES_MAX);
            lines.for_each(|line| println!("    {line}"));
            println!("    logs in {}; again: make crash POINT={point}", run.folder.display());
            self.failed.push(point.to_string());
        }
    }

    pub fn held(&self) -> bool {
        self.failed.is_empty() && self.done.values().any(|(runs, missed)| runs > missed)
    }

    pub fn summary(&self) -> String {
        let runs: usize = self.done.values().map(|(runs, _)| runs).sum();
        let faults: Vec<_> = self
            .done
            .iter()
            .map(|(fault, (runs, missed))| match missed {
                0 => format!("{fault} {runs}"),
                missed => format!("{fault} {runs} (the write never came in {missed})"),
            })
            .collect();
        let verdict = match self.failed.len() {
            0 if self.held() => "the same end each time, no bound broken".to_owned(),
            0 => "no fault has happened".to_owned(),
            failed => format!("{failed} failed: {}", self.failed.join(" ")),
        };
        format!(
            "N = {}; {runs} points: {}; fewest available {}, most Pods {}; took {} s\n{} {verdict}",
            self.writes_max,
            faults.join(", "),
            self.lowest_available,
            self.most_pods,
            self.began.elapsed().as_secs(),
            if self.held() { "✔" } else { "✖" },
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        write!(
            out,
            "without faults: {} to {} writes, Lease renewals left out, in {} s; N = {}: {}",
            self.writes_min,
            self.writes_max,
            self.took.as_secs(),
            self.writes_max,
            kinds.join(", ")
        )
    }
}
