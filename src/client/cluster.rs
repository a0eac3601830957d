//! One namespace of a cluster, and what is read of it.
use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{authentication::v1::SelfSubjectReview, core::v1::ConfigMap},
};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

use super::unanswered::{Kind, PATIENCE, Unanswered, asked, in_time, without_secrets};
use crate::{
    api::{ListenerSet, Rollout, names},
    snapshot::{
        Services, Snapshot,
        guard::DeserializeGuard,
        index::{Event, Index, Moment, ObjectKey, Recollection, Scope},
        lease::Ownership,
        listener::SourceError,
        listener_set::SetSnapshot,
        lists::Lists,
        wire::{JobView, LeaseView, PodView, RevisionView, ServiceView},
    },
};

/// An operator that runs has seen a spec by then.
pub const UNSEEN_AFTER: Duration = Duration::from_secs(5);
/// How often it is asked whether it has.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A kind of Baton's own.
pub trait Ours:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// Which one.
    const KIND: Kind;

    /// The generation that an operator has seen.
    fn observed(&self) -> Option<i64>;
}

impl Ours for Rollout {
    const KIND: Kind = Kind::Rollout;

    fn observed(&self) -> Option<i64> {
        self.status.as_ref().and_then(|status| status.observed_generation)
    }
}

impl Ours for ListenerSet {
    const KIND: Kind = Kind::ListenerSet;

    fn observed(&self) -> Option<i64> {
        self.status.as_ref().and_then(|status| status.observed_generation)
    }
}

/// An operator has seen the present spec.
pub fn is_seen(object: &impl Ours) -> bool {
    object.observed() >= object.meta().generation
}

/// Since when the spec is as it is, as far as the API server tells: to the second.
fn changed_at(object: &impl Ours) -> Option<Timestamp> {
    let fields = object.meta().managed_fields.iter().flatten();
    fields.filter(|fields| fields.subresource.is_none()).filter_map(|fields| Some(fields.time.as_ref()?.0)).max()
}

/// What is read of a Rollout beside the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// ControllerRevisions.
    Revisions,
    /// Pods and Services, too.
    All,
}

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks as one person.
    pub client: Client,
    /// Where every object is read that has no other namespace.
    pub namespace: String,
}

impl Cluster {
    /// A connection is made at the first question. None: the namespace that the configuration names.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(mut config: Config, namespace: Option<String>) -> kube::Result<Self> {
        config.connect_timeout = Some(PATIENCE);
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// Objects of this kind in this namespace.
    pub fn api<K: Ours>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Rollouts of this namespace.
    pub fn rollouts(&self) -> Api<Rollout> {
        self.api()
    }

    /// The object of this name.
    ///
    /// # Errors
    /// [`Unanswered`]: it is not there, too.
    pub async fn object<K: Ours>(&self, name: &str) -> Result<K, Unanswered> {
        asked::<K, _>(Some(name), self.api::<K>().get(name)).await
    }

    /// The object, once an operator has seen its present spec: one that runs does so within [`UNSEEN_AFTER`] of the change. Later it
    /// is returned as it is.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub async fn seen<K: Ours>(&self, name: &str) -> Result<K, Unanswered> {
        let began = tokio::time::Instant::now();
        let mut object = Box::pin(self.object::<K>(name)).await?; // a future of many kilobytes
        let age = changed_at(&object).map_or(UNSEEN_AFTER, |at| {
            Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default() // a clock that is behind
        });
        let patience = UNSEEN_AFTER.saturating_sub(age);
        while !is_seen(&object) && began.elapsed() < patience {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            object = Box::pin(self.object(name)).await?;
        }
        Ok(object)
    }

    /// The Rollout of this name.
    ///
    /// # Errors
    /// [`Unanswered`]: it is not there, too.
    pub async fn rollout(&self, name: &str) -> Result<Rollout, Unanswered> {
        self.object(name).await
    }

    /// The ConfigMap of this name, if there is one. Who may see ListenerSets may not see ConfigMaps: the rest is shown all
    /// the same.
    pub async fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, SourceError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let why = match in_time(api.get_opt(name)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(kube::Error::Api(status))) => status.message.clone(),
            Ok(Err(error)) => without_secrets(&error),
            Err(late) => late.to_string(),
        };
        let message = format!("spec.configMap: {why}; it takes get on configmaps to see which listeners no Pod holds");
        Err(SourceError { reason: "ConfigMapUnread", message })
    }

    /// What is known of a ListenerSet without its Pods: the object, the Leases, and the ConfigMap that it names.
    pub async fn set_snapshot(&self, set: ListenerSet) -> Result<SetSnapshot, Unanswered> {
        let key = ObjectKey::of(&set);
        let leases: Api<LeaseView> = Api::namespaced(self.client.clone(), &self.namespace);
        let every = ListParams::default().labels(names::LABEL_LEASE);
        let found = asked::<ListenerSet, _>(None, leases.list(&every)).await?;
        let mut index = Index::default();
        let scope = Some(self.namespace.clone());
        index.on_set(&scope, listed(vec![DeserializeGuard(Ok(set))]));
        index.on_lease(&scope, listed(found.items), Duration::ZERO);
        let mut unread = None;
        for named in index.config_maps_wanted() {
            match self.config_map(&named.name).await {
                Ok(found) => drop(index.on_config_map(&named, listed(found.map(Lists::from).into_iter().collect()))),
                Err(error) => unread = Some(error),
            }
        }
        let moment = Moment { now: Timestamp::now(), uptime: Duration::ZERO };
        let snapshot = index.set_without_pods(&key, moment).ok_or(Unanswered::Unreadable(Kind::ListenerSet))?;
        let listeners = unread.map_or(snapshot.listeners, Err);
        Ok(SetSnapshot { listeners, ..snapshot })
    }

    /// Number of listeners that these Pods hold; None where the caller may not see that.
    pub async fn held_by(&self, pods: &BTreeSet<String>) -> Option<u32> {
        let leases: Api<LeaseView> = Api::namespaced(self.client.clone(), &self.namespace);
        let owned = format!("{}={}", names::LABEL_LEASE, names::LEASE_LISTENER);
        let found = in_time(leases.list(&ListParams::default().labels(&owned))).await.ok()?.ok()?;
        let ownerships = found.items.into_iter().map(|lease| Ownership::of(&lease.into()));
        let held = ownerships.filter(|owned| owned.holder.as_ref().is_some_and(|holder| pods.contains(&holder.pod)));
        u32::try_from(held.count()).ok()
    }

    /// As whom the API server knows the caller; None where it does not say.
    pub async fn caller(&self) -> Option<String> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = in_time(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await.ok()?.ok()?;
        review.status?.user_info?.username
    }

    /// All that the planner may look at, as the operator would see it now, save what only the operator remembers.
    pub async fn snapshot(&self, rollout: Rollout) -> Result<Snapshot, Unanswered> {
        Box::pin(self.snapshot_of(rollout, Reads::All)).await // a future of many kilobytes
    }

    /// The same with as much of it as is read.
    pub async fn snapshot_of(&self, rollout: Rollout, reads: Reads) -> Result<Snapshot, Unanswered> {
        let key = ObjectKey::of(&rollout);
        let mut index = Index::default();
        let scope = Some(self.namespace.clone());
        let has_hooks = !rollout.spec.hooks.is_empty();
        index.on_rollout(&scope, listed(vec![DeserializeGuard(Ok(rollout))]));
        let (pods, revisions) = tokio::join!(
            async { if reads == Reads::All { self.belonging::<PodView>(&key.name).await } else { Ok(Vec::new()) } },
            self.belonging::<RevisionView>(&key.name)
        );
        index.on_pod(&scope, listed(pods?));
        index.on_revision(&scope, listed(revisions?));
        if reads == Reads::All {
            self.read_services(&mut index).await?;
            if has_hooks {
                self.read_hooks(&mut index, &scope).await?;
            }
        }
        let snapshot = index.snapshot(&key, &Recollection::default(), Timestamp::now());
        snapshot.ok_or(Unanswered::Unreadable(Kind::Rollout))
    }

    /// What belongs to the Rollout of this name.
    async fn belonging<K>(&self, name: &str) -> Result<Vec<K>, Unanswered>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let labelled = ListParams::default().labels(&selector(name));
        Ok(asked::<Rollout, _>(None, api.list(&labelled)).await?.items)
    }

    /// The Services that this Rollout names, whether it is there yet or not, and who else names them.
    pub async fn services(&self, rollout: &Rollout) -> Result<Services, Unanswered> {
        let mut index = Index::default();
        let mut rollout = rollout.clone();
        rollout.metadata.namespace = Some(self.namespace.clone());
        let key = ObjectKey::of(&rollout);
        let mut rollouts = Vec::new();
        if rollout.spec.strategy.blue_green.is_some() {
            let all: Api<DeserializeGuard<Rollout>> = Api::namespaced(self.client.clone(), &self.namespace);
            // Who may see one Rollout may not list them: the rest is shown all the same.
            let found = in_time(all.list(&ListParams::default())).await?;
            rollouts.extend(found.into_iter().flatten().filter(|other| ObjectKey::of(other) != key));
        }
        rollouts.push(DeserializeGuard(Ok(rollout)));
        index.on_rollout(&Some(self.namespace.clone()), listed(rollouts));
        self.read_services(&mut index).await?;
        let snapshot = index.snapshot(&key, &Recollection::default(), Timestamp::now());
        Ok(snapshot.map(|snapshot| snapshot.services).unwrap_or_default())
    }

    /// Reads the Jobs of hooks and their Pods. Who may see Rollouts may not see Jobs: the rest is shown all the same.
    async fn read_hooks(&self, index: &mut Index, scope: &Scope) -> Result<(), Unanswered> {
        let jobs: Api<JobView> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods: Api<PodView> = Api::namespaced(self.client.clone(), &self.namespace);
        let of_hooks = ListParams::default().labels(names::LABEL_HOOK);
        let (jobs, pods) = tokio::join!(in_time(jobs.list(&of_hooks)), in_time(pods.list(&of_hooks)));
        if let (Ok(jobs), Ok(pods)) = (jobs?, pods?) {
            index.on_job(scope, listed(jobs.items));
            index.on_hook_pod(scope, listed(pods.items));
        }
        Ok(())
    }

    /// Reads the Services that Rollouts name. Who may see Rollouts may not see Services: the rest is shown all the same.
    async fn read_services(&self, index: &mut Index) -> Result<(), Unanswered> {
        let api: Api<ServiceView> = Api::namespaced(self.client.clone(), &self.namespace);
        for named in index.services_wanted() {
            if let Ok(found) = in_time(api.get_opt(&named.name)).await? {
                index.on_service(&named, listed(found.into_iter().collect()));
            }
        }
        Ok(())
    }
}

/// Pods and ControllerRevisions of a Rollout carry this label; which of them are its own, their ownerRef tells.
pub fn selector(name: &str) -> String {
    format!("{}={name}", names::LABEL_ROLLOUT)
}

fn listed<K>(objects: Vec<K>) -> Event<K> {
    Event::Listed { objects, resource_version: String::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scripted::{self, Answer};

    /// What is read of a set whose listeners are in ConfigMap `tokens`, where the API server answers so for it.
    async fn listeners(code: u16, text: &'static str) -> Result<Vec<String>, SourceError> {
        let client = scripted::client(move |call| match call.line().as_str() {
            "GET /apis/coordination.k8s.io/v1/namespaces/shop/leases" => {
                Answer::ok(json!({"metadata": {"resourceVersion": "9"}, "items": []}))
            }
            "GET /api/v1/namespaces/shop/configmaps/tokens" if code == 200 => {
                let metadata = json!({"name": "tokens", "namespace": "shop", "uid": "c", "resourceVersion": "7"});
                Answer::ok(json!({"metadata": metadata, "data": {"l.yaml": text}}))
            }
            "GET /api/v1/namespaces/shop/configmaps/tokens" => Answer::failure(code, "", text),
            other => panic!("{other}"),
        });
        let set: Value = json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet",
            "metadata": {"name": "bots", "namespace": "shop", "uid": "u1", "resourceVersion": "5", "generation": 1},
            "spec": {"rolloutRef": {"name": "web"}, "configMap": {"name": "tokens", "key": "l.yaml"}},
        });
        let cluster = Cluster { client, namespace: "shop".into() };
        let snapshot = cluster.set_snapshot(serde_json::from_value(set).unwrap()).await.unwrap();
        snapshot.listeners.map(|wanted| wanted.iter().map(|wanted| wanted.name.clone()).collect())
    }

    /// A5: also of a set whose listeners a ConfigMap says, those are shown that no Pod holds.
    #[tokio::test]
    async fn the_config_map_of_a_set_is_read() {
        assert_eq!(listeners(200, "- name: orders\n- name: trades").await.unwrap(), ["orders", "trades"]);
        assert_eq!(listeners(200, "nonsense").await.unwrap_err().reason, "InvalidConfigMap");
        let error = listeners(403, "User \"ann\" cannot get resource \"configmaps\"").await.unwrap_err();
        assert_eq!(error.reason, "ConfigMapUnread");
        assert!(
            error.message.contains("User \"ann\" cannot get") && error.message.contains("it takes get"),
            "{error:?}"
        );
    }

    /// How often a Rollout is read whose spec was changed at `changed`, and which the operator has seen at the third look or never;
    /// and whether it is seen in the end.
    async fn looks(changed: Timestamp, is_served: bool) -> (usize, bool) {
        let looks = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = looks.clone();
        let client = scripted::client(move |call| {
            assert_eq!(call.line(), "GET /apis/baton.dev/v1alpha1/namespaces/shop/rollouts/web");
            let look = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            let mut object = blue_green("web", "web");
            let fields = json!({"manager": "kubectl", "time": changed});
            let status = json!({"manager": "baton-operator", "subresource": "status", "time": "2999-01-01T00:00:00Z"});
            object["metadata"]["managedFields"] = json!([status, fields]);
            object["metadata"]["generation"] = json!(2);
            object["status"] = json!({"observedGeneration": if is_served && look >= 3 { 2 } else { 1 }});
            Answer::ok(object)
        });
        let rollout = Cluster { client, namespace: "shop".into() }.seen::<Rollout>("web").await.unwrap();
        (looks.load(std::sync::atomic::Ordering::SeqCst), is_seen(&rollout))
    }

    /// A verb right after another waits for the operator, a moment; one that no operator serves is reported at once.
    #[tokio::test(start_paused = true)]
    async fn a_spec_that_has_just_changed_is_waited_for() {
        let now = Timestamp::now();
        assert_eq!(looks(now, true).await, (3, true));
        let (count, is_seen) = looks(now, false).await;
        assert!(!is_seen && (10..=30).contains(&count), "about 5 s long, every 200 ms: {count}");
        assert_eq!(looks(now - Duration::from_mins(1), false).await, (1, false), "that is long enough");
        let ahead = now + Duration::from_hours(1);
        assert!(looks(ahead, false).await.0 <= 30, "by a clock that is ahead");
    }

    fn blue_green(name: &str, service: &str) -> Value {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}});
        let strategy = json!({"type": "BlueGreen", "blueGreen": {"activeService": service}});
        json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "5"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, "strategy": strategy},
        })
    }

    /// B3: also before it is there, a Rollout is told who names its Service already; as far as the caller may list Rollouts.
    #[tokio::test]
    async fn a_service_of_another_rollout_is_known() {
        for (code, claimed_by) in [(200, Some("shop")), (403, None)] {
            let client = scripted::client(move |call| match call.line().as_str() {
                "GET /apis/baton.dev/v1alpha1/namespaces/shop/rollouts" if code == 200 => {
                    let all = [
                        blue_green("web", "other"),
                        blue_green("shop", "web"),
                        json!({"metadata": {"name": "unreadable"}, "spec": 1}),
                    ];
                    Answer::ok(json!({"metadata": {"resourceVersion": "9"}, "items": all}))
                }
                "GET /apis/baton.dev/v1alpha1/namespaces/shop/rollouts" => Answer::failure(code, "", "no"),
                "GET /api/v1/namespaces/shop/services/web" => {
                    let metadata = json!({"name": "web", "namespace": "shop", "uid": "s", "resourceVersion": "7"});
                    Answer::ok(json!({"metadata": metadata, "spec": {"selector": {"app": "web"}}}))
                }
                other if other.contains("/services/") => Answer::failure(404, "NotFound", "there is none"),
                other => panic!("{other}"),
            });
            let cluster = Cluster { client, namespace: "shop".into() };
            let services = cluster.services(&serde_json::from_value(blue_green("web", "web")).unwrap()).await.unwrap();
            assert!(services.active.seen().is_some());
            assert_eq!(services.claimed_by.as_deref(), claimed_by);
        }
    }
}
