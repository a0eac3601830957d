//! I/O in: one watch per kind and namespace fills the [`Index`]; every event names the Rollouts it touches.
//!
//! - [`watch`]: list, watch, resume, list anew; never silent for ever.
//! - [`barrier`]: our own writes must have come back before the next decision.
//!
//! The watches run from the start, leader or not: a standby's caches are warm. They are not kube's `watcher` because that
//! keeps resourceVersions and bookmarks to itself (the barrier needs both), freezes for ever on HTTP 410 at the start of a
//! watch, and has no limit on silence.
pub mod barrier;
pub mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{NamespaceResourceScope, api::apps::v1::ControllerRevision};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;

pub use self::barrier::{Barrier, Doubt};
use self::watch::{Refresh, Refresher, Selection, Settings, Watch};
use crate::{
    api::{Rollout, names},
    snapshot::{
        guard::DeserializeGuard,
        index::{Event, Index, Kind, ObjectKey, Scope},
        wire::{NodeView, PodView},
    },
};

/// What the watches know, and how to ask them to look again.
pub struct Observer {
    state: Arc<Mutex<State>>,
    rollouts: Refresher,
    pods: Refresher,
    revisions: Refresher,
}

#[derive(Default)]
struct State {
    index: Index,
    /// Rollouts whose barrier was not met when last looked at: woken by anything that moves a watch on, even when it does
    /// not touch them.
    waiting: BTreeSet<ObjectKey>,
}

/// Called with the Rollouts that an event touches. Must not block.
pub type Trigger = Arc<dyn Fn(BTreeSet<ObjectKey>) + Send + Sync>;

impl Observer {
    /// Starts the watches as tasks of `tasks`; none of them ever ends by itself. `scopes` is one entry without a namespace,
    /// or the namespaces. Nodes are watched only cluster-wide, and only where that is allowed.
    pub fn start(
        client: &Client,
        scopes: &[Scope],
        settings: &Settings,
        rng: &mut fastrand::Rng,
        trigger: &Trigger,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let mut start = Start { client, scopes, settings, rng, trigger, tasks, state: &state };
        let owned = Selection::labels(names::LABEL_ROLLOUT);
        let rollouts = start.kind::<DeserializeGuard<Rollout>>("Rollout", &Selection::default(), Index::on_rollout);
        let pods = start.kind::<PodView>("Pod", &owned, Index::on_pod);
        let revisions = start.kind::<ControllerRevision>("ControllerRevision", &owned, Index::on_revision);
        if scopes.contains(&None) {
            start.nodes();
        }
        Self { state, rollouts, pods, revisions }
    }

    /// True once every kind has been listed.
    pub fn is_synced(&self) -> bool {
        self.unsynced().is_empty()
    }

    /// Kinds that have not been listed yet, for people.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let kinds = [("Rollouts", &self.rollouts), ("Pods", &self.pods), ("ControllerRevisions", &self.revisions)];
        kinds.into_iter().filter(|(_, refresher)| !refresher.reached(1)).map(|(name, _)| name).collect()
    }

    /// Lists every kind anew and waits for it: what others wrote before this call is known after it.
    pub async fn refresh(&self) {
        let wanted = [&self.rollouts, &self.pods, &self.revisions].map(|refresher| (refresher, refresher.request()));
        for (refresher, generation) in wanted {
            refresher.wait(generation).await;
        }
    }

    /// Looks at the index. The closure must be short: the watches wait meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.lock().index)
    }

    /// Looks at the index if the barrier is met, at one and the same moment. None while our own writes have not come back;
    /// then the Rollout is triggered as soon as the watches have moved on.
    pub fn look_past<T>(&self, barrier: &mut Barrier, key: &ObjectKey, look: impl FnOnce(&Index) -> T) -> Option<T> {
        let mut state = self.lock();
        if mutant!(StaleCounts)
            || barrier.is_met(&state.index, &key.namespace, |kind, number| self.refresher(kind).reached(number))
        {
            state.waiting.remove(key);
            return Some(look(&state.index));
        }
        state.waiting.insert(key.clone());
        None
    }

    /// Asks for a new list of a kind; the number that [`Barrier::hasten`] waits for.
    pub fn request_list(&self, kind: Kind) -> u64 {
        self.refresher(kind).request()
    }

    fn refresher(&self, kind: Kind) -> &Refresher {
        match kind {
            Kind::Rollout => &self.rollouts,
            Kind::Pod => &self.pods,
            Kind::Revision => &self.revisions,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What starting a watch needs.
struct Start<'a> {
    client: &'a Client,
    scopes: &'a [Scope],
    settings: &'a Settings,
    rng: &'a mut fastrand::Rng,
    trigger: &'a Trigger,
    tasks: &'a mut JoinSet<()>,
    state: &'a Arc<Mutex<State>>,
}

impl Start<'_> {
    /// One watch per scope on a namespaced kind.
    fn kind<K>(
        &mut self,
        name: &'static str,
        selection: &Selection,
        take: fn(&mut Index, &Scope, Event<K>) -> BTreeSet<ObjectKey>,
    ) -> Refresher
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + watch::Watchable,
    {
        let mut refresher = Refresher::default();
        for scope in self.scopes {
            let api = match scope {
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            let scope = scope.clone();
            self.spawn(api, name, selection.clone(), refresher.subscribe(), true, move |index, event| {
                take(index, &scope, event)
            });
        }
        refresher
    }

    /// The watch on Nodes. Nobody waits for it: without it a Terminating Pod on a dead Node merely counts for longer.
    fn nodes(&mut self) {
        let api = Api::<NodeView>::all(self.client.clone());
        let refresh = Refresher::default().subscribe();
        self.spawn(api, "Node", Selection::default(), refresh, false, Index::on_node);
    }

    fn spawn<K: watch::Watchable>(
        &mut self,
        api: Api<K>,
        name: &'static str,
        selection: Selection,
        refresh: Refresh,
        required: bool,
        take: impl Fn(&mut Index, Event<K>) -> BTreeSet<ObjectKey> + Send + 'static,
    ) {
        let (state, trigger) = (self.state.clone(), self.trigger.clone());
        let watch =
            Watch { api, name, selection, settings: self.settings.clone(), refresh, rng: self.rng.fork(), required };
        self.tasks.spawn(watch.run(move |event| {
            let moved_on = matches!(event, Event::Progressed(_) | Event::Listed { .. });
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut touched = take(&mut state.index, event);
            if moved_on {
                touched.append(&mut state.waiting);
            }
            drop(state);
            if !touched.is_empty() {
                trigger(touched);
            }
        }));
    }
}
