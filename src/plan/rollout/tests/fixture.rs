//! One-line worlds. A slot is a word of Pods, each a revision letter and a mark: `a` available, `a~` not ready, `a!`
//! crash-looping, `a-` Terminating, `ax` evicted; `.` an empty slot. Revision `a` has completed; the spec asks for the
//! letter that `Fixture::want` names.
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use crate::{
    api::{Rollout, RolloutStatus, status::BatchStatus},
    plan::{Change, Plan, PodAct, Question, RevisionAct, RevisionMark, Seen, Selection, revision, rollout::plan},
    snapshot::{
        Container, ContainerState, Exit, Orphans, Pod, PodPhase, Revision, Service, ServiceSeen, Services, Snapshot,
        TemplateCheck, listener_set::PodEnds,
    },
};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

pub(crate) fn rollout(version: &str, spec: serde_json::Value) -> Rollout {
    let mut object = json!({
        "apiVersion": "baton.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-web", "generation": 1},
        "spec": {
            "replicas": 0,
            "version": version,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example.local/web:1"}]},
            },
        },
    });
    merge(&mut object["spec"], spec);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub(crate) fn revision_named(letter: char, number: i64) -> Revision {
    Revision {
        name: letter.to_string(),
        uid: format!("uid-{letter}"),
        resource_version: "1".into(),
        hash: letter.to_string(),
        number,
        data: revision::data(&rollout(&letter.to_string(), json!({})).spec),
        created: Some(at(-1000)),
        completed_at: (letter == 'a').then(|| at(-1000)),
        failed_at: None,
        failed_reason: None,
        change_cause: None,
        package_sha256: None,
        image_digests: None,
        backup: None,
        deleting: false,
    }
}

/// A world in one line, with a run that has been begun and `opened` instances of it opened.
pub(crate) struct Fixture {
    pub snapshot: Snapshot,
}

impl Fixture {
    /// Slots in words; the spec as JSON on top of the defaults.
    pub fn new(slots: &str, want: char, spec: serde_json::Value) -> Self {
        let words: Vec<&str> = slots.split_whitespace().collect();
        let replicas = words.len();
        let mut rollout = rollout(&want.to_string(), json!({"replicas": replicas}));
        let mut all = serde_json::to_value(&rollout.spec).unwrap();
        merge(&mut all, spec);
        rollout.spec = serde_json::from_value(all).unwrap();
        let mut pods: Vec<Pod> = words.iter().enumerate().flat_map(|(slot, word)| pods(slot as i32, word)).collect();
        pods.sort_by(|a, b| (a.slot, &a.name).cmp(&(b.slot, &b.name)));
        let wanted = revision_named(want, 9);
        let mut revisions: Vec<Revision> =
            "abc".chars().filter(|letter| *letter != want).zip(1..).map(|(l, n)| revision_named(l, n)).collect();
        revisions.push(wanted);
        let template_checks = "abc".chars().map(|letter| (letter.to_string(), TemplateCheck::Valid)).collect();
        let snapshot = Snapshot {
            rollout,
            pods: pods.into_iter().map(Arc::new).collect(),
            revisions,
            specimens: vec![],
            orphans: Orphans::default(),
            overlap: None,
            taken_names: [].into(),
            lost_nodes: [].into(),
            template_checks,
            create_refusal: None,
            change_refusals: [].into(),
            tellings: [].into(),
            calls: [].into(),
            endpoints: crate::snapshot::Endpoints::Unknown,
            agents: crate::snapshot::Agents::NotAsked,
            hooks: crate::snapshot::HookJobs::Seen(crate::snapshot::SeenHooks::default()),
            hook_seen: None,
            hook_refusal: None,
            services: Services::default(),
            now: at(0),
        };
        Self { snapshot }
    }

    /// Service `web` selects this revision, or any; `web-preview`, where the spec names one, selects any.
    pub fn serving(mut self, revision: Option<char>) -> Self {
        let service = |name: &str, revision: Option<char>| {
            let key = revision.map(|letter| ("baton.dev/revision".to_owned(), letter.to_string()));
            ServiceSeen::Seen(Service {
                name: name.into(),
                uid: format!("uid-{name}"),
                resource_version: "5".into(),
                selector: [("app".to_owned(), "web".to_owned())].into_iter().chain(key).collect(),
                rollout: Some("web".into()),
                switched: None,
            })
        };
        let names_preview = self.snapshot.rollout.spec.strategy.blue_green.as_ref();
        let names_preview = names_preview.is_some_and(|settings| settings.preview_service.is_some());
        let preview = if names_preview { service("web-preview", None) } else { ServiceSeen::Unknown };
        self.snapshot.services = Services { active: service("web", revision), preview, ..Services::default() };
        self
    }

    /// A run towards the wanted revision is on, with so many instances opened.
    pub fn opened(mut self, opened: i32) -> Self {
        let mut plan = plan(&self.snapshot);
        if let Some(batch) = &mut plan.memory.batch {
            let spec = &self.snapshot.rollout.spec;
            let batches = super::super::batches::Batches::of(&spec.strategy, spec.replicas);
            *batch = BatchStatus {
                opened,
                index: batches.index_of(opened) as i32,
                started_at: Some(super::super::time::seconds(at(-10))),
                ..batch.clone()
            };
        }
        plan.memory.write(self.snapshot.rollout.status.get_or_insert_with(RolloutStatus::default));
        self
    }

    /// Remembers what the plan wants remembered, as often as it asks.
    pub fn settled(mut self) -> Self {
        for _ in 0..3 {
            plan(&self.snapshot).memory.write(self.snapshot.rollout.status.get_or_insert_with(RolloutStatus::default));
        }
        self
    }

    /// The plan in one line.
    pub fn looks(&self) -> String {
        say(&plan(&self.snapshot))
    }
}

pub(crate) fn say(plan: &Plan) -> String {
    let mut words: Vec<String> = plan.changes.iter().map(say_change).collect();
    if let Some(hold) = &plan.hold {
        words.push(format!("hold {}: {}", hold.reason.as_str(), hold.message));
    }
    words.join("; ")
}

fn say_change(change: &Change) -> String {
    match change {
        Change::CreateRevision { number, .. } => format!("revision {number}"),
        Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Mark(mark) } => match mark {
            RevisionMark::Wanted { number, .. } => format!("{name} wanted as {number}"),
            RevisionMark::Completed { .. } => format!("{name} completed"),
            RevisionMark::Failed { reason, .. } => format!("{name} failed ({reason})"),
            RevisionMark::Fetched { sha256 } => format!("{name} fetched {sha256}"),
            RevisionMark::Backup { backup, run } => {
                format!("{name} backed up as {} by {} in run {run}", backup.id, backup.hook)
            }
            RevisionMark::Ran { images } => format!("{name} ran {images:?}"),
        },
        Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Delete } => format!("forget {name}"),
        Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Adopt } => format!("adopt revision {name}"),
        Change::Pod { seen: Seen { name, .. }, act: PodAct::Adopt } => format!("adopt {name}"),
        Change::Ask(Question::Template { revision }) => format!("check {revision}"),
        Change::Ask(Question::Resize { pod: Seen { name, .. }, revision }) => format!("check {name} for {revision}"),
        Change::CreateHook { hook, .. } => format!("hook {hook}"),
        Change::CallPod { name, purpose, .. } => format!("ask {name} {purpose:?}"),
        Change::DeleteHook { .. } => change.verb().to_owned(),
        Change::CreatePod { name, reason, .. } => format!("+{name} {}", reason.as_str()),
        Change::Pod { seen: Seen { name, .. }, act: PodAct::Delete { reason, .. } } => {
            format!("-{name} {}", reason.as_str())
        }
        Change::Pod { seen: Seen { name, .. }, act: PodAct::Keep { .. } } => format!("keep {name}"),
        Change::Pod { seen: Seen { name, .. }, act: PodAct::ChangeInPlace { revision, reason, .. } } => {
            format!("{name} to {revision} {}", reason.as_str())
        }
        Change::Pod { seen: Seen { name, .. }, act: PodAct::Resize { revision, .. } } => {
            format!("{name} resized for {revision}")
        }
        Change::Pod { seen: Seen { name, .. }, act: PodAct::NoteResized } => format!("{name} has its resources"),
        Change::Service { seen: Seen { name, .. }, select: Selection { revision, switched, .. } } => {
            let from = switched.as_ref().map(|switched| format!("{} → ", switched.from)).unwrap_or_default();
            format!("Service {name}: {from}{}", revision.as_deref().unwrap_or("any"))
        }
        Change::Pod { seen: Seen { name, .. }, act: PodAct::SetInService { in_service, .. } } => {
            format!("{name} in service: {in_service}")
        }
        Change::TellApplication { name, .. } => format!("tell {name}"),
        Change::Pod { seen: Seen { name, .. }, act: PodAct::NoteReloaded } => format!("{name} has reloaded"),
        Change::Pod { seen: Seen { name, .. }, act: PodAct::SetDrained { busy, .. } } if busy.is_empty() => {
            format!("{name} drained")
        }
        Change::Pod { seen: Seen { name, .. }, act: PodAct::SetDrained { busy, .. } } => format!("{name} has {busy}"),
    }
}

fn pods(slot: i32, word: &str) -> Vec<Pod> {
    let mut found: Vec<Pod> = Vec::new();
    for letter in word.chars() {
        match letter {
            '.' => {}
            '~' => ready(found.last_mut(), None),
            '!' => {
                let pod = found.last_mut().unwrap();
                pod.containers = vec![crashing()];
                ready(Some(pod), None);
            }
            '-' => found.last_mut().unwrap().deletion = Some(at(10)),
            'x' => {
                let pod = found.last_mut().unwrap();
                pod.phase = PodPhase::Failed;
                pod.reason = Some("Evicted".into());
            }
            letter => found.push(pod(slot, letter, found.len())),
        }
    }
    found
}

fn ready(pod: Option<&mut Pod>, since: Option<Timestamp>) {
    pod.unwrap().ready_since = since;
}

fn crashing() -> Container {
    Container {
        name: "web".into(),
        restarts: 1,
        state: ContainerState::Waiting { reason: "CrashLoopBackOff".into(), message: "back-off".into() },
        last_exit: Some(Exit { reason: "Error".into(), code: 1, message: String::new() }),
        ..Container::default()
    }
}

fn pod(slot: i32, letter: char, position: usize) -> Pod {
    Pod {
        name: crate::api::names::pod_name("web", slot, &letter.to_string(), 0),
        uid: format!("uid-{slot}-{letter}-{position}"),
        resource_version: "7".into(),
        slot,
        revision: letter.to_string(),
        version: letter.to_string(),
        created: at(-500),
        restarted_at: None,
        specimen: None,
        in_place: None,
        resize: None,
        is_observed: true,
        is_unreadable: false,
        deletion: None,
        phase: PodPhase::Running,
        reason: None,
        message: None,
        has_agent: false,
        in_service: None,
        in_service_since: None,
        containers_ready_since: None,
        drained: None,
        grace_seconds: None,
        ready_since: Some(at(-400)),
        unready_since: None,
        initialized_at: Some(at(-450)),
        started_at: Some(at(-450)),
        unschedulable: None,
        disruption: None,
        node: Some("node-1".into()),
        ip: None,
        on_host_network: false,
        containers_changed_at: None,
        containers: vec![],
        package: None,
        ends: PodEnds::default(),
        loose_labels: None,
    }
}
