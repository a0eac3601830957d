//! Which objects of a kind are to be looked at, and when.
//!
//! A queue of our own and not kube's `Controller`: that one needs a second cache of all Rollouts beside the Index, stops at
//! the first panic of a reconcile, and hands no attempt or waiting time out. This one is a hundred lines over ordered maps,
//! so that a simulation replays it exactly.
//!
//! Rules: an object is never handed out twice at once; what arrives while it runs is one more run; of several times the
//! earliest counts; two runs of an object are at least `spacing` apart, and further where a run asks for it, which turns a
//! burst of events into a few looks without delaying the first.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::snapshot::index::ObjectKey;

/// The queue. Bounded by the number of objects: an object is in it once.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    spacing: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Due, in order of arrival; with the time of arrival in `arrived`.
    ready: VecDeque<ObjectKey>,
    arrived: BTreeMap<ObjectKey, Instant>,
    /// Due later.
    delayed: BTreeMap<ObjectKey, Instant>,
    /// Handed out and not yet done.
    running: BTreeSet<ObjectKey>,
    /// Of these, those to be run once more.
    again: BTreeSet<ObjectKey>,
    /// End of the spacing after the last run.
    not_before: BTreeMap<ObjectKey, Instant>,
    /// Arrivals so far, for metrics.
    added: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(spacing: Duration) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), spacing }
    }

    /// To be looked at as soon as possible.
    pub fn add(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        let now = Instant::now();
        let mut state = self.lock();
        for key in keys {
            state.add(key, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next object to look at, and how long it has been due. Pending until there is one; cancel-safe.
    pub async fn next(&self) -> (ObjectKey, Duration) {
        loop {
            let now = Instant::now();
            let wake_at = {
                let mut state = self.lock();
                state.promote(now);
                if let Some(key) = state.ready.pop_front() {
                    let arrived = state.arrived.remove(&key).unwrap_or(now);
                    state.running.insert(key.clone());
                    return (key, now.saturating_duration_since(arrived));
                }
                state.delayed.values().min().copied()
            };
            match wake_at {
                Some(at) => drop(tokio::time::timeout_at(at, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    /// A run has ended; the next is due at `again_at`, or earlier when something has happened meanwhile; but what happens
    /// waits for `rest`.
    pub fn done(&self, key: &ObjectKey, again_at: Option<Instant>, rest: Duration) {
        let now = Instant::now();
        let mut state = self.lock();
        state.running.remove(key);
        state.not_before.retain(|_, at| *at > now);
        state.not_before.insert(key.clone(), now + rest.max(self.spacing));
        if state.again.remove(key) {
            state.add(key.clone(), now);
        }
        if let Some(at) = again_at {
            state.delay(key.clone(), at);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Due and not yet handed out, for metrics.
    pub fn depth(&self) -> usize {
        self.lock().ready.len()
    }

    /// Arrivals so far, for metrics.
    pub fn added(&self) -> u64 {
        self.lock().added
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, key: ObjectKey, now: Instant) {
        self.added += 1;
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if let Some(at) = self.not_before.get(&key).copied().filter(|at| *at > now) {
            self.delay(key, at);
        } else if !self.arrived.contains_key(&key) {
            self.delayed.remove(&key);
            self.arrived.insert(key.clone(), now);
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: ObjectKey, at: Instant) {
        if !self.arrived.contains_key(&key) {
            self.delayed.entry(key).and_modify(|earlier| *earlier = at.min(*earlier)).or_insert(at);
        }
    }

    /// Moves what has become due to the end of the line.
    fn promote(&mut self, now: Instant) {
        let mut due: Vec<(Instant, ObjectKey)> =
            self.delayed.iter().filter(|(_, at)| **at <= now).map(|(key, at)| (*at, key.clone())).collect();
        due.sort();
        for (at, key) in due {
            self.delayed.remove(&key);
            self.arrived.insert(key.clone(), at);
            self.ready.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "shop".into(), name: name.into() }
    }

    fn queue() -> Queue {
        Queue::new(Duration::from_millis(20))
    }

    /// The next key and the (virtual) milliseconds it took; `-` when none comes within a minute.
    async fn next(queue: &Queue) -> (String, u128) {
        let began = Instant::now();
        let next = tokio::time::timeout(Duration::from_mins(1), queue.next()).await;
        (next.map_or("-".into(), |(key, _)| key.name), began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_first_served_and_once_each() {
        let queue = queue();
        queue.add([key("a"), key("b"), key("a")]);
        assert_eq!(next(&queue).await, ("a".into(), 0));
        assert_eq!(next(&queue).await, ("b".into(), 0));
        assert_eq!(next(&queue).await.0, "-");
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_during_a_run_is_one_more_run_after_it() {
        let queue = queue();
        queue.add([key("a")]);
        next(&queue).await;
        queue.add([key("a"), key("a")]);
        assert_eq!(next(&queue).await.0, "-", "never two at once");
        queue.done(&key("a"), None, Duration::ZERO);
        assert_eq!(next(&queue).await, ("a".into(), 20));
        queue.done(&key("a"), None, Duration::ZERO);
        assert_eq!(next(&queue).await.0, "-");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_spaced_but_its_first_event_is_not_delayed() {
        let queue = queue();
        queue.add([key("a")]);
        assert_eq!(next(&queue).await, ("a".into(), 0));
        queue.done(&key("a"), None, Duration::ZERO);
        queue.add([key("a")]);
        queue.add([key("a")]);
        assert_eq!(next(&queue).await, ("a".into(), 20));
        queue.done(&key("a"), None, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.add([key("a")]);
        assert_eq!(next(&queue).await, ("a".into(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_asks_for_rest_is_left_alone_for_so_long() {
        let queue = queue();
        queue.add([key("a")]);
        next(&queue).await;
        queue.add([key("a")]);
        queue.done(&key("a"), None, Duration::from_millis(190));
        assert_eq!(next(&queue).await, ("a".into(), 190));
        queue.done(&key("a"), Some(Instant::now() + Duration::from_millis(10)), Duration::from_millis(190));
        assert_eq!(next(&queue).await, ("a".into(), 10), "its own time counts");
        queue.add([key("a")]);
        queue.done(&key("a"), Some(Instant::now() + Duration::from_millis(10)), Duration::from_millis(190));
        assert_eq!(next(&queue).await, ("a".into(), 10), "also when something has happened meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_times_counts() {
        let queue = queue();
        queue.add([key("a")]);
        next(&queue).await;
        queue.done(&key("a"), Some(Instant::now() + Duration::from_secs(30)), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.add([key("a")]);
        assert_eq!(next(&queue).await, ("a".into(), 0));
        queue.done(&key("a"), Some(Instant::now() + Duration::from_secs(5)), Duration::ZERO);
        assert_eq!(next(&queue).await, ("a".into(), 5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_worker_is_woken_by_an_arrival() {
        let queue = std::sync::Arc::new(queue());
        let worker = tokio::spawn({
            let queue = queue.clone();
            async move { next(&queue).await }
        });
        tokio::time::sleep(Duration::from_millis(7)).await;
        queue.add([key("a")]);
        assert_eq!(worker.await.unwrap(), ("a".into(), 7));
    }
}
