//! Every kind we touch, every verb that somebody of ours uses on it, every way in which that can go.
mod ways;

use std::fmt::Write as _;

use futures::{StreamExt, stream};

use super::{
    Servers,
    not_compared::NOT_ASKED,
    side::{Answer, Side, difference},
    step::Step,
};
use crate::fake_apiserver::{
    faults::Verb,
    kinds::{CONTROLLER_REVISIONS, EVENTS, Kind, LEASES, NODES, PODS, ROLLOUTS},
};

/// Kind, verb, subresource: what the operator's role, the plugin and a user with kubectl need.
const ROWS: &[(&Kind, Verb, &str)] = &[
    (&PODS, Verb::Get, ""),
    (&PODS, Verb::List, ""),
    (&PODS, Verb::Watch, ""),
    (&PODS, Verb::Create, ""),
    (&PODS, Verb::Patch, ""),
    (&PODS, Verb::Patch, "status"),
    (&PODS, Verb::Delete, ""),
    (&NODES, Verb::List, ""),
    (&NODES, Verb::Watch, ""),
    (&ROLLOUTS, Verb::Get, ""),
    (&ROLLOUTS, Verb::List, ""),
    (&ROLLOUTS, Verb::Watch, ""),
    (&ROLLOUTS, Verb::Create, ""),
    (&ROLLOUTS, Verb::Update, ""),
    (&ROLLOUTS, Verb::Patch, ""),
    (&ROLLOUTS, Verb::Update, "status"),
    (&ROLLOUTS, Verb::Get, "scale"),
    (&ROLLOUTS, Verb::Update, "scale"),
    (&ROLLOUTS, Verb::Patch, "scale"),
    (&ROLLOUTS, Verb::Delete, ""),
    (&CONTROLLER_REVISIONS, Verb::Get, ""),
    (&CONTROLLER_REVISIONS, Verb::List, ""),
    (&CONTROLLER_REVISIONS, Verb::Watch, ""),
    (&CONTROLLER_REVISIONS, Verb::Create, ""),
    (&CONTROLLER_REVISIONS, Verb::Patch, ""),
    (&CONTROLLER_REVISIONS, Verb::Delete, ""),
    (&LEASES, Verb::Get, ""),
    (&LEASES, Verb::List, ""),
    (&LEASES, Verb::Watch, ""),
    (&LEASES, Verb::Create, ""),
    (&LEASES, Verb::Update, ""),
    (&LEASES, Verb::Delete, ""),
    (&EVENTS, Verb::Create, ""),
];

/// How it can go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Ok,
    /// The object, or for a create the namespace, is not there.
    Missing,
    /// The name is taken.
    Taken,
    /// The resourceVersion in the request is not the latest.
    Stale,
    /// The uid in the request is another's.
    WrongUid,
    /// It makes no sense.
    Invalid,
    DryRun,
    /// The server makes the name up.
    GeneratedName,
    /// What it begins from is compacted.
    Gone,
}

const WAYS: [(Way, &str); 9] = [
    (Way::Ok, "ok"),
    (Way::Missing, "missing"),
    (Way::Taken, "taken"),
    (Way::Stale, "stale version"),
    (Way::WrongUid, "wrong uid"),
    (Way::Invalid, "invalid"),
    (Way::DryRun, "dry run"),
    (Way::GeneratedName, "generated name"),
    (Way::Gone, "410"),
];

/// What both answered to a cell, step by step.
struct Cell {
    row: usize,
    way: usize,
    steps: Vec<Step>,
    fake: Vec<Answer>,
    real: Vec<Answer>,
}

impl Cell {
    /// As in the table.
    fn short(&self) -> String {
        let shown = self.steps.len() - if WAYS[self.way].0 == Way::DryRun { 2 } else { 1 };
        let (fake, real) = (self.fake[shown].short(), self.real[shown].short());
        match (fake == real, self.fake == self.real) {
            (true, true) => real,
            (true, false) => format!("{real} (differs)"),
            (false, _) => format!("{fake} (real: {real})"),
        }
    }

    /// Sends the steps before or after both forget.
    async fn ask(&mut self, sides: &mut [Side; 2], is_after_compaction: bool) {
        let [fake, real] = sides;
        for step in self.steps.iter().filter(|step| step.is_after_compaction == is_after_compaction) {
            self.fake.push(fake.take(step).await);
            self.real.push(real.take(step).await);
        }
    }
}

/// A cell before anything is asked.
type Plan = (usize, usize, Vec<Step>);

/// A cell up to where both servers forget, if they do.
async fn begin(servers: &Servers, (row, way, steps): Plan) -> (Cell, [Side; 2]) {
    let mut sides = servers.sides(&format!("matrix-{row}-{way}")).await;
    let is_elsewhere = WAYS[way].0 == Way::Missing && ROWS[row].1 == Verb::Create;
    if is_elsewhere {
        for side in &mut sides {
            "nowhere".clone_into(&mut side.namespace);
        }
    }
    let mut cell = Cell { row, way, steps, fake: Vec::new(), real: Vec::new() };
    cell.ask(&mut sides, false).await;
    (cell, sides)
}

/// Cells in which both servers forget. They do so once, between what all cells ask before and what they ask then.
async fn gone(plans: Vec<Plan>) -> Vec<Cell> {
    let (mut servers, cluster) = Servers::start_apart("compaction").await;
    let begun = plans.into_iter().map(|plan| begin(&servers, plan));
    let mut begun = futures::future::join_all(begun).await;
    servers.compact(&cluster, begun.iter_mut().flat_map(|(_, sides)| sides)).await;
    let rest = begun.into_iter().map(|(mut cell, mut sides)| async move {
        cell.ask(&mut sides, true).await;
        cell
    });
    futures::future::join_all(rest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix() {
    let servers = Servers::start().await;
    let numbered = |row: usize| (0..WAYS.len()).map(move |way| (row, way));
    let cells = (0..ROWS.len()).flat_map(numbered).filter_map(|(row, way)| {
        let (kind, verb, subresource) = ROWS[row];
        ways::steps(kind, verb, subresource, WAYS[way].0).map(|steps| (row, way, steps))
    });
    let (plans_of_gone, plans): (Vec<Plan>, Vec<Plan>) = cells.partition(|(_, way, _)| WAYS[*way].0 == Way::Gone);
    let cells = stream::iter(plans).map(|plan| begin(&servers, plan)).buffer_unordered(8).map(|(cell, _)| cell);
    let (mut cells, gone): (Vec<Cell>, _) = futures::join!(cells.collect(), gone(plans_of_gone));
    cells.extend(gone);
    cells.sort_by_key(|cell| (cell.row, cell.way));
    let mut wrong = String::new();
    for cell in cells.iter().filter(|cell| cell.fake != cell.real) {
        let (kind, verb, subresource) = ROWS[cell.row];
        let _ = writeln!(wrong, "\n{} {} {subresource} {}:", kind.resource, verb.as_str(), WAYS[cell.way].1);
        for ((step, fake), real) in cell.steps.iter().zip(&cell.fake).zip(&cell.real).filter(|((_, f), r)| f != r) {
            let _ = writeln!(wrong, "  {step}\n  {}", difference(fake, real));
        }
    }
    let table = table(&cells);
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong}");
    insta::assert_snapshot!(table);
}

/// Kinds and verbs down, ways across.
fn table(cells: &[Cell]) -> String {
    let mut rows = vec![
        [String::new(), String::new()].into_iter().chain(WAYS.map(|(_, name)| name.to_owned())).collect::<Vec<_>>(),
    ];
    for (number, (kind, verb, subresource)) in ROWS.iter().enumerate() {
        let name =
            if subresource.is_empty() { kind.resource.to_owned() } else { format!("{}/{subresource}", kind.resource) };
        let mut row = vec![name, verb.as_str().to_owned()];
        for way in 0..WAYS.len() {
            let cell = cells.iter().find(|cell| (cell.row, cell.way) == (number, way));
            row.push(cell.map_or("-".to_owned(), Cell::short));
        }
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row: &Vec<String>| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..WAYS.len() + 2).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let not_asked = NOT_ASKED.iter().map(|(what, why)| format!("not asked: {what}: {why}"));
    rows.iter().map(line).chain(not_asked).collect::<Vec<_>>().join("\n")
}
