//! Names on the wire: API group, labels, annotations, field managers. Nothing else in the code spells them out.

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
/// Such a Pod is not renewed for it again, whatever its creationTimestamp says: that is by another clock.
pub const ANNOTATION_RESTARTED_AT: &str = "baton.dev/restarted-at";

/// Annotation on ControllerRevisions: when all instances were first seen at this revision and available (RFC 3339).
pub const ANNOTATION_COMPLETED_AT: &str = "baton.dev/completed-at";
/// Annotation on ControllerRevisions: when the failure threshold was reached, or the run aborted (RFC 3339).
pub const ANNOTATION_FAILED_AT: &str = "baton.dev/failed-at";
/// Annotation on ControllerRevisions: why, as `Reason: message`.
pub const ANNOTATION_FAILED_REASON: &str = "baton.dev/failed-reason";
/// Annotation on ControllerRevisions: `spec.request` in words, at the time the revision became the wanted one.
pub const ANNOTATION_CHANGE_CAUSE: &str = "baton.dev/change-cause";

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
