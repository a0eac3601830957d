//! `get rollouts`, `get rollout NAME`, `get instances NAME`, `get listenerset NAME`.
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Connection,
    draw::{self, Options},
    exit::Exit,
    follow::{Follow, Seen},
    hints, kubeconfig, list,
    output::{Output, note, say},
    screen::Screen,
    target::{Target, is_plural, target_of},
};
use crate::{
    api::{ListenerSet, Rollout},
    client::{Cluster, Ours},
    snapshot::{Snapshot, listener_set::SetSnapshot},
    view::{
        instances::instances,
        listener_set::{self, LISTENERS_LISTED_MAX},
        rollout::{self, PODS_LISTED_MAX},
    },
};

/// How often ages are drawn anew while nothing happens.
const REDRAW_SECONDS: u64 = 1;

/// `kubectl baton get rollout web -w`
#[derive(Args, Debug)]
#[command(override_usage = "kubectl baton get [OPTIONS] [rollout|instances|listenerset] <NAME>")]
pub(super) struct Get {
    /// Name of a Rollout. After the word `instances`: name of the Rollout whose instances to list. After `listenerset`:
    /// name of a ListenerSet. The word `rollouts` without a name lists all Rollouts.
    #[arg(required_unless_present = "all_namespaces", num_args = 1..=2, value_name = "NAME")]
    target: Vec<String>,
    /// List the Rollouts of every namespace.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show changes until Ctrl-C: on a terminal by redrawing, elsewhere with a line for each change.
    #[arg(short, long)]
    watch: bool,
    /// Output format. wide: also nodes, addresses and images, or every listener. json, yaml: the object as it is, or
    /// all details of each instance. name: only the names.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// What is drawn of an object.
trait Shown {
    /// In words.
    const KIND: &str;
    /// All there is to see; what is well is counted instead of listed where that is asked for.
    fn lines(&self, options: Options, only_unwell: bool) -> Vec<String>;
    /// One line for a log.
    fn line(&self) -> String;
    fn at(&self) -> Timestamp;
    /// Where to look while no operator has seen it.
    fn unseen(&self) -> Option<String>;
}

impl Shown for Snapshot {
    const KIND: &str = "rollout";

    fn lines(&self, options: Options, only_unwell: bool) -> Vec<String> {
        draw::rollout(&rollout::view(self, if only_unwell { 0 } else { PODS_LISTED_MAX }), options)
    }

    fn line(&self) -> String {
        draw::line(&rollout::view(self, 0).header)
    }

    fn at(&self) -> Timestamp {
        self.now
    }

    fn unseen(&self) -> Option<String> {
        hints::unseen(&self.rollout)
    }
}

impl Shown for SetSnapshot {
    const KIND: &str = "listenerset";

    fn lines(&self, options: Options, only_unwell: bool) -> Vec<String> {
        let listed_max = match (only_unwell, options.wide) {
            (true, _) => 0,
            (false, true) => usize::MAX,
            (false, false) => LISTENERS_LISTED_MAX,
        };
        draw::listener_set(&listener_set::view(self, listed_max), options)
    }

    fn line(&self) -> String {
        draw::set_line(&listener_set::view(self, 0).header)
    }

    fn at(&self) -> Timestamp {
        self.now
    }

    fn unseen(&self) -> Option<String> {
        hints::unseen(&self.set)
    }
}

impl Get {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        if self.all_namespaces || is_plural(&self.target) {
            return self.list(connection).await;
        }
        let target = target_of(&self.target)?;
        let cluster = kubeconfig::connect(connection).await?;
        let wide = self.output == Some(Output::Wide);
        match (&target, self.output) {
            (Target::Rollout(name), None | Some(Output::Wide)) => {
                if self.watch {
                    hints::explained(&cluster, cluster.rollout(name)).await?; // says what to do when it is not there
                    return watch(Follow::all(&cluster, name), name, wide).await;
                }
                let rollout = hints::explained(&cluster, cluster.seen(name)).await?;
                let snapshot = hints::explained(&cluster, cluster.snapshot(rollout)).await?;
                print(&snapshot, wide, connection);
                Ok(())
            }
            (Target::ListenerSet(name), None | Some(Output::Wide)) => {
                let set = hints::explained(&cluster, cluster.seen::<ListenerSet>(name)).await?;
                let snapshot = hints::explained(&cluster, cluster.set_snapshot(set)).await?; // so does this, of Leases
                if self.watch {
                    let config_map = snapshot.set.spec.config_map.as_ref().map(|source| source.name.as_str());
                    return watch(Follow::listener_set(&cluster, name, config_map), name, wide).await;
                }
                print(&snapshot, wide, connection);
                Ok(())
            }
            (Target::Instances(name), _) => self.print_instances(&cluster, name).await,
            (Target::Rollout(name), Some(output)) => self.print_object::<Rollout>(&cluster, name, output).await,
            (Target::ListenerSet(name), Some(output)) => self.print_object::<ListenerSet>(&cluster, name, output).await,
        }
    }

    async fn list(&self, connection: &Connection) -> Result<()> {
        if !self.target.is_empty() && !is_plural(&self.target) {
            return Err(Exit::Usage
                .because("-A lists the Rollouts of every namespace: leave the name out, or say -n NAMESPACE"));
        }
        if self.watch {
            return Err(
                Exit::Usage.because("-w follows one object; `kubectl get rollouts.baton.dev -w` follows them all")
            );
        }
        list::print(connection, self.all_namespaces, self.output).await
    }

    async fn print_instances(&self, cluster: &Cluster, name: &str) -> Result<()> {
        if self.watch {
            bail!("instances are listed once; `kubectl baton get rollout {name} -w` follows them");
        }
        let rollout = hints::explained(cluster, cluster.rollout(name)).await?;
        let snapshot = hints::explained(cluster, cluster.snapshot(rollout)).await?;
        let all = instances(&snapshot);
        match self.output {
            Some(output @ (Output::Json | Output::Yaml)) => output.print(&json!({"items": all}))?,
            Some(Output::Name) => all.iter().for_each(|one| say(&one.name)),
            output => draw::instances(&all, output.is_some()).iter().for_each(|line| say(line)),
        }
        Ok(())
    }

    async fn print_object<K: Ours>(&self, cluster: &Cluster, name: &str, output: Output) -> Result<()> {
        if self.watch {
            let plural = K::plural(&());
            bail!(
                "-w draws the tree; for objects as they change use `kubectl get {plural}.baton.dev {name} -w -o json`"
            );
        }
        let object = hints::explained(cluster, cluster.object::<K>(name)).await?;
        if output == Output::Name {
            say(&format!("{}.baton.dev/{name}", K::kind(&()).to_lowercase()));
            return Ok(());
        }
        let mut object = serde_json::to_value(object)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields"); // as kubectl does
        }
        output.print(&object)
    }
}

fn print(shown: &impl Shown, wide: bool, connection: &Connection) {
    let options = Options { wide, width: Screen::new().width(), now: Timestamp::now() };
    for line in shown.lines(options, false) {
        say(&line);
    }
    if let Some(hint) = shown.unseen() {
        note(&hints::addressed(&hint, connection));
    }
}

/// What fits the screen: everything if it does, else what is not well.
fn fitting(shown: &impl Shown, wide: bool, screen: &Screen) -> Vec<String> {
    let options = Options { wide, width: screen.width(), now: Timestamp::now() };
    let all = shown.lines(options, false);
    if all.len() <= screen.lines_max() { all } else { shown.lines(options, true) }
}

/// Until Ctrl-C, or until the object is gone.
async fn watch<S: Shown>(mut follow: Follow<S>, name: &str, wide: bool) -> Result<()> {
    let mut screen = Screen::new();
    let mut last = String::new();
    let mut trouble = None;
    loop {
        let (is_news, seen) = tokio::select! {
            seen = follow.next() => (true, seen?),
            () = tokio::time::sleep(Duration::from_secs(REDRAW_SECONDS)), if screen.is_terminal() => (false, follow.now()?),
        };
        if is_news && !matches!(seen, Seen::Lost(_)) {
            trouble = None;
        }
        match seen {
            Seen::Now(shown) if screen.is_terminal() => {
                let mut lines = fitting(&*shown, wide, &screen);
                lines.extend(trouble.clone());
                screen.draw(&lines)?;
            }
            Seen::Now(shown) => {
                let line = shown.line();
                if line != last {
                    say(&format!("{} {line}", clock(shown.at())));
                    last = line;
                }
            }
            Seen::Gone if follow.is_complete() => {
                say(&format!("{} \"{name}\" is deleted", S::KIND));
                return Ok(());
            }
            Seen::Gone => {}
            Seen::Lost(why) => {
                let sentence = format!("connection lost, trying again: {why}");
                if trouble.is_none() && !screen.is_terminal() {
                    note(&sentence);
                }
                trouble = Some(sentence);
            }
        }
    }
}

/// `10:00:05Z`.
fn clock(now: Timestamp) -> String {
    now.strftime("%H:%M:%SZ").to_string()
}
