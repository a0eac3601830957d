//! I/O in: one watch per kind and namespace fills the [`Index`]; every event names the Rollouts and ListenerSets it touches.
//!
//! - [`watch`]: list, watch, resume, list anew; never silent for ever.
//! - [`barrier`]: our own writes must have come back before the next decision.
//!
//! The watches run from the start, leader or not: a standby's caches are warm. They are not kube's `watcher` because that
//! keeps resourceVersions and bookmarks to itself (the barrier needs both), freezes for ever on HTTP 410 at the start of a
//! watch, and has no limit on silence.
pub mod barrier;
pub mod watch;

mod named;
mod page;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::ConfigMap};
use kube::{Api, Client, Resource};
use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument;

pub use self::barrier::{Barrier, Doubt};
use self::{
    named::{Followed, Wanted},
    watch::{Refresh, Refresher, Selection, Settings, Watch},
};
use crate::{
    api::{ListenerSet, Rollout, names},
    snapshot::{
        guard::DeserializeGuard,
        index::{Event, Index, Kind, ObjectKey, Scope, Touched},
        lists::Lists,
        wire::{EndpointSliceView, JobView, LeaseView, NodeView, PodView, RevisionView, ServiceView},
    },
};

/// What the watches know, and how to ask them to look again.
pub struct Observer {
    state: Arc<Mutex<State>>,
    rollouts: Refresher,
    pods: Refresher,
    revisions: Refresher,
    sets: Refresher,
    agents: Refresher,
    leases: Refresher,
    jobs: Refresher,
    hook_pods: Refresher,
    trigger: Trigger,
    /// Of [`Self::uptime`].
    began: Instant,
}

#[derive(Default)]
struct State {
    index: Index,
    /// Objects whose barrier was not met when last looked at: woken by anything that moves a watch on, even when it does
    /// not touch them.
    waiting: Touched,
}

/// Which kind of object a look is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A Rollout.
    Rollout,
    /// A ListenerSet.
    ListenerSet,
}

/// Called with what an event touches. Must not block.
pub type Trigger = Arc<dyn Fn(Touched) + Send + Sync>;

impl Observer {
    /// Starts the watches as tasks of `tasks`; none of them ever ends by itself. `scopes` is one entry without a namespace,
    /// or the namespaces. Nodes are watched only cluster-wide, and only where that is allowed. What only ListenerSets look
    /// at may be refused or not be served: Rollouts do without it.
    pub fn start(
        client: &Client,
        scopes: &[Scope],
        settings: &Settings,
        rng: &mut fastrand::Rng,
        trigger: &Trigger,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let began = Instant::now();
        let mut start = Start { client, scopes, settings, rng, trigger, tasks, state: &state };
        let owned = Selection::labels(names::LABEL_ROLLOUT);
        let (services, wanted_services) = named::channel();
        let (endpoints, wanted_endpoints) = named::channel();
        let rollouts = start.kind::<Rollout>("Rollout", &Selection::default(), true, move |index, scope, event| {
            let rollouts = index.on_rollout(scope, event);
            services.want(index.services_wanted());
            endpoints.want(index.endpoints_wanted());
            index.with_their_sets(rollouts)
        });
        let pods = start.rollout_kind::<PodView>("Pod", &owned, Index::on_pod);
        let revisions = start.rollout_kind::<RevisionView>("ControllerRevision", &owned, Index::on_revision);
        if scopes.contains(&None) {
            start.nodes();
        }
        let (config_maps, wanted_config_maps) = named::channel();
        let followed = Followed { name: "ConfigMap", read: Lists::from, take: Index::on_config_map };
        start.follow::<ConfigMap, _>(wanted_config_maps, followed);
        let sets =
            start.kind::<ListenerSet>("ListenerSet", &Selection::default(), false, move |index, scope, event| {
                let touched = index.on_set(scope, event);
                config_maps.want(index.config_maps_wanted());
                touched
            });
        let with_agent = Selection::labels(&format!("{}=true", names::LABEL_AGENT));
        let agents = start.kind::<PodView>("Pod with agent", &with_agent, false, |index, scope, event| {
            index.on_agent_pod(scope, event.map(PodView::from))
        });
        let of_hand_off = Selection::labels(names::LABEL_LEASE);
        let leases = start.kind::<LeaseView>("Lease", &of_hand_off, false, move |index, scope, event| {
            index.on_lease(scope, event.map(LeaseView::from), began.elapsed())
        });
        // Rollouts without hooks do without them.
        let of_hooks = Selection::labels(names::LABEL_HOOK);
        let jobs = start.kind::<JobView>("Job", &of_hooks, false, |index, scope, event| {
            let rollouts = index.on_job(scope, event.map(JobView::from));
            index.with_their_sets(rollouts)
        });
        let hook_pods = start.kind::<PodView>("Pod of a hook", &of_hooks, false, |index, scope, event| {
            let rollouts = index.on_hook_pod(scope, event.map(PodView::from));
            index.with_their_sets(rollouts)
        });
        let take = |index: &mut Index, key: &ObjectKey, event: Event<ServiceView>| {
            let rollouts = index.on_service(key, event);
            index.with_their_sets(rollouts)
        };
        let take_slice = |index: &mut Index, key: &ObjectKey, event: Event<EndpointSliceView>| {
            let rollouts = index.on_endpoints(key, event);
            index.with_their_sets(rollouts)
        };
        let followed = Followed { name: "EndpointSlice", read: |slice| slice, take: take_slice };
        start.follow::<EndpointSliceView, _>(wanted_endpoints, followed);
        start.follow(wanted_services, Followed { name: "Service", read: |service| service, take });
        Self {
            state,
            rollouts,
            pods,
            revisions,
            sets,
            agents,
            leases,
            jobs,
            hook_pods,
            trigger: trigger.clone(),
            began,
        }
    }

    /// The operator's own clock: by it the silence of sessions is measured.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// True once every kind that Rollouts need has been listed.
    pub fn is_synced(&self) -> bool {
        self.unsynced().is_empty()
    }

    /// Kinds that have not been listed yet, of those that Rollouts need; for people.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let kinds = [("Rollouts", &self.rollouts), ("Pods", &self.pods), ("ControllerRevisions", &self.revisions)];
        kinds.into_iter().filter(|(_, refresher)| !refresher.reached(1)).map(|(name, _)| name).collect()
    }

    /// Lists every kind anew that Rollouts need, and waits for it: what others wrote before this call is known after it.
    pub async fn refresh(&self) {
        relist(&[&self.rollouts, &self.pods, &self.revisions]).await;
        self.refresh_hooks().await;
    }

    /// The same with what only hooks look at, unless that may not be listed: an old view of a Job would have its hook run again.
    async fn refresh_hooks(&self) {
        /// How often it is asked whether that may be listed at all.
        const ASKED_EACH: Duration = Duration::from_millis(200);
        for refresher in [&self.jobs, &self.hook_pods] {
            let number = refresher.request();
            while !refresher.is_refused() && tokio::time::timeout(ASKED_EACH, refresher.wait(number)).await.is_err() {}
        }
    }

    /// The same with what only ListenerSets look at. Pending for ever where that may not be listed.
    pub async fn refresh_sets(&self) {
        relist(&[&self.sets, &self.agents, &self.leases]).await;
    }

    /// True while something that only ListenerSets look at may not be listed, or is not served.
    pub fn are_sets_refused(&self) -> bool {
        [&self.sets, &self.agents, &self.leases].into_iter().any(Refresher::is_refused)
    }

    /// Tells the ListenerSets that the Pods of a Rollout serve which of these are to leave.
    pub fn note_leaving(&self, rollout: &ObjectKey, leaving: &BTreeSet<String>) {
        let touched = self.lock().index.on_leaving(rollout, leaving);
        if !touched.is_empty() {
            (self.trigger)(touched);
        }
    }

    /// Looks at the index. The closure must be short: the watches wait meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.lock().index)
    }

    /// Looks at the index if the barrier is met, at one and the same moment. None while our own writes have not come back;
    /// then the object is triggered as soon as the watches have moved on.
    pub fn look_past<T>(
        &self,
        barrier: &mut Barrier,
        subject: Subject,
        key: &ObjectKey,
        look: impl FnOnce(&Index) -> T,
    ) -> Option<T> {
        let mut state = self.lock();
        let is_met = barrier.is_met(&state.index, &key.namespace, |kind, number| self.refresher(kind).reached(number));
        let waiting = match subject {
            Subject::Rollout => &mut state.waiting.rollouts,
            Subject::ListenerSet => &mut state.waiting.sets,
        };
        if is_met {
            waiting.remove(key);
            return Some(look(&state.index));
        }
        waiting.insert(key.clone());
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
            Kind::ListenerSet => &self.sets,
            Kind::AgentPod => &self.agents,
            Kind::Lease => &self.leases,
            Kind::Job => &self.jobs,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists anew, and waits for it.
async fn relist(refreshers: &[&Refresher]) {
    let wanted: Vec<_> = refreshers.iter().map(|refresher| (refresher, refresher.request())).collect();
    for (refresher, generation) in wanted {
        refresher.wait(generation).await;
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
    /// One watch per scope on a kind that Rollouts need. What touches a Rollout touches the sets that its Pods serve.
    fn rollout_kind<K>(
        &mut self,
        name: &'static str,
        selection: &Selection,
        take: fn(&mut Index, &Scope, Event<K>) -> BTreeSet<ObjectKey>,
    ) -> Refresher
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + watch::Watchable + From<DeserializeGuard<K>>,
    {
        self.kind(name, selection, true, move |index, scope, event| {
            let rollouts = take(index, scope, event.map(K::from));
            index.with_their_sets(rollouts)
        })
    }

    /// One watch per scope on a namespaced kind.
    fn kind<K>(
        &mut self,
        name: &'static str,
        selection: &Selection,
        required: bool,
        take: impl Fn(&mut Index, &Scope, Event<DeserializeGuard<K>>) -> Touched + Clone + Send + 'static,
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
            let (scope, take) = (scope.clone(), take.clone());
            self.spawn(api, name, selection.clone(), refresher.subscribe(), required, move |index, event| {
                take(index, &scope, event)
            });
        }
        refresher
    }

    /// The watch on Nodes. It is not waited for: without it a Terminating Pod on a dead Node merely counts for longer.
    fn nodes(&mut self) {
        let api = Api::<DeserializeGuard<NodeView>>::all(self.client.clone());
        let refresh = Refresher::default().subscribe();
        self.spawn(api, "Node", Selection::default(), refresh, false, |index, event| {
            let rollouts = index.on_node(event.map(NodeView::from));
            index.with_their_sets(rollouts)
        });
    }

    /// Watches on the objects of a kind that others name, each by itself.
    fn follow<K, R: 'static>(&mut self, wanted: Wanted, followed: Followed<K, R>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + watch::Watchable,
    {
        let (client, settings, sink) = (self.client.clone(), self.settings.clone(), self.sink());
        self.tasks.spawn(wanted.follow(followed, client, settings, self.rng.fork(), sink).in_current_span());
    }

    fn sink(&self) -> Sink {
        Sink { state: self.state.clone(), trigger: self.trigger.clone() }
    }

    fn spawn<K: watch::Watchable>(
        &mut self,
        api: Api<DeserializeGuard<K>>,
        name: &'static str,
        selection: Selection,
        refresh: Refresh,
        required: bool,
        take: impl Fn(&mut Index, Event<DeserializeGuard<K>>) -> Touched + Send + 'static,
    ) {
        let sink = self.sink();
        let watch =
            Watch { api, name, selection, settings: self.settings.clone(), refresh, rng: self.rng.fork(), required };
        self.tasks.spawn(watch.run(move |event| sink.take(event, &take)).in_current_span());
    }
}

/// Where events go.
#[derive(Clone)]
struct Sink {
    state: Arc<Mutex<State>>,
    trigger: Trigger,
}

impl Sink {
    fn take<K>(&self, event: Event<K>, take: impl Fn(&mut Index, Event<K>) -> Touched) {
        let moved_on = matches!(event, Event::Progressed(_) | Event::Listed { .. });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut touched = take(&mut state.index, event);
        if moved_on {
            touched.rollouts.append(&mut state.waiting.rollouts);
            touched.sets.append(&mut state.waiting.sets);
        }
        drop(state);
        if !touched.is_empty() {
            (self.trigger)(touched);
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
