//! Logs: one line a transition, as text or JSON, to standard error.
use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `RUST_LOG` sets what is shown; without it, `level`.
///
/// # Errors
/// When logging has been started already.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    // The client logs each failed request as an error; whether it is one, the caller knows, and says so.
    let filter =
        EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(format!("kube_client=off,{level}")))?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
