//! Hands due objects to reconcile: several at a time, never one twice at once, each in a task of its own, so that a panic
//! in one does not touch the others.
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    queue::Queue,
    shell::{Looked, Managed, Shell},
};
use crate::snapshot::index::ObjectKey;

/// Pause of an object after a look whose panic could not even be told.
const AFTER_UNTOLD_PANIC: Duration = Duration::from_mins(1);

/// Runs until `stop`, then until the looks that are going on have ended. Dropping it cuts them off.
pub async fn dispatch<K: Managed>(shell: Arc<Shell>, queue: Arc<Queue>, concurrency: usize, stop: CancellationToken) {
    let mut looks: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = looks.join_next() => {}
            () = stop.cancelled() => break,
            (key, waited) = queue.next(), if looks.len() < concurrency => {
                shell.metrics.began(K::CONTROLLER, waited);
                let again_at = Some(Instant::now() + AFTER_UNTOLD_PANIC);
                let running = Running { queue: queue.clone(), key, again_at, rest: Duration::ZERO };
                let shell = shell.clone();
                let looking = async move {
                    let looked = look::<K>(&running.key, &shell).await;
                    running.ended(looked);
                };
                looks.spawn(looking.in_current_span());
            }
        }
    }
    while looks.join_next().await.is_some() {}
}

/// A look that is going on. The queue hears of its end however it ends: also when telling of a panic panics.
struct Running {
    queue: Arc<Queue>,
    key: ObjectKey,
    again_at: Option<Instant>,
    rest: Duration,
}

impl Running {
    fn ended(mut self, looked: Looked) {
        self.again_at = looked.again_at;
        self.rest = looked.rest;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.again_at, self.rest);
    }
}

#[tracing::instrument(name = "reconcile", skip_all, fields(controller = K::CONTROLLER, object = %key, id = shell.reconcile_id()))]
async fn look<K: Managed>(key: &ObjectKey, shell: &Shell) -> Looked {
    let began = Instant::now();
    // What a panic may leave half-done is the object's memory, and that is written to by single assignments.
    let looked = AssertUnwindSafe(K::reconcile(key, shell)).catch_unwind().await;
    shell.metrics.ended(K::CONTROLLER, looked.as_ref().ok(), began.elapsed());
    match looked {
        Ok(looked) => looked,
        Err(panic) => shell.panicked::<K>(key, &message(panic.as_ref())).await,
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::json;

    use super::*;
    use crate::{
        api::Rollout,
        apply::{Calls, Fence, call::CALL_TIMEOUT},
        observe::{Observer, watch},
        operator::{clock::Clock, metrics::Metrics, shell::Memories},
        scripted::{self, Answer, Call},
    };

    /// An API server with one Rollout and no news.
    fn answer(call: &Call) -> Answer {
        if call.is_watch() {
            return Answer::Never;
        }
        let web = json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}},
        });
        let items: Vec<_> = call.path.ends_with("/rollouts").then_some(web).into_iter().collect();
        Answer::ok(json!({"metadata": {"resourceVersion": "1"}, "items": items}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_while_telling_of_a_panic_does_not_lose_the_object() {
        let client = scripted::client(|call| answer(&call));
        let (mut rng, mut watches) = (fastrand::Rng::with_seed(1), JoinSet::new());
        let settings = watch::Settings::default();
        let trigger: crate::observe::Trigger = Arc::new(|_| {});
        let observer = Observer::start(&client, &[Some("shop".into())], &settings, &mut rng, &trigger, &mut watches);
        observer.refresh().await;
        let fence = Fence::closed();
        fence.extend(fence.now() + Duration::from_hours(1));
        // The planner is told the time, and so is the Event about its panic: both panic.
        let asked = Arc::new(AtomicU32::new(0));
        let asks = asked.clone();
        let clock = Clock::new(move || panic!("a bug, met {} times before", asks.fetch_add(1, Ordering::Relaxed)));
        let shell = Arc::new(Shell {
            observer: Arc::new(observer),
            calls: Calls::new(client, fence, CALL_TIMEOUT),
            clock,
            rng: rng.into(),
            metrics: Metrics::default(),
            identity: "a/1/x".into(),
            notifier: crate::operator::notify::channel().0,
            rollouts: Memories::default(),
            sets: Memories::default(),
        });
        let queue = Arc::new(Queue::new(Duration::from_millis(20), 4));
        queue.add([ObjectKey { namespace: "shop".into(), name: "web".into() }]);
        let stop = CancellationToken::new();
        let looking = tokio::spawn(dispatch::<Rollout>(shell, queue, 4, stop.clone()));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 2, "one look and one Event, then a pause");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4, "looked at again");
        stop.cancel();
        looking.await.unwrap();
    }
}
