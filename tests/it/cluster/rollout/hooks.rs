//! Hooks, as Jobs that the Job controller of a real control plane runs as processes.
//!
//! Long because: the tests share one script of hooks, and each is short.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use baton::{
    api::{
        ConditionType, Rollout, RolloutStatus,
        hooks::{HookPoint, HooksStatus, Point},
        names::{ANNOTATION_BACKUP, ANNOTATION_POINT, LABEL_HOOK, LABEL_INSTANCE, LABEL_REVISION, LABEL_RUN},
    },
    plan::hook::{job_name, key},
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ControllerRevision, batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};

use super::{
    bounds::Bounds,
    plugin,
    stage::{self, Stage, dry_run, merge, real, reason, run},
};

// Times in Kubernetes are whole seconds: what takes one begins and ends in different ones.
const BACKUP: &str = "echo b1 >/dev/termination-log; sleep 1";
const SECOND: &str = "sleep 1";
/// It says which backup it was given.
const RESTORE: &str = "echo \"$BATON_BACKUP_ID\" >/dev/termination-log; sleep 2";

fn hook(name: &str, when: &str, script: &str) -> Value {
    let container = json!({"name": "main", "image": "example.local/sleeper:1", "command": ["sh", "-c", script]});
    let pod = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    json!({"name": name, "when": when, "template": {"spec": pod}})
}

fn with(mut hook: Value, more: Value) -> Value {
    merge(&mut hook, more);
    hook
}

/// A batch an instance; the old Pod goes when the new one is available.
fn one_by_one(replicas: i32, hooks: &[Value]) -> Value {
    let strategy = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    json!({"replicas": replicas, "strategy": strategy, "hooks": hooks})
}

/// A namespace in which version 1 is complete. It came without hooks: they would run before the very first Pods, too.
async fn at_version_1(name: &str, replicas: i32) -> (Stage, Rollout) {
    let stage = Stage::new(real(), name).await;
    stage.roll("1", one_by_one(replicas, &[])).await;
    let rollout = stage.complete(60).await;
    (stage, rollout)
}

async fn until_hook_failed(stage: &Stage) -> Rollout {
    stage.until(120, "HookFailed", |rollout| reason(rollout) == "HookFailed").await
}

fn status(rollout: &Rollout) -> RolloutStatus {
    rollout.status.clone().unwrap_or_default()
}

fn hooks_of(rollout: &Rollout) -> HooksStatus {
    status(rollout).hooks.unwrap_or_default()
}

fn ready_message(rollout: &Rollout) -> String {
    let mut conditions = status(rollout).conditions.into_iter();
    conditions.find(|condition| condition.type_ == ConditionType::Ready).unwrap().message
}

fn jobs_api(stage: &Stage) -> Api<Job> {
    Api::namespaced(stage.client.clone(), &stage.namespace)
}

/// Jobs of hooks in the order in which they started.
async fn jobs(stage: &Stage) -> Vec<Job> {
    let mut jobs = jobs_api(stage).list(&ListParams::default().labels(LABEL_HOOK)).await.unwrap().items;
    jobs.sort_by_key(started_at);
    jobs
}

fn started_at(job: &Job) -> Option<Timestamp> {
    Some(job.status.as_ref()?.start_time.as_ref()?.0)
}

fn completed_at(job: &Job) -> Option<Timestamp> {
    Some(job.status.as_ref()?.completion_time.as_ref()?.0)
}

/// When its condition of this type became True.
fn since(job: &Job, type_: &str) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")?;
    Some(condition.last_transition_time.as_ref()?.0)
}

/// A Job that has failed has no completionTime.
fn ended_at(job: &Job) -> Timestamp {
    completed_at(job).or_else(|| since(job, "Failed")).unwrap_or_else(|| panic!("not ended: {job:?}"))
}

fn names(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.labels()[LABEL_HOOK].as_str()).collect()
}

/// `run point hook`
fn place(job: &Job) -> String {
    format!("{} {} {}", job.labels()[LABEL_RUN], job.annotations()[ANNOTATION_POINT], job.labels()[LABEL_HOOK])
}

#[track_caller]
fn assert_one_at_a_time(jobs: &[Job]) {
    for pair in jobs.windows(2) {
        let (ended, started) = (ended_at(&pair[0]), started_at(&pair[1]).unwrap());
        assert!(ended <= started, "{} ended at {ended}, {} began at {started}", place(&pair[0]), place(&pair[1]));
    }
}

/// Waits until the Pod of this hook runs.
async fn until_runs(stage: &Stage, hook: &str) -> Job {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let is_ready = |job: &Job| job.status.as_ref().and_then(|status| status.ready) == Some(1);
        let is_it = |job: &Job| job.labels()[LABEL_HOOK] == hook && is_ready(job);
        if let Some(job) = jobs(stage).await.into_iter().find(is_it) {
            return job;
        }
        assert!(Instant::now() < deadline, "{hook} does not run\n{}", stage.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Value of a variable of the Job's container; nothing if it has none of that name.
fn env(job: &Job, name: &str) -> String {
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let variable = pod.containers[0].env.iter().flatten().find(|variable| variable.name == name);
    variable.and_then(|variable| variable.value.clone()).unwrap_or_default()
}

/// Live Pods of instances, without those of hooks.
async fn instances(stage: &Stage) -> Vec<Pod> {
    stage.live().await.into_iter().filter(|pod| pod.labels().contains_key(LABEL_INSTANCE)).collect()
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.uid().unwrap()).collect()
}

fn created_at(pod: &Pod) -> Timestamp {
    pod.creation_timestamp().unwrap().0
}

/// The backup that is noted on the revision of this name.
async fn backup_on(stage: &Stage, revision: Option<String>) -> Option<String> {
    let revisions: Api<ControllerRevision> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let revision = revisions.get(&revision.unwrap()).await.unwrap();
    revision.annotations().get(ANNOTATION_BACKUP).cloned()
}

/// B6 B8 X5: backup, migration and tests run in their order, one at a time, and no new Pod is there before the migration has
/// ended; the backup is noted on the revision that it protects.
#[tokio::test]
async fn hooks_run_in_order_around_the_batches() {
    let (stage, before) = at_version_1("hooks-order", 3).await;
    let hooks = [
        hook("backup", "BeforeRollout", BACKUP),
        hook("migrate", "BeforeRollout", SECOND),
        hook("smoke", "AfterBatch", SECOND),
    ];
    stage.roll("2", one_by_one(3, &hooks)).await;
    let after = stage.complete(120).await;
    let number = run(&after);
    assert_eq!(number, run(&before) + 1);

    let jobs = jobs(&stage).await;
    let expected = [
        "BeforeRollout backup",
        "BeforeRollout migrate",
        "AfterBatch/1 smoke",
        "AfterBatch/2 smoke",
        "AfterBatch/3 smoke",
    ]
    .map(|place| format!("{number} {place}"));
    assert_eq!(jobs.iter().map(place).collect::<Vec<_>>(), expected);
    assert!(jobs.iter().all(|job| since(job, "Complete").is_some()), "{jobs:?}");
    assert_one_at_a_time(&jobs);
    assert_eq!((env(&jobs[0], "BATON_BACKUP_ID"), env(&jobs[1], "BATON_BACKUP_ID")), (String::new(), "b1".into()));

    let migrated = completed_at(&jobs[1]).unwrap();
    let pods = instances(&stage).await;
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(Some(&pod.labels()[LABEL_REVISION]), status(&after).update_revision.as_ref());
        assert!(created_at(pod) >= migrated, "{} came before {migrated}", pod.name_any());
    }
    let noted = backup_on(&stage, status(&before).current_revision).await;
    assert_eq!(noted, Some(format!("b1 backup {number}")));
    assert_eq!(backup_on(&stage, status(&after).update_revision).await, None);
}

/// B6 X5: without a backup no Pod is touched, and all who look are told what it said last.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_costs_no_pod() {
    let (stage, _) = at_version_1("hooks-backup", 3).await;
    let before = uids(&instances(&stage).await);
    let bounds = Bounds::watch(stage.pods(), 3).await;
    let hooks = [
        hook("backup", "BeforeRollout", "echo 'disk full' >&2; exit 3"),
        hook("migrate", "BeforeRollout", SECOND),
        hook("restore", "OnRollback", RESTORE),
    ];
    stage.roll("2", one_by_one(3, &hooks)).await;
    let failed = until_hook_failed(&stage).await;
    let why = "backup: exit code 3: disk full";
    assert!(ready_message(&failed).contains(why), "{}", ready_message(&failed));
    assert_eq!(status(&failed).failed.map(|failed| failed.message).as_deref(), Some(why));
    let (code, said, complaint) = plugin::run(&stage, &["status", "web", "--timeout", "60s"]);
    assert_eq!(code, Some(1), "{said}{complaint}");
    assert!(complaint.starts_with("error: rollout \"web\" is stalled (HookFailed): "), "{complaint}");
    assert!(complaint.contains(why), "{complaint}");

    assert_eq!(names(&jobs(&stage).await), ["backup"]);
    assert_eq!(uids(&instances(&stage).await), before);
    bounds.assert(3, 4).await;
    let created = bounds.worst().created;
    assert!(created.iter().all(|name| name.starts_with("web-hook-")), "{created:?}");
}

/// B8 B10: what a failed migration has left is taken back with the id of the backup, where no Pod has to go back, too.
#[tokio::test]
async fn a_failed_migration_is_restored() {
    let (stage, before) = at_version_1("hooks-migrate", 2).await;
    let pods = uids(&instances(&stage).await);
    let hooks = [
        hook("backup", "BeforeRollout", BACKUP),
        hook("migrate", "BeforeRollout", "sleep 1; echo 'table locked' >&2; exit 4"),
        hook("restore", "OnRollback", RESTORE),
    ];
    stage.roll("2", one_by_one(2, &hooks)).await;
    let failed = until_hook_failed(&stage).await;
    assert!(ready_message(&failed).contains("migrate: exit code 4: table locked"), "{}", ready_message(&failed));

    let jobs = jobs(&stage).await;
    assert_eq!(names(&jobs), ["backup", "migrate", "restore"]);
    assert_one_at_a_time(&jobs);
    let restore = &jobs[2];
    assert!(completed_at(restore).is_some(), "{restore:?}");
    assert_eq!((restore.labels()[LABEL_RUN].as_str(), run(&failed)), (&*run(&failed).to_string(), run(&before) + 2));
    assert_eq!(env(restore, "BATON_BACKUP_ID"), "b1");
    let cause = env(restore, "BATON_ROLLBACK_CAUSE");
    assert!(cause.contains("migrate: exit code 4: table locked"), "{cause}");
    let last = &hooks_of(&failed).log[0];
    assert_eq!((last.name.as_str(), last.result.as_str(), last.message.as_str()), ("restore", "Succeeded", "b1"));

    assert_eq!(uids(&instances(&stage).await), pods);
    let noted = backup_on(&stage, status(&before).current_revision).await;
    assert_eq!(noted, Some(format!("b1 backup {}", run(&before) + 1)));
}

/// B10 X5: data first: no Pod of the old version comes back before the restore has ended.
#[tokio::test]
async fn a_restore_ends_before_the_first_pod_goes_back() {
    let (stage, before) = at_version_1("hooks-smoke", 2).await;
    let old = status(&before).current_revision.unwrap();
    let pods = uids(&instances(&stage).await);
    let smoke = with(hook("smoke", "AfterBatch", "sleep 1; echo 'answers 500' >&2; exit 1"), json!({"batches": "1"}));
    let hooks = [hook("backup", "BeforeRollout", BACKUP), smoke, hook("restore", "OnRollback", RESTORE)];
    stage.roll("2", one_by_one(2, &hooks)).await;
    let failed = until_hook_failed(&stage).await;
    assert!(ready_message(&failed).contains("smoke: exit code 1: answers 500"), "{}", ready_message(&failed));
    assert_eq!(status(&failed).versions.iter().map(|it| it.version.as_str()).collect::<Vec<_>>(), ["1"]);

    let jobs = jobs(&stage).await;
    assert_eq!(names(&jobs), ["backup", "smoke", "restore"]);
    assert_one_at_a_time(&jobs);
    let restore = &jobs[2];
    assert_eq!(env(restore, "BATON_BACKUP_ID"), "b1");
    let restored = completed_at(restore).unwrap_or_else(|| panic!("{restore:?}"));

    let after = instances(&stage).await;
    assert!(after.len() == 2 && after.iter().all(|pod| pod.labels()[LABEL_REVISION] == old), "{after:?}");
    let back: Vec<_> = after.iter().filter(|pod| !pods.contains(&pod.uid().unwrap())).collect();
    assert_eq!(back.len(), 1, "one was changed");
    assert!(created_at(back[0]) >= restored, "{} came back before {restored}", back[0].name_any());
}

async fn wipe_status(stage: &Stage) {
    let wipe = json!([{"op": "replace", "path": "/status", "value": {"conditions": []}}]);
    let patch = Patch::<Value>::Json(serde_json::from_value(wipe).unwrap());
    stage.rollouts().patch_status("web", &PatchParams::default(), &patch).await.unwrap();
}

/// Status is wiped while the migration runs.
async fn lose_status(name: &str, has_new_operator: bool) {
    let (mut stage, _) = at_version_1(name, 2).await;
    let hooks = [
        hook("backup", "BeforeRollout", BACKUP),
        hook("migrate", "BeforeRollout", "sleep 10"),
        hook("smoke", "AfterBatch", SECOND),
    ];
    stage.roll("2", one_by_one(2, &hooks)).await;
    let migrate = until_runs(&stage, "migrate").await;
    let number = migrate.labels()[LABEL_RUN].clone();
    if has_new_operator {
        stage.kill_operator();
    }
    wipe_status(&stage).await;
    if has_new_operator {
        stage.start_operator();
    }
    let after = stage.complete(120).await;
    assert_eq!(run(&after).to_string(), number, "the same run");

    let jobs = jobs(&stage).await;
    let expected = ["BeforeRollout backup", "BeforeRollout migrate", "AfterBatch/1 smoke", "AfterBatch/2 smoke"]
        .map(|place| format!("{number} {place}"));
    assert_eq!(jobs.iter().map(place).collect::<Vec<_>>(), expected);
    assert!(jobs.iter().all(|job| since(job, "Complete").is_some()), "{jobs:?}");
    assert_one_at_a_time(&jobs);
    assert_eq!(jobs[1].uid(), migrate.uid());
    let pods = stage.live().await.into_iter().filter(|pod| pod.labels().contains_key(LABEL_HOOK)).count();
    assert_eq!(pods, jobs.len(), "a process a Job");
    let migrated = completed_at(&jobs[1]).unwrap();
    assert!(instances(&stage).await.iter().all(|pod| created_at(pod) >= migrated));
}

/// B8: what the Jobs tell is enough: none runs twice, none is skipped.
#[tokio::test]
async fn a_wiped_status_repeats_no_hook() {
    lose_status("hooks-wiped", false).await;
}

/// B8: nor does another operator, which remembers nothing at all.
#[tokio::test]
async fn a_wiped_status_and_a_new_operator_repeat_no_hook() {
    lose_status("hooks-wiped-killed", true).await;
}

/// B8: only a Job that is Complete has migrated anything.
#[tokio::test]
async fn a_job_that_was_deleted_by_hand_has_failed() {
    let (stage, _) = at_version_1("hooks-deleted", 2).await;
    let pods = uids(&instances(&stage).await);
    stage.roll("2", one_by_one(2, &[hook("migrate", "BeforeRollout", "sleep 600")])).await;
    let job = until_runs(&stage, "migrate").await.name_any();
    stage.cluster.kubectl(&["-n", &stage.namespace, "delete", "job", &job]);
    let failed = until_hook_failed(&stage).await;
    assert!(ready_message(&failed).contains("migrate: JobDeleted: "), "{}", ready_message(&failed));
    assert!(jobs(&stage).await.is_empty(), "it is not made again");
    assert_eq!(uids(&instances(&stage).await), pods);
}

/// B8 X5: an image that is not there is not waited for until the hook's time is over.
#[tokio::test]
async fn a_hook_that_cannot_start_fails_soon() {
    let (stage, _) = at_version_1("hooks-no-image", 2).await;
    let pods = uids(&instances(&stage).await);
    let mut migrate = hook("migrate", "BeforeRollout", SECOND);
    migrate["template"]["spec"]["containers"][0]["image"] = json!("example.local/missing:1");
    stage.roll("2", one_by_one(2, &[migrate])).await;
    let failed = until_hook_failed(&stage).await;
    let message = ready_message(&failed);
    assert!(message.contains("migrate: HookCannotStart: "), "{message}");
    assert!(["ErrImagePull", "ImagePullBackOff"].iter().any(|why| message.contains(why)), "{message}");
    let log = hooks_of(&failed).log;
    let [record] = log.as_slice() else { panic!("{log:?}") };
    let (started, completed) = (record.started_at.as_ref().unwrap().0, record.completed_at.as_ref().unwrap().0);
    let seconds = completed.duration_since(started).as_secs();
    assert!(seconds <= 90, "{seconds} s");
    assert!(jobs(&stage).await.is_empty(), "its Job was ended");
    assert_eq!(uids(&instances(&stage).await), pods);
}

/// B8: somebody else's Job of the hook's name is left alone, is not taken for the hook, and does not keep it from running.
#[tokio::test]
async fn a_job_of_the_hooks_name_is_gone_around() {
    let (stage, before) = at_version_1("hooks-squatted", 2).await;
    let key = key(&before.uid().unwrap(), run(&before) + 1, Point::of_run(HookPoint::BeforeRollout), "migrate");
    let squatted = job_name("web", &key, 1, |_| false);
    let container = json!({"name": "main", "image": "example.local/sleeper:1", "command": ["true"]});
    let pod = json!({"restartPolicy": "Never", "containers": [container]});
    let theirs = json!({"metadata": {"name": squatted}, "spec": {"suspend": true, "template": {"spec": pod}}});
    let api = jobs_api(&stage);
    let theirs = api.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();

    stage.roll("2", one_by_one(2, &[hook("migrate", "BeforeRollout", SECOND)])).await;
    stage.complete(120).await;
    let jobs = jobs(&stage).await;
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(job.name_any(), job_name("web", &key, 1, |name| name == squatted));
    let migrated = completed_at(job).unwrap_or_else(|| panic!("{job:?}"));
    assert!(instances(&stage).await.iter().all(|pod| created_at(pod) >= migrated));
    let still = api.get(&squatted).await.unwrap();
    assert_eq!((still.uid(), still.owner_references()), (theirs.uid(), &[][..]));
    assert_eq!(still.spec, theirs.spec);
}

/// What status says of hooks after each write of the Rollout, by resourceVersion. A watch tells every one.
struct Writes {
    seen: Arc<Mutex<BTreeMap<u64, HooksStatus>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Writes {
    /// Returns once the present state is known.
    async fn watch(stage: &Stage) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Arc::clone(&seen);
        let mut events = watcher::watcher(stage.rollouts(), watcher::Config::default()).default_backoff().boxed();
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(rollout) | Event::InitApply(rollout)) = event {
                    shared.lock().unwrap().insert(version(&rollout), hooks_of(&rollout));
                }
            }
        });
        let writes = Self { seen, task };
        writes.until(0).await;
        writes
    }

    /// All until this version of the Rollout, in order.
    async fn until(&self, version: u64) -> Vec<HooksStatus> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.keys().next_back().is_some_and(|newest| *newest >= version) {
                return seen.into_values().collect();
            }
            assert!(Instant::now() < deadline, "the watch on the Rollout tells nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn version(rollout: &Rollout) -> u64 {
    rollout.resource_version().unwrap().parse().unwrap()
}

/// X5: a chain of two hooks costs two Jobs and three writes of status: one begins the first, one ends it and begins the second,
/// one ends that.
#[tokio::test]
async fn two_hooks_cost_three_writes_of_status() {
    let (stage, _) = at_version_1("hooks-writes", 2).await;
    let writes = Writes::watch(&stage).await;
    let hooks = [hook("backup", "BeforeRollout", BACKUP), hook("migrate", "BeforeRollout", SECOND)];
    stage.roll("2", one_by_one(2, &hooks)).await;
    let after = stage.complete(120).await;
    let told = writes.until(version(&after)).await;
    let begun = told.iter().filter(|hooks| hooks.current.is_some()).count();
    let ended = told.windows(2).filter(|pair| pair[0].current.is_some() && pair[1].current.is_none()).count();
    assert!(begun >= 1 && ended == 1 && begun + ended <= 3, "{begun} + {ended}: {told:#?}");
    assert_eq!(names(&jobs(&stage).await), ["backup", "migrate"]);
}

#[track_caller]
fn assert_refused(hooks: &Value, sentence: &str) {
    stage::assert_refused(&json!({"hooks": hooks}), sentence);
}

/// A hook `migrate` before the rollout, with this on top.
fn migrate(more: Value) -> Value {
    json!([with(hook("migrate", "BeforeRollout", "true"), more)])
}

/// X5: which hooks, and when.
#[test]
fn hooks_that_could_never_run_are_refused() {
    let same = [hook("migrate", "BeforeRollout", "true"), hook("migrate", "AfterBatch", "true")];
    assert_refused(&json!(same), "spec.hooks[1]: Duplicate value");
    let many: Vec<_> = (0..21).map(|number| hook(&format!("hook-{number}"), "BeforeRollout", "true")).collect();
    assert_refused(&json!(many), "spec.hooks: Too many: 21: must have at most 20 items");
    let name = "spec.hooks[].name must be a DNS label of at most 32 characters, such as migrate";
    assert_refused(&migrate(json!({"name": "Migrate"})), name);
    assert_refused(
        &migrate(json!({"when": "beforeRollout"})),
        "spec.hooks[0].when: Unsupported value: \"beforeRollout\"",
    );
    let of_batches = |batches: &str| migrate(json!({"when": "AfterBatch", "batches": batches}));
    let place = "spec.hooks[].batches is for when: BeforeBatch and AfterBatch; remove it";
    assert_refused(&migrate(json!({"batches": "1"})), place);
    let numbers = "spec.hooks[].batches must be numbers from 1 and ranges, such as 1,3-4";
    for wrong in ["0", "1,", "1-0", "-1", "all"] {
        assert_refused(&of_batches(wrong), numbers);
    }
    let range = "spec.hooks[].batches: a range begins with its lower number, such as 1-2";
    assert_refused(&of_batches("2-1"), range);
    let late = "spec.hooks[]: an AfterRollout hook cannot take back what is done; set onFailure to Ignore";
    assert_refused(&migrate(json!({"when": "AfterRollout", "onFailure": "Abort"})), late);
    assert_refused(&migrate(json!({"when": "AfterRollout"})), late);
    let down = "spec.hooks[].when: WhileDown needs spec.strategy.type Recreate, because with any other type instances keep \
                running; choose another point";
    assert_refused(&migrate(json!({"when": "WhileDown"})), down);
}

/// X5: what a hook is made of, and how long it may take.
#[test]
fn hooks_that_no_job_can_be_made_of_are_refused() {
    let restarts = "spec.hooks[].template.spec.restartPolicy must be Never, because each attempt is a Job of its own";
    assert_refused(&migrate(json!({"template": {"spec": {"restartPolicy": "Always"}}})), restarts);
    let labelled = |labels: Value| migrate(json!({"template": {"metadata": {"labels": labels}}}));
    let selected = "spec.hooks[].template.metadata.labels satisfy spec.selector.matchLabels: a Service with that selector would \
                    send clients to the hook";
    assert_refused(&labelled(json!({"app": "web", "team": "shop"})), selected);
    let ours = "spec.hooks[].template.metadata: labels and annotations that begin with baton.dev/ are set by Baton; remove them";
    assert_refused(&labelled(json!({"baton.dev/x": "y"})), ours);
    assert_refused(&migrate(json!({"template": {"metadata": {"annotations": {"baton.dev/x": "y"}}}})), ours);
    let image = "spec.hooks[].imageFrom.container must be the name of a container in spec.template: correct the name";
    assert_refused(&migrate(json!({"imageFrom": {"container": "main"}})), image);
    for (field, wrong) in [
        ("timeoutSeconds", 0),
        ("timeoutSeconds", 86_401),
        ("retries", -1),
        ("retries", 11),
        ("keep", 101),
        ("keepDays", 3_651),
    ] {
        assert_refused(&migrate(json!({field: wrong})), &format!("spec.hooks[0].{field}: Invalid value: {wrong}"));
    }
    let week = "spec.hooks[]: timeoutSeconds times (retries + 1) must be at most 604800 (7 days); lower one of them";
    assert_refused(&migrate(json!({"timeoutSeconds": 86_400, "retries": 7})), week);
}

/// R15 X5: defaults are filled in where a user can see them.
#[test]
fn sound_hooks_are_accepted() {
    let made = dry_run(&json!({"hooks": migrate(json!({}))})).unwrap();
    let hook_made = &made["spec"]["hooks"][0];
    for (field, default) in [
        ("timeoutSeconds", json!(600)),
        ("retries", json!(0)),
        ("onFailure", json!("Abort")),
        ("onAbort", json!("Wait")),
        ("keep", json!(10)),
        ("keepDays", json!(30)),
    ] {
        assert_eq!(hook_made[field], default, "{field}");
    }
    let hooks = json!([
        with(hook("backup", "BeforeRollout", "true"), json!({"imageFrom": {"container": "web"}, "retries": 10})),
        with(hook("load", "AfterBatch", "true"), json!({"batches": "1,3-4", "onAbort": "Stop"})),
        with(hook("tidy", "AfterRollout", "true"), json!({"onFailure": "Ignore", "timeoutSeconds": 86_400})),
        with(hook("restore", "OnRollback", "true"), json!({"template": {"metadata": {"labels": {"team": "shop"}}}})),
    ]);
    dry_run(&json!({"hooks": hooks})).unwrap();
    let down = json!({"strategy": {"type": "Recreate"}, "hooks": [hook("convert", "WhileDown", "true")]});
    dry_run(&down).unwrap();
}
