//! The one state a Rollout is in, as kstatus knows them: a chain of small rules; the first that speaks decides. Its
//! reason is the STATUS column.
//!
//! | kstatus | reasons |
//! |---|---|
//! | Current | `Complete`; `Paused` (by spec.paused, and no run is on); `Unproven` (no instance is asked for, and what is worked towards has not completed) |
//! | InProgress | `RollingOut`, `RollingBack`; `RunningHook`; `Soaking`; `ServiceMissing` (strategy BlueGreen); `AwaitingApproval`, `Paused` (by spec.paused, or by a timed pause); `QuotaExceeded`, `FailedCreate` (a Pod is refused for now); `InstancesUnavailable` (no run is on; instances were lost, or are new by scaling); `Deleting` |
//! | Failed | `RolledBack`, `Aborted` (and back in place); `HookFailed`, `RestoreFailed`; `PartlyRolledBack` (onFailure: RollbackFailed); `PinFailed` (all else is done); `FirstRevisionFailed`, `FailureThreshold` (onFailure: Pause), `ProgressDeadlineExceeded`, `RollbackStuck`, `InvalidSpec`, `ServiceInvalid` |
//!
//! Nine of these are not in the API's agreed list and say more than it could: `Unproven` keeps a version that no instance has
//! run from reading `Complete`; `FailedCreate` is what `QuotaExceeded` is,
//! for any other refusal; `InstancesUnavailable` keeps a lost Pod from reading as a rollout; `Deleting` keeps an object
//! that is going from reading `Complete`; `PartlyRolledBack` and `PinFailed` name what a person must decide, the two of Services what keeps clients from the new version;
//! `FailureThreshold` is `ProgressDeadlineExceeded` for failures that came sooner.
//!
//! Before the first look the CRD's default says Ready=Unknown, `Pending`.
use super::{
    instances::{State, Trouble, has_gone_back},
    kept::kept,
    look::Look,
    text::{count, seconds},
};
use crate::{
    api::{hooks::Restore, status::Failed},
    plan::{
        Hold, HoldReason,
        rollout::{GoesBack, HOOK_FAILED, Policy, Slot, stuck_at},
    },
    snapshot::{Pod, Ranges, RefusalReason, TemplateCheck, template::refusal},
};

/// kstatus' states of an object that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ready=True: all that was asked for is there.
    Current,
    /// Reconciling=True: it gets on, or waits for something that is foreseen.
    InProgress,
    /// Stalled=True: it will not get on without a person.
    Failed,
}

/// State, reason and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub kind: Kind,
    pub reason: &'static str,
    pub message: String,
}

/// Reason of [`Kind::Current`] that is no success.
pub(super) const UNPROVEN: &str = "Unproven";

impl Verdict {
    /// All that was asked for is there, and has shown that it works.
    pub fn is_complete(&self) -> bool {
        self.kind == Kind::Current && self.reason != UNPROVEN
    }
}

const RULES: &[fn(&Look<'_>) -> Option<Verdict>] = &[
    deleting,
    spec_invalid,
    not_recorded,
    template_refused,
    service,
    running_hook,
    rollback_stuck,
    given_up,
    revision_failed,
    pin_failed,
    complete,
    unproven,
    past_its_deadline,
    create_refused,
    held,
    restoring,
];

/// Total: work is going on when no rule says otherwise.
pub(super) fn of(look: &Look<'_>) -> Verdict {
    RULES.iter().find_map(|rule| rule(look)).unwrap_or_else(|| in_progress(way(look), waits_for(look)))
}

/// What a person can do about a revision that failed for good.
fn try_again(look: &Look<'_>) -> String {
    format!("change the spec, or {} (spec.retryAt) to try it again", look.snapshot.rollout.command("retry"))
}

/// What takes all instances back from it.
fn abort(look: &Look<'_>) -> String {
    format!("{} (spec.abort: {{run: {}}})", look.snapshot.rollout.command("abort"), look.memory().run)
}

fn current(reason: &'static str, message: String) -> Verdict {
    Verdict { kind: Kind::Current, reason, message }
}

fn in_progress(reason: &'static str, message: String) -> Verdict {
    Verdict { kind: Kind::InProgress, reason, message }
}

fn failed(reason: &'static str, message: String) -> Verdict {
    Verdict { kind: Kind::Failed, reason, message }
}

fn hold_message(look: &Look<'_>, reasons: &[HoldReason]) -> Option<String> {
    let hold = look.plan.hold.as_ref().filter(|hold| reasons.contains(&hold.reason))?;
    Some(hold.message.clone())
}

fn deleting(look: &Look<'_>) -> Option<Verdict> {
    let deleted = look.snapshot.rollout.metadata.deletion_timestamp.is_some();
    deleted.then(|| in_progress("Deleting", "being deleted; Kubernetes removes its Pods".into()))
}

fn spec_invalid(look: &Look<'_>) -> Option<Verdict> {
    Some(failed("InvalidSpec", hold_message(look, &[HoldReason::SpecInvalid, HoldReason::NotInPlace])?))
}

/// Until the present spec has its ControllerRevision, all else would be about the spec before.
fn not_recorded(look: &Look<'_>) -> Option<Verdict> {
    (!look.is_recorded).then(|| in_progress("RollingOut", "recording the revision of the present spec".into()))
}

fn template_refused(look: &Look<'_>) -> Option<Verdict> {
    if look.is_back() || look.memory().batch.is_none() {
        return None;
    }
    let update = look.memory().update.as_ref()?;
    let TemplateCheck::Refused { message, .. } = look.snapshot.template_checks.get(update)? else { return None };
    Some(failed("InvalidSpec", refusal(message)))
}

/// A Service that may come yet is waited for; one that does not fit a person must change, or the spec.
fn service(look: &Look<'_>) -> Option<Verdict> {
    let missing = hold_message(look, &[HoldReason::ServiceMissing]);
    let missing = missing.map(|message| in_progress("ServiceMissing", message));
    missing.or_else(|| Some(failed("ServiceInvalid", hold_message(look, &[HoldReason::ServiceInvalid])?)))
}

/// All else waits for it.
fn running_hook(look: &Look<'_>) -> Option<Verdict> {
    let hold = look.plan.hold.as_ref().filter(|hold| matches!(hold.reason, HoldReason::RunningHook(_)))?;
    Some(in_progress("RunningHook", hold.message.clone()))
}

/// A hook has failed the run.
fn is_by_hook(failed: &Failed) -> bool {
    failed.reason == HOOK_FAILED
}

fn rollback_stuck(look: &Look<'_>) -> Option<Verdict> {
    if !look.is_back() || look.is_run_settled() {
        return None;
    }
    let message = hold_message(look, &[HoldReason::ProgressDeadline, HoldReason::TemplateRefused])?;
    let to = look.version_in_words(look.memory().effective.as_ref());
    Some(failed("RollbackStuck", format!("going back to {to} does not get on: {message}")))
}

/// On the way back from a revision that failed or was aborted, and when there.
fn given_up(look: &Look<'_>) -> Option<Verdict> {
    if !look.is_given_up() {
        return None;
    }
    let (cause, kept) = (cause(look), kept(look));
    if !look.is_run_settled() {
        return Some(in_progress("RollingBack", format!("{}; {cause}{kept}", waits_for(look))));
    }
    let (runs, remedy) = (runs(look), try_again(look));
    let paused = if look.spec().paused { format!("; {}", paused(look)) } else { String::new() };
    let hooks = &look.memory().hooks;
    let restore = hooks.restore.as_ref().filter(|restore| !restore.failure.is_empty());
    if let Some(Restore { backup, failure, .. }) = restore {
        let backup = if backup.is_empty() { String::new() } else { format!(" (backup {backup})") };
        let message =
            format!("what the run had changed was not taken back{backup}: {failure}; {cause}; {runs}: {remedy}");
        return Some(failed("RestoreFailed", message));
    }
    let is_by_hook = look.memory().failed.as_ref().is_some_and(is_by_hook);
    let reason = match is_aborted(look) {
        true => "Aborted",
        false if is_by_hook => HOOK_FAILED,
        false => "RolledBack",
    };
    Some(failed(reason, format!("{cause}; {runs}{kept}: {remedy}{paused}")))
}

pub(super) fn is_aborted(look: &Look<'_>) -> bool {
    let noted = look.revision(look.memory().update.as_ref()).and_then(|update| update.failed_reason.as_deref());
    noted.is_some_and(|reason| reason.starts_with("Aborted"))
}

/// `1.4.2 failed (ImagePullBackOff: web-3: …)`, or `run 7 was aborted by alice`.
pub(super) fn cause(look: &Look<'_>) -> String {
    let memory = look.memory();
    let version = look.version_in_words(memory.update.as_ref());
    let noted = look.revision(memory.update.as_ref()).and_then(|update| update.failed_reason.as_deref());
    match (is_aborted(look), noted, &memory.failed) {
        (true, Some(noted), _) => format!("{version}: {}", noted.split_once(": ").map_or(noted, |(_, text)| text)),
        (_, _, Some(failed)) => format!("{version} failed ({}: {})", failed.reason, failed.message),
        (_, Some(noted), None) => format!("{version} failed ({noted})"),
        (_, None, None) => format!("{version} was given up"),
    }
}

/// The threshold of failed instances is reached, and nothing goes back.
fn revision_failed(look: &Look<'_>) -> Option<Verdict> {
    let memory = look.memory();
    let failure = memory.failed.as_ref().filter(|failed| failed.at.is_some() && failed.run == memory.run)?;
    if look.is_back() || Some(&failure.revision) != memory.update.as_ref() {
        return None;
    }
    let (cause, try_again) = (cause(look), try_again(look));
    if memory.stable.is_none() {
        let why = "there is no earlier revision to go back to";
        return Some(failed("FirstRevisionFailed", format!("{cause}: {why}; {try_again}")));
    }
    let goes_back = Policy::of(look.spec()).goes_back;
    let rolls_back = goes_back == GoesBack::All;
    if (goes_back != GoesBack::Nothing || is_aborted(look))
        && look.revision(memory.stable.as_ref()).is_none_or(|stable| stable.deleting)
    {
        let gone = memory.stable.as_deref().unwrap_or_default();
        let why = format!("cannot go back: ControllerRevision {gone} was deleted");
        return Some(failed("RollbackStuck", format!("{cause}; {why}: {try_again}")));
    }
    if goes_back == GoesBack::FailedOnly && !is_aborted(look) {
        return Some(partly_rolled_back(look, failure, &cause));
    }
    if rolls_back {
        return Some(in_progress("RollingBack", format!("{cause}: going back")));
    }
    let reason = match failure.reason.as_str() {
        "ProgressDeadlineExceeded" => "ProgressDeadlineExceeded",
        HOOK_FAILED => HOOK_FAILED,
        _ => "FailureThreshold",
    };
    let (retry, abort) = (look.snapshot.rollout.command("retry"), abort(look));
    let remedy =
        format!("nothing moves forward: change the spec, {retry} (spec.retryAt) to try again, or {abort} to go back");
    Some(failed(reason, format!("{cause}; {remedy}")))
}

/// The failed instances go back, the others stay.
fn partly_rolled_back(look: &Look<'_>, failure: &Failed, cause: &str) -> Verdict {
    let counted = crate::plan::rollout::back(failure);
    let to = look.version_in_words(look.memory().stable.as_ref());
    let slots: Vec<_> = look.slots.unpinned().filter(|slot| counted.0.contains(&slot.index)).collect();
    if let Some(why) = stuck(look, &slots) {
        let remedy = try_again(look);
        return failed("RollbackStuck", format!("{cause}; going back to {to} does not get on: {why}: {remedy}"));
    }
    if let Some(refused) = create_refused(look).filter(|_| slots.iter().any(|slot| slot.live.is_empty())) {
        return refused;
    }
    // One that has gone back and blinks, or was lost, goes nowhere.
    let (back, on_their_way): (Vec<_>, Vec<_>) =
        slots.into_iter().partition(|slot| has_gone_back(look.snapshot, slot, failure));
    if let Some(first) = on_their_way.first() {
        let first = look.instance(first.index);
        let message = match on_their_way.len() {
            1 => format!("{cause}: {first} goes back to {to}"),
            number => format!("{cause}: {first} and {} more go back to {to}", number - 1),
        };
        return in_progress("RollingBack", message);
    }
    let back = back.iter().map(|slot| slot.index).collect::<Ranges>();
    let remedy = format!("{}, or {} to take all back", try_again(look), abort(look));
    let stays = |slot: &Slot<'_>| {
        !counted.0.contains(&slot.index) && slot.live.iter().any(|pod| pod.revision == failure.revision)
    };
    let others = if look.slots.unpinned().any(stays) { ", the others stay" } else { "" };
    let again = if failure.spared.is_empty() { " again" } else { "" };
    let back = if back.is_empty() { String::new() } else { format!("; instances {back} run {to}{again}{others}") };
    failed("PartlyRolledBack", format!("{cause}{back}{}: {remedy}", kept(look)))
}

/// Why instances that go back one by one do not run the stable revision, where waiting does not help.
fn stuck(look: &Look<'_>, slots: &[&Slot<'_>]) -> Option<String> {
    let stable = look.memory().stable.as_ref()?;
    let check = look.snapshot.template_checks.get(stable).filter(|_| slots.iter().any(|slot| !slot.fresh));
    if let Some(TemplateCheck::Refused { message, .. }) = check {
        return Some(refusal(message));
    }
    let patience_seconds = i64::from(look.spec().progress_deadline_seconds);
    let is_broken =
        |pod: &Pod| stuck_at(look.snapshot, pod, patience_seconds).is_some_and(|at| at <= look.snapshot.now);
    let is_there = |slot: &Slot<'_>| slot.fresh && slot.live.first().is_some_and(|pod| is_broken(pod));
    let mut broken: Vec<_> = slots.iter().copied().filter(|slot| is_there(slot)).collect();
    let waiting = slots.iter().find(|slot| !slot.fresh && slot.live.len() == 1).filter(|_| broken.is_empty());
    if waiting.is_some() {
        broken = in_the_way(look);
        if !broken.iter().all(|slot| is_there(slot)) {
            return None; // some come up
        }
    }
    let first = broken.first()?.index;
    let word = look.troubles.iter().find(|trouble| trouble.instance == first).map_or("", Trouble::word);
    let others = match broken.len() {
        1 => String::new(),
        number => format!(" and {} more", number - 1),
    };
    let waiting = waiting.map(|slot| format!("{} waits for ", look.instance(slot.index))).unwrap_or_default();
    Some(format!("{waiting}{} ({word}){others}", look.instance(first)))
}

/// Instances that use up what may be unavailable, where nothing else keeps others from going back.
fn in_the_way<'l>(look: &'l Look<'_>) -> Vec<&'l Slot<'l>> {
    let is_free = |hold: &Hold| [HoldReason::Budget, HoldReason::FailureThreshold].contains(&hold.reason);
    if !look.plan.changes.is_empty() || !look.plan.hold.as_ref().is_none_or(is_free) {
        return Vec::new();
    }
    let is_available = |pod: &&Pod| pod.is_available(look.spec().min_ready_seconds, look.snapshot.now);
    let away: Vec<_> = look.slots.wanted().filter(|slot| !slot.live.first().is_some_and(is_available)).collect();
    let available = look.slots.wanted().count() - away.len();
    if available as i32 > Policy::of(look.spec()).fewest_available() { Vec::new() } else { away }
}

/// All else is done, and a pinned instance has failed: only a person can change what it is pinned to.
fn pin_failed(look: &Look<'_>) -> Option<Verdict> {
    let is_pinned = |slot: i32| look.slots.wanted_at(slot).is_some_and(|slot| slot.pin.is_some());
    let mut troubles = look
        .troubles
        .iter()
        .filter(|trouble| look.memory().batch.is_none() && look.is_run_settled() && is_pinned(trouble.instance));
    let first = troubles.find(|trouble| trouble.state == State::Failed)?;
    let (instance, why) = (look.instance(first.instance), first.word());
    let message = format!("{instance} fails at what it is pinned to ({why}: {}): change spec.pins", first.message);
    Some(failed("PinFailed", message))
}

/// R13: every instance is observed at its target and available, and that revision has completed.
fn complete(look: &Look<'_>) -> Option<Verdict> {
    let is_there = look.is_settled() || look.is_at_rest();
    if !look.is_back() || look.is_given_up() || !is_there {
        return None;
    }
    if !look.spec().paused {
        return Some(current("Complete", runs(look) + &kept(look)));
    }
    Some(current("Paused", format!("{}; {}", runs(look), paused(look))))
}

/// What is true of a paused Rollout whether something waits for it or not.
fn paused(look: &Look<'_>) -> String {
    format!("spec.paused is true, nothing new is begun: {}", look.snapshot.rollout.command("resume"))
}

/// With no instance asked for there is nothing to do, and nothing that shows whether the version works.
fn unproven(look: &Look<'_>) -> Option<Verdict> {
    let version = look.version_in_words(look.memory().effective.as_ref());
    let stable = look.memory().stable.as_ref().map(|stable| look.version_in_words(Some(stable)));
    let stable = stable.map(|stable| format!(". {stable} stays the stable version")).unwrap_or_default();
    let message = || {
        format!(
            "spec.replicas is 0, so nothing has shown that {version} works{stable}; the run goes on once there are instances"
        )
    };
    look.is_unproven().then(|| current(UNPROVEN, message()))
}

/// `all 10 instances run 1.4.2`.
fn runs(look: &Look<'_>) -> String {
    let version = look.version_in_words(look.memory().effective.as_ref());
    let pinned = look.slots.wanted().filter(|slot| slot.pin.is_some()).count();
    if pinned > 0 {
        let others = count(usize::try_from(look.replicas()).unwrap_or_default() - pinned, "instance");
        return format!("{others} run {version}, {pinned} {} pinned", if pinned == 1 { "is" } else { "are" });
    }
    let kept = look.slots.sets().and_then(|sets| sets.before.filter(|(before, _)| sets.kept == Some(before)));
    let kept = kept.map(|(kept, until)| {
        let kept = look.version_in_words(Some(&kept.to_owned()));
        format!("; those of {kept} stay until {}", seconds(until).0)
    });
    let runs = match look.replicas() {
        0 => format!("no instances are asked for; they would run {version}"),
        1 => format!("the one instance runs {version}"),
        replicas => format!("all {replicas} instances run {version}"),
    };
    runs + &kept.unwrap_or_default()
}

fn past_its_deadline(look: &Look<'_>) -> Option<Verdict> {
    Some(failed("ProgressDeadlineExceeded", hold_message(look, &[HoldReason::ProgressDeadline])?))
}

/// Unless something else is more urgent, what cannot be created is what it waits for.
fn create_refused(look: &Look<'_>) -> Option<Verdict> {
    let refusal = look.refusal()?;
    let reason = match refusal.reason {
        RefusalReason::QuotaExceeded => "QuotaExceeded",
        RefusalReason::FailedCreate => "FailedCreate",
    };
    Some(in_progress(reason, format!("Pods cannot be created: {}", refusal.message)))
}

/// Gates that a person or a clock opens.
fn held(look: &Look<'_>) -> Option<Verdict> {
    let hold = look.plan.hold.as_ref()?;
    let reason = match hold.reason {
        HoldReason::Paused | HoldReason::PauseTimer => "Paused",
        HoldReason::AwaitingApproval => "AwaitingApproval",
        HoldReason::Soaking => "Soaking",
        HoldReason::Pinned if look.spec().paused => "Paused",
        HoldReason::Pinned | HoldReason::ServiceUnread | HoldReason::CheckUnreachable => way(look),
        // Until a time that a person has set; what merely ends is told by its instances.
        HoldReason::OldPods if hold.until.is_some() => way(look),
        _ => return None,
    };
    // One of a run before was an answer in its time.
    let too_early = look.spec().approve.as_ref().filter(|answer| answer.run > look.memory().run);
    let ignored = too_early.filter(|_| hold.reason == HoldReason::AwaitingApproval);
    let ignored = ignored.map(|answer| format!(" (spec.approve is about run {}: ignored)", answer.run));
    Some(in_progress(reason, format!("{}{}", hold.message, ignored.unwrap_or_default())))
}

/// No run is on and no instance is at another revision: some were lost, or are new by scaling.
fn restoring(look: &Look<'_>) -> Option<Verdict> {
    let at_rest = look.memory().batch.is_none() && look.is_back() && !look.is_changing();
    at_rest.then(|| in_progress("InstancesUnavailable", waits_for(look)))
}

/// Where the work leads.
fn way(look: &Look<'_>) -> &'static str {
    let returns = look.is_back() && look.memory().batch.is_some() && look.is_changing();
    if returns { "RollingBack" } else { "RollingOut" }
}

/// The one thing it waits for: `batch 2/3: web-3 (ImagePullBackOff) and 2 more`.
fn waits_for(look: &Look<'_>) -> String {
    let batch = look.memory().batch.as_ref().filter(|batch| batch.opened > 0);
    let batch = batch.map(|batch| format!("batch {}/{}: ", batch.index, batch.count)).unwrap_or_default();
    if let Some(first) = look.troubles.first() {
        let others = match look.troubles.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return format!("{batch}{} ({}){others}", look.instance(first.instance), in_words(first));
    }
    let surplus = look.slots.unwanted().map(|slot| slot.live.len()).sum::<usize>();
    if surplus > 0 {
        return format!("{batch}{} beyond spec.replicas yet to leave", count(surplus, "Pod"));
    }
    // Nothing is wrong with any instance: what holds the next step, else the step itself.
    look.plan.hold.as_ref().map_or_else(|| format!("{batch}{}", runs(look)), |hold| hold.message.clone())
}

fn in_words(trouble: &Trouble) -> &str {
    if trouble.state == State::Outdated { &trouble.message } else { trouble.word() }
}
