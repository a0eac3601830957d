//! What an answer of the API server means for a write.
use jiff::SignedDuration;

use super::call::{CallError, Written};
use crate::{plan::Applied, snapshot::RefusalReason};

/// Pause after a 429 whose answer names none: the API server's flow control always asks for one second, but in a header
/// that the client does not keep.
pub(super) const AFTER_TOO_MANY: SignedDuration = SignedDuration::from_secs(1);
/// Pause after a create that lost a race for a counter, such as a ResourceQuota's.
const AFTER_RACE: SignedDuration = SignedDuration::from_millis(100);

/// A create that failed, other than by AlreadyExists.
pub(super) fn of_create(error: &CallError) -> Applied {
    match (error, error.code()) {
        // Not about our object (it has no earlier version): a quota was changed by another at the same time.
        (_, 409) => Applied::Unknown { message: error.message(), retry_after: Some(AFTER_RACE) },
        (_, 404) => refused(error), // the namespace is gone
        _ => of_write(error),
    }
}

/// What a patch with preconditions came to.
pub(super) fn of_patch(answer: Result<Written, CallError>) -> Applied {
    match answer {
        Ok(written) => Applied::Done { resource_version: written.metadata.resource_version },
        Err(error) => of_change(&error),
    }
}

/// A write with preconditions that failed.
pub(super) fn of_change(error: &CallError) -> Applied {
    match error.code() {
        404 | 409 | 410 => Applied::Stale,
        _ => of_write(error),
    }
}

/// A write to a subresource that a server may not know, or a dry run of it, that failed.
pub(super) fn of_subresource(error: &CallError) -> Applied {
    let names_object = |status: &kube::core::Status| status.details.as_ref().is_some_and(|it| !it.name.is_empty());
    match error.code() {
        404 if !error.status().is_some_and(names_object) => refused(error),
        _ => of_change(error),
    }
}

fn of_write(error: &CallError) -> Applied {
    match (error, error.code()) {
        (CallError::Fenced, _) => Applied::Fenced,
        (_, 429) => Applied::Unknown { message: error.message(), retry_after: Some(retry_after(error)) },
        _ if error.is_doubtful() => Applied::Unknown { message: error.message(), retry_after: None },
        _ => refused(error),
    }
}

fn refused(error: &CallError) -> Applied {
    let reason = if is_quota(error) { RefusalReason::QuotaExceeded } else { RefusalReason::FailedCreate };
    Applied::Refused { reason, message: error.message() }
}

/// The API server has no reason of its own for a quota; its sentence is what client-go looks at, too.
pub(super) fn is_quota(error: &CallError) -> bool {
    error.code() == 403 && error.message().contains("exceeded quota")
}

/// How long a 429 asks us to wait.
pub(super) fn retry_after(error: &CallError) -> SignedDuration {
    let seconds = error.status().and_then(|status| status.details.as_ref()).map_or(0, |d| d.retry_after_seconds);
    if seconds == 0 { AFTER_TOO_MANY } else { SignedDuration::from_secs(i64::from(seconds)) }
}

/// True when a create was refused because the name is taken.
pub(super) fn is_taken(error: &CallError) -> bool {
    error.status().is_some_and(kube::core::Status::is_already_exists)
}
