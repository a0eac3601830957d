//! The neighbour: one Rollout without Pods, whose spec is changed again and again; timed is how long until the operator says that
//! it has seen the change.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use baton::api::Rollout;
use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time};

use crate::bench::subject::{APP, NAMESPACE, Subject};

/// Between two changes.
const PAUSE: Duration = Duration::from_millis(100);
/// For one change.
const PATIENCE: Duration = Duration::from_mins(2);

pub struct Neighbour {
    api: Api<Rollout>,
    observed: mpsc::UnboundedReceiver<(i64, Instant)>,
    changed: usize,
}

impl Neighbour {
    pub async fn create(client: &Client, tasks: &mut JoinSet<()>) -> Result<Self> {
        let api: Api<Rollout> = Api::namespaced(client.clone(), NAMESPACE);
        let rollout = serde_json::from_value(Subject::Baton.manifest(0, 0))?;
        api.create(&PostParams::default(), &rollout).await?;
        let (sender, observed) = mpsc::unbounded_channel();
        let watched = api.clone();
        tasks.spawn(async move {
            while !sender.is_closed() {
                let Ok(events) = watched.watch(&WatchParams::default(), "0").await else { continue };
                pin_mut!(events);
                while let Some(Ok(event)) = events.next().await {
                    let (WatchEvent::Added(it) | WatchEvent::Modified(it)) = event else { continue };
                    let generation = it.status.and_then(|status| status.observed_generation).unwrap_or_default();
                    if sender.send((generation, Instant::now())).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { api, observed, changed: 0 })
    }

    /// Changes it so often; how long each took until it was seen, in milliseconds, sorted.
    pub async fn change(&mut self, times: usize) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        for _ in 0..times {
            self.changed += 1;
            // Not the template: a revision each time would be measured as well.
            let patch = Patch::Merge(json!({"spec": {"progressDeadlineSeconds": 600 + self.changed}}));
            let began = Instant::now();
            let generation = self.api.patch(APP, &PatchParams::default(), &patch).await?.metadata.generation;
            let seen = time::timeout(PATIENCE, self.until(generation.unwrap_or_default()));
            let seen = seen.await.context("the operator has not looked at the neighbour's change")??;
            took.push(seen.saturating_duration_since(began).as_secs_f64() * 1_000.0);
            time::sleep(PAUSE).await;
        }
        took.sort_by(f64::total_cmp);
        Ok(took)
    }

    async fn until(&mut self, wanted: i64) -> Result<Instant> {
        loop {
            let (observed, at) = self.observed.recv().await.context("the watch has ended")?;
            if observed >= wanted {
                return Ok(at);
            }
        }
    }
}
