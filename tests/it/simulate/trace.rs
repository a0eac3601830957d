//! What happened, line by line: time, who, what. The first broken promise ends a history.
use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

/// A history as it is written. Clones write into the same one.
#[derive(Clone)]
pub struct Trace(Arc<Shared>);

struct Shared {
    start: Instant,
    keeps: Keeps,
    state: Mutex<State>,
    broke: Notify,
}

/// What is kept of a history. Of most nobody reads a line, and to write them takes a twentieth of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// How many lines there would be.
    Nothing,
    /// The lines.
    Lines,
    /// These, and what the operators log.
    Logs,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    count: usize,
    broken: Option<String>,
}

/// Lines of one history: with more of them something goes round and round.
const LINES_MAX: usize = 20_000;

impl Trace {
    /// Time counts from now.
    pub fn new(keeps: Keeps) -> Self {
        Self(Arc::new(Shared { start: Instant::now(), keeps, state: Mutex::default(), broke: Notify::new() }))
    }

    /// When time began.
    pub fn start(&self) -> Instant {
        self.0.start
    }

    /// Writes a line, if anybody is to read it.
    pub fn say(&self, who: &str, what: impl Display) {
        let seconds = self.0.start.elapsed().as_secs_f64();
        let mut state = self.state();
        state.count += 1;
        if state.count <= LINES_MAX {
            if self.0.keeps != Keeps::Nothing {
                state.lines.push(format!("{seconds:>9.3} {who:<11} {what}"));
            }
        } else {
            drop(state);
            self.end(format!("endless: {LINES_MAX} lines in {seconds:.0} s"));
        }
    }

    /// A promise is broken: the history ends.
    pub fn break_promise(&self, promise: &str, how: impl Display) {
        let broken = format!("{promise}: {how}");
        self.say("ORACLE", &broken);
        self.end(broken);
    }

    /// The first to say why counts.
    fn end(&self, why: String) {
        self.state().broken.get_or_insert(why);
        self.0.broke.notify_one();
    }

    /// Returns once a promise is broken.
    pub async fn broken(&self) {
        while self.state().broken.is_none() {
            self.0.broke.notified().await;
        }
    }

    /// Lines, and the broken promise, if any.
    pub fn take(&self) -> (Vec<String>, Option<String>) {
        let mut state = self.state();
        (std::mem::take(&mut state.lines), state.broken.take())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
