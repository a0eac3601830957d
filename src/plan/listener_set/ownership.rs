//! The ownership of a listener: who may start it, give it away, take it.
//!
//! Each function looks at one version of the ownership Lease. What it returns is written by a PUT with that version's uid
//! and resourceVersion, or not at all; after an unknown result one reads again and asks again.
use crate::{
    plan::listener_set::{death::Proof, session::Boottime},
    snapshot::lease::{Holder, Ownership},
};

/// The next content of an ownership Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// holderIdentity; None: it is unowned.
    pub holder: Option<Holder>,
    /// leaseTransitions.
    pub epoch: u32,
}

impl Write {
    fn next(ownership: &Ownership, holder: Option<&Holder>) -> Self {
        Self { holder: holder.cloned(), epoch: ownership.epoch + 1 }
    }
}

/// What one boot knows of itself when it decides about one listener.
#[derive(Clone, Copy, Debug)]
pub struct Agent<'a> {
    /// Its identity.
    pub me: &'a Holder,
    /// Until when it may run anything ([`super::session::deadline`]).
    pub deadline: Boottime,
    /// The highest epoch of this listener that it has given up: stopped, and never started again.
    pub tombstone: u32,
}

/// Whether this boot may start the listener as this version says. A view from the past does no harm: what has been given
/// up since is below the tombstone, and what was taken from a boot was taken after its deadline.
pub fn may_start(ownership: &Ownership, agent: &Agent<'_>, now: Boottime) -> bool {
    is_mine(ownership, agent.me) && now < agent.deadline && ownership.epoch > agent.tombstone
}

/// Gives the listener to another boot, or leaves it unowned; only one that has certainly stopped: its epoch is the tombstone.
pub fn hand_over(ownership: &Ownership, agent: &Agent<'_>, to: Option<&Holder>) -> Option<Write> {
    has_stopped(ownership, agent).then(|| Write::next(ownership, to))
}

/// Takes up again what has stopped and was not given away: after a crash of the application, a change of its
/// configuration, or when a successor did not come about. Each start has an epoch of its own.
pub fn take_back(ownership: &Ownership, agent: &Agent<'_>) -> Option<Write> {
    hand_over(ownership, agent, Some(agent.me))
}

/// A boot that has claimed its Pod's session takes what an earlier boot of the Pod holds: it could claim only once nothing of
/// that one ran.
pub fn inherit(ownership: &Ownership, me: &Holder) -> Option<Write> {
    let is_predecessors = |holder: &Holder| holder.pod == me.pod && holder.uid == me.uid && holder.boot < me.boot;
    ownership.holder.as_ref().is_some_and(is_predecessors).then(|| Write::next(ownership, Some(me)))
}

/// The controller gives a listener to a boot: one that is unowned, or whose owner is dead. From any other owner it is never
/// taken: an owner that does not let go is killed first.
pub fn assign(ownership: &Ownership, to: &Holder, death: impl FnOnce(&Holder) -> Option<Proof>) -> Option<Write> {
    let is_free = ownership.holder.as_ref().is_none_or(|holder| death(holder).is_some());
    is_free.then(|| Write::next(ownership, Some(to)))
}

/// The controller takes a listener that is not to run from an owner that is dead: it is unowned then.
pub fn free(ownership: &Ownership, death: impl FnOnce(&Holder) -> Option<Proof>) -> Option<Write> {
    let holder = ownership.holder.as_ref()?;
    death(holder).map(|_| Write::next(ownership, None))
}

/// A person accepts that the listener may run twice (`spec.release[].force`): it is given to another boot, although its owner
/// may live. The one exception to [`assign`].
pub fn seize(ownership: &Ownership, to: &Holder) -> Write {
    Write::next(ownership, Some(to))
}

/// The first content of an ownership Lease. `floor` is the highest epoch that a deleted Lease of this set has had
/// (`status.epochFloor`): a listener of the same name goes on where the one before it ended.
pub fn create(floor: u32, to: Option<&Holder>) -> Write {
    Write { holder: to.cloned(), epoch: floor + 1 }
}

/// Whether a Lease may be deleted, and the floor that must be stored before.
pub fn retire(ownership: &Ownership, floor: u32) -> Option<u32> {
    ownership.holder.is_none().then(|| floor.max(ownership.epoch))
}

fn is_mine(ownership: &Ownership, me: &Holder) -> bool {
    ownership.holder.as_ref() == Some(me)
}

fn has_stopped(ownership: &Ownership, agent: &Agent<'_>) -> bool {
    is_mine(ownership, agent.me) && ownership.epoch == agent.tombstone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::listener_set::session::fixture::holder;

    fn owned(holder: Option<&Holder>, epoch: u32) -> Ownership {
        let (uid, resource_version) = ("uid-lease".to_owned(), "9".to_owned());
        Ownership { holder: holder.cloned(), epoch, uid, resource_version, state: None, config_hash: "c1".into() }
    }

    fn second(second: u64) -> Boottime {
        Boottime(Duration::from_secs(second))
    }

    /// A boot that may run until 110.
    fn agent(me: &Holder, tombstone: u32) -> Agent<'_> {
        Agent { me, deadline: second(110), tombstone }
    }

    /// L1, L2
    #[test]
    fn a_boot_starts_what_names_it_above_its_tombstone_before_its_deadline() {
        let me = holder("a", 2);
        let mine = owned(Some(&me), 5);
        assert!(may_start(&mine, &agent(&me, 4), second(109)));
        assert!(!may_start(&mine, &agent(&me, 5), second(109)), "given up");
        assert!(!may_start(&mine, &agent(&me, 4), second(110)), "too late");
        for other in
            [None, Some(holder("a", 1)), Some(holder("b", 2)), Some(Holder { random: "x".into(), ..me.clone() })]
        {
            assert!(!may_start(&owned(other.as_ref(), 5), &agent(&me, 4), second(109)), "{other:?}");
        }
    }

    /// H12: of its own Pod, and of an earlier boot, which nothing outlives.
    #[test]
    fn a_boot_takes_what_an_earlier_boot_of_its_pod_holds() {
        let me = holder("a", 3);
        for boot in [1, 2] {
            let write = inherit(&owned(Some(&holder("a", boot)), 5), &me).unwrap();
            assert_eq!(write, Write { holder: Some(me.clone()), epoch: 6 });
        }
        let same_name = Holder { uid: "uid-again".into(), ..holder("a", 2) };
        for other in [None, Some(holder("a", 3)), Some(holder("a", 4)), Some(holder("b", 1)), Some(same_name)] {
            assert_eq!(inherit(&owned(other.as_ref(), 5), &me), None, "{other:?}");
        }
    }

    /// L2, L7
    #[test]
    fn an_owner_gives_away_only_what_has_stopped() {
        let (me, heir) = (holder("a", 1), holder("b", 1));
        let mine = owned(Some(&me), 5);
        assert_eq!(hand_over(&mine, &agent(&me, 4), Some(&heir)), None, "it may run");
        let given = hand_over(&mine, &agent(&me, 5), Some(&heir)).unwrap();
        assert_eq!(given, Write { holder: Some(heir.clone()), epoch: 6 });
        assert_eq!(hand_over(&mine, &agent(&me, 5), None).unwrap().holder, None);
        assert_eq!(hand_over(&owned(Some(&heir), 5), &agent(&me, 5), None), None, "another's");
        assert_eq!(hand_over(&owned(Some(&me), 6), &agent(&me, 5), None), None, "another epoch, not stopped");
        // Deadlines do not matter: nothing runs.
        assert!(hand_over(&mine, &Agent { deadline: second(0), ..agent(&me, 5) }, Some(&heir)).is_some());
    }

    /// L2
    #[test]
    fn a_restart_in_place_has_an_epoch_of_its_own() {
        let me = holder("a", 1);
        let back = take_back(&owned(Some(&me), 5), &agent(&me, 5)).unwrap();
        assert_eq!(back, Write { holder: Some(me.clone()), epoch: 6 });
        assert!(may_start(&owned(back.holder.as_ref(), back.epoch), &agent(&me, 5), second(100)));
    }

    /// L7
    #[test]
    fn the_controller_takes_only_from_the_dead() {
        let (owner, heir) = (holder("a", 1), holder("b", 1));
        let held = owned(Some(&owner), 5);
        assert_eq!(assign(&held, &heir, |_| None), None);
        let taken = assign(&held, &heir, |dead| (*dead == owner).then_some(Proof::Fenced)).unwrap();
        assert_eq!(taken, Write { holder: Some(heir.clone()), epoch: 6 });
        assert_eq!(assign(&owned(None, 5), &heir, |_| None).unwrap().epoch, 6);
        assert_eq!(free(&held, |_| None), None);
        assert_eq!(free(&held, |_| Some(Proof::Fenced)), Some(Write { holder: None, epoch: 6 }));
        assert_eq!(free(&owned(None, 5), |_| Some(Proof::Fenced)), None, "unowned already");
    }

    /// L2
    #[test]
    fn epochs_go_on_through_deletion() {
        let heir = holder("b", 1);
        assert_eq!(create(0, Some(&heir)), Write { holder: Some(heir.clone()), epoch: 1 });
        let floor = retire(&owned(None, 7), 3).unwrap();
        assert_eq!(create(floor, Some(&heir)).epoch, 8);
        assert_eq!(retire(&owned(None, 2), 3), Some(3));
        assert_eq!(retire(&owned(Some(&heir), 7), 3), None, "owned");
    }
}
