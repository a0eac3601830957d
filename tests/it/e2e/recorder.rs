//! Every state of every Pod, Rollout, Lease and Event, as watches tell them.
use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, future::join_all};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};

use crate::cluster::support::TestCluster;

const KINDS: [(&str, &str, &str); 5] = [
    ("", "v1", "Pod"),
    ("", "v1", "Event"),
    ("coordination.k8s.io", "v1", "Lease"),
    ("baton.dev", "v1alpha1", "Rollout"),
    ("baton.dev", "v1alpha1", "ListenerSet"),
];

/// What was seen so far, also in a file: one object a line, with the time in microseconds since 1970.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Recorder {
    /// Records until the process ends, also across restarts of the API server.
    pub fn start(cluster: &TestCluster) -> Self {
        let file = Arc::new(Mutex::new(File::create(cluster.dir.join("recording.jsonl")).unwrap()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kubeconfig, shared) = (cluster.kubeconfig.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(record_all(kubeconfig, &file, &shared));
        });
        Self { seen }
    }

    /// The states of this kind in this namespace, in the order of time; there are some.
    pub fn states(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        let ours = |line: &&Value| line["kind"] == kind && line["object"]["metadata"]["namespace"] == namespace;
        let states: Vec<Value> = seen.iter().filter(ours).cloned().collect();
        assert!(!states.is_empty(), "nothing was recorded of any {kind} in {namespace}");
        states
    }
}

async fn record_all(kubeconfig: PathBuf, file: &Mutex<File>, seen: &Mutex<Vec<Value>>) {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    join_all(KINDS.map(|(group, version, kind)| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        record(Api::all_with(client.clone(), &resource), kind, file, seen)
    }))
    .await;
}

/// A watch that fails is begun anew: what was deleted meanwhile is not seen, and the file says since when.
async fn record(api: Api<DynamicObject>, kind: &str, file: &Mutex<File>, seen: &Mutex<Vec<Value>>) {
    let mut events = watcher::watcher(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let (what, mut object) = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => ("state", object),
            Ok(Event::Delete(object)) => ("gone", object),
            Ok(_) => continue,
            Err(error) => {
                let line = json!({"at": now(), "kind": kind, "what": "watch failed", "error": error.to_string()});
                writeln!(file.lock().unwrap(), "{line}").unwrap();
                continue;
            }
        };
        object.metadata.managed_fields = None;
        let line = json!({"at": now(), "kind": kind, "what": what, "object": object});
        writeln!(file.lock().unwrap(), "{line}").unwrap();
        seen.lock().unwrap().push(line);
    }
}

/// Microseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}
