//! The kinds that are served, and in which of the API server's habits they differ: one row each. Whatever else is needed
//! is added as a row.
use serde_json::Value;

use super::{defaults, validate};

/// One resource. Rows differ only in data, so that the rest of the server knows no kind by name.
#[allow(clippy::struct_excessive_bools, reason = "a row of a table of habits")]
#[allow(clippy::struct_field_names, reason = "an object calls it kind")]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// As in a path: `pods`.
    pub resource: &'static str,
    /// As in an object: `Pod`.
    pub kind: &'static str,
    pub is_namespaced: bool,
    pub status: StatusRule,
    /// True where `/scale` is served, over spec.replicas and status.replicas.
    pub has_scale: bool,
    /// True where metadata.generation counts changes of anything but metadata and status.
    pub has_generation: bool,
    /// True where a DELETE waits for `deletionGracePeriodSeconds`.
    pub is_graceful: bool,
    /// True where a PUT of what does not exist creates it.
    pub creates_on_update: bool,
    /// True where a PUT without resourceVersion is taken.
    pub updates_unconditionally: bool,
    /// True where the answer to a DELETE that is done at once is the object, not a Status.
    pub returns_deleted: bool,
    /// True for a resource of a CustomResourceDefinition.
    pub is_custom: bool,
    /// Fills in what the API server does before anything is checked.
    pub default: fn(&mut Value),
    /// What is wrong with an object, given the one it replaces.
    pub validate: fn(&Value, Option<&Value>) -> Vec<validate::Cause>,
}

/// How status is kept apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// There is none, or it is like any other field.
    None,
    /// `/status` alone writes it; what a POST says of it is dropped.
    Apart,
    /// `/status` alone changes it; a POST may bring one along (Nodes).
    ApartOnceCreated,
}

impl Kind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `rollouts.baton.dev`: how refusals name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// Where its objects are in the store.
    pub fn index(&self) -> usize {
        ALL.iter().position(|kind| std::ptr::eq(*kind, self)).unwrap_or_default()
    }

    /// By group, version and resource, as in a path.
    pub fn find(group: &str, version: &str, resource: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|kind| (kind.group, kind.version, kind.resource) == (group, version, resource))
    }

    /// By apiVersion and kind, as in an owner reference.
    pub fn of_object(api_version: &str, kind: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|known| known.kind == kind && known.api_version() == api_version)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified())
    }
}

/// Namespaced, without status, generation or grace, and with the habits of most built-in kinds.
const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    resource: "",
    kind: "",
    is_namespaced: true,
    status: StatusRule::None,
    has_scale: false,
    has_generation: false,
    is_graceful: false,
    creates_on_update: false,
    updates_unconditionally: true,
    returns_deleted: false,
    is_custom: false,
    default: defaults::nothing,
    validate: validate::nothing,
};

pub static NAMESPACES: Kind = Kind {
    resource: "namespaces",
    kind: "Namespace",
    is_namespaced: false,
    status: StatusRule::Apart,
    default: defaults::namespace,
    ..PLAIN
};
pub static NODES: Kind =
    Kind { resource: "nodes", kind: "Node", is_namespaced: false, status: StatusRule::ApartOnceCreated, ..PLAIN };
pub static PODS: Kind = Kind {
    resource: "pods",
    kind: "Pod",
    status: StatusRule::Apart,
    has_generation: true,
    is_graceful: true,
    returns_deleted: true,
    default: defaults::pod,
    validate: validate::pod,
    ..PLAIN
};
pub static CONFIG_MAPS: Kind = Kind { resource: "configmaps", kind: "ConfigMap", ..PLAIN };
pub static SERVICES: Kind = Kind {
    resource: "services",
    kind: "Service",
    status: StatusRule::Apart,
    creates_on_update: true,
    returns_deleted: true,
    ..PLAIN
};
pub static SERVICE_ACCOUNTS: Kind =
    Kind { resource: "serviceaccounts", kind: "ServiceAccount", returns_deleted: true, ..PLAIN };
pub static CONTROLLER_REVISIONS: Kind = Kind {
    group: "apps",
    resource: "controllerrevisions",
    kind: "ControllerRevision",
    validate: validate::controller_revision,
    ..PLAIN
};
pub static JOBS: Kind =
    Kind { group: "batch", resource: "jobs", kind: "Job", status: StatusRule::Apart, has_generation: true, ..PLAIN };
pub static LEASES: Kind = Kind {
    group: "coordination.k8s.io",
    resource: "leases",
    kind: "Lease",
    creates_on_update: true,
    updates_unconditionally: false,
    validate: validate::lease,
    ..PLAIN
};
pub static ENDPOINT_SLICES: Kind = Kind {
    group: "discovery.k8s.io",
    resource: "endpointslices",
    kind: "EndpointSlice",
    has_generation: true,
    ..PLAIN
};
pub static EVENTS: Kind =
    Kind { resource: "events", kind: "Event", creates_on_update: true, validate: validate::event, ..PLAIN };
pub static ROLLOUTS: Kind = Kind {
    group: "baton.dev",
    version: "v1alpha1",
    resource: "rollouts",
    kind: "Rollout",
    status: StatusRule::Apart,
    has_scale: true,
    has_generation: true,
    updates_unconditionally: false,
    is_custom: true,
    default: defaults::rollout,
    validate: validate::rollout,
    ..PLAIN
};

pub static LISTENER_SETS: Kind = Kind {
    group: "baton.dev",
    version: "v1alpha1",
    resource: "listenersets",
    kind: "ListenerSet",
    status: StatusRule::Apart,
    has_generation: true,
    updates_unconditionally: false,
    is_custom: true,
    ..PLAIN
};

/// Every kind that is served.
pub static ALL: [&Kind; 13] = [
    &NAMESPACES,
    &NODES,
    &PODS,
    &CONFIG_MAPS,
    &SERVICES,
    &SERVICE_ACCOUNTS,
    &CONTROLLER_REVISIONS,
    &JOBS,
    &LEASES,
    &ENDPOINT_SLICES,
    &EVENTS,
    &ROLLOUTS,
    &LISTENER_SETS,
];
