//! `cluster up`: the supervisor, which lives outside and owns the cluster, and the one that starts
//! it in the background.
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::setsid;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt},
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
};

use super::{
    Lifeline, UpArgs, client, components,
    control::{Connection, Request, Response},
    enter::PROXY_VARIABLES,
    forward,
    layout::{Layout, kubeconfig, retire, shell_word, supervisor_log},
    machine, namespaces,
};

/// What the line starts with that PID 1 prints when the cluster is ready: a line for people to copy.
const READY: &str = "export KUBECONFIG=";
/// What a newcomer would look for in vain.
const LACKS: &str = "# It has no DNS, no exec, and no metrics: a HorizontalPodAutoscaler does nothing here.";
const LACKS_WITH_KUBELETS: &str = "# It has no DNS, no ClusterIPs but the API server's, no registry, and no metrics.";
/// What the line starts with after which the cluster ends.
pub const FAILED: &str = "The cluster failed: ";

pub fn ready_line(layout: &Layout) -> String {
    format!("{READY}{}", shell_word(&layout.kubeconfig()))
}

/// Starts a supervisor in the background and returns when its cluster is ready.
pub fn launch(args: &UpArgs) -> Result<ExitCode> {
    fs::create_dir_all(&args.at.dir).with_context(|| format!("cannot make {}", args.at.dir.display()))?;
    let dir = args.at.dir.canonicalize()?;
    if let Some(connection) = Connection::open(&dir) {
        return already_up(&dir, connection, args);
    }
    // Only added to: the log may be that of a cluster that is just starting.
    let errors = fs::File::options().append(true).create(true).open(supervisor_log(&dir))?;
    let mut supervisor = Command::new(env::current_exe()?)
        .args(["cluster", "up", "--foreground", "--lifeline", "until-ready"])
        .args(["--nodes", &args.nodes.to_string(), "--port", &args.port.to_string()])
        .args(["--containerd", &args.containerd.to_string()])
        .arg("--dir")
        .arg(&dir)
        .arg("--bin")
        .arg(&args.bin)
        .args(images_flag(args))
        .args(args.tuning.arguments())
        .stdin(Stdio::piped()) // closes when this process ends, and with it a cluster that is not ready
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()?;
    let progress = supervisor.stdout.take().context("no pipe")?;
    for line in BufReader::new(progress).lines() {
        let line = line?;
        if line.starts_with(READY) {
            println!("{}\n{line}", if args.nodes.kubelet > 0 { LACKS_WITH_KUBELETS } else { LACKS });
            return Ok(ExitCode::SUCCESS);
        }
        println!("{line}");
    }
    supervisor.wait()?;
    bail!("the cluster did not start; see {}", dir.join("logs").display())
}

fn already_up(dir: &Path, connection: Connection, args: &UpArgs) -> Result<ExitCode> {
    let Response::Status(status) = connection.ask(&Request::Status)? else { bail!("unexpected answer") };
    ensure!(status.ready, "a cluster is just starting in {}", dir.display());
    ensure!(
        status.nodes == args.nodes.to_string(),
        "a cluster with nodes {} is running in {}: end it first (make cluster-down)",
        status.nodes,
        dir.display()
    );
    let images = args.images.as_ref().map_or_else(|| Ok(dir.join("images")), |images| images.canonicalize());
    ensure!(
        images.is_ok_and(|images| images == status.images),
        "a cluster with images from {} is running in {}: end it first (make cluster-down)",
        status.images.display(),
        dir.display()
    );
    println!("The cluster is up already.");
    println!("{READY}{}", shell_word(&kubeconfig(dir)));
    Ok(ExitCode::SUCCESS)
}

/// Runs a cluster for as long as this process lives.
pub fn supervise(mut args: UpArgs) -> Result<ExitCode> {
    if args.lifeline == Lifeline::UntilReady {
        setsid().context("cannot leave the terminal")?;
    }
    let outcome = own(&mut args);
    if let (Err(error), Lifeline::UntilReady) = (&outcome, args.lifeline) {
        println!("{FAILED}{error:#}"); // standard error is a log
    }
    outcome
}

fn own(args: &mut UpArgs) -> Result<ExitCode> {
    fs::create_dir_all(&args.at.dir).with_context(|| format!("cannot make {}", args.at.dir.display()))?;
    args.at.dir = args.at.dir.canonicalize()?;
    components::check_programs(&args.bin, args.nodes)?;
    args.bin = args.bin.canonicalize()?;
    if args.nodes.kubelet > 0 {
        machine::check(&args.bin, &args.at.dir, &args.containerd)?;
    }
    let lock = client::lock(&args.at.dir)?;
    ensure!(lock.is_some(), "another cluster is running in {}", args.at.dir.display());
    if args.nodes.kubelet > 0 {
        machine::cgroups::remove(&args.at.dir)?; // of one that was killed together with its PID 1
    }
    fs::File::create(supervisor_log(&args.at.dir)).context("cannot begin a log")?; // it speaks of this cluster only
    if let Some(images) = &mut args.images {
        fs::create_dir_all(&*images).with_context(|| format!("cannot make {}", images.display()))?;
        *images = images.canonicalize()?;
    }

    // Before the namespaces: this listener stays the machine's own.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!("port {} is taken on 127.0.0.1", args.port),
        _ => error.into(),
    })?;
    listener.set_nonblocking(true)?;
    args.port = listener.local_addr()?.port();
    if args.nodes.kubelet > 0 {
        namespaces::unshare_as_root()?;
    } else {
        namespaces::unshare_all()?;
    }

    // One thread, as the kernel allows no other; see `unshare_all`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(attend(args, listener));
    retire(&args.at.dir);
    if args.nodes.kubelet > 0 {
        machine::cgroups::remove(&args.at.dir)?; // PID 1 does it, unless it was killed
    }
    outcome
}

async fn attend(args: &UpArgs, listener: TcpListener) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut init = start_init(args)?;
    let _held_open = init.stdin.take(); // PID 1 ends when it closes
    let mut progress = tokio::io::BufReader::new(init.stdout.take().context("no pipe")?).lines();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // It connects inside: this process's network namespace is the cluster's.
    tokio::spawn(forward::serve(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))));

    let mut input = if args.lifeline == Lifeline::None { None } else { Some(input()?) };
    loop {
        tokio::select! {
            // Progress first: a "ready" that has come counts before the end of the input does.
            biased;
            line = progress.next_line() => match line? {
                Some(line) => {
                    tell(&args.at.dir, &line);
                    if args.lifeline == Lifeline::UntilReady && line.starts_with(READY) {
                        input = None;
                    }
                }
                // PID 1 has closed its output: it is gone.
                None => return Ok(if init.wait().await?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            },
            () = end_of(&mut input) => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    init.kill().await?; // returns when everything in the PID namespace has ended
    Ok(ExitCode::from(130))
}

fn start_init(args: &UpArgs) -> Result<tokio::process::Child> {
    let mut init = tokio::process::Command::new(env::current_exe()?);
    init.args(["cluster", "init", "--nodes", &args.nodes.to_string(), "--port", &args.port.to_string()])
        .args(["--containerd", &args.containerd.to_string()])
        .arg("--dir")
        .arg(&args.at.dir)
        .arg("--bin")
        .arg(&args.bin)
        .args(images_flag(args))
        .args(args.tuning.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0); // Ctrl-C is for the supervisor, which then ends all at once
    for variable in PROXY_VARIABLES {
        init.env_remove(variable);
    }
    init.spawn().context("cannot start PID 1 of the cluster")
}

fn images_flag(args: &UpArgs) -> impl Iterator<Item = &OsStr> {
    args.images.iter().flat_map(|images| [OsStr::new("--images"), images.as_os_str()])
}

/// The pipe at standard input.
fn input() -> Result<pipe::Receiver> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    pipe::Receiver::from_owned_fd(input).context("--lifeline needs a pipe at standard input")
}

/// Returns when the pipe ends; without one, never.
async fn end_of(input: &mut Option<pipe::Receiver>) {
    match input {
        Some(pipe) => while pipe.read_u8().await.is_ok() {},
        None => std::future::pending().await,
    }
}

/// Says something on standard output, if anyone still listens there, and in `DIR/supervisor.log`.
fn tell(dir: &Path, line: &str) {
    let log = fs::File::options().append(true).create(true).open(supervisor_log(dir));
    // Who started a cluster in the background is gone by now, and its pipe closed: no error is worth a word.
    let _ = writeln!(std::io::stdout(), "{line}");
    if let Ok(mut log) = log {
        let _ = writeln!(log, "{line}");
    }
}
