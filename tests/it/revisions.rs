//! What revisions are called, for ever: an operator of another release that hashed a stored spec otherwise would replace every Pod.
use baton::{
    api::RolloutSpec,
    plan::revision::{data, hash},
};

/// A hash and a `spec` a line, as people and tools write them: any order of fields, nulls, numbers, scripts, fields that nobody
/// knows yet. The hashes were reckoned by another program, in another language. Lines may be added, never changed.
const CORPUS: &str = include_str!("revisions.txt");

/// R14
#[test]
fn stored_specs_keep_their_hashes() {
    let mut count = 0;
    for line in CORPUS.lines() {
        let (expected, spec) = line.split_once(' ').unwrap();
        let read: RolloutSpec = serde_json::from_str(spec).unwrap();
        assert_eq!(hash(&data(&read)), expected, "{spec}");
        // As it comes back from the API server.
        let stored: RolloutSpec = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(hash(&data(&stored)), expected, "stored: {spec}");
        count += 1;
    }
    assert_eq!(count, 1_000);
}
