//! Which Pods have held listeners of which ListenerSets. An agent may write what it likes into its reports: what it tells of
//! an earlier set holds back new listeners only where that may be true.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::snapshot::index::event::{ObjectKey, Scope};

/// A listener may run for so long after its Lease is gone: the longest `stopTimeoutSeconds`, and twice the D of profile `Calm`
/// for its agent to notice.
const STOPS_WITHIN: Duration = Duration::from_mins(60 + 3);

/// What was seen of ownerships, as long as it may matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// When the Leases of each scope were first listed: what happened before was not seen.
    listed_at: BTreeMap<Scope, Duration>,
    /// By Pod, name and uid of the sets of which it was seen to hold listeners.
    held: BTreeMap<ObjectKey, BTreeSet<(String, String)>>,
    /// By set and uid, when an ownership changed or went last.
    changed_at: BTreeMap<(ObjectKey, String), Duration>,
    /// When to forget what is long ago.
    tidies_at: Duration,
}

impl Past {
    /// All Leases of this scope are known.
    pub(super) fn listed(&mut self, scope: &Scope, now: Duration) {
        self.listed_at.entry(scope.clone()).or_insert(now);
    }

    /// This Pod holds a listener of the set.
    pub(super) fn holds(&mut self, pod: &ObjectKey, set: &str, uid: &str) {
        self.held.entry(pod.clone()).or_default().insert((set.to_owned(), uid.to_owned()));
    }

    /// An ownership of the set has another holder, or is gone.
    pub(super) fn changed(&mut self, set: &ObjectKey, uid: &str, now: Duration) {
        self.changed_at.insert((set.clone(), uid.to_owned()), now);
        if now >= self.tidies_at {
            self.changed_at.retain(|_, at| at.saturating_add(STOPS_WITHIN) > now);
            self.tidies_at = now.saturating_add(STOPS_WITHIN);
        }
    }

    /// The Pod says that it runs nothing of this set.
    pub(super) fn let_go(&mut self, pod: &ObjectKey, is_over: impl Fn(&str, &str) -> bool) {
        if let Some(held) = self.held.get_mut(pod) {
            held.retain(|(set, uid)| !is_over(set, uid));
            if held.is_empty() {
                self.held.remove(pod);
            }
        }
    }

    /// The Pod is gone, with its session.
    pub(super) fn forget(&mut self, pod: &ObjectKey) {
        self.held.remove(pod);
    }

    /// Whether the Pod may still run listeners of the set with this uid.
    pub(super) fn may_run(&self, pod: &ObjectKey, set: &str, uid: &str, now: Duration) -> bool {
        let is_recent = |at: &Duration| at.saturating_add(STOPS_WITHIN) > now;
        let has_held = || self.held.get(pod).is_some_and(|held| held.contains(&(set.to_owned(), uid.to_owned())));
        let listed_at = [None, Some(pod.namespace.clone())].iter().find_map(|scope| self.listed_at.get(scope)).copied();
        let key = (ObjectKey { namespace: pod.namespace.clone(), name: set.to_owned() }, uid.to_owned());
        listed_at.is_none_or(|at| is_recent(&at)) || has_held() || self.changed_at.get(&key).is_some_and(is_recent)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::index::{Event, leases::Leases};

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "shop".into(), name: name.into() }
    }

    /// H10: once the operator has seen for long enough who holds what, only those are believed who held something.
    #[test]
    fn who_has_held_nothing_is_believed_for_a_while_only() {
        let mut past = Past::default();
        let second = Duration::from_secs;
        let hour = STOPS_WITHIN.as_secs();
        assert!(past.may_run(&key("a"), "bots", "u0", second(9_999)), "before the first list");
        past.listed(&None, second(10));
        past.listed(&None, second(5_000));
        assert!(past.may_run(&key("a"), "bots", "u0", second(9 + hour)));
        assert!(!past.may_run(&key("a"), "bots", "u0", second(10 + hour)));

        past.holds(&key("a"), "bots", "u0");
        past.changed(&key("bots"), "u0", second(hour));
        let late = second(3 * hour);
        assert!(past.may_run(&key("a"), "bots", "u0", late));
        assert!(!past.may_run(&key("a"), "bots", "u1", late) && !past.may_run(&key("a"), "other", "u0", late));
        assert!(past.may_run(&key("b"), "bots", "u0", second(2 * hour - 1)), "it may have been given to any Pod since");
        assert!(!past.may_run(&key("b"), "bots", "u0", second(2 * hour)));

        past.let_go(&key("a"), |set, uid| (set, uid) != ("bots", "u0"));
        assert!(past.may_run(&key("a"), "bots", "u0", late));
        past.let_go(&key("a"), |_, _| true);
        assert!(!past.may_run(&key("a"), "bots", "u0", late) && past.held.is_empty());
        past.changed(&key("bots"), "u9", late);
        assert_eq!(past.changed_at.len(), 1, "what is long ago is forgotten");
    }

    /// H10: a report of a Pod that has held nothing of the earlier set holds back nothing, hours after the operator's start.
    #[test]
    fn a_forged_report_of_an_earlier_set_holds_back_nothing() {
        let lease = |value: serde_json::Value| Event::Applied(serde_json::from_value(value).unwrap());
        let session = |pod: &str, version: u32| {
            lease(json!({
                "metadata": {
                    "name": format!("session.{pod}"), "namespace": "shop", "uid": "s", "resourceVersion": version.to_string(),
                    "labels": {"baton.dev/lease": "session"},
                    "annotations": {"report.baton.dev/bots": r#"{"set":"u0","count":1}"#},
                },
                "spec": {"holderIdentity": format!("{pod}/uid-{pod}/1-r"), "leaseTransitions": 1, "leaseDurationSeconds": 15},
            }))
        };
        let ownership = lease(json!({
            "metadata": {
                "name": "listener.bots.a", "namespace": "shop", "uid": "o", "resourceVersion": "3",
                "labels": {"baton.dev/lease": "listener"},
                "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "u0",
                    "controller": true}],
            },
            "spec": {"holderIdentity": "honest/uid-honest/1-r", "leaseTransitions": 1},
        }));
        let mut leases = Leases::default();
        leases.take(&None, Event::Listed { objects: Vec::new(), resource_version: "1".into() }, Duration::ZERO);
        leases.take(&None, session("honest", 2), Duration::ZERO);
        leases.take(&None, ownership.clone(), Duration::ZERO);
        leases.take(&None, session("forger", 4), Duration::ZERO);
        let Event::Applied(gone) = ownership else { unreachable!() };
        leases.take(&None, Event::Deleted(gone), Duration::ZERO);
        leases.take(&None, session("honest", 5), Duration::ZERO);
        let holds_back =
            |pod: &str, at: Duration| leases.session(&key(pod), "bots", "u1", at).unwrap().holds_of_earlier_set;
        let late = STOPS_WITHIN + Duration::from_secs(1);
        for (pod, at, expected) in [
            ("honest", Duration::ZERO, true),
            ("forger", Duration::ZERO, true),
            ("honest", late, true),
            ("forger", late, false),
        ] {
            assert_eq!(holds_back(pod, at), expected, "{pod} at {at:?}");
        }
    }
}
