//! What becomes of the answers to calls about ownership Leases.
use k8s_openapi::api::coordination::v1::Lease;

use super::{INVITATION_RETRY, Units};
use crate::agent::{
    boottime::Boottime,
    session::{
        api::CallError,
        hands::{Call, Done, Sight},
        leases::ListenerLease,
        runner::{Id, Runner},
    },
};

impl<R: Runner> Units<R> {
    /// An answer to one of our calls.
    pub(super) fn answered(&mut self, Done { kind, result }: Done) {
        let now = self.hands.clocks.boottime();
        match kind {
            Call::Invitation(set, listener) => {
                let sight = match result {
                    Ok(Some(lease)) => {
                        self.is_deaf |= self.tells_of_us(&lease);
                        self.see(&lease);
                        Sight::Known
                    }
                    Ok(None) => Sight::From(now.after(INVITATION_RETRY)),
                    Err(error) => {
                        tracing::warn!(listener, error = error.message(), "cannot read what is to come");
                        Sight::From(now.after(INVITATION_RETRY))
                    }
                };
                if let Some(invitation) = self.invitations.get_mut(&(set, listener)) {
                    invitation.sight = sight;
                }
            }
            Call::Glance(id) => {
                if let Some(listener) = self.listeners.get_mut(&id) {
                    listener.glanced(matches!(result, Ok(None)), now);
                }
                if let Ok(Some(lease)) = result {
                    self.see(&lease);
                }
            }
            Call::Look(id) => {
                if let Some(listener) = self.listeners.get_mut(&id) {
                    listener.calls.is_busy = false;
                }
                match result {
                    Ok(Some(lease)) => self.looked(&id, &lease),
                    Ok(None) => self.is_deleted(&id),
                    Err(error) => self.call_failed(&id, &error, now),
                }
            }
            Call::Checkpoint(id) | Call::Write(id) => self.written(&id, result, now),
        }
    }

    /// A look at a listener that we know by uid; of another uid under its name it is gone.
    fn looked(&mut self, id: &Id, lease: &Lease) {
        if lease.metadata.uid.as_ref() == Some(id) {
            self.see(lease);
        } else {
            self.is_deleted(id);
        }
    }

    fn is_deleted(&mut self, id: &Id) {
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.is_gone = true;
        }
    }

    fn call_failed(&mut self, id: &Id, error: &CallError, now: Boottime) {
        if let Some(listener) = self.listeners.get_mut(id) {
            tracing::warn!(
                listener = listener.lease.listener,
                error = error.message(),
                "a call about its Lease failed"
            );
            listener.calls.failed(now);
        }
    }

    fn written(&mut self, id: &Id, result: Result<Option<Lease>, CallError>, now: Boottime) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.calls.is_busy = false;
        match result {
            Ok(lease) => {
                listener.calls.worked();
                self.hands.without_owners |= listener.calls.without_owners;
                if let Some(lease) = lease {
                    self.looked(&id.clone(), &lease);
                }
            }
            Err(error) => {
                let code = error.code();
                tracing::info!(
                    listener = listener.lease.listener,
                    code,
                    error = error.message(),
                    "an ownership was not written, looking at it"
                );
                if code == 404 {
                    listener.is_gone = true;
                } else if code == 403 && !std::mem::replace(&mut listener.calls.without_owners, true) {
                    // At once, without what it may have been refused for: OwnerReferencesPermissionEnforcement.
                } else {
                    if code == 409 {
                        listener.calls.conflicted(now);
                    } else {
                        listener.calls.failed(now);
                    }
                    listener.calls.is_busy = true;
                    let name = listener.lease.name.clone();
                    self.hands.read(Call::Look(id.clone()), name);
                }
            }
        }
    }

    /// An invitation to what this boot has already: what it reports is not what the operator knows to be its own. The watch may
    /// have missed this one or another.
    fn tells_of_us(&self, lease: &Lease) -> bool {
        ListenerLease::read(lease).is_some_and(|seen| seen.ownership.holder.as_ref() == Some(&self.hands.me))
    }
}
