//! The claim of this Pod's session, once by each boot.
use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::sync::{mpsc, watch};

use super::{Outbox, Renewals, jitter};
use crate::{
    agent::{
        boottime::{Boottime, Reading},
        clocks::Clocks,
        session::{
            api::{Connect, Leases},
            leases::SessionLease,
            pace::Pace,
        },
        sidecar::record::longest,
    },
    api::names,
    plan::listener_set::session::{self, Start},
    snapshot::{index::Event, lease::Holder},
};

/// Between two tries of a claim.
const CLAIM_RETRY: Duration = Duration::from_secs(1);
/// Longest time for a claim.
pub(super) const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// How a session is asked for.
pub struct Claimant {
    /// Makes clients.
    pub connect: Connect,
    /// Of this machine.
    pub clocks: Clocks,
    /// Namespace of the Pod.
    pub namespace: String,
    /// This process; its boot number is found by the claim.
    pub name: Holder,
    /// What it says first.
    pub first: Outbox,
    /// When this process began.
    pub began: Reading,
}

impl Claimant {
    /// Waits until the controller has made the session of this Pod, and claims it. `events` are of the watch on that Lease.
    /// No guard of an earlier boot may be left. `lacks_record`: what an earlier boot has begun could not be found. If the
    /// Lease then shows that there was one, it is outlived first.
    ///
    /// # Errors
    /// No client can be made; the Pod's name is too long for a session.
    pub async fn claim(
        self,
        events: &mut mpsc::UnboundedReceiver<Event<Lease>>,
        lacks_record: bool,
    ) -> anyhow::Result<Renewals> {
        let name = names::session_lease_name(&self.name.pod)
            .context("BATON_POD_NAME is too long: a Pod with a session has a name of at most 245 characters")?;
        let leases = Leases::new((self.connect)()?, &self.namespace);
        let mut seen: Option<SessionLease> = None;
        let mut predecessor = None;
        let mut unsure_since = lacks_record.then_some(self.began.boot);
        loop {
            let start = seen.as_ref().map_or(Start::Wait, |seen| session::start(&seen.session, &self.name, true));
            seen = match (start, seen.take()) {
                (Start::Claim { boot: 2.. }, Some(found)) if unsure_since.is_some() => {
                    self.outlive(unsure_since.unwrap_or_default()).await;
                    let now = leases.get(&name, CLAIM_TIMEOUT).await.ok().flatten();
                    let now = now.as_ref().and_then(SessionLease::read);
                    // The boot before may live: nothing of it runs so long after its last renewal.
                    let has_been_silent = now.as_ref().is_some_and(|now| {
                        now.session.renewed_at == found.session.renewed_at && now.session.claim == found.session.claim
                    });
                    unsure_since = (!has_been_silent).then(|| self.clocks.boottime());
                    Some(now.unwrap_or(found))
                }
                (Start::Claim { boot }, Some(found)) => {
                    predecessor = found.session.claim.holder().cloned();
                    let me = Holder { boot, ..self.name.clone() };
                    let pace = Pace::new(found.profile.unwrap_or_default());
                    let mut renewals = self.renewals(&name, leases.clone(), me, found.clone(), pace);
                    match renewals.claim(&self.first, self.began).await {
                        Ok(()) => return Ok(Renewals { predecessor, ..renewals }),
                        Err(error) if error.code() == 409 => {}
                        Err(error) => {
                            tracing::warn!(lease = name, error = error.message(), "cannot claim the session");
                            tokio::time::sleep(CLAIM_RETRY).await;
                        }
                    }
                    // Also after an error it may have been done. Without a look it is tried again as it was seen: the
                    // watch has no more to say.
                    match leases.get(&name, CLAIM_TIMEOUT).await {
                        Ok(lease) => lease.as_ref().and_then(SessionLease::read),
                        Err(error) => {
                            tracing::warn!(lease = name, error = error.message(), "cannot look at the session");
                            tokio::time::sleep(CLAIM_RETRY).await;
                            Some(found)
                        }
                    }
                }
                (Start::Ours, Some(found)) => {
                    let me = Holder { boot: found.session.boot, ..self.name.clone() };
                    let pace = Pace::new(found.profile.unwrap_or_default());
                    let renewals = self.renewals(&name, leases, me, found, pace);
                    return Ok(Renewals { predecessor, ..renewals });
                }
                _ => match events.recv().await.context("the watch on the session has ended")? {
                    Event::Applied(lease) => SessionLease::read(&lease),
                    Event::Listed { objects, .. } => objects.first().and_then(SessionLease::read),
                    Event::Deleted(_) | Event::Progressed(_) => None,
                },
            };
        }
    }

    /// Waits until nothing runs that a boot before this one can have let run.
    async fn outlive(&self, since: Boottime) {
        let over = longest(since);
        let wait = over.since(self.clocks.boottime());
        tracing::warn!(
            seconds = wait.as_secs(),
            "the session has had an earlier boot, of which --state-dir has no record: waiting until nothing of it can run. \
             Mount an emptyDir there, which outlives a restart of the container"
        );
        while self.clocks.boottime() < over {
            tokio::time::sleep(over.since(self.clocks.boottime())).await;
        }
    }

    fn renewals(&self, name: &str, leases: Leases, me: Holder, seen: SessionLease, pace: Pace) -> Renewals {
        Renewals {
            connect: self.connect.clone(),
            namespace: self.namespace.clone(),
            leases,
            name: name.to_owned(),
            me,
            seen,
            pace,
            said: BTreeMap::new(),
            clocks: self.clocks.clone(),
            looked_at: self.clocks.reading(),
            stood_still: Duration::ZERO,
            last_sent: Boottime::default(),
            jitter: jitter(&self.name.random),
            has_reconnected: false,
            is_doubtful: false,
            has_overtaken: false,
            is_bare: false,
            told: watch::Sender::default(),
            silent_from: Boottime::default(),
            predecessor: None,
        }
    }
}
