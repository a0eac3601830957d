//! `undo`, `unpin`: what all instances, or chosen ones, are to run.
use anyhow::Result;
use clap::{ArgGroup, Args};

use super::{Connection, change::Editor, target::RolloutTarget};
use crate::{client::Reads, command::undo, plan, snapshot::Ranges};

/// `kubectl baton undo web --instances 3,5-7`
#[derive(Args, Debug)]
pub(super) struct Undo {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Version to run, or the name of a ControllerRevision. Default: the newest earlier version that completed and has
    /// not failed since.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Number of the revision to run, as `kubectl baton history` shows it.
    #[arg(long, value_name = "NUMBER", conflicts_with = "to")]
    to_revision: Option<i64>,
    /// Change only these instances, such as 3,5-7, and pin them. The other instances stay as they are.
    #[arg(long, value_name = "NUMBERS", conflicts_with = "failed", value_parser = instances)]
    instances: Option<Ranges>,
    /// Change only the instances that have failed or are failing now, and pin them. The other instances stay as they are.
    #[arg(long)]
    failed: bool,
    /// Use the recorded digests of the images and the package, so that exactly the same files run even if a tag or URL
    /// has changed since.
    #[arg(long)]
    digests: bool,
    /// Reason; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `kubectl baton unpin web --instances 3`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true))]
pub(super) struct Unpin {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Unpin these instances, such as 3,5-7.
    #[arg(long, value_name = "NUMBERS", group = "which", value_parser = instances)]
    instances: Option<Ranges>,
    /// Unpin all instances.
    #[arg(long, group = "which")]
    all: bool,
    /// Reason; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Instance numbers, as `spec.pins[].instances` has them.
fn instances(text: &str) -> Result<Ranges, String> {
    let is_read = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last && last < 10_000)
    };
    if text.split(',').all(is_read) {
        Ok(Ranges::parse(text))
    } else {
        Err("write numbers and ranges such as 3,5-7".into())
    }
}

impl Undo {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = editor.request("undo", self.reason.clone()).await;
        // What fails now is seen in Pods.
        let reads = if self.failed { Reads::All } else { Reads::Revisions };
        let changed = editor.change_by(reads, |snapshot| {
            let word = self.to_revision.map(|number| undo::numbered(snapshot, number)).transpose()?;
            let word = word.map(|revision| revision.name.as_str()).or(self.to.as_deref());
            let to = undo::again(snapshot, word, self.digests)?;
            let chosen = if self.failed { Some(plan::undo::failed(snapshot)) } else { self.instances.clone() };
            match chosen {
                None => undo::whole(snapshot, &to, &request),
                Some(chosen) => undo::pin(snapshot, &to, &chosen, &request),
            }
        });
        Box::pin(changed).await
    }
}

impl Unpin {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = editor.request("unpin", self.reason.clone()).await;
        let changed = editor.change(|rollout| undo::unpin(rollout, self.instances.as_ref(), &request));
        Box::pin(changed).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_numbers_and_ranges() {
        assert_eq!(instances("3,5-7").unwrap().to_string(), "3,5-7");
        for text in ["", "a", "3;5", "7-5", "10000", "3,"] {
            assert!(instances(text).unwrap_err().contains("3,5-7"), "{text}");
        }
    }
}
