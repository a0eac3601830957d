//! What the operator may do, and what it offers to the users of a namespace. No Secrets, no wildcards, nothing
//! cluster-scoped but reading Nodes; a test compares this with what is used.
use serde_json::{Value, json};

/// Name of the Lease that says which operator leads.
pub const LEASE: &str = "baton-operator";

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// In each namespace whose Rollouts and ListenerSets it serves.
pub fn where_rollouts_are() -> Value {
    json!([
        // `get` past the cache, before a Pod is deleted.
        rule("baton.dev", &["listenersets", "rollouts"], &["get", "list", "watch"]),
        rule("baton.dev", &["listenersets/status", "rollouts/status"], &["update"]),
        // To set ownerReferences with blockOwnerDeletion, where the cluster enforces permission for that.
        rule("baton.dev", &["rollouts/finalizers"], &["update"]),
        // `get` tells whose a name is that was taken before; `patch` changes Pods in place.
        rule("", &["pods"], &["get", "list", "watch", "create", "delete", "patch"]),
        // Whether a Pod is in service, its readiness gate; and its resources, in place.
        rule("", &["pods/resize", "pods/status"], &["patch"]),
        rule("apps", &["controllerrevisions"], &["get", "list", "watch", "create", "patch", "delete"]),
        // Sessions and ownerships. RBAC knows no prefixes of names: that others' Leases are left alone the policy sees to.
        rule("coordination.k8s.io", &["leases"], &["get", "list", "watch", "create", "patch", "delete"]),
        // Only those that a Rollout names are read, and one key of the selector is written. `get` past the cache, before a Pod is
        // deleted.
        rule("", &["services"], &["get", "list", "watch", "patch"]),
        // Only in namespaces where a Rollout drains its instances: whether clients are still sent to one.
        rule("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
        // Only those that a ListenerSet names are read.
        rule("", &["configmaps"], &["list", "watch"]),
        // Jobs of hooks: never changed, so that what they say of their end is Kubernetes' own word. `get` tells whose a name is.
        rule("batch", &["jobs"], &["get", "list", "watch", "create", "delete"]),
        rule("", &["events"], &["create"]),
    ])
}

/// In the whole cluster, where it may: Pods of a node that is gone are told apart from slow ones.
pub fn cluster_wide() -> Value {
    json!([rule("", &["nodes"], &["list", "watch"])])
}

/// In its own namespace: the lock of the leader, and the Pod of its predecessor, whose end frees the lock at once.
/// A create cannot be restricted to a name; everything else is, so that other controllers' locks are out of reach.
pub fn own_namespace() -> Value {
    let mut lock = rule("coordination.k8s.io", &["leases"], &["get", "list", "watch", "update"]);
    lock["resourceNames"] = json!([LEASE]);
    json!([lock, rule("coordination.k8s.io", &["leases"], &["create"]), rule("", &["pods"], &["list", "watch"]),])
}

/// For users who may view a namespace.
pub fn view() -> Value {
    json!([viewing()])
}

fn viewing() -> Value {
    let resources = ["listenersets", "listenersets/status", "rollouts", "rollouts/status", "rollouts/scale"];
    rule("baton.dev", &resources, &["get", "list", "watch"])
}

/// For users who roll out, approve, go back and scale, and neither create nor delete. Enough by itself.
pub fn operate() -> Value {
    json!([
        viewing(),
        rule("baton.dev", &["rollouts", "rollouts/scale"], &["update", "patch"]),
        // Revisions to go back to, Pods that fail, who holds listeners, where clients are.
        rule("apps", &["controllerrevisions"], &["get", "list", "watch"]),
        rule("", &["pods", "services"], &["get", "list", "watch"]),
        rule("coordination.k8s.io", &["leases"], &["get", "list", "watch"]),
        // Why a version failed: `kubectl logs`, `kubectl describe`.
        rule("", &["pods/log", "events"], &["get", "list"]),
        // The same of a hook: `kubectl logs job/NAME`.
        rule("batch", &["jobs"], &["get", "list", "watch"]),
    ])
}

/// For users who may edit a namespace; with [`view`]. The status is the operator's own.
pub fn edit() -> Value {
    json!([
        rule("baton.dev", &["listenersets", "rollouts"], &["create", "update", "patch", "delete", "deletecollection"]),
        rule("baton.dev", &["rollouts/scale"], &["update", "patch"]),
    ])
}
