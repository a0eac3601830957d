//! Other resources for the containers of a Pod that stays: what they are given, and how far its node is with that.
//!
//! Only what the Pod's own note says is due is compared with it. What else was changed of its resources (by an
//! autoscaler, a person) is left alone, and so is this once it has been seen to be there.
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

use super::{
    in_place::{Amounts, InPlace},
    views::{PodSpecView, PodStatusView, since},
};
use crate::api::quantity::billionths;

/// How far a Pod is with the resources that it is noted to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Its specification does not say them yet.
    Due,
    /// It does, and its node has yet to follow.
    Awaited {
        /// The kubelet's word: Deferred, Infeasible, Error; empty while it says none.
        reason: String,
        /// Its sentence.
        message: String,
        /// Since when it says so.
        since: Option<Timestamp>,
    },
    /// Its containers run with them, as a status of this very specification says.
    Done,
}

impl Resize {
    /// How far a Pod of this generation is; None where nothing is due.
    pub(super) fn of(due: &InPlace, generation: i64, spec: &PodSpecView, status: &PodStatusView) -> Option<Self> {
        let all = || due.resources.iter();
        all().next()?;
        let is_given = |(name, amounts): (&String, &Amounts)| {
            let container = spec.containers.iter().find(|container| container.name == *name);
            container.is_some_and(|container| says(&container.resources, amounts))
        };
        if !all().all(is_given) {
            return Some(Self::Due);
        }
        let is_of_this = |seen: Option<i64>| seen.is_none_or(|seen| seen >= generation);
        let is_observed = is_of_this(status.observed_generation);
        let condition = |type_: &str| {
            let mut told = status.conditions.iter().filter(|_| is_observed);
            told.find(|told| told.type_ == type_ && told.status == "True" && is_of_this(told.observed_generation))
        };
        if let Some(told) = condition("PodResizePending").or_else(|| condition("PodResizeInProgress")) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            // One that names this specification is about no request of before, by whosever clock.
            let earliest = told.observed_generation.map(|_| due.at);
            let since = since(told).max(earliest);
            return Some(Self::Awaited { reason: text(&told.reason), message: text(&told.message), since });
        }
        let has = |(name, amounts): (&String, &Amounts)| {
            let told = status.container_statuses.iter().find(|told| told.name == *name);
            let running = told.filter(|told| told.state.as_ref().is_some_and(|state| state.running.is_some()));
            running.and_then(|told| told.resources.as_ref()).is_some_and(|resources| says(resources, amounts))
        };
        let is_done = is_observed && all().all(has);
        let awaited = Self::Awaited { reason: String::new(), message: String::new(), since: None };
        Some(if is_done { Self::Done } else { awaited })
    }
}

fn says(found: &ResourceRequirements, amounts: &Amounts) -> bool {
    amounts.iter().all(|(list, wanted)| {
        let found = if list == "limits" { &found.limits } else { &found.requests };
        let found =
            |name: &String| found.as_ref().and_then(|found| found.get(name)).map(|Quantity(text)| text.as_str());
        wanted.iter().all(|(name, wanted)| is_same(found(name), wanted.as_deref()))
    })
}

/// The same quantity, in any notation: `1` is `1000m`.
pub fn is_same(a: Option<&str>, b: Option<&str>) -> bool {
    a == b || a.zip(b).is_some_and(|(a, b)| billionths(a).is_some() && billionths(a) == billionths(b))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::{
        Pod,
        wire::{PodView, pod},
    };

    #[test]
    fn a_quantity_is_the_same_in_other_words() {
        let same = [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("1E", "1000P"), ("1.0", "1")];
        for (a, b) in same {
            assert!(is_same(Some(a), Some(b)), "{a} {b}");
        }
        for (a, b) in
            [("1", "1m"), ("1G", "1Gi"), ("many", "more"), ("", "0"), ("99999999999999999999999999999999Ei", "1")]
        {
            assert!(!is_same(Some(a), Some(b)), "{a} {b}");
        }
        assert!(is_same(None, None) && !is_same(None, Some("0")));
    }

    /// A Pod that is noted to get 2 CPU, with these words of its specification and status.
    fn resized(cpu: &str, status: &Value) -> Pod {
        let note = json!({"at": "2026-01-01T10:00:00Z", "resources": {"web": {"requests": {"cpu": "2"}}}});
        let view: PodView = serde_json::from_value(json!({
            "metadata": {
                "generation": 2,
                "labels": {"baton.dev/instance": "0", "baton.dev/revision": "web-b"},
                "annotations": {"baton.dev/in-place": note.to_string()},
            },
            "spec": {"containers": [{"name": "web", "image": "web:1", "resources": {"requests": {"cpu": cpu}}}]},
            "status": status,
        }))
        .unwrap();
        pod(view).unwrap()
    }

    fn told(generation: i64, cpu: &str, condition: Option<(&str, &str)>) -> Value {
        let condition = condition.map(|(type_, reason)| {
            json!({
                "type": type_, "status": "True", "reason": reason, "message": "no room",
                "lastTransitionTime": "2026-01-01T10:05:00Z", "observedGeneration": generation,
            })
        });
        json!({
            "observedGeneration": generation,
            "conditions": condition.into_iter().collect::<Vec<_>>(),
            "containerStatuses": [{
                "name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}}, "resources": {"requests": {"cpu": cpu}},
            }],
        })
    }

    #[test]
    fn resources_are_there_once_a_status_of_this_specification_says_so() {
        let stage = |cpu: &str, status: &Value| resized(cpu, status).resize.unwrap();
        assert_eq!(stage("1", &told(1, "1", None)), Resize::Due);
        assert_eq!(stage("2000m", &told(2, "2", None)), Resize::Done);
        let awaited = |status: Value| match stage("2", &status) {
            Resize::Awaited { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(awaited(told(1, "2", None)), "", "of an earlier specification");
        assert_eq!(awaited(told(2, "1", None)), "");
        assert_eq!(awaited(told(2, "2", Some(("PodResizeInProgress", "")))), "");
        assert_eq!(awaited(told(2, "1", Some(("PodResizePending", "Deferred")))), "Deferred");
        assert_eq!(awaited(told(1, "1", Some(("PodResizePending", "Infeasible")))), "", "of an earlier specification");
        let mut ended = told(2, "2", None);
        ended["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(awaited(ended), "");
        let mut silent = told(2, "2", None);
        silent["containerStatuses"][0]["resources"] = Value::Null;
        assert_eq!(awaited(silent), "", "a kubelet that tells nothing of resources");
    }

    #[test]
    fn a_node_that_does_not_follow_counts_as_unable() {
        let fails_at = |status: Value| resized("2", &status).resize_fails_at().map(|at| at.to_string());
        let pending = |reason: &str| told(2, "1", Some(("PodResizePending", reason)));
        assert_eq!(fails_at(pending("Infeasible")).as_deref(), Some("2026-01-01T10:00:00Z"), "at once");
        let mut earlier = pending("Infeasible");
        earlier["conditions"][0]["observedGeneration"] = Value::Null;
        earlier["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T09:59:00Z");
        assert_eq!(fails_at(earlier).as_deref(), Some("2026-01-01T10:01:00Z"), "it may be about another request");
        let mut behind = pending("Infeasible");
        behind["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T09:59:00Z");
        assert_eq!(fails_at(behind).as_deref(), Some("2026-01-01T10:00:00Z"), "it names this very specification");
        assert_eq!(fails_at(pending("Deferred")).as_deref(), Some("2026-01-01T10:06:00Z"));
        assert_eq!(fails_at(told(2, "1", None)).as_deref(), Some("2026-01-01T10:01:00Z"), "by the time of the note");
        assert_eq!(fails_at(told(1, "1", None)), None, "its kubelet has not seen it");
        assert_eq!(fails_at(told(2, "2", None)), None);
    }

    /// A change before the one before is done: what is due from both is.
    #[test]
    fn what_is_still_due_stays_due() {
        let pod = resized("1", &told(1, "1", None));
        let amounts = |name: &str, quantity: &str| -> BTreeMap<String, Amounts> {
            serde_json::from_value(json!({"web": {"requests": {name: quantity}}})).unwrap()
        };
        let resources = |pod: &Pod, next: &BTreeMap<String, Amounts>| {
            let note = pod.remember(&[].into(), Timestamp::UNIX_EPOCH).resized(pod, next, &[].into());
            json!(note.resources)
        };
        let both = json!({"web": {"requests": {"cpu": "2", "memory": "1Gi"}}});
        assert_eq!(resources(&pod, &amounts("memory", "1Gi")), both);
        assert_eq!(
            resources(&pod, &amounts("cpu", "3")),
            json!({"web": {"requests": {"cpu": "3"}}}),
            "the later counts"
        );
        assert_eq!(resources(&pod, &BTreeMap::new()), json!({"web": {"requests": {"cpu": "2"}}}));
    }
}
