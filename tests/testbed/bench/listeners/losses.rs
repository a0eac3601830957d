//! Listeners that are lost, one way after the other, and how long each is missing.
use std::time::Duration;

use anyhow::{Context, Result};
use baton::api::{names, session::SessionProfile};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::{conditions::is_deleted, wait::await_condition},
};
use serde_json::json;
use tokio::time;

use super::{super::subject::NAMESPACE, PATIENCE, POLL, REST, Scene, farm::Farm};

/// Beyond D.
const LITTLE: Duration = Duration::from_secs(1);
/// Crashes of listeners.
const CRASHES: usize = 12;

/// From the end of a listener to its next start, in milliseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// It has crashed, and starts in place.
    pub crashes: Vec<f64>,
    /// The container of its agent has ended, and the node says so.
    pub terminated: Vec<f64>,
    /// Its agent has fallen silent: profile Default, then profile Fast.
    pub silent: [Vec<f64>; 2],
}

/// Loses listeners of a set that is at rest.
pub async fn measure(client: &Client, scene: &Scene, farm: &Farm) -> Result<Losses> {
    let victims = Victims { scene, farm, pods: Api::namespaced(client.clone(), NAMESPACE) };
    let mut losses = Losses::default();
    for listener in farm.running().iter().take(CRASHES) {
        farm.crash(listener);
        losses.crashes.extend(victims.gaps(1).await.with_context(|| format!("{listener} was not started again"))?);
    }
    losses.crashes.sort_by(f64::total_cmp);
    losses.terminated = victims.lose(true).await?;
    let default = victims.lose(false).await?;
    scene.choose_fast().await?;
    until_fast(&Api::namespaced(client.clone(), NAMESPACE)).await?;
    // Until then a session counts with the D that its holder before may have gone by.
    time::sleep(SessionProfile::Default.times().expire + LITTLE).await;
    losses.silent = [default, victims.lose(false).await?];
    Ok(losses)
}

/// Those that run listeners.
struct Victims<'a> {
    scene: &'a Scene,
    farm: &'a Farm,
    pods: Api<Pod>,
}

impl Victims<'_> {
    /// Ends the agent of some Pod. `is_told`: its node says so.
    async fn lose(&self, is_told: bool) -> Result<Vec<f64>> {
        let (name, count) = self.farm.busiest().context("nobody runs anything")?;
        let pod = self.pods.get(&name).await?;
        self.farm.take_gaps();
        self.farm.kill(&name);
        if is_told {
            let containers = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
            let ended: Vec<_> = containers.into_iter().map(ended).collect();
            let patch = Patch::Merge(json!({"status": {"containerStatuses": ended}}));
            self.pods.patch_status(&name, &PatchParams::default(), &patch).await?;
        }
        let gaps = self.gaps(count).await;
        let gaps = gaps.with_context(|| format!("nobody took over the {count} listeners of {name}"))?;
        // The next one is to find the world as this one did.
        self.pods.delete(&name, &DeleteParams::default()).await?;
        let uid = pod.metadata.uid.unwrap_or_default();
        time::timeout(PATIENCE, await_condition(self.pods.clone(), &name, is_deleted(&uid))).await??;
        time::sleep(REST).await;
        self.scene.until_settled().await.with_context(|| format!("{name} was not replaced"))?;
        time::sleep(REST).await;
        self.farm.take_gaps();
        Ok(gaps)
    }

    /// Waits for so many starts of what had ended.
    async fn gaps(&self, count: usize) -> Result<Vec<f64>> {
        let collect = async {
            let mut gaps = Vec::new();
            while gaps.len() < count {
                time::sleep(POLL).await;
                gaps.extend(self.farm.take_gaps().0);
            }
            gaps.sort_by(f64::total_cmp);
            gaps
        };
        Ok(time::timeout(PATIENCE, collect).await?)
    }
}

/// A container, as a kubelet tells of it when it was killed just now.
fn ended(mut container: ContainerStatus) -> ContainerStatus {
    let started_at = container.state.take().and_then(|state| state.running).and_then(|running| running.started_at);
    let container_id = Some("kwok://ended".to_owned());
    let terminated = ContainerStateTerminated {
        container_id: container_id.clone(),
        exit_code: 137,
        reason: Some("Error".to_owned()),
        started_at,
        finished_at: Some(Time(Timestamp::now())),
        ..ContainerStateTerminated::default()
    };
    container.state = Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() });
    ContainerStatus { container_id, ready: false, started: Some(false), ..container }
}

/// Waits until each session goes by profile Fast.
async fn until_fast(leases: &Api<Lease>) -> Result<()> {
    let sessions = ListParams::default().labels(&format!("{}={}", names::LABEL_LEASE, names::LEASE_SESSION));
    let is_fast = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds) == Some(5);
    let wait = async {
        loop {
            // Not the ownerships: a list of 10,000 of them stalls the API server of a small machine.
            if leases.list(&sessions).await?.iter().all(is_fast) {
                return anyhow::Ok(());
            }
            time::sleep(Duration::from_secs(1)).await;
        }
    };
    time::timeout(PATIENCE, wait).await.context("sessions did not become Fast")?
}
