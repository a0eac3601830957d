//! What can happen next. Who may do what is asked of the real functions; the rest is what API server, kubelet, network
//! and clocks do.
use baton::plan::listener_set::{
    ownership::{self, Agent, Write},
    session::{self, Boottime, Standing, Start},
};

use super::{
    state::{Claimed, PROCESSES, Renewal, Session, State, Who},
    views::{NOW, ticks},
    world::{Removed, World},
};

/// One step; Pods and listeners are numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Time passes, for all but at most one.
    Tick {
        slow: Option<usize>,
    },
    SendRenewal(usize),
    CommitRenewal(usize),
    /// The API server refuses the renewal: everything stops, and the agent ends.
    RefuseRenewal(usize),
    AnswerRenewal(usize),
    /// The request, or its answer.
    LoseRenewal(usize),
    /// Sent, committed and answered within a moment: so that a search of some depth sees more.
    Renew(usize),
    /// It starts what some past version of the ownership says.
    Start {
        pod: usize,
        listener: usize,
        version: u8,
    },
    /// Stop confirmed, and the tombstone kept.
    Stop {
        pod: usize,
        listener: usize,
        version: u8,
    },
    SendPut {
        pod: usize,
        listener: usize,
    },
    /// The API server sees the PUT, whatever became of its sender.
    CommitPut {
        pod: usize,
        listener: usize,
        to: Who,
    },
    /// Both within a moment.
    Put {
        pod: usize,
        listener: usize,
        to: Who,
    },
    Crash(usize),
    /// Sidecar: with the application.
    CrashWithApplication(usize),
    ForceDelete(usize),
    /// A new process starts, and claims the session.
    Restart(usize),
    /// The same process looks at the session again, and claims it if it has not.
    ClaimAgain(usize),
    Fence(usize),
    /// A controller's PUT, decided on this version.
    Assign {
        listener: usize,
        version: u8,
        to: Who,
    },
    /// The ownership Lease is deleted, and made again.
    Recreate(usize),
    DeleteSession(usize),
    MakeSession(usize),
    /// The shim of a container dies: its kubelet tells an end that it has not seen, and the processes live on.
    LoseShim(usize),
    /// Somebody writes into the session what cannot be decoded.
    SpoilSession(usize),
    /// It can be read again.
    MendSession(usize),
}

impl<const I: usize, const L: usize> World<I, L> {
    /// Whatever may be possible; [`World::next`] decides.
    pub fn candidates(&self, state: &State<I, L>, actions: &mut Vec<Action>) {
        actions.push(Action::Tick { slow: None });
        for pod in 0..I {
            self.candidates_of_pod(state, pod, actions);
        }
        for listener in 0..L {
            let epoch = state.listeners[listener].epoch;
            let first = if self.lacks(Removed::VersionInReassign) { 1 } else { epoch };
            for version in first..=epoch {
                actions.extend(self.claimed(state).map(|to| Action::Assign { listener, version, to }));
            }
            actions.push(Action::Recreate(listener));
        }
    }

    fn candidates_of_pod(&self, state: &State<I, L>, pod: usize, actions: &mut Vec<Action>) {
        let x = &state.instances[pod];
        if x.lives {
            actions.push(Action::Tick { slow: Some(pod) });
            match x.renewal {
                Renewal::None if x.knows => actions.extend([Action::SendRenewal(pod), Action::Renew(pod)]),
                Renewal::None => actions.push(Action::ClaimAgain(pod)),
                Renewal::Sent => actions.extend([Action::CommitRenewal(pod), Action::RefuseRenewal(pod)]),
                Renewal::Committed => actions.push(Action::AnswerRenewal(pod)),
            }
            if x.renewal != Renewal::None {
                actions.push(Action::LoseRenewal(pod));
            }
            actions.extend([Action::Crash(pod), Action::ForceDelete(pod), Action::LoseShim(pod)]);
            if self.config.sidecar {
                actions.push(Action::CrashWithApplication(pod));
            }
        } else {
            actions.push(Action::Restart(pod));
        }
        actions.push(if x.session.exists { Action::Fence(pod) } else { Action::MakeSession(pod) });
        actions.extend([Action::DeleteSession(pod), Action::SpoilSession(pod), Action::MendSession(pod)]);
        for listener in 0..L {
            if x.lives && x.knows {
                for version in 1..=state.listeners[listener].epoch {
                    actions.push(Action::Start { pod, listener, version });
                    actions.push(Action::Stop { pod, listener, version });
                }
                actions.push(Action::SendPut { pod, listener });
                if x.units[listener].put == 0 && x.units[listener].tombstone > 0 {
                    actions.push(Action::Put { pod, listener, to: Who::NOBODY });
                    actions.extend(self.claimed(state).map(|to| Action::Put { pod, listener, to }));
                }
            }
            if x.units[listener].put > 0 {
                actions.push(Action::CommitPut { pod, listener, to: Who::NOBODY });
                actions.extend(self.claimed(state).map(|to| Action::CommitPut { pod, listener, to }));
            }
        }
    }

    /// The state after this step; None if it is not possible or not allowed.
    pub fn next(&self, state: &State<I, L>, action: Action) -> Option<State<I, L>> {
        let mut next = *state;
        match action {
            Action::Tick { slow } => self.tick(&mut next, slow)?,
            Action::SendRenewal(pod) => {
                let x = &mut next.instances[pod];
                (x.renewal, x.age) = (Renewal::Sent, 0);
            }
            Action::CommitRenewal(pod) => {
                self.holds_session(state, pod).then_some(())?;
                let x = &mut next.instances[pod];
                x.renewal = Renewal::Committed;
                x.session.renew();
            }
            Action::RefuseRenewal(pod) => {
                let session = self.views.watched(pod, state.instances[pod].session).session.as_ref();
                let me = self.views.holder(self.me(state, pod)?);
                session::is_over(session, me).then(|| next.instances[pod].end())?;
            }
            Action::AnswerRenewal(pod) => self.answer(&mut next, pod),
            Action::Renew(pod) => {
                self.holds_session(state, pod).then_some(())?;
                let x = &mut next.instances[pod];
                x.age = 0;
                x.session.renew();
                self.answer(&mut next, pod);
            }
            Action::LoseRenewal(pod) => {
                let x = &mut next.instances[pod];
                (x.renewal, x.age) = (Renewal::None, 0);
            }
            Action::Start { pod, listener, version } => self.start(&mut next, pod, listener, version)?,
            Action::Stop { pod, listener, version } => self.stop(&mut next, pod, listener, version)?,
            Action::SendPut { pod, listener } => self.send_put(&mut next, pod, listener)?,
            Action::CommitPut { pod, listener, to } => self.commit_put(&mut next, pod, listener, to)?,
            Action::Put { pod, listener, to } => {
                self.send_put(&mut next, pod, listener)?;
                self.commit_put(&mut next, pod, listener, to)?;
            }
            Action::Crash(pod) => self.crash(&mut next, pod, false)?,
            Action::CrashWithApplication(pod) => self.crash(&mut next, pod, true)?,
            Action::ForceDelete(pod) => {
                spend(&mut next.faults.force_deletes, self.config.force_deletes)?;
                let x = &mut next.instances[pod];
                (!x.pod_gone).then_some(())?;
                (x.pod_gone, x.session) = (true, Session::default());
            }
            Action::Restart(pod) => {
                let x = &mut next.instances[pod];
                (!x.lives && !x.pod_gone && x.process < self.config.processes).then_some(())?;
                (x.lives, x.process) = (true, x.process + 1);
                self.claim(&mut next, pod)?;
            }
            Action::ClaimAgain(pod) => self.claim(&mut next, pod)?,
            Action::Fence(pod) => {
                (!self.lacks(Removed::Fence)).then(|| self.fence(state, pod)).flatten()?;
                let x = &mut next.instances[pod];
                x.session = Session { claim: Claimed::Fenced, silent: 0, settled: 0, ..x.session };
                (x.was_fenced, x.fenced) = (self.lacks(Removed::BootInFence), x.session.process);
            }
            Action::Assign { listener, version, to } => self.assign(&mut next, listener, version, to)?,
            Action::Recreate(listener) => self.recreate(&mut next, listener)?,
            Action::DeleteSession(pod) => {
                let x = &mut next.instances[pod];
                x.session.exists.then_some(())?;
                spend(&mut next.faults.sessions_lost, self.config.sessions_lost)?;
                x.session = Session::default();
            }
            Action::MakeSession(pod) => {
                let x = &mut next.instances[pod];
                (!x.pod_gone).then(|| x.session = Session { exists: true, ..Session::default() })?;
            }
            Action::LoseShim(pod) => {
                let x = &mut next.instances[pod];
                (x.unseen >> x.process & 1 == 0).then_some(())?;
                spend(&mut next.faults.shims, self.config.shims)?;
                x.unseen |= 1 << x.process;
            }
            Action::SpoilSession(pod) => {
                let session = &mut next.instances[pod].session;
                (session.exists && !session.is_unreadable).then_some(())?;
                spend(&mut next.faults.unreadable, self.config.unreadable)?;
                *session = Session { is_unreadable: true, silent: 0, settled: 0, ..*session };
            }
            Action::MendSession(pod) => {
                let session = &mut next.instances[pod].session;
                session.is_unreadable.then_some(())?;
                *session = Session { is_unreadable: false, silent: 0, settled: 0, ..*session };
            }
        }
        Some(next)
    }

    fn tick(&self, next: &mut State<I, L>, slow: Option<usize>) -> Option<()> {
        if let Some(pod) = slow {
            (next.instances[pod].deadline > 0).then_some(())?;
            spend(&mut next.faults.slow_ticks, self.config.slow_ticks)?;
        }
        for (pod, x) in next.instances.iter_mut().enumerate() {
            if slow != Some(pod) {
                x.deadline = x.deadline.saturating_sub(1);
                if x.renewal != Renewal::None {
                    x.age = (x.age + 1).min(self.config.kill_after);
                }
            }
            x.orphan_deadline = x.orphan_deadline.saturating_sub(1);
            for unit in &mut x.units {
                if x.deadline == 0 && unit.runs > 0 {
                    // Killed, which is a stop that is certain.
                    unit.tombstone = unit.runs;
                    unit.runs = 0;
                }
                if x.orphan_deadline == 0 {
                    unit.orphan = 0;
                }
            }
            // Counted where it matters, so that there are fewer states.
            let session = &mut x.session;
            if !session.exists || session.is_unreadable || session.claim == Claimed::Held {
                session.silent = (session.silent + 1).min(self.config.wait);
            }
            if !session.exists || session.is_unreadable || self.config.sessions_lost > 0 {
                session.settled = (session.settled + 1).min(self.config.wait);
            }
        }
        if [Removed::Fence, Removed::FenceCas, Removed::ViewsOfOneMoment].into_iter().any(|rule| self.lacks(rule)) {
            next.clock = (next.clock + 1).min(self.config.wait);
        }
        Some(())
    }

    /// The API server's test of holderIdentity, which it can read whatever else stands in the session.
    fn holds_session(&self, state: &State<I, L>, pod: usize) -> bool {
        let seen = Session { is_unreadable: false, ..state.instances[pod].session };
        let session = self.views.watched(pod, seen).session.as_ref();
        let me = self.me(state, pod).expect("it has claimed");
        session::standing(session, self.views.holder(me)) == Standing::Holds
    }

    fn answer(&self, next: &mut State<I, L>, pod: usize) {
        let x = &mut next.instances[pod];
        let age = if self.lacks(Removed::DeadlineFromBeforeTheSend) { 0 } else { x.age };
        let sent_at = Boottime(NOW.0.saturating_sub(ticks(age)));
        let deadline = session::deadline(sent_at, ticks(self.config.kill_after));
        x.deadline = x.deadline.max(deadline.0.saturating_sub(NOW.0).as_secs() as u8);
        (x.renewal, x.age, x.knows) = (Renewal::None, 0, true);
    }

    /// A claim is sent and committed at once: one that comes in later has an earlier deadline, which the age covers.
    fn claim(&self, next: &mut State<I, L>, pod: usize) -> Option<()> {
        let x = &mut next.instances[pod];
        (!x.session.is_unreadable).then_some(())?; // it looks again until it can be read
        let session = self.views.watched(pod, x.session).session.as_ref()?;
        let name = self.views.holder(self.who(pod, x.process, 1));
        let is_alone = !x.units.iter().any(|unit| unit.orphan > 0);
        match session::start(session, name, is_alone) {
            Start::Claim { boot } => {
                let boot = boot as u8;
                (boot <= PROCESSES).then_some(())?;
                x.boots[usize::from(x.process) - 1] = boot;
                let who = self.who(pod, x.process, boot);
                let (process, boot) = (who.process(), who.boot());
                x.session = Session { exists: true, claim: Claimed::Held, process, boot, ..Session::default() };
                (x.renewal, x.age) = (Renewal::Committed, 0);
            }
            Start::Ours => {
                x.boots[usize::from(x.process) - 1] = x.session.boot;
                x.knows = true;
            }
            Start::Wait => return None,
        }
        Some(())
    }

    fn agent(&self, state: &State<I, L>, pod: usize, listener: usize) -> Option<Agent<'_>> {
        let x = &state.instances[pod];
        let me = self.views.holder(self.me(state, pod)?);
        let tombstone = u32::from(x.units[listener].tombstone);
        Some(Agent { me, deadline: Boottime(NOW.0 + ticks(x.deadline)), tombstone })
    }

    fn start(&self, next: &mut State<I, L>, pod: usize, listener: usize, version: u8) -> Option<()> {
        let mut agent = self.agent(next, pod, listener)?;
        if self.lacks(Removed::Tombstone) {
            agent.tombstone = 0;
        }
        let may = ownership::may_start(self.ownership(next, listener, version), &agent, NOW);
        (may && next.instances[pod].units[listener].runs == 0).then_some(())?;
        next.instances[pod].units[listener].runs = version;
        let started = &mut next.listeners[listener].started;
        next.started_twice |= *started >> version & 1 == 1;
        *started |= 1 << version;
        Some(())
    }

    /// Also of what was not started yet: given up all the same.
    fn stop(&self, next: &mut State<I, L>, pod: usize, listener: usize, version: u8) -> Option<()> {
        let agent = self.agent(next, pod, listener)?;
        let holder = self.ownership(next, listener, version).holder.as_ref();
        let is_new = u32::from(version) > agent.tombstone && holder == Some(agent.me);
        let unit = &mut next.instances[pod].units[listener];
        (is_new && (unit.runs == 0 || unit.runs == version)).then_some(())?;
        (unit.runs, unit.tombstone) = (0, version);
        Some(())
    }

    fn send_put(&self, next: &mut State<I, L>, pod: usize, listener: usize) -> Option<()> {
        let version = next.instances[pod].units[listener].tombstone;
        let agent = self.agent(next, pod, listener)?;
        ownership::hand_over(self.ownership(next, listener, version), &agent, None)?;
        let is_current = version == next.listeners[listener].epoch || self.lacks(Removed::VersionInTransfer);
        let unit = &mut next.instances[pod].units[listener];
        (unit.runs == 0 && unit.put != version && is_current).then(|| unit.put = version)
    }

    /// To whom was decided when it was sent: chosen only now, which is the same.
    fn commit_put(&self, next: &mut State<I, L>, pod: usize, listener: usize, to: Who) -> Option<()> {
        let version = std::mem::take(&mut next.instances[pod].units[listener].put);
        let seen = self.ownership(next, listener, version);
        let me = seen.holder.as_ref()?;
        let agent = Agent { me, deadline: NOW, tombstone: u32::from(version) };
        let write = if to == next.listeners[listener].holders[usize::from(version)] {
            (!self.lacks(Removed::TakeBack)).then(|| ownership::take_back(seen, &agent)).flatten()?
        } else {
            let to = (to != Who::NOBODY).then(|| self.views.holder(to));
            ownership::hand_over(seen, &agent, to)?
        };
        self.put(next, listener, version, &write, self.lacks(Removed::VersionInTransfer))
    }

    fn assign(&self, next: &mut State<I, L>, listener: usize, version: u8, to: Who) -> Option<()> {
        let holder = next.listeners[listener].holders[usize::from(version)];
        (holder != to).then_some(())?;
        let steals = self.lacks(Removed::NoSteal);
        let write = ownership::assign(self.ownership(next, listener, version), self.views.holder(to), |_| {
            if steals {
                Some(baton::plan::listener_set::death::Proof::Fenced)
            } else {
                self.proof_of_death(next, holder)
            }
        })?;
        self.put(next, listener, version, &write, self.lacks(Removed::VersionInReassign))
    }

    /// The API server's part: the precondition.
    fn put(&self, next: &mut State<I, L>, listener: usize, version: u8, write: &Write, is_blind: bool) -> Option<()> {
        let listener_now = &mut next.listeners[listener];
        let epoch = write.epoch as u8;
        ((version == listener_now.epoch || is_blind) && epoch <= self.config.epochs).then_some(())?;
        next.went_back |= epoch <= listener_now.epoch;
        listener_now.epoch = epoch;
        listener_now.holders[usize::from(epoch)] = self.views.who(write.holder.as_ref());
        listener_now.holders[usize::from(epoch) + 1..].fill(Who::NOBODY);
        self.forget_puts(next, listener);
        Some(())
    }

    /// Those that can never succeed any more make no difference.
    fn forget_puts(&self, next: &mut State<I, L>, listener: usize) {
        if !self.lacks(Removed::VersionInTransfer) {
            for x in &mut next.instances {
                x.units[listener].put = 0;
            }
        }
    }

    /// Deleted and made again: nobody's, and with another uid.
    fn recreate(&self, next: &mut State<I, L>, listener: usize) -> Option<()> {
        spend(&mut next.faults.re_creations, self.config.re_creations)?;
        let epoch = next.listeners[listener].epoch;
        let floor = ownership::retire(self.ownership(next, listener, epoch), 0)?;
        let write = ownership::create(if self.lacks(Removed::EpochFloor) { 0 } else { floor }, None);
        let listener_now = &mut next.listeners[listener];
        let epoch = write.epoch as u8;
        (epoch <= self.config.epochs).then_some(())?;
        next.went_back |= epoch <= listener_now.epoch;
        listener_now.epoch = epoch;
        listener_now.holders[usize::from(epoch)..].fill(Who::NOBODY);
        self.forget_puts(next, listener);
        Some(())
    }

    fn crash(&self, next: &mut State<I, L>, pod: usize, with_application: bool) -> Option<()> {
        spend(&mut next.faults.crashes, self.config.crashes)?;
        let x = &mut next.instances[pod];
        let (outlived, deadline) = (x.units, x.deadline);
        x.end();
        if with_application {
            x.application_ended |= 1 << x.process;
        } else if self.config.sidecar {
            x.orphan_deadline = if self.lacks(Removed::AbsoluteDeadline) { self.config.kill_after } else { deadline };
            for (unit, before) in x.units.iter_mut().zip(outlived) {
                unit.orphan = before.runs;
            }
        }
        Some(())
    }
}

fn spend(spent: &mut u8, budget: u8) -> Option<()> {
    (*spent < budget).then(|| *spent += 1)
}
