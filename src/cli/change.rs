//! A change of a Rollout's spec, as a person asks for it.
use anyhow::{Result, bail};
use jiff::Timestamp;

use super::{Connection, exit::Exit, hints, kubeconfig, output::say, target::RolloutTarget};
use crate::{
    api::{Rollout, rollout::Request},
    client::{Cluster, Reads, Unchanged},
    command::Edited,
    snapshot::Snapshot,
};

/// Field manager of what this plugin writes.
const MANAGER: &str = "kubectl-baton";
/// Characters of `spec.request.by`.
const BY_CHARS_MAX: usize = 128;

/// The Rollout that is changed, where it is.
pub(super) struct Editor<'a> {
    pub name: String,
    cluster: Cluster,
    connection: &'a Connection,
}

impl<'a> Editor<'a> {
    pub async fn connect(connection: &'a Connection, rollout: &RolloutTarget) -> Result<Self> {
        Ok(Self { name: rollout.name()?, cluster: kubeconfig::connect(connection).await?, connection })
    }

    /// Changes the Rollout as it is now, and prints what that comes to. It takes get and patch on this one Rollout.
    pub async fn change(&self, make: impl Fn(&Rollout) -> Edited) -> Result<()> {
        self.print(self.cluster.change(&self.name, MANAGER, make).await).await
    }

    /// The same for an answer to the status: it is made once an operator has seen the present spec.
    pub async fn answer(&self, make: impl Fn(&Rollout) -> Edited) -> Result<()> {
        hints::explained(&self.cluster, self.cluster.seen::<Rollout>(&self.name)).await?;
        self.change(make).await
    }

    /// The same for what takes more than the object.
    pub async fn change_by(&self, reads: Reads, make: impl Fn(&Snapshot) -> Edited) -> Result<()> {
        self.print(self.cluster.change_by(&self.name, MANAGER, reads, make).await).await
    }

    async fn print(&self, changed: Result<String, Unchanged>) -> Result<()> {
        match changed {
            Ok(summary) => say(&hints::addressed(&summary, self.connection)),
            // What contradicts itself is wrong usage; the rest is about the Rollout as it is.
            Err(Unchanged::Refused(refusal)) if refusal.is_misuse() => {
                return Err(Exit::Usage.because(refusal.to_string()));
            }
            Err(Unchanged::Refused(refusal)) => return Err(refusal.into()),
            Err(Unchanged::Unanswered(why)) => return Err(hints::explain(&self.cluster, why).await),
            Err(Unchanged::Overtaken) => bail!("{} is changed by others all the time: try again", self.name),
        }
        Ok(())
    }

    /// Who asks for a change, and why. With an id it counts for that change alone: the next change of the spec need not take it
    /// out.
    pub async fn request(&self, verb: &str, reason: Option<String>) -> Request {
        let id = format!("{verb}-{}", Timestamp::now().as_millisecond());
        let by = self.cluster.caller().await.map(|name| name.chars().take(BY_CHARS_MAX).collect());
        Request { id: Some(id), by, reason }
    }
}
