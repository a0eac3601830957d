//! ControllerRevisions to create, mark and delete.
use std::collections::BTreeSet;

use crate::{
    api::rollout::Request,
    plan::{
        change::{Change, Memory, RevisionAct, RevisionMark},
        revision,
        rollout::run::revisions::Lineage,
    },
    snapshot::{Revision, Service, Snapshot},
};

/// Writes that make the ControllerRevisions say what the spec asks for, and clear away old ones.
pub(crate) fn changes(lineage: &Lineage<'_>, snapshot: &Snapshot, memory: &Memory) -> Vec<Change> {
    let highest = snapshot.revisions.iter().map(|revision| revision.number).max().unwrap_or(0);
    let change_cause = snapshot.rollout.new_request().and_then(change_cause);
    let change_cause = change_cause.or_else(|| snapshot.rollout.annotated_cause());
    match lineage.update {
        None => vec![create(snapshot, &lineage.data, highest + 1, change_cause)],
        Some(update) if update.number < highest => {
            vec![Change::mark(update, RevisionMark::Wanted { number: highest + 1, change_cause })]
        }
        Some(_) => {
            let cause = |request: &Option<Request>| request.as_ref().and_then(self::change_cause);
            let of_pins = lineage.pins.due().map(|(pin, data)| create(snapshot, data, 0, cause(&pin.request)));
            of_pins.chain(clean_up(lineage, snapshot, memory)).collect()
        }
    }
}

/// Oldest first, all beyond the limit that nothing needs: not wanted, not stable, named by no pin, run by no Pod.
fn clean_up(lineage: &Lineage<'_>, snapshot: &Snapshot, memory: &Memory) -> Vec<Change> {
    let limit = usize::try_from(snapshot.rollout.spec.revision_history_limit).unwrap_or(0);
    let mut needed: BTreeSet<&str> = snapshot.pods.iter().map(|pod| pod.revision.as_str()).collect();
    needed.extend([lineage.update, lineage.stable, lineage.effective].into_iter().flatten().map(|r| r.name.as_str()));
    needed.extend(lineage.pins.revisions());
    needed.extend(snapshot.services.active.seen().and_then(Service::revision));
    needed.extend([&memory.update, &memory.stable, &memory.effective].into_iter().flatten().map(String::as_str));
    let mut spare: Vec<&Revision> =
        snapshot.revisions.iter().filter(|r| !r.deleting && !needed.contains(r.name.as_str())).collect();
    spare.sort_by_key(|revision| (revision.number, &revision.name));
    let beyond = spare.len().saturating_sub(limit);
    let delete = |revision: &&Revision| Change::Revision { seen: (*revision).into(), act: RevisionAct::Delete };
    spare.iter().take(beyond).map(delete).collect()
}

fn create(snapshot: &Snapshot, data: &serde_json::Value, number: i64, change_cause: Option<String>) -> Change {
    let hash = revision::hash(data);
    let rollout = snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let base = format!("{rollout}-{hash}");
    let taken = |name: &str| snapshot.taken_names.contains(name) || snapshot.revisions.iter().any(|r| r.name == name);
    let name =
        std::iter::once(base.clone()).chain((1..1_000).map(|n: u32| format!("{base}-{n}"))).find(|name| !taken(name));
    Change::CreateRevision { name: name.unwrap_or(base), hash, number, data: data.clone(), change_cause }
}

/// `deploy-1 by alice: new prices`.
fn change_cause(request: &Request) -> Option<String> {
    let mut words = String::new();
    if let Some(id) = &request.id {
        words.push_str(id);
    }
    if let Some(by) = &request.by {
        words.push_str(if words.is_empty() { "by " } else { " by " });
        words.push_str(by);
    }
    if let Some(reason) = &request.reason {
        words.push_str(if words.is_empty() { "" } else { ": " });
        words.push_str(reason);
    }
    (!words.is_empty()).then_some(words)
}
