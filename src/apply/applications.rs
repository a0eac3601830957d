//! What is told to applications in Pods (strategy HotReload). A look begins a call and does not wait for its end: that leads to
//! another look, which finds here what became of it.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    Fence,
    asks::{Ask, Question, over_network},
    post::{POST_TIMEOUT, post},
};
use crate::{
    plan::Applied,
    snapshot::{
        Pod, Purpose, Snapshot, Telling,
        call::{Calls, Refused},
        index::ObjectKey,
    },
};

/// Calls at once, to all applications together; the planner bounds those of one Rollout.
const CALLS_MAX: usize = 64;

/// How long a call waits until another has ended. Then the next look begins it anew, with the address that the Pod has by then:
/// another Pod may have been given the old one.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How an application is called: address, path and body; why it has not answered 200. A simulation puts its own here.
pub type Post = Arc<dyn Fn(SocketAddr, String, String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
/// Whom the end of a call is told: the object is looked at again.
pub type OnAnswer = Arc<dyn Fn(ObjectKey) + Send + Sync>;

/// Calls by HTTP, as in a cluster.
pub fn by_http() -> Post {
    Arc::new(|to, path, body| Box::pin(post(to, path, body)))
}

/// What applications were told. Clones share it.
#[derive(Clone)]
pub struct Applications {
    post: Post,
    on_answer: OnAnswer,
    fence: Fence,
    permits: Arc<Semaphore>,
    /// By Rollout, and uid of the Pod.
    tellings: Arc<Mutex<BTreeMap<ObjectKey, BTreeMap<String, Telling>>>>,
    ask: Ask,
    /// Questions, by Rollout.
    asked: Arc<Mutex<BTreeMap<ObjectKey, Calls>>>,
}

impl Applications {
    /// Calls are made while `fence` permits.
    pub fn new(fence: Fence, post: Post, on_answer: OnAnswer) -> Self {
        let permits = Arc::new(Semaphore::new(CALLS_MAX));
        let (tellings, asked) = (Arc::default(), Arc::default());
        Self { post, on_answer, fence, permits, tellings, ask: over_network(), asked }
    }

    /// The same; applications are asked so.
    #[must_use]
    pub fn with_ask(self, ask: Ask) -> Self {
        Self { ask, ..self }
    }

    /// What the applications of these Pods were asked; of others nothing is known any more.
    pub fn asked(&self, key: &ObjectKey, snapshot: &Snapshot) -> Calls {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = asked.get_mut(key) else { return Calls::new() };
        let there: BTreeSet<&str> = snapshot.pods.iter().map(|pod| pod.uid.as_str()).collect();
        calls.retain(|(uid, _), _| there.contains(uid.as_str()));
        let calls = calls.clone();
        if calls.is_empty() {
            asked.remove(key);
        }
        calls
    }

    pub(super) fn begin_ask(&self, key: &ObjectKey, place: &(String, Purpose), of: Timestamp, now: Timestamp) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = asked.entry(key.clone()).or_default();
        let begun = Telling::begun(calls.remove(place), of, now);
        calls.insert(place.clone(), begun);
    }

    pub(super) fn end_ask(
        &self,
        key: &ObjectKey,
        place: &(String, Purpose),
        of: Timestamp,
        answer: Option<Result<(), Refused>>,
    ) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let call = asked.get_mut(key).and_then(|calls| calls.get_mut(place));
        if let Some(call) = call.filter(|call| call.of == of) {
            call.end(answer);
        }
    }

    /// The object is looked at again.
    pub(super) fn tell_end(&self, key: ObjectKey) {
        (self.on_answer)(key);
    }

    /// Room for one call of this length. None: there is none, or the lock may end before the call does.
    pub(super) async fn permit(&self, most: Duration) -> Option<SemaphorePermit<'_>> {
        let permit = timeout(PERMIT_TIMEOUT, self.permits.acquire()).await.ok()?.ok()?;
        self.fence.permits(most).then_some(permit)
    }

    pub(super) async fn by_network(&self, to: SocketAddr, question: Question, most: Duration) -> Result<(), Refused> {
        (self.ask)(to, question, most).await
    }

    /// What the applications of these Pods were told; of others nothing is known any more.
    pub fn told(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> BTreeMap<String, Telling> {
        let mut tellings = self.lock();
        let Some(told) = tellings.get_mut(key) else { return BTreeMap::new() };
        let due = pods.iter().filter(|pod| pod.untold_since().is_some());
        let due: BTreeSet<&str> = due.map(|pod| pod.uid.as_str()).collect();
        told.retain(|uid, _| due.contains(uid.as_str()));
        let told = told.clone();
        if told.is_empty() {
            tellings.remove(key);
        }
        told
    }

    /// The Rollout is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.lock().remove(key);
    }

    /// Begins a call to the application of this Pod.
    pub(super) fn tell(&self, snapshot: &Snapshot, uid: &str) -> Applied {
        let pod = snapshot.pods.iter().find(|pod| pod.uid == uid);
        let settings = snapshot.rollout.spec.strategy.hot_reload.as_ref();
        let Some((pod, of, settings)) = pod.and_then(|pod| Some((pod, pod.untold_since()?, settings?))) else {
            return Applied::Stale;
        };
        let key = ObjectKey::of(&snapshot.rollout);
        self.begin(&key, uid, of, snapshot.now);
        let to = address(pod).map(|ip| SocketAddr::new(ip, settings.http_post.port));
        let body = json!({"version": pod.version, "revision": pod.revision}).to_string();
        let (path, uid) = (settings.http_post.path.clone(), uid.to_owned());
        let applications = self.clone();
        tokio::spawn(async move {
            let calling = applications.clone();
            // In a task of its own: a panic is an answer, too.
            let answer = match to {
                Ok(to) => tokio::spawn(async move { calling.call(to, path, body).await }).await,
                Err(why) => Ok(Some(Err(why))),
            };
            applications.end(&key, &uid, of, answer.unwrap_or_else(|panic| Some(Err(panic.to_string()))));
            (applications.on_answer)(key);
        });
        Applied::Done { resource_version: String::new() }
    }

    /// None: it was not called.
    async fn call(&self, to: SocketAddr, path: String, body: String) -> Option<Result<(), String>> {
        let _permit = self.permit(POST_TIMEOUT).await?;
        Some((self.post)(to, path, body).await)
    }

    fn begin(&self, key: &ObjectKey, uid: &str, of: Timestamp, now: Timestamp) {
        let mut tellings = self.lock();
        let told = tellings.entry(key.clone()).or_default();
        let begun = Telling::begun(told.remove(uid), of, now);
        told.insert(uid.to_owned(), begun);
    }

    fn end(&self, key: &ObjectKey, uid: &str, of: Timestamp, answer: Option<Result<(), String>>) {
        let mut tellings = self.lock();
        let telling = tellings.get_mut(key).and_then(|told| told.get_mut(uid));
        if let Some(telling) = telling.filter(|telling| telling.of == of) {
            telling.end(answer.map(|answer| answer.map_err(|said| Refused { said, is_unreachable: false })));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, BTreeMap<String, Telling>>> {
        self.tellings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a Pod may have this address: no machine and no cloud has given it a meaning of its own.
fn may_be_a_pods(ip: &IpAddr) -> bool {
    let has_a_meaning = match ip {
        // 0.0.0.0/8 is this host, and 240.0.0.0/4 reserved (RFC 6890). The two others are where Azure and Alibaba Cloud
        // answer every machine with what it may know.
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            ip.is_link_local()
                || first == 0
                || first >= 240
                || [[168, 63, 129, 16], [100, 100, 100, 200]].contains(&ip.octets())
        }
        // 64:ff9b::/96 and 64:ff9b:1::/48 lead to IPv4 (RFC 6052, RFC 8215). fd00:ec2::254 is where AWS answers.
        IpAddr::V6(ip) => {
            let leads_to_ipv4 = matches!(ip.segments(), [0x64, 0xff9b, 0 | 1, ..]) || ip.to_ipv4_mapped().is_some();
            ip.is_unicast_link_local() || leads_to_ipv4 || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || has_a_meaning)
}

/// Where a Pod is.
pub(super) fn address(pod: &Pod) -> Result<IpAddr, String> {
    match pod.ip.as_deref().map(str::parse) {
        _ if pod.on_host_network => Err("the Pod is on its node's network".into()),
        None => Err("the Pod has no address yet".into()),
        Some(Ok(ip)) if may_be_a_pods(&ip) => Ok(ip),
        Some(_) => Err(format!("{:?} is no address of a Pod", pod.ip.as_deref().unwrap_or_default())),
    }
}

#[cfg(test)]
#[path = "applications_tests.rs"]
mod tests;
