//! The API server, and what is asked of it.
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Connection, hints};
use crate::{
    api::{Rollout, names},
    snapshot::{
        Snapshot,
        guard::DeserializeGuard,
        index::{Event, Index, ObjectKey, Recollection},
        wire::PodView,
    },
};

/// How long one answer may take.
const ANSWER_SECONDS: u64 = 30;

/// A namespace of a cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    pub client: Client,
    pub namespace: String,
}

impl Cluster {
    pub async fn connect(connection: &Connection) -> Result<Self> {
        let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &connection.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path)
                    .with_context(|| format!("{} cannot be read as a kubeconfig", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(hints::no_config)?
            }
            None if connection.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(hints::no_config)?
            }
            None => Config::infer().await.map_err(hints::no_config)?,
        };
        config.connect_timeout = Some(Duration::from_secs(ANSWER_SECONDS));
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Self { client, namespace })
    }

    pub fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object, or an error that says what to do.
    pub async fn rollout(&self, name: &str) -> Result<Rollout> {
        match in_time(self.rollouts().get(name)).await? {
            Ok(rollout) => Ok(rollout),
            Err(error) => Err(hints::explain(self, error, Some(name)).await),
        }
    }

    /// All that the planner may look at, as the operator would see it now, save what only the operator remembers.
    pub async fn snapshot(&self, rollout: Rollout) -> Result<Snapshot> {
        let key = ObjectKey::of(&rollout);
        let selected = ListParams::default().labels(&selector(&key.name));
        let pods: Api<PodView> = Api::namespaced(self.client.clone(), &self.namespace);
        let revisions: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &self.namespace);
        let (pods, revisions) =
            in_time(async { tokio::join!(pods.list(&selected), revisions.list(&selected)) }).await?;
        let mut index = Index::default();
        let scope = Some(self.namespace.clone());
        index.on_rollout(&scope, listed(vec![DeserializeGuard(Ok(rollout))]));
        match (pods, revisions) {
            (Ok(pods), Ok(revisions)) => {
                index.on_pod(&scope, listed(pods.items));
                index.on_revision(&scope, listed(revisions.items));
            }
            (Err(error), _) | (_, Err(error)) => return Err(hints::explain(self, error, None).await),
        }
        let snapshot = index.snapshot(&key, &Recollection::default(), Timestamp::now());
        snapshot.context("the Rollout cannot be read")
    }
}

/// Pods and ControllerRevisions of a Rollout carry this label; which of them are its own, their ownerRef tells.
pub(super) fn selector(name: &str) -> String {
    format!("{}={name}", names::LABEL_ROLLOUT)
}

fn listed<K>(objects: Vec<K>) -> Event<K> {
    Event::Listed { objects, resource_version: String::new() }
}

/// Gives up on an answer that does not come.
pub(super) async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T> {
    let waited = tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), answer).await;
    waited.with_context(|| {
        format!("the API server has not answered within {ANSWER_SECONDS} s; try `kubectl get --raw /readyz`")
    })
}
