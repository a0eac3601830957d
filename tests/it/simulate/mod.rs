//! Deterministic simulation: the real operator, two or three of it, against the API server in this process, with a
//! simulated world, users and everything that may go wrong. One seed is one history; the same seed gives the same trace.
//!
//! - [`scenario`]: what a seed decides; [`users`], [`faults`], [`world`], [`process`]: who makes it happen;
//! - [`applications`]: what is told to Pods with `update: HotReload`;
//! - [`listeners`]: ListenerSets and the real agents, for seeds with listeners;
//! - [`oracles`]: what must hold of every request and write, and at the end;
//! - [`history`]: one run; [`replay`], [`trace`]: what a person sees of it.
//!
//! `make simulate SEEDS=1000` runs random seeds, `make simulate SEED=17` prints one, both with PINS=1 with pinned instances,
//! with IN_PLACE=1 with Pods that are changed in place, with RESOURCES=1 also by other resources, with STRATEGIES=1 with Recreate or BlueGreen,
//! with HOT_RELOAD=1 with applications that are told of versions, with KEEP_FAILED=1 with failed Pods that are kept for a look,
//! with HOOKS=1 with hooks, with LISTENERS=1 with listeners, which take ten times as long. What cannot be simulated: a process
//! that stands still keeps its timers (its requests leave later, answers and events reach it later); all processes measure
//! durations by one clock, only their times of day differ.
mod applications;
mod faults;
mod history;
mod listeners;
mod oracles;
mod process;
mod randomness;
mod replay;
mod scenario;
mod trace;
mod users;
mod versions;
mod world;

use std::{
    cell::OnceCell,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use self::{
    history::{Outcome, run},
    scenario::{Scenario, TELLINGS, story},
    trace::Keeps,
};

/// Seeds that have found a bug: `seed  # bug`, or with `listeners`, `pins`, `in-place`, `strategies`, `hot-reload`, `keep-failed`, `hooks` before the `#`, one a line.
const REGRESSIONS: &str = include_str!("seeds.txt");
/// Random seeds, unless `SEEDS` says how many.
const RANDOM_SEEDS: usize = 20;
/// The same, with listeners: one takes up to a minute where nothing is optimized.
const RANDOM_SEEDS_WITH_LISTENERS: usize = 4;
/// Lines shown of a history that broke a promise.
const TAIL: usize = 60;
/// Broken seeds after which no more are run.
const FAILURES_MAX: usize = 5;

/// What is in a history beside a Rollout and its versions: the same number means another history with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
struct Extras {
    /// ListenerSets, and the agents.
    listeners: bool,
    /// `spec.pins`, and onFailure RollbackFailed.
    pins: bool,
    /// Pods are changed in place.
    in_place: bool,
    /// The same, and versions differ in their resources.
    resources: bool,
    /// Strategy Recreate or BlueGreen.
    strategies: bool,
    /// Applications are told of other labels and annotations.
    hot_reload: bool,
    /// Pauses at every place, each approved by itself.
    pauses: bool,
    /// `spec.strategy.keepFailed`.
    keep_failed: bool,
    /// `spec.hooks`.
    hooks: bool,
}

impl Extras {
    const NONE: Self = Self {
        listeners: false,
        pins: false,
        in_place: false,
        resources: false,
        strategies: false,
        hot_reload: false,
        pauses: false,
        keep_failed: false,
        hooks: false,
    };
    const LISTENERS: Self = Self { listeners: true, ..Self::NONE };
    const LISTENERS_IN_PLACE: Self = Self { in_place: true, ..Self::LISTENERS };
    const PINS: Self = Self { pins: true, ..Self::NONE };
    const IN_PLACE: Self = Self { in_place: true, ..Self::PINS };
    const RESOURCES: Self = Self { resources: true, ..Self::IN_PLACE };
    const STRATEGIES: Self = Self { strategies: true, ..Self::NONE };
    const HOT_RELOAD: Self = Self { hot_reload: true, ..Self::PINS };
    const PAUSES: Self = Self { pauses: true, ..Self::NONE };
    const KEEP_FAILED: Self = Self { keep_failed: true, ..Self::NONE };
    const HOOKS: Self = Self { hooks: true, ..Self::NONE };

    /// What the command line asks for.
    fn asked() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            listeners: is_set("LISTENERS"),
            pins: is_set("PINS"),
            in_place: is_set("IN_PLACE") || is_set("RESOURCES"),
            resources: is_set("RESOURCES"),
            strategies: is_set("STRATEGIES"),
            hot_reload: is_set("HOT_RELOAD"),
            pauses: is_set("PAUSES"),
            keep_failed: is_set("KEEP_FAILED"),
            hooks: is_set("HOOKS"),
        }
    }

    /// As [`Self::asked`] reads it.
    fn in_words(self) -> String {
        let words = [
            (self.listeners, " LISTENERS=1"),
            (self.pins, " PINS=1"),
            (self.in_place, " IN_PLACE=1"),
            (self.resources, " RESOURCES=1"),
            (self.strategies, " STRATEGIES=1"),
            (self.hot_reload, " HOT_RELOAD=1"),
            (self.pauses, " PAUSES=1"),
            (self.keep_failed, " KEEP_FAILED=1"),
            (self.hooks, " HOOKS=1"),
        ];
        words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect()
    }
}

/// Number of a seed, and what is in it.
type Seed = (u64, Extras);

/// How many documented overlaps of a listener there were, or why a seed failed. `undisturbed` is of its story: run at most once.
fn verdict(seed: Seed, undisturbed: &OnceCell<Outcome>) -> Result<u64, String> {
    let (number, extras) = seed;
    let scenario = Scenario::new(number, false, extras);
    let disturbed = run(&scenario, Keeps::Nothing);
    if let Some(broken) = &disturbed.broken {
        return Err(blame(broken, &scenario, seed, false));
    }
    if scenario.is_confluent() {
        let calm = Scenario::new(number, true, extras);
        let undisturbed = undisturbed.get_or_init(|| run(&calm, Keeps::Nothing));
        if let Some(broken) = &undisturbed.broken {
            return Err(blame(broken, &calm, seed, true));
        }
        let is_used_up = disturbed.is_used_up || undisturbed.is_used_up;
        if disturbed.end != undisturbed.end && !is_used_up {
            let broken = format!("end: {:?}, undisturbed {:?}", disturbed.end, undisturbed.end);
            return Err(blame(&broken, &scenario, seed, false));
        }
    }
    Ok(disturbed.overlaps)
}

/// Runs it once more, and tells how it ended.
fn blame(broken: &str, scenario: &Scenario, (seed, extras): Seed, is_undisturbed: bool) -> String {
    let Outcome { lines, broken: again, .. } = run(scenario, Keeps::Lines);
    let (run, which) = if is_undisturbed { (" (undisturbed)", " UNDISTURBED=1") } else { ("", "") };
    let mut text = format!("\n--- seed {seed}{run}\n");
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
        let _ = writeln!(text, "{line}");
    }
    let how = extras.in_words();
    // With the other history's end it breaks nothing by itself.
    if again.is_some_and(|again| again != broken) {
        let _ = writeln!(
            text,
            "--- seed {seed}{run} ended in another way when it was run again: it depends on more than its seed"
        );
    }
    let _ = writeln!(
        text,
        "--- seed {seed}{run} breaks {broken}\n    the whole of it: make simulate SEED={seed}{which}{how}"
    );
    text
}

/// Runs seeds on all cores, prints the end of those that fail, and returns the last line of each, after how many were run
/// and how many documented overlaps they had.
fn run_all(seeds: &[Seed]) -> (usize, u64, Vec<String>) {
    let same_story = |a: &Seed, b: &Seed| (story(a.0), a.1) == (story(b.0), b.1);
    let stories: Vec<&[Seed]> = seeds.chunk_by(same_story).collect();
    let (next, done, overlaps) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(tellings) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
            let undisturbed = OnceCell::new();
            for seed in *tellings {
                if failures.lock().unwrap_or_else(PoisonError::into_inner).len() >= FAILURES_MAX {
                    return;
                }
                let verdict = verdict(*seed, &undisturbed);
                done.fetch_add(1, Ordering::Relaxed);
                if let Ok(count) = verdict {
                    overlaps.fetch_add(count, Ordering::Relaxed);
                } else if let Err(failure) = verdict {
                    println!("{failure}");
                    let last = failure.lines().rfind(|line| line.starts_with("--- ")).unwrap_or_default();
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(last.to_owned());
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    (done.into_inner(), overlaps.into_inner(), failures.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn seeds_that_found_bugs_find_none() {
    let seed = |line: &str| -> Option<Seed> {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let number = words.next()?.parse().ok()?;
        let words: Vec<&str> = words.collect();
        let has = |word| words.contains(&word);
        let extras = Extras {
            listeners: has("listeners"),
            pins: has("pins"),
            in_place: has("in-place") || has("resources"),
            resources: has("resources"),
            strategies: has("strategies"),
            hot_reload: has("hot-reload"),
            pauses: has("pauses"),
            keep_failed: has("keep-failed"),
            hooks: has("hooks"),
        };
        Some((number, extras))
    };
    let (_, _, failures) = run_all(&REGRESSIONS.lines().filter_map(seed).collect::<Vec<Seed>>());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// As the command line asks, or some.
#[test]
fn random_seeds_break_no_promise() {
    if let Some(seed) = number_from_environment("SEED") {
        return print(seed);
    }
    match number_from_environment("SEEDS") {
        Some(count) => run_every(1, count as usize, Extras::asked()),
        None => run_random(RANDOM_SEEDS, Extras::asked()),
    }
}

#[test]
fn random_seeds_with_listeners_break_no_promise() {
    run_random(RANDOM_SEEDS_WITH_LISTENERS, Extras::LISTENERS);
}

#[test]
fn random_seeds_with_listeners_in_place_break_no_promise() {
    run_random(RANDOM_SEEDS_WITH_LISTENERS, Extras::LISTENERS_IN_PLACE);
}

#[test]
fn random_seeds_with_pins_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::PINS);
}

/// B4
#[test]
fn random_seeds_in_place_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::IN_PLACE);
}

/// B4
#[test]
fn random_seeds_with_resources_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::RESOURCES);
}

#[test]
fn random_seeds_with_hot_reload_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::HOT_RELOAD);
}

/// B1 B3
#[test]
fn random_seeds_with_other_strategies_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::STRATEGIES);
}

/// R21
#[test]
fn random_seeds_with_pauses_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::PAUSES);
}

/// B7
#[test]
fn random_seeds_with_failed_pods_that_are_kept_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::KEEP_FAILED);
}

/// B8
#[test]
fn random_seeds_with_hooks_break_no_promise() {
    run_random(RANDOM_SEEDS, Extras::HOOKS);
}

/// So few that each tells a story of its own.
fn run_random(count: usize, extras: Extras) {
    run_every(TELLINGS, count, extras);
}

/// `count` seeds at this distance from each other.
fn run_every(distance: u64, count: usize, extras: Extras) {
    let first = number_from_environment("FIRST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let seeds: Vec<Seed> = (0..count as u64).map(|number| (first + number * distance, extras)).collect();
    let how = extras.in_words();
    let distances = if distance == 1 { String::new() } else { format!(", each {distance}th") };
    println!("seeds {first} to {}{distances}{how}", first + (count as u64 - 1) * distance);
    let began = Instant::now();
    let (done, overlaps, failures) = run_all(&seeds);
    let stopped = if done < count { format!(" of {count}, then stopped,") } else { String::new() };
    println!("{done} seeds{stopped} in {:.1} s, {} of them broken", began.elapsed().as_secs_f64(), failures.len());
    if overlaps > 0 {
        println!("{overlaps} times two processes of a listener overlapped as docs/guarantees.md says");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The whole history of a seed.
fn print(seed: u64) {
    let is_undisturbed = std::env::var_os("UNDISTURBED").is_some();
    let scenario = Scenario::new(seed, is_undisturbed, Extras::asked());
    println!("{scenario:#?}");
    let outcome = run(&scenario, Keeps::Logs);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("{:?}\nbroken: {:?}", outcome.end, outcome.broken);
    if let Err(failure) = verdict((seed, Extras::asked()), &OnceCell::new()) {
        panic!("{failure}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    let [none, resources, listeners] = [Extras::NONE, Extras::RESOURCES, Extras::LISTENERS];
    for (seed, extras) in [(1, none), (2, resources), (3, listeners), (4, listeners)] {
        let [first, second] = [0; 2].map(|_| run(&Scenario::new(seed, false, extras), Keeps::Lines));
        for (number, (first, second)) in first.lines.iter().zip(&second.lines).enumerate() {
            assert_eq!(first, second, "seed {seed}, line {number}");
        }
        assert_eq!(first.lines.len(), second.lines.len());
        assert!(first.lines.len() > 20, "a history");
    }
}
