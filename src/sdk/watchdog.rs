//! Keeps deadlines, on a thread of its own: the runtime may be blocked by what is to be stopped.
//!
//! It asks what runs to stop, has it dropped, and aborts the process if that has not helped: in this order, each before the
//! deadline by as much as [`super::wire`] says.
use std::{
    collections::BTreeMap,
    io,
    io::Write as _,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    clock,
    wire::{DROPS_BEFORE, Name, STOPS_BEFORE},
};

/// Between two looks while something runs: waiting does not count the time that the machine sleeps.
const LOOK: Duration = Duration::from_millis(100);

/// Until when one run may go on.
#[derive(Clone, Debug)]
pub struct Until {
    /// That of all.
    all: Arc<AtomicU64>,
    /// Its own, once it was asked to stop.
    own: Arc<AtomicU64>,
    /// It was dropped, or has ended: nothing opens its fence again, also if one is still held.
    is_shut: Arc<AtomicBool>,
}

impl Until {
    fn at(&self) -> u64 {
        self.all.load(Ordering::SeqCst).min(self.own.load(Ordering::SeqCst))
    }

    /// Something may still be begun.
    pub fn is_open(&self) -> bool {
        !self.is_shut.load(Ordering::SeqCst) && phase(self.at(), clock::now()) < Phase::Drops
    }

    /// How long that will last.
    pub fn rest(&self) -> Duration {
        if self.is_shut.load(Ordering::SeqCst) {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.at().saturating_sub(clock::now())).saturating_sub(DROPS_BEFORE)
    }

    fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
    }
}

/// How far a run has come towards its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Runs,
    Stops,
    Drops,
    Aborts,
}

fn phase(until: u64, now: u64) -> Phase {
    let rest = Duration::from_nanos(until.saturating_sub(now));
    if rest.is_zero() {
        Phase::Aborts
    } else if rest <= DROPS_BEFORE {
        Phase::Drops
    } else if rest <= STOPS_BEFORE {
        Phase::Stops
    } else {
        Phase::Runs
    }
}

/// When the next phase begins.
fn next(until: u64, now: u64) -> Duration {
    let rest = Duration::from_nanos(until.saturating_sub(now));
    let before = [STOPS_BEFORE, DROPS_BEFORE, Duration::ZERO];
    let next = before.into_iter().filter_map(|before| rest.checked_sub(before)).find(|wait| !wait.is_zero());
    next.unwrap_or_default()
}

/// Everything that runs.
#[derive(Debug)]
pub struct Watchdog {
    all: Arc<AtomicU64>,
    runs: Mutex<Runs>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Runs {
    by_token: BTreeMap<String, Watched>,
    is_over: bool,
}

#[derive(Debug)]
struct Watched {
    name: Name,
    until: Until,
    stop: CancellationToken,
    drop: CancellationToken,
}

/// One run is watched; no longer once this is dropped.
#[derive(Debug)]
pub struct Watch {
    watchdog: Arc<Watchdog>,
    token: String,
    /// Until when it may go on.
    pub until: Until,
    /// It is asked to stop.
    pub stop: CancellationToken,
    /// It is dropped.
    pub drop: CancellationToken,
}

impl Watchdog {
    /// Starts its thread, which ends once it was told to and nothing runs. It keeps `lock` until then.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start<L: Send + 'static>(lock: L) -> io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self { all: Arc::default(), runs: Mutex::default(), changed: Condvar::new() });
        let on_thread = watchdog.clone();
        thread::Builder::new().name("baton-watchdog".to_owned()).spawn(move || {
            on_thread.work();
            drop(lock);
        })?;
        Ok(watchdog)
    }

    /// By then everything must have stopped, instead of by what was said before.
    pub fn extend(&self, deadline: u64) {
        self.all.store(deadline, Ordering::SeqCst);
        self.look();
    }

    /// Something begins to run.
    pub fn watch(self: &Arc<Self>, token: &str, name: Name) -> Watch {
        let own = Arc::new(AtomicU64::new(u64::MAX));
        let until = Until { all: self.all.clone(), own, is_shut: Arc::default() };
        let (stop, drop) = (CancellationToken::new(), CancellationToken::new());
        let watched = Watched { name, until: until.clone(), stop: stop.clone(), drop: drop.clone() };
        self.runs().by_token.insert(token.to_owned(), watched);
        self.look();
        Watch { watchdog: self.clone(), token: token.to_owned(), until, stop, drop }
    }

    /// Asks one to stop, by this time at the latest.
    pub fn stop(&self, token: &str, by: u64) {
        if let Some(watched) = self.runs().by_token.get(token) {
            watched.until.own.fetch_min(by, Ordering::SeqCst);
            watched.stop.cancel();
        }
        self.look();
    }

    /// Whether anything runs.
    pub fn is_idle(&self) -> bool {
        self.runs().by_token.is_empty()
    }

    /// Ends the thread, once nothing runs.
    pub fn end(&self) {
        self.runs().is_over = true;
        self.look();
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        // With the lock, or the thread might just be about to wait.
        let _runs = self.runs();
        self.changed.notify_all();
    }

    fn work(&self) {
        let mut runs = self.runs();
        while !(runs.is_over && runs.by_token.is_empty()) {
            let now = clock::now();
            let mut wait = None::<Duration>;
            for watched in runs.by_token.values() {
                let until = watched.until.at();
                match phase(until, now) {
                    Phase::Runs => {}
                    Phase::Stops => watched.stop.cancel(),
                    Phase::Drops => {
                        // A later deadline may still come; what is being dropped has nothing of it.
                        watched.until.shut();
                        watched.drop.cancel();
                    }
                    Phase::Aborts => abort(&watched.name),
                }
                let next = next(until, now).min(LOOK);
                wait = Some(wait.map_or(next, |wait| wait.min(next)));
            }
            runs = match wait {
                Some(wait) => self.changed.wait_timeout(runs, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(runs).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// How long it may take to say why the process is aborted.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Nothing else is certain to end it: a thread cannot be stopped from outside.
fn abort(name: &Name) -> ! {
    let why =
        format!("baton: {name} has neither ended nor let itself be dropped by its deadline; aborting the process");
    let (tell, told) = std::sync::mpsc::channel();
    // Not by this thread: there may be no reader, or another thread may stand still while it writes there.
    let telling = thread::Builder::new().spawn(move || {
        let _ = writeln!(std::io::stderr(), "{why}");
        let _ = tell.send(());
    });
    if telling.is_ok() {
        let _ = told.recv_timeout(LAST_WORDS);
    }
    std::process::abort();
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Before anybody hears of its end: threads that it has left behind may hold its fence.
        self.until.shut();
        self.watchdog.runs().by_token.remove(&self.token);
        self.watchdog.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_deadline_comes_in_steps() {
        let at = |millis: u64| phase(100 * SECOND, 100 * SECOND - millis * 1_000_000);
        assert_eq!(
            [at(501), at(500), at(251), at(250), at(1), at(0)],
            [Phase::Runs, Phase::Stops, Phase::Stops, Phase::Drops, Phase::Drops, Phase::Aborts]
        );
        assert_eq!(phase(0, SECOND), Phase::Aborts, "it was not said that it may run");
        let wait = |millis: u64| next(100 * SECOND, 100 * SECOND - millis * 1_000_000).as_millis();
        assert_eq!([wait(700), wait(500), wait(400), wait(250), wait(100), wait(0)], [200, 250, 150, 250, 100, 0]);
    }

    fn name() -> Name {
        Name { set: "bots".into(), listener: "one".into() }
    }

    #[test]
    fn what_runs_is_stopped_and_dropped_in_time_and_forgotten_once_it_has_ended() {
        let watchdog = Watchdog::start(()).unwrap();
        let begin = clock::now();
        watchdog.extend(begin + SECOND * 2);
        let watch = watchdog.watch("t", name());
        assert!(watch.until.is_open() && !watch.stop.is_cancelled());
        // Not extended in time: the others have no deadline of their own.
        let wait = |token: &CancellationToken| {
            while !token.is_cancelled() {
                thread::sleep(Duration::from_millis(1));
            }
            Duration::from_nanos(clock::now() - begin).as_millis()
        };
        let stopped = wait(&watch.stop);
        assert!((1_500..1_750).contains(&stopped), "{stopped} ms");
        let dropped = wait(&watch.drop);
        assert!((1_750..2_000).contains(&dropped) && !watch.until.is_open(), "{dropped} ms");
        drop(watch); // else the process is aborted, and this test with it
        thread::sleep(Duration::from_millis(300));
        assert!(watchdog.is_idle());
        watchdog.end();
    }

    #[test]
    fn one_that_is_to_stop_has_a_deadline_of_its_own() {
        let watchdog = Watchdog::start(()).unwrap();
        watchdog.extend(u64::MAX);
        let (one, other) = (watchdog.watch("t1", name()), watchdog.watch("t2", name()));
        watchdog.stop("t1", clock::now() + 60 * SECOND);
        assert!(one.stop.is_cancelled() && !other.stop.is_cancelled());
        assert!(one.until.is_open() && !one.drop.is_cancelled());
        watchdog.stop("t1", clock::now() + SECOND / 5);
        assert!(!one.until.is_open(), "less than a quarter second is left");
        watchdog.stop("t1", u64::MAX);
        assert!(!one.until.is_open(), "nothing takes it back");
        drop(one);
        watchdog.end();
    }

    /// L1: what a run has left behind on other threads does nothing under its fence once it has ended.
    #[test]
    fn the_fence_of_what_has_ended_is_shut() {
        let watchdog = Watchdog::start(()).unwrap();
        watchdog.extend(u64::MAX);
        let watch = watchdog.watch("t", name());
        let left = watch.until.clone();
        assert!(left.is_open() && left.rest() > Duration::from_mins(1));
        drop(watch);
        assert!(!left.is_open() && left.rest().is_zero());
        watchdog.end();
    }

    /// L1: a deadline that comes late opens nothing of what is being dropped.
    #[test]
    fn the_fence_of_what_is_dropped_stays_shut() {
        let watchdog = Watchdog::start(()).unwrap();
        watchdog.extend(clock::now() + SECOND / 4);
        let watch = watchdog.watch("t", name());
        while !watch.drop.is_cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        watchdog.extend(u64::MAX);
        assert!(!watch.until.is_open() && watch.until.rest().is_zero());
        // The process goes on all the same: it is dropped within the later deadline.
        thread::sleep(Duration::from_millis(300));
        drop(watch);
        watchdog.end();
    }
}
