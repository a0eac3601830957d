//! What was seen of each feed, and what is wrong with it. Pure; times are microseconds since 1970 by the one clock of the
//! machine that everything runs on, as the listeners themselves tell them.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Problems told of one feed.
const PROBLEMS_MAX: usize = 20;

/// What a listener says when it connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Its fencing token.
    pub token: String,
    /// Its Pod.
    pub pod: String,
    /// When its process began to work.
    pub began: u64,
    /// Where it goes on, as it was told.
    pub after: u64,
}

/// One connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connection {
    /// What it began with.
    pub opening: Opening,
    /// The first and the last time at which it did something.
    pub first: Option<u64>,
    /// See `first`.
    pub last: u64,
    /// When it said that it stops. None: it has not, or was killed.
    pub bye: Option<u64>,
    /// Messages done.
    pub done: u64,
    /// Messages not taken from it, because somebody with a newer token had come.
    pub refused: u64,
}

impl Opening {
    /// Whose token it is, and which: tokens of one ListenerSet are numbered upwards.
    fn token(&self) -> Option<(&str, u64)> {
        let (set, number) = self.token.rsplit_once('-')?;
        Some((set, number.parse().ok()?))
    }
}

/// One feed.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    connections: Vec<Connection>,
    /// Up to here every message is done.
    position: u64,
    duplicates: u64,
    problems: Vec<String>,
}

impl Feed {
    /// Takes nothing more from this connection, if another of the same ListenerSet has come with a newer token: what a store
    /// with compare-and-set does.
    pub fn refuse(&mut self, connection: usize) -> bool {
        let newest = self.connections.iter().filter_map(|other| other.opening.token());
        let Some((set, number)) = self.connections.get(connection).and_then(|mine| mine.opening.token()) else {
            return false;
        };
        let is_old = newest.filter(|(other, _)| *other == set).any(|(_, newer)| newer > number);
        if is_old {
            self.connections[connection].refused += 1;
        }
        is_old
    }

    /// A listener connects: its number, and after which message it goes on. It may know less than we do: what is done is
    /// stored here.
    ///
    /// Without `stores` it goes on where it was told to, and does again what was done since.
    pub fn open(&mut self, opening: Opening, stores: bool) -> (usize, u64) {
        let from = if stores { opening.after.max(self.position) } else { opening.after };
        if opening.after > self.position {
            self.problem(format!(
                "{} goes on after {}, but only {} are done: lost",
                opening.pod, opening.after, self.position
            ));
        }
        self.connections.push(Connection { last: opening.began, opening, ..Connection::default() });
        (self.connections.len() - 1, from)
    }

    /// A message is done.
    pub fn done(&mut self, connection: usize, seq: u64, at: u64) {
        let Some(mine) = self.connections.get_mut(connection) else { return };
        mine.first.get_or_insert(at);
        mine.last = mine.last.max(at);
        mine.done += 1;
        if seq <= self.position {
            self.duplicates += 1;
        } else if seq > self.position + 1 {
            self.problem(format!("messages {} to {} were left out", self.position + 1, seq - 1));
        }
        self.position = self.position.max(seq);
    }

    /// A listener says that it stops.
    pub fn bye(&mut self, connection: usize, at: u64) {
        if let Some(mine) = self.connections.get_mut(connection) {
            mine.last = mine.last.max(at);
            mine.bye = Some(at);
        }
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }
}

/// What there is to say of one feed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FeedVerdict {
    /// In order of time.
    pub connections: Vec<Connection>,
    /// Messages done, without a hole.
    pub position: u64,
    /// Done more than once.
    pub duplicates: u64,
    /// Pairs of connections that worked at the same time, in words.
    pub overlaps: Vec<String>,
    /// Messages that are missing, in words.
    pub problems: Vec<String>,
    /// Microseconds from each stop that was said to the next process' first step.
    pub gaps: Vec<u64>,
}

/// What there is to say of all of them, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict(pub BTreeMap<String, FeedVerdict>);

impl Verdict {
    /// Judges.
    pub fn of(feeds: &BTreeMap<String, Feed>) -> Self {
        Self(feeds.iter().map(|(name, feed)| (name.clone(), judge(feed))).collect())
    }
}

fn judge(feed: &Feed) -> FeedVerdict {
    let mut connections = feed.connections.clone();
    connections.sort_by_key(|connection| connection.opening.began);
    let mut verdict = FeedVerdict {
        position: feed.position,
        duplicates: feed.duplicates,
        problems: feed.problems.clone(),
        ..FeedVerdict::default()
    };
    for (index, later) in connections.iter().enumerate() {
        // Each but the last has ended before the next one began, however many there were in between.
        let before = connections[..index].iter().max_by_key(|earlier| earlier.last);
        let Some(before) = before else { continue };
        let (ended, began) = (before.last, later.opening.began);
        if ended > began {
            let by = (ended - began) / 1_000;
            verdict
                .overlaps
                .push(format!("{} worked {by} ms after {} had begun", before.opening.pod, later.opening.pod));
        } else if before.bye == Some(ended) {
            verdict.gaps.push(began - ended);
        }
    }
    verdict.connections = connections;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(pod: &str, began: u64, after: u64) -> Opening {
        Opening { token: format!("t-{began}"), pod: pod.into(), began, after }
    }

    fn moved(second: Opening) -> FeedVerdict {
        let mut feed = Feed::default();
        let (first, from) = feed.open(opening("a", 100, 0), true);
        assert_eq!(from, 0);
        for seq in 1..=3 {
            feed.done(first, seq, 100 + seq);
        }
        feed.bye(first, 110);
        let (second, from) = feed.open(second, true);
        for seq in from + 1..=from + 2 {
            feed.done(second, seq, 130 + seq);
        }
        judge(&feed)
    }

    #[test]
    fn a_clean_move_has_a_gap_and_no_problem() {
        let verdict = moved(opening("b", 130, 3));
        assert_eq!((verdict.position, verdict.duplicates, verdict.gaps), (5, 0, vec![20]));
        assert!(verdict.overlaps.is_empty() && verdict.problems.is_empty());
    }

    #[test]
    fn two_at_once_are_seen() {
        let verdict = moved(opening("b", 105, 3));
        assert_eq!((verdict.overlaps.len(), verdict.gaps.len()), (1, 0));
    }

    #[test]
    fn a_feed_that_stores_nothing_has_everything_done_again_since_it_was_told() {
        let mut feed = Feed::default();
        let (first, _) = feed.open(opening("a", 100, 0), false);
        (1..=5).for_each(|seq| feed.done(first, seq, 101));
        let (second, from) = feed.open(opening("b", 200, 3), false);
        (from + 1..=6).for_each(|seq| feed.done(second, seq, 201));
        let verdict = judge(&feed);
        assert_eq!((from, verdict.position, verdict.duplicates, verdict.overlaps.len()), (3, 6, 2, 0));
    }

    #[test]
    fn an_old_token_is_refused_once_a_newer_one_has_come() {
        let mut feed = Feed::default();
        let with = |token: &str, pod: &str, began| Opening { token: token.into(), ..opening(pod, began, 0) };
        let (old, _) = feed.open(with("u-i-d-9", "a", 100), true);
        assert!(!feed.refuse(old));
        let (new, _) = feed.open(with("u-i-d-10", "b", 200), true);
        assert!(feed.refuse(old) && !feed.refuse(new));
        let (other, _) = feed.open(with("other-1", "c", 300), true);
        assert!(!feed.refuse(other), "tokens of different sets cannot be compared");
        assert_eq!(judge(&feed).connections[0].refused, 1);
    }

    #[test]
    fn what_is_left_out_or_done_again_is_seen() {
        assert_eq!(moved(opening("b", 130, 9)).problems.len(), 2, "it skips, and says so");
        assert!(moved(opening("b", 130, 0)).problems.is_empty(), "what is done is stored with the feed");
        let mut feed = Feed::default();
        let (first, _) = feed.open(opening("a", 100, 0), true);
        for _ in 0..2 {
            feed.done(first, 1, 101);
        }
        assert_eq!((judge(&feed).duplicates, judge(&feed).problems.len()), (1, 0));
    }
}
