//! One call to the API server: bounded in number and in time, fenced, and never repeated by itself (a repeated POST after
//! a 504 creates twice; what is to be done again is planned again).
use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ListMeta};
use kube::{
    Client, Resource,
    core::{
        ObjectMeta, Request,
        params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams},
    },
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    Fence,
    applications::{Applications, OnAnswer, Post, by_http},
    letters::Letters,
    shares::Shares,
};
use crate::{api::names, warned};

/// Calls in flight at once, of all objects together.
pub const IN_FLIGHT_MAX: usize = 64;
/// The same of one namespace: however slowly its calls are answered, others have room.
const IN_FLIGHT_OF_NAMESPACE_MAX: usize = IN_FLIGHT_MAX / 4;
/// Letters of one namespace in flight: a take-over finds room beside those that hang.
const LETTERS_OF_NAMESPACE_MAX: usize = IN_FLIGHT_OF_NAMESPACE_MAX / 2;
/// Longest time for one call, unless set otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for one call about a Lease of the hand-off: what is looked at next may be a take-over. An API server that takes
/// longer has most likely done it all the same, and is asked.
pub const QUICK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not sent: the lock's remaining time is shorter than the call may take.
    #[error("not sent: the controller lock may end before the call does")]
    Fenced,
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// An answer that says no, or a broken connection.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl CallError {
    /// HTTP status of the answer; 0 without one.
    pub fn code(&self) -> u16 {
        self.status().map_or(0, |status| status.code)
    }

    /// Without an answer, or with one that says nothing about whether it was done: only a read tells.
    pub fn is_doubtful(&self) -> bool {
        !matches!(self, Self::Fenced) && matches!(self.code(), 0 | 401 | 408 | 500..)
    }

    /// The answer, when there was one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }

    /// One sentence: the API server's own where there is one.
    pub fn message(&self) -> String {
        self.status().map_or_else(|| self.to_string(), |status| status.message.clone())
    }
}

impl From<kube::core::request::Error> for CallError {
    fn from(error: kube::core::request::Error) -> Self {
        Self::Kube(kube::Error::BuildRequest(error))
    }
}

/// What is read of an object where only its version matters.
#[derive(Debug, Default, Deserialize)]
pub struct Written {
    /// metadata.
    #[serde(default)]
    pub metadata: WrittenMeta,
}

/// What is read of its metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WrittenMeta {
    /// uid.
    pub uid: String,
    /// resourceVersion.
    pub resource_version: String,
}

/// What is read of a list of which only the metadata matter.
#[derive(Deserialize)]
struct MetadataList {
    #[serde(default)]
    metadata: ListMeta,
    /// The API server says `null` where there are none.
    items: Option<Vec<MetadataItem>>,
}

#[derive(Deserialize)]
struct MetadataItem {
    metadata: ObjectMeta,
}

/// Calls to the API server.
#[derive(Clone)]
pub struct Calls {
    client: Client,
    fence: Fence,
    timeout: Duration,
    permits: Arc<Semaphore>,
    shares: Shares,
    agent_image: Option<Arc<str>>,
    applications: Applications,
    letters: Letters,
}

/// Which kind in which namespace.
fn at<K: Resource<DynamicType = ()>>(namespace: &str) -> Request {
    Request::new(K::url_path(&(), Some(namespace)))
}

impl Calls {
    /// Calls through `client`, each at most `timeout` long, writes only while `fence` permits.
    pub fn new(client: Client, fence: Fence, timeout: Duration) -> Self {
        let applications = Applications::new(fence.clone(), by_http(), Arc::new(|_| {}));
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let letters = Letters::new(Arc::new(|_| {}), LETTERS_OF_NAMESPACE_MAX);
        let shares = Shares::new(IN_FLIGHT_OF_NAMESPACE_MAX);
        Self { client, fence, timeout, permits, shares, agent_image: None, applications, letters }
    }

    /// The same, each call at most [`QUICK_TIMEOUT`] long.
    #[must_use]
    pub fn quick(&self) -> Self {
        Self { timeout: self.timeout.min(QUICK_TIMEOUT), ..self.clone() }
    }

    /// The same; told which ListenerSet is to be looked at again for its letters.
    #[must_use]
    pub fn with_letters(self, on_end: OnAnswer) -> Self {
        Self { letters: Letters::new(on_end, LETTERS_OF_NAMESPACE_MAX), ..self }
    }

    /// Letters that are on their way.
    pub fn letters(&self) -> &Letters {
        &self.letters
    }

    /// The same; applications in Pods are called so, and the ends of these calls are told.
    #[must_use]
    pub fn with_applications(self, post: Post, on_answer: OnAnswer) -> Self {
        Self { applications: Applications::new(self.fence.clone(), post, on_answer), ..self }
    }

    /// What applications in Pods were told.
    pub fn applications(&self) -> &Applications {
        &self.applications
    }

    /// The same; Pods that ask for it get the agent of this image.
    #[must_use]
    pub fn with_agent_image(self, image: Option<&str>) -> Self {
        Self { agent_image: image.map(Arc::from), ..self }
    }

    /// See [`Self::with_agent_image`].
    pub(super) fn agent_image(&self) -> Option<&str> {
        self.agent_image.as_deref()
    }

    /// What holds writes back without the lock.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// POST.
    pub async fn create<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        object: &Value,
    ) -> Result<Written, CallError> {
        let request = at::<K>(namespace).create(&post_params(false), text(object)?)?;
        self.send(namespace, true, self.client.request(request)).await
    }

    /// POST of which nothing stays; not fenced. Returns what the API server warns of.
    pub async fn dry_run<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        object: &Value,
    ) -> Result<Vec<String>, CallError> {
        let (request, params) = (at::<K>(namespace), post_params(true));
        self.send(namespace, false, warned::create(&self.client, &request, &params, text(object)?)).await
    }

    /// Merge patch.
    pub async fn merge<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Written, CallError> {
        let request = at::<K>(namespace).patch(name, &patch_params(), &Patch::Merge(patch))?;
        self.send(namespace, true, self.client.request(request)).await
    }

    /// Strategic merge patch: containers are merged by their names.
    pub async fn merge_lists<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Written, CallError> {
        let request = at::<K>(namespace).patch(name, &patch_params(), &Patch::Strategic(patch))?;
        self.send(namespace, true, self.client.request(request)).await
    }

    /// Strategic merge patch of the status subresource: lists of conditions are merged by their types.
    pub async fn merge_status<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Written, CallError> {
        let patch = Patch::Strategic(patch);
        let request = at::<K>(namespace).patch_subresource("status", name, &patch_params(), &patch)?;
        self.send(namespace, true, self.client.request(request)).await
    }

    /// Strategic merge patch of a Pod's subresource `resize`; a dry run changes nothing, and is not fenced.
    pub async fn resize(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
        dry_run: bool,
    ) -> Result<Written, CallError> {
        let (patch, params) = (Patch::Strategic(patch), PatchParams { dry_run, ..patch_params() });
        let request = at::<Pod>(namespace).patch_subresource("resize", name, &params, &patch)?;
        self.send(namespace, !dry_run, self.client.request(request)).await
    }

    /// PUT of the status subresource.
    pub async fn replace_status<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        object: &Value,
    ) -> Result<Written, CallError> {
        let request = at::<K>(namespace).replace_subresource("status", name, &post_params(false), text(object)?)?;
        self.send(namespace, true, self.client.request(request)).await
    }

    /// DELETE.
    pub async fn delete<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        params: &DeleteParams,
    ) -> Result<(), CallError> {
        let request = at::<K>(namespace).delete(name, params)?;
        // An object or a Status: neither says more than that it was accepted.
        self.send(namespace, true, self.client.request::<IgnoredAny>(request)).await.map(drop)
    }

    /// GET, the latest there is.
    pub async fn get<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<T, CallError> {
        let request = at::<K>(namespace).get(name, &GetParams::default())?;
        self.send(namespace, false, self.client.request(request)).await
    }

    /// Metadata of these objects, as many as `params` allow, and whether there are more.
    pub async fn list_metadata<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        params: &ListParams,
    ) -> Result<(Vec<ObjectMeta>, bool), CallError> {
        let request = at::<K>(namespace).list_metadata(params)?;
        let list: MetadataList = self.send(namespace, false, self.client.request(request)).await?;
        let has_more = list.metadata.continue_.is_some_and(|token| !token.is_empty());
        Ok((list.items.into_iter().flatten().map(|item| item.metadata).collect(), has_more))
    }

    /// `call` does nothing before it is polled.
    async fn send<T>(
        &self,
        namespace: &str,
        fenced: bool,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let share = self.shares.of(namespace);
        // Closed never: an error cannot happen, and would only lift the bound. Of one's own first: who waits there keeps
        // no other namespace out.
        let _own = share.acquire().await;
        let _permit = self.permits.acquire().await;
        // After the permit, because waiting for it takes time that the lock may not have.
        if fenced && !self.fence.permits(self.timeout) {
            return Err(CallError::Fenced);
        }
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CallError::TimedOut(self.timeout)),
        }
    }
}

/// The body of a request, with the characters that Go's encoder escapes escaped. The API server keeps a ControllerRevision's
/// data as the bytes that it got, encodes them anew when the object is patched, and refuses the patch where they differ.
fn text(object: &Value) -> Result<Vec<u8>, kube::core::request::Error> {
    let mut text = serde_json::to_string(object).map_err(kube::core::request::Error::SerializeBody)?;
    // All of them stand within strings only.
    for (character, escaped) in
        [('&', "\\u0026"), ('<', "\\u003c"), ('>', "\\u003e"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
    {
        if text.contains(character) {
            text = text.replace(character, escaped);
        }
    }
    Ok(text.into_bytes())
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn post_params(dry_run: bool) -> PostParams {
    PostParams { dry_run, field_manager: Some(names::FIELD_MANAGER.to_owned()) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::scripted::{self, Answer};

    /// F4: calls of one namespace that are not answered leave room for those of others.
    #[tokio::test(start_paused = true)]
    async fn no_namespace_has_all_permits() {
        let client = scripted::client(|call| {
            if call.path.contains("/noisy/") {
                return Answer::Never;
            }
            Answer::ok(serde_json::json!({"metadata": {"uid": "u", "resourceVersion": "1"}}))
        });
        let calls = Calls::new(client, Fence::closed(), CALL_TIMEOUT);
        for _ in 0..500 {
            let calls = calls.clone();
            tokio::spawn(async move { calls.get::<Pod, Written>("noisy", "p").await });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(calls.permits.available_permits(), IN_FLIGHT_MAX - IN_FLIGHT_OF_NAMESPACE_MAX);
        let began = tokio::time::Instant::now();
        calls.get::<Pod, Written>("quiet", "p").await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
