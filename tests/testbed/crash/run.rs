//! One run of the scenario, with at most one fault in it.
use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use baton::api::{ConditionType, Rollout};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time};

use super::{
    end::End,
    operator::Operator,
    stage::{BROKEN, GOOD, Stage},
};
use crate::{
    demo::{judge::Judge, ledger::Bounds, programs::tail},
    proxy::requests::{Fault, FaultProxy, Kill, Point, Write},
};

const ROLLOUT: &str = "web";
const REPLICAS: i32 = 6;
const MIN_READY_SECONDS: i32 = 1;
const MAX_SURGE: i32 = 1;
const MAX_UNAVAILABLE: i32 = 1;
/// Patience for a whole run; one at a time needs about a tenth.
const RUN_SECONDS: u64 = 240;
/// An operator that has had nothing to do for so long after the Rollout was complete is done.
const QUIET: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// Watches are silent for ten times what the operator bears; as shipped that is 60 s, and here a tenth of it.
const WATCH_SILENCE_SECONDS: u64 = 6;
const SILENCE: Duration = Duration::from_secs(10 * WATCH_SILENCE_SECONDS);

/// What became of a run.
pub struct Outcome {
    pub point: Option<Point>,
    pub writes: Vec<Write>,
    /// Whether the fault happened: a run may have fewer writes than the golden ones.
    pub struck: bool,
    pub end: End,
    pub lowest_available: usize,
    pub most_pods: usize,
    pub took: Duration,
    /// What must not be, in words.
    pub problems: Vec<String>,
    /// Its logs.
    pub folder: PathBuf,
}

/// Plays the scenario in a namespace of its own. Whatever goes wrong is a problem of the outcome.
pub async fn run(stage: &Stage, point: Option<Point>) -> Outcome {
    let name = match point {
        Some(Point { write, fault }) => format!("at-{write}-{fault}"),
        None => format!("golden-{:04x}", fastrand::u16(..)),
    };
    let folder = stage.dir.join("runs").join(&name);
    let mut outcome = Outcome {
        point,
        writes: Vec::new(),
        struck: false,
        end: End::default(),
        lowest_available: usize::MAX, // until something was seen
        most_pods: 0,
        took: Duration::ZERO,
        problems: Vec::new(),
        folder,
    };
    let began = time::Instant::now();
    if let Err(error) = play(stage, &name, &mut outcome).await {
        outcome.problems.insert(0, format!("{error:#}"));
    }
    if let Err(error) = stage.delete_namespace(&name).await {
        outcome.problems.push(format!("the namespace cannot be deleted: {error:#}"));
    }
    outcome.took = began.elapsed();
    if let Err(error) = fs::write(outcome.folder.join("writes.log"), trace(&outcome.writes)) {
        outcome.problems.push(format!("no trace was written: {error}"));
    }
    outcome
}

/// The writes for people: number, time, words, answer.
fn trace(writes: &[Write]) -> String {
    let mut text = String::new();
    for (index, Write { at, what, status }) in writes.iter().enumerate() {
        let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let _ = writeln!(text, "{:>4} {at:.3} {status:>4} {what}", index + 1); // a String takes everything
    }
    text
}

async fn play(stage: &Stage, name: &str, outcome: &mut Outcome) -> Result<()> {
    stage.make_namespace(name).await?;
    let mut tasks = JoinSet::new();
    let min_ready = SignedDuration::from_secs(i64::from(MIN_READY_SECONDS));
    let judge = Judge::start(Api::namespaced(stage.admin.clone(), name), ROLLOUT, min_ready, &mut tasks).await?;
    let (proxy, kills) = FaultProxy::start(stage.operator_client().await?, outcome.point, SILENCE).await?;
    let mut operator = Operator::new(stage.operator.clone(), &outcome.folder, name, patience(outcome.point))?;
    fs::write(&operator.kubeconfig, kubeconfig(&proxy))?;
    let actor = Actor { stage, namespace: name, proxy: &proxy, judge: &judge };

    let played = tokio::select! {
        played = time::timeout(Duration::from_secs(RUN_SECONDS), actor.play(outcome)) => match played {
            Ok(played) => played,
            Err(_) => Err(anyhow::anyhow!("not at the end after {RUN_SECONDS} s: {}", actor.words().await)),
        },
        ended = attend(&mut operator, &proxy, kills) => ended,
    };
    outcome.writes = proxy.writes();
    outcome.struck = proxy.has_struck();
    let killed = operator.kill().await;
    played.with_context(|| tail(&operator.log()))?;
    killed
}

/// Timeouts that are compressed where a fault waits for them; else as shipped.
fn patience(point: Option<Point>) -> Vec<String> {
    let args: &[&str] = match point.map(|point| point.fault) {
        Some(Fault::Silent) => &["--watch-silence-seconds", &WATCH_SILENCE_SECONDS.to_string()],
        Some(Fault::Lost) => &["--call-timeout-seconds", "2"],
        _ => &[],
    };
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn kubeconfig(proxy: &FaultProxy) -> String {
    let named = |what: &str, value: serde_json::Value| json!([{"name": "proxy", what: value}]);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": named("cluster", json!({"server": format!("http://{}", proxy.address)})),
        "contexts": named("context", json!({"cluster": "proxy", "user": "proxy"})),
        "users": named("user", json!({})),
    })
    .to_string()
}

/// Runs the operator; kills it when the proxy wants it, and starts it again at once. Ends with an error only.
async fn attend(operator: &mut Operator, proxy: &FaultProxy, mut kills: mpsc::Receiver<Kill>) -> Result<()> {
    proxy.client_starts();
    operator.start()?;
    loop {
        tokio::select! {
            Some(dead) = kills.recv() => {
                operator.kill().await?;
                proxy.client_starts();
                let _ = dead.send(()); // the request may be gone with its client
                operator.start()?;
            }
            () = time::sleep(POLL) => operator.check()?,
        }
    }
}

/// Who does what a person would do, and looks.
struct Actor<'a> {
    stage: &'a Stage,
    namespace: &'a str,
    proxy: &'a FaultProxy,
    judge: &'a Judge,
}

impl Actor<'_> {
    async fn play(&self, outcome: &mut Outcome) -> Result<()> {
        let pods_max = (REPLICAS + MAX_SURGE) as usize;
        self.judge.begin(Bounds { available_min: 0, pods_max });
        self.roll(GOOD[0]).await?;
        self.until("Complete").await?;
        outcome.problems.extend(self.judge.end().problems);

        self.judge.begin(Bounds { available_min: (REPLICAS - MAX_UNAVAILABLE) as usize, pods_max });
        self.roll(BROKEN).await?;
        self.until("RolledBack").await?;
        self.roll(GOOD[1]).await?;
        self.until("Complete").await?;
        self.until_quiet().await?;
        let observed = self.judge.end();
        outcome.problems.extend(observed.problems);
        (outcome.lowest_available, outcome.most_pods) = (observed.lowest_available, observed.most_pods);
        outcome.end = End::read(&self.stage.admin, self.namespace, ROLLOUT).await?;
        Ok(())
    }

    fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.stage.admin.clone(), self.namespace)
    }

    async fn roll(&self, version: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": ROLLOUT},
            "spec": {
                "replicas": REPLICAS,
                "minReadySeconds": MIN_READY_SECONDS,
                "selector": {"matchLabels": {"app": ROLLOUT}},
                "hooks": [
                    hook("backup", "BeforeRollout", "echo b1 > /dev/termination-log"),
                    hook("smoke", "AfterBatch", "true"),
                    hook("restore", "OnRollback", "test \"$BATON_BACKUP_ID\" = b1"),
                ],
                "strategy": {"batchSize": 2, "maxSurge": MAX_SURGE, "maxUnavailable": MAX_UNAVAILABLE},
                "template": {
                    "metadata": {"labels": {"app": ROLLOUT}},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "web", "image": format!("example.local/web:{version}"), "command": ["web"],
                            "env": [
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                                {"name": "WEB_DRAIN_SECONDS", "value": "0"},
                            ],
                            // Without one a container is Ready as soon as it runs, also one that exits at once; on a
                            // busy machine for longer than minReadySeconds.
                            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        });
        self.rollouts().patch(ROLLOUT, &PatchParams::apply("crash").force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Waits until the Rollout says this of its present spec.
    async fn until(&self, reason: &str) -> Result<()> {
        loop {
            let rollout = self.rollouts().get(ROLLOUT).await?;
            match readiness(&rollout) {
                Some(now) if now == reason => return Ok(()),
                Some("RolledBack") => bail!("rolled back instead of {reason}: {}", self.words().await),
                _ => time::sleep(POLL).await,
            }
        }
    }

    /// Waits until the old Pods have ended, and the operator, which leads, has had nothing to do for a while.
    async fn until_quiet(&self) -> Result<()> {
        loop {
            let known = self.rollouts().get(ROLLOUT).await?.status.is_some_and(|it| it.terminating_replicas == 0);
            let pods = self.pods().list(&ListParams::default()).await?.items;
            let ended = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none());
            if known && ended && self.proxy.is_quiet(QUIET) {
                return Ok(());
            }
            time::sleep(POLL).await;
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.stage.admin.clone(), self.namespace)
    }

    /// Where it stands, for error messages.
    async fn words(&self) -> String {
        let rollout = self.rollouts().get(ROLLOUT).await.map(|rollout| rollout.status);
        let pods = self.pods().list(&ListParams::default()).await.map(|list| list.items);
        let pods: Vec<_> = pods.iter().flatten().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        format!("at {:.3} Pods {pods:?}, status {rollout:#?}", Timestamp::now())
    }
}

/// A hook that runs this script.
fn hook(name: &str, when: &str, script: &str) -> serde_json::Value {
    let container = json!({
        "name": "main", "image": format!("example.local/web:{}", GOOD[0]), "command": ["sh", "-c", script],
    });
    json!({"name": name, "when": when, "template": {"spec": {"containers": [container]}}})
}

/// The reason of Ready, if status is about the present spec.
fn readiness(rollout: &Rollout) -> Option<&str> {
    let (status, generation) = (rollout.status.as_ref()?, rollout.metadata.generation);
    let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready)?;
    let is_present = status.observed_generation == generation && ready.observed_generation == generation;
    is_present.then_some(&*ready.reason)
}
