//! Test equipment in one binary: cluster supervisor, process node, load generator, proxies with faults, the demo, benchmarks, crash points. Never shipped.
#![allow(unreachable_pub, reason = "a binary has no public interface: `pub` means for the other modules")]
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod application;
mod archive;
mod bench;
mod cluster;
mod control_socket;
mod crash;
mod demo;
mod feed;
mod files;
mod guards;
mod image;
mod load;
mod lock;
mod node;
mod proxy;

/// A real control plane and real processes as Pods, without root, container engine or cluster.
#[derive(Parser)]
#[command(name = "baton-testbed", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a control plane and nodes in namespaces of their own and supervise them.
    Cluster(cluster::Args),
    /// Run the Pods bound to one node as local processes.
    Node(node::Args),
    /// Turn a process node's switches for tests.
    NodeCtl(node::control::Args),
    /// Run one container of a node to its end.
    #[command(hide = true)]
    NodeShim(node::shim::Args),
    /// Make a container's root and become its command.
    #[command(hide = true)]
    NodeInit(node::shim::Args),
    /// Run a command in a container.
    #[command(hide = true)]
    NodeExec(node::exec::Args),
    /// Become a command, within a container.
    #[command(hide = true)]
    NodeExecInside(node::exec::InsideArgs),
    /// Send requests to a Service's endpoints without pause and count what fails.
    Load(load::Args),
    /// Play the main job on real input, and judge it from outside.
    Demo(demo::Args),
    /// Serve feeds over websockets, and judge who reads them.
    Feed(feed::Args),
    /// Serve the files of a folder by HTTP.
    Files(files::Args),
    /// Put programs into an OCI image, as a file.
    Image(image::Args),
    /// Share feeds by locks that expire, as is done without Baton.
    Lock(lock::Args),
    /// Measure what rolls, reconciles and fail-overs cost, beside the built-in workloads.
    Bench(bench::Args),
    /// Kill the operator at every write, and judge what becomes of it.
    Crash(crash::Args),
    /// Run commands under the agent's guards, as an agent would.
    #[command(hide = true)]
    Guards(guards::Args),
    /// Pack programs as an image.
    Archive(archive::Args),
    /// Run listeners on the SDK, as tests ask for.
    #[command(hide = true)]
    Application,
    /// Forward bytes between a client and the API server, with switchable faults.
    Proxy(proxy::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Cluster(args) => cluster::run(args),
        Command::Node(args) => node::run(args),
        Command::NodeCtl(args) => node::control::ask(&args),
        Command::NodeShim(args) => node::shim::run(&args),
        Command::NodeInit(args) => node::shim::init(&args),
        Command::NodeExec(args) => node::exec::enter(args),
        Command::NodeExecInside(args) => node::exec::inside(&args),
        Command::Load(args) => load::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Feed(args) => feed::run(&args),
        Command::Files(args) => files::run(args),
        Command::Image(args) => image::run(&args),
        Command::Lock(args) => lock::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Crash(args) => crash::run(args),
        Command::Guards(args) => guards::run(args),
        Command::Archive(args) => archive::run(args),
        Command::Application => application::run(),
        Command::Proxy(args) => proxy::run(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
