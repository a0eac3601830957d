//! `get rollout NAME`.
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Connection,
    cluster::Cluster,
    draw,
    follow::{Follow, Seen},
    screen::Screen,
    target::name_of,
};
use crate::{
    snapshot::Snapshot,
    view::rollout::{PODS_LISTED_MAX, view},
};

/// How often ages are drawn anew while nothing happens.
const REDRAW_SECONDS: u64 = 1;

/// `kubectl baton get rollout web -w`
#[derive(Args, Debug)]
pub(super) struct Get {
    /// `rollout NAME`.
    #[arg(required = true, num_args = 1..=2, value_name = "rollout NAME")]
    target: Vec<String>,
    /// Follow it until Ctrl-C. Drawn in place on a terminal; elsewhere a line for each change.
    #[arg(short, long)]
    watch: bool,
    /// Another form: wide adds nodes, addresses and images; json and yaml print the object.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Json,
    Yaml,
    Name,
}

impl Get {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let name = name_of(&self.target)?;
        let cluster = Cluster::connect(connection).await?;
        let wide = self.output == Some(Output::Wide);
        match self.output {
            None | Some(Output::Wide) if self.watch => {
                cluster.rollout(&name).await?; // says what to do when it is not there
                watch(Follow::all(&cluster, &name), &name, wide).await
            }
            _ if self.watch => bail!(
                "-w draws the tree; for objects as they change use `kubectl get rollouts.baton.dev {name} -w -o json`"
            ),
            None | Some(Output::Wide) => {
                let rollout = cluster.rollout(&name).await?;
                let screen = Screen::new();
                for line in lines(&cluster.snapshot(rollout).await?, wide, &screen) {
                    anstream::println!("{line}");
                }
                Ok(())
            }
            Some(Output::Name) => {
                cluster.rollout(&name).await?;
                anstream::println!("rollout.baton.dev/{name}");
                Ok(())
            }
            Some(output @ (Output::Json | Output::Yaml)) => {
                let mut object = serde_json::to_value(cluster.rollout(&name).await?)?;
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields"); // as kubectl does
                }
                let text = if output == Output::Json {
                    serde_json::to_string_pretty(&object)? + "\n"
                } else {
                    serde_saphyr::to_string(&object)?
                };
                anstream::print!("{text}");
                Ok(())
            }
        }
    }
}

fn lines(snapshot: &Snapshot, wide: bool, screen: &Screen) -> Vec<String> {
    let options = draw::Options { wide, width: screen.width(), now: Timestamp::now() };
    draw::rollout(&view(snapshot, PODS_LISTED_MAX), options)
}

/// What fits the screen: all Pods if they do, else those that are not well.
fn fitting(snapshot: &Snapshot, wide: bool, screen: &Screen) -> Vec<String> {
    let all = lines(snapshot, wide, screen);
    if all.len() <= screen.lines_max() {
        return all;
    }
    let options = draw::Options { wide, width: screen.width(), now: Timestamp::now() };
    draw::rollout(&view(snapshot, 0), options)
}

/// Until Ctrl-C, or until the object is gone.
async fn watch(mut follow: Follow, name: &str, wide: bool) -> Result<()> {
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
            Seen::Now(snapshot) if screen.is_terminal() => {
                let mut lines = fitting(&snapshot, wide, &screen);
                lines.extend(trouble.clone());
                screen.draw(&lines)?;
            }
            Seen::Now(snapshot) => {
                let line = draw::line(&view(&snapshot, 0).header);
                if line != last {
                    anstream::println!("{} {line}", clock(snapshot.now));
                    last = line;
                }
            }
            Seen::Gone if follow.is_complete() => {
                anstream::println!("rollout \"{name}\" is deleted");
                return Ok(());
            }
            Seen::Gone => {}
            Seen::Lost(why) => {
                let sentence = format!("connection lost, trying again: {why}");
                if trouble.is_none() && !screen.is_terminal() {
                    anstream::eprintln!("{sentence}");
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
