//! What is known of each object, as metrics, read at the moment of a scrape.
use std::{collections::BTreeMap, sync::Weak};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::labels::{RolloutLabels, SetLabels};
use crate::{api::Rollout, observe::Observer};

/// `baton_rollout_*` gauges.
#[derive(Debug)]
pub struct RolloutCollector {
    observer: Weak<Observer>,
}

/// One series: labels beside namespace and rollout, value.
type Series = Vec<(Vec<(&'static str, String)>, i64)>;

/// Name, help and what it shows of one Rollout.
type Definition = (&'static str, &'static str, fn(&Rollout) -> Series);

const DEFINITIONS: &[Definition] = &[
    ("baton_rollout_info", "Always 1; versions and revisions are labels", info),
    ("baton_rollout_replicas", "Instances by state", replicas),
    ("baton_rollout_batch_current", "Batch in work, from 1; 0: no run is on", |rollout| batch(rollout, |b| b.index)),
    ("baton_rollout_batches", "Batches of the present run", |rollout| batch(rollout, |b| b.count)),
    ("baton_rollout_paused", "1: spec.paused", |rollout| vec![(Vec::new(), i64::from(rollout.spec.paused))]),
    ("baton_rollout_condition", "1: the condition is True", conditions),
];

impl RolloutCollector {
    /// Of what this observer knows.
    pub fn new(observer: Weak<Observer>) -> Self {
        Self { observer }
    }
}

impl Collector for RolloutCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(observer) = self.observer.upgrade() else { return Ok(()) };
        for (name, help, show) in DEFINITIONS {
            let series = observer.look(|index| {
                let all = index.rollouts().map(|(key, rollout)| (RolloutLabels::from(key), show(rollout)));
                all.collect::<Vec<_>>()
            });
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, more, value) in
                series.iter().flat_map(|(labels, series)| series.iter().map(move |(more, value)| (labels, more, value)))
            {
                let labels = Labels { of: labels, more };
                ConstGauge::new(*value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// `baton_listeners`.
#[derive(Debug)]
pub struct SetCollector {
    observer: Weak<Observer>,
}

impl SetCollector {
    /// Of what this observer knows.
    pub fn new(observer: Weak<Observer>) -> Self {
        Self { observer }
    }
}

impl Collector for SetCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(observer) = self.observer.upgrade() else { return Ok(()) };
        let series = observer.look(|index| {
            let all = index.sets().map(|(key, set)| (SetLabels::from(key), set.status.clone().unwrap_or_default()));
            all.collect::<Vec<_>>()
        });
        let help = "Listeners of a ListenerSet by state, as its status says";
        let mut metric = encoder.encode_descriptor("baton_listeners", help, None, MetricType::Gauge)?;
        for (labels, status) in &series {
            let counts = [
                ("running", status.running),
                ("stopped", status.stopped),
                ("moving", status.moving),
                ("starting", status.starting),
                ("unassigned", status.unassigned),
                ("failed", status.failed),
            ];
            for (state, count) in counts {
                let labels = Labels { of: labels, more: &[("state", state.to_owned())] };
                ConstGauge::new(i64::from(count)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// `baton_undecodable_objects`.
#[derive(Debug)]
pub struct UnreadableCollector {
    observer: Weak<Observer>,
}

impl UnreadableCollector {
    /// Of what this observer knows.
    pub fn new(observer: Weak<Observer>) -> Self {
        Self { observer }
    }
}

/// Every kind that is watched: a series that is there at 0 can be alerted on.
const WATCHED_KINDS: [&str; 6] = ["ControllerRevision", "Lease", "ListenerSet", "Node", "Pod", "Rollout"];

impl Collector for UnreadableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(observer) = self.observer.upgrade() else { return Ok(()) };
        let mut counts: BTreeMap<&str, i64> = WATCHED_KINDS.map(|kind| (kind, 0)).into();
        observer.look(|index| index.unreadables().for_each(|(kind, ..)| *counts.entry(kind).or_default() += 1));
        let help = "Objects that are there and cannot be read: each is left alone";
        let mut metric = encoder.encode_descriptor("baton_undecodable_objects", help, None, MetricType::Gauge)?;
        for (kind, count) in counts {
            ConstGauge::new(count).encode(metric.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Labels<'a, L> {
    of: &'a L,
    more: &'a [(&'static str, String)],
}

impl<L: EncodeLabelSet> EncodeLabelSet for Labels<'_, L> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> std::fmt::Result {
        self.of.encode(encoder)?;
        self.more.encode(encoder)
    }
}

fn info(rollout: &Rollout) -> Series {
    let Some(status) = &rollout.status else { return Vec::new() };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let version = status.display.as_ref().map(|display| display.version.clone()).unwrap_or_default();
    let labels = vec![
        ("version", version),
        ("update_revision", text(&status.update_revision)),
        ("current_revision", text(&status.current_revision)),
    ];
    vec![(labels, 1)]
}

fn replicas(rollout: &Rollout) -> Series {
    let status = rollout.status.clone().unwrap_or_default();
    let counts = [
        ("wanted", rollout.spec.replicas),
        ("present", status.replicas),
        ("ready", status.ready_replicas),
        ("available", status.available_replicas),
        ("updated", status.updated_replicas),
        ("terminating", status.terminating_replicas),
    ];
    counts.into_iter().map(|(state, count)| (vec![("state", state.to_owned())], i64::from(count))).collect()
}

fn batch(rollout: &Rollout, show: fn(&crate::api::status::BatchStatus) -> i32) -> Series {
    let batch = rollout.status.as_ref().and_then(|status| status.batch.as_ref());
    vec![(Vec::new(), batch.map_or(0, |batch| i64::from(show(batch))))]
}

fn conditions(rollout: &Rollout) -> Series {
    let conditions = rollout.status.iter().flat_map(|status| &status.conditions);
    let is_true = |condition: &crate::api::Condition| condition.status == crate::api::ConditionStatus::True;
    conditions.map(|c| (vec![("type", c.type_.as_str().to_owned())], i64::from(is_true(c)))).collect()
}
