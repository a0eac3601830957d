//! Metrics. Names are controller-runtime's where the meaning is the same, so that existing dashboards work. What is known of
//! a Rollout is read from the Index at each scrape, so its series vanish with it. No Pod names as labels.
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tower::{Layer, Service};

use super::{
    exposition::{RolloutCollector, SetCollector, UnreadableCollector},
    labels::{RolloutLabels, SetLabels},
    queue::Queue,
    shell::{Looked, Result as LookResult},
};
use crate::{
    api::{Rollout, RolloutStatus},
    observe::{Observer, watch},
    plan::{Applied, listener_set::death::Proof},
    snapshot::index::{Kind, ObjectKey},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TakeoverLabels {
    namespace: String,
    listener_set: String,
    reason: &'static str,
}

/// Label `controller` of controller-runtime's metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    change: &'static str,
    reason: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabels {
    name: String,
}

/// What is counted. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_panics: Family<ControllerLabels, Counter>,
    reconcile_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    queue_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    active_workers: Family<ControllerLabels, Gauge>,
    requests: Requests,
    leader: Family<LeaseLabels, Gauge>,
    changes: Family<ChangeLabels, Counter>,
    echoes_missed: Family<KindLabels, Counter>,
    watch_ends: Family<watch::EndLabels, Counter>,
    rollbacks: Family<RolloutLabels, Counter>,
    durations: Family<ResultLabels, Histogram, fn() -> Histogram>,
    moves: Family<SetLabels, Counter>,
    gaps: Family<SetLabels, Histogram, fn() -> Histogram>,
    takeovers: Family<TakeoverLabels, Counter>,
}

fn short_times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16)) // 1 ms … 33 s
}

fn long_times() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 18)) // 1 s … 36 h
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            reconcile_panics: Family::default(),
            reconcile_seconds: Family::new_with_constructor(short_times),
            queue_seconds: Family::new_with_constructor(short_times),
            active_workers: Family::default(),
            requests: Requests::default(),
            leader: Family::default(),
            changes: Family::default(),
            echoes_missed: Family::default(),
            watch_ends: Family::default(),
            rollbacks: Family::default(),
            durations: Family::new_with_constructor(long_times),
            moves: Family::default(),
            gaps: Family::new_with_constructor(short_times),
            takeovers: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Counters get their `_total` from the encoder.
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = &mut *registry;
        r.register("controller_runtime_reconcile", "Looks at objects, by how they ended", self.reconciles.clone());
        r.register("controller_runtime_reconcile_panics", "Looks that panicked", self.reconcile_panics.clone());
        r.register("controller_runtime_reconcile_time_seconds", "Time of a look", self.reconcile_seconds.clone());
        r.register("controller_runtime_active_workers", "Looks going on", self.active_workers.clone());
        r.register("workqueue_queue_duration_seconds", "Time in the queue", self.queue_seconds.clone());
        r.register("rest_client_requests", "Requests to the API server; code 0: no answer", self.requests.0.clone());
        r.register("leader_election_master_status", "1: this process holds the lock", self.leader.clone());
        r.register("baton_changes", "Changes made, by kind, reason and what became of them", self.changes.clone());
        r.register("baton_echoes_missed", "Own writes that did not come back in time", self.echoes_missed.clone());
        r.register("baton_watch_ends", "Watches that ended, by cause", self.watch_ends.clone());
        r.register("baton_rollout_rollbacks", "Runs that turned back", self.rollbacks.clone());
        r.register("baton_rollout_duration_seconds", "Length of runs, by result", self.durations.clone());
        r.register("baton_listener_moves", "Planned moves of listeners that have ended", self.moves.clone());
        r.register(
            "baton_listener_handoff_gap_seconds",
            "Time in which a listener ran nowhere, of one planned move",
            self.gaps.clone(),
        );
        r.register(
            "baton_listener_takeovers",
            "Listeners taken from a holder that was dead, by what proved it",
            self.takeovers.clone(),
        );
    }

    /// Also shows what is known of each object, and the queues, by controller.
    pub fn show(&self, observer: &Arc<Observer>, queues: &[(&'static str, &Arc<Queue>)]) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(RolloutCollector::new(Arc::downgrade(observer))));
        registry.register_collector(Box::new(SetCollector::new(Arc::downgrade(observer))));
        registry.register_collector(Box::new(UnreadableCollector::new(Arc::downgrade(observer))));
        let queues = queues.iter().map(|(controller, queue)| (*controller, Arc::downgrade(queue))).collect();
        registry.register_collector(Box::new(QueueCollector(queues)));
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        // Writing to a String does not fail; a collector that does leaves what came before it.
        let _ = text::encode(&mut out, &registry);
        out
    }

    /// Counts how watches end.
    pub fn watch_ends(&self) -> Family<watch::EndLabels, Counter> {
        self.watch_ends.clone()
    }

    /// A layer that counts a client's requests.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Whether this process holds the lock.
    pub fn leads(&self, lease: &str, leads: bool) {
        self.leader.get_or_create(&LeaseLabels { name: lease.to_owned() }).set(i64::from(leads));
    }

    /// A look begins after so long in the queue.
    pub fn began(&self, controller: &'static str, waited: Duration) {
        let labels = ControllerLabels { controller };
        self.active_workers.get_or_create(&labels).inc();
        self.queue_seconds.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// A look has ended. None: it panicked.
    pub fn ended(&self, controller: &'static str, looked: Option<&Looked>, took: Duration) {
        let labels = ControllerLabels { controller };
        self.active_workers.get_or_create(&labels).dec();
        self.reconcile_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if looked.is_none() {
            self.reconcile_panics.get_or_create(&labels).inc();
        }
        let result = match looked.map(|looked| looked.result) {
            Some(LookResult::Success | LookResult::Gone) => "success",
            Some(LookResult::Stale) => "requeue_after",
            Some(LookResult::Error) | None => "error",
        };
        self.reconciles.get_or_create(&ReconcileLabels { controller, result }).inc();
    }

    /// A change was tried.
    pub fn changed(&self, change: &'static str, reason: &'static str, result: &Applied) {
        let result = match result {
            Applied::Done { .. } | Applied::Checked(_) => "done",
            Applied::Stale => "stale",
            Applied::NameTaken => "name_taken",
            Applied::Refused { .. } => "refused",
            Applied::Unknown { .. } => "unknown",
            Applied::Fenced => "fenced",
        };
        self.changes.get_or_create(&ChangeLabels { change, reason, result }).inc();
    }

    /// An own write did not come back in time.
    pub fn echo_missed(&self, kind: Kind) {
        self.echoes_missed.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// A status was written: counts runs that turned back, and the length of those that ended.
    pub fn transition(&self, rollout: &Rollout, before: &RolloutStatus, after: &RolloutStatus) {
        for now in &after.history {
            let was = before.history.iter().find(|was| was.is_same(now));
            if was.is_none() && now.kind == "Rollback" {
                self.rollbacks.get_or_create(&RolloutLabels::from(&ObjectKey::of(rollout))).inc();
            }
            let has_ended = was.is_some_and(|was| was.completed_at.is_none());
            if let (true, Some(start), Some(end)) = (has_ended, &now.started_at, &now.completed_at) {
                let result = ResultLabels { result: now.result.clone() };
                self.durations.get_or_create(&result).observe(end.0.duration_since(start.0).as_secs_f64());
            }
        }
    }

    /// A planned move of a listener of this set has ended; it ran nowhere for so long.
    pub fn moved(&self, set: &ObjectKey, gap: Duration) {
        let labels = SetLabels::from(set);
        self.gaps.get_or_create(&labels).observe(gap.as_secs_f64());
        self.moves.get_or_create(&labels).inc();
    }

    /// A listener of this set was given to another boot because its holder was dead.
    pub fn taken_over(&self, set: &ObjectKey, reason: &'static str) {
        let SetLabels { namespace, listener_set } = set.into();
        self.takeovers.get_or_create(&TakeoverLabels { namespace, listener_set, reason }).inc();
    }

    /// The ListenerSet is gone, and so are its series.
    pub fn forget_set(&self, key: &ObjectKey) {
        let labels = SetLabels::from(key);
        self.moves.remove(&labels);
        self.gaps.remove(&labels);
        for proof in Proof::ALL {
            let SetLabels { namespace, listener_set } = labels.clone();
            self.takeovers.remove(&TakeoverLabels { namespace, listener_set, reason: proof.as_label() });
        }
    }

    /// The Rollout is gone, and so are its series.
    pub fn forget(&self, key: &ObjectKey) {
        self.rollbacks.remove(&RolloutLabels::from(key));
    }
}

/// The state of the queues at a scrape, by controller.
#[derive(Debug)]
struct QueueCollector(Vec<(&'static str, Weak<Queue>)>);

impl prometheus_client::collector::Collector for QueueCollector {
    fn encode(&self, mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>) -> std::fmt::Result {
        use prometheus_client::metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge};
        let queues: Vec<_> = self.0.iter().filter_map(|(name, queue)| Some((*name, queue.upgrade()?))).collect();
        let mut depth = encoder.encode_descriptor("workqueue_depth", "Objects due", None, MetricType::Gauge)?;
        for (name, queue) in &queues {
            let value = i64::try_from(queue.depth()).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(depth.encode_family(&[("name", *name)])?)?;
        }
        let mut adds =
            encoder.encode_descriptor("workqueue_adds", "Objects that became due", None, MetricType::Counter)?;
        for (name, queue) in &queues {
            ConstCounter::new(queue.added()).encode(adds.encode_family(&[("name", *name)])?)?;
        }
        Ok(())
    }
}

/// Counts requests to the API server by method and status code.
#[derive(Clone, Debug, Default)]
pub struct Requests(Family<RequestLabels, Counter>);

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, requests: self.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    requests: Requests,
}

impl<S, B, T> Service<hyper::Request<B>> for Counted<S>
where
    S: Service<hyper::Request<B>, Response = hyper::Response<T>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<B>) -> Self::Future {
        let method = request.method().to_string();
        let requests = self.requests.clone();
        let answer = self.inner.call(request);
        let mut count = CountWhenDropped { requests, labels: RequestLabels { method, code: 0 } };
        Box::pin(async move {
            let answer = answer.await;
            count.answered(answer.as_ref().map_or(0, |answer| answer.status().as_u16()));
            answer
        })
    }
}

/// Counts a request also when the caller gives up on it.
struct CountWhenDropped {
    requests: Requests,
    labels: RequestLabels,
}

impl CountWhenDropped {
    fn answered(&mut self, code: u16) {
        self.labels.code = code;
    }
}

impl Drop for CountWhenDropped {
    fn drop(&mut self) {
        self.requests.0.get_or_create(&self.labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_counted_also_without_an_answer() {
        use crate::scripted::{self, Answer};
        let metrics = Metrics::default();
        for answers in [true, false] {
            let inner =
                scripted::service(move |_| if answers { Answer::ok(serde_json::json!({})) } else { Answer::Never });
            let client = kube::Client::new(metrics.requests().layer(inner), "default");
            let version = client.apiserver_version();
            drop(tokio::time::timeout(Duration::from_secs(1), version).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let text = metrics.text();
        assert!(text.contains(r#"rest_client_requests_total{method="GET",code="200"} 1"#), "{text}");
        assert!(text.contains(r#"rest_client_requests_total{method="GET",code="0"} 1"#), "{text}");
    }

    #[test]
    fn series_vanish_with_their_object() {
        let metrics = Metrics::default();
        let key = ObjectKey { namespace: "shop".into(), name: "web".into() };
        metrics.rollbacks.get_or_create(&RolloutLabels::from(&key)).inc();
        assert!(metrics.text().contains(r#"baton_rollout_rollbacks_total{namespace="shop",rollout="web"} 1"#));
        metrics.forget(&key);
        assert!(!metrics.text().contains("shop"));
    }
}
