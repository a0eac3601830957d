//! The scenes, one after the other, under load that never pauses.
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use baton::api::{ConditionType, IntOrPercent, Rollout};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::{
    judge::Judge,
    ledger::{Bounds, Facts},
    listeners,
    live::Live,
    load::Load,
    rollout::{self, Follower},
    stage::{NAMESPACE, OPERATOR_USER, Stage},
    summary::{Kill, Scene, Summary},
    victim, writes,
};

const ROLLOUT: &str = "web";
const REPLICAS: i32 = 8;
const SCALED: i32 = 12;
const FIRST: &str = "1.0";
const SECOND: &str = "1.1";
const BROKEN: &str = "1.2-broken";
/// What its program says last.
const BROKEN_BECAUSE: &str = "exit code 3: web 1.2-broken: starting | FATAL cannot read /etc/shop.conf";
const THIRD: &str = "1.2";
const CARED_FOR: &str = "1.3";
/// Its self-test says that it is not well.
const UNWELL: &str = "1.4-unwell";
const DRAINED: &str = "1.5";
const FOURTH: &str = "2.0";
/// The instance that goes back alone.
const ALONE: i32 = 3;
/// The manifest's minReadySeconds; also what gives a person time to watch.
const MIN_READY_SECONDS: i32 = 2;
/// In which equal parts the instances are replaced.
const BATCHES: i32 = 3;
/// Patience for one scene; a busy machine needs a tenth.
const SCENE_SECONDS: u64 = 180;

/// Plays all scenes and measures them.
pub async fn play(stage: &Stage) -> Result<Summary> {
    heading("A cluster, with Baton in it");
    stage.make_images(&[FIRST, SECOND, THIRD, CARED_FOR, UNWELL, DRAINED, FOURTH], BROKEN)?;
    stage.install().await?;
    let client = stage.client().await?;
    let actors = Actors::gather(stage, client).await?;
    actors.appear().await?;

    let load = Load::start(stage).await?;
    println!("  load runs: {}", load.words());
    let scenes = vec![
        actors.roll().await?,
        actors.roll_back().await?,
        actors.roll_with_a_kill().await?,
        actors.roll_back_one().await?,
        actors.deploy_with_care().await?,
        actors.scale().await?,
        actors.switch().await?,
    ];
    let load = load.finish(stage).await?;
    heading("Twelve listeners on four Pods");
    let listeners = listeners::play(stage, stage.client().await?).await?;
    Ok(Summary {
        scenes,
        load,
        listeners,
        good: vec![FIRST, SECOND, THIRD, CARED_FOR, DRAINED, FOURTH],
        broken: BROKEN,
    })
}

struct Actors<'a> {
    stage: &'a Stage,
    rollouts: Api<Rollout>,
    judge: Judge,
    follower: Follower,
    /// The watches of both; they end with this.
    _tasks: JoinSet<()>,
}

impl<'a> Actors<'a> {
    async fn gather(stage: &'a Stage, client: Client) -> Result<Self> {
        stage.show(&["create", "namespace", NAMESPACE]).await?;
        let rollouts = Api::namespaced(client.clone(), NAMESPACE);
        let mut tasks = JoinSet::new();
        let min_ready = SignedDuration::from_secs(i64::from(MIN_READY_SECONDS));
        let judge = Judge::start(Api::<Pod>::namespaced(client, NAMESPACE), ROLLOUT, min_ready, &mut tasks).await?;
        let follower = Follower::start(rollouts.clone(), ROLLOUT, &mut tasks);
        Ok(Self { stage, rollouts, judge, follower, _tasks: tasks })
    }

    /// Eight instances of 1.0.
    async fn appear(&self) -> Result<()> {
        self.stage.show(&["apply", "-n", NAMESPACE, "-f", "tests/testbed/demo/web.yaml"]).await?;
        let live = Live::start(self.stage)?;
        self.follower.until_complete(1, SCENE_SECONDS).await?;
        live.stop().await?;
        self.stage.show(&["get", "rollouts.baton.dev,services", "-n", NAMESPACE]).await
    }

    async fn roll(&self) -> Result<Scene> {
        let scene = self.begin(format!("{FIRST} → {SECOND}, in {BATCHES} batches"), REPLICAS).await?;
        self.follower.take_batches();
        let generation = self.set_image(SECOND).await?;
        let live = Live::start(self.stage)?;
        self.follower.until_complete(generation, SCENE_SECONDS).await?;
        let scene = scene.end(Some(FIRST))?;
        live.stop().await?;
        let batches = self.follower.take_batches();
        for index in 1..=BATCHES {
            ensure!(batches.contains(&(index, BATCHES)), "batch {index} of {BATCHES} was not seen, only {batches:?}");
        }
        self.expect_version(SECOND).await?;
        Ok(scene)
    }

    async fn roll_back(&self) -> Result<Scene> {
        let scene = self.begin(format!("{SECOND} → {BROKEN}, and back by itself"), REPLICAS).await?;
        let generation = self.set_image(BROKEN).await?;
        let live = Live::start(self.stage)?;
        let back = |rollout: &Rollout| {
            let (_, reason) = rollout::readiness(rollout);
            if rollout::has(rollout, ConditionType::Stalled) && reason != "RolledBack" {
                bail!("the Rollout is stalled: {reason}");
            }
            Ok((reason == "RolledBack").then_some(()))
        };
        self.follower.until(generation, SCENE_SECONDS, "the broken version is rolled back", back).await?;
        let scene = scene.end(None)?;
        live.stop().await?;
        self.expect_version(SECOND).await?;
        // Its Pods are gone with their logs; why it failed is not.
        let why = ["get", "rollouts.baton.dev", ROLLOUT, "-n", NAMESPACE, "-o", "jsonpath={.status.waitingFor}"];
        self.stage.show(&why).await?;
        let why = self.stage.kubectl(&why).await?;
        ensure!(why.contains(BROKEN_BECAUSE), "it is not told that {BROKEN} failed by {BROKEN_BECAUSE:?}: {why}");
        Ok(scene)
    }

    async fn roll_with_a_kill(&self) -> Result<Scene> {
        let mut scene = self.begin(format!("{SECOND} → {THIRD}, one process killed in it"), REPLICAS).await?;
        let generation = self.set_image(THIRD).await?;
        let live = Live::start(self.stage)?;
        // In the middle: the second batch is at work, and the one to be killed is of the first.
        let second = |rollout: &Rollout| {
            let batch = rollout.status.as_ref().and_then(|status| status.batch.as_ref());
            Ok(batch.filter(|batch| batch.index == 2).map(drop))
        };
        self.follower.until(generation, SCENE_SECONDS, "batch 2 is opened", second).await?;
        let victim = self
            .judge
            .until(SCENE_SECONDS, "instance 0 runs the new version while others run the old one", |pods| {
                let runs = |pod: &Facts, version| pod.in_service() && pod.version == version;
                let new = pods.iter().find(|pod| pod.instance == 0 && runs(pod, THIRD))?;
                pods.iter().any(|pod| runs(pod, SECOND)).then(|| new.clone())
            })
            .await?;
        live.stop().await?;
        self.judge.excuse(&victim.uid);
        let at = Timestamp::now();
        let pid = victim::kill_process_of(&format!("BATON_POD_NAME={}", victim.name), "web")?;
        println!("  ✂ SIGKILL to process {pid}, which is {}", victim.name);
        let live = Live::start(self.stage)?;
        self.judge
            .until(SCENE_SECONDS, "the killed container has been started anew", |pods| {
                pods.iter()
                    .find(|pod| pod.uid == victim.uid && pod.in_service() && pod.restarts > victim.restarts)
                    .map(drop)
            })
            .await?;
        self.follower.until_complete(generation, SCENE_SECONDS).await?;
        let Some((seen_at, Some(back_at))) = self.judge.killed() else { bail!("the kill was not seen in the Pods") };
        scene.kill = Some(Kill { pod: victim.name, at, seen_at, back_at });
        let scene = scene.end(Some(SECOND))?;
        live.stop().await?;
        self.expect_version(THIRD).await?;
        Ok(scene)
    }

    /// One instance goes back, and comes again; nothing happens to the others.
    async fn roll_back_one(&self) -> Result<Scene> {
        let title = format!("{THIRD} → {SECOND} → {THIRD}, instance {ALONE} alone");
        let mut scene = self.begin(title, REPLICAS).await?;
        scene.again = Some(SECOND);
        let is_other = |pod: &Facts| pod.instance != ALONE && pod.in_service();
        let others = || self.judge.pods().into_iter().filter(is_other).map(|pod| pod.uid);
        let before: BTreeSet<String> = others().collect();
        let instance = ALONE.to_string();
        let undo = ["baton", "undo", ROLLOUT, "--instances", &instance, "--reason", "one client sees old prices"];
        self.stage.show(&[&undo[..], &["-n", NAMESPACE]].concat()).await?;
        self.follower.until_complete(self.generation().await?, SCENE_SECONDS).await?;
        self.expect_of_one(SECOND).await?;
        self.stage.show(&["baton", "get", "rollout", ROLLOUT, "-n", NAMESPACE]).await?;
        self.stage.show(&["baton", "unpin", ROLLOUT, "--instances", &instance, "-n", NAMESPACE]).await?;
        self.follower.until_complete(self.generation().await?, SCENE_SECONDS).await?;
        self.expect_version(THIRD).await?;
        ensure!(others().collect::<BTreeSet<_>>() == before, "other Pods than that of instance {ALONE} were replaced");
        scene.end(Some(SECOND))
    }

    /// Backup, migration, self-test and drain: a version that is not well is taken back after its backup was restored.
    async fn deploy_with_care(&self) -> Result<Scene> {
        let title = format!("{THIRD} → {CARED_FOR} → {UNWELL} and back → {DRAINED}, with backup, self-test and drain");
        let scene = self.begin(title, REPLICAS).await?;
        let care = "tests/testbed/demo/care.yaml";
        let patch = ["patch", "rollouts.baton.dev", ROLLOUT, "-n", NAMESPACE, "--type=merge", "--patch-file", care];
        self.stage.show(&patch).await?;
        let generation = self.set_image(CARED_FOR).await?;
        let live = Live::start(self.stage)?;
        self.follower.until_complete(generation, SCENE_SECONDS).await?;
        live.stop().await?;
        self.expect_version(CARED_FOR).await?;

        let unwell = format!(
            r#"[{{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.local/web:{UNWELL}"}}, {{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {{"name": "WEB_FAIL", "value": "selftest"}}}}]"#
        );
        let generation = self.patch_json(&unwell).await?;
        let live = Live::start(self.stage)?;
        let is_back = |rollout: &Rollout| Ok((rollout::readiness(rollout).1 == "RolledBack").then_some(()));
        self.follower.until(generation, SCENE_SECONDS, "the unwell version is rolled back", is_back).await?;
        live.stop().await?;
        let why = ["get", "rollouts.baton.dev", ROLLOUT, "-n", NAMESPACE, "-o", "jsonpath={.status.waitingFor}"];
        let why = self.stage.kubectl(&why).await?;
        ensure!(why.contains("health check selftest: answered 503"), "it is not told why {UNWELL} failed: {why}");
        self.expect_restored().await?;

        let well = format!(
            r#"[{{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.local/web:{DRAINED}"}}, {{"op": "remove", "path": "/spec/template/spec/containers/0/env/1"}}]"#
        );
        let generation = self.patch_json(&well).await?;
        let live = Live::start(self.stage)?;
        self.follower.until_complete(generation, SCENE_SECONDS).await?;
        let scene = scene.end(Some(CARED_FOR))?;
        live.stop().await?;
        self.stage.show(&["baton", "history", ROLLOUT, "-n", NAMESPACE]).await?;
        self.expect_version(DRAINED).await?;
        Ok(scene)
    }

    /// The backup of the run that failed is the one that was restored.
    async fn expect_restored(&self) -> Result<()> {
        let status = self.rollouts.get(ROLLOUT).await?.status.unwrap_or_default();
        let hooks = status.hooks.context("no hooks in status")?;
        let run = hooks.restore.as_ref().context("nothing to restore")?.run;
        let restored = hooks.log.iter().find(|record| record.name == "restore").context("no restore in status")?;
        let log = ["logs", &format!("job/{}", restored.job), "-n", NAMESPACE];
        self.stage.show(&log).await?;
        let said = self.stage.kubectl(&log).await?;
        ensure!(said.trim() == format!("restores demo-{run}"), "the restore of run {run} says {said:?}");
        Ok(())
    }

    async fn patch_json(&self, patch: &str) -> Result<i64> {
        self.stage.show(&["patch", "rollouts.baton.dev", ROLLOUT, "-n", NAMESPACE, "--type=json", "-p", patch]).await?;
        self.generation().await
    }

    /// A whole second set beside the first, and one write that has all requests go there.
    async fn switch(&self) -> Result<Scene> {
        let strategy = r#"{"spec": {"strategy": {"type": "BlueGreen", "batchSize": null,
            "blueGreen": {"activeService": "web", "scaleDownDelaySeconds": 5}}}}"#;
        let strategy = strategy.split_whitespace().collect::<Vec<_>>().join(" ");
        let title = format!("{DRAINED} → {FOURTH}, BlueGreen, one switch");
        let scene = self.begin_within(title, Bounds { available_min: SCALED as usize, pods_max: 2 * SCALED as usize });
        let patch = ["patch", "rollouts.baton.dev", ROLLOUT, "-n", NAMESPACE, "--type=merge", "-p", &strategy];
        self.stage.show(&patch).await?;
        self.follower.until_complete(self.generation().await?, SCENE_SECONDS).await?;
        let generation = self.set_image(FOURTH).await?;
        let live = Live::start(self.stage)?;
        self.follower.until_complete(generation, SCENE_SECONDS).await?;
        let scene = scene.end(Some(DRAINED))?;
        live.stop().await?;
        self.stage.show(&["get", "services", ROLLOUT, "-o", "wide", "-n", NAMESPACE]).await?;
        self.expect_version(FOURTH).await?;
        Ok(scene)
    }

    async fn scale(&self) -> Result<Scene> {
        let mut scene = self.begin(format!("{REPLICAS} → {SCALED} instances"), SCALED).await?;
        // Nothing is replaced: none of those in service may go.
        scene.bounds.available_min = REPLICAS as usize;
        self.judge.begin(scene.bounds);
        let replicas = format!("--replicas={SCALED}");
        self.stage.show(&["scale", "rollouts.baton.dev/web", &replicas, "-n", NAMESPACE]).await?;
        let generation = self.generation().await?;
        let live = Live::start(self.stage)?;
        self.follower.until_complete(generation, SCENE_SECONDS).await?;
        let scene = scene.end(None)?;
        live.stop().await?;
        self.expect_version(DRAINED).await?;
        Ok(scene)
    }

    /// A scene in which `replicas` instances are replaced, within the budget of the spec.
    async fn begin(&self, title: String, replicas: i32) -> Result<Running<'_>> {
        let spec = self.rollouts.get(ROLLOUT).await?.spec;
        ensure!(spec.min_ready_seconds == MIN_READY_SECONDS, "the judge counts with another minReadySeconds");
        let strategy = spec.strategy;
        let count =
            |value: &IntOrPercent, up| if up { value.rounded_up(replicas) } else { value.rounded_down(replicas) };
        let bounds = Bounds {
            available_min: (replicas - count(&strategy.max_unavailable, false)) as usize,
            pods_max: (replicas + count(&strategy.max_surge, true)) as usize,
        };
        Ok(self.begin_within(title, bounds))
    }

    fn begin_within(&self, title: String, bounds: Bounds) -> Running<'_> {
        heading(&title);
        self.judge.begin(bounds);
        Running {
            stage: self.stage,
            judge: &self.judge,
            title,
            began: Timestamp::now(),
            bounds,
            kill: None,
            again: None,
        }
    }

    /// Asks for another version, as a person would. Answers the spec's new generation.
    async fn set_image(&self, version: &str) -> Result<i64> {
        let patch = format!(
            r#"[{{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.local/web:{version}"}}]"#
        );
        self.patch_json(&patch).await
    }

    async fn generation(&self) -> Result<i64> {
        self.rollouts.get(ROLLOUT).await?.metadata.generation.context("a Rollout without generation")
    }

    /// Fails unless the one instance is in service with this version.
    async fn expect_of_one(&self, version: &str) -> Result<()> {
        let what = format!("instance {ALONE} alone runs version {version}");
        let is_it = |pod: &Facts| (pod.instance == ALONE) == (pod.version == version);
        self.judge
            .until(SCENE_SECONDS, &what, |pods| pods.iter().filter(|pod| pod.in_service()).all(is_it).then_some(()))
            .await
    }

    /// Fails unless every Pod in service is of this version.
    async fn expect_version(&self, version: &str) -> Result<()> {
        let what = format!("only version {version} is in service");
        self.judge
            .until(SCENE_SECONDS, &what, |pods| {
                pods.iter().filter(|pod| pod.in_service()).all(|pod| pod.version == version).then_some(())
            })
            .await
    }
}

/// A scene that goes on.
struct Running<'a> {
    stage: &'a Stage,
    judge: &'a Judge,
    title: String,
    began: Timestamp,
    bounds: Bounds,
    kill: Option<Kill>,
    again: Option<&'static str>,
}

impl Running<'_> {
    /// `gone`: the version that must not answer any more.
    fn end(self, gone: Option<&'static str>) -> Result<Scene> {
        let ended = Timestamp::now();
        let observed = self.judge.end();
        let log = self.stage.audit_log.as_deref();
        let writes = log.map(|log| writes::of(log, &[OPERATOR_USER], self.began, ended)).transpose()?;
        let Self { title, began, bounds, kill, again, .. } = self;
        Ok(Scene { title, began, ended, bounds, observed, kill, writes, again, gone })
    }
}

fn heading(text: &str) {
    let bold = anstyle::Style::new().bold();
    anstream::println!("\n{bold}▶ {text}{bold:#}");
}
