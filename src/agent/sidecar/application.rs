//! The application beside the agent, as what runs listeners.
use std::{
    fs::{File, TryLockError},
    future::pending,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use tokio::{runtime::Handle, sync::watch, time::sleep};

use super::{
    desk::{Connected, Desk},
    record::Record,
    refusal::Refusal,
};
use crate::{
    agent::{
        boottime::{Alarm, Boottime},
        exec::Environment,
        session::runner::{Happening, Id, Runner},
    },
    sdk::wire::{Answer, Event, Fence, LOCK_FILE, Name, Open, Word},
};

/// Between two looks at the lock of an application that has no stream.
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// What the agent's loop and the local HTTP server share.
pub struct Application {
    known: Mutex<Known>,
    /// An application on the SDK keeps this file locked for as long as anything of it runs.
    lock: PathBuf,
    /// Something has changed: look again.
    changes: watch::Sender<()>,
}

struct Known {
    desk: Desk,
    record: Record,
}

impl Application {
    /// Of the Pod whose containers share this folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn new(folder: &Path) -> anyhow::Result<Arc<Self>> {
        let (record, earlier) = Record::open(folder, Boottime::now()).with_context(|| {
            let folder = folder.display();
            format!(
                "cannot use {folder}. All containers of the Pod share that folder: mount an emptyDir there, or name \
                     another one with --state-dir"
            )
        })?;
        let known = Mutex::new(Known { desk: Desk::new(earlier).after(record.last_stream()), record });
        Ok(Arc::new(Self { known, lock: folder.join(LOCK_FILE), changes: watch::Sender::new(()) }))
    }

    /// The file that a process keeps locked. None: no process does, or it cannot be told.
    fn locked(&self) -> Option<File> {
        let file = File::open(&self.lock).ok()?;
        let is_locked = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        is_locked.then_some(file)
    }

    /// Waits until the process that had the stream of this number has ended, as its lock shows, or has another stream.
    async fn watch_lock(self: Arc<Self>, number: u64, lock: File) {
        while self.known().desk.is_last(number) {
            if lock.try_lock().is_ok() {
                tracing::info!("the process of the application has ended");
                return self.change(|desk, now| desk.died(number, now));
            }
            sleep(LOCK_EVERY).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something, and has everybody look at what comes of it.
    fn change<T>(&self, act: impl FnOnce(&mut Desk, Boottime) -> T) -> T {
        let outcome = act(&mut self.known().desk, Boottime::now());
        self.changes.send_replace(());
        outcome
    }

    /// Each change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// An application is connected.
    pub fn is_connected(&self) -> bool {
        self.known().desk.is_connected()
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// See [`Desk::connect`].
    pub fn open(self: Arc<Self>, open: Open) -> Result<Stream, Refusal> {
        let (instance, by_number, count) = (open.instance.clone(), open.stream, open.running.len());
        let outcome = {
            let mut known = self.known();
            let Known { desk, record } = &mut *known;
            desk.connect(open, Boottime::now()).and_then(|connected| {
                record.opened(&instance, by_number).map_err(|error| {
                    tracing::error!(%error, "a stream cannot be written down: it does not begin");
                    desk.disconnect(connected.number);
                    Refusal::unwritten()
                })?;
                Ok(connected)
            })
        };
        self.changes.send_replace(());
        let Connected { number, replaces } = outcome?;
        tracing::info!(instance, running = count, "an application has connected");
        let lock = self.locked();
        Ok(Stream { changes: self.changes(), application: self, number, lock, replaces })
    }

    /// What the application says of a listener.
    ///
    /// # Errors
    /// See [`Desk::hear`].
    pub fn hear(&self, name: &Name, word: Word, answer: Answer) -> Result<(), Refusal> {
        self.change(|desk, now| desk.hear(name, word, answer, now))
    }

    /// What holds for a listener that runs.
    ///
    /// # Errors
    /// It does not run here.
    pub fn fence(&self, name: &Name) -> Result<Fence, Refusal> {
        let mut known = self.known();
        let Known { desk, record } = &mut *known;
        // It tells a deadline too, which the next agent must know.
        if let Err(error) = record.write(desk.sent()) {
            tracing::error!(%error, "a deadline cannot be written down: the application is not told of it");
            return Err(Refusal::unwritten());
        }
        desk.fence(name, Boottime::now())
    }

    /// Waits until nothing is left of what an earlier agent of this Pod has begun, then runs listeners. Cancel-safe.
    ///
    /// # Errors
    /// There is no timer.
    pub async fn outlive_earlier(self: Arc<Self>) -> anyhow::Result<Beside> {
        let mut beside = Beside { changes: self.changes(), application: self, alarm: Alarm::new()? };
        let mut told = false;
        loop {
            beside.changes.borrow_and_update();
            if beside.application.known().desk.is_clear(Boottime::now()) {
                return Ok(beside);
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!("waiting for the end of what an earlier agent of this Pod may have begun");
            }
            beside.wait().await;
        }
    }
}

/// The stream of events to an application; dropped, it has ended.
pub struct Stream {
    application: Arc<Application>,
    number: u64,
    /// What its process keeps locked.
    lock: Option<File>,
    replaces: bool,
    changes: watch::Receiver<()>,
}

impl Stream {
    /// Another process had the stream before: what was asked of us by that one is over.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// The next event. None: it has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.changes.borrow_and_update();
            match self.take() {
                ControlFlow::Continue(Some(event)) => {
                    // It may have been a start, of whose end a timer is to tell.
                    self.application.changes.send_replace(());
                    return Some(event);
                }
                ControlFlow::Continue(None) => self.changes.changed().await.ok()?,
                ControlFlow::Break(()) => return None,
            }
        }
    }

    /// What is to be told now; a break: it has ended.
    fn take(&self) -> ControlFlow<(), Option<Event>> {
        let mut known = self.application.known();
        let Known { desk, record } = &mut *known;
        let event = desk.tell(self.number, Boottime::now());
        if !desk.is_stream(self.number) {
            return ControlFlow::Break(());
        }
        // Before it can be read: the next agent must know.
        if let Err(error) = record.write(desk.sent()) {
            tracing::error!(%error, "a deadline cannot be written down: the application is not told of it");
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(event)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        tracing::info!("the stream of an application has ended");
        self.application.change(|desk, _| desk.disconnect(self.number));
        if let (Some(lock), Ok(runtime)) = (self.lock.take(), Handle::try_current()) {
            runtime.spawn(Arc::clone(&self.application).watch_lock(self.number, lock));
        }
    }
}

/// Runs listeners in the application.
pub struct Beside {
    application: Arc<Application>,
    changes: watch::Receiver<()>,
    alarm: Alarm,
}

impl Beside {
    /// Until something has changed, or it is time for something. Cancel-safe.
    async fn wait(&mut self) {
        let Self { application, changes, alarm } = self;
        let wake = application.known().desk.wake();
        let rings = async {
            match wake {
                Some(at) => alarm.at(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {} // an error cannot be: we hold the sender
            rung = rings => {
                if let Err(error) = rung {
                    tracing::error!(%error, "no timer");
                }
            }
        }
    }
}

impl Runner for Beside {
    fn prepare(&mut self, id: &Id, task: Environment) {
        self.application.change(|desk, _| desk.prepare(id, task));
    }

    fn unprepare(&mut self, id: &Id) {
        self.application.change(|desk, _| desk.unprepare(id));
    }

    fn start(&mut self, id: &Id, task: Environment, until: Boottime) -> io::Result<()> {
        self.application.change(|desk, _| desk.start(id, task, until)).map_err(io::Error::other)
    }

    fn stop(&mut self, id: &Id, grace: Duration) {
        self.application.change(|desk, now| desk.stop(id, grace, now));
    }

    fn extend(&mut self, until: Boottime) {
        self.application.change(|desk, _| desk.extend(until));
    }

    fn lacks_record(&self) -> bool {
        self.application.known().record.is_new()
    }

    async fn next(&mut self) -> (Id, Happening) {
        loop {
            self.changes.borrow_and_update();
            let (happening, has_hung_up) = {
                let desk = &mut self.application.known().desk;
                let was_connected = desk.is_connected();
                (desk.happened(Boottime::now()), was_connected && !desk.is_connected())
            };
            if has_hung_up {
                self.application.changes.send_replace(());
            }
            if let Some(happening) = happening {
                return happening;
            }
            self.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn task() -> Environment {
        Environment {
            set: "bots".into(),
            listener: "one".into(),
            config: "{}".into(),
            fence_token: "t1".into(),
            resume: None,
            connect_timeout_seconds: 30,
            use_proxy: false,
            stop_timeout_seconds: 10,
        }
    }

    /// H13: an application that dies has ended at once, not at its deadline; one that lives has not.
    #[tokio::test]
    async fn a_free_lock_proves_that_the_application_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let process = File::create(folder.path().join(LOCK_FILE)).unwrap();
        process.lock().unwrap();
        let application = Application::new(folder.path()).unwrap();
        let mut beside = Arc::clone(&application).outlive_earlier().await.unwrap();
        let open = Open { instance: "a".into(), stream: 1, running: Vec::new() };
        let mut stream = Arc::clone(&application).open(open).unwrap();
        beside.start(&"uid-1".to_owned(), task(), Boottime::now().after(Duration::from_mins(10))).unwrap();
        while !matches!(stream.next().await, Some(Event::Start(_))) {}
        drop(stream);
        assert!(timeout(3 * LOCK_EVERY, beside.next()).await.is_err(), "the process lives");
        drop(process);
        let (_, happening) = timeout(Duration::from_secs(10), beside.next()).await.unwrap();
        assert!(matches!(&happening, Happening::Failed(why) if why.starts_with("ApplicationEnded")), "{happening:?}");
        let (_, happening) = timeout(Duration::from_secs(10), beside.next()).await.unwrap();
        assert!(matches!(happening, Happening::Ended(_)), "{happening:?}");
    }
}
