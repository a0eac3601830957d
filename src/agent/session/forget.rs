//! What an agent forgets: listeners of which there has long been nothing here, so that one that lives for months does not
//! remember all that ever came and went.
//!
//! With a listener its tombstone goes. So it is forgotten only once the watch on what is ours has told of all that was seen of
//! it: a view that is not newer than that, an answer that was long on its way, shows nothing that is still ours.
use std::{collections::BTreeMap, time::Duration};

use super::{leases::ListenerLease, listener::Listener, runner::Id};
use crate::{
    agent::boottime::Boottime,
    snapshot::{index::is_older, lease::Holder},
};

/// For so long it is remembered how often a listener has failed here, and why.
const REMEMBERED: Duration = Duration::from_hours(1);

/// How far the watch on what is ours has told, and what may have been forgotten: resourceVersions, empty at first.
#[derive(Debug, Default)]
pub struct Forgetting {
    told: String,
    forgotten: String,
}

impl Forgetting {
    /// The watch has told everything up to this version.
    pub fn told(&mut self, version: &str) {
        advance(&mut self.told, version);
    }

    /// All that there is was listed at this version, past every cache. One that is older than what was told is of a store that was
    /// restored: its versions say nothing of those before.
    pub fn listed(&mut self, version: &str) {
        if is_older(version, &self.told) {
            tracing::warn!(
                told = self.told,
                version,
                "resourceVersions have gone back: what was forgotten counts no more"
            );
            *self = Self::default();
        }
        self.told(version);
    }

    /// A view of a listener that is not known here, which says that it is ours: it was, and is of before it was forgotten.
    pub fn is_past(&self, lease: &ListenerLease, me: &Holder) -> bool {
        let version = &lease.ownership.resource_version;
        lease.ownership.holder.as_ref() == Some(me)
            && (*version == self.forgotten || is_older(version, &self.forgotten))
    }

    /// Takes out what is over; whether anything was. `is_to_come`: it is expected here.
    pub fn forget(
        &mut self,
        listeners: &mut BTreeMap<Id, Listener>,
        me: &Holder,
        is_to_come: impl Fn(&ListenerLease) -> bool,
        now: Boottime,
    ) -> bool {
        let before = listeners.len();
        listeners.retain(|_, listener| {
            let is_idle = listener.is_idle(me) && !is_to_come(&listener.lease);
            listener.idle_since = is_idle.then(|| listener.idle_since.unwrap_or(now));
            let versions = [&listener.lease.ownership.resource_version, &listener.gone_at];
            // That it is gone an answer may have said: of that the watch has yet to tell.
            let is_dated = !listener.is_gone || !listener.gone_at.is_empty();
            let is_told =
                is_dated && !self.told.is_empty() && versions.iter().all(|version| !is_older(&self.told, version));
            let is_over = listener.idle_since.is_some_and(|since| now >= since.after(REMEMBERED)) && is_told;
            if is_over {
                for version in versions {
                    advance(&mut self.forgotten, version);
                }
            }
            !is_over
        });
        listeners.len() < before
    }
}

fn advance(known: &mut String, version: &str) {
    if known.is_empty() || is_older(known, version) {
        version.clone_into(known);
    }
}
