//! What a look costs.
use super::world::World;

/// It is taken with every event of 1,000 listeners: nothing in it may grow with their square.
#[test]
fn a_look_at_a_thousand_listeners_is_cheap() {
    let mut world = World::of(1_000, 10);
    world.settle();
    let snapshot = world.snapshot();
    let looked = |snapshot: &_| {
        #[allow(clippy::disallowed_methods)]
        let begin = std::time::Instant::now();
        let planned = super::super::plan(snapshot, &world.memory);
        assert!(planned.0.changes.is_empty());
        begin.elapsed()
    };
    let best = (0..5).map(|_| looked(&snapshot)).min().unwrap();
    assert!(best.as_millis() < 200, "{best:?}");
    eprintln!("a look at 1,000 listeners takes {best:?}");
}
