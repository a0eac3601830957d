//! `history [rollout] NAME`: revisions, and what was done.
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use super::{
    Connection,
    draw::{self, Options},
    hints, kubeconfig,
    output::{Output, note, say},
    screen::Screen,
    target::RolloutTarget,
};
use crate::{
    command::undo::numbered,
    view::history::{self, Record},
};

/// `kubectl baton history web --revision 4`
#[derive(Args, Debug)]
pub(super) struct History {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Show all details of the revision with this number.
    #[arg(long, value_name = "NUMBER")]
    revision: Option<i64>,
    /// Output format. wide: also the names of the ControllerRevisions, when each completed, and how long changes took.
    /// json, yaml: all details. name: only the names.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl History {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let name = self.rollout.name()?;
        let cluster = kubeconfig::connect(connection).await?;
        let rollout = hints::explained(&cluster, cluster.seen(&name)).await?;
        let snapshot = hints::explained(&cluster, cluster.snapshot(rollout)).await?;
        let options =
            Options { wide: self.output == Some(Output::Wide), width: Screen::new().width(), now: Timestamp::now() };
        let lines = if let Some(number) = self.revision {
            let record = history::record(&snapshot, numbered(&snapshot, number)?);
            match self.output {
                Some(output @ (Output::Json | Output::Yaml)) => return output.print(&record),
                Some(Output::Name) => vec![object(&record)],
                None | Some(Output::Wide) => {
                    draw::history::record(&name, &record, &serde_saphyr::to_string(&record.template)?, options.now)
                }
            }
        } else {
            let history = history::history(&snapshot);
            match self.output {
                Some(output @ (Output::Json | Output::Yaml)) => return output.print(&history),
                Some(Output::Name) => history.revisions.iter().map(object).collect(),
                None | Some(Output::Wide) => draw::history::history(&name, &history, options),
            }
        };
        for line in lines {
            say(&line);
        }
        if let Some(hint) = hints::unseen(&snapshot.rollout) {
            note(&hints::addressed(&hint, connection));
        }
        Ok(())
    }
}

/// As kubectl names it.
fn object(record: &Record) -> String {
    format!("controllerrevision.apps/{}", record.name)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;

    #[test]
    fn it_is_asked_for_as_with_kubectl() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["kubectl-baton", "history"], words].concat());
        for words in
            [&["web"][..], &["rollout", "web", "--revision=4"], &["rollout/web", "--revision", "4", "-o", "yaml"]]
        {
            parse(words).unwrap();
        }
        assert!(parse(&["web", "--revision", "last"]).is_err());
        assert!(parse(&["web", "-o", "custom"]).is_err());
    }
}
