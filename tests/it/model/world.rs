//! What a configuration of the model is: its times, its faults, and the rule that it goes without.
use std::{
    borrow::Cow,
    sync::{Arc, atomic::AtomicBool},
};

use baton::{
    plan::listener_set::{
        death::{self, Process, Proof},
        session::Fence,
    },
    snapshot::lease::{Ownership, Watched},
};

use super::{
    state::{Claimed, EPOCHS, PROCESSES, Session, State, Who},
    views::Views,
};

/// A rule of the protocol that is taken out: what a real function is told is distorted, or it is not asked at all. Each
/// of them must lead to two owners, to an epoch that is started twice or goes back, or to a listener that nobody can get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// What was given up may be started again.
    Tombstone,
    /// A session that is missing proves death at once.
    WaitForMissingSession,
    /// The fence overwrites renewals that have come in since.
    FenceCas,
    /// A session that was once seen silent for D proves death, without a fence.
    Fence,
    /// Deadlines count from the answer.
    DeadlineFromBeforeTheSend,
    /// An owner that does not let go is robbed.
    NoSteal,
    /// Identities name the Pod only.
    BootInIdentity,
    /// A session that names another boot proves death, also an earlier one.
    OrderOfBoots,
    /// A fence is for whatever boot of that Pod.
    BootInFence,
    /// The end of any process of the Pod proves death.
    CertificateOfItsBoot,
    /// A Lease that is made again starts at epoch 1.
    EpochFloor,
    /// The PUT of a hand-over has no precondition.
    VersionInTransfer,
    /// The PUT of a controller has none.
    VersionInReassign,
    /// Sidecar: an application that hears nothing of its agent stops K after the last word.
    AbsoluteDeadline,
    /// Sidecar: the end of the agent's container proves that of the application.
    CertificateOfTheApplication,
    /// An owner that has stopped may only give away.
    TakeBack,
    /// A session that was deleted and made again says nothing of the boots before.
    SessionMadeAgain,
    /// An end that the runtime has not seen proves death as any other does.
    UnseenEndProvesNothing,
    /// A session that cannot be read counts as missing.
    UnreadableIsThere,
    /// A session is seen as it was before the boot that the ownership names has claimed it.
    ViewsOfOneMoment,
}

/// What happens at most, and how long things take (in ticks).
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// K: a boot runs nothing later than this after it sent its last acknowledged renewal.
    pub kill_after: u8,
    /// D.
    pub wait: u8,
    /// The highest epoch: one more than there are changes of an ownership.
    pub epochs: u8,
    /// Processes that a Pod has, one after another.
    pub processes: u8,
    pub crashes: u8,
    /// Pod objects deleted by force: the session goes, the process stays.
    pub force_deletes: u8,
    /// Ticks that one instance misses.
    pub slow_ticks: u8,
    /// Ownership Leases deleted and made again.
    pub re_creations: u8,
    /// Session Leases deleted while their Pod stays.
    pub sessions_lost: u8,
    /// Containers whose shim dies and whose processes live on.
    pub shims: u8,
    /// Session Leases into which something is written that cannot be decoded.
    pub unreadable: u8,
    /// The application is a process of its own beside the agent, and may outlive it.
    pub sidecar: bool,
    pub removed: Option<Removed>,
    /// Whether from each state an owner must be reached: each is played on without faults, which takes time.
    pub liveness: bool,
    /// The one question to ask; None: all.
    pub only: Option<&'static str>,
}

impl Config {
    /// A crash and a forced deletion, in the smallest times that tell K from D.
    pub const FAULTS: Self = Self {
        kill_after: 2,
        wait: 3,
        epochs: 4,
        processes: 2,
        crashes: 1,
        force_deletes: 1,
        slow_ticks: 0,
        re_creations: 0,
        sessions_lost: 0,
        shims: 0,
        unreadable: 0,
        sidecar: false,
        removed: None,
        liveness: false,
        only: None,
    };
}

/// I Pods and L listeners, agents in each Pod, and any number of controllers.
#[derive(Clone)]
pub struct World<const I: usize, const L: usize> {
    pub config: Config,
    pub views: Arc<Views>,
    /// A violation was found.
    pub is_broken: Arc<AtomicBool>,
}

impl<const I: usize, const L: usize> World<I, L> {
    pub fn new(config: Config) -> Self {
        Self { config, views: Arc::new(Views::new(config.wait)), is_broken: Arc::default() }
    }

    /// The same, with epochs to spare: to play a state on.
    pub fn calm(&self) -> Self {
        Self { config: Config { epochs: EPOCHS, processes: PROCESSES, ..self.config }, ..self.clone() }
    }

    pub fn lacks(&self, rule: Removed) -> bool {
        self.config.removed == Some(rule)
    }

    /// As it stands in the Leases.
    pub fn who(&self, pod: usize, process: u8, boot: u8) -> Who {
        if self.lacks(Removed::BootInIdentity) { Who::new(pod, 1, 1) } else { Who::new(pod, process, boot) }
    }

    /// Whom this process believes itself to be; None before it knows.
    pub fn me(&self, state: &State<I, L>, pod: usize) -> Option<Who> {
        let x = &state.instances[pod];
        (x.lives && x.knows).then(|| self.who(pod, x.process, x.boots[usize::from(x.process) - 1]))
    }

    /// A listener's ownership Lease in this version of it, from 1.
    pub fn ownership(&self, state: &State<I, L>, listener: usize, version: u8) -> &Ownership {
        let holder = state.listeners[listener].holders[usize::from(version)];
        self.views.ownership(holder, version)
    }

    /// Every boot that was ever claimed: whom controllers and owners may name, however late.
    pub fn claimed(&self, state: &State<I, L>) -> impl Iterator<Item = Who> {
        let boots = state.instances.map(|x| (x.boots, x.process));
        let all = boots.into_iter().enumerate().flat_map(|(pod, (boots, _))| {
            (1..).zip(boots).filter(|(_, boot)| *boot > 0).map(move |(process, boot)| (pod, process, boot))
        });
        let is_bootless = self.lacks(Removed::BootInIdentity);
        all.filter(move |(_, process, _)| !is_bootless || *process == 1)
            .map(|(pod, process, boot)| Who::new(pod, process, boot))
    }

    /// Whether some controller has a proof that this boot is dead. Views of its Pod's session are of now: a proof never
    /// turns false, so that who decides on an older one decides as somebody has decided before.
    pub fn proof_of_death(&self, state: &State<I, L>, who: Who) -> Option<Proof> {
        let x = &state.instances[who.pod()];
        let mut seen = x.session;
        let as_fenced =
            Session { exists: true, claim: Claimed::Fenced, process: who.process(), boot: who.boot(), ..seen };
        if self.lacks(Removed::WaitForMissingSession) && !seen.exists {
            (seen.silent, seen.settled) = (self.config.wait, self.config.wait);
        }
        if self.lacks(Removed::Fence) && state.clock >= self.config.wait
            || self.lacks(Removed::BootInFence) && x.was_fenced
        {
            seen = as_fenced;
        }
        if self.lacks(Removed::SessionMadeAgain) && seen.exists {
            seen.settled = 0;
        }
        if self.lacks(Removed::ViewsOfOneMoment) && state.clock >= self.config.wait && who.boot() > 1 {
            let (process, boot, settled) = (who.process() - 1, who.boot() - 1, self.config.wait);
            seen = Session {
                exists: true,
                claim: Claimed::Held,
                process,
                boot,
                silent: settled,
                settled,
                is_unreadable: false,
            };
        }
        if self.lacks(Removed::OrderOfBoots) && seen.exists && (seen.boot != who.boot() || who.boot() > 1) {
            seen.boot = PROCESSES + 1; // as if the other one were later
        }
        if self.lacks(Removed::UnreadableIsThere) && seen.is_unreadable {
            (seen.exists, seen.is_unreadable) = (false, false);
        }
        let watched = self.with_fence(state, who.pod(), self.views.watched(who.pod(), seen));
        self.with_process(state, who.pod(), |process| death::proof(self.views.holder(who), &watched, Some(process)))
    }

    /// Whether some controller fences this session now.
    pub fn fence(&self, state: &State<I, L>, pod: usize) -> Option<Fence> {
        let mut seen = state.instances[pod].session;
        if self.lacks(Removed::FenceCas) && state.clock >= self.config.wait {
            seen.silent = self.config.wait;
        }
        let watched: &Watched = self.views.watched(pod, seen);
        self.with_process(state, pod, |process| baton::plan::listener_set::session::fence(watched, Some(process)))
    }

    /// With the boot that was seen fenced last.
    fn with_fence<'a>(&self, state: &State<I, L>, pod: usize, watched: &'a Watched) -> Cow<'a, Watched> {
        let x = &state.instances[pod];
        let fenced =
            (x.fenced > 0).then(|| self.views.holder(self.who(pod, x.fenced, x.boots[usize::from(x.fenced) - 1])));
        if watched.fenced.is_some() || fenced.is_none() || self.lacks(Removed::BootInIdentity) {
            return Cow::Borrowed(watched);
        }
        Cow::Owned(Watched { fenced: fenced.cloned(), ..watched.clone() })
    }

    /// With what the kubelet has reported of this Pod.
    fn with_process<T>(&self, state: &State<I, L>, pod: usize, ask: impl FnOnce(Process<'_>) -> T) -> T {
        let x = &state.instances[pod];
        let mut ended = ((1 << x.process) - 2) | (u8::from(!x.lives) << x.process);
        if self.lacks(Removed::CertificateOfItsBoot) && ended != 0 {
            ended = u8::MAX >> 3; // of all of them
        }
        let (mut seen_by_all, mut unseen) = (x.application_ended, x.unseen);
        if self.lacks(Removed::UnseenEndProvesNothing) {
            (seen_by_all, ended) = (seen_by_all | unseen, if self.config.sidecar { ended } else { ended | unseen });
            unseen = 0;
        }
        let of_agent = if self.config.sidecar { 0 } else { unseen };
        let (agent, application) = (self.views.ends(ended, of_agent), self.views.ends(seen_by_all, unseen));
        let believes_agent = !self.config.sidecar || self.lacks(Removed::CertificateOfTheApplication);
        let applications = if believes_agent { &[] } else { std::slice::from_ref(application) };
        let pod_uid = &self.views.holder(Who::new(pod, 1, 1)).uid;
        ask(Process { pod_uid, agent, applications })
    }
}
