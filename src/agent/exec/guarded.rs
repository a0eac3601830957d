//! The agent's side of a guard.
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{MsgFlags, send},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    sync::{mpsc, oneshot, watch},
};

use super::{
    Cause, Ended, Event, Exit, Proof, Spec, THIS_PROGRAM,
    lines::{Line, Lines},
    nursery::Nursery,
    rights,
    wire::{FRAME_BYTES, Frame, Order, decode_end},
};
use crate::agent::boottime::{Alarm, Boottime};

/// How long after the deadline, or a stop's grace, a guard may still be killing. Then it is stopped or starved, and the agent
/// kills it and everything below. A lease must be so much longer than the deadlines given here.
pub const GUARD_MARGIN: Duration = Duration::from_millis(500);
/// Events not yet taken. A child whose lines are not taken waits with its writing; deadlines do not wait for either.
const EVENTS_MAX: usize = 64;
/// What may still be read of a child that has ended: more than a pipe holds, should someone else keep writing to it.
const LEFTOVER_BYTES_MAX: usize = 1 << 20;

/// All guards of this agent. At most one in a process, which may have no other children: see [`super`].
#[derive(Clone)]
pub struct Guards {
    nursery: Arc<Nursery>,
    /// What every guard keeps open for as long as it lives.
    lock: Option<Arc<OwnedFd>>,
}

impl Guards {
    /// Makes this process the subreaper of everyone below, and reaps from now on. Call it within a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses; too many open files.
    pub fn start() -> io::Result<Self> {
        Self::with_program(THIS_PROGRAM.into())
    }

    /// As [`Self::start`], with another program that has the subcommand `guard` (one that stands in for the agent).
    ///
    /// # Errors
    /// The same.
    pub fn with_program(program: PathBuf) -> io::Result<Self> {
        Ok(Self { nursery: Nursery::start(program)?, lock: None })
    }

    /// Has every guard keep this file open for as long as it lives: a lock on it says that one does.
    #[must_use]
    pub fn keeping(self, lock: OwnedFd) -> Self {
        Self { lock: Some(Arc::new(lock)), ..self }
    }

    /// Runs a command under a guard of its own, until `deadline` unless that is extended.
    ///
    /// # Errors
    /// No process can be started; too many open files; a NUL byte in the environment. Nothing runs then.
    pub fn spawn(&self, spec: &Spec, deadline: Boottime) -> io::Result<Guarded> {
        self.spawn_reading(spec, deadline, None)
    }

    /// The same, with something to read for its standard input; else that is empty.
    ///
    /// # Errors
    /// The same.
    pub fn spawn_reading(&self, spec: &Spec, deadline: Boottime, input: Option<BorrowedFd<'_>>) -> io::Result<Guarded> {
        let (events, events_writer) = io::pipe()?;
        let (ours, theirs) = StdStream::pair()?;
        // Into the socket before there is a reader: when the guard begins it has all it needs, or knows that we died.
        let lock = self.lock.as_deref().map(AsFd::as_fd);
        let files: Vec<_> = [events_writer.as_fd()].into_iter().chain(input).chain(lock).collect();
        rights::send(&ours, &Order::Deadline(deadline).encode(), &files)?;
        ours.set_nonblocking(true)?;
        let (orders, control) = {
            let (read, write) = UnixStream::from_std(ours)?.into_split();
            (write, read)
        };
        let events = pipe::Receiver::from_owned_fd(OwnedFd::from(events))?;
        let alarm = Alarm::new()?;
        let (guard, reaped) = self.nursery.start_guard(spec, OwnedFd::from(theirs), input.is_some())?;
        let (times, watched) = watch::channel(Times { deadline, stop_by: None });
        let (verdicts, verdict) = mpsc::channel(2); // all there can be: lost, ended
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let overseer = Overseer { nursery: self.nursery.clone(), guard, control, times: watched, alarm };
        tokio::spawn(overseer.oversee(reaped, verdicts));
        tokio::spawn(tell(events, verdict, sender));
        Ok(Guarded { control: Control { orders, times }, events: Events(receiver) })
    }
}

/// A listener's child under its guard. Dropping [`Control`] kills it; only [`Event::Ended`] proves that it has ended.
pub struct Guarded {
    /// To extend and to stop.
    pub control: Control,
    /// What happens.
    pub events: Events,
}

/// Gives orders to a guard.
pub struct Control {
    orders: OwnedWriteHalf,
    times: watch::Sender<Times>,
}

impl Control {
    /// Replaces the deadline. A guard that does not get it (it has ended, or reads nothing) keeps the one before, which is
    /// the safe side; once it has begun to kill there is no way back.
    pub fn extend(&self, deadline: Boottime) {
        self.times.send_modify(|times| times.deadline = deadline);
        self.order(Order::Deadline(deadline));
    }

    /// SIGTERM to the child's process group now; SIGKILL to everyone below the guard after `grace`, or at the deadline, or
    /// once the child has ended.
    pub fn stop(&self, grace: Duration) {
        let by = Boottime::now().after(grace);
        self.times.send_modify(|times| times.stop_by = Some(times.stop_by.map_or(by, |earlier| earlier.min(by))));
        self.order(Order::Stop(by));
    }

    fn order(&self, order: Order) {
        // Not through the runtime, which may not have heard yet that there is room. The kernel takes a short frame in full or
        // not at all.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if let Err(error) = send(self.orders.as_ref().as_raw_fd(), &order.encode(), flags) {
            tracing::debug!(%error, ?order, "the guard was not told");
        }
    }
}

/// What happens to a child, in order.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; None after [`Event::Ended`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// When everything is to be dead.
#[derive(Clone, Copy, Debug)]
struct Times {
    deadline: Boottime,
    stop_by: Option<Boottime>,
}

impl Times {
    fn kill_at(self) -> Boottime {
        self.stop_by.map_or(self.deadline, |stop_by| stop_by.min(self.deadline))
    }

    fn cause(self) -> Cause {
        if Boottime::now() < self.kill_at() {
            Cause::GuardLost
        } else if self.stop_by.is_some_and(|stop_by| stop_by <= self.deadline) {
            Cause::StopTimeout
        } else {
            Cause::Deadline
        }
    }
}

/// Sees to it that a guard does its work, and does it in its place. It waits for the guard alone.
struct Overseer {
    nursery: Arc<Nursery>,
    guard: Pid,
    control: OwnedReadHalf,
    times: watch::Receiver<Times>,
    alarm: Alarm,
}

impl Overseer {
    async fn oversee(mut self, mut reaped: oneshot::Receiver<Exit>, verdicts: mpsc::Sender<Event>) {
        let mut is_reaped = false;
        // Once it is said it is proven; who waits for it need not wait for the guard's own end.
        let said = tokio::select! {
            biased;
            ended = read_end(&mut self.control) => ended,
            _ = &mut reaped => {
                is_reaped = true;
                read_end(&mut self.control).await // what it said with its last breath
            }
            () = enforce(&self.nursery, self.guard, &mut self.times, &mut self.alarm) => None,
        };
        if let Some(ended) = said {
            let _ = verdicts.send(Event::Ended(ended)).await; // or the receiver is gone
            self.nursery.kill_guard(self.guard); // its work is done; should it be stopped, it would stay
            return;
        }
        let _ = verdicts.send(Event::GuardLost).await;
        if !is_reaped {
            self.nursery.kill_guard(self.guard); // it may have closed its socket and live
            let _ = reaped.await;
        }
        let cause = self.times.borrow().cause();
        self.nursery.clear().await;
        let _ = verdicts.send(Event::Ended(Ended { cause, exit: None, proof: Proof::Agent })).await;
    }
}

/// Waits for the frame that proves the end. None: the guard has closed its socket without it.
async fn read_end(control: &mut OwnedReadHalf) -> Option<Ended> {
    let mut frame: Frame = [0; FRAME_BYTES];
    control.read_exact(&mut frame).await.ok()?;
    decode_end(&frame)
}

/// Returns when the guard should have finished long ago, and was killed for it.
async fn enforce(nursery: &Nursery, guard: Pid, times: &mut watch::Receiver<Times>, alarm: &mut Alarm) {
    let mut dropped = None;
    loop {
        let kill_at = times.borrow_and_update().kill_at();
        let kill_at = dropped.map_or(kill_at, |at| kill_at.min(at)).after(GUARD_MARGIN);
        tokio::select! {
            biased;
            changed = times.changed(), if dropped.is_none() => {
                // The guard sees that too, as the end of its orders.
                dropped = changed.is_err().then(Boottime::now);
            }
            rung = alarm.at(kill_at) => {
                if let Err(error) = rung {
                    tracing::error!(%error, "no timer");
                }
                tracing::warn!(guard = guard.as_raw(), "the guard has missed its deadline: killing it and all below");
                nursery.kill_guard(guard);
                return;
            }
        }
    }
}

/// Passes on what the child says, and last how it ended.
async fn tell(pipe: pipe::Receiver, mut verdicts: mpsc::Receiver<Event>, events: mpsc::Sender<Event>) {
    let mut lines = Lines::default();
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            verdict = verdicts.recv() => match verdict {
                Some(Event::Ended(ended)) => {
                    // All who wrote are dead: what they wrote is in the pipe.
                    leftover(&pipe, &mut lines, &events).await;
                    let _ = events.send(Event::Ended(ended)).await;
                    return;
                }
                Some(event) => {
                    let _ = events.send(event).await;
                }
                None => return,
            },
            readable = pipe.readable(), if is_open => {
                let mut bytes = [0; 4096];
                match readable.and_then(|()| pipe.try_read(&mut bytes)) {
                    Ok(0) => is_open = false, // closed by all; the child may run on
                    Ok(length) => pass_on(lines.read(&bytes[..length]), &events).await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => is_open = false,
                }
            }
        }
    }
}

async fn leftover(pipe: &pipe::Receiver, lines: &mut Lines, events: &mpsc::Sender<Event>) {
    let mut bytes = [0; 4096];
    for _ in 0..LEFTOVER_BYTES_MAX / bytes.len() {
        // Not through the runtime, which may not have heard yet that there is something. The pipe does not block.
        match nix::unistd::read(pipe, &mut bytes) {
            Ok(length) if length > 0 => pass_on(lines.read(&bytes[..length]), events).await,
            _ => break,
        }
    }
    pass_on(lines.finish(), events).await;
}

/// An error means that the receiver is gone, which is not the child's fault: it can go on writing.
async fn pass_on(lines: Vec<Line>, events: &mpsc::Sender<Event>) {
    for line in lines {
        let _ = events.send(Event::Line(line)).await;
    }
}
