//! An API server in the process: what a real one does to requests, on a given clock, with given randomness, and with
//! faults where a simulation wants them.
//!
//! - [`ApiServer::client`]: a `kube::Client` of a named process. Every request passes [`faults::Faults`] on the way in and
//!   out, and is noted in the [`audit`].
//! - [`ApiServer::actor`]: the same without HTTP, delays or faults, for the world around: kubelets, schedulers, users.
//! - [`ApiServer::subscribe`]: every commit, in order, for oracles.
//!
//! Whether it does what the real one does is what the contract tests ask. It is deterministic: no clock but the given one,
//! no randomness but the seed's, nothing whose order is random; requests are tasks of the current tokio runtime.
pub mod actor;
pub mod admission;
pub mod audit;
mod defaults;
pub mod delete;
#[cfg(test)]
mod fault_tests;
pub mod faults;
mod garbage;
mod http;
pub mod kinds;
pub mod list;
pub mod object;
mod path;
pub mod refusal;
mod resize;
mod rules;
mod scale;
mod schema;
pub mod selectors;
#[cfg(feature = "testbed")]
pub mod socket;
pub mod store;
#[cfg(test)]
mod tests;
mod upkeep;
pub mod validate;
pub mod watch;
pub mod write;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use baton::operator::clock::Clock;
use jiff::Timestamp;

use self::{
    actor::Actor,
    admission::{Admission, Policy},
    audit::{Audit, Entry},
    faults::{Ending, Faults, NoFaults, StreamFate, StreamInfo, Verb},
    store::{Change, Store},
    watch::Streams,
    write::Caller,
};

/// How a server begins.
pub struct Options {
    /// For uids and generated names.
    pub seed: u64,
    /// The server's time of day.
    pub clock: Clock,
    /// resourceVersion before the first write.
    pub first_revision: u64,
    /// Changes that are remembered; what is older is compacted.
    pub history_max: usize,
    /// Requests that the audit remembers.
    pub audit_max: usize,
    /// Whether creating in a namespace needs the Namespace.
    pub needs_namespaces: bool,
}

impl Options {
    /// With room for a simulation of minutes.
    pub fn new(seed: u64, clock: Clock) -> Self {
        let (history_max, audit_max) = (100_000, 100_000);
        Self { seed, clock, first_revision: 100, history_max, audit_max, needs_namespaces: false }
    }
}

/// A write that was done.
#[derive(Clone, Debug)]
pub struct Commit {
    /// By the server's clock.
    pub at: Timestamp,
    pub who: Arc<str>,
    /// Id of the request; 0 of what asks without one.
    pub request: u64,
    pub verb: Verb,
    /// Object before and after, its kind and revision.
    pub change: Change,
}

/// A server. Clones are the same one.
#[derive(Clone)]
pub struct ApiServer(Arc<Shared>);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    subscribers: Mutex<Vec<Subscriber>>,
}

type Subscriber = Box<dyn FnMut(&Commit) + Send>;

/// Everything behind the lock.
pub struct State {
    store: Store,
    streams: Streams,
    faults: Box<dyn Faults>,
    admission: Admission,
    audit: Audit,
    rng: fastrand::Rng,
    needs_namespaces: bool,
    requests: u64,
    /// Commits that the subscribers have not been told yet.
    untold: VecDeque<Commit>,
    /// Somebody is telling them.
    is_telling: bool,
}

impl State {
    /// After a write: everybody is told.
    fn committed(&mut self, caller: &Caller, verb: Verb, change: Change) {
        self.streams.feed(&change, self.faults.as_mut());
        self.untold.push_back(Commit {
            at: caller.now,
            who: caller.who.clone(),
            request: caller.request,
            verb,
            change,
        });
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }
}

impl ApiServer {
    /// With nothing in it.
    pub fn new(options: Options) -> Self {
        let state = State {
            store: Store::new(options.first_revision, options.history_max),
            streams: Streams::default(),
            faults: Box::new(NoFaults),
            admission: Admission::default(),
            audit: Audit::new(options.audit_max),
            rng: fastrand::Rng::with_seed(options.seed),
            needs_namespaces: options.needs_namespaces,
            requests: 0,
            untold: VecDeque::new(),
            is_telling: false,
        };
        Self(Arc::new(Shared { clock: options.clock, state: state.into(), subscribers: Mutex::default() }))
    }

    /// A client for the process called `who`. Make it within the runtime that it is used in.
    pub fn client(&self, who: &str) -> kube::Client {
        kube::Client::new(http::service(self.clone(), who), "default")
    }

    /// Somebody of the world, called `who`.
    pub fn actor(&self, who: &str) -> Actor {
        Actor::new(self.clone(), who)
    }

    /// Lets things go wrong from now on.
    pub fn set_faults(&self, faults: impl Faults + 'static) {
        self.lock().faults = Box::new(faults);
    }

    /// Has every commit told to `subscriber`, in order, after those who subscribed earlier. It may call the server.
    pub fn subscribe(&self, subscriber: impl FnMut(&Commit) + Send + 'static) {
        self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(subscriber));
    }

    /// Nobody is told any more, and nothing goes wrong: who subscribed, or makes things go wrong, may hold this server itself.
    pub fn close(&self) {
        self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.set_faults(NoFaults);
    }

    /// Puts a policy in force, or out of it.
    pub fn set_policy(&self, name: &str, policy: Option<Policy>) {
        self.lock().admission.set_policy(name, policy);
    }

    /// Looks at the objects. The closure must not call the server.
    pub fn look<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.lock().store)
    }

    /// Looks at the requests so far. The closure must not call the server.
    pub fn audit<T>(&self, look: impl FnOnce(&Audit) -> T) -> T {
        look(&self.lock().audit)
    }

    /// Forgets everything before `revision`: lists and watches of that are answered with 410.
    pub fn compact(&self, revision: u64) {
        self.lock().store.compact(revision);
    }

    /// Watches that are open, in the order in which they began.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.lock().streams.infos().cloned().collect()
    }

    /// Gives watches another fate; its times count from now.
    pub fn change_fates(&self, which: impl Fn(&StreamInfo) -> bool, fate: &StreamFate) {
        self.lock().streams.change_fates(which, fate);
    }

    /// Ends watches now.
    pub fn end_streams(&self, which: impl Fn(&StreamInfo) -> bool, ending: Ending) {
        let fate = StreamFate { end_after: Some((std::time::Duration::ZERO, ending)), ..StreamFate::default() };
        self.change_fates(which, &fate);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the state as `who`, then tells the subscribers of what was committed.
    fn act<T>(
        &self,
        (who, request): (&Arc<str>, u64),
        is_dry_run: bool,
        act: impl FnOnce(&mut State, &Caller) -> T,
    ) -> T {
        let caller = Caller { who: who.clone(), request, now: self.0.clock.now(), is_dry_run };
        let done = act(&mut self.lock(), &caller);
        self.tell();
        done
    }

    /// A subscriber that writes is told of that after all others have been told of what it was called for.
    fn tell(&self) {
        loop {
            let mut state = self.lock();
            if state.is_telling {
                return;
            }
            let Some(commit) = state.untold.pop_front() else { return };
            state.is_telling = true;
            drop(state);
            let mut subscribers = self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            subscribers.iter_mut().for_each(|subscriber| subscriber(&commit));
            self.lock().is_telling = false;
        }
    }

    fn note(&self, entry: Entry) {
        self.lock().audit.note(entry);
    }
}
