//! Names on the wire: API group, labels, annotations, conditions of Pods, Leases, field managers. Nothing else in the
//! code spells them out.
use super::fingerprint::fingerprint;

/// API group of both kinds.
pub const GROUP: &str = "baton.dev";
/// The only served version.
pub const VERSION: &str = "v1alpha1";

/// Field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "baton-operator";

/// Label on Pods and ControllerRevisions: name of the Rollout.
pub const LABEL_ROLLOUT: &str = "baton.dev/rollout";
/// Label on Pods: slot number, decimal.
pub const LABEL_INSTANCE: &str = "baton.dev/instance";
/// Label on Pods: name of the ControllerRevision. The only statement of a Pod's revision; its name says nothing.
pub const LABEL_REVISION: &str = "baton.dev/revision";
/// Label on Pods and ControllerRevisions: the ten-character hash, under the name generic tools read.
pub const LABEL_REVISION_HASH: &str = "controller-revision-hash";
/// Label on Pods: slot number, under the name generic tools read.
pub const LABEL_POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Annotation on Pods: as the label of the same name; `BATON_REVISION` is a fieldRef to it.
pub const ANNOTATION_REVISION: &str = "baton.dev/revision";
/// Annotation on Pods: version for people; `BATON_VERSION` is a fieldRef to it.
pub const ANNOTATION_VERSION: &str = "baton.dev/version";
/// Annotation on Pods: the later of `spec.restartAt` and `spec.retryAt` that was reached when the Pod was made (RFC 3339).
/// Such a Pod is not renewed for it again; its creationTimestamp does not matter, because that is by another clock.
pub const ANNOTATION_RESTARTED_AT: &str = "baton.dev/restarted-at";
/// Annotation on Pods: what their containers were before the last change in place, the resources that they have yet to get by it,
/// and whether their applications were told of it ([`crate::snapshot::InPlace`]), JSON.
pub const ANNOTATION_IN_PLACE: &str = "baton.dev/in-place";
/// Annotation on Pods, and on Services that are let go: the resourceVersion that a write named, or may have named, whose answer
/// was lost. With it the object has another one, and what comes late finds that.
pub const ANNOTATION_OVERTAKEN: &str = "baton.dev/overtaken";

/// Label on failed Pods that are kept for a look: name of the Rollout. It replaces all labels that Baton and the template gave them,
/// and [`LABEL_ROLLOUT`] has no value then.
pub const LABEL_KEPT: &str = "baton.dev/kept";
/// Annotation on such a Pod: until when it is kept, and what it was ([`crate::snapshot::specimen::Specimen`]), JSON.
pub const ANNOTATION_KEPT: &str = "baton.dev/kept";

/// Annotation on a Pod template: the Pod has an agent, and the readiness gate [`CONDITION_IN_SERVICE`]. Where the agent comes
/// from, the value says.
pub const ANNOTATION_HAS_AGENT: &str = "baton.dev/agent";
/// Value of [`ANNOTATION_HAS_AGENT`]: the image brings it.
pub const AGENT_OWN: &str = "own";
/// Value of [`ANNOTATION_HAS_AGENT`]: it is copied into the Pod.
pub const AGENT_INSTALL: &str = "install";
/// Value of [`ANNOTATION_HAS_AGENT`]: it is a container of its own.
pub const AGENT_SIDECAR: &str = "sidecar";

/// Annotation on ControllerRevisions: when all instances were first seen at this revision and available (RFC 3339).
pub const ANNOTATION_COMPLETED_AT: &str = "baton.dev/completed-at";
/// Annotation on ControllerRevisions: when the failure threshold was reached, or the run aborted (RFC 3339).
pub const ANNOTATION_FAILED_AT: &str = "baton.dev/failed-at";
/// Annotation on ControllerRevisions: why, as `Reason: message`.
pub const ANNOTATION_FAILED_REASON: &str = "baton.dev/failed-reason";
/// Annotation on ControllerRevisions: `spec.request` in words, at the time the revision became the wanted one.
pub const ANNOTATION_CHANGE_CAUSE: &str = "baton.dev/change-cause";
/// On a Rollout, written by people: why it was changed, where spec.request does not say.
pub const ANNOTATION_WHY: &str = "kubernetes.io/change-cause";
/// Annotation on ControllerRevisions whose package names no checksum: SHA-256 of what the first instance has fetched.
pub const ANNOTATION_PACKAGE_SHA256: &str = "baton.dev/package-sha256";
/// Annotation on ControllerRevisions: digests of the images that its first Pod ran, by name of the container, JSON. Tags move.
pub const ANNOTATION_IMAGE_DIGESTS: &str = "baton.dev/image-digests";

/// Annotation on ControllerRevisions: id of the newest backup that a hook made while this was the stable revision, its hook and
/// its run, as `id hook run`.
pub const ANNOTATION_BACKUP: &str = "baton.dev/backup";

/// Label on the Jobs of hooks and on their Pods: name of the hook. Only the operator may write Jobs that have it.
pub const LABEL_HOOK: &str = "baton.dev/hook";
/// Label on the Jobs of hooks: number of the run.
pub const LABEL_RUN: &str = "baton.dev/run";
/// Label on the Jobs of hooks: number of the attempt, from 1.
pub const LABEL_ATTEMPT: &str = "baton.dev/attempt";
/// Annotation on the Jobs of hooks: the point, such as `AfterBatch/2`.
pub const ANNOTATION_POINT: &str = "baton.dev/point";
/// Annotation on the Pods of hooks: name of the container whose termination message may be the id of a backup.
pub const ANNOTATION_HOOK_CONTAINER: &str = "baton.dev/hook-container";
/// Annotation on the Jobs of hooks: what all attempts of one hook at one point of one run share; `BATON_HOOK_KEY`.
pub const ANNOTATION_HOOK_KEY: &str = "baton.dev/hook-key";

/// Annotation on a Service, written by people: name of the Rollout that may switch it. Without it Baton writes nothing to it:
/// who may change a Rollout need not be one who may change that Service.
pub const ANNOTATION_ROLLOUT: &str = "baton.dev/rollout";
/// Annotation on a Service that a Rollout switches (strategy BlueGreen): when it was last switched (RFC 3339). The old Pods stay
/// for a while from then on, also under another leader; it is written with the selector, in one write.
pub const ANNOTATION_SWITCHED_AT: &str = "baton.dev/switched-at";
/// Annotation on such a Service: name of the ControllerRevision that it selected before.
pub const ANNOTATION_SWITCHED_FROM: &str = "baton.dev/switched-from";

/// Label on Pods outside a Rollout: with the value `true`, they are looked at, and a ListenerSet that [`ANNOTATION_LISTENER_SETS`]
/// names may give them listeners.
pub const LABEL_AGENT: &str = "baton.dev/agent";
/// Annotation on such a Pod: names of the ListenerSets that may give it listeners, with commas between them. Who may write a
/// ListenerSet need not be one who may say what runs in that Pod, or delete it.
pub const ANNOTATION_LISTENER_SETS: &str = "baton.dev/listener-sets";
/// Label on every Lease of the hand-off: [`LEASE_SESSION`] or [`LEASE_LISTENER`]. One selector, so that one watch shows
/// both: a session that it does not show is gone as far as any ownership it shows may know. Without the label a Lease
/// counts as deleted, for its agent too.
pub const LABEL_LEASE: &str = "baton.dev/lease";
/// Value of [`LABEL_LEASE`]: the session of a Pod.
pub const LEASE_SESSION: &str = "session";
/// Value of [`LABEL_LEASE`]: the ownership of a listener.
pub const LEASE_LISTENER: &str = "listener";
/// Label on ownership Leases: name of the ListenerSet.
pub const LABEL_LISTENER_SET: &str = "baton.dev/listener-set";
/// Label on ownership Leases: who holds them, as [`holder_label`]. An agent watches its own Leases by it.
pub const LABEL_HOLDER: &str = "baton.dev/holder";

/// Annotation on ownership Leases: identity of the holder before the present one.
pub const ANNOTATION_FROM: &str = "baton.dev/from";
/// Annotation on ownership Leases: what the listener resumes from, JSON of at most 4 KiB.
pub const ANNOTATION_STATE: &str = "baton.dev/state";
/// Annotation on ownership Leases: when the last owner's listener had stopped, by that Pod's clock (RFC 3339).
pub const ANNOTATION_STOPPED_AT: &str = "baton.dev/stopped-at";
/// Annotation on ownership Leases: `spec.release[].at` of the request by which it was last taken by force (RFC 3339).
pub const ANNOTATION_FORCED_AT: &str = "baton.dev/forced-at";
/// Annotation on ownership Leases: name of the listener; as in the Lease's own name, where a reader need not cut it out.
pub const ANNOTATION_LISTENER: &str = "baton.dev/listener";
/// Annotation on ownership Leases: the listener's settings ([`crate::snapshot::listener::Settings`]), JSON.
pub const ANNOTATION_CONFIG: &str = "baton.dev/config";
/// Annotation on ownership Leases: hash of the settings. Another one means: restart it.
pub const ANNOTATION_CONFIG_HASH: &str = "baton.dev/config-hash";

/// Annotation on session Leases: the session profile that the controller asks the agent for.
pub const ANNOTATION_PROFILE: &str = "baton.dev/profile";
/// Annotation on session Leases: what the agent says of itself ([`crate::snapshot::report::AgentInfo`]), JSON.
pub const ANNOTATION_AGENT: &str = "baton.dev/agent";

/// Name of the container that is the agent itself, beside its application. In a Pod without one the agent runs in an
/// application's container.
pub const CONTAINER_AGENT: &str = "baton-agent";
/// Name of the init container that fetches a Rollout's package.
pub const CONTAINER_PACKAGE: &str = "baton-package";

/// Condition and readiness gate of Pods: whether the Pod is in service. The only gate Baton sets on a Pod.
pub const CONDITION_IN_SERVICE: &str = "baton.dev/in-service";
/// Condition of Pods: whether the agent's session is renewed, for every ListenerSet that serves the Pod.
pub const CONDITION_SESSION_READY: &str = "baton.dev/session-ready";
/// Condition of Pods that leave: whether no listener is held or run there any more.
pub const CONDITION_DRAINED: &str = "baton.dev/drained";

/// Characters of a Lease's name: a DNS subdomain.
const LEASE_NAME_CHARS_MAX: usize = 253;

/// Labels and annotations below this prefix belong to Baton; a template may not set them.
pub const RESERVED_PREFIX: &str = "baton.dev/";

/// Prefix of instance names for people: `web-3` is slot 3 of Rollout `web`.
pub fn instance_name(rollout: &str, slot: i32) -> String {
    format!("{rollout}-{slot}")
}

/// Name of the Pod of `slot` at the revision with `hash`; `attempt` counts up on any clash of names.
/// Injective for names of at most 40 characters (R9): a hash never consists of digits only (see [`crate::plan::revision`]).
pub fn pod_name(rollout: &str, slot: i32, hash: &str, attempt: u32) -> String {
    if attempt == 0 { format!("{rollout}-{slot}-{hash}") } else { format!("{rollout}-{slot}-{hash}-{attempt}") }
}

/// Name of a Pod's session Lease: `session.<pod>`. None where that is too long for a name, which takes a Pod name of more
/// than 245 characters: such a Pod has no session, and gets no listeners.
///
/// Injective, as [`listener_lease_name`] is, and never the same as one of those.
pub fn session_lease_name(pod: &str) -> Option<String> {
    let name = format!("session.{pod}");
    (name.len() <= LEASE_NAME_CHARS_MAX).then_some(name)
}

/// Name of the ownership Lease of a listener: `listener.<set>.<name>`, at most 113 characters for names that the CRD
/// lets through.
///
/// Injective (L10), since neither name has a dot: both are DNS labels.
pub fn listener_lease_name(set: &str, listener: &str) -> String {
    format!("listener.{set}.{listener}")
}

/// Begins the name of [`inbox_annotation`].
pub const INBOX_PREFIX: &str = "inbox.baton.dev/";
/// Begins the name of [`report_annotation`].
pub const REPORT_PREFIX: &str = "report.baton.dev/";

/// Annotation on session Leases in which the controller tells an agent what to do for a ListenerSet.
pub fn inbox_annotation(set: &str) -> String {
    format!("{INBOX_PREFIX}{set}")
}

/// Annotation on session Leases in which an agent tells what it runs for a ListenerSet.
pub fn report_annotation(set: &str) -> String {
    format!("{REPORT_PREFIX}{set}")
}

/// Value of [`LABEL_HOLDER`] for the identity in `holderIdentity`, which is no label value itself: the first 32 digits of
/// its SHA-256. It selects; whether a Lease is one's own, the identity alone tells.
pub fn holder_label(identity: &str) -> String {
    fingerprint([identity], 16)
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
