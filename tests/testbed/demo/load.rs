//! The load: `baton-testbed load` where Pod addresses can be reached, from before the first scene until after the last.
use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    time,
};

use super::stage::{NAMESPACE, Stage};
use crate::load::{
    stream::Line,
    tally::{Report, Second},
};

const NAME: &str = "load";
/// Requests a second, and connections to each endpoint.
const RATE: &str = "200";
const CONNECTIONS: &str = "8";
/// Until the first answers are counted.
const START: Duration = Duration::from_mins(1);

pub struct Load {
    report: PathBuf,
    latest: watch::Receiver<Option<Second>>,
}

impl Load {
    /// Starts it, and returns once it is answered.
    pub async fn start(stage: &Stage) -> Result<Self> {
        let report = stage.dir.join("load.json");
        let mut command = stage.inside(stage.programs.this());
        command.args(["load", "--service", "web", "--namespace", NAMESPACE, "--stream"]);
        command.args(["--rate", RATE, "--connections", CONNECTIONS]).arg("--report").arg(&report);
        let output = stage.run(NAME, command, true)?.context("no pipe")?;
        let (publish, mut latest) = watch::channel(None);
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(Line::Second(second)) = serde_json::from_str(&line) {
                    publish.send_replace(Some(second));
                }
            }
        });
        let answered = latest.wait_for(|second: &Option<Second>| second.as_ref().is_some_and(|it| it.counts.ok > 0));
        time::timeout(START, answered).await.context("no request was answered")?.context("the load has ended")?;
        Ok(Self { report, latest })
    }

    /// What it does, for people.
    pub fn words(&self) -> String {
        let answered = self.latest.borrow().as_ref().map_or(0, |second| second.counts.ok);
        format!("{answered} requests answered in its first second")
    }

    /// Ends it, and reads its report.
    pub async fn finish(self, stage: &Stage) -> Result<Report> {
        stage.stop(NAME).await?;
        let text = std::fs::read(&self.report).context("the load has left no report")?;
        Ok(serde_json::from_slice(&text)?)
    }
}
