//! `status [rollout] NAME`: kubectl's words, and an exit code for each way it may stand.
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    Connection,
    exit::{self, Exit},
    follow::{Follow, Seen},
    hints, kubeconfig,
    output::{note, say},
    target::RolloutTarget,
};
use crate::{
    api::Rollout,
    client::{Cluster, UNSEEN_AFTER},
    view::{
        age::age,
        progress::{Opener, Progress, progress},
        rollout::state,
    },
};

/// `kubectl baton status web --timeout 5m`
#[derive(Args, Debug)]
#[command(after_help = exit::HELP)]
pub(super) struct Status {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Stop waiting after this time, such as 90s or 5m. 0: no limit.
    #[arg(long, default_value = "30m", value_parser = seconds, value_name = "DURATION")]
    timeout: Duration,
    /// Keep waiting if a person has to approve or resume the Rollout, instead of ending with exit code 3.
    #[arg(long)]
    wait_for_approval: bool,
    /// Wait until the Rollout is complete. `--watch=false` prints the present state and ends with the exit code for it:
    /// 4 if the rollout is in progress.
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    watch: bool,
}

/// `90s`, `5m`, `1h30m`, or seconds alone, as kubectl takes them.
fn seconds(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: Result<jiff::SignedDuration, _> = text.parse();
    span.ok().and_then(|span| span.try_into().ok()).ok_or_else(|| "write a time such as 90s or 5m".to_owned())
}

impl Status {
    pub async fn run(&self, connection: &Connection) -> Result<Exit> {
        self.of(&kubeconfig::connect(connection).await?, connection).await
    }

    async fn of(&self, cluster: &Cluster, connection: &Connection) -> Result<Exit> {
        let name = self.rollout.name()?;
        let waits_on = self.wait_for_approval;
        let mut teller = Teller { connection, waits_on, said: Vec::new(), last: None, hinted: None };
        if let Some(exit) = teller.tell(hints::explained(cluster, cluster.rollout(&name)).await?)? {
            return Ok(exit);
        }
        if !self.watch {
            return Ok(Exit::TimedOut);
        }
        let wait = teller.wait(Follow::rollout(cluster, &name), &name);
        if self.timeout.is_zero() {
            return wait.await;
        }
        if let Ok(waited) = tokio::time::timeout(self.timeout, wait).await {
            return waited;
        }
        let last = teller.gives_up();
        let seconds = i64::try_from(self.timeout.as_secs()).unwrap_or(i64::MAX);
        Err(Exit::TimedOut.because(format!("timed out after {} waiting for rollout \"{name}\": {last}", age(seconds))))
    }
}

/// Prints each line once.
struct Teller<'a> {
    connection: &'a Connection,
    /// A person's word is waited for.
    waits_on: bool,
    said: Vec<String>,
    /// As last seen.
    last: Option<Rollout>,
    /// What was said of where to look while no operator has seen it.
    hinted: Option<String>,
}

impl Teller<'_> {
    async fn wait(&mut self, mut follow: Follow, name: &str) -> Result<Exit> {
        loop {
            let seen = match tokio::time::timeout(UNSEEN_AFTER, follow.next()).await {
                Ok(seen) => seen?,
                Err(_) if !follow.is_complete() => continue,
                Err(_) => {
                    self.hint();
                    follow.now()? // what was dropped may have known more
                }
            };
            match seen {
                Seen::Now(snapshot) => {
                    if let Some(exit) = self.tell(snapshot.rollout)? {
                        return Ok(exit);
                    }
                }
                Seen::Gone => return Err(Exit::NotFound.because(format!("rollout \"{name}\" was deleted"))),
                Seen::Lost(why) => note(&format!("connection lost, trying again: {why}")),
            }
        }
    }

    /// Says once where to look while no operator has seen it as it is.
    fn hint(&mut self) {
        let unseen = self.last.as_ref().and_then(hints::unseen);
        if let Some(hint) = unseen.as_ref().filter(|_| unseen != self.hinted) {
            note(&hints::addressed(hint, self.connection));
        }
        self.hinted = unseen;
    }

    /// What it waited for when the time was over.
    fn gives_up(&mut self) -> String {
        self.hint();
        let Some(last) = &self.last else { return String::new() };
        state(&last.status.clone().unwrap_or_default(), last.metadata.generation).2
    }

    /// Says how it stands. A code when that is all there is to wait for; an error when it will not be done.
    fn tell(&mut self, rollout: Rollout) -> Result<Option<Exit>> {
        let progress = progress(&rollout, Timestamp::now());
        self.last = Some(rollout);
        let (lines, exit) = match progress {
            Progress::Going(line, None) => (vec![line], None),
            Progress::Going(line, Some(Opener::Clock(waits))) => (vec![line, waits], None),
            Progress::Going(line, Some(Opener::Person(waits))) => {
                (vec![line, waits], Some(Exit::Waits).filter(|_| !self.waits_on))
            }
            Progress::Done(line) => (vec![line], Some(Exit::Done)),
            Progress::Stalled(why) => return Err(Exit::Failed.because(why)),
        };
        for line in lines.iter().filter(|line| !self.said.contains(line)) {
            say(line);
        }
        self.said = lines;
        if exit == Some(Exit::Waits) {
            let name = self.last.as_ref().map(ResourceExt::name_any).unwrap_or_default();
            let on =
                format!("a person has to act: exit code 3; `kubectl baton status {name} --wait-for-approval` waits on");
            note(&hints::addressed(&on, self.connection));
        }
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cli::{Cli, Verb},
        scripted::{self, Answer},
    };

    /// How `status web ARGS` ends where the API server has this Rollout.
    async fn ended(args: &str, object: Value) -> Result<Exit, (Exit, String)> {
        let client = scripted::client(move |call| {
            let resource = "/apis/baton.dev/v1alpha1/namespaces/shop/rollouts";
            let mut listed = json!({"metadata": {"resourceVersion": "9"}});
            listed["items"] = json!([object]);
            match (call.path.as_str(), call.is_watch()) {
                (path, false) if path.ends_with("/rollouts/web") => Answer::ok(object.clone()),
                (path, false) if path == resource => Answer::ok(listed),
                _ => Answer::Never,
            }
        });
        let words = ["kubectl-baton", "status", "web"].into_iter().chain(args.split_whitespace());
        let Verb::Status(status) = Cli::try_parse_from(words).unwrap().verb else { panic!("status") };
        let connection = Connection { namespace: None, context: None, kubeconfig: None, no_color: true };
        let ended = status.of(&Cluster { client, namespace: "shop".into() }, &connection).await;
        ended.map_err(|error| (Exit::of(&error), error.to_string()))
    }

    fn rollout(reason: &str, type_: &str, spec: &Value) -> Value {
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T10:00:00Z"});
        let conditions = match type_ {
            "Ready" => vec![condition("Ready", "True")],
            other => vec![condition("Ready", "False"), condition(other, "True")],
        };
        let mut object = json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 2, "resourceVersion": "5"},
            "spec": {"replicas": 4, "selector": {"matchLabels": {}}, "template": {}},
            "status": {"observedGeneration": 2, "waitingFor": "as said", "conditions": conditions},
        });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object
    }

    /// B7: what a script may tell apart, by the code alone.
    #[tokio::test(start_paused = true)]
    async fn each_end_has_its_code() {
        let none = json!({});
        let complete = rollout("Complete", "Ready", &none);
        let awaiting = rollout("AwaitingApproval", "Reconciling", &none);
        let rolling = rollout("RollingOut", "Reconciling", &none);
        let failed = rollout("RolledBack", "Stalled", &none);
        let paused = rollout("Paused", "Reconciling", &json!({"paused": true}));
        let timed = rollout("Paused", "Reconciling", &none);
        for watch in ["", "--watch=false"] {
            assert_eq!(ended(watch, complete.clone()).await, Ok(Exit::Done));
            assert_eq!(ended(watch, awaiting.clone()).await, Ok(Exit::Waits));
            assert_eq!(ended(watch, paused.clone()).await, Ok(Exit::Waits));
            let (exit, why) = ended(watch, failed.clone()).await.unwrap_err();
            assert_eq!((exit, why.contains("is stalled (RolledBack)")), (Exit::Failed, true), "{why}");
        }
        for going in [&rolling, &timed] {
            assert_eq!(ended("--watch=false", going.clone()).await, Ok(Exit::TimedOut), "as it stands");
            let (exit, why) = ended("", going.clone()).await.unwrap_err();
            assert_eq!(
                (exit, why.as_str()),
                (Exit::TimedOut, "timed out after 30m waiting for rollout \"web\": as said")
            );
        }
        let (exit, why) = ended("--wait-for-approval --timeout 90s", awaiting).await.unwrap_err();
        assert_eq!(exit, Exit::TimedOut, "{why}");
    }
}
