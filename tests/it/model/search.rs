//! The search: breadth first, by one thread, so that "no violation to depth n" is exact. (Several threads would reach
//! some states first on a longer way, and then miss what follows them within the bound.)
use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use super::{
    state::State,
    steps::Action,
    world::{Config, World},
};

pub const ONE_OWNER: &str = "L1: at most one owner";
pub const STARTED_ONCE: &str = "L2: no epoch is started twice";
pub const EPOCHS_GROW: &str = "L2: epochs grow";
pub const RECOVERS: &str = "L4: an owner can be reached without further faults";

impl<const I: usize, const L: usize> Model for World<I, L> {
    type State = State<I, L>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![State::new(self.config.kill_after)]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>) {
        self.candidates(state, actions);
    }

    fn next_state(&self, state: &Self::State, action: Self::Action) -> Option<Self::State> {
        let next = self.next(state, action)?;
        // A counter-example reads better when nobody changes his name half-way.
        Some(if self.config.removed.is_none() { next.canonical() } else { next })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(ONE_OWNER, |world: &Self, state: &State<I, L>| {
                world.passes((0..L).all(|listener| state.owners(listener) <= 1))
            }),
            Property::always(STARTED_ONCE, |world: &Self, state: &State<I, L>| world.passes(!state.started_twice)),
            Property::always(EPOCHS_GROW, |world: &Self, state: &State<I, L>| world.passes(!state.went_back)),
        ];
        if self.config.liveness {
            all.push(Property::always(RECOVERS, |world: &Self, state: &State<I, L>| {
                world.passes(world.recovers(state))
            }));
        }
        all.retain(|property| self.config.only.is_none_or(|only| only == property.name));
        all
    }
}

impl<const I: usize, const L: usize> World<I, L> {
    /// Only the first violation counts, which is one of the shortest: the checker ends some states later, and keeps the last.
    fn passes(&self, holds: bool) -> bool {
        holds || self.is_broken.swap(true, Ordering::Relaxed)
    }
}

/// What a search has found.
pub struct Found {
    /// Different ones.
    pub states: usize,
    /// Every state that takes at most so many steps was looked at.
    pub depth: usize,
    /// There are no others: whatever the depth, within the bounds of the configuration.
    pub is_all: bool,
    pub violation: Option<(&'static str, Vec<Action>)>,
    pub took: Duration,
}

/// Looks at every state within `depth` steps, or until about `generated` states were made.
pub fn search<const I: usize, const L: usize>(config: Config, depth: usize, generated: usize) -> Found {
    let begun = Instant::now();
    let checker = World::<I, L>::new(config)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .target_max_depth(depth + 2) // it counts states from 1, and leaves out the last
        .target_state_count(generated)
        .spawn_bfs()
        .join();
    let violation = checker.discoveries().into_iter().map(|(name, path)| (name, path.into_actions())).next();
    let deepest = checker.max_depth() - 1; // steps to the last state that was taken up
    let is_cut = checker.state_count() >= generated;
    let is_whole = !is_cut && violation.is_none();
    let depth = if is_whole { deepest.min(depth) } else { deepest.saturating_sub(1) };
    let is_all = is_whole && deepest == depth;
    Found { states: checker.unique_state_count(), depth, is_all, violation, took: begun.elapsed() }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, seconds) = (self.states, self.took.as_secs_f32());
        let Some((name, path)) = &self.violation else {
            let end = if self.is_all { ", and there are no others" } else { "" };
            return write!(f, "no violation to depth {}{end} ({states} states, {seconds:.1} s)", self.depth);
        };
        writeln!(f, "{name}: violated at depth {} ({states} states, {seconds:.1} s)", path.len())?;
        let path = path.iter().map(|action| format!("{action:?}")).collect::<Vec<_>>();
        write!(f, "      {}", path.join(" > "))
    }
}
