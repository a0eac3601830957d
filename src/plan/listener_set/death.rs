//! Whether a boot is dead. Each proof is a fact that never becomes false: a decision that rests on an old view of it is as
//! good as one that rests on a new view, so a controller may be as stale as it likes.
//!
//! What proves nothing: a session that names another boot of lower number, that the Pod object is gone, that its phase is
//! Failed. In doubt one waits for D.
use jiff::{SignedDuration, Timestamp};

use crate::{
    plan::lease::covers,
    snapshot::{
        ContainerEnd,
        lease::{Claim, Holder, Session, Watched},
    },
};

/// Why a boot is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its session says so, or said so before it went with its Pod: it was fenced by a compare-and-swap, silent for D or proven
    /// to have ended, and no renewal of it can follow.
    Fenced,
    /// A later boot of the same Pod has claimed the session, which it does only once nothing of the earlier one is left.
    LaterBoot,
    /// The kubelet reports the end of the process that claimed the session.
    Terminated,
    /// Its session has not existed for D, or for D another has been in its place: no renewal can have succeeded meanwhile,
    /// and agents make none.
    SessionMissing,
}

impl Proof {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Fenced, Self::LaterBoot, Self::Terminated, Self::SessionMissing];

    /// Label of metrics.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Fenced => "Fenced",
            Self::LaterBoot => "LaterBoot",
            Self::Terminated => "Terminated",
            Self::SessionMissing => "SessionMissing",
        }
    }

    /// For logs and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::LaterBoot => "a later boot of its Pod runs",
            Self::Terminated => "its container has ended",
            Self::SessionMissing => "its session is gone",
        }
    }
}

/// What is known of the process that one boot was.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    /// uid of the Pod that the following is about.
    pub pod_uid: &'a str,
    /// Ends of the container that the agent runs in, as the kubelet reports them (state and lastState).
    pub agent: &'a [ContainerEnd],
    /// Ends of each other container that must have ended: where the agent is a sidecar the applications, which may outlive
    /// it.
    pub applications: &'a [Vec<ContainerEnd>],
}

/// Whether this boot is dead, as far as an observer knows its Pod's session and process.
pub fn proof(holder: &Holder, watched: &Watched, process: Option<Process<'_>>) -> Option<Proof> {
    if watched.session.as_ref().is_some_and(|session| session.claim == Claim::Unreadable) {
        return None;
    }
    if watched.fenced.as_ref() == Some(holder) {
        return Some(Proof::Fenced);
    }
    let Some(session) = watched.session.as_ref().filter(|session| !is_another(session, holder)) else {
        // The same to this boot as none at all. Its heir renews it, so that it is not silent.
        // Another Pod's is that of another however often it is claimed; its container may crash again and again.
        let is_another_pods = watched.session.as_ref().is_some_and(|session| session.pod_uid != holder.uid);
        let missed_for = if is_another_pods { watched.of_pod_for } else { watched.claimed_for };
        return (missed_for >= watched.duration).then_some(Proof::SessionMissing);
    };
    if session.boot > holder.boot {
        return Some(Proof::LaterBoot);
    }
    let claimed = (session.claim.holder() == Some(holder)).then_some(session.acquired_at).flatten()?;
    let process = process.filter(|process| process.pod_uid == holder.uid)?;
    has_ended(process, claimed).then_some(Proof::Terminated)
}

/// This session is not the one that the boot had claimed, but has come after it: another Pod's of that name, or made again
/// after it was deleted, with boots counted anew.
fn is_another(session: &Session, holder: &Holder) -> bool {
    let starts_anew = match &session.claim {
        Claim::Empty => session.boot < holder.boot,
        Claim::Held(other) | Claim::Fenced(other) => other != holder && session.boot <= holder.boot,
        Claim::Foreign | Claim::Unreadable => false,
    };
    session.pod_uid != holder.uid || starts_anew
}

/// A container of its agent has ended since the session was renewed, or in that second. No proof: kubelets tell whole seconds,
/// and of the last end alone, which may be that of a container that has not come to claim anything.
pub fn seems_ended(watched: &Watched, process: Option<Process<'_>>) -> bool {
    let renewed = watched.session.as_ref().and_then(|session| session.renewed_at.max(session.acquired_at));
    let ended_at = process.into_iter().flat_map(|process| process.agent).filter_map(|end| end.finished_at).max();
    renewed.zip(ended_at).is_some_and(|(renewed, ended_at)| renewed < ended_at + SignedDuration::from_secs(1))
}

/// The agent that claimed the session has ended, and so has every other that ran when it did: an application that has been
/// restarted since the claim may have been given what the agent held.
fn has_ended(process: Process<'_>, claimed: Timestamp) -> bool {
    let outlived_by_none = |at| process.applications.iter().all(|ends| ends.iter().any(|end| covers(end, at)));
    process.agent.iter().filter(|end| covers(end, claimed)).filter_map(|end| end.finished_at).any(outlived_by_none)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::listener_set::session::fixture::{at, end, holder, session, watched};

    const D: Duration = Duration::from_secs(15);

    fn say(holder: &Holder, watched: &Watched, ends: &[ContainerEnd]) -> Option<Proof> {
        proof(holder, watched, Some(Process { pod_uid: "uid-a", agent: ends, applications: &[] }))
    }

    #[test]
    fn silence_alone_proves_nothing_while_the_session_is_there() {
        let held = session(Claim::Held(holder("a", 1)));
        for silent in [0, 14, 15, 1_000] {
            assert_eq!(say(&holder("a", 1), &watched(Some(held.clone()), silent), &[]), None, "{silent}");
        }
    }

    /// D6: and stays what it is when its session goes with its Pod.
    #[test]
    fn a_fence_names_one_boot() {
        let fenced = watched(Some(session(Claim::Fenced(holder("a", 2)))), 0);
        assert_eq!(say(&holder("a", 2), &fenced, &[]), Some(Proof::Fenced));
        let gone = Watched { session: None, ..fenced.clone() };
        assert_eq!(say(&holder("a", 2), &gone, &[]), Some(Proof::Fenced));
        assert_eq!(say(&holder("a", 3), &gone, &[]), None);
        assert_eq!(say(&holder("a", 3), &fenced, &[]), None, "it has yet to claim");
        let other = Holder { random: "other".into(), ..holder("a", 2) };
        assert_eq!(say(&other, &fenced, &[]), None);
    }

    #[test]
    fn only_a_later_boot_proves_that_an_earlier_one_is_gone() {
        let second = watched(Some(session(Claim::Held(holder("a", 2)))), 0);
        assert_eq!(say(&holder("a", 1), &second, &[]), Some(Proof::LaterBoot));
        assert_eq!(say(&holder("a", 2), &second, &[]), None);
        assert_eq!(say(&holder("a", 3), &second, &[]), None);
    }

    #[test]
    fn a_missing_session_is_waited_for() {
        assert_eq!(say(&holder("a", 1), &watched(None, 14), &[]), None);
        assert_eq!(say(&holder("a", 1), &watched(None, 15), &[]), Some(Proof::SessionMissing));
        // A Pod of the same name has come: its session says nothing about the process of the one before.
        let mut heir = session(Claim::Held(holder("a", 1)));
        heir.pod_uid = "uid-heir".into();
        assert_eq!(say(&holder("a", 1), &watched(Some(heir.clone()), 14), &[]), None);
        assert_eq!(say(&holder("a", 1), &watched(Some(heir.clone()), 15), &[]), Some(Proof::SessionMissing));
        let renewed = Watched { silent_for: Duration::ZERO, ..watched(Some(heir.clone()), 15) };
        assert_eq!(say(&holder("a", 1), &renewed, &[]), Some(Proof::SessionMissing), "the heir is not silent");
        let claimed = |of_pod| Watched { of_pod_for: Duration::from_secs(of_pod), ..watched(Some(heir.clone()), 1) };
        assert_eq!(
            [14, 15].map(|of_pod| say(&holder("a", 1), &claimed(of_pod), &[])),
            [None, Some(Proof::SessionMissing)]
        );
    }

    /// The model found that what it had held could never be taken: boots count from 1 again.
    #[test]
    fn a_session_that_was_made_again_is_missing_to_the_boots_before() {
        let again = Holder { random: "again".into(), ..holder("a", 1) };
        for claim in [Claim::Empty, Claim::Held(again.clone()), Claim::Fenced(again)] {
            for before in [1, 2] {
                let renewed =
                    |claimed| Watched { silent_for: Duration::ZERO, ..watched(Some(session(claim.clone())), claimed) };
                assert_eq!(say(&holder("a", before), &renewed(14), &[]), None, "{claim:?} {before}");
                assert_eq!(
                    say(&holder("a", before), &renewed(15), &[]),
                    Some(Proof::SessionMissing),
                    "{claim:?} {before}"
                );
            }
        }
        // Not what Baton writes: nothing is concluded from it.
        assert_eq!(say(&holder("a", 2), &watched(Some(session(Claim::Foreign)), 1_000), &[]), None);
    }

    /// The lease was shortened; the agent may not know.
    #[test]
    fn the_longest_duration_that_the_agent_may_still_go_by_counts() {
        let missing = Watched { duration: 4 * D, ..watched(None, 59) };
        assert_eq!(say(&holder("a", 1), &missing, &[]), None);
        assert_eq!(say(&holder("a", 1), &Watched { claimed_for: 4 * D, ..missing }, &[]), Some(Proof::SessionMissing));
    }

    #[test]
    fn the_end_of_a_container_counts_for_the_boot_that_it_was() {
        let me = holder("a", 1);
        let held = watched(Some(session(Claim::Held(me.clone()))), 0); // claimed at 100.5
        assert_eq!(say(&me, &held, &[end(90, 101)]), Some(Proof::Terminated));
        assert_eq!(say(&me, &held, &[end(90, 100)]), None, "an earlier process, or within the second");
        assert_eq!(say(&me, &held, &[end(101, 150)]), None, "a later one");
        assert_eq!(say(&me, &held, &[]), None);
        // Of a boot that is not the one that claimed it nothing is known.
        assert_eq!(say(&Holder { random: "other".into(), ..me.clone() }, &held, &[end(90, 101)]), None);
        // Another Pod of that name.
        let agent = &[end(90, 101)];
        assert_eq!(proof(&me, &held, Some(Process { pod_uid: "uid-heir", agent, applications: &[] })), None);
        let unclaimed =
            watched(Some(crate::snapshot::lease::Session { acquired_at: None, ..session(Claim::Held(me.clone())) }), 0);
        assert_eq!(say(&me, &unclaimed, &[end(90, 101)]), None);
        assert!(at(100) < at(101));
    }

    #[test]
    fn an_application_that_outlives_its_sidecar_is_not_dead() {
        let me = holder("a", 1);
        let held = watched(Some(session(Claim::Held(me.clone()))), 0);
        let (ended, runs): (&[ContainerEnd], &[ContainerEnd]) = (&[end(90, 150)], &[]);
        let both = |agent: &[ContainerEnd], application: &[ContainerEnd]| {
            proof(&me, &held, Some(Process { pod_uid: "uid-a", agent, applications: &[application.to_vec()] }))
        };
        assert_eq!(both(ended, runs), None);
        // It was restarted after the claim, and runs on.
        assert_eq!(both(ended, &[end(90, 120)]), None);
        assert_eq!(both(ended, &[end(90, 120), end(121, 151)]), Some(Proof::Terminated));
        assert_eq!(both(ended, ended), Some(Proof::Terminated));
    }
}
