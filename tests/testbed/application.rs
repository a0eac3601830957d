//! An application beside an agent, on the SDK: each listener does what its config says, and notes it in the file `$LOG`.
use std::{
    env,
    fs::File,
    io::Write,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use baton::sdk::{Error, Fence, Listener, Resume, Sidecar, Stop, Unit};
use serde::Deserialize;
use serde_json::{Value, json};

const BEAT: Duration = Duration::from_millis(20);

/// What a listener is like.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Manner {
    /// Stops when it is asked to.
    #[default]
    Polite,
    /// Does not care, but lets itself be dropped.
    Deaf,
    /// Does not care, and blocks its thread.
    Blocking,
    /// Polite, but never says that it works.
    Silent,
    /// Ends by itself, with a reason.
    Failing,
    /// Cannot be prepared.
    Unprepared,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    manner: Manner,
}

struct Noting;

impl Listener for Noting {
    async fn prepare(&self, unit: &Unit) -> Result<(), Error> {
        note("prepare", unit, "-", "");
        match unit.config::<Config>()?.manner {
            Manner::Unprepared => Err(Error::new("ConnectTimeout", "no route")),
            _ => Ok(()),
        }
    }

    async fn unprepare(&self, unit: &Unit) {
        note("unprepare", unit, "-", "");
    }

    async fn run(&self, unit: Unit, resume: Resume, fence: Fence, stop: Stop) -> Result<Resume, Error> {
        let resume = resume.read::<Value>()?.map(|value| value.to_string()).unwrap_or_default();
        let noted = Noted { unit: &unit, fence: &fence };
        note("start", &unit, fence.token(), &resume);
        let manner = unit.config::<Config>()?.manner;
        if !matches!(manner, Manner::Silent) {
            unit.tick();
        }
        match manner {
            Manner::Failing => return Err(Error::new("ConnectTimeout", "no route")),
            Manner::Deaf => loop {
                note("beat", &unit, fence.token(), "");
                tokio::time::sleep(BEAT).await;
            },
            Manner::Blocking => {
                tokio::time::sleep(Duration::from_millis(200)).await; // what was said is on its way
                loop {
                    note("beat", &unit, fence.token(), "");
                    thread::sleep(BEAT);
                }
            }
            Manner::Polite | Manner::Silent | Manner::Unprepared => stop.cancelled().await,
        }
        note("stop", &unit, fence.token(), "");
        std::mem::forget(noted);
        Resume::new(&json!({"from": env::var("BATON_POD_NAME").unwrap_or_default()}))
    }
}

/// Notes that a listener was dropped.
struct Noted<'a> {
    unit: &'a Unit,
    fence: &'a Fence,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        note("drop", self.unit, self.fence.token(), "");
    }
}

/// As the children of `exec` do it in the tests of the agent.
fn note(what: &str, unit: &Unit, token: &str, resume: &str) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let line = format!("{what} {} {at} {token} {resume}\n", unit.listener());
    let file = env::var_os("LOG").map(|path| File::options().create(true).append(true).open(path));
    if let Some(Ok(mut file)) = file {
        let _ = file.write_all(line.as_bytes());
    }
}

pub fn run() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(Sidecar::from_environment().run(Noting));
    // Whatever still blocks a thread is not waited for.
    runtime.shutdown_background();
    outcome.context("listeners cannot be run")?;
    Ok(ExitCode::SUCCESS)
}
