//! Hands due Rollouts to reconcile: several at a time, never one twice at once, each in a task of its own, so that a panic
//! in one does not touch the others.
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    queue::Queue,
    reconcile::{Looked, Shell, reconcile},
};
use crate::snapshot::index::ObjectKey;

/// Runs until `stop`, then until the looks that are going on have ended. Dropping it cuts them off.
pub async fn dispatch(shell: Arc<Shell>, queue: Arc<Queue>, concurrency: usize, stop: CancellationToken) {
    let mut looks: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = looks.join_next() => {}
            () = stop.cancelled() => break,
            (key, waited) = queue.next(), if looks.len() < concurrency => {
                shell.metrics.began(waited);
                let (shell, queue) = (shell.clone(), queue.clone());
                looks.spawn(async move {
                    let looked = look(&key, &shell).await;
                    queue.done(&key, looked.again_at);
                });
            }
        }
    }
    while looks.join_next().await.is_some() {}
}

#[tracing::instrument(name = "reconcile", skip_all, fields(rollout = %key, id = shell.reconcile_id()))]
async fn look(key: &ObjectKey, shell: &Shell) -> Looked {
    let began = Instant::now();
    // What a panic may leave half-done is the object's memory, and that is written to by single assignments.
    let looked = AssertUnwindSafe(reconcile(key, shell)).catch_unwind().await;
    shell.metrics.ended(looked.as_ref().ok(), began.elapsed());
    match looked {
        Ok(looked) => looked,
        Err(panic) => shell.panicked(key, &message(panic.as_ref())).await,
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}
