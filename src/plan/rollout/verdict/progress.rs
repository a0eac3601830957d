//! How far the opened batches are.
use crate::{
    plan::rollout::run::{View, slots::Done},
    snapshot::Ranges,
};

/// The opened slots that are not done, when more of them are not than the batch may leave behind.
pub(crate) fn behind(view: &View<'_>) -> Option<Vec<i32>> {
    match view.slots.done() {
        Done::Not(undone) if !within_threshold(view, &undone) => Some(undone),
        _ => None,
    }
}

/// A batch may leave behind failed instances, fewer than the threshold.
fn within_threshold(view: &View<'_>, undone: &[i32]) -> bool {
    let failed = view.memory.failed.as_ref().filter(|failed| failed.at.is_none());
    let slots = failed.map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
    undone.iter().all(|slot| slots.0.contains(slot))
}

/// `batch 2/3: web-3 (not ready) and 2 more`: the first of the instances that are not done, and what is wrong with it.
pub(crate) fn undone_in_words(view: &View<'_>, undone: &[i32]) -> String {
    let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let first = undone.first().copied().unwrap_or(0);
    let state = view.slots.wanted_at(first).map_or_else(String::new, |slot| view.slots.state(slot));
    let others = if undone.len() > 1 { format!(" and {} more", undone.len() - 1) } else { String::new() };
    let name = crate::api::names::instance_name(rollout, first);
    let batch = view.memory.batch.as_ref().map(|batch| format!("batch {}/{}: ", batch.index, batch.count));
    format!("{}{name} ({state}){others}", batch.unwrap_or_default())
}
