//! Tells of objects that are there and cannot be read, and that no look is about: one Event on each. Rollouts and ListenerSets
//! are told of by their own looks.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::shell::{Managed, Shell};
use crate::{
    api::{ListenerSet, Rollout},
    apply::event::{News, Regarding},
};

/// How often they are looked for.
const EVERY: Duration = Duration::from_secs(5);
/// Events in one go; the rest follow.
const TOLD_AT_ONCE: usize = 20;
/// Objects that are remembered as told of. With more, none is reported until some are gone: there is the metric.
const REMEMBERED_MAX: usize = 1_000;

/// What was told of: kind, uid.
type Told = BTreeSet<(&'static str, String)>;

/// Runs until `stop`.
pub(super) async fn tell(shell: Arc<Shell>, stop: CancellationToken) {
    let mut told = Told::new();
    loop {
        for (regarding, error) in due(&shell, &mut told) {
            let kind = regarding.kind;
            tracing::error!(kind, object = %regarding.key, error, "cannot be read; it is left alone");
            let note = format!("this {kind} cannot be read, and is left alone as it is: {error}");
            shell.publish(&regarding, &News { is_warning: true, reason: "Unreadable", action: "Watch", note: &note });
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Those that have not been told of, once for each object however often it changes.
fn due(shell: &Shell, told: &mut Told) -> Vec<(Regarding, String)> {
    shell.observer.look(|index| {
        let others = index.unreadables().filter(|(kind, ..)| ![Rollout::KIND, ListenerSet::KIND].contains(kind));
        let others: Vec<_> = others.collect();
        let present: BTreeSet<(&str, &str)> =
            others.iter().map(|(kind, _, found)| (*kind, found.uid.as_str())).collect();
        told.retain(|(kind, uid)| present.contains(&(*kind, uid.as_str())));
        let mut due = Vec::new();
        for (kind, key, found) in others {
            if due.len() >= TOLD_AT_ONCE || told.len() >= REMEMBERED_MAX {
                break;
            }
            if told.insert((kind, found.uid.clone())) {
                let (uid, resource_version) = (found.uid.clone(), found.resource_version.clone());
                due.push((Regarding { kind, key: key.clone(), uid, resource_version }, found.error.clone()));
            }
        }
        due
    })
}
