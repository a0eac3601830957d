//! Measured runs as Markdown.
use std::collections::BTreeMap;

use super::figures::{Case, Figures, Spread};

/// Runs by what was measured.
pub type Results = BTreeMap<Case, Vec<Figures>>;

type Column = (&'static str, fn(&Case, &Figures) -> f64, usize);

const COLUMNS: [Column; 10] = [
    ("time, s", |_, it| it.seconds, 1),
    ("writes per Pod", |case, it| it.writes_total() as f64 / case.pods as f64, 3),
    ("of these 409", |case, it| it.conflicts() as f64 / case.pods as f64, 3),
    ("controller CPU-ms per Pod", |case, it| it.controller_cpu_milliseconds / case.pods as f64, 2),
    ("its RSS, MiB: peak", |_, it| it.peak_mib, 0),
    ("afterwards", |_, it| it.resident_mib, 0),
    ("apiserver + etcd CPU-ms per Pod", control_plane, 1),
    ("fewest available", |_, it| it.extremes.fewest_available as f64, 0),
    ("most Pods", |_, it| it.extremes.most_live as f64, 0),
    ("with terminating ones", |_, it| it.extremes.most_with_terminating as f64, 0),
];

fn control_plane(case: &Case, it: &Figures) -> f64 {
    (it.apiserver_cpu_milliseconds + it.etcd_cpu_milliseconds) / case.pods as f64
}

/// Everything, one table for each number of Pods and time to readiness, then who wrote what.
pub fn markdown(results: &Results) -> String {
    let mut scenes: Vec<(usize, u32)> = results.keys().map(|case| (case.pods, case.ready_after_seconds)).collect();
    scenes.dedup();
    let scenes: Vec<String> = scenes.into_iter().map(|(pods, seconds)| scene(results, pods, seconds)).collect();
    format!("{}\n\nWho wrote what, per replaced Pod (median run by time):\n\n{}", scenes.join("\n\n"), split(results))
}

fn scene(results: &Results, pods: usize, ready_after_seconds: u32) -> String {
    let ready = if ready_after_seconds == 0 { "at once".into() } else { format!("after {ready_after_seconds} s") };
    let cases =
        || results.iter().filter(|(case, _)| (case.pods, case.ready_after_seconds) == (pods, ready_after_seconds));
    let fewest = cases().next().map_or(0, |(case, _)| case.fewest_allowed());
    let title =
        format!("**{pods} Pods, ready {ready}** (allowed: at least {fewest} available, at most {pods} Pods)\n\n");
    let head = COLUMNS.map(|(name, ..)| name);
    title + &rows("", &head, cases().map(|(case, runs)| (case.subject.to_string(), cells(case, runs))))
}

fn cells(case: &Case, runs: &[Figures]) -> Vec<String> {
    let cell = |(_, value, decimals): Column| {
        let spread = Spread::of(runs.iter().map(|run| value(case, run)));
        spread.map_or("?".into(), |spread| spread.text(decimals))
    };
    COLUMNS.map(cell).into()
}

fn split(results: &Results) -> String {
    let row = |(case, runs): (&Case, &Vec<Figures>)| {
        let mut by_time: Vec<&Figures> = runs.iter().collect();
        by_time.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let run = by_time.get(by_time.len() / 2)?;
        let mut writes: Vec<(&String, &u64)> = run.writes.iter().collect();
        writes.sort_by_key(|(what, count)| (std::cmp::Reverse(**count), (*what).clone()));
        let share = |count: u64| format!("{:.3}", count as f64 / case.pods as f64);
        let list: Vec<_> = writes.iter().map(|(what, count)| format!("{what} {}", share(**count))).collect();
        let Case { pods, ready_after_seconds, subject } = case;
        Some((subject.to_string(), vec![pods.to_string(), format!("{ready_after_seconds} s"), list.join(", ")]))
    };
    rows("", &["Pods", "ready after", "writes"], results.iter().filter_map(row))
}

/// A Markdown table; the first column is named by `corner`.
pub fn rows(corner: &str, head: &[&str], rows: impl Iterator<Item = (String, Vec<String>)>) -> String {
    let head = format!("| {corner} | {} |", head.join(" | "));
    let line = format!("|{}", "---|".repeat(head.matches(" |").count()));
    let rows = rows.map(|(name, cells)| format!("| {name} | {} |", cells.join(" | ")));
    [head, line].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

/// What the operator writes when there is nothing to do, and how quiet the machine was.
pub fn remarks(results: &Results) -> String {
    let idle: Vec<(f64, f64)> = results.values().flatten().filter_map(|run| run.idle_writes).collect();
    let spread = |pick: fn(&(f64, f64)) -> f64| Spread::of(idle.iter().map(pick)).map(|it| it.text(0));
    let idle = spread(|it| it.0).zip(spread(|it| it.1)).map(|(leases, others)| {
        format!("Idle afterwards, the operator writes {leases} times a minute to its Lease, and {others} times else.")
    });
    let foreign = Spread::of(results.values().flatten().map(|run| run.foreign_cores));
    let foreign =
        foreign.map(|it| format!("Other programs of the machine used {} of its cores meanwhile.", it.text(2)));
    idle.into_iter().chain(foreign).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::super::{census::Extremes, subject::Subject};
    use super::*;

    fn run(seconds: f64) -> Figures {
        Figures {
            seconds,
            pods_seconds: seconds,
            writes: [("create pods".to_owned(), 100), ("delete pods".to_owned(), 100), ("update x 409".to_owned(), 2)]
                .into(),
            controller_cpu_milliseconds: 70.0,
            apiserver_cpu_milliseconds: 600.0,
            etcd_cpu_milliseconds: 200.0,
            peak_mib: 20.0,
            resident_mib: 18.0,
            extremes: Extremes { fewest_available: 75, most_live: 100, most_with_terminating: 100, interrupted: false },
            idle_writes: Some((12.0, 0.0)),
            foreign_cores: 0.25,
        }
    }

    #[test]
    fn the_table_reads_well() {
        let case = Case { pods: 100, ready_after_seconds: 0, subject: Subject::Baton };
        let results: Results = [(case, vec![run(7.0), run(8.0), run(9.0)])].into();
        insta::assert_snapshot!(format!("{}\n\n{}\n", markdown(&results), remarks(&results)));
    }
}
