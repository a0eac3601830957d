//! Events: one per transition and batch, never one per Pod, save for failed instances.
use std::collections::BTreeSet;

use super::{conditions::WARNED, history, text::count};
use crate::{
    api::{
        Condition, ConditionStatus, ConditionType, RolloutSpec, RolloutStatus,
        hooks::HookRecord,
        names,
        soak::Breach,
        status::{BatchStatus, HistoryEntry, InstanceException},
    },
    plan::{in_place::NotInPlace, rollout::batches},
    snapshot::Ranges,
};

/// Bytes of a note; the API server refuses more than 1,024.
pub const NOTE_BYTES_MAX: usize = 1_024;
/// Failed instances with an event of their own, of one status; the others are counted.
const FAILED_INSTANCES_MAX: usize = 10;

/// Reasons of instances that a kubelet has spoken about: see [`crate::snapshot::Resize`].
const HELD: [&str; 3] = ["ResizeDeferred", "ResizeError", "ResizeInfeasible"];

/// Whether a person should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// It goes as it should.
    Normal,
    /// A person may be needed.
    Warning,
}

/// One event about the Rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Normal or Warning.
    pub kind: NoticeKind,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What Baton was doing, one CamelCase word.
    pub action: &'static str,
    /// A sentence, at most [`NOTE_BYTES_MAX`] bytes.
    pub note: String,
}

/// What happened between two statuses of the Rollout `name`; empty when they are equal.
pub fn notices(name: &str, before: &RolloutStatus, after: &RolloutStatus) -> Vec<Notice> {
    let news = News { name, before, after };
    let mut found = Vec::new();
    found.extend(news.run_begun());
    found.extend(news.switched());
    found.extend(news.let_go());
    found.extend(news.batch_completed());
    found.extend(news.batch_started());
    found.extend(news.hooks());
    found.extend(news.breaches());
    found.extend(news.failed_instances());
    found.extend(news.resources_held());
    found.extend(news.state_reached());
    found.extend(news.template_refused());
    found.extend(news.template_warned());
    found.extend(news.notes());
    found.extend(news.degraded());
    found.extend(news.restarts());
    found.extend(news.pins());
    found
}

/// Some instance is the first whose node does not give it its resources: another Pod may take its place a moment later, and then
/// no status tells of it any more.
pub fn are_resources_newly_held(before: &RolloutStatus, after: &RolloutStatus) -> bool {
    let is_any = |status: &RolloutStatus| status.exceptions.iter().any(|known| HELD.contains(&known.reason.as_str()));
    is_any(after) && !is_any(before)
}

/// What is odd about the strategy that this status is the first to be about.
pub fn strategy_warning(spec: &RolloutSpec, before: &RolloutStatus, after: &RolloutStatus) -> Option<Notice> {
    let warned = batches::warning(&spec.strategy, spec.replicas);
    let is_first = before.observed_generation != after.observed_generation;
    warned.filter(|_| is_first).map(|warned| warning("StrategyWarning", "RollOut", &warned))
}

/// Pods of the Rollout `name` that are replaced where a change in place was asked for, by the first.
pub fn not_in_place(name: &str, found: &NotInPlace) -> Notice {
    let instance = names::instance_name(name, found.slot);
    let why = &found.why;
    let what = match found.more {
        0 => format!("{instance} gets another Pod: {why}"),
        more => format!("{instance} and {} get other Pods; {instance}: {why}", count(more, "further instance")),
    };
    normal("NotInPlace", "RollOut", &what)
}

/// A Pod that is deleted although it has not said in time that it is drained.
pub fn drain_timed_out(pod: &str, seconds: i32) -> Notice {
    let what = format!(
        "{pod} has not said within {seconds} s (spec.drain.timeoutSeconds) that it is drained; it is deleted all the same"
    );
    warning("DrainTimedOut", "RollOut", &what)
}

struct News<'a> {
    name: &'a str,
    before: &'a RolloutStatus,
    after: &'a RolloutStatus,
}

impl News<'_> {
    fn is_same_run(&self) -> bool {
        self.before.run == self.after.run
    }

    fn run_begun(&self) -> Option<Notice> {
        let entry = entry_of(self.after)?;
        if self.is_same_run() || entry_of(self.before).is_some_and(|known| known.run == entry.run) {
            return None;
        }
        let by = entry.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let because = entry.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let what = format!("run {} to {}{by}{because}", entry.run, entry.version);
        let given_up = self.after.target_revision != self.after.update_revision;
        Some(match (entry.kind == "Rollback", given_up) {
            (true, true) => warning("RollingBack", "RollBack", &what),
            (true, false) => normal("RollingBack", "RollBack", &what),
            (false, _) => normal("RolloutStarted", "RollOut", &what),
        })
    }

    /// Clients get another revision (strategy BlueGreen).
    fn switched(&self) -> Option<Notice> {
        let (now, was) = (self.after.active_revision.as_ref()?, self.before.active_revision.as_ref());
        if was == Some(now) {
            return None;
        }
        let version = |of: &String| {
            let known = self.after.versions.iter().find(|known| known.revision == *of);
            known.map_or_else(|| of.clone(), |known| known.version.clone())
        };
        let was = was.map(|was| format!(" instead of {}", version(was))).unwrap_or_default();
        Some(normal("Switched", "SwitchService", &format!("clients get {}{was}", version(now))))
    }

    /// Services that the spec names no more.
    fn let_go(&self) -> Option<Notice> {
        let gone = self.before.services.iter().filter(|name| !self.after.services.contains(name));
        let gone: Vec<&str> = gone.map(String::as_str).collect();
        let what = || format!("Baton sets nothing in Service {} any more", gone.join(", "));
        (!gone.is_empty()).then(|| normal("ServiceLetGo", "SwitchService", &what()))
    }

    /// Forward batches only: the way back is one step, told by its begin and its end.
    fn batch_started(&self) -> Option<Notice> {
        let batch = forward_batch(self.after)?;
        let opened_before = forward_batch(self.before).filter(|_| self.is_same_run()).map_or(0, |known| known.opened);
        if batch.opened <= opened_before {
            return None;
        }
        let instances = members(batch, opened_before..batch.opened);
        let version = entry_of(self.after).map_or("", |entry| entry.version.as_str());
        let what = format!("batch {}/{} to {version}: instances {instances}", batch.index, batch.count);
        Some(normal("BatchStarted", "RollOut", &what))
    }

    fn batch_completed(&self) -> Option<Notice> {
        let known = forward_batch(self.before).filter(|known| known.opened > 0 && known.completed_at.is_none())?;
        let completed = self.is_same_run()
            && match forward_batch(self.after) {
                Some(batch) => batch.completed_at.is_some() || batch.index > known.index,
                None => ready(self.after).is_some_and(|ready| ready.status == ConditionStatus::True),
            };
        completed.then(|| {
            let version = entry_of(self.after).map_or("", |entry| entry.version.as_str());
            let instances = members(known, 0..known.opened);
            let what = format!("batch {}/{} is done: instances {instances} run {version}", known.index, known.count);
            normal("BatchCompleted", "RollOut", &what)
        })
    }

    /// Hooks that have begun or ended.
    fn hooks(&self) -> Vec<Notice> {
        let Some(after) = &self.after.hooks else { return Vec::new() };
        let before = self.before.hooks.as_ref();
        let is_new = |record: &&HookRecord| {
            !before.is_some_and(|known| known.log.iter().any(|it| (it.run, &it.job) == (record.run, &record.job)))
        };
        let ended = after.log.iter().filter(is_new).map(|record| {
            let HookRecord { name, point, message, job, .. } = record;
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            match record.result.as_str() {
                "Succeeded" => {
                    normal("HookSucceeded", "RunHook", &format!("hook {name} ({point}) has succeeded{said}"))
                }
                "Failed" => {
                    warning("HookFailed", "RunHook", &format!("hook {name} ({point}) has failed{said} (Job {job})"))
                }
                _ => normal("HookStopped", "RunHook", &format!("hook {name} ({point}) was stopped{said} (Job {job})")),
            }
        });
        let mut found: Vec<Notice> = ended.collect();
        found.reverse(); // the newest is the first
        let current = after.current.as_ref();
        let begun =
            current.filter(|now| before.and_then(|known| known.current.as_ref()).is_none_or(|it| it.job != now.job));
        found.extend(begun.map(|now| {
            let attempt = if now.attempt > 1 { format!(", attempt {}", now.attempt) } else { String::new() };
            normal("HookStarted", "RunHook", &format!("hook {} ({}{attempt}) as Job {}", now.name, now.point, now.job))
        }));
        found
    }

    /// Limits of the soak that were broken.
    fn breaches(&self) -> Vec<Notice> {
        let Some(after) = &self.after.soak else { return Vec::new() };
        let known =
            self.before.soak.as_ref().filter(|known| known.run == after.run).map_or(0, |known| known.breaches.len());
        let new = after.breaches.iter().skip(known);
        let told =
            |breach: &Breach| format!("{}: {}", names::instance_name(self.name, breach.instance), breach.message);
        new.map(|breach| warning("SoakBreach", "RollOut", &told(breach))).collect()
    }

    fn failed_instances(&self) -> Vec<Notice> {
        let Some(failed) = &self.after.failed else { return Vec::new() };
        let known = self.before.failed.as_ref().filter(|known| known.run == failed.run);
        let known = known.map(|known| Ranges::parse(&known.slots)).unwrap_or_default();
        let slots = Ranges::parse(&failed.slots);
        let new: Vec<i32> = slots.0.difference(&known.0).copied().collect();
        let mut found: Vec<Notice> = new.iter().take(FAILED_INSTANCES_MAX).map(|slot| self.failed(*slot)).collect();
        if new.len() > FAILED_INSTANCES_MAX {
            let others = count(new.len() - FAILED_INSTANCES_MAX, "further instance");
            found.push(warning("InstanceFailed", "RollOut", &format!("{others} failed")));
        }
        found
    }

    /// Instances whose nodes do not give them their resources, by the first: another Pod may take its place a moment later.
    fn resources_held(&self) -> Option<Notice> {
        let is_held = |known: &&InstanceException| HELD.contains(&known.reason.as_str());
        let was_held = |instance: i32| self.before.exceptions.iter().filter(is_held).any(|it| it.instance == instance);
        let mut held = self.after.exceptions.iter().filter(is_held).filter(|now| !was_held(now.instance));
        let InstanceException { instance, reason, message, .. } = held.next()?;
        let more = match held.count() {
            0 => String::new(),
            more => format!("; {} as well", count(more, "further instance")),
        };
        let name = names::instance_name(self.name, *instance);
        Some(warning("ResourcesHeld", "RollOut", &format!("{name}: {reason}: {message}{more}")))
    }

    fn failed(&self, slot: i32) -> Notice {
        let exception = self.after.exceptions.iter().find(|known| known.instance == slot && known.state == "Failed");
        let reason = exception.map(|known| known.reason.as_str());
        let reason = reason.or(self.after.failed.as_ref().map(|failed| failed.reason.as_str())).unwrap_or_default();
        let message = exception.map(|known| known.message.as_str()).filter(|message| !message.is_empty());
        let message = message.map(|message| format!(": {message}")).unwrap_or_default();
        let name = names::instance_name(self.name, slot);
        warning("InstanceFailed", "RollOut", &format!("{name} failed ({reason}){message}"))
    }

    /// The Ready condition has another reason.
    fn state_reached(&self) -> Option<Notice> {
        let (now, was) = (ready(self.after)?, ready(self.before));
        if was.is_some_and(|was| (&was.reason, was.status) == (&now.reason, now.status) && self.is_same_run()) {
            return None;
        }
        let message = now.message.as_str();
        match now.reason.as_str() {
            "Complete" | "Paused" if self.has_succeeded() => Some(normal("RolloutCompleted", "RollOut", message)),
            "Unproven" => Some(normal("Unproven", "RollOut", message)),
            "RolledBack" => Some(warning("RolledBack", "RollBack", message)),
            "Aborted" => Some(warning("RolloutAborted", "RollBack", message)),
            "FirstRevisionFailed" => Some(warning("FirstRevisionFailed", "RollOut", message)),
            "FailureThreshold" => Some(warning("FailureThresholdReached", "RollOut", message)),
            "ProgressDeadlineExceeded" => Some(warning("ProgressDeadlineExceeded", "RollOut", message)),
            "RollbackStuck" => Some(warning("RollbackStuck", "RollBack", message)),
            "InvalidSpec" if !is(self.after, ConditionType::TemplateValid, ConditionStatus::False) => {
                Some(warning("InvalidSpec", "RollOut", message))
            }
            "QuotaExceeded" => Some(warning("QuotaExceeded", "CreatePod", message)),
            "FailedCreate" => Some(warning("FailedCreate", "CreatePod", message)),
            "AwaitingApproval" => Some(normal("AwaitingApproval", "RollOut", message)),
            "PartlyRolledBack" => Some(warning("PartlyRolledBack", "RollBack", message)),
            "PinFailed" => Some(warning("PinFailed", "Pin", message)),
            _ => None,
        }
    }

    /// The present run's entry has just become a success: not a Pod that came back.
    fn has_succeeded(&self) -> bool {
        let succeeded = |status| entry_of(status).is_some_and(|entry| entry.result == history::SUCCEEDED);
        succeeded(self.after) && !(succeeded(self.before) && self.is_same_run())
    }

    fn template_refused(&self) -> Option<Notice> {
        let refused = |status| is(status, ConditionType::TemplateValid, ConditionStatus::False);
        let new =
            refused(self.after) && (!refused(self.before) || self.before.update_revision != self.after.update_revision);
        let condition = condition(self.after, ConditionType::TemplateValid)?;
        new.then(|| warning("TemplateRefused", "CheckTemplate", &condition.message))
    }

    fn template_warned(&self) -> Option<Notice> {
        let of = |status| condition(status, ConditionType::TemplateValid).filter(|known| known.reason == WARNED);
        let warned = of(self.after)?;
        let is_new = of(self.before).is_none_or(|known| known.message != warned.message);
        is_new.then(|| warning("TemplateWarning", "CheckTemplate", &warned.message))
    }

    /// What people did that begins no run.
    fn notes(&self) -> Vec<Notice> {
        let is_new = |entry: &&HistoryEntry| !self.before.history.iter().any(|known| known.is_same(entry));
        let notes = self.after.history.iter().rev().filter(|entry| history::is_note(entry)).filter(is_new);
        let told = notes.map(|entry| {
            let by = entry.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let why = entry.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            match entry.kind.as_str() {
                history::PAUSE => {
                    let why = entry.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                    normal("RolloutPaused", "Pause", &format!("spec.paused was set{by}{why}: nothing new is begun"))
                }
                history::RESUME => normal("RolloutResumed", "Resume", &format!("spec.paused was unset{by}{why}")),
                _ => {
                    let what = approved_in_words(entry);
                    normal("Approved", "Approve", &format!("run {}: {what} approved{by}{why}", entry.run))
                }
            }
        });
        told.collect()
    }

    /// Answers and names that do not fit; what fails has its own events.
    fn degraded(&self) -> Option<Notice> {
        let reason = |status| condition(status, ConditionType::Degraded).map(|condition| condition.reason.clone());
        let now = condition(self.after, ConditionType::Degraded)?;
        if reason(self.before).as_ref() == Some(&now.reason) {
            return None;
        }
        match now.reason.as_str() {
            "StaleAnswer" => Some(warning("StaleAnswer", "RollOut", &now.message)),
            "PodConflict" => Some(warning("PodConflict", "CreatePod", &now.message)),
            "WriteRefused" => Some(warning("WriteRefused", "RollOut", &now.message)),
            "PinInvalid" => Some(warning("PinInvalid", "Pin", &now.message)),
            "EndNotSeen" => Some(warning("EndNotSeen", "RollOut", &now.message)),
            "PinnedSlotGone" => Some(warning("PinnedSlotGone", "Pin", &now.message)),
            _ => None,
        }
    }

    fn restarts(&self) -> Vec<Notice> {
        let of = |status: &RolloutStatus, result: &str| -> BTreeSet<_> {
            let entries = status.history.iter().filter(|entry| entry.kind == history::RESTART);
            let entries = entries.filter(|entry| result.is_empty() || entry.result == result);
            entries.filter_map(|entry| entry.started_at.clone()).collect()
        };
        let begun = of(self.after, "").into_iter().filter(|at| !of(self.before, "").contains(at));
        let begun =
            begun.map(|at| normal("RestartStarted", "Restart", &format!("Pods older than {} are replaced", at.0)));
        let ended = of(self.after, history::SUCCEEDED);
        let ended = ended.into_iter().filter(|at| of(self.before, history::IN_PROGRESS).contains(at));
        let ended = ended.map(|at| normal("RestartCompleted", "Restart", &format!("no Pod is older than {}", at.0)));
        begun.chain(ended).collect()
    }

    fn pins(&self) -> Vec<Notice> {
        let as_before = |entry: &HistoryEntry| {
            let known = self.before.history.iter().find(|known| known.is_same(entry));
            known.map(|known| known.result.clone())
        };
        let told = self.after.history.iter().rev().filter_map(|entry| {
            let is_pin = entry.kind == history::INSTANCE_ROLLBACK;
            let is_over = entry.result == history::SUCCEEDED;
            if !(is_pin || entry.kind == history::UNPIN) || as_before(entry).as_ref() == Some(&entry.result) {
                return None;
            }
            let reason = match (is_pin, is_over) {
                (true, true) => "PinCompleted",
                (false, true) => "UnpinCompleted",
                (_, false) if entry.result != history::IN_PROGRESS => return None,
                (true, false) => "PinStarted",
                (false, false) => "UnpinStarted",
            };
            let by = entry.by.as_ref().map(|by| format!(", asked for by {by}")).unwrap_or_default();
            let why = entry.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let HistoryEntry { instances, from_version, version, .. } = entry;
            Some(normal(reason, "Pin", &format!("instances {instances}: {from_version} → {version}{by}{why}")))
        });
        told.collect()
    }
}

/// Which pauses an approval passes.
fn approved_in_words(entry: &HistoryEntry) -> String {
    match entry.batch {
        None | Some(-1) => "all pauses".into(),
        Some(0) => "the pause before the first instance".into(),
        Some(batch) => format!("batch {batch}"),
    }
}

/// The entry of the newest run.
fn entry_of(status: &RolloutStatus) -> Option<&HistoryEntry> {
    status.history.iter().find(|entry| history::is_run(entry) && Some(entry.run) == status.run)
}

/// Those of these instances that are in a batch.
fn members(batch: &BatchStatus, slots: std::ops::Range<i32>) -> Ranges {
    let pinned = Ranges::parse(&batch.pinned);
    slots.filter(|slot| !pinned.0.contains(slot)).collect()
}

/// `status.batch` of a run that leads somewhere new.
fn forward_batch(status: &RolloutStatus) -> Option<&BatchStatus> {
    status.batch.as_ref().filter(|_| status.target_revision != status.current_revision)
}

fn condition(status: &RolloutStatus, type_: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn ready(status: &RolloutStatus) -> Option<&Condition> {
    condition(status, ConditionType::Ready)
}

fn is(status: &RolloutStatus, type_: ConditionType, wanted: ConditionStatus) -> bool {
    condition(status, type_).is_some_and(|condition| condition.status == wanted)
}

pub(super) fn normal(reason: &'static str, action: &'static str, note: &str) -> Notice {
    Notice { kind: NoticeKind::Normal, reason, action, note: clip_bytes(note) }
}

pub(super) fn warning(reason: &'static str, action: &'static str, note: &str) -> Notice {
    Notice { kind: NoticeKind::Warning, reason, action, note: clip_bytes(note) }
}

/// The longest beginning of whole characters that fits a note.
fn clip_bytes(text: &str) -> String {
    if text.len() <= NOTE_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=NOTE_BYTES_MAX - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}
