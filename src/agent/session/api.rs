//! Calls about Leases: bounded in time, and never repeated by themselves.
use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::Value;

use crate::snapshot::wire::LeaseView;

/// Makes a client with connections of its own, and reads tokens anew.
pub type Connect = Arc<dyn Fn() -> anyhow::Result<Client> + Send + Sync>;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// An answer that says no, or a broken connection.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl CallError {
    /// HTTP status of the answer; 0 without one.
    pub fn code(&self) -> u16 {
        match self {
            Self::Kube(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }

    /// The object cannot be written as it was thought of: only a look at it tells what is.
    pub fn asks_for_a_look(&self) -> bool {
        matches!(self.code(), 403 | 404 | 409 | 422)
    }

    /// One sentence: the API server's own where there is one.
    pub fn message(&self) -> String {
        match self {
            Self::Kube(kube::Error::Api(status)) => status.message.clone(),
            other => other.to_string(),
        }
    }
}

/// The Leases of a namespace, with times that saturate.
#[derive(Clone)]
pub struct Leases {
    api: Api<LeaseView>,
}

impl Leases {
    /// Through this client.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }

    /// GET, the latest there is.
    pub async fn get(&self, name: &str, timeout: Duration) -> Result<Option<Lease>, CallError> {
        Ok(in_time(timeout, self.api.get_opt(name)).await?.map(Lease::from))
    }

    /// All with these labels, the latest there are.
    pub async fn list(&self, labels: &str, timeout: Duration) -> Result<Vec<Lease>, CallError> {
        let found = in_time(timeout, self.api.list(&ListParams::default().labels(labels))).await?;
        Ok(found.items.into_iter().map(Lease::from).collect())
    }

    /// A merge patch; of uid and resourceVersion in it the write is conditional.
    pub async fn merge(&self, name: &str, patch: &Value, timeout: Duration) -> Result<Lease, CallError> {
        let patch = Patch::Merge(patch);
        in_time(timeout, self.api.patch(name, &params(), &patch)).await.map(Lease::from)
    }

    /// A JSON patch.
    pub async fn json(&self, name: &str, patch: Value, timeout: Duration) -> Result<Lease, CallError> {
        let operations =
            serde_json::from_value(patch).map_err(|error| CallError::Kube(kube::Error::SerdeError(error)))?;
        let patch = Patch::Json::<()>(operations);
        in_time(timeout, self.api.patch(name, &params(), &patch)).await.map(Lease::from)
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some("baton-agent".to_owned()), ..PatchParams::default() }
}

async fn in_time<T>(timeout: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::TimedOut(timeout)),
    }
}
