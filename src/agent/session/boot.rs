//! One boot of an agent, from the claim of its Pod's session until nothing is held any more: what is started, in which order.
//!
//! All that it has of the process around comes in as values ([`Boot`]), so that simulations run this very code.
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    api::{Connect, Leases},
    hands::Options,
    inheritance::Inheritance,
    last_read::LastRead,
    renewal::{Claimant, Outbox},
    runner::Runner,
    settings::Pod,
    units::{Health, Notice, Sources, Units},
};
use crate::{
    agent::clocks::Clocks,
    api::names,
    observe::watch::{Refresh, Refresher, Selection, Settings as WatchSettings, Watch},
    snapshot::{index::Event, lease::Holder, report::AgentInfo, wire::LeaseView},
};

/// A watch that tells nothing for so long is dead.
const WATCH_SILENCE: Duration = Duration::from_secs(30);
/// Longest time for a watch to begin.
const WATCH_BEGIN: Duration = Duration::from_secs(5);

/// What one boot is given.
pub struct Boot {
    /// Makes clients.
    pub connect: Connect,
    /// Of this machine.
    pub clocks: Clocks,
    /// For the name of this boot, and for pauses.
    pub rng: fastrand::Rng,
    /// Where it runs.
    pub pod: Pod,
    /// How listeners are run.
    pub options: Options,
    /// Signals, and the local HTTP server.
    pub notices: mpsc::Receiver<Notice>,
    /// For the local HTTP server.
    pub health: watch::Sender<Health>,
}

impl Boot {
    /// Runs listeners until the Pod ends and nothing is held. `runner` gives what runs them, once nothing is left of what
    /// an earlier boot of this Pod has started: the session is not claimed before.
    ///
    /// # Errors
    /// There is no runner; the session cannot be claimed, or was lost. Nothing runs then.
    pub async fn live<R: Runner>(mut self, runner: impl Future<Output = anyhow::Result<R>>) -> anyhow::Result<()> {
        let began = self.clocks.reading();
        let mut tasks = JoinSet::new();
        let info = AgentInfo { revision: self.options.revision.clone(), draining: false };
        let first = Outbox { info, ..Outbox::default() };
        let name = names::session_lease_name(&self.pod.pod_name)
            .context("BATON_POD_NAME is too long: a Pod with a session has a name of at most 245 characters")?;
        let claimant = Claimant {
            connect: self.connect.clone(),
            clocks: self.clocks.clone(),
            namespace: self.pod.pod_namespace.clone(),
            name: Holder {
                pod: self.pod.pod_name.clone(),
                uid: self.pod.pod_uid.clone(),
                boot: 1,
                random: format!("{:08x}", self.rng.u32(..)),
            },
            first: first.clone(),
            began,
        };
        let rngs = [self.rng.fork(), self.rng.fork()];
        let [of_session, of_listeners] = rngs;
        let mut drains = false;
        let starting = async {
            let runner = runner.await?;
            let client = (self.connect)()?;
            let selection = Selection::name(&name);
            let refresh = Refresher::default().subscribe();
            let mut events = watch_leases(&client, &self.pod.pod_namespace, selection, refresh, of_session, &mut tasks);
            let renewals = claimant.claim(&mut events, runner.lacks_record()).await?;
            anyhow::Ok((runner, client, events, renewals))
        };
        let (runner, client, session_events, renewals) = tokio::select! {
            biased;
            started = starting => started?,
            // Nothing is held yet.
            () = idle(&mut self.notices, &self.health, &self.clocks, &mut drains) => return Ok(()),
        };

        let me = renewals.me().clone();
        let predecessor = renewals.predecessor().cloned();
        let mine = Selection::labels(&format!("{}={}", names::LABEL_HOLDER, names::holder_label(&me.to_string())));
        let mut relist = Refresher::default();
        let refresh = relist.subscribe();
        let events = watch_leases(&client, &self.pod.pod_namespace, mine, refresh, of_listeners, &mut tasks);
        let told = renewals.subscribe();
        let outbox = watch::Sender::new(first);
        let said = outbox.subscribe();
        tasks.spawn(async move {
            match renewals.keep(session_events, said).await {
                // Its end was told; what runs has yet to stop.
                Ok(()) => std::future::pending().await,
                Err(error) => tracing::error!(error = format!("{error:#}"), "the session cannot be renewed"),
            }
        });
        let leases = Leases::new(client, &self.pod.pod_namespace);
        if let Some(from) = predecessor.filter(|_| !drains) {
            let (leases, clocks, me) = (leases.clone(), self.clocks.clone(), me.clone());
            let inheritance = Inheritance { leases, clocks, from, me, revision: self.options.revision.clone() };
            tasks.spawn(async move {
                inheritance.take().await;
                std::future::pending::<()>().await;
            });
        }
        let mut units = Units::new(me, self.options, self.clocks, leases, runner, outbox, self.health);
        if drains {
            units.notice(Notice::Drain);
        }
        tokio::select! {
            biased;
            outcome = units.run(Sources { events, relist, told, notices: self.notices }) => outcome,
            ended = tasks.join_next() => Err(anyhow::anyhow!("a part of the agent ended unexpectedly: {ended:?}")),
        }
    }
}

fn watch_leases(
    client: &Client,
    namespace: &str,
    selection: Selection,
    refresh: Refresh,
    rng: fastrand::Rng,
    tasks: &mut JoinSet<()>,
) -> mpsc::UnboundedReceiver<Event<Lease>> {
    // Bounded by what the API server tells; taken at once.
    let (sender, events) = mpsc::unbounded_channel();
    let mut known = LastRead::default();
    let watch = Watch::<LeaseView> {
        api: Api::namespaced(client.clone(), namespace),
        name: "Lease",
        selection,
        settings: WatchSettings { silence: WATCH_SILENCE, begin_timeout: WATCH_BEGIN, ..WatchSettings::default() },
        refresh,
        rng,
        required: true,
    };
    tasks.spawn(watch.run(move |event| {
        if let Some(event) = known.read(event) {
            let _ = sender.send(event); // or the receiver is gone
        }
    }));
    events
}

/// Answers probes until the agent is to end. `drains`: it was asked to let go of what it does not have yet.
async fn idle(
    notices: &mut mpsc::Receiver<Notice>,
    health: &watch::Sender<Health>,
    clocks: &Clocks,
    drains: &mut bool,
) {
    loop {
        health.send_modify(|health| {
            health.turned_at = clocks.boottime();
            health.is_drained = *drains;
        });
        match tokio::time::timeout(Duration::from_secs(1), notices.recv()).await {
            Ok(Some(Notice::Terminate)) => return,
            Ok(Some(Notice::Drain)) => *drains = true,
            Ok(Some(Notice::Anew)) => *drains = false,
            Ok(None) => std::future::pending().await, // no sender is left
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A6: who was started again is not kept from its listeners by what the one before has asked for.
    #[tokio::test]
    async fn what_was_asked_for_before_there_is_a_session_can_be_over() {
        for (told, drains) in [(&[Notice::Drain][..], true), (&[Notice::Drain, Notice::Anew], false)] {
            let (sender, mut notices) = mpsc::channel(4);
            for notice in told.iter().chain(&[Notice::Terminate]) {
                sender.send(*notice).await.unwrap();
            }
            let (health, mut found) = (watch::Sender::new(Health::default()), false);
            idle(&mut notices, &health, &Clocks::system(), &mut found).await;
            assert_eq!((found, health.borrow().is_drained), (drains, drains), "{told:?}");
        }
    }
}
