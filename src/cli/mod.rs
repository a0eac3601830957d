//! The kubectl plugin. One module per verb: fetch → view → print. It holds no rule of its own: what it shows comes from
//! [`crate::view`], what it foretells from the planner.
mod change;
mod cluster;
mod draw;
mod follow;
mod get;
mod hints;
mod history;
#[cfg(test)]
mod listener_set_tests;
mod manifest;
mod output;
mod plan;
mod screen;
mod status;
mod steer;
mod target;
#[cfg(test)]
mod tests;
mod undo;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// See and steer Rollouts, instances in numbered slots that are replaced in batches, and the listeners that they hold.
#[derive(Parser, Debug)]
#[command(name = "kubectl-baton", bin_name = "kubectl baton", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

/// Which cluster, as whom, and how to print.
#[derive(Args, Debug, Clone)]
struct Connection {
    /// Namespace; default: that of the context.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Context of the kubeconfig; default: the current one.
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// Path of the kubeconfig; default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Plain text. So does the environment variable NO_COLOR.
    #[arg(long, global = true)]
    no_color: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show a Rollout with its revisions, batches and Pods, each of its instances, or a ListenerSet with who holds its listeners.
    Get(get::Get),
    /// List the revisions of a Rollout, and what was done to it, when, by whom and why; with --revision one of them in full.
    History(history::History),
    /// Wait until a Rollout is done, and say what it waits for; exit 1 when it fails.
    Status(status::Status),
    /// Tell what applying a file would do, batch by batch, without doing it.
    Plan(plan::Plan),
    /// Let a run go on past its pause, or clients have the new set (strategy BlueGreen).
    #[command(visible_alias = "promote")]
    Approve(steer::Approve),
    /// Give the run up that is on: back to the version that was complete before.
    Abort(steer::Ask),
    /// Try again what has failed, or was aborted.
    Retry(steer::Ask),
    /// Replace every Pod, at its version, in batches without their pauses.
    Restart(steer::Ask),
    /// Begin nothing until `resume`; lost Pods still come back.
    Pause(steer::Name),
    /// Go on after `pause`.
    Resume(steer::Name),
    /// Run an earlier version again, in all instances or in chosen ones, which are pinned to it.
    Undo(undo::Undo),
    /// Let pinned instances (--instances 3,5-7 or --all) run the present version again.
    Unpin(undo::Unpin),
    /// Print the version of this plugin.
    Version,
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    if cli.connection.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    let done = match cli.verb {
        Verb::Get(get) => get.run(&cli.connection).await,
        Verb::History(history) => history.run(&cli.connection).await,
        Verb::Status(status) => status.run(&cli.connection).await,
        Verb::Plan(plan) => plan.run(&cli.connection).await,
        Verb::Approve(approve) => Box::pin(approve.run(&cli.connection)).await,
        Verb::Abort(ask) => Box::pin(ask.run(&cli.connection, "abort", steer::abort)).await,
        Verb::Retry(ask) => Box::pin(ask.run(&cli.connection, "retry", steer::retry)).await,
        Verb::Restart(ask) => Box::pin(ask.run(&cli.connection, "restart", steer::restart)).await,
        Verb::Pause(name) => Box::pin(name.run(&cli.connection, true)).await,
        Verb::Resume(name) => Box::pin(name.run(&cli.connection, false)).await,
        Verb::Undo(undo) => Box::pin(undo.run(&cli.connection)).await,
        Verb::Unpin(unpin) => Box::pin(unpin.run(&cli.connection)).await,
        Verb::Version => {
            anstream::println!("Client Version: v{}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = hints::addressed(&format!("{error:#}"), &cli.connection);
            anstream::eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
