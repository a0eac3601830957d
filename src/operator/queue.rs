//! Which objects of a kind are to be looked at, and when.
//!
//! A queue of our own and not kube's `Controller`: that one needs a second cache of all Rollouts beside the Index, stops at
//! the first panic of a reconcile, and hands no attempt or waiting time out. This one is a hundred lines over ordered maps,
//! so that a simulation replays it exactly.
//!
//! Rules: an object is never handed out twice at once; what arrives while it runs is one more run; of several times the
//! earliest counts; namespaces take turns, and none runs more than its share at once, so that no tenant's slow looks hold up
//! another's; two runs of an object are at least `spacing` apart, and further where a run asks for it, which turns a
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
    /// Runs of one namespace at once.
    share: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Due, by namespace, in order of arrival; with the time of arrival in `arrived`.
    ready: BTreeMap<String, VecDeque<ObjectKey>>,
    /// The namespaces of these: whose turn it is.
    turns: VecDeque<String>,
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
    /// An empty queue, for so many runs of one namespace at once.
    pub fn new(spacing: Duration, share: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), spacing, share }
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
                if let Some(key) = state.take_turn(self.share) {
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
        self.lock().arrived.len()
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
            self.arrive(key, now);
        }
    }

    fn arrive(&mut self, key: ObjectKey, at: Instant) {
        self.arrived.insert(key.clone(), at);
        let waiting = self.ready.entry(key.namespace.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(key.namespace.clone());
        }
        waiting.push_back(key);
    }

    /// The first of the next namespace that runs less than its share; its others wait for their next turn.
    fn take_turn(&mut self, share: usize) -> Option<ObjectKey> {
        let runs = |namespace: &String| self.running.iter().filter(|key| key.namespace == *namespace).count();
        let place = self.turns.iter().position(|namespace| runs(namespace) < share)?;
        let namespace = self.turns.remove(place)?;
        let waiting = self.ready.get_mut(&namespace)?;
        let key = waiting.pop_front();
        if waiting.is_empty() {
            self.ready.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        key
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
            self.arrive(key, at);
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
        Queue::new(Duration::from_millis(20), 4)
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

    /// F4: a noisy tenant (S11), whose 500 looks take 10 s each, does not delay another's.
    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns_and_none_takes_all_workers() {
        let queue = std::sync::Arc::new(queue());
        let of = |namespace: &str, name: String| ObjectKey { namespace: namespace.into(), name };
        queue.add((0..500).map(|number| of("noisy", number.to_string())));
        let workers = std::sync::Arc::new(tokio::sync::Semaphore::new(16));
        let (sender, mut waits) = tokio::sync::mpsc::unbounded_channel();
        let (due, free) = (queue.clone(), workers.clone());
        tokio::spawn(async move {
            loop {
                let worker = free.clone().acquire_owned().await.unwrap();
                let (key, waited) = due.next().await;
                let (due, sender) = (due.clone(), sender.clone());
                tokio::spawn(async move {
                    let is_noisy = key.namespace == "noisy";
                    tokio::time::sleep(if is_noisy { Duration::from_secs(10) } else { Duration::from_millis(5) }).await;
                    sender.send((is_noisy, waited)).unwrap();
                    due.done(&key, None, Duration::ZERO);
                    drop(worker);
                });
            }
        });
        for number in 0..100 {
            queue.add([of("quiet", format!("web-{number}"))]);
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(workers.available_permits() >= 16 - 4 - 1, "a quarter, and the worker that waits");
        }
        let mut quiet = Vec::new();
        while let Ok((is_noisy, waited)) = waits.try_recv() {
            quiet.extend((!is_noisy).then_some(waited));
        }
        assert_eq!(quiet.len(), 100);
        assert_eq!(quiet.into_iter().max(), Some(Duration::ZERO), "as without the noise");
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
