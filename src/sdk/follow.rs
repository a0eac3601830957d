//! Does what the agent says: one stream after the other, for ever.
use std::{
    collections::BTreeMap,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    Stop,
    client::{Client, Events},
    listener::{About, Error, Listener, Unit},
    run,
    watchdog::Watchdog,
    wire::{Answer, Event, Name, Open, Prepare, Running, Start, Word, path, presentable},
};

/// Pause before the first try of another stream; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Follows the agent.
pub struct Follower<L> {
    listener: Arc<L>,
    client: Client,
    watchdog: Arc<Watchdog>,
    instance: String,
    /// How many streams it has tried to open.
    streams: u64,
    /// What runs, or has ended and the agent has yet to hear of it.
    running: Arc<Mutex<BTreeMap<String, Name>>>,
    prepared: BTreeMap<Name, Prepared>,
    /// Ends of what still lets go of something prepared: nothing of that name begins before.
    leaving: BTreeMap<Name, Stop>,
    tasks: JoinSet<()>,
}

struct Prepared {
    unit: Unit,
    task: AbortHandle,
    /// The task has ended, and is dropped.
    ended: Stop,
}

impl<L: Listener> Follower<L> {
    /// With nothing that runs.
    pub fn new(listener: L, client: Client, watchdog: Arc<Watchdog>) -> Self {
        let instance = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Self {
            listener: Arc::new(listener),
            client,
            watchdog,
            instance,
            streams: 0,
            running: Arc::default(),
            prepared: BTreeMap::new(),
            leaving: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// What runs goes on between two streams, up to its deadline. Returns once there is no stream, nothing runs, and this
    /// process is an orphan.
    pub async fn follow(&mut self, is_orphan: fn() -> bool) {
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        loop {
            let hello = self.hello();
            let error = match self.client.open(hello).await {
                Ok(events) => {
                    tracing::info!("connected to the agent of this Pod");
                    pause = PAUSE_MIN;
                    self.obey(events).await
                }
                Err(error) => error,
            };
            // Once each: an agent that is away is away for many tries.
            if told != error.to_string() {
                told = error.to_string();
                tracing::warn!(error = told, "no stream from the agent of this Pod; trying again");
            }
            self.unprepare_all();
            if self.watchdog.is_idle() && is_orphan() {
                return;
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// What opens the next stream.
    pub fn hello(&mut self) -> String {
        self.streams += 1;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.iter().map(|(token, name)| Running {
            set: name.set.clone(),
            listener: name.listener.clone(),
            token: token.clone(),
        });
        let open = Open { instance: self.instance.clone(), stream: self.streams, running: running.collect() };
        serde_json::to_string(&open).unwrap_or_default() // JSON cannot fail
    }

    /// Until the stream ends.
    async fn obey(&mut self, mut events: Events) -> io::Error {
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => self.heed(event),
                    Err(error) => return error,
                },
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        }
    }

    /// Does what an event says.
    pub fn heed(&mut self, event: Event) {
        self.leaving.retain(|_, left| !left.is_cancelled());
        match event {
            Event::Prepare(prepare) => self.prepare(prepare),
            Event::Unprepare(name) => self.unprepare(&name),
            Event::Start(start) => self.start(start),
            Event::Deadline(deadline) => self.watchdog.extend(deadline.deadline),
            Event::Stop(stop) => {
                tracing::info!(listener = stop.listener, set = stop.set, "a listener is to stop");
                let is_known = self.running.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&stop.token);
                if is_known {
                    self.watchdog.stop(&stop.token, stop.deadline);
                } else {
                    // It ended just when this stream was opened, and the agent has heard that first.
                    let client = self.client.clone();
                    let name = Name { set: stop.set, listener: stop.listener };
                    let answer = Answer { token: Some(stop.token), ..Answer::default() };
                    self.tasks.spawn(async move { run::confess(&client, &name, &answer).await });
                }
            }
        }
    }

    fn start(&mut self, start: Start) {
        let name = Name { set: start.set.clone(), listener: start.listener.clone() };
        let mut before: Vec<Stop> = self.leaving.get(&name).cloned().into_iter().collect();
        if let Some(prepared) = self.prepared.remove(&name) {
            prepared.task.abort();
            before.push(prepared.ended);
        }
        tracing::info!(listener = start.listener, set = start.set, token = start.token, "a listener starts");
        self.watchdog.extend(start.deadline);
        let token = start.token.clone();
        let is_new =
            self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), name.clone()).is_none();
        if !is_new {
            return; // no start happens twice
        }
        // At once: the next event may be its stop.
        let watch = self.watchdog.watch(&token, name);
        let run = run::run(self.listener.clone(), self.client.clone(), watch, before, start);
        let running = self.running.clone();
        self.tasks.spawn(async move {
            run.await;
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
        });
    }

    fn prepare(&mut self, prepare: Prepare) {
        let name = Name { set: prepare.set, listener: prepare.listener };
        self.unprepare(&name);
        let about = About {
            name: name.clone(),
            config: prepare.config,
            connect_timeout: Duration::from_secs(prepare.connect_timeout_seconds.into()),
            use_proxy: prepare.use_proxy,
        };
        let unit = Unit { about: Arc::new(about), said: None };
        let (listener, client, of) = (self.listener.clone(), self.client.clone(), unit.clone());
        let (before, ended) = (self.leaving.get(&name).cloned(), Stop::new());
        let end = ended.clone().drop_guard();
        let task = self.tasks.spawn(async move {
            let _end = end;
            if let Some(before) = before {
                before.cancelled().await;
            }
            let prepares = AssertUnwindSafe(async { listener.prepare(&of).await }).catch_unwind();
            let (word, reason) = match prepares.await {
                Ok(Ok(())) => (Word::Prepared, None),
                Ok(Err(error)) => (Word::Failed, Some(presentable(&error.to_string()))),
                Err(_) => (Word::Failed, Some(Error::new("Panicked", "it has panicked; see the log").to_string())),
            };
            let answer = serde_json::to_string(&Answer { reason, ..Answer::default() }).unwrap_or_default();
            let name = &of.about.name;
            // Should it be lost, it is asked for again with the next stream.
            if let Err(error) = client.say(&path(name, word), answer).await {
                tracing::warn!(listener = %name, %error, "cannot tell the agent that a listener is prepared");
            }
        });
        self.prepared.insert(name, Prepared { unit, task, ended });
    }

    fn unprepare(&mut self, name: &Name) {
        if let Some(Prepared { unit, task, ended }) = self.prepared.remove(name) {
            task.abort();
            let (listener, left) = (self.listener.clone(), Stop::new());
            let end = left.clone().drop_guard();
            let before = self.leaving.insert(name.clone(), left);
            self.tasks.spawn(async move {
                let _end = end;
                ended.cancelled().await;
                if let Some(before) = before {
                    before.cancelled().await;
                }
                listener.unprepare(&unit).await;
            });
        }
    }

    fn unprepare_all(&mut self) {
        while let Some(name) = self.prepared.keys().next().cloned() {
            self.unprepare(&name);
        }
    }
}
