//! Bounds of the custom resources, each used by the schema and by the code that fills the field.

/// Instances of one Rollout.
pub const REPLICAS_MAX: i32 = 10_000;
/// Entries of `spec.strategy.batches`.
pub const BATCHES_MAX: usize = 100;
/// `spec.strategy.keepFailed.pods`.
pub const KEPT_PODS_MAX: usize = 10;
/// Entries of `spec.pins`.
pub const PINS_MAX: usize = 100;
/// Characters of the instances of a pin, or of an entry of `status.history`.
pub const INSTANCES_CHARS_MAX: usize = 1_024;
/// Entries of `status.history`.
pub const HISTORY_MAX: usize = 50;
/// Of these, approvals, pauses and resumptions: however many there are, runs keep their room.
pub const HISTORY_NOTES_MAX: usize = 20;
/// Entries of `status.exceptions`.
pub const EXCEPTIONS_MAX: usize = 20;
/// Entries of `status.attempts`.
pub const ATTEMPTS_MAX: usize = 50;
/// Entries of `status.versions`.
pub const VERSIONS_MAX: usize = 100;
/// Entries of `status.services`.
pub const SERVICES_MAX: usize = 50;
/// Characters of all instance ranges of `status.versions` together: with what else is in it, status stays below 64 KiB.
pub const VERSIONS_RANGES_CHARS_MAX: usize = 20 * 1_024;
/// Bytes of the reasons and instances of `status.history` together; each entry may have some beyond that.
pub const HISTORY_WORDS_BYTES_MAX: usize = 12 * 1_024;
/// Characters of any sentence in status.
pub const MESSAGE_CHARS_MAX: usize = 1_024;
/// Characters of what is told of a failed instance: its name, the container, and the end of what that said last. It leaves room
/// in a sentence of status for what can be done.
pub const FAILURE_CHARS_MAX: usize = 640;
/// Characters of a list of instance ranges.
pub const RANGES_CHARS_MAX: usize = 8_192;
/// Characters of `status.selector`: the most labels of the longest names and values.
pub const SELECTOR_CHARS_MAX: usize = 8_192;
/// Entries of `spec.listeners` of a ListenerSet.
pub const LISTENERS_INLINE_MAX: usize = 1_000;
/// Listeners of one ListenerSet, from any source.
pub const LISTENERS_MAX: i32 = 10_000;
/// Fields at the top of a listener's `config`.
pub const CONFIG_PROPERTIES_MAX: usize = 64;
/// Entries of `spec.release` of a ListenerSet.
pub const RELEASES_MAX: usize = 100;
/// Entries of `status.holders` of a ListenerSet.
pub const HOLDERS_MAX: usize = 100;
/// Entries of a session's inbox: an agent is told of so many listeners at a time.
pub const INBOX_MAX: usize = 16;
/// Bytes of a listener's `config`, as compact JSON.
pub const CONFIG_BYTES_MAX: usize = 4 * 1_024;
/// Bytes of the `config` of all listeners of a ListenerSet.
pub const CONFIG_TOTAL_BYTES_MAX: usize = 1_024 * 1_024;
/// Pods of a ListenerSet with session profile Fast.
pub const FAST_PODS_MAX: usize = 200;
/// Characters of a Rollout's name, so that Pod names, hostnames and labels stay within 63.
pub const NAME_CHARS_MAX: usize = 40;
/// Entries of `status.soak.breaches`.
pub const SOAK_BREACHES_MAX: usize = 10;
/// Entries of `status.soak.restartedBefore`.
pub const SOAK_RESTARTED_MAX: usize = 50;
/// Entries of `spec.hooks`.
pub const HOOKS_MAX: usize = 20;
/// Entries of `status.hooks.log`.
pub const HOOK_LOG_MAX: usize = 12;
/// Characters of what is told of a hook's end.
pub const HOOK_MESSAGE_CHARS_MAX: usize = 200;
/// Characters of a backup's id.
pub const BACKUP_CHARS_MAX: usize = 128;
