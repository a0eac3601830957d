//! Ownerships whose label or owner references do not name their holder.
use std::collections::BTreeSet;

use super::{
    change::SetChange,
    note::Note,
    ownership::Write,
    view::{Owner, View, Wish},
};
use crate::snapshot::lease::Named;

/// Names them anew, where `changes` write nothing else there. Nothing is in a hurry for it, and an agent that is about to
/// give one away must not meet another version of it. What a Pod owned that is gone, the garbage collector takes away again.
pub(super) fn mends(view: &View<'_>, notes: &[Note], changes: &[SetChange]) -> Vec<SetChange> {
    let written: BTreeSet<&str> = changes.iter().filter_map(SetChange::listener).collect();
    let mut mends = Vec::new();
    for (item, note) in view.items.iter().zip(notes) {
        let Some(seen) = item.seen.filter(|seen| seen.named != Named::Fully) else { continue };
        let is_there = match item.owner {
            Owner::Alive(_, at) => view.seats[at].pod.is_some_and(|pod| !pod.is_terminating),
            Owner::Unowned => true,
            Owner::NoLease | Owner::Dead(..) => false,
        };
        // Without its label its owner does not see it: it can do nothing that this would disturb.
        let is_quiet = item.wish == Wish::Run && item.release.is_none() && !note.is_moving;
        if is_there && (is_quiet || seen.named == Named::No) && !written.contains(item.name) {
            mends.push(SetChange::Mend {
                listener: item.name.to_owned(),
                uid: seen.ownership.uid.clone(),
                resource_version: seen.ownership.resource_version.clone(),
                write: Write { holder: seen.ownership.holder.clone(), epoch: seen.ownership.epoch },
            });
        }
    }
    mends
}
