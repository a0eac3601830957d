//! README and docs: links lead somewhere, lines are short enough to read, and sentences name who does what.
use std::{collections::BTreeSet, path::Path};

use crate::sources::{self, Source};

/// Of a line of text; tables and code may be wider.
const COLUMNS_MAX: usize = 120;
/// A README is read before anything else.
const README_LINES_MAX: usize = 120;
/// They hide who does what: name the Pod, the operator, the person.
const VAGUE: &[&str] = &["nobody", "somebody", "whoever", "whatever"];
/// Mentions of them that are left in src, docs and README: of words that users or other programs have written.
const VAGUE_MAX: usize = 29;

fn pages() -> Vec<Source> {
    let is_page = |source: &Source| source.has_extension("md") && (source.is_in("docs") || !source.path.contains('/'));
    sources::all().into_iter().filter(is_page).collect()
}

/// Lines with their numbers from 1, without fenced code.
fn text_lines(page: &Source) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    page.text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

/// As GitHub makes them of headings.
fn anchors(page: &Source) -> BTreeSet<String> {
    let headings =
        text_lines(page).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| -> String {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// `](target)` of a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

#[test]
fn links_lead_to_files_and_headings_of_the_repository() {
    let pages = pages();
    let mut wrong = Vec::new();
    for page in &pages {
        let folder = Path::new(&page.path).parent().unwrap();
        for (number, target) in text_lines(page).flat_map(|(number, line)| links(line).map(move |link| (number, link)))
        {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { normal(&folder.join(file)) };
            let exists = sources::root().join(&path).exists();
            let has_anchor = || {
                let target = pages.iter().find(|other| other.path == path);
                target.is_none_or(|target| anchors(target).contains(anchor))
            };
            if !exists || (!anchor.is_empty() && !has_anchor()) {
                wrong.push(format!("{}:{number}: {target} leads nowhere", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap().split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn lines_are_short_enough_to_read() {
    let is_table = |line: &str| line.trim_start().starts_with('|');
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| page.path != "CHANGELOG.md") {
        let is_code = |line: &str| line.starts_with("    ");
        let long = text_lines(page)
            .filter(|(_, line)| line.chars().count() > COLUMNS_MAX && !is_table(line) && !is_code(line));
        wrong.extend(long.map(|(number, _)| format!("{}:{number}: longer than {COLUMNS_MAX} columns", page.path)));
    }
    let readme = sources::all().into_iter().find(|source| source.path == "README.md").unwrap();
    let lines = readme.text.lines().count();
    if lines > README_LINES_MAX {
        wrong.push(format!("README.md: {lines} lines, more than {README_LINES_MAX}: details belong into docs/"));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn sentences_name_who_does_what() {
    let is_read = |source: &Source| source.is_in("src") || source.is_in("docs") || source.path == "README.md";
    let has_vague = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| VAGUE.contains(&word.to_lowercase().as_str()))
    };
    let found: Vec<String> = sources::all()
        .iter()
        .filter(|source| is_read(source))
        .flat_map(|source| {
            let lines = source.text.lines().enumerate().filter(|(_, line)| has_vague(line));
            lines.map(|(index, line)| format!("{}:{}: {}", source.path, index + 1, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    assert!(found.len() <= VAGUE_MAX, "name the Pod, the operator or the person instead:\n{}\n", found.join("\n"));
}
