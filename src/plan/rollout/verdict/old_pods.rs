//! Pods that must end before others are created.
use crate::{
    plan::{
        change::{Hold, HoldReason},
        rollout::run::slots::Slots,
    },
    snapshot::{Pod, Revision},
};

/// What people read while these Pods end.
pub(crate) fn hold<'p>(slots: &Slots<'_>, pods: impl Iterator<Item = &'p Pod>, revision: &Revision) -> Option<Hold> {
    let pods: Vec<&Pod> = pods.collect();
    let first = pods.iter().min_by_key(|pod| (pod.slot, &pod.name))?;
    let others = match pods.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (from, to) = (slots.called_of(first), slots.called(&revision.name).unwrap_or_default());
    let message = format!("{} ({from}){others} must end before {to} starts", first.name);
    Some(Hold { reason: HoldReason::OldPods, message, until: None })
}
