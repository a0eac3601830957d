//! `guards`: the place of an agent without an API server. Runs commands under guards as it is told, one JSON object a line,
//! and says what happens, one line each: the listener's name and the event. The end of its input ends it.
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::BufRead,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result};
use baton::agent::{
    boottime::Boottime,
    exec::{Control, Environment, Guarded, Guards, Spec},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
};
use serde::Deserialize;
use tokio::{runtime, sync::mpsc, task};

use crate::{cluster::namespaces, node::shim::THIS_PROGRAM};

/// Orders read and not yet followed.
const ORDERS_MAX: usize = 16;

/// First deadline of each command. It is extended at once, before the runtime has had a turn.
const FIRST: Duration = Duration::from_millis(500);

/// Arguments of the subcommand.
#[derive(clap::Args)]
pub struct Args {
    /// The agent's program, which has the guard's part.
    #[arg(long)]
    agent: PathBuf,
    /// Be PID 1 of a PID namespace, as in a container.
    #[arg(long)]
    init: bool,
    /// This is that PID 1.
    #[arg(long, hide = true, conflicts_with = "init")]
    inside: bool,
}

/// One line of input.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Order {
    /// Answered by `NAME spawned`.
    Spawn { name: String, command: Vec<String>, milliseconds: u64 },
    /// Answered by `NAME deadline NANOSECONDS`.
    Extend { name: String, milliseconds: u64 },
    /// With this grace.
    Stop { name: String, milliseconds: u64 },
    /// Let go without stopping.
    Drop { name: String },
}

/// Follows orders until there are no more.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.init {
        return become_parent_of_init(&args);
    }
    if args.inside {
        set_pdeathsig(Signal::SIGKILL)?;
        see_own_processes()?;
    }
    // Threads end as soon as they can: guards must outlive those that have started them.
    let runtime =
        runtime::Builder::new_current_thread().enable_all().thread_keep_alive(Duration::from_millis(1)).build()?;
    runtime.block_on(follow(args.agent))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn become_parent_of_init(args: &Args) -> Result<ExitCode> {
    namespaces::unshare_all()?;
    let mut init = Command::new(THIS_PROGRAM).args(["guards", "--inside", "--agent"]).arg(&args.agent).spawn()?;
    let status = init.wait()?;
    Ok(ExitCode::from(status.code().unwrap_or(1) as u8))
}

fn see_own_processes() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), safe, none).context("cannot mount /proc")
}

async fn follow(agent: PathBuf) -> Result<()> {
    let guards = Guards::with_program(agent)?;
    let mut orders = read_orders();
    let mut controls = BTreeMap::new();
    println!("ready");
    while let Some(order) = orders.recv().await {
        match order {
            Order::Spawn { name, command, milliseconds } => {
                let control = spawn(&guards, name.clone(), command, after(milliseconds)).await?;
                controls.insert(name, control);
            }
            Order::Extend { name, milliseconds } => {
                let deadline = after(milliseconds);
                controls.get(&name).context("no such listener")?.extend(deadline);
                println!("{name} deadline {}", deadline.as_nanos());
            }
            Order::Stop { name, milliseconds } => {
                controls.get(&name).context("no such listener")?.stop(Duration::from_millis(milliseconds));
            }
            Order::Drop { name } => drop(controls.remove(&name)),
        }
    }
    Ok(())
}

fn after(milliseconds: u64) -> Boottime {
    Boottime::now().after(Duration::from_millis(milliseconds))
}

async fn spawn(guards: &Guards, name: String, command: Vec<String>, deadline: Boottime) -> Result<Control> {
    let environment = Environment {
        set: "bots".into(),
        listener: name.clone(),
        config: "{}".into(),
        fence_token: "1".into(),
        resume: None,
        connect_timeout_seconds: 30,
        use_proxy: false,
        stop_timeout_seconds: 10,
    };
    let guards = guards.clone();
    let spawn = move || {
        let spec = Spec { command: command.into_iter().map(OsString::from).collect(), environment };
        let guarded = guards.spawn(&spec, Boottime::now().after(FIRST))?;
        guarded.control.extend(deadline);
        Ok::<_, std::io::Error>(guarded)
    };
    let Guarded { control, mut events } = task::spawn_blocking(spawn).await??;
    println!("{name} spawned");
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            println!("{name} {event:?}");
        }
    });
    Ok(control)
}

fn read_orders() -> mpsc::Receiver<Order> {
    let (sender, receiver) = mpsc::channel(ORDERS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?));
            match order {
                Ok(order) => {
                    if sender.blocking_send(order).is_err() {
                        return;
                    }
                }
                Err(error) => return eprintln!("error: {error:#}"),
            }
        }
    });
    receiver
}
