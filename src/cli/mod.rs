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

/// Show and control Rollouts, whose instances (Pods in numbered slots) change in batches, and the listeners that run in
/// them.
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
    /// Namespace. Default: the namespace of the context.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Context of the kubeconfig. Default: the current context.
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// Path of the kubeconfig. Default: $KUBECONFIG, or ~/.kube/config if that is not set.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Print without colours, as if the environment variable NO_COLOR were set.
    #[arg(long, global = true)]
    no_color: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show a Rollout (revisions, batches, Pods), each of its instances, or a ListenerSet and the Pods that hold its
    /// listeners.
    Get(get::Get),
    /// List the Rollouts of a namespace or of all namespaces.
    List(list::List),
    /// List the revisions of a Rollout and its past changes: what, when, by whom and why. With --revision, show one
    /// revision in full.
    History(history::History),
    /// Wait until a Rollout is complete, fails or waits for a person, and print what it waits for meanwhile. The exit
    /// code says how it ended.
    Status(status::Status),
    /// Show what `kubectl apply` of a file would change, batch by batch, without changing anything.
    Plan(plan::Plan),
    /// Deploy a new version: set images, the package or the version name.
    Deploy(deploy::Deploy),
    /// Set fields of the Pod template, as in `set image NAME CONTAINER=IMAGE`.
    Set(deploy::Set),
    /// Approve the pause of the current rollout, so that it continues. With strategy BlueGreen: let clients use the new
    /// set.
    #[command(visible_alias = "promote")]
    Approve(steer::Approve),
    /// Abort the current rollout: all instances go back to the last completed version.
    Abort(steer::Ask),
    /// Try a failed or aborted version again.
    Retry(steer::Ask),
    /// Replace every Pod by a new Pod of the same version, in batches without pauses.
    Restart(steer::Ask),
    /// Hold the Rollout until `resume`: no new batch, replacement, restart or pin. Failed and aborted rollouts still go
    /// back, and lost Pods are still replaced.
    Pause(steer::Ask),
    /// Continue a Rollout after `pause`.
    Resume(steer::Ask),
    /// Run an earlier version again: in all instances, or only in chosen instances, which are pinned to it.
    Undo(undo::Undo),
    /// Remove pins (--instances 3,5-7 or --all): these instances run the current version of the Rollout again.
    Unpin(undo::Unpin),
    /// Print a completion script for a shell, or the program with which kubectl completes `kubectl baton`.
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
