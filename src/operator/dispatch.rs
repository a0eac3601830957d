//! Hands due Rollouts to reconcile: several at a time, never one twice at once, each in a task of its own, so that a panic
//! in one does not touch the others.
use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    queue::Queue,
    reconcile::{Looked, Shell, reconcile},
};
use crate::snapshot::index::ObjectKey;

/// Runs until `stop`, then until the looks that are going on have ended.
pub async fn dispatch(shell: Arc<Shell>, queue: Arc<Queue>, concurrency: usize, stop: CancellationToken) {
    let mut looks: JoinSet<Looked> = JoinSet::new();
    let mut running: BTreeMap<Id, (ObjectKey, Instant)> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = looks.join_next_with_id() => finish(&shell, &queue, &mut running, ended).await,
            () = stop.cancelled() => break,
            (key, waited) = queue.next(), if looks.len() < concurrency => {
                shell.metrics.began(waited);
                let (shell, of) = (shell.clone(), key.clone());
                let id = looks.spawn(async move { look(&of, &shell).await }).id();
                running.insert(id, (key, Instant::now()));
            }
        }
    }
    while let Some(ended) = looks.join_next_with_id().await {
        finish(&shell, &queue, &mut running, ended).await;
    }
}

#[tracing::instrument(name = "reconcile", skip_all, fields(rollout = %key, id = shell.reconcile_id()))]
async fn look(key: &ObjectKey, shell: &Shell) -> Looked {
    reconcile(key, shell).await
}

async fn finish(
    shell: &Shell,
    queue: &Queue,
    running: &mut BTreeMap<Id, (ObjectKey, Instant)>,
    ended: Result<(Id, Looked), JoinError>,
) {
    let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
    let Some((key, began)) = running.remove(&id) else { return };
    let looked = match ended {
        Ok((_, looked)) => {
            shell.metrics.ended(Some(&looked), began.elapsed());
            looked
        }
        Err(error) => {
            shell.metrics.ended(None, began.elapsed());
            shell.panicked(&key, &message(error)).await
        }
    };
    queue.done(&key, looked.again_at);
}

/// What a panic said.
fn message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "cancelled".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}
