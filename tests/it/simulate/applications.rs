//! Applications in Pods: what each is told, with `update: HotReload`, and what it answers. It answers 503 until its kubelet has
//! written the new labels and annotations, then 200; and 500, whenever it is told, of a version that does not work.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton::{apply::applications::Post, snapshot::Pod};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    oracles::story,
    trace::Trace,
    versions::{Behaviour, version_of},
};
use crate::fake_apiserver::{Commit, kinds::PODS};

/// A kubelet writes labels and annotations into volumes within this time.
const REFRESH_MILLIS_MAX: u64 = 30_000;

/// All of them. Clones are the same.
#[derive(Clone)]
pub struct Applications(Arc<Mutex<State>>);

struct State {
    trace: Trace,
    rng: fastrand::Rng,
    /// Answers may be lost.
    is_disturbed: bool,
    all: BTreeMap<IpAddr, Application>,
    /// Changes that were answered with 200: uid of the Pod, and when it was changed.
    reloaded: BTreeSet<(String, Timestamp)>,
}

struct Application {
    pod: Pod,
    works: bool,
    /// When it can read what its Pod was given last.
    refreshed_at: Instant,
}

impl Applications {
    pub fn new(trace: &Trace, rng: fastrand::Rng) -> Self {
        let (trace, all, reloaded) = (trace.clone(), BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(State { trace, rng, is_disturbed: true, all, reloaded })))
    }

    /// From now on every answer arrives.
    pub fn clear_up(&self) {
        self.lock().is_disturbed = false;
    }

    /// Something was written.
    pub fn committed(&self, commit: &Commit) {
        let object = &commit.change.object;
        if *commit.change.kind != PODS {
            return;
        }
        let mut state = self.lock();
        let address = IpAddr::V4(address_of(object.uid()));
        let Some(pod) = commit.change.after().and_then(|object| story::pod(object)) else {
            state.all.remove(&address);
            return;
        };
        let is_known = state.all.get(&address).is_some_and(|known| known.pod.revision == pod.revision);
        if !is_known {
            let works = Behaviour::of_image(version_of(object.value())).works();
            let refreshed_at = Instant::now() + Duration::from_millis(state.rng.u64(0..REFRESH_MILLIS_MAX));
            state.all.insert(address, Application { pod, works, refreshed_at });
        }
    }

    /// How operators call them.
    pub fn post(&self) -> Post {
        let all = self.clone();
        Arc::new(move |to, _, body| {
            let all = all.clone();
            Box::pin(async move {
                let (takes, is_lost) = all.draw();
                tokio::time::sleep(takes).await;
                let answer = all.answer(to.ip(), &body);
                if is_lost { Err("connection reset".to_owned()) } else { answer }
            })
        })
    }

    /// How long a call takes, and whether its answer is lost.
    fn draw(&self) -> (Duration, bool) {
        let mut state = self.lock();
        let (takes, is_lost) = (Duration::from_millis(state.rng.u64(1..300)), state.rng.u8(0..10) == 0);
        (takes, is_lost && state.is_disturbed)
    }

    fn answer(&self, to: IpAddr, body: &str) -> Result<(), String> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let told: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let Some(application) = state.all.get(&to) else { return Err("connection refused".into()) };
        let pod = &application.pod;
        let answer = if told["revision"] != pod.revision.as_str() || application.refreshed_at > Instant::now() {
            Err("answered 503: not yet".to_owned())
        } else if application.works {
            Ok(())
        } else {
            Err("answered 500: no".to_owned())
        };
        let changed_at = pod.in_place.as_ref().map(|in_place| in_place.at);
        if let Some(at) = changed_at.filter(|_| answer.is_ok()) {
            state.reloaded.insert((pod.uid.clone(), at));
        }
        state.trace.say(&pod.name, format_args!("is told of {}: {answer:?}", told["revision"]));
        answer
    }

    /// Whether the application of this Pod has answered 200 since the Pod was changed, if it was.
    pub fn has_reloaded(&self, pod: &Pod) -> bool {
        let Some(in_place) = pod.in_place.as_ref().filter(|in_place| in_place.reload.is_some()) else { return true };
        self.lock().reloaded.contains(&(pod.uid.clone(), in_place.at))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the Pod of this uid is.
pub fn address_of(uid: &str) -> Ipv4Addr {
    // FNV-1a: a few hundred Pods do not meet in 24 bits.
    let hash = uid.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [_, second, third, fourth] = hash.to_be_bytes();
    Ipv4Addr::new(10, second, third, fourth)
}
