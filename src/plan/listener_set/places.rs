//! Each listener in words.
use std::collections::BTreeMap;

use super::{
    change::{Place, Stage},
    memory::SetRecollection,
    note::Note,
    placement::Role,
    sessions,
    view::{Item, Owner, Runs, Seat, View, Wish},
};
use crate::api::names;

/// Where each listener is, by name.
pub(super) fn places(view: &View<'_>, notes: &[Note]) -> BTreeMap<String, Place> {
    view.items.iter().zip(notes).map(|(item, note)| (item.name.to_owned(), place(view, item, note))).collect()
}

fn place(view: &View<'_>, item: &Item<'_>, note: &Note) -> Place {
    let (mut reason, mut message) = (note.reason.to_owned(), note.message.clone());
    let mut say = |word: &str, sentence: String| (reason, message) = (word.to_owned(), sentence);
    let stage = match (item.wish, item.owner) {
        (Wish::Go, _) => Stage::Retiring,
        (Wish::Stop, Owner::Alive(..)) => Stage::Stopping,
        (Wish::Stop, _) => Stage::Stopped,
        (Wish::Run, Owner::NoLease | Owner::Unowned) => Stage::Unassigned,
        (Wish::Run, Owner::Dead(holder, proof)) => {
            if note.reason.is_empty() {
                say("HolderDead", format!("{} is dead: {}", holder.pod, proof.as_str()));
            }
            Stage::Orphaned
        }
        (Wish::Run, Owner::Alive(holder, seat)) => {
            if sessions::is_silent(view, item.owner) {
                say("HolderSilent", format!("{} is silent; it is taken over when that is certain", holder.pod));
                Stage::Orphaned
            } else if note.is_moving && !matches!(item.runs, Runs::Failed(_)) {
                Stage::Moving
            } else {
                match item.runs {
                    Runs::Yes if note.is_stranded && note.reason.is_empty() => {
                        let leaves = view.seats[seat].name;
                        let is_open = |seat: &Seat<'_>| matches!(seat.role, Role::Target | Role::Stays);
                        let why = if view.seats.iter().any(is_open) {
                            "each has tried this one in vain, or has no room"
                        } else {
                            "no other ready Pod stays and has an agent that answers"
                        };
                        say(
                            "NoHeir",
                            format!(
                                "{leaves} leaves once others have taken over its listeners, and {why}; it is tried again every few minutes"
                            ),
                        );
                        Stage::Moving
                    }
                    Runs::Yes => Stage::Running,
                    Runs::No => Stage::Starting,
                    Runs::Failed(unit) => {
                        let times = if unit.failures > 1 {
                            format!(" ({} times in a row)", unit.failures)
                        } else {
                            String::new()
                        };
                        let word = if unit.reason.is_empty() { "StartFailed" } else { unit.reason.as_str() };
                        say(word, format!("{}{times}: {}", view.seats[seat].name, unit.message));
                        Stage::Failed
                    }
                }
            }
        }
    };
    if view.seats.get(item.at().unwrap_or(usize::MAX)).is_some_and(|seat| seat.is_stuck)
        && stage != Stage::Running
        && !note.is_stranded
    {
        say("NotReleased", "its Pod does not let go of it; it will be deleted once it holds nothing else".to_owned());
    }
    Place {
        stage,
        pod: item.holder().map(|holder| holder.pod.clone()).unwrap_or_default(),
        epoch: item.epoch(),
        to: note.to.map(|to| view.seats[to].name.to_owned()).unwrap_or_default(),
        reason,
        message,
    }
}

/// Why there is no seat for a listener, and what a person can do about it.
pub(super) fn nowhere(view: &View<'_>, memory: &SetRecollection) -> (&'static str, String) {
    let spec = &view.snapshot.set.spec;
    let pods: Vec<_> = view.seats.iter().filter_map(|seat| Some((seat, seat.pod?))).collect();
    let (whose, none) = match &spec.rollout_ref {
        Some(rollout) => (
            format!("Rollout {} has", rollout.name),
            format!("there is no Rollout {} in this namespace, or it has no Pods", rollout.name),
        ),
        None => (
            "spec.selector selects".to_owned(),
            format!(
                "spec.selector selects no Pods that have the label {}: \"true\", and the annotation {} with the name {}, too",
                names::LABEL_AGENT,
                names::ANNOTATION_LISTENER_SETS,
                view.snapshot.set.metadata.name.as_deref().unwrap_or_default()
            ),
        ),
    };
    if pods.is_empty() {
        return ("NoPods", none);
    }
    let ready: Vec<_> = pods.iter().filter(|(_, pod)| pod.is_ready).collect();
    if ready.is_empty() {
        return ("NoReadyPod", format!("none of the Pods that {whose} is ready ({})", pods.len()));
    }
    let is_claimed = |seat: &Seat<'_>| {
        seat.session.is_some_and(|seen| {
            seen.watched.session.as_ref().is_some_and(|own| own.boot > 0 || own.claim.holder().is_some())
        })
    };
    if !ready.iter().any(|(seat, _)| is_claimed(seat)) {
        let remedy =
            format!("annotate the template with {}, or run baton-agent in its image", names::ANNOTATION_HAS_AGENT);
        return ("NoAgent", format!("no agent has come forward in any ready Pod ({}): {remedy}", ready.len()));
    }
    let open = pods.iter().filter(|(seat, _)| matches!(seat.role, Role::Target | Role::Stays)).count();
    if open == 0 {
        return ("NoReadyPod", "no ready Pod stays and has an agent that answers".to_owned());
    }
    if memory.crowded_since.is_some() && spec.placement.max_per_pod == 0 {
        return (
            "AwaitingPods",
            format!("waits some seconds for more than {open} of {} Pods", view.snapshot.pods_in_the_end),
        );
    }
    let most = spec.placement.max_per_pod;
    ("NoRoom", format!("every Pod holds spec.placement.maxPerPod ({most}) listeners: raise it, or add Pods"))
}
