//! Which Pod each listener belongs to. A listener that need not move does not: placement is a function of where they are,
//! and of where those that are on their way were sent ([`Spot::announced`]): a destination does not change while it can
//! take them.
//!
//! While a rollout is under way a listener moves once: from the Pod that leaves to the Pod of the target revision that
//! takes its slot, and that takes no more than it will keep in the end ([`quota`]). Evened out is only when all is quiet.
//!
//! Listeners that do not run are spread in the same measure, and beyond it only where it may not wait for more Pods
//! ([`Spot::may_crowd`]): else the first Pod that is ready after all were lost would take everything, to give most of it
//! away again.
use std::collections::{BTreeMap, BTreeSet};

/// A Pod that may hold listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which instance it is, where Pods have numbers: the new Pod of an instance gets what the old one had.
    pub slot: Option<i32>,
    /// What it is there for.
    pub role: Role,
}

/// What a Pod may get, and whether it keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ready, with an agent, of the revision that is worked towards: planned moves go here.
    Target,
    /// As good, but of the revision that its turn has yet to come to: it keeps what it has, and takes what is unowned.
    Stays,
    /// It is to leave: what it has is moved as soon as there is room, and goes on until then.
    Leaves,
    /// Not ready for more: it keeps what it has.
    Busy,
}

/// Where one listener is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// The seat of its owner, who is not dead.
    pub at: Option<usize>,
    /// The seat that has been told that it will come.
    pub announced: Option<usize>,
    /// Seats that have tried in vain to run it: it is not sent there, and leaves them for any other.
    pub shuns: BTreeSet<usize>,
    /// It does not run, or its Pod leaves, and it does not wait for more Pods to come: it may go where it exceeds the quota,
    /// and from a Pod that leaves to one that will be replaced, too.
    pub may_crowd: bool,
}

/// What a ListenerSet asks for.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Listeners that are to run.
    pub listeners: usize,
    /// Most listeners of one Pod; None: any number.
    pub max_per_pod: Option<usize>,
    /// How many Pods there will be when all is done.
    pub seats_in_the_end: usize,
    /// Nothing is being replaced: listeners may move to even out the numbers.
    pub is_quiet: bool,
}

/// How many listeners a Pod of the target revision takes at most in planned moves, so that its first ones are its last.
pub fn quota(rules: &Rules) -> usize {
    let even = rules.listeners.div_ceil(rules.seats_in_the_end.max(1));
    rules.max_per_pod.map_or(even, |most| even.min(most))
}

/// The seat of each listener, by index; None: there is none for it now. In an order that does not change (by name).
pub fn place(spots: &[Spot], seats: &[Seat], rules: &Rules) -> Vec<Option<usize>> {
    let mut room = Room::new(seats, rules);
    let quota = quota(rules);
    // Those on their way count where they go, so that nothing is sent after them that would not fit.
    let goes_on = |spot: &Spot| {
        let to = spot.announced.filter(|to| *to < seats.len() && Some(*to) != spot.at && !spot.shuns.contains(to))?;
        let may_stay =
            spot.at.is_none() || (spot.may_crowd && spot.at.is_some_and(|at| seats[at].role == Role::Leaves));
        let suits = seats[to].role == Role::Target || (seats[to].role == Role::Stays && may_stay);
        suits.then_some(to)
    };
    let on_their_way: Vec<bool> = spots.iter().map(|spot| goes_on(spot).is_some()).collect();
    let mut placed: Vec<Option<usize>> =
        spots.iter().map(|spot| goes_on(spot).or(spot.at.filter(|seat| *seat < seats.len()))).collect();
    placed.iter().flatten().for_each(|seat| room.set(*seat, room.load[*seat] + 1));
    // Listeners that do not run go first: it may exceed the quota, but not the bound of a Pod.
    for (seat, spot) in placed.iter_mut().zip(spots).filter(|(seat, _)| seat.is_none()) {
        *seat = room.least(quota, &[Role::Target], &spot.shuns);
        if seat.is_none() {
            let limit = if spot.may_crowd { usize::MAX } else { quota };
            *seat = room.least(limit, &[Role::Target, Role::Stays], &spot.shuns);
        }
        if seat.is_none() && spot.may_crowd {
            *seat = room.least(usize::MAX, &[Role::Target, Role::Stays], &BTreeSet::new()); // shunned by all
        }
    }
    for (index, spot) in spots.iter().enumerate() {
        let Some(from) = spot.at.filter(|at| *at < seats.len() && !on_their_way[index]) else { continue };
        let to = if seats[from].role == Role::Leaves {
            let partner = room.partner(seats[from].slot, quota, &spot.shuns);
            let within = partner.or_else(|| room.least(quota, &[Role::Target], &spot.shuns));
            let limit = if spot.may_crowd { usize::MAX } else { 0 };
            within.or_else(|| room.least(limit, &[Role::Target, Role::Stays], &spot.shuns))
        } else if spot.shuns.contains(&from) || room.load[from] > room.most {
            room.least(usize::MAX, &[Role::Target], &spot.shuns).filter(|to| *to != from)
        } else {
            None
        };
        if let Some(to) = to {
            room.set(from, room.load[from] - 1);
            placed[index] = Some(to); // without room it goes on where it is
        }
    }
    if rules.is_quiet {
        let may_move = |index: usize| !on_their_way[index] && spots[index].shuns.is_empty();
        even_out(&mut placed, seats, &mut room, may_move);
    }
    placed
}

/// How many listeners each seat has.
struct Room<'s> {
    seats: &'s [Seat],
    most: usize,
    load: Vec<usize>,
    /// (load, seat) of those that can take any, by role.
    targets: BTreeSet<(usize, usize)>,
    stays: BTreeSet<(usize, usize)>,
    by_slot: BTreeMap<i32, usize>,
}

impl<'s> Room<'s> {
    fn new(seats: &'s [Seat], rules: &Rules) -> Self {
        let of = |role: Role| seats.iter().enumerate().filter(move |(_, seat)| seat.role == role);
        Self {
            seats,
            most: rules.max_per_pod.unwrap_or(usize::MAX),
            load: vec![0; seats.len()],
            targets: of(Role::Target).map(|(index, _)| (0, index)).collect(),
            stays: of(Role::Stays).map(|(index, _)| (0, index)).collect(),
            by_slot: of(Role::Target).filter_map(|(index, seat)| Some((seat.slot?, index))).collect(),
        }
    }

    /// One more for this seat; false when it has as many as this, or is full.
    fn take(&mut self, seat: usize, limit: usize) -> bool {
        let is_free = self.load[seat] < limit.min(self.most);
        if is_free {
            self.set(seat, self.load[seat] + 1);
        }
        is_free
    }

    fn set(&mut self, seat: usize, load: usize) {
        let before = std::mem::replace(&mut self.load[seat], load);
        let open = match self.seats[seat].role {
            Role::Target => &mut self.targets,
            Role::Stays => &mut self.stays,
            Role::Leaves | Role::Busy => return,
        };
        open.remove(&(before, seat));
        open.insert((load, seat));
    }

    /// Takes one for the seat of these roles that has the fewest, if that is below `limit`.
    fn least(&mut self, limit: usize, roles: &[Role], shuns: &BTreeSet<usize>) -> Option<usize> {
        let first = |open: &BTreeSet<(usize, usize)>, role| {
            open.iter().copied().find(|(_, seat)| !shuns.contains(seat)).filter(|_| roles.contains(&role))
        };
        let candidates = [first(&self.targets, Role::Target), first(&self.stays, Role::Stays)];
        let (_, seat) = candidates.into_iter().flatten().min()?;
        self.take(seat, limit).then_some(seat)
    }

    /// Takes one for the Pod that takes this slot.
    fn partner(&mut self, slot: Option<i32>, limit: usize, shuns: &BTreeSet<usize>) -> Option<usize> {
        let seat = *self.by_slot.get(&slot?)?;
        (!shuns.contains(&seat) && self.take(seat, limit)).then_some(seat)
    }
}

/// Moves as few as possible until the numbers of any two Pods that take listeners differ by at most one: those that have
/// the most keep one more where it does not come out even.
fn even_out(placed: &mut [Option<usize>], seats: &[Seat], room: &mut Room<'_>, may_move: impl Fn(usize) -> bool) {
    let fullest: Vec<usize> = room.targets.iter().rev().map(|(_, seat)| *seat).collect();
    let total: usize = room.targets.iter().map(|(load, _)| load).sum();
    let Some(even) = total.checked_div(fullest.len()) else { return };
    let mut keeps = vec![even; seats.len()];
    fullest.iter().take(total % fullest.len()).for_each(|seat| keeps[*seat] += 1);
    for (index, seat) in placed.iter_mut().enumerate().rev() {
        let Some(from) = seat.filter(|seat| seats[*seat].role == Role::Target) else { continue };
        let Some(&(fewest, to)) = room.targets.first() else { return };
        if room.load[from] > keeps[from] && fewest + 1 < room.load[from] && fewest < room.most && may_move(index) {
            room.set(from, room.load[from] - 1);
            room.set(to, fewest + 1);
            *seat = Some(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seat(role: Role, slot: i32) -> Seat {
        Seat { slot: Some(slot), role }
    }

    fn rules(seats_in_the_end: usize) -> Rules {
        Rules { listeners: 0, max_per_pod: None, seats_in_the_end, is_quiet: false }
    }

    /// Of listeners of which none is on its way.
    fn place(at: &[Option<usize>], seats: &[Seat], rules: &Rules) -> Vec<Option<usize>> {
        let spot = |at: &Option<usize>| Spot { at: *at, may_crowd: at.is_none(), ..Spot::default() };
        let spots: Vec<_> = at.iter().map(spot).collect();
        super::place(&spots, seats, &Rules { listeners: at.len(), ..*rules })
    }

    fn loads(placed: &[Option<usize>], seats: usize) -> Vec<usize> {
        (0..seats).map(|seat| placed.iter().filter(|at| **at == Some(seat)).count()).collect()
    }

    #[test]
    fn the_first_ones_are_spread() {
        let seats = [0, 1, 2].map(|slot| seat(Role::Target, slot));
        assert_eq!(loads(&place(&[None; 8], &seats, &rules(3)), 3), [3, 3, 2]);
        assert_eq!(place(&[None], &[], &rules(3)), [None]);
    }

    #[test]
    fn a_new_pod_takes_over_from_the_old_one_of_its_slot_and_no_more_than_it_keeps() {
        // Slot 0 is replaced: seat 0 leaves, seat 3 comes; slots 1 and 2 have yet to come.
        let seats = [seat(Role::Leaves, 0), seat(Role::Stays, 1), seat(Role::Stays, 2), seat(Role::Target, 0)];
        let at = [0, 1, 2, 0, 1, 2, 0].map(Some);
        assert_eq!(place(&at, &seats, &rules(3)), [3, 1, 2, 3, 1, 2, 3].map(Some));
        // With too much on the old Pod the rest goes on there until there is room.
        let at = [Some(0); 7];
        assert_eq!(loads(&place(&at, &seats, &rules(3)), 4), [4, 0, 0, 3]);
    }

    #[test]
    fn what_has_lost_its_owner_need_not_wait_for_the_rollout() {
        let seats = [seat(Role::Stays, 1), seat(Role::Leaves, 0)];
        assert_eq!(place(&[None, Some(1)], &seats, &rules(2)), [Some(0), Some(1)]);
        let seats = [seat(Role::Busy, 1), seat(Role::Leaves, 0)];
        assert_eq!(place(&[None, Some(0)], &seats, &rules(2)), [None, Some(0)]);
    }

    #[test]
    fn a_pod_holds_no_more_than_its_bound() {
        let two = Rules { max_per_pod: Some(2), ..rules(2) };
        let seats = [0, 1].map(|slot| seat(Role::Target, slot));
        let placed = place(&[Some(0), Some(0), None, None, None], &seats, &two);
        assert_eq!(loads(&placed, 2), [2, 2]);
        assert_eq!(placed.iter().filter(|seat| seat.is_none()).count(), 1);
        // The bound was lowered: what runs moves where there is room, and else goes on.
        let placed = place(&[Some(0), Some(0), Some(0), Some(0), Some(1)], &seats, &two);
        assert_eq!(loads(&placed, 2), [3, 2]);
    }

    #[test]
    fn what_is_on_its_way_goes_on() {
        let seats = [seat(Role::Leaves, 0), seat(Role::Target, 1), seat(Role::Target, 2)];
        let announced = |at, announced| Spot { at: Some(at), announced: Some(announced), ..Spot::default() };
        let two = Rules { listeners: 2, ..rules(2) };
        for to in [1, 2] {
            let placed = super::place(&[announced(0, to), Spot { at: Some(0), ..Spot::default() }], &seats, &two);
            assert_eq!(placed, [Some(to), Some(3 - to)], "the other one goes where there is room");
        }
        let gone = [seat(Role::Leaves, 0), seat(Role::Busy, 1), seat(Role::Target, 2)];
        assert_eq!(super::place(&[announced(0, 1)], &gone, &two), [Some(2)]);
    }

    #[test]
    fn the_first_pod_does_not_take_all() {
        let (seats, three) = ([seat(Role::Target, 0)], Rules { listeners: 6, ..rules(3) });
        let nobodys = |may_crowd| vec![Spot { may_crowd, ..Spot::default() }; 6];
        assert_eq!(loads(&super::place(&nobodys(false), &seats, &three), 1), [2]);
        assert_eq!(loads(&super::place(&nobodys(true), &seats, &three), 1), [6]);
    }

    #[test]
    fn what_a_pod_leaves_without_an_heir_goes_to_the_others() {
        let leaves = |may_crowd| vec![Spot { at: Some(0), may_crowd, ..Spot::default() }; 4];
        let four = Rules { listeners: 8, ..rules(4) };
        let seats = [seat(Role::Leaves, 0), seat(Role::Target, 1), seat(Role::Stays, 2)];
        assert_eq!(loads(&super::place(&leaves(false), &seats, &four), 3), [2, 2, 0]);
        assert_eq!(loads(&super::place(&leaves(true), &seats, &four), 3), [0, 2, 2]);
    }

    #[test]
    fn what_a_pod_cannot_run_goes_to_another() {
        let seats = [0, 1, 2].map(|slot| seat(Role::Target, slot));
        let shuns = |seats: &[usize]| Spot { at: Some(0), shuns: seats.iter().copied().collect(), ..Spot::default() };
        let quiet = Rules { is_quiet: true, listeners: 1, ..rules(3) };
        assert_eq!(super::place(&[shuns(&[0])], &seats, &quiet), [Some(1)]);
        assert_eq!(super::place(&[shuns(&[0, 1])], &seats, &quiet), [Some(2)]);
        assert_eq!(super::place(&[shuns(&[0, 1, 2])], &seats, &quiet), [Some(0)], "no Pod can: it stays");
    }

    #[test]
    fn when_all_is_quiet_the_fewest_possible_move() {
        let seats = [0, 1, 2].map(|slot| seat(Role::Target, slot));
        let quiet = Rules { is_quiet: true, ..rules(3) };
        let at: Vec<_> = [0, 0, 0, 0, 1, 1, 1, 1].map(Some).to_vec();
        let placed = place(&at, &seats, &quiet);
        assert_eq!(loads(&placed, 3), [3, 3, 2]);
        assert_eq!(placed.iter().zip(&at).filter(|(after, before)| after != before).count(), 2);
        assert_eq!(place(&at, &seats, &rules(3)), at, "not while something is replaced");
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![Just(Role::Target), Just(Role::Stays), Just(Role::Leaves), Just(Role::Busy)]
    }

    fn world() -> impl Strategy<Value = (Vec<Option<usize>>, Vec<Seat>, Rules)> {
        let seats = prop::collection::vec((role(), 0..6), 0..8);
        let seats = seats.prop_map(|seats| seats.into_iter().map(|(role, slot)| seat(role, slot)).collect::<Vec<_>>());
        (seats, 1..8_usize, prop::option::of(1..10_usize), any::<bool>()).prop_flat_map(
            |(seats, seats_in_the_end, max_per_pod, is_quiet)| {
                let at = prop::collection::vec(prop::option::of(0..seats.len().max(1)), 0..40);
                (at, Just(seats), Just(Rules { listeners: 0, max_per_pod, seats_in_the_end, is_quiet }))
            },
        )
    }

    proptest! {
        /// L6: nothing goes to a Pod that is not ready for it, and what may stay stays.
        #[test]
        fn listeners_go_only_where_they_may((at, seats, rules) in world()) {
            let placed = place(&at, &seats, &rules);
            for (before, after) in at.iter().zip(&placed) {
                if let Some(to) = after.filter(|_| after != before) {
                    let wanted = before.filter(|before| *before < seats.len()).map(|before| seats[before].role);
                    prop_assert!(seats[to].role == Role::Target || (seats[to].role == Role::Stays && wanted != Some(Role::Leaves)));
                }
            }
            prop_assert!(at.iter().zip(&placed).all(|(before, after)| after.is_some() || before.is_none_or(|b| b >= seats.len())));
            let before = loads(&at, seats.len());
            for (seat, load) in loads(&placed, seats.len()).into_iter().enumerate() {
                prop_assert!(load <= rules.max_per_pod.unwrap_or(usize::MAX).max(before[seat]));
            }
        }

        /// L5: when all is quiet the numbers differ by at most one, and it stays so.
        #[test]
        fn quiet_sets_are_even_and_stay((at, seats, rules) in world()) {
            let seats: Vec<_> = seats.into_iter().map(|seat| Seat { role: Role::Target, ..seat }).collect();
            let at: Vec<_> = at.into_iter().map(|at| at.filter(|_| rules.max_per_pod.is_none())).collect();
            let placed = place(&at, &seats, &Rules { is_quiet: true, ..rules });
            let loads = loads(&placed, seats.len());
            if let (Some(most), Some(fewest)) = (loads.iter().max(), loads.iter().min()) {
                prop_assert!(most - fewest <= 1, "{:?}", loads);
            }
            prop_assert_eq!(place(&placed, &seats, &Rules { is_quiet: true, ..rules }), placed);
        }

        /// L5: one move at most, in any order in which the slots are replaced.
        #[test]
        fn a_rollout_moves_each_listener_once(
            listeners in 0..40_usize, order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let replicas = order.len();
            let old = |slot: usize, role| seat(role, slot as i32);
            let start: Vec<_> = (0..replicas).map(|slot| old(slot, Role::Target)).collect();
            let mut at = place(&vec![None; listeners], &start, &rules(replicas));
            let mut moves = vec![0; listeners];
            let mut seats: Vec<_> = (0..replicas).map(|slot| old(slot, Role::Stays)).collect();
            for slot in order {
                seats[slot].role = Role::Leaves;
                seats.push(seat(Role::Target, slot as i32));
                let next = place(&at, &seats, &rules(replicas));
                for (index, (before, after)) in at.iter().zip(&next).enumerate() {
                    moves[index] += usize::from(before != after);
                }
                at = next;
                prop_assert!(at.iter().all(|seat| *seat != Some(slot)), "the old Pod is empty");
            }
            prop_assert!(moves.iter().all(|moves| *moves == 1), "{:?}", moves);
        }
    }
}
