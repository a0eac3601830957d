//! The kubectl plugin. One module per verb: fetch → view → print. It holds no rule of its own: what it shows comes from
//! [`crate::view`], what it foretells from the planner.
mod change;
mod completion;
mod deploy;
mod draw;
mod exit;
mod follow;
mod get;
mod hints;
mod history;
mod kubeconfig;
mod list;
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

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use exit::Exit;
use output::{note, say};

/// See and steer Rollouts, instances in numbered slots that are replaced in batches, and the listeners that they hold.
#[derive(Parser, Debug)]
#[command(name = "kubectl-baton", bin_name = "kubectl baton", version, arg_required_else_help = true, after_help = exit::HELP)]
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
    /// List the Rollouts of a namespace, or of all of them.
    List(list::List),
    /// List the revisions of a Rollout, and what was done to it, when, by whom and why; with --revision one of them in full.
    History(history::History),
    /// Wait until a Rollout is done, fails or waits for a person, and say what it waits for; the exit code tells which.
    Status(status::Status),
    /// Tell what applying a file would do, batch by batch, without doing it.
    Plan(plan::Plan),
    /// Deploy a version: an image, a package, a name for it.
    Deploy(deploy::Deploy),
    /// Set fields of the Pod template: `set image NAME CONTAINER=IMAGE`.
    Set(deploy::Set),
    /// Let a run go on past its pause. With strategy BlueGreen: let clients use the new set.
    #[command(visible_alias = "promote")]
    Approve(steer::Approve),
    /// Give up the run that is on: all instances go back to the version that was complete before.
    Abort(steer::Ask),
    /// Try a failed or aborted version again.
    Retry(steer::Ask),
    /// Replace every Pod, at its version, in batches without their pauses.
    Restart(steer::Ask),
    /// Begin nothing new until `resume`: no batch, replacement, restart or pin. Failed and aborted runs still go back, and lost
    /// instances come back.
    Pause(steer::Ask),
    /// Go on after `pause`.
    Resume(steer::Ask),
    /// Run an earlier version again, in all instances or in chosen ones, which are pinned to it.
    Undo(undo::Undo),
    /// Let pinned instances (--instances 3,5-7 or --all) run the present version again.
    Unpin(undo::Unpin),
    /// Print a script that completes words in a shell, or `kubectl baton` in kubectl's own completion.
    Completion(completion::Completion),
    /// What may stand in the place of the last word.
    #[command(name = "__complete", hide = true)]
    Complete(completion::Words),
    /// Print the version of this plugin.
    Version,
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    if cli.connection.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    match Box::pin(cli.verb.run(&cli.connection)).await {
        Ok(exit) => exit.into(),
        Err(error) => {
            let said = hints::addressed(&format!("{error:#}"), &cli.connection);
            note(&format!("error: {said}"));
            Exit::of(&error).into()
        }
    }
}

impl Verb {
    async fn run(self, connection: &Connection) -> Result<Exit> {
        match self {
            Self::Status(status) => return status.run(connection).await,
            Self::Get(get) => get.run(connection).await,
            Self::List(list) => list.run(connection).await,
            Self::History(history) => history.run(connection).await,
            Self::Plan(plan) => plan.run(connection).await,
            Self::Deploy(deploy) => Box::pin(deploy.run(connection)).await,
            Self::Set(set) => Box::pin(set.run(connection)).await,
            Self::Approve(approve) => Box::pin(approve.run(connection)).await,
            Self::Abort(ask) => Box::pin(ask.run(connection, &steer::ABORT)).await,
            Self::Retry(ask) => Box::pin(ask.run(connection, &steer::RETRY)).await,
            Self::Restart(ask) => Box::pin(ask.run(connection, &steer::RESTART)).await,
            Self::Pause(ask) => Box::pin(ask.run(connection, &steer::PAUSE)).await,
            Self::Resume(ask) => Box::pin(ask.run(connection, &steer::RESUME)).await,
            Self::Undo(undo) => Box::pin(undo.run(connection)).await,
            Self::Unpin(unpin) => Box::pin(unpin.run(connection)).await,
            Self::Completion(completion) => {
                completion.run();
                Ok(())
            }
            Self::Complete(words) => {
                words.run().await;
                Ok(())
            }
            Self::Version => {
                say(&format!("Client Version: v{}", env!("CARGO_PKG_VERSION")));
                Ok(())
            }
        }
        .map(|()| Exit::Done)
    }
}
