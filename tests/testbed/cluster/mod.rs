//! `baton-testbed cluster`: a real control plane and its nodes in namespaces of their own.
//!
//! ```text
//! cluster up ──starts, waits until ready──> supervisor            (up.rs; owns 127.0.0.1:PORT of the machine)
//!                                              │ unshares user, network and PID namespace   (namespaces.rs)
//!                                              └─> PID 1          (init.rs; mounts, network, start-up, reaping)
//!                                                    ├─ etcd, kube-apiserver, …, kwok         (components.rs)
//!                                                    ├─ one `baton-testbed node` a process node   (nodes.rs)
//!                                                    ├─ kubelet and containerd of real nodes      (machine/)
//!                                                    └─ DIR/control.sock                         (control.rs)
//! ```
//! Nothing survives: PID 1 ends when the supervisor does (however that ends), and the kernel ends
//! whatever else lives in the PID namespace when PID 1 does. Each holds a lock of DIR for as long as it lives.
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Subcommand, ValueEnum};

mod certificates;
mod client;
mod components;
mod control;
mod enter;
mod forward;
mod init;
mod kubeconfig;
mod kwok;
mod layout;
mod machine;
pub mod namespaces;
mod network;
mod nodes;
mod processes;
mod startup;
mod tuning;
mod up;

pub use enter::PROXY_VARIABLES;

/// Arguments of `baton-testbed cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster and return when it is ready.
    Up(UpArgs),
    /// End a cluster and everything that runs in it; remove its keys and the state of its nodes.
    Down(DownArgs),
    /// List the cluster's components with their process ids (as seen inside) and states.
    Status(DirArgs),
    /// Start a component or process node that was stopped or has died.
    Start(ProcessArgs),
    /// Stop a component or process node; the Pods of a process node go on.
    Stop(SignalArgs),
    /// Stop and start a component or process node.
    Restart(SignalArgs),
    /// Run a command inside the cluster's namespaces, where Pod addresses can be reached.
    Enter(EnterArgs),
    /// Make the images of an archive known to the nodes of kind kubelet.
    Import(ImportArgs),
    /// Fail, with a line that says why, where nodes of kind kubelet cannot run.
    Check(CheckArgs),
    /// PID 1 of a machine.
    #[command(hide = true)]
    Machine(machine::BootArgs),
    /// Become a program in a machine.
    #[command(hide = true)]
    Inside(machine::InsideArgs),
    /// PID 1 of a cluster.
    #[command(hide = true)]
    Init(UpArgs),
    /// Become COMMAND, and end with the process that started it.
    #[command(hide = true)]
    Exec {
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Which cluster is meant.
#[derive(clap::Args, Clone)]
struct DirArgs {
    /// Folder of the cluster: kubeconfig, logs, images, enter.
    #[arg(long, default_value = "target/cluster")]
    dir: PathBuf,
}

#[derive(clap::Args)]
struct DownArgs {
    #[command(flatten)]
    at: DirArgs,
    /// Remove its images and logs too.
    #[arg(long)]
    purge: bool,
}

#[derive(clap::Args, Clone)]
struct UpArgs {
    #[command(flatten)]
    at: DirArgs,
    /// Nodes: `process[:N]` runs Pods as local processes, `kwok[:N]` simulates them, `kubelet[:N]` has real kubelets (as
    /// root only); or several of these.
    #[arg(long, default_value = "process")]
    nodes: nodes::NodesSpec,
    /// Folder of images: `example.local/NAME:TAG` is its folder NAME/TAG. Otherwise DIR/images.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok.
    #[arg(long, default_value = "target/control-plane/bin")]
    bin: PathBuf,
    /// Port of the API server on 127.0.0.1, inside and outside; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The containerd of nodes of kind kubelet: 1.6 (Debian's) or 2; for each of them: 1.6,2.
    #[arg(long, default_value = "2")]
    containerd: machine::Containerds,
    #[command(flatten)]
    tuning: tuning::Tuning,
    /// Stay in the foreground; Ctrl-C ends the cluster.
    #[arg(long)]
    foreground: bool,
    /// How long the end of standard input ends the cluster (with --foreground): a pipe held by
    /// the one who started it is noticed however that one ends.
    #[arg(long, value_enum, default_value_t = Lifeline::None, hide = true)]
    lifeline: Lifeline,
}

impl UpArgs {
    /// Paths as given: absolute once the supervisor has made them so.
    fn layout(&self) -> layout::Layout {
        layout::Layout {
            dir: self.at.dir.clone(),
            images: self.images.clone().unwrap_or_else(|| self.at.dir.join("images")),
            bin: self.bin.clone(),
            port: self.port,
        }
    }
}

/// See [`UpArgs::lifeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lifeline {
    None,
    UntilReady,
    Always,
}

#[derive(clap::Args)]
struct ImportArgs {
    #[command(flatten)]
    at: DirArgs,
    archives: Vec<PathBuf>,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Where the cluster's folder would be.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
}

#[derive(clap::Args)]
struct ProcessArgs {
    #[command(flatten)]
    at: DirArgs,
    /// A name that `status` lists: kube-apiserver, process-1, …
    name: String,
}

#[derive(clap::Args)]
struct SignalArgs {
    #[command(flatten)]
    process: ProcessArgs,
    /// SIGKILL instead of SIGTERM.
    #[arg(long)]
    kill: bool,
}

#[derive(clap::Args)]
struct EnterArgs {
    #[command(flatten)]
    at: DirArgs,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    use control::Request;
    match args.verb {
        Verb::Up(args) if args.foreground => up::supervise(args),
        Verb::Up(args) => up::launch(&args),
        Verb::Down(args) => client::down(&args.at.dir, args.purge),
        Verb::Status(args) => client::status(&args.dir),
        Verb::Start(args) => client::ask(&args.at.dir, &Request::Start { name: args.name }),
        Verb::Stop(SignalArgs { process, kill }) => {
            client::ask(&process.at.dir, &Request::Stop { name: process.name, kill })
        }
        Verb::Restart(SignalArgs { process, kill }) => {
            client::ask(&process.at.dir, &Request::Restart { name: process.name, kill })
        }
        Verb::Import(args) => client::import(&args.at.dir, &args.archives),
        Verb::Check(args) => machine::check_all(&args.dir),
        Verb::Machine(args) => machine::boot(&args),
        Verb::Inside(args) => machine::become_inside(&args),
        Verb::Enter(args) => enter::run(&args.at.dir, &args.command),
        Verb::Init(args) => init::run(&args),
        Verb::Exec { command } => enter::exec(&command),
    }
}
