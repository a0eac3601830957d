//! What observers and agents see of a state, as the values that the real functions take. All that can be seen is made once:
//! a search asks millions of times.
use std::time::Duration;

use baton::{
    plan::listener_set::session::Boottime,
    snapshot::{
        ContainerEnd,
        ends::ends_of,
        lease::{Claim, Holder, Ownership, Session, Watched},
    },
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::state::{Claimed, EPOCHS, PROCESSES, Session as Seen, Who};

/// The highest number of ticks that is told apart.
const TICKS: u8 = 5;
/// Boots up to one more than is ever claimed.
const BOOTS: u8 = PROCESSES + 2;
/// Now, on every clock: deadlines and ages are relative to it.
pub const NOW: Boottime = Boottime(Duration::from_secs(1_000));

pub fn ticks(ticks: u8) -> Duration {
    Duration::from_secs(u64::from(ticks))
}

pub struct Views {
    holders: Vec<Holder>,
    watched: Vec<Watched>,
    missing: Vec<Watched>,
    ownerships: Vec<Ownership>,
    unreadable: Vec<Watched>,
    ends: Vec<Vec<ContainerEnd>>,
}

impl Views {
    /// `wait`: D, in ticks.
    pub fn new(wait: u8) -> Self {
        let every = |count: u8| 0..count;
        let watched = |session: Option<Session>, silent, settled| Watched {
            fenced: session.as_ref().and_then(|session| session.claim.fenced().cloned()),
            session,
            silent_for: ticks(silent),
            claimed_for: ticks(settled),
            of_pod_for: ticks(settled),
            duration: ticks(wait),
        };
        let mut seen = Vec::new();
        for pod in 0..3 {
            for claim in [Claimed::Empty, Claimed::Held, Claimed::Fenced] {
                for process in every(PROCESSES + 1) {
                    for boot in every(BOOTS) {
                        for silent in every(TICKS) {
                            for settled in every(TICKS) {
                                seen.push(watched(Some(session(pod, claim, process, boot, wait)), silent, settled));
                            }
                        }
                    }
                }
            }
        }
        let missing = every(TICKS * TICKS).map(|both| watched(None, both / TICKS, both % TICKS)).collect();
        let identities = || every(3 * 16 + 1).map(Who::from_index);
        let ownerships = identities().flat_map(|who| every(EPOCHS + 1).map(move |epoch| ownership(who, epoch)));
        let unreadable = (0..3).map(|pod| {
            let session = Session { claim: Claim::Unreadable, ..session(pod, Claimed::Empty, 0, 0, wait) };
            watched(Some(session), TICKS - 1, TICKS - 1)
        });
        let sets = || every(1 << (PROCESSES + 1));
        let ends = sets().flat_map(|seen| sets().map(move |unseen| ends(seen, unseen)));
        Self {
            holders: identities().map(|who| holder(who).unwrap_or_else(nobody)).collect(),
            watched: seen,
            missing,
            ownerships: ownerships.collect(),
            unreadable: unreadable.collect(),
            ends: ends.collect(),
        }
    }

    pub fn holder(&self, who: Who) -> &Holder {
        &self.holders[who.index()]
    }

    pub fn watched(&self, pod: usize, seen: Seen) -> &Watched {
        let times = usize::from(seen.silent) * usize::from(TICKS) + usize::from(seen.settled);
        if !seen.exists {
            return &self.missing[times];
        }
        if seen.is_unreadable {
            return &self.unreadable[pod];
        }
        let claimed = (pod * 3 + seen.claim as usize) * usize::from(PROCESSES + 1) + usize::from(seen.process);
        let version = claimed * usize::from(BOOTS) + usize::from(seen.boot);
        &self.watched[version * usize::from(TICKS * TICKS) + times]
    }

    pub fn ownership(&self, who: Who, epoch: u8) -> &Ownership {
        &self.ownerships[who.index() * usize::from(EPOCHS + 1) + usize::from(epoch)]
    }

    /// Of the processes whose bits are set, as their kubelet tells them: of those in `unseen` without having seen it.
    pub fn ends(&self, seen: u8, unseen: u8) -> &Vec<ContainerEnd> {
        &self.ends[usize::from(seen) << (PROCESSES + 1) | usize::from(unseen)]
    }

    /// None: nobody's, or one that is not modelled.
    pub fn who(&self, holder: Option<&Holder>) -> Who {
        let Some(holder) = holder else { return Who::NOBODY };
        let at = self.holders.iter().position(|known| known == holder).expect("an identity of the model");
        Who::from_index(at as u8)
    }
}

fn nobody() -> Holder {
    Holder { pod: "nobody".into(), uid: "nobody".into(), boot: 0, random: "none".into() }
}

fn holder(who: Who) -> Option<Holder> {
    let (pod, uid) = if who == Who::NOBODY { return None } else { names(who.pod()) };
    Some(Holder { pod, uid, boot: u32::from(who.boot()), random: format!("r{}", who.process()) })
}

fn names(pod: usize) -> (String, String) {
    (format!("pod-{pod}"), format!("uid-{pod}"))
}

fn session(pod: usize, claim: Claimed, process: u8, boot: u8, wait: u8) -> Session {
    let (name, pod_uid) = names(pod);
    let holder = Holder { pod: name, uid: pod_uid.clone(), boot: u32::from(boot), random: format!("r{process}") };
    Session {
        pod_uid,
        claim: match claim {
            Claimed::Empty => Claim::Empty,
            Claimed::Held => Claim::Held(holder),
            Claimed::Fenced => Claim::Fenced(holder),
        },
        boot: u32::from(boot),
        renewed_at: None,
        acquired_at: Some(second(process, 50)),
        duration: ticks(wait),
        resource_version: String::new(),
    }
}

fn ownership(who: Who, epoch: u8) -> Ownership {
    let (uid, resource_version, config_hash) = (String::new(), String::new(), String::new());
    Ownership { holder: holder(who), epoch: u32::from(epoch), uid, resource_version, state: None, config_hash }
}

fn ends(seen: u8, unseen: u8) -> Vec<ContainerEnd> {
    let has = |of: u8, process: &u8| of >> process & 1 == 1;
    let told = (0..=PROCESSES).filter(|process| has(seen | unseen, process));
    // What was told first stays.
    told.flat_map(|process| ends_of(&container(process, if has(unseen, &process) { 255 } else { 137 }))).collect()
}

/// A container after the end of this process of a Pod: each ran for 90 s, and claimed its session half-way.
fn container(process: u8, exit_code: i32) -> ContainerStatus {
    let end = ContainerStateTerminated {
        container_id: Some(format!("containerd://{process}")),
        exit_code,
        started_at: Some(Time(second(process, 0))),
        finished_at: Some(Time(second(process, 90))),
        ..ContainerStateTerminated::default()
    };
    let state = Some(ContainerState { terminated: Some(end), ..ContainerState::default() });
    ContainerStatus { state, ..ContainerStatus::default() }
}

fn second(process: u8, second: i64) -> Timestamp {
    Timestamp::from_second(1_767_261_600 + 100 * i64::from(process) + second).unwrap()
}
