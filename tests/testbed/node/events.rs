//! Events, as `kubectl describe pod` shows them.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    host::{CALL_TIMEOUT, Host, brief},
    model,
};

/// Who tells, as a kubelet's events say.
const COMPONENT: &str = "kubelet";
/// Events beyond this are lost: they are news, not memory.
const QUEUE: usize = 256;
/// Different events whose repetitions are counted.
const MAX_KNOWN: usize = 1000;
/// A repetition is told at most this often.
const REPEAT_PERIOD: Duration = Duration::from_secs(10);
const MAX_MESSAGE_CHARS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Normal,
    Warning,
}

/// Something worth telling about a Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    namespace: String,
    pod: String,
    uid: String,
    field_path: Option<String>,
    severity: Severity,
    reason: &'static str,
    message: String,
}

/// Takes events; never waits.
pub struct Events(mpsc::Sender<Note>);

/// What follows an [`Events`].
pub struct Queue(mpsc::Receiver<Note>);

pub fn queue() -> (Events, Queue) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Events(sender), Queue(receiver))
}

impl Events {
    /// Tells about a Pod, or the part of its specification at `field_path`.
    pub fn tell(&self, pod: &Pod, field_path: Option<String>, severity: Severity, reason: &'static str, message: &str) {
        let note = Note {
            namespace: model::namespace(pod).to_owned(),
            pod: model::name(pod).to_owned(),
            uid: model::uid(pod).to_owned(),
            field_path,
            severity,
            reason,
            message: message.chars().take(MAX_MESSAGE_CHARS).collect(),
        };
        if self.0.try_send(note).is_err() {
            tracing::warn!("too many events: one is lost");
        }
    }
}

/// An event that was written.
struct Known {
    name: String,
    count: i32,
    told_at: Instant,
}

/// Writes events for ever.
pub async fn write(host: Arc<Host>, mut queue: Queue) {
    let mut known: BTreeMap<Note, Known> = BTreeMap::new();
    while let Some(note) = queue.0.recv().await {
        if host.gate.is_closed() {
            continue;
        }
        let _pass = host.gate.pass().await;
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let outcome = timeout(CALL_TIMEOUT, write_one(&host, &mut known, note)).await;
        if let Ok(Err(error)) = outcome {
            // A namespace that is being deleted takes no events; others are lost without harm.
            tracing::debug!("an event is lost: {}", brief(&error.into()));
        }
    }
}

async fn write_one(host: &Host, known: &mut BTreeMap<Note, Known>, note: Note) -> kube::Result<()> {
    let api = Api::<Event>::namespaced(host.client.clone(), &note.namespace);
    let now = Time(Timestamp::now());
    if let Some(earlier) = known.get_mut(&note) {
        earlier.count += 1;
        if earlier.told_at.elapsed() < REPEAT_PERIOD {
            return Ok(());
        }
        earlier.told_at = Instant::now();
        let patch = json!({ "count": earlier.count, "lastTimestamp": now });
        return api.patch(&earlier.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
    }
    let name = format!("{}.{:016x}", note.pod, fastrand::u64(..));
    api.create(&PostParams::default(), &event(&note, &name, &host.name, now)).await?;
    known.insert(note, Known { name, count: 1, told_at: Instant::now() });
    Ok(())
}

fn event(note: &Note, name: &str, host: &str, now: Time) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(note.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(note.namespace.clone()),
            name: Some(note.pod.clone()),
            uid: Some(note.uid.clone()),
            field_path: note.field_path.clone(),
            resource_version: None,
        },
        type_: Some(format!("{:?}", note.severity)),
        reason: Some(note.reason.into()),
        message: Some(note.message.clone()),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(host.to_owned()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(host.to_owned()),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        ..Event::default()
    }
}
