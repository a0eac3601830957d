//! PID 1 of a cluster: sets the namespaces up, owns every process in them, and ends them by ending.
use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, unix::pipe},
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};

use super::{
    UpArgs, client, control, forward,
    layout::{Layout, SERVICE_VIP, retire},
    machine, namespaces, network,
    processes::{Death, Place, Processes},
    startup, up,
};
use crate::control_socket;

/// As systemd's units of kubelet and containerd have it.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Runs the cluster until the supervisor or a request ends it. Errors are told on standard output,
/// which the supervisor hands on.
pub fn run(args: &UpArgs) -> Result<ExitCode> {
    ensure_first_process()?;
    // Until there is time to tidy up when the supervisor is killed, see `supervisor_gone`.
    set_pdeathsig(Signal::SIGKILL)?;
    let layout = args.layout();
    let lock = client::lock_inside(&layout.dir)?;
    ensure!(lock.is_some(), "another cluster has not ended yet in {}", layout.dir.display());
    match set_up_and_serve(&layout, args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("{}{error:#}", up::FAILED);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Fails outside of a PID namespace of one's own, where it would set up, and at its end kill, the user's machine.
pub fn ensure_first_process() -> Result<()> {
    ensure!(Pid::this().as_raw() == 1, "this is started by `baton-testbed cluster up`, not by hand");
    Ok(())
}

fn set_up_and_serve(layout: &Layout, args: &UpArgs) -> Result<()> {
    layout.prepare()?;
    namespaces::mount_own(layout)?;
    network::set_up(layout.port, args.nodes)?;
    startup::write_enter(layout)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(layout, args));
    if args.nodes.kubelet > 0 {
        end_all();
        machine::cgroups::remove(&layout.dir)?;
    }
    outcome
}

/// Ends every other process of the PID namespace: control groups can be removed only when they are empty.
fn end_all() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL); // none left is as good
    while !matches!(waitpid(Pid::from_raw(-1), None), Err(Errno::ECHILD)) {}
}

async fn serve(layout: &Layout, args: &UpArgs) -> Result<()> {
    let processes = Arc::new(Processes::default());
    let shutdown = Arc::new(Notify::new());
    let (ready, is_ready) = watch::channel(false);

    let vip = TcpListener::bind((SERVICE_VIP, 443)).await.context("cannot listen at the Service VIP")?;
    tokio::spawn(forward::serve(vip, SocketAddr::from((Ipv4Addr::LOCALHOST, layout.port))));
    let control = control::Control {
        processes: Arc::clone(&processes),
        nodes: args.nodes,
        containerd: args.containerd.clone(),
        layout: layout.clone(),
        ready: is_ready.clone(),
        shutdown: Arc::clone(&shutdown),
    };
    tokio::spawn(control::serve(control_socket::listen(&layout.dir)?, Arc::new(control)));

    let start = async {
        startup::start(layout, args, &processes).await?;
        ready.send_replace(true);
        println!("{}", up::ready_line(layout));
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        outcome = start => outcome,
        death = first_death(&processes, &is_ready) => {
            let death = death?;
            anyhow::bail!("{} {}\n{}", death.spec.name, death.how, startup::tail(&death.spec.log))
        }
        gone = supervisor_gone() => {
            retire(&layout.dir);
            gone
        }
        () = shutdown.notified() => Ok(()),
    }
}

/// Reaps until an essential process dies unasked; during the start every one is essential.
///
/// What runs on a machine is started again, as its init system would do.
async fn first_death(processes: &Arc<Processes>, is_ready: &watch::Receiver<bool>) -> Result<Death> {
    let mut child_ended = signal(SignalKind::child())?;
    loop {
        for death in processes.reap() {
            if death.spec.essential || !*is_ready.borrow() {
                return Ok(death);
            }
            let name = death.spec.name;
            if matches!(death.spec.place, Place::Machine(_)) {
                println!("{name} {}; it starts again", death.how);
                tokio::spawn(start_again(Arc::clone(processes), name));
            } else {
                println!("{name} {}; `cluster start {name}` starts it again", death.how);
            }
        }
        child_ended.recv().await.context("no more signals")?;
    }
}

/// A machine that has ended, or a program that was started meanwhile, is no reason to try again.
async fn start_again(processes: Arc<Processes>, name: String) {
    tokio::time::sleep(RESTART_PAUSE).await;
    let _ = processes.start(&name);
}

/// Returns when the supervisor has ended: it holds the other end of standard input.
async fn supervisor_gone() -> Result<()> {
    let mut lifeline = pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    set_pdeathsig(None)?; // from now on the pipe tells
    lifeline.read_u8().await.map_or(Ok(()), |_| Ok(()))
}
