//! What one tenant's objects cost the others: a neighbour's reconciles, timed without and with the noise, in one cluster.
mod config_map;
mod counts;
mod neighbour;
mod templates;

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{coordination::v1::Lease, core::v1::Namespace},
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{task::JoinSet, time};

use self::neighbour::Neighbour;
use super::{arena::Place, listeners::percentile, processes, subject::Subject, table};
use crate::demo::stage::Stage;

/// Namespace of the noise.
const NOISY: &str = "noisy";
/// The issue of all of it: others' p99, and the operator's memory.
const OPERATOR: &str = "baton-operator";
/// After the noise was made, before it is measured: the operator has seen all of it.
const REST: Duration = Duration::from_secs(10);
/// Objects that are created at once.
const AT_ONCE: usize = 8;

/// What one namespace does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Noise {
    /// Rollouts whose templates are as large as the operator reads (240 KB).
    Templates,
    /// Rollouts of 1.4 MB, which the operator does not read.
    HugeTemplates,
    /// ListenerSets of `spec.count: 10000`.
    Counts,
    /// ListenerSets on one ConfigMap of 1 MB that is edited each second.
    ConfigMap,
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Templates => "Rollouts of 240 KB",
            Self::HugeTemplates => "Rollouts of 1.4 MB",
            Self::Counts => "ListenerSets of count 10,000",
            Self::ConfigMap => "ListenerSets on one ConfigMap of 1 MB, edited each second",
        })
    }
}

/// What was measured. Times in milliseconds, sorted.
#[derive(Clone, Debug)]
pub struct Measured {
    pub quiet: Vec<f64>,
    pub noisy: Vec<f64>,
    /// The operator's resident memory in MiB: before the noise, and at most.
    pub resident_mib: f64,
    pub peak_mib: f64,
    /// Whether the operator's lock has had one holder all the time.
    pub lock_kept: bool,
}

/// Runs it once: so many objects of noise, and so many reconciles of the neighbour without and with it.
pub async fn run(place: &Place, noise: Noise, objects: usize, changes: usize) -> Result<Measured> {
    let stage = place.open(Subject::Baton).await?;
    let mut tasks = JoinSet::new();
    let outcome = tokio::select! {
        outcome = measure(&stage, noise, objects, changes, &mut tasks) => outcome,
        died = stage.watch() => Err(died),
    };
    tasks.shutdown().await;
    stage.clear().await?;
    outcome
}

async fn measure(
    stage: &Stage,
    noise: Noise,
    objects: usize,
    changes: usize,
    tasks: &mut JoinSet<()>,
) -> Result<Measured> {
    let client = stage.client().await?;
    let mut neighbour = Neighbour::create(&client, tasks).await?;
    neighbour.change(changes.min(20)).await?; // what is not warm yet
    let quiet = neighbour.change(changes).await?;
    let before = operator()?;
    let lock = lock(&client).await?;
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NOISY.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    match noise {
        Noise::Templates => templates::make(&client, objects, templates::READ_BYTES).await?,
        Noise::HugeTemplates => templates::make(&client, objects, templates::HUGE_BYTES).await?,
        Noise::Counts => counts::make(&client, objects).await?,
        Noise::ConfigMap => config_map::make(&client, objects, tasks).await?,
    }
    time::sleep(REST).await;
    let beside = neighbour.change(changes).await?;
    let mib = |kib: u64| kib as f64 / 1_024.0;
    Ok(Measured {
        quiet,
        noisy: beside,
        resident_mib: mib(before.resident_kib),
        peak_mib: mib(operator()?.peak_kib),
        lock_kept: lock == self::lock(&client).await?,
    })
}

fn operator() -> Result<processes::Usage> {
    processes::usage()?.remove(OPERATOR).with_context(|| format!("{OPERATOR} does not run"))
}

/// Holder of the operator's lock, and how often it has changed.
async fn lock(client: &Client) -> Result<Vec<(Option<String>, Option<i32>)>> {
    let leases =
        Api::<Lease>::namespaced(client.clone(), "baton-system").list(&kube::api::ListParams::default()).await?;
    let specs = leases.items.into_iter().filter_map(|lease| lease.spec);
    Ok(specs.map(|spec| (spec.holder_identity, spec.lease_transitions)).collect())
}

/// The table of all that was measured.
pub fn markdown(results: &[(Noise, usize, Measured)]) -> String {
    let head = [
        "others' p50, ms: without",
        "with",
        "p99: without",
        "with",
        "ratio",
        "operator's RSS, MiB: before",
        "peak",
        "lock kept",
    ];
    let row = |(noise, objects, it): &(Noise, usize, Measured)| {
        let [quiet, noisy] = [percentile(&it.quiet, 0.99), percentile(&it.noisy, 0.99)];
        let cells = vec![
            format!("{:.1}", percentile(&it.quiet, 0.5)),
            format!("{:.1}", percentile(&it.noisy, 0.5)),
            format!("{quiet:.1}"),
            format!("{noisy:.1}"),
            format!("{:.1}", noisy / quiet),
            format!("{:.0}", it.resident_mib),
            format!("{:.0}", it.peak_mib),
            if it.lock_kept { "yes" } else { "no" }.to_owned(),
        ];
        (format!("{objects} {noise}"), cells)
    };
    table::rows("the other namespace has", &head, results.iter().map(row))
}

/// Creates this many objects in the noisy namespace.
async fn create_all<K>(client: &Client, count: usize, make: impl Fn(usize) -> Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NOISY);
    stream::iter((0..count).map(make))
        .map(|object| {
            let api = &api;
            async move {
                api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
