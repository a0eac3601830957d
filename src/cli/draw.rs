//! Views as text. Colours are escape sequences here; where they are not wanted, printing takes them out.
pub(super) mod history;
pub(super) mod list;

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use console::measure_text_width;
use jiff::Timestamp;

use crate::view::{
    Header, Node, Preview, RolloutView, SetHeader, SetView, Tone,
    age::age,
    instances::Instance,
    preview::{Action, Phase, PlannedHook, Way},
    tree::Thing,
};

/// Cells of the progress bar.
const BAR_CELLS: i64 = 12;
/// Where the second column of the header begins.
const HEADER_COLUMN: usize = 37;
/// A message longer than this gets lines of its own.
const MESSAGE_INLINE_MAX: usize = 60;
/// Columns of a line where no terminal says how wide it is.
const WIDTH_DEFAULT: usize = 120;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub wide: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
    pub now: Timestamp,
}

fn style(tone: Tone) -> Style {
    let color = match tone {
        Tone::Good => AnsiColor::Green,
        Tone::Bad => AnsiColor::Red,
        Tone::Working => AnsiColor::Blue,
        Tone::Waiting => AnsiColor::Yellow,
        Tone::Neutral => return Style::new().dimmed(),
    };
    Style::new().fg_color(Some(color.into()))
}

fn sign(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "✔",
        Tone::Bad => "✖",
        Tone::Working => "◌",
        Tone::Waiting => "◷",
        Tone::Neutral => "•",
    }
}

fn painted(tone: Tone, text: &str) -> String {
    let style = style(tone);
    format!("{style}{} {text}{style:#}", sign(tone))
}

fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(measure_text_width(text))))
}

/// Header and tree.
pub(super) fn rollout(view: &RolloutView, options: Options) -> Vec<String> {
    let mut lines = header(&view.header, options);
    lines.push(String::new());
    lines.extend(table(&view.tree, options));
    lines
}

fn header(header: &Header, options: Options) -> Vec<String> {
    let (first, rest) = titled(&header.name, header.tone, (&header.state, &header.message), options);
    let second = padded(&format!("Version:    {}", header.version), HEADER_COLUMN - 1);
    let done = progress((header.done, header.wanted), header.failed, header.eta_seconds);
    let mut lines = vec![first, format!("{second} {done}")];
    if options.wide {
        lines.push(format!("Images:     {}", header.images));
    }
    lines.extend(rest);
    lines
}

/// The first line of a header, and the message where that is too long for it.
fn titled(name: &str, tone: Tone, (state, message): (&str, &str), options: Options) -> (String, Vec<String>) {
    let inline = message.chars().count() <= MESSAGE_INLINE_MAX;
    let first = padded(&format!("Name:       {name}"), HEADER_COLUMN);
    let beside = if inline && !message.is_empty() { format!("   {message}") } else { String::new() };
    let rest = if inline { Vec::new() } else { paragraph("Message:", message, options) };
    (format!("{first}Status:  {}{beside}", painted(tone, state)), rest)
}

fn paragraph(title: &str, text: &str, options: Options) -> Vec<String> {
    let width = options.width.unwrap_or(WIDTH_DEFAULT).saturating_sub(12).max(20);
    let lines = wrap(text, width).into_iter().enumerate();
    lines.map(|(index, line)| format!("{:<12}{line}", if index == 0 { title } else { "" })).collect()
}

/// Header and tree.
pub(super) fn listener_set(view: &SetView, options: Options) -> Vec<String> {
    let header = &view.header;
    let (first, rest) = titled(&header.name, header.tone, (&header.state, &header.message), options);
    let holders = counted(i32::try_from(header.holders).unwrap_or(i32::MAX), "Pod");
    let second = padded(&format!("Holders:    {holders}"), HEADER_COLUMN - 1);
    let done = progress((header.running, header.wanted), header.failed, None);
    let mut lines = vec![first, format!("{second} {done}"), format!("Profile:    {:?}", header.profile)];
    if let Some(last) = &header.last_move {
        let ago = last.at.as_ref().map(|at| age(options.now.as_second() - at.0.as_second()));
        let moved = counted(last.count, "listener");
        let (median, most) = (last.gap_milliseconds_p50, last.gap_milliseconds_max);
        let ago = ago.map(|ago| format!(", {ago} ago")).unwrap_or_default();
        lines.push(format!("Last move:  {moved}, gaps {median} ms (median), {most} ms at most{ago}"));
    }
    lines.extend(rest);
    if !header.warning.is_empty() {
        lines.extend(paragraph("Warning:", &header.warning, options));
    }
    lines.push(String::new());
    // Where Pods run is no matter of the set's.
    lines.extend(table(&view.tree, Options { wide: false, ..options }));
    lines
}

/// One line for a log, as [`line`].
pub(super) fn set_line(header: &SetHeader) -> String {
    let done = format!("{}/{}", header.running, header.wanted);
    let words = [painted(header.tone, &header.state), done, header.message.clone()];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("  ")
}

/// `[████████░░░░] 6/10   1 failed   ETA 1m20s`.
fn progress((done, wanted): (i32, i32), failed: i32, eta_seconds: Option<i64>) -> String {
    let (done, wanted) = (i64::from(done), i64::from(wanted));
    let full = if wanted == 0 { BAR_CELLS } else { (done * BAR_CELLS / wanted).clamp(0, BAR_CELLS) };
    let bar = |cells: i64, cell: &str| cell.repeat(usize::try_from(cells).unwrap_or(0));
    let mut text = format!("[{}{}] {done}/{wanted}", bar(full, "█"), bar(BAR_CELLS - full, "░"));
    if failed > 0 {
        let style = style(Tone::Bad);
        let _ = write!(text, "   {style}{failed} failed{style:#}");
    }
    if let Some(seconds) = eta_seconds {
        let _ = write!(text, "   ETA {}", age(seconds));
    }
    text
}

/// Breaks at spaces; a word longer than a line keeps its line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| measure_text_width(line) + 1 + measure_text_width(word) <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A line for each, with what is wrong with it.
pub(super) fn instances(all: &[Instance], wide: bool) -> Vec<String> {
    let row = |cells: [&str; 8]| cells.into_iter().take(if wide { 8 } else { 6 }).map(str::to_owned).collect();
    let heading = row(["INSTANCE", "POD", "VERSION", "TARGET", "STATE", "REASON", "NODE", "IP"]);
    let of = |one: &Instance| {
        let [pod, version, target, node, ip] = [&one.pod, &one.version, &one.target_version, &one.node, &one.ip]
            .map(|text| text.as_deref().unwrap_or_default());
        row([&one.name, pod, version, target, one.state, &one.reason, node, ip])
    };
    columns(&[heading].into_iter().chain(all.iter().map(of)).collect::<Vec<_>>())
}

fn table(tree: &Node, options: Options) -> Vec<String> {
    let mut heading = vec!["NAME", "KIND", "STATUS", "AGE", "INFO"];
    if options.wide {
        heading.extend(["NODE", "IP"]);
    }
    let mut rows = vec![heading.into_iter().map(str::to_owned).collect()];
    rows.push(cells(tree, "⟳ ", options));
    branches(tree, "", options, &mut rows);
    columns(&rows)
}

fn branches(node: &Node, indent: &str, options: Options, rows: &mut Vec<Vec<String>>) {
    for (index, child) in node.children.iter().enumerate() {
        let last = index + 1 == node.children.len();
        let icon = match child.thing {
            Thing::Rollout | Thing::ListenerSet => "⟳ ",
            Thing::Revision => "# ",
            Thing::Batch | Thing::Others => " ",
            Thing::Pod | Thing::Instance => "□ ",
            Thing::Listener => "○ ",
            Thing::Hook => "⚙ ",
        };
        rows.push(cells(child, &format!("{indent}{}{icon}", if last { "└─" } else { "├─" }), options));
        let below =
            format!("{indent}{}{}", if last { "  " } else { "│ " }, if child.thing == Thing::Batch { " " } else { "" });
        branches(child, &below, options, rows);
    }
}

fn cells(node: &Node, before: &str, options: Options) -> Vec<String> {
    let kind = match node.thing {
        Thing::Rollout => "Rollout",
        Thing::Pod => "Pod",
        Thing::Instance => "Instance",
        Thing::ListenerSet => "ListenerSet",
        Thing::Listener => "Listener",
        Thing::Hook => "Hook",
        Thing::Revision | Thing::Batch | Thing::Others => "",
    };
    let status = node.tone.map_or_else(|| node.status.clone(), |tone| painted(tone, &node.status));
    let age = node.created.map(|created| age(options.now.as_second() - created.as_second())).unwrap_or_default();
    let mut cells = vec![format!("{before}{}", node.name), kind.into(), status, age, node.info.clone()];
    if options.wide {
        cells.extend([node.place.0.clone(), node.place.1.clone()]);
    }
    cells
}

/// Left-aligned, two spaces apart, without trailing spaces.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell)).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| padded(cell, *width)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// The same within so many columns, where a terminal has no more: the widest cells of these columns are cut short.
fn columns_within(rows: &[Vec<String>], width: Option<usize>, flexible: &[usize]) -> Vec<String> {
    /// Columns of a cell that are left at least.
    const CELL_MIN: usize = 9;
    let Some(width) = width else { return columns(rows) };
    let widest =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell)).max();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..count).map(|column| widest(column).unwrap_or(0)).collect();
    while widths.iter().map(|width| width + 2).sum::<usize>() > width + 2 {
        let widest =
            flexible.iter().copied().filter(|column| widths.get(*column).is_some_and(|width| *width > CELL_MIN));
        let Some(column) = widest.max_by_key(|column| widths[*column]) else { break };
        widths[column] -= 1;
    }
    let cut = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        cells.map(|(cell, width)| console::truncate_str(cell, *width, "…").into_owned()).collect::<Vec<_>>()
    };
    columns(&rows.iter().map(cut).collect::<Vec<_>>())
}

/// The line within a terminal of so many columns: broken at spaces, and what goes on stands below the last column of a table.
pub(super) fn folded(line: &str, width: Option<usize>) -> Vec<String> {
    /// Columns for what goes on, at least.
    const REST_MIN: usize = 20;
    let Some(width) = width.filter(|width| measure_text_width(line) > *width) else { return vec![line.to_owned()] };
    let table = line.trim_end().rfind("  ").map_or(0, |at| measure_text_width(&line[..at]) + 2);
    let indent = if table + REST_MIN <= width { table } else { 0 };
    let (head, rest) = line.split_at(if indent > 0 { line.trim_end().rfind("  ").map_or(0, |at| at + 2) } else { 0 });
    let lines = wrap(rest, width.saturating_sub(indent).max(1));
    let before = |index: usize| if index == 0 { head.to_owned() } else { " ".repeat(indent) };
    lines.into_iter().enumerate().map(|(index, line)| format!("{}{line}", before(index))).collect()
}

/// Text that a user has written: it draws nothing, and begins no line.
fn on_one_line(text: &str) -> String {
    let breaks = |letter: char| letter.is_whitespace() || letter.is_control();
    text.split(breaks).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// One line for a log: `10:00:05Z ◌ RollingOut  1.4.1 → 1.4.2  6/10  batch 2/3: …`, without the time.
pub(super) fn line(header: &Header) -> String {
    let done = format!("{}/{}", header.done, header.wanted);
    let words = [painted(header.tone, &header.state), header.version.clone(), done, header.message.clone()];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("  ")
}

/// What applying would do; `moves`: listeners that Pods hold which it interrupts.
pub(super) fn preview(name: &str, replicas: i32, preview: &Preview, moves: u32) -> Vec<String> {
    let from = preview.from.iter().filter(|version| **version != preview.to).cloned().collect::<Vec<_>>().join(", ");
    let way = if from.is_empty() { preview.to.clone() } else { format!("{from} → {}", preview.to) };
    let mut lines = vec![format!("Rollout {name}: {way}, {}", counted(replicas, "instance"))];
    lines.extend(preview.problems.iter().map(|problem| painted(Tone::Bad, problem)));
    if preview.is_empty() && preview.held.is_none() {
        lines.push("Nothing would change: no Pod is created, replaced or deleted.".into());
        return lines;
    }
    let later = |(field, at): &(&str, _)| format!("{field} lies ahead: what it asks for begins at {at}, not now.");
    lines.extend(preview.later.iter().map(later));
    if !preview.is_empty() {
        lines.push(String::new());
        lines.extend(columns(&phases(&preview.phases)));
        lines.push(String::new());
        lines.extend(order(preview, replicas));
        let ((available, available_min), (pods, pods_max)) = (preview.available, preview.pods);
        // A rollout that begins with fewer has that bound ahead of it.
        let bound = if available >= available_min { format!(" ({available_min} must be)") } else { String::new() };
        lines.push(format!(
            "On the way at least {available} instances are available{bound} and at most {pods} Pods exist ({pods_max} may),"
        ));
        lines.push("if every new Pod becomes ready.".into());
        lines.extend(preview.terms.iter().cloned());
        if moves > 0 {
            let moves = counted(i32::try_from(moves).unwrap_or(i32::MAX), "listener");
            lines.push(format!(
                "{moves} will be handed over: the Pods that hold them leave, or restart their containers."
            ));
        }
    }
    match &preview.held {
        Some(hold) if preview.is_empty() => lines.push(painted(Tone::Waiting, &format!("It waits: {}", hold.message))),
        Some(hold) => lines.push(painted(Tone::Waiting, &format!("Then it waits: {}", hold.message))),
        None if !preview.ends => lines.push(painted(Tone::Bad, "No end was found: please report this as a defect.")),
        None => {
            let others = if preview.pinned.is_empty() {
                String::new()
            } else {
                format!(", but for those that are pinned ({})", preview.pinned)
            };
            lines.push(painted(Tone::Good, &format!("Then every instance runs {}{others}.", preview.to)));
        }
    }
    lines
}

/// Why instances of one batch are replaced in two ways, where they are.
fn order(preview: &Preview, replicas: i32) -> Vec<String> {
    let has = |phase: &Phase, way| phase.actions.iter().any(|action| action.way == way);
    if !preview.phases.iter().any(|phase| has(phase, Way::Surge) && has(phase, Way::OldFirst)) {
        return Vec::new();
    }
    let (surge, unavailable) = (preview.pods.1 - replicas, replicas - preview.available.1);
    let first =
        format!("Within a batch the lowest instance comes first. While maxSurge ({surge}) has room, a new Pod starts");
    let then = format!(
        "beside the old one; while maxUnavailable ({unavailable}) has room, the old Pod of the next one leaves first."
    );
    vec![first, then, String::new()]
}

fn phases(phases: &[Phase]) -> Vec<Vec<String>> {
    let mut rows = vec![["BATCH", "WHAT", "INSTANCES", "VERSION", "HOW"].map(str::to_owned).to_vec()];
    for phase in phases {
        let batch = phase.batch.map(|(index, count)| format!("{index}/{count}")).unwrap_or_default();
        let is_before = |hook: &&PlannedHook| hook.is_before;
        let hooks_before = phase.hooks.iter().filter(is_before).count();
        for (index, hook) in phase.hooks.iter().filter(is_before).enumerate() {
            rows.push(hook_row(if index == 0 { &batch } else { "" }, hook));
        }
        for (index, action) in phase.actions.iter().enumerate() {
            let batch = if index == 0 && hooks_before == 0 { batch.clone() } else { String::new() };
            let instances = action.instances.to_string();
            rows.push(vec![batch, action.verb.into(), instances, action.version.clone(), how(action)]);
        }
        for (index, switch) in phase.switches.iter().enumerate() {
            let batch = if index == 0 && phase.actions.is_empty() { batch.clone() } else { String::new() };
            let (what, when) = match &switch.version {
                None => ("let go", "it selects Pods of any version again, before a Pod leaves"),
                Some(_) if switch.awaits_approval => ("switch", "when approved"),
                Some(_) => ("switch", "when all are available"),
            };
            let version = switch.version.clone().unwrap_or_else(|| "any".into());
            let what = [what.into(), format!("Service {}", switch.service), version, when.into()];
            rows.push([batch].into_iter().chain(what).collect());
        }
        for hook in phase.hooks.iter().filter(|hook| !hook.is_before) {
            rows.push(hook_row("", hook));
        }
        if let Some(pause) = &phase.pause {
            let pause = match pause.seconds {
                Some(seconds) => format!("pause {}", age(i64::from(seconds))),
                None => "pause until approved".into(),
            };
            let is_alone = phase.actions.is_empty() && phase.switches.is_empty();
            let batch = if is_alone { batch } else { String::new() };
            let when = match phase.batch {
                Some((0, _)) => "before any instance is changed",
                Some((index, count)) if index == count => "before the run is complete",
                _ => "",
            };
            rows.push([&batch, pause.as_str(), "", "", when].map(str::to_owned).to_vec());
        }
    }
    rows
}

fn hook_row(batch: &str, hook: &PlannedHook) -> Vec<String> {
    let most = age(i64::from(hook.timeout_seconds));
    let attempts = if hook.retries > 0 { format!(", {} attempts", hook.retries + 1) } else { String::new() };
    let failure = if hook.is_ignored { "a failure is ignored" } else { "a failure ends the run" };
    let how = format!("{}: at most {most}{attempts}; {failure}", hook.point);
    [batch, &format!("hook {}", hook.name), "", "", &how].map(str::to_owned).to_vec()
}

fn how(action: &Action) -> String {
    let how = match action.way {
        Way::Alone => "",
        Way::Surge => "the old Pod leaves when the new one is available",
        Way::OldFirst => "the old Pod leaves first",
        Way::InPlace => "in place: the Pod stays, its containers start anew",
        Way::Untouched => "in place: the Pod stays and runs on",
        Way::Resized => "in place: the Pod stays and runs on, with other resources",
        Way::Reloads => "in place: the Pod stays and runs on, its application is told to reload",
    };
    if action.why.is_empty() { how.to_owned() } else { format!("{how}; {}", action.why) }
}

fn counted(number: i32, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
