//! The process node against what Kubernetes documents: the rows of tests/testbed/node/README.md.
mod deletion;
mod environment;
mod fixture;
mod images;
mod init;
mod outages;
mod probes;
mod registration;
mod resize;
mod restarts;

use std::{collections::BTreeSet, fs, path::Path};

/// Each row of the table has a test that names it, and each test's row is in the table.
#[test]
fn every_row_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/testbed/node/README.md")).unwrap();
    let rows: BTreeSet<String> =
        table.lines().filter_map(|line| Some(line.strip_prefix("| N")?.split_once(' ')?.0.to_owned())).collect();
    let mut tested = BTreeSet::new();
    for file in fs::read_dir(root.join("tests/it/node")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let ids = text.lines().filter_map(|line| line.trim().strip_prefix("/// N"));
        tested.extend(ids.flat_map(|ids| ids.split(", N").map(str::to_owned)));
    }
    assert!(rows.len() >= 30, "{} rows", rows.len());
    assert_eq!(rows, tested);
}
