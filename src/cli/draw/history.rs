//! Revisions, and what was done, as text.
use jiff::Timestamp;

use super::{Options, columns_within, on_one_line};
use crate::{
    api::{Time, hooks::Backup, status::HistoryEntry},
    snapshot::Ranges,
    view::{
        age::age,
        history::{History, Record},
    },
};

/// Columns of a cell that people or a registry write. `--revision` and `-o json` have all of it.
const CELL_MAX: usize = 60;
/// Columns of instance numbers.
const INSTANCES_MAX: usize = 24;

/// A line for each revision, and a line for each thing that was done.
pub(in crate::cli) fn history(name: &str, history: &History, options: Options) -> Vec<String> {
    if history.revisions.is_empty() {
        return vec![format!("rollout.baton.dev/{name} has no revision yet")];
    }
    let mut lines = vec![format!("rollout.baton.dev/{name}")];
    lines.extend(revisions(&history.revisions, options));
    if !history.changes.is_empty() {
        lines.push(String::new());
        lines.extend(changes(&history.changes, options));
    }
    lines
}

fn revisions(all: &[Record], options: Options) -> Vec<String> {
    let mut heading = vec!["REVISION", "VERSION", "STATE", "RUNNING", "AGE", "IMAGES"];
    let has_packages = all.iter().any(|record| record.package.is_some());
    heading.extend(has_packages.then_some("PACKAGE"));
    let has_backups = all.iter().any(|record| record.backup.is_some());
    heading.extend(has_backups.then_some("BACKUP"));
    heading.push("CHANGE-CAUSE");
    if options.wide {
        heading.extend(["NAME", "COMPLETED"]);
    }
    let row = |record: &Record| {
        let images = record.images.iter().map(|image| base(&image.image)).collect::<Vec<_>>().join(",");
        let mut row = vec![
            record.revision.to_string(),
            cell(&record.version),
            record.state.join(", "),
            record.instance_count.to_string(),
            since(record.created_at, options.now),
            cell(&images),
        ];
        row.extend(has_packages.then(|| cell(base(source(record).unwrap_or_default()))));
        let backup = record.backup.as_deref().and_then(Backup::id_of);
        row.extend(has_backups.then(|| cell(backup.unwrap_or("<none>"))));
        row.push(record.change_cause.as_deref().map_or_else(|| "<none>".into(), cell));
        if options.wide {
            row.extend([record.name.clone(), since(record.completed_at, options.now)]);
        }
        row
    };
    let heading = heading.into_iter().map(str::to_owned).collect();
    // VERSION, and from IMAGES on.
    let flexible: Vec<usize> =
        [1].into_iter().chain(5..7 + usize::from(has_packages) + usize::from(has_backups)).collect();
    columns_within(&[heading].into_iter().chain(all.iter().map(row)).collect::<Vec<_>>(), limit(options), &flexible)
}

/// Columns that there are; wide is as wide as it is.
fn limit(options: Options) -> Option<usize> {
    options.width.filter(|_| !options.wide)
}

fn changes(all: &[HistoryEntry], options: Options) -> Vec<String> {
    let mut heading = vec!["RUN", "CHANGE", "VERSION", "INSTANCES", "RESULT", "TOOK", "BY", "REASON"];
    if options.wide {
        heading.extend(["REVISION", "AGE"]);
    }
    let row = |entry: &HistoryEntry| {
        let version = match entry.from_version.as_str() {
            "" => entry.version.clone(),
            from => format!("{from} → {}", entry.version),
        };
        let instances = instances(entry);
        let [begun, ended] = [&entry.started_at, &entry.completed_at].map(|at| at.as_ref().map(|Time(at)| *at));
        let reason = entry.reason.as_deref().unwrap_or_default();
        let mut row = vec![
            entry.run.to_string(),
            entry.kind.clone(),
            cell(&version),
            instances,
            entry.result.clone(),
            since(begun, ended.unwrap_or(options.now)), // so far, while it is under way
            cell(entry.by.as_deref().unwrap_or_default()),
            if options.wide { on_one_line(reason) } else { cell(reason) },
        ];
        if options.wide {
            row.extend([entry.revision.clone(), since(begun, options.now)]);
        }
        row
    };
    let heading = heading.into_iter().map(str::to_owned).collect();
    // VERSION, INSTANCES, BY and REASON.
    columns_within(&[heading].into_iter().chain(all.iter().map(row)).collect::<Vec<_>>(), limit(options), &[2, 3, 6, 7])
}

/// Which instances, or which pauses.
fn instances(entry: &HistoryEntry) -> String {
    match entry.batch {
        Some(-1) => "all batches".into(),
        Some(batch) => format!("batch {batch}"),
        None if entry.instances.is_empty() => "all".into(),
        None => numbers(&entry.instances),
    }
}

/// Everything about one revision, as `kubectl describe` lists it; the template as YAML.
pub(in crate::cli) fn record(name: &str, record: &Record, template: &str, now: Timestamp) -> Vec<String> {
    let moment = |at: Option<Timestamp>| at.map(|at| format!("{at} ({} ago)", since(Some(at), now)));
    let failed = moment(record.failed_at).map(|at| match &record.failed_reason {
        Some(reason) => format!("{at}, {}", on_one_line(reason)),
        None => at,
    });
    let instances = match record.instance_count {
        0 => "none".to_owned(),
        count => format!("{} ({count} in all)", record.instances),
    };
    let package = record.package.as_ref().zip(source(record)).map(|(package, source)| {
        let noted = record.package_sha256.as_deref().map(|noted| format!(", fetched with SHA-256 {noted}"));
        format!("{source} at {}{}", package.mount_path, noted.unwrap_or_default())
    });
    let mut fields = vec![
        ("Name:", Some(record.name.clone())),
        ("Version:", Some(record.version.clone())),
        ("State:", Some(record.state.join(", ")).filter(|state| !state.is_empty())),
        ("Instances:", Some(instances)),
        ("Change cause:", Some(record.change_cause.as_deref().map_or_else(|| "<none>".into(), on_one_line))),
        ("Created:", moment(record.created_at)),
        ("Completed:", moment(record.completed_at)),
        ("Failed:", failed),
        ("Package:", package),
    ];
    fields.extend(record.images.iter().map(|image| {
        let ran = image.digest.as_deref().map(|digest| format!(", ran as {digest}")).unwrap_or_default();
        ("Image:", Some(format!("{} ({}){ran}", image.image, image.container)))
    }));
    let fields = fields.into_iter().filter_map(|(field, value)| Some(format!("{field:<14}{}", value?)));
    let mut lines = vec![format!("rollout.baton.dev/{name} with revision #{}", record.revision)];
    lines.extend(fields);
    lines.push("Template:".into());
    lines.extend(template.lines().map(|line| format!("  {line}")));
    lines
}

/// Where its package is from.
fn source(record: &Record) -> Option<&str> {
    record.package.as_ref().and_then(|package| package.url.as_deref().or(package.image.as_deref()))
}

/// `registry.example.com/team/web:1.4` → `web:1.4`.
fn base(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

fn since(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map(|at| age(now.as_second() - at.as_second())).unwrap_or_default()
}

fn numbers(instances: &str) -> String {
    let short = Ranges::parse(instances).within(INSTANCES_MAX);
    if short.len() < instances.len() { short + ",…" } else { short }
}

fn cell(text: &str) -> String {
    console::truncate_str(&on_one_line(text), CELL_MAX, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::rollout::tests::fixture::at, view::history::tests::past};

    fn look(history: &History, wide: bool) -> String {
        super::history("web", history, Options { wide, width: None, now: at(0) }).join("\n")
    }

    /// With a cause of any length and text, a revision has one line.
    #[test]
    fn the_past_is_told_in_lines() {
        let past = crate::view::history::history(&past());
        insta::assert_snapshot!("history", look(&past, false));
        insta::assert_snapshot!("history_wide", look(&past, true));
    }

    /// On a terminal of 80 columns no line is wrapped in the middle of a word.
    #[test]
    fn the_past_fits_a_terminal() {
        let past = crate::view::history::history(&past());
        let narrow = super::history("web", &past, Options { wide: false, width: Some(80), now: at(0) });
        assert!(narrow.iter().all(|line| console::measure_text_width(line) <= 80), "{}", narrow.join("\n"));
        insta::assert_snapshot!("history_narrow", narrow.join("\n"));
    }

    #[test]
    fn without_packages_there_is_no_column_for_them() {
        let mut past = crate::view::history::history(&past());
        past.revisions.remove(1);
        past.changes.clear();
        let expected = "\
rollout.baton.dev/web
REVISION  VERSION  STATE     RUNNING  AGE  IMAGES  CHANGE-CAUSE
1         a        stable    2        10d  web:1   deploy-1 by ann: first
9         b        updating  2        5m   web:1   <none>";
        assert_eq!(look(&past, false), expected);
        past.revisions.clear();
        assert_eq!(look(&past, false), "rollout.baton.dev/web has no revision yet");
    }

    #[test]
    fn one_revision_is_told_in_full() {
        let snapshot = past();
        let all = crate::view::history::history(&snapshot).revisions;
        let told = [&all[1], &all[2]].map(|one| record("web", one, "spec:\n  hostname: web\n", at(0)).join("\n"));
        insta::assert_snapshot!("history_revision", told.join("\n\n"));
    }

    #[test]
    fn an_image_is_told_by_its_last_part() {
        assert_eq!(base("registry.example.com:5000/team/web:1.4"), "web:1.4");
        assert_eq!(base("web"), "web");
    }
}
