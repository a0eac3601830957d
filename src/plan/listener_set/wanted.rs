//! Which settings a listener is to have, and whether it must be restarted for them.
use jiff::Timestamp;

use crate::{
    api::fingerprint::fingerprint,
    snapshot::{
        listener::Settings,
        listener_set::{OwnershipSeen, SetSnapshot},
    },
};

/// Fingerprint of what a listener is started with: another one makes its owner restart it. `recovered_at`:
/// `spec.recoverAt`, where this listener has been restarted for it.
///
/// The times that its agent goes by (start, stop, checkpoints) are not in it: they take effect while it runs.
pub fn config_hash(settings: &Settings, recovered_at: Option<Timestamp>) -> String {
    let Settings { config, secret, use_proxy, connect_timeout_seconds, .. } = settings;
    let text = serde_json::json!([config, secret, use_proxy, connect_timeout_seconds, recovered_at]).to_string();
    fingerprint([text], 8)
}

/// What is to be written into an ownership Lease, and what that does to the listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reconfiguration {
    pub config_hash: String,
    /// Its owner restarts it.
    pub restarts: bool,
}

/// What the Lease lacks of these settings. `runs`: a boot owns it, so that `spec.recoverAt` is about it.
pub(super) fn lacks(
    snapshot: &SetSnapshot,
    seen: &OwnershipSeen,
    settings: &Settings,
    runs: bool,
) -> Option<Reconfiguration> {
    let recovered_at = recover_at(snapshot);
    let is_before = |at: Timestamp| seen.acquired_at.is_none_or(|acquired_at| acquired_at < at);
    let is_due = runs && recovered_at.is_some_and(is_before);
    let is_same = is_written(seen, settings);
    if is_same && !is_due {
        return None;
    }
    let known = &seen.ownership.config_hash;
    let written: Option<Settings> = if is_same { None } else { serde_json::from_str(&seen.settings).ok() };
    let starts_otherwise = !is_same && written.is_none_or(|written| !starts_alike(&written, settings));
    let config_hash = config_hash(settings, recovered_at);
    let restarts = starts_otherwise || is_due;
    match (restarts && config_hash != *known, is_same) {
        (true, _) => Some(Reconfiguration { config_hash, restarts: true }),
        // Restarted for it already, by a clock that is behind ours.
        (false, true) => None,
        (false, false) => Some(Reconfiguration { config_hash: known.clone(), restarts: false }),
    }
}

/// The text is what was written, save its order of fields.
fn is_written(seen: &OwnershipSeen, settings: &Settings) -> bool {
    let text = serde_json::to_string(settings).unwrap_or_default();
    text == seen.settings || serde_json::from_str::<Settings>(&seen.settings).is_ok_and(|written| written == *settings)
}

fn starts_alike(one: &Settings, other: &Settings) -> bool {
    let of = |settings: &Settings| (settings.use_proxy, settings.connect_timeout_seconds);
    of(one) == of(other) && one.config == other.config && one.secret == other.secret
}

/// `spec.recoverAt`, once it is reached.
pub(super) fn recover_at(snapshot: &SetSnapshot) -> Option<Timestamp> {
    snapshot.set.spec.recover_at.as_ref().map(|at| at.0).filter(|at| *at <= snapshot.now)
}
