//! Folds [`super::plan`] over the simulated effects of its changes: the whole rollout, step by step. What
//! `kubectl baton plan` shows, and what tests assert.
use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{failure_of, plan, policy::Policy, time::after};
use crate::{
    api::{
        Rollout, RolloutStatus,
        names::{ANNOTATION_HOOK_KEY, ANNOTATION_POINT, LABEL_ATTEMPT, LABEL_HOOK, LABEL_REVISION, LABEL_RUN},
        rollout::Approve,
        status::BatchStatus,
    },
    plan::{
        change::{
            Change, Hold, HoldReason, Memory, Plan, PodAct, Question, RevisionAct, RevisionMark, Seen, Selection,
        },
        in_place, revision,
    },
    snapshot::{
        ChangeRefusal, Exit, HookJob, HookJobs, HookPod, InPlace, JobEnd, Pod, PodEnds, PodPhase, Resize, Revision,
        SeenHooks, ServiceSeen, Snapshot, Telling, TemplateCheck, in_place::Reload, specimen::Specimen,
    },
};

/// Steps after which a fold gives up: ten writes a slot at the most slots, and some.
const STEPS_MAX: usize = 200_000;

/// A world that obeys: every write succeeds at once, every Pod becomes ready, every Pod ends when deleted.
#[derive(Clone, Debug)]
pub struct World {
    /// What the planner sees.
    pub snapshot: Snapshot,
    /// Seconds from a Pod's creation to its readiness.
    pub ready_seconds: i64,
    /// Pods named here never become ready by themselves, nor reload what they are given (by revision name).
    pub broken: Vec<String>,
    created: u64,
    ready_at: BTreeMap<String, Timestamp>,
}

/// One look and what was done.
#[derive(Clone, Debug)]
pub struct Step {
    /// Simulated time.
    pub at: Timestamp,
    /// status.run.
    pub run: i64,
    /// status.batch.
    pub batch: Option<BatchStatus>,
    /// What was written to Pods and revisions.
    pub changes: Vec<Change>,
    /// What held, if anything.
    pub hold: Option<Hold>,
}

/// Why a fold ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing left to do.
    Done,
    /// Held until a person acts.
    Held(Hold),
    /// Did not come to an end: a defect of the planner.
    Endless,
}

impl World {
    /// A world that starts from this state.
    pub fn new(mut snapshot: Snapshot, ready_seconds: i64) -> Self {
        if snapshot.hooks == HookJobs::Unknown {
            snapshot.hooks = HookJobs::Seen(SeenHooks::default());
        }
        let starting = snapshot.pods.iter().filter(|pod| pod.is_live() && !pod.is_ready() && failure_of(pod).is_none());
        let ready_at = starting.map(|pod| (pod.uid.clone(), after(snapshot.now, ready_seconds))).collect();
        Self { snapshot, ready_seconds, broken: Vec::new(), created: 0, ready_at }
    }

    /// Runs to the end, answering approvals as they are asked for; calls `see` with each step that did or held something.
    pub fn run(&mut self, mut see: impl FnMut(&Self, &Step)) -> End {
        for _ in 0..STEPS_MAX {
            let planned = plan(&self.snapshot);
            let quiet = self.is_quiet(&planned);
            let step = self.apply(&planned, &planned.changes);
            see(self, &step);
            if !quiet {
                continue;
            }
            if let Some(hold) = planned.hold.filter(|hold| hold.reason == HoldReason::AwaitingApproval) {
                let batch = planned.memory.batch.as_ref().map_or(0, |batch| batch.index);
                if self.snapshot.rollout.spec.approve.as_ref().is_some_and(|a| a.run == step.run && a.batch >= batch) {
                    return End::Held(hold); // approved already, and still waiting
                }
                self.snapshot.rollout.spec.approve = Some(Approve { run: step.run, batch, ..Approve::default() });
                continue;
            }
            let Some(next) = self.next_event(planned.wake_at) else {
                return step.hold.map_or(End::Done, End::Held);
            };
            self.advance(next);
        }
        End::Endless
    }

    /// Nothing to write.
    pub fn is_quiet(&self, planned: &Plan) -> bool {
        planned.changes.is_empty() && planned.memory == Memory::of(self.snapshot.rollout.status.as_ref())
    }

    /// Makes these changes (the plan's, or some of them) and remembers the plan's memory.
    pub fn apply(&mut self, planned: &Plan, changes: &[Change]) -> Step {
        planned.memory.write(self.snapshot.rollout.status.get_or_insert_with(RolloutStatus::default));
        for change in changes {
            self.make(change);
        }
        Step {
            at: self.snapshot.now,
            run: planned.memory.run,
            batch: planned.memory.batch.clone(),
            changes: changes.to_vec(),
            hold: planned.hold.clone(),
        }
    }

    /// The next time at which something happens by itself.
    pub fn next_event(&self, wake_at: Option<Timestamp>) -> Option<Timestamp> {
        let ends = self.snapshot.pods.iter().chain(&self.snapshot.specimens).filter_map(|pod| pod.deletion);
        let future = ends.chain(self.ready_at.values().copied()).chain(wake_at);
        future.min().map(|at| at.max(self.snapshot.now))
    }

    /// Moves the clock: Pods become ready, and end.
    pub fn advance(&mut self, to: Timestamp) {
        self.snapshot.now = self.snapshot.now.max(to);
        let now = self.snapshot.now;
        let stays = |pod: &Arc<Pod>| pod.deletion.is_none_or(|at| at > now);
        self.snapshot.pods.retain(stays);
        self.snapshot.specimens.retain(stays);
        self.ready_at.retain(|uid, at| {
            let pod = self.snapshot.pods.iter_mut().find(|pod| pod.uid == *uid && *at <= now);
            if let Some(pod) = pod.map(Arc::make_mut) {
                pod.phase = PodPhase::Running;
                // What it has yet to get still stands on it.
                pod.in_place = pod.in_place.take().filter(|_| pod.resize.is_some());
                pod.containers_ready_since = Some(*at);
                if pod.in_service != Some(false) {
                    (pod.ready_since, pod.unready_since) = (Some(*at), None);
                }
                pod.resource_version.push('r');
            }
            *at > now
        });
    }

    fn make(&mut self, change: &Change) {
        let now = self.snapshot.now;
        match change {
            Change::CreateRevision { name, hash, number, data, change_cause } => {
                let revision = Revision {
                    name: name.clone(),
                    uid: format!("uid-{name}"),
                    resource_version: "1".into(),
                    hash: hash.clone(),
                    number: *number,
                    data: data.clone(),
                    created: Some(now),
                    completed_at: None,
                    failed_at: None,
                    failed_reason: None,
                    change_cause: change_cause.clone(),
                    package_sha256: None,
                    image_digests: None,
                    backup: None,
                    deleting: false,
                };
                self.snapshot.revisions.push(revision);
            }
            Change::CreatePod { name, slot, revision, restarted_at, .. } => {
                self.create_pod(name, *slot, revision, *restarted_at);
            }
            Change::Revision { seen, act } => match act {
                RevisionAct::Mark(mark) => self.mark(&seen.name, mark),
                RevisionAct::Adopt => self.adopt(&seen.uid),
                RevisionAct::Delete => self.snapshot.revisions.retain(|revision| revision.name != seen.name),
            },
            Change::Pod { seen, act } => self.act_on_pod(seen, act),
            Change::Service { seen, select } => self.switch(seen, select),
            Change::CreateHook { name, job, .. } => self.run_hook(name, job),
            Change::DeleteHook { seen, .. } => {
                if let HookJobs::Seen(seen_hooks) = &mut self.snapshot.hooks {
                    seen_hooks.jobs.retain(|job| job.uid != seen.uid);
                    seen_hooks.pods.retain(|pod| pod.job != seen.name);
                }
            }
            Change::Ask(Question::Template { revision }) => {
                self.snapshot.template_checks.insert(revision.clone(), TemplateCheck::Valid);
            }
            Change::Ask(Question::Resize { pod, revision }) => {
                self.snapshot.template_checks.insert(ChangeRefusal::key_of(revision, &pod.uid), TemplateCheck::Valid);
            }
            Change::CallPod { uid, purpose, of, .. } => {
                let now = self.snapshot.now;
                let calls = &mut self.snapshot.calls;
                let tries = calls.get(&(uid.clone(), *purpose)).map_or(0, |call| call.tries) + 1;
                let answer = Some(Ok(()));
                let call = Telling { of: *of, began_at: now, tries, asked_at: Some(now), answer, ..Telling::default() };
                calls.insert((uid.clone(), *purpose), call);
            }
            Change::TellApplication { uid, .. } => self.tell(uid),
        }
    }

    /// The Job ends well at once, unless its hook is broken.
    fn run_hook(&mut self, name: &str, job: &Value) {
        let HookJobs::Seen(seen) = &mut self.snapshot.hooks else { return };
        let label = |name: &str| job["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
        let annotation = |name: &str| job["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned();
        let hook = label(LABEL_HOOK);
        let is_broken = self.broken.contains(&hook);
        seen.jobs.push(HookJob {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            resource_version: "1".into(),
            point: annotation(ANNOTATION_POINT).parse().ok(),
            run: label(LABEL_RUN).parse().unwrap_or(0),
            attempt: label(LABEL_ATTEMPT).parse().unwrap_or(0),
            revision: label(LABEL_REVISION),
            key: annotation(ANNOTATION_HOOK_KEY),
            created: self.snapshot.now,
            is_deleting: false,
            end: Some(JobEnd { at: self.snapshot.now, failure: is_broken.then(|| "BackoffLimitExceeded".into()) }),
            hook,
        });
        seen.pods.push(HookPod {
            name: format!("{name}-pod"),
            resource_version: "1".into(),
            job: name.to_owned(),
            job_uid: format!("uid-{name}"),
            created: self.snapshot.now,
            is_finished: true,
            has_started: true,
            waiting: None,
            disruption: None,
            exit: Some(Exit { reason: "Error".into(), code: i32::from(is_broken), message: String::new() }),
            backup: None,
        });
        self.snapshot.hook_seen = Some(name.to_owned());
    }

    fn switch(&mut self, seen: &Seen, Selection { revision, labels, switched }: &Selection) {
        let services = &mut self.snapshot.services;
        for known in [&mut services.active, &mut services.preview].into_iter().chain(services.former.values_mut()) {
            let ServiceSeen::Seen(service) = known else { continue };
            if service.name == seen.name && service.resource_version == seen.resource_version {
                service.selector.remove(LABEL_REVISION);
                service.selector.extend(labels.clone());
                service.selector.extend(revision.clone().map(|to| (LABEL_REVISION.into(), to)));
                service.switched = switched.clone().or(service.switched.take());
                service.resource_version.push('w');
            }
        }
    }

    fn act_on_pod(&mut self, seen: &Seen, act: &PodAct) {
        let now = self.snapshot.now;
        match act {
            PodAct::Adopt => return self.adopt(&seen.uid),
            PodAct::Keep { until, run } => return self.keep(seen, *until, *run),
            PodAct::ChangeInPlace { revision, .. } => return self.change_in_place(seen, revision),
            PodAct::Resize { .. } => return self.resize(seen),
            PodAct::Delete { .. } => return self.delete(seen),
            PodAct::SetInService { .. } | PodAct::NoteResized | PodAct::NoteReloaded | PodAct::SetDrained { .. } => {}
        }
        let is_starting = self.ready_at.contains_key(&seen.uid);
        let Some(pod) = pod_of(&mut self.snapshot.pods, seen) else { return };
        let mark = match act {
            PodAct::SetInService { in_service, .. } => {
                // The kubelet follows at once.
                let runs = !is_starting && !self.broken.contains(&pod.revision);
                (pod.in_service, pod.in_service_since) = (Some(*in_service), Some(now));
                pod.ready_since = Some(now).filter(|_| *in_service && runs);
                's'
            }
            PodAct::NoteReloaded => {
                pod.in_place.iter_mut().for_each(|it| it.reload = Some(Reload { told_at: Some(now) }));
                't'
            }
            PodAct::SetDrained { busy } => {
                pod.drained = Some(busy.is_empty());
                'e'
            }
            _ => {
                pod.resize = None;
                'n'
            }
        };
        pod.resource_version.push(mark);
    }

    fn delete(&mut self, seen: &Seen) {
        let now = self.snapshot.now;
        let snapshot = &mut self.snapshot;
        let pod = pod_of(&mut snapshot.pods, seen).or_else(|| pod_of(&mut snapshot.specimens, seen));
        if let Some(pod) = pod {
            pod.deletion = Some(now);
            pod.resource_version.push('d');
            self.ready_at.remove(&seen.uid);
        }
    }

    /// A Pod or ControllerRevision that an earlier Rollout of this name left behind.
    fn adopt(&mut self, uid: &str) {
        let snapshot = &mut self.snapshot;
        snapshot.revisions.extend(snapshot.orphans.revisions.extract_if(.., |orphan| orphan.uid == uid));
        snapshot.revisions.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        snapshot.pods.extend(snapshot.orphans.pods.extract_if(.., |orphan| orphan.uid == uid));
        snapshot.pods.sort_by(|a, b| (a.slot, &a.name).cmp(&(b.slot, &b.name)));
    }

    fn keep(&mut self, seen: &Seen, until: Timestamp, run: i64) {
        let is_it = |pod: &Arc<Pod>| pod.uid == seen.uid && pod.resource_version == seen.resource_version;
        let Some(place) = self.snapshot.pods.iter().position(is_it) else { return };
        let mut pod = self.snapshot.pods.remove(place);
        let (slot, revision, labels) = (pod.slot, pod.revision.clone(), BTreeMap::new());
        Arc::make_mut(&mut pod).specimen = Some(Specimen { until, run, slot, revision, labels });
        self.ready_at.remove(&seen.uid);
        self.snapshot.specimens.push(pod);
    }

    fn change_in_place(&mut self, seen: &Seen, to: &str) {
        let now = self.snapshot.now;
        let data =
            |name: &str| self.snapshot.revisions.iter().find(|known| known.name == name).map(|known| &known.data);
        let Some(pod) = pod_of(&mut self.snapshot.pods, seen) else { return };
        let Some((from, wanted)) = data(&pod.revision).zip(data(to)) else { return };
        let Ok(difference) = in_place::difference(from, wanted) else { return };
        let version = revision::version(wanted);
        (pod.revision, pod.version) = (to.to_owned(), version);
        pod.resource_version.push('i');
        let reload = Policy::of(&self.snapshot.rollout.spec).update.reloads().then(Reload::default);
        if reload.is_some() || difference.restarts() || difference.resizes() {
            pod.in_place = Some(InPlace { reload, ..difference.remembered(pod, now) });
        }
        pod.resize = difference.resizes().then_some(Resize::Due).or(pod.resize.take());
        if !difference.images.is_empty() {
            self.start_anew(&seen.uid);
        }
    }

    /// The node follows at once.
    fn resize(&mut self, seen: &Seen) {
        let Some(pod) = pod_of(&mut self.snapshot.pods, seen) else { return };
        pod.resize = Some(Resize::Done);
        pod.resource_version.push('z');
        if pod.in_place.as_ref().is_some_and(InPlace::is_resized_anew) {
            self.start_anew(&seen.uid);
        }
    }

    fn start_anew(&mut self, uid: &str) {
        let now = self.snapshot.now;
        let Some(pod) = self.snapshot.pods.iter_mut().find(|pod| pod.uid == uid).map(Arc::make_mut) else { return };
        pod.containers.clear();
        (pod.ready_since, pod.unready_since) = (None, Some(now));
        if !self.broken.contains(&pod.revision) {
            self.ready_at.insert(uid.to_owned(), after(now, self.ready_seconds));
        }
    }

    /// The application answers at once.
    fn tell(&mut self, uid: &str) {
        let now = self.snapshot.now;
        let Some(pod) = self.snapshot.pods.iter().find(|pod| pod.uid == uid) else { return };
        let Some(of) = pod.untold_since() else { return };
        let tries = self.snapshot.tellings.get(uid).filter(|telling| telling.of == of).map_or(0, |it| it.tries) + 1;
        let is_broken = self.broken.contains(&pod.revision);
        let answer = Some(if is_broken { Err("answered 503".to_owned()) } else { Ok(()) });
        let telling = Telling { of, began_at: now, tries, asked_at: Some(now), answer, ..Telling::default() };
        self.snapshot.tellings.insert(uid.to_owned(), telling);
    }

    fn mark(&mut self, name: &str, mark: &RevisionMark) {
        let Some(revision) = self.snapshot.revisions.iter_mut().find(|revision| revision.name == name) else { return };
        match mark {
            RevisionMark::Wanted { number, change_cause } => {
                revision.number = *number;
                revision.change_cause.clone_from(change_cause);
                revision.failed_at = None;
                revision.failed_reason = None;
            }
            RevisionMark::Completed { at } => revision.completed_at = Some(*at),
            RevisionMark::Failed { at, reason } => {
                revision.failed_at = Some(*at);
                revision.failed_reason = Some(reason.clone());
            }
            RevisionMark::Fetched { sha256 } => revision.package_sha256 = Some(sha256.clone()),
            RevisionMark::Backup { backup, run } => revision.backup = Some(backup.note(*run)),
            RevisionMark::Ran { images } => revision.image_digests = Some(images.clone()),
        }
    }

    fn create_pod(&mut self, name: &str, slot: i32, revision: &str, restarted_at: Option<Timestamp>) {
        if self.snapshot.pods.iter().chain(&self.snapshot.specimens).any(|pod| pod.name == name) {
            return; // 409
        }
        self.created += 1;
        let uid = format!("new-{}", self.created);
        let data = self.snapshot.revisions.iter().find(|known| known.name == revision).map(|known| &known.data);
        let is_gated = self.snapshot.rollout.spec.is_gated();
        let pod = Pod {
            name: name.to_owned(),
            uid: uid.clone(),
            resource_version: "1".into(),
            slot,
            revision: revision.to_owned(),
            version: data.map(revision::version).unwrap_or_default(),
            created: self.snapshot.now,
            restarted_at,
            specimen: None,
            in_place: None,
            resize: None,
            is_observed: true,
            is_unreadable: false,
            deletion: None,
            phase: PodPhase::Pending,
            reason: None,
            message: None,
            ready_since: None,
            unready_since: None,
            has_agent: false,
            in_service: is_gated.then_some(false),
            in_service_since: None,
            containers_ready_since: None,
            drained: None,
            grace_seconds: None,
            initialized_at: None,
            started_at: None,
            unschedulable: None,
            disruption: None,
            node: None,
            ip: None,
            on_host_network: false,
            containers_changed_at: None,
            containers: Vec::new(),
            package: None,
            ends: PodEnds::default(),
            loose_labels: None,
        };
        if !self.broken.iter().any(|broken| broken == revision) {
            self.ready_at.insert(uid, after(self.snapshot.now, self.ready_seconds));
        }
        self.snapshot.pods.push(Arc::new(pod));
        self.snapshot.pods.sort_by(|a, b| (a.slot, &a.name).cmp(&(b.slot, &b.name)));
    }
}

/// The Pod that a write means, if it is still as it was seen.
fn pod_of<'p>(pods: &'p mut [Arc<Pod>], seen: &Seen) -> Option<&'p mut Pod> {
    let is_it = |pod: &&mut Arc<Pod>| pod.uid == seen.uid && pod.resource_version == seen.resource_version;
    pods.iter_mut().find(is_it).map(Arc::make_mut)
}

/// A world in which `rollout` is applied over what `snapshot` shows.
pub fn what_if(snapshot: Snapshot, rollout: Rollout, ready_seconds: i64) -> World {
    let status = snapshot.rollout.status.clone();
    World::new(Snapshot { rollout: Rollout { status, ..rollout }, ..snapshot }, ready_seconds)
}
