//! DELETE: preconditions, grace, finalizers, and how the garbage collector is told what to do with dependents.
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    State,
    faults::Verb,
    kinds::Kind,
    object::{Object, finalizers, is_terminating, set_meta, whole_seconds},
    refusal::Refusal,
    store::key,
    upkeep::bump_generation,
    write::{Caller, Target},
};

/// Keeps an owner until its dependents have gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an owner until its dependents no longer name it.
pub const ORPHAN: &str = "orphan";

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    /// None: as the object says.
    pub grace_seconds: Option<i64>,
    /// It must be this very object.
    pub uid: Option<String>,
    /// It must be this version of it.
    pub resource_version: Option<String>,
    /// None: as its finalizers say, else in the background.
    pub propagation: Option<Propagation>,
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Deleted after the owner.
    Background,
    /// Deleted before the owner.
    Foreground,
    /// Kept.
    Orphan,
}

/// What became of the object.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone.
    Now(Arc<Object>),
    /// It ends when its grace is over and its finalizers are gone.
    Later(Arc<Object>),
}

/// How an object is deleted gracefully.
#[derive(PartialEq)]
enum Grace {
    /// Not at all: now, unless finalizers keep it.
    None,
    /// Marked with so many seconds.
    Marked(i64),
    /// It was marked before, and this changes nothing.
    Pending,
}

impl State {
    /// DELETE of one object.
    ///
    /// # Errors
    /// As the real one.
    pub fn delete(&mut self, caller: &Caller, target: Target<'_>, options: &DeleteOptions) -> Result<Deleted, Refusal> {
        let Target { kind, namespace, name, .. } = target;
        let Some(existing) = self.store.get(kind, namespace, name).cloned() else {
            return Err(Refusal::not_found(kind, name));
        };
        check_preconditions(kind, &existing, options)?;
        self.admission.check(kind, Verb::Delete, &existing, &self.store)?;
        let mut value = existing.value().clone();
        let grace = mark_gracefully(kind, &mut value, options, caller.now);
        if grace == Grace::Pending {
            return Ok(Deleted::Later(existing));
        }
        let before: Vec<String> = finalizers(&existing).into_iter().map(str::to_owned).collect();
        let after = finalizers_for_dependents(&before, options.propagation);
        let changes_finalizers = before != after;
        let is_kept = !after.is_empty();
        if changes_finalizers {
            set_meta(&mut value, "finalizers", (!after.is_empty()).then(|| json!(after)));
        }
        if grace == Grace::None && is_kept {
            mark_as_deleting(&mut value, caller.now);
        }
        let mut marked = existing.clone();
        if grace != Grace::None || is_kept || changes_finalizers {
            marked = self.save(caller, Verb::Delete, kind, Some(&existing), value);
        }
        if is_kept || matches!(grace, Grace::Marked(seconds) if seconds > 0) {
            return Ok(Deleted::Later(marked));
        }
        if !caller.is_dry_run
            && let Some(change) = self.store.remove(kind, &key(kind, namespace, name))
        {
            marked = change.object.clone();
            self.committed(caller, Verb::Delete, change);
        }
        Ok(Deleted::Now(marked))
    }
}

fn check_preconditions(kind: &Kind, existing: &Object, options: &DeleteOptions) -> Result<(), Refusal> {
    let check = |field: &str, wanted: Option<&String>, found: &str| match wanted {
        Some(wanted) if wanted != found => {
            let mut refusal = Refusal::precondition(kind, existing.name(), field, wanted, found);
            // The real one names the kind here where it otherwise names the resource.
            refusal.message = refusal.message.replacen(&kind.qualified(), kind.kind, 1);
            refusal.details["kind"] = json!(kind.kind);
            Err(refusal)
        }
        _ => Ok(()),
    };
    check("UID", options.uid.as_ref(), existing.uid())?;
    check("ResourceVersion", options.resource_version.as_ref(), &existing.revision().to_string())
}

/// The mark that a graceful kind gets, or that is shortened.
fn mark_gracefully(kind: &Kind, value: &mut Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    if !kind.is_graceful {
        return Grace::None;
    }
    if !is_terminating(value) {
        let seconds = pod_grace_seconds(value, options.grace_seconds);
        let end = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        set_meta(value, "deletionTimestamp", Some(json!(whole_seconds(end))));
        set_meta(value, "deletionGracePeriodSeconds", Some(json!(seconds)));
        bump_generation(value);
        return Grace::Marked(seconds);
    }
    let Some(marked) = value["metadata"]["deletionGracePeriodSeconds"].as_i64().filter(|seconds| *seconds != 0) else {
        return Grace::None;
    };
    // It can only be shortened.
    let Some(shorter) = options.grace_seconds.filter(|seconds| *seconds < marked) else { return Grace::Pending };
    let end = value["metadata"]["deletionTimestamp"].as_str().and_then(|end| end.parse().ok()).unwrap_or(now);
    let end = end.saturating_sub(SignedDuration::from_secs(marked - shorter)).unwrap_or(end);
    set_meta(value, "deletionTimestamp", Some(json!(whole_seconds(end))));
    set_meta(value, "deletionGracePeriodSeconds", Some(json!(shorter)));
    Grace::Marked(shorter)
}

/// A Pod that runs nowhere, or no longer, has nothing to end.
fn pod_grace_seconds(pod: &Value, wanted: Option<i64>) -> i64 {
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or_default();
    let is_bound = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    match wanted.unwrap_or(own) {
        _ if !is_bound || has_ended => 0,
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

/// The mark of an object that only its finalizers keep.
fn mark_as_deleting(value: &mut Value, now: Timestamp) {
    let marked = value["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    if marked.is_none() {
        bump_generation(value);
    }
    if marked.is_none_or(|marked| marked > now) {
        set_meta(value, "deletionTimestamp", Some(json!(whole_seconds(now))));
    }
    set_meta(value, "deletionGracePeriodSeconds", Some(json!(0)));
}

/// Finalizers with those of the garbage collector as this policy wants them.
fn finalizers_for_dependents(before: &[String], propagation: Option<Propagation>) -> Vec<String> {
    let own = |name: &&String| [FOREGROUND, ORPHAN].contains(&name.as_str());
    let kept = before.iter().filter(|name| !own(name)).cloned();
    let added: Vec<String> = match propagation {
        Some(Propagation::Background) => Vec::new(),
        Some(Propagation::Foreground) => vec![FOREGROUND.to_owned()],
        Some(Propagation::Orphan) => vec![ORPHAN.to_owned()],
        None => before.iter().filter(own).cloned().collect(),
    };
    let mut after: Vec<String> = kept.chain(added).collect();
    // As a set nothing has changed: then neither has the order.
    if after.len() == before.len() && before.iter().all(|name| after.contains(name)) {
        after = before.to_vec();
    }
    after
}
