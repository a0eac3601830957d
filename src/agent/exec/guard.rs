//! The guard: the process between the agent and one listener's child. One thread, no runtime, nothing that grows.
//!
//! It kills without help: it has the deadline, a timer, and its children. It never gives up, and says that its
//! listener has ended only when the kernel has said that it has no child left.
use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, parent_id},
    },
    process::{Command, ExitCode, Stdio, id},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::{set_child_subreaper, set_pdeathsig},
        signal::{SigSet, Signal, killpg},
        signalfd::{SfdFlags, SignalFd},
        socket::{MsgFlags, recv, send},
    },
    unistd::{Pid, close, setsid},
};

use super::{
    Cause, Exit, THIS_PROGRAM,
    children::{self, Reaped},
    rights,
    wire::{FRAME_BYTES, Frame, Order, encode_end},
};
use crate::agent::boottime::{Boottime, Timer};

/// The socket to the agent is the guard's standard input.
const AGENT: RawFd = 0;
/// Where the child writes its lines.
const EVENTS: RawFd = 3;
/// Longest time between two rounds of killing. A process that ends hands over its children, and SIGCHLD begins the next round; this
/// is for a list of children that was not complete.
const ROUND_MILLIS: u8 = 20;

/// Arguments of the hidden subcommand.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Process id of the agent.
    #[arg(long)]
    agent: u32,
    /// The child's standard input comes with the first order.
    #[arg(long)]
    reads: bool,
    /// What to run.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command until nothing of it is left.
///
/// # Errors
/// What prevents a guard from watching. Nothing was started then, or it has ended with the guard.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // From here on signals are read, not delivered: only KILL and STOP cannot be blocked.
    SigSet::all().thread_block()?;
    // First of all: every process that is started later comes back to this one.
    set_child_subreaper(true).context("cannot become a subreaper")?;
    setsid().context("cannot leave the agent's session")?;
    // Not SIGKILL: a guard that dies with its agent could not kill what the child has started. It is told, and then kills.
    set_pdeathsig(Signal::SIGTERM)?;
    close_all_but_standard()?;
    // The agent has died before it said anything, or will be found dead by the first reading.
    let Some((deadline, files)) = first_order(args.reads)? else { return Ok(ExitCode::SUCCESS) };
    let mut guard = Guard {
        agent: Some(args.agent),
        unread: Unread::default(),
        signals: SignalFd::with_flags(
            &[Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect(),
            SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
        )?,
        timer: Timer::new()?,
        deadline,
        stop_by: None,
        child: None,
        exit: None,
        killing: None,
    };
    guard.start(&args.command, files.input);
    drop(files.events); // or the agent would never see the end of it
    guard.attend();
    drop(files.lock); // held until now: the next agent of the Pod waits for it
    Ok(ExitCode::SUCCESS)
}

/// Closes what the agent's surroundings left open: the child must not inherit it, and 3 must be free.
fn close_all_but_standard() -> io::Result<()> {
    let open: Vec<RawFd> =
        fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect(); // the folder itself is closed by now, so that closing it again does nothing
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = close(fd);
    }
    Ok(())
}

/// What comes with the first order.
struct Files {
    /// Where the child writes its lines.
    events: OwnedFd,
    /// The child's standard input; None: empty.
    input: Option<OwnedFd>,
    /// Locked while this process lives.
    lock: Option<OwnedFd>,
}

/// The first deadline, and what comes with it. None: the agent has died.
fn first_order(reads: bool) -> anyhow::Result<Option<(Boottime, Files)>> {
    let mut frame: Frame = [0; FRAME_BYTES];
    let Some((events, second, third)) = rights::receive(io::stdin().as_fd(), &mut frame)? else { return Ok(None) };
    for file in [&second, &third].into_iter().flatten() {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?; // no child's, or only under another number
    }
    // The lowest number that is free, and left open on exec: just what the child needs.
    anyhow::ensure!(events.as_raw_fd() == EVENTS, "file descriptor 3 is taken");
    let (input, lock) = if reads { (second, third) } else { (None, second) };
    match Order::decode(&frame) {
        Some(Order::Deadline(deadline)) => Ok(Some((deadline, Files { events, input, lock }))),
        other => anyhow::bail!("the agent began with {other:?}"),
    }
}

/// Bytes of a frame that has not arrived in full.
#[derive(Default)]
struct Unread {
    frame: Frame,
    length: usize,
}

struct Guard {
    /// Its process id, until it is gone.
    agent: Option<u32>,
    unread: Unread,
    signals: SignalFd,
    timer: Timer,
    deadline: Boottime,
    /// Set once the agent has asked for the end.
    stop_by: Option<Boottime>,
    /// Set while it is not reaped; also the id of its process group.
    child: Option<Pid>,
    exit: Option<Exit>,
    /// Set once everything is to end, never to be taken back.
    killing: Option<Cause>,
}

impl Guard {
    /// Unless the end has come meanwhile: processes start slowly on a busy machine.
    fn start(&mut self, command: &[OsString], input: Option<OwnedFd>) {
        self.read_orders();
        match self.stop_by {
            Some(_) => return self.kill(Cause::Stopped),
            None if Boottime::now() >= self.deadline => return self.kill(Cause::Deadline),
            None => {}
        }
        let started = Command::new(THIS_PROGRAM)
            .args(["guard-child", "--guard", &id().to_string(), "--"])
            .args(command)
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .process_group(0)
            .spawn();
        match started {
            Ok(child) => self.child = Some(Pid::from_raw(child.id() as i32)),
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: cannot start a process: {error}");
                self.kill(Cause::NotStarted);
            }
        }
    }

    /// Returns when nothing is left. No error ends it: a guard that ends early has proven nothing.
    fn attend(&mut self) {
        while self.reap_and_kill() {
            // A timer that cannot be set costs nothing but rounds.
            let is_timed = self.killing.is_none() && self.timer.set(self.kill_at()).is_ok();
            self.wait(is_timed);
            self.read_signals();
            // Before looking at the clock: a guard that was held up may find a later deadline.
            self.read_orders();
        }
        let frame = encode_end(self.killing.unwrap_or(Cause::Exited), self.exit);
        // Never waits: the first frame of this direction fits, and an agent that is gone needs none.
        let _ = send(AGENT, &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }

    /// One round. False: nothing is left.
    fn reap_and_kill(&mut self) -> bool {
        loop {
            match children::reap() {
                Ok(Reaped::Child(pid, exit)) => self.ended(pid, exit),
                Ok(Reaped::NoneLeft) => return false,
                Ok(Reaped::NoneEnded) | Err(_) => break,
            }
        }
        if Boottime::now() >= self.kill_at() {
            let is_stop = self.stop_by.is_some_and(|stop_by| stop_by <= self.deadline);
            self.kill(if is_stop { Cause::StopTimeout } else { Cause::Deadline });
        }
        if self.killing.is_some() {
            let all = children::direct().unwrap_or_else(|_| self.child.into_iter().collect());
            all.into_iter().for_each(children::kill_child);
        }
        true
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        if self.child == Some(pid) {
            self.child = None;
            self.exit = Some(exit);
            // What it leaves behind is not the listener any more, as with PID 1 of a container.
            self.kill(if self.stop_by.is_some() { Cause::Stopped } else { Cause::Exited });
        }
    }

    /// The first cause is the one that is told.
    fn kill(&mut self, cause: Cause) {
        self.killing.get_or_insert(cause);
    }

    fn kill_at(&self) -> Boottime {
        self.stop_by.map_or(self.deadline, |stop_by| stop_by.min(self.deadline))
    }

    fn wait(&self, is_timed: bool) {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if is_timed {
            fds.push(PollFd::new(self.timer.as_fd(), PollFlags::POLLIN));
        }
        if self.agent.is_some() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN)); // a closed one would not let it wait
        }
        let timeout = if is_timed { PollTimeout::NONE } else { PollTimeout::from(ROUND_MILLIS) };
        // Its result does not matter: everything is looked at next.
        let _ = poll(&mut fds, timeout);
    }

    fn read_signals(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        // SIGTERM comes from the kernel when the agent's thread ends that has started this process: the agent may live on.
        // From anyone else it means nothing: the agent decides.
        if self.agent.is_some_and(|agent| parent_id() != agent) {
            self.agent_is_gone();
        }
    }

    fn read_orders(&mut self) {
        while self.agent.is_some() {
            let rest = &mut self.unread.frame[self.unread.length..];
            match recv(AGENT, rest, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => self.agent_is_gone(),
                Ok(length) => self.unread.length += length,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => self.agent_is_gone(),
            }
            if self.unread.length == FRAME_BYTES {
                self.unread.length = 0;
                self.obey(Order::decode(&self.unread.frame));
            }
        }
    }

    fn obey(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Deadline(deadline)) => self.deadline = deadline,
            Some(Order::Stop(stop_by)) => {
                let is_first = self.stop_by.is_none();
                self.stop_by = Some(self.stop_by.map_or(stop_by, |earlier| earlier.min(stop_by)));
                // Not reaped, so the id is the child's own; its group has only processes below this one.
                if let Some(child) = self.child.filter(|_| is_first) {
                    let _ = killpg(child, Signal::SIGTERM);
                }
            }
            // Who speaks otherwise is not our agent.
            None => self.agent_is_gone(),
        }
    }

    fn agent_is_gone(&mut self) {
        self.agent = None;
        self.kill(Cause::Deadline); // no reader is left
    }
}
