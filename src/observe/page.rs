//! One page of a list, bounded in bytes: the API server bounds it in objects alone.
use futures::AsyncReadExt;
use kube::{
    Api,
    api::{ListMeta, ListParams, Request},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::watch::Watchable;
use crate::snapshot::guard::{Bounded, DeserializeGuard};

/// A page with more bytes is not read to its end. One object always fits: etcd takes none of more than 1.5 MiB, which with
/// what the API server adds is less than three times that.
const PAGE_BYTES_MAX: u64 = 8 * 1_024 * 1_024;

/// A page of a list. What else it says is skipped.
#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned + Bounded")]
pub(super) struct Page<K> {
    /// Of the list.
    pub metadata: ListMeta,
    /// Each by itself.
    #[serde(default = "Vec::new")]
    pub items: Vec<DeserializeGuard<K>>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum PageError {
    /// It has more than [`PAGE_BYTES_MAX`].
    TooLarge,
    /// Anything else.
    Failed(kube::Error),
}

impl From<kube::Error> for PageError {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

/// Reads one page.
pub(super) async fn read<K: Watchable>(
    api: &Api<DeserializeGuard<K>>,
    params: &ListParams,
) -> Result<Page<K>, PageError> {
    let request = Request::new(api.resource_url()).list(params).map_err(kube::Error::BuildRequest)?;
    let body = api.clone().into_client().request_stream(request).await?;
    let mut text = Vec::new();
    body.take(PAGE_BYTES_MAX + 1).read_to_end(&mut text).await.map_err(kube::Error::ReadEvents)?;
    if text.len() as u64 > PAGE_BYTES_MAX {
        return Err(PageError::TooLarge);
    }
    Ok(serde_json::from_slice(&text).map_err(kube::Error::SerdeError)?)
}
