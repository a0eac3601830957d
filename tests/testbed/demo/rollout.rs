//! What the Rollout says of itself, followed by watch.
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use baton::api::{ConditionStatus, ConditionType, Rollout};
use futures::StreamExt;
use kube::{
    Api,
    runtime::watcher::{self, Event},
};
use tokio::{sync::watch, task::JoinSet, time};

/// Follows one Rollout.
#[derive(Clone)]
pub struct Follower {
    latest: watch::Receiver<Option<Arc<Rollout>>>,
    batches: Arc<Mutex<Vec<(i32, i32)>>>,
}

impl Follower {
    /// Begins to watch, as one of `tasks`.
    pub fn start(api: Api<Rollout>, name: &str, tasks: &mut JoinSet<()>) -> Self {
        let (publish, latest) = watch::channel(None);
        let batches = Arc::default();
        let follower = Self { latest, batches };
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        tasks.spawn(follower.clone().follow(api, config, publish));
        follower
    }

    async fn follow(self, api: Api<Rollout>, config: watcher::Config, publish: watch::Sender<Option<Arc<Rollout>>>) {
        loop {
            let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(rollout) | Event::InitApply(rollout)) => {
                        self.note_batch(&rollout);
                        publish.send_replace(Some(Arc::new(rollout)));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        eprintln!("demo: watch on the Rollout: {error}");
                        break;
                    }
                }
            }
            time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn note_batch(&self, rollout: &Rollout) {
        let Some(batch) = rollout.status.as_ref().and_then(|status| status.batch.as_ref()) else { return };
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.last() != Some(&(batch.index, batch.count)) {
            batches.push((batch.index, batch.count));
        }
    }

    /// Batches seen since the last call, as (index, count), each once.
    pub fn take_batches(&self) -> Vec<(i32, i32)> {
        std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until `find` finds something in a Rollout of at least this generation, whose status is about it.
    pub async fn until<T>(
        &self,
        generation: i64,
        seconds: u64,
        what: &str,
        find: impl Fn(&Rollout) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut latest = self.latest.clone();
        let search = async {
            loop {
                let rollout = latest.borrow_and_update().clone();
                if let Some(rollout) = rollout.filter(|it| is_about(it, generation))
                    && let Some(found) = find(&rollout)?
                {
                    return Ok(found);
                }
                latest.changed().await?;
            }
        };
        match time::timeout(Duration::from_secs(seconds), search).await {
            Ok(found) => found,
            Err(_) => bail!("not within {seconds} s: {what}; {}", self.words()),
        }
    }

    /// Waits until everything that this generation asks for is there.
    pub async fn until_complete(&self, generation: i64, seconds: u64) -> Result<()> {
        self.until(generation, seconds, "the Rollout is complete", |rollout| {
            let (ready, reason) = readiness(rollout);
            if has(rollout, ConditionType::Stalled) {
                bail!("the Rollout is stalled: {reason}; {}", self.words());
            }
            Ok((ready && reason == "Complete").then_some(()))
        })
        .await
    }

    /// Where it stands, for error messages.
    fn words(&self) -> String {
        let Some(rollout) = self.latest.borrow().clone() else { return "the Rollout was never seen".into() };
        let (ready, reason) = readiness(&rollout);
        let status = rollout.status.clone().unwrap_or_default();
        let versions: Vec<_> = status
            .versions
            .iter()
            .map(|it| format!("{} on {} (ready {})", it.version, it.instances, it.ready))
            .collect();
        format!(
            "Rollout: generation {:?}, observed {:?}, Ready={ready} {reason}, versions [{}], waiting for {:?}",
            rollout.metadata.generation,
            status.observed_generation,
            versions.join("; "),
            status.waiting_for,
        )
    }
}

fn is_about(rollout: &Rollout, generation: i64) -> bool {
    let observed = rollout.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    rollout.metadata.generation.unwrap_or(0) >= generation && observed >= generation
}

/// Truth and reason of the condition Ready.
pub fn readiness(rollout: &Rollout) -> (bool, String) {
    let conditions = rollout.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == ConditionType::Ready)
        .map(|condition| (condition.status == ConditionStatus::True, condition.reason.clone()))
        .next()
        .unwrap_or_default()
}

/// Whether a condition is True.
pub fn has(rollout: &Rollout, type_: ConditionType) -> bool {
    let conditions = rollout.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == ConditionStatus::True)
}
