//! What an agent does next about one listener: `Nothing → Prepared → Runs → Stops → Nothing`, with the epoch that was given
//! up as a tombstone. Level-triggered: it looks at what is there, so any event may be missed, doubled or late.
use std::time::Duration;

use crate::{
    plan::listener_set::{
        ownership::{self, Agent, Write},
        session::Boottime,
    },
    snapshot::lease::{Holder, Letter, Order, Ownership},
};

/// What an agent remembers of one listener, as long as its process lives: one for each ownership Lease, by its uid. Epochs
/// of another Lease of the same listener say nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// What of it there is in this Pod.
    pub runs: Runs,
    /// The highest epoch that was given up here: what has stopped, or was never started.
    pub tombstone: u32,
    /// Not to be started in place or prepared again before this time: it has ended by itself, and is backed off.
    pub rests_until: Boottime,
    /// Hash of the configuration that was last started here. Another one in the Lease is itself a permit to start.
    pub ran_with: Option<String>,
    /// Since when the inbox says no more that it will come.
    pub uninvited_since: Option<Boottime>,
}

/// What of a listener there is in a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runs {
    /// Nothing.
    #[default]
    Nothing,
    /// Connected, but it consumes nothing.
    Prepared,
    /// It runs.
    Epoch {
        /// The epoch that was started.
        epoch: u32,
        /// Hash of the configuration that it was started with.
        config_hash: String,
    },
    /// It was told to stop, and has not said yet that it has.
    Stops {
        /// The epoch that is to stop.
        epoch: u32,
    },
}

/// What is known when it is decided.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The ownership Lease of this unit as last seen; None: there is none that names this boot, or another has come in its
    /// place.
    pub ownership: Option<&'a Ownership>,
    /// What the inbox says of it.
    pub letter: Option<&'a Letter>,
    /// This boot.
    pub me: &'a Holder,
    /// Until when it may run anything.
    pub deadline: Boottime,
    /// Of another ownership Lease of the same name something runs here, or may run.
    pub is_blocked: bool,
    /// Its set has a start budget ([`crate::snapshot::listener::Settings::asks_before_start`]).
    pub asks: bool,
    /// The Pod is to end, and its successor could have been named by now.
    pub leaves: bool,
    /// How long a listener stays prepared that is not expected any more.
    pub patience: Duration,
    /// Now.
    pub now: Boottime,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Connect, but consume nothing.
    Prepare,
    /// Disconnect: it will not come.
    Unprepare,
    /// Start it under this epoch.
    Start(u32),
    /// Stop it.
    Stop(StopReason),
    /// Never start this epoch: it counts as stopped.
    GiveUp(u32),
    /// Write this into the ownership Lease as it was seen.
    Write(Write),
    /// Nothing before something changes, or this time.
    Wait(Option<Boottime>),
}

/// Why a listener stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The session was not renewed in time.
    Deadline,
    /// It is another's, or its Lease is gone.
    Lost,
    /// It is to be given to another, or to become unowned.
    Released,
    /// Its configuration has changed.
    Reconfigured,
    /// The Pod ends.
    Leaving,
}

/// The next step for one listener.
pub fn next(unit: &Unit, view: &View<'_>) -> Step {
    match &unit.runs {
        Runs::Stops { .. } => Step::Wait(None),
        Runs::Epoch { epoch, config_hash } => match reason_to_stop(*epoch, config_hash, view) {
            Some(reason) => Step::Stop(reason),
            None => Step::Wait(Some(view.deadline)),
        },
        // Neither here nor, given away, elsewhere: two Leases of one listener would run at once.
        Runs::Nothing | Runs::Prepared if view.is_blocked => Step::Wait(None),
        Runs::Nothing | Runs::Prepared => match mine(view) {
            Some(ownership) => with_mine(unit, ownership, view),
            None => without(unit, view),
        },
    }
}

fn mine<'a>(view: &View<'a>) -> Option<&'a Ownership> {
    view.ownership.filter(|ownership| ownership.holder.as_ref() == Some(view.me))
}

fn reason_to_stop(epoch: u32, config_hash: &str, view: &View<'_>) -> Option<StopReason> {
    if view.now >= view.deadline {
        return Some(StopReason::Deadline);
    }
    // A view from before the start says nothing: an epoch never goes back.
    if view.ownership.is_some_and(|ownership| ownership.epoch < epoch) {
        return None;
    }
    let Some(ownership) = mine(view).filter(|ownership| ownership.epoch == epoch) else {
        return Some(StopReason::Lost);
    };
    match fate(epoch, view) {
        Fate::Goes(_) if view.leaves => Some(StopReason::Leaving),
        Fate::Goes(_) => Some(StopReason::Released),
        Fate::Stays | Fate::MayStart => (ownership.config_hash != config_hash).then_some(StopReason::Reconfigured),
    }
}

/// What is to become of a listener that is ours.
enum Fate<'a> {
    Stays,
    /// It was asked for, and is to be started again here.
    MayStart,
    /// To this boot; None: it becomes unowned.
    Goes(Option<&'a Holder>),
}

fn fate<'a>(epoch: u32, view: &View<'a>) -> Fate<'a> {
    match view.letter {
        Some(Letter { epoch: of, order: Order::Release(to) }) if *of == epoch && to.as_ref() != Some(view.me) => {
            Fate::Goes(to.as_ref())
        }
        _ if view.leaves => Fate::Goes(None),
        // What has run gives itself the next epoch.
        Some(Letter { epoch: of, order: Order::Release(_) }) if *of == epoch => Fate::MayStart,
        _ => Fate::Stays,
    }
}

/// Nothing runs, and the listener is ours: to start, to give away, or to take back.
fn with_mine(unit: &Unit, ownership: &Ownership, view: &View<'_>) -> Step {
    let agent = Agent { me: view.me, deadline: view.deadline, tombstone: unit.tombstone };
    let fate = fate(ownership.epoch, view);
    if ownership.epoch > unit.tombstone {
        return match fate {
            Fate::Goes(_) => Step::GiveUp(ownership.epoch),
            _ if ownership::may_start(ownership, &agent, view.now) => Step::Start(ownership.epoch),
            _ => Step::Wait(None), // too late: the next renewal moves the deadline
        };
    }
    let write = match fate {
        Fate::Goes(to) => ownership::hand_over(ownership, &agent, to),
        _ if view.now >= view.deadline => return Step::Wait(None), // it may be another's any moment
        _ if view.now < unit.rests_until => return Step::Wait(Some(unit.rests_until)),
        Fate::Stays if view.asks && waits(unit, ownership) => return Step::Wait(None),
        Fate::Stays | Fate::MayStart => ownership::take_back(ownership, &agent),
    };
    write.map_or(Step::Wait(None), Step::Write)
}

/// With a start budget: whether it is ours, has ended here, and may not begin before there is a permit. Once its
/// configuration has been changed there is: the operator counts that as the start that it causes.
pub fn waits(unit: &Unit, ownership: &Ownership) -> bool {
    ownership.epoch <= unit.tombstone && unit.ran_with.as_ref() == Some(&ownership.config_hash)
}

/// Nothing runs, and the listener is not ours: it may come.
fn without(unit: &Unit, view: &View<'_>) -> Step {
    let is_invited = view.letter.is_some_and(|letter| letter.order == Order::Incoming);
    match (&unit.runs, unit.uninvited_since) {
        (Runs::Nothing, _) if is_invited && !view.leaves && view.now < view.deadline => {
            if view.now < unit.rests_until {
                Step::Wait(Some(unit.rests_until))
            } else {
                Step::Prepare
            }
        }
        (Runs::Prepared, _) if view.leaves => Step::Unprepare,
        (Runs::Prepared, Some(since)) if !is_invited => {
            let until = Boottime(since.0.saturating_add(view.patience));
            if view.now >= until { Step::Unprepare } else { Step::Wait(Some(until)) }
        }
        _ => Step::Wait(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::listener_set::session::fixture::holder;

    fn second(second: u64) -> Boottime {
        Boottime(Duration::from_secs(second))
    }

    /// Pod `a` at second 100, with a deadline at 110; it has given up epoch 4.
    #[derive(Clone)]
    struct Case {
        unit: Unit,
        ownership: Option<Ownership>,
        letter: Option<Letter>,
        is_blocked: bool,
        asks: bool,
        leaves: bool,
        now: u64,
    }

    fn case(runs: Runs) -> Case {
        let unit = Unit { runs, tombstone: 4, ..Unit::default() };
        Case { unit, ownership: None, letter: None, is_blocked: false, asks: false, leaves: false, now: 100 }
    }

    fn running() -> Case {
        case(Runs::Epoch { epoch: 5, config_hash: "c1".into() }).owned("a", 5)
    }

    impl Case {
        fn owned(self, by: &str, epoch: u32) -> Self {
            let ownership = Ownership {
                holder: (!by.is_empty()).then(|| holder(by, 1)),
                epoch,
                uid: "uid-lease".into(),
                resource_version: "9".into(),
                state: None,
                config_hash: "c1".into(),
            };
            Self { ownership: Some(ownership), ..self }
        }

        fn letter(self, epoch: u32, order: Order) -> Self {
            Self { letter: Some(Letter { epoch, order }), ..self }
        }

        fn blocked(self) -> Self {
            Self { is_blocked: true, ..self }
        }

        fn leaving(self) -> Self {
            Self { leaves: true, ..self }
        }

        fn at(self, now: u64) -> Self {
            Self { now, ..self }
        }

        fn stopped(mut self) -> Self {
            (self.unit.runs, self.unit.tombstone) = (Runs::Nothing, 5);
            self
        }

        fn next(&self) -> Step {
            let me = holder("a", 1);
            let view = View {
                ownership: self.ownership.as_ref(),
                letter: self.letter.as_ref(),
                me: &me,
                deadline: second(110),
                is_blocked: self.is_blocked,
                asks: self.asks,
                leaves: self.leaves,
                patience: Duration::from_secs(6),
                now: second(self.now),
            };
            next(&self.unit, &view)
        }
    }

    fn to(pod: &str) -> Order {
        Order::Release(Some(holder(pod, 1)))
    }

    fn write(pod: &str, epoch: u32) -> Step {
        Step::Write(Write { holder: (!pod.is_empty()).then(|| holder(pod, 1)), epoch })
    }

    #[test]
    fn what_names_me_starts() {
        for runs in [Runs::Nothing, Runs::Prepared] {
            assert_eq!(case(runs.clone()).owned("a", 5).next(), Step::Start(5));
            assert_eq!(case(runs.clone()).owned("a", 5).at(110).next(), Step::Wait(None));
            assert_eq!(case(runs.clone()).owned("b", 5).next(), Step::Wait(None));
            assert_eq!(case(runs).owned("a", 3).next(), Step::Wait(None), "a view from before it was given up");
        }
    }

    #[test]
    fn what_runs_goes_on_until_there_is_a_reason() {
        assert_eq!(running().next(), Step::Wait(Some(second(110))));
        assert_eq!(running().at(110).next(), Step::Stop(StopReason::Deadline));
        assert_eq!(running().owned("b", 6).next(), Step::Stop(StopReason::Lost));
        assert_eq!(running().owned("a", 6).next(), Step::Stop(StopReason::Lost), "each start has an epoch of its own");
        assert_eq!(Case { ownership: None, ..running() }.next(), Step::Stop(StopReason::Lost));
        assert_eq!(running().owned("b", 4).next(), Step::Wait(Some(second(110))), "a view from before its start");
        assert_eq!(running().leaving().next(), Step::Stop(StopReason::Leaving));
        let mut changed = running();
        changed.ownership.as_mut().unwrap().config_hash = "c2".into();
        assert_eq!(changed.next(), Step::Stop(StopReason::Reconfigured));
    }

    #[test]
    fn a_planned_move() {
        assert_eq!(running().letter(5, to("b")).next(), Step::Stop(StopReason::Released));
        assert_eq!(running().letter(4, to("b")).next(), Step::Wait(Some(second(110))), "of an earlier epoch");
        let stops = case(Runs::Stops { epoch: 5 }).owned("a", 5).letter(5, to("b"));
        assert_eq!(stops.next(), Step::Wait(None));
        assert_eq!(running().stopped().letter(5, to("b")).next(), write("b", 6));
        assert_eq!(running().stopped().letter(5, Order::Release(None)).next(), write("", 6));
        // Its answer was lost, and the view is still the old one: the same again, which can succeed only once.
        assert_eq!(running().stopped().letter(5, to("b")).owned("b", 6).next(), Step::Wait(None));
    }

    #[test]
    fn the_successor_prepares_and_starts() {
        let invited = |runs| case(runs).owned("b", 5).letter(5, Order::Incoming);
        assert_eq!(invited(Runs::Nothing).next(), Step::Prepare);
        assert_eq!(invited(Runs::Nothing).leaving().next(), Step::Wait(None));
        assert_eq!(invited(Runs::Nothing).at(110).next(), Step::Wait(None));
        assert_eq!(invited(Runs::Prepared).next(), Step::Wait(None));
        assert_eq!(invited(Runs::Prepared).owned("a", 6).next(), Step::Start(6));
        let mut failed = invited(Runs::Nothing);
        failed.unit.rests_until = second(103);
        assert_eq!(failed.next(), Step::Wait(Some(second(103))), "to prepare it has failed");
        assert_eq!(failed.at(103).next(), Step::Prepare);
        let mut forgotten = case(Runs::Prepared).owned("b", 5);
        forgotten.unit.uninvited_since = Some(second(95));
        assert_eq!(forgotten.next(), Step::Wait(Some(second(101))));
        assert_eq!(forgotten.at(101).next(), Step::Unprepare);
        assert_eq!(invited(Runs::Prepared).leaving().next(), Step::Unprepare);
    }

    /// L1: of a Lease that was made again nothing begins, here or elsewhere, before the end of what the one before had begun.
    #[test]
    fn nothing_begins_while_another_lease_of_its_name_runs() {
        let wait = Step::Wait(None);
        for runs in [Runs::Nothing, Runs::Prepared] {
            assert_eq!(case(runs.clone()).owned("a", 5).blocked().next(), wait);
            assert_eq!(case(runs).owned("a", 5).letter(5, to("b")).blocked().next(), wait);
        }
        assert_eq!(case(Runs::Nothing).owned("b", 5).letter(5, Order::Incoming).blocked().next(), wait);
        assert_eq!(running().stopped().blocked().next(), wait);
        assert_eq!(running().owned("b", 6).blocked().next(), Step::Stop(StopReason::Lost), "what runs may end");
    }

    #[test]
    fn what_has_ended_by_itself_is_taken_back_with_an_epoch_of_its_own() {
        let mut crashed = running().stopped();
        assert_eq!(crashed.next(), write("a", 6));
        crashed.unit.rests_until = second(103);
        assert_eq!(crashed.next(), Step::Wait(Some(second(103))));
        let crashed = crashed.at(103);
        assert_eq!(crashed.next(), write("a", 6));
        assert_eq!(crashed.at(110).next(), Step::Wait(None));
    }

    #[test]
    fn with_a_start_budget_what_has_ended_waits_for_its_turn() {
        let mut ended = Case { asks: true, ..running().stopped() };
        ended.unit.ran_with = Some("c1".into());
        assert_eq!(ended.next(), Step::Wait(None));
        assert_eq!(ended.clone().letter(4, to("a")).next(), Step::Wait(None), "of an earlier epoch");
        assert_eq!(ended.clone().letter(5, to("a")).next(), write("a", 6));
        assert_eq!(ended.clone().letter(5, to("b")).next(), write("b", 6), "others need no permit of ours");
        assert_eq!(ended.clone().leaving().letter(5, to("a")).next(), write("", 6));
        let mut rests = ended.clone().letter(5, to("a"));
        rests.unit.rests_until = second(103);
        assert_eq!(rests.next(), Step::Wait(Some(second(103))));
        ended.unit.ran_with = Some("c0".into());
        assert_eq!(ended.next(), write("a", 6), "its settings were changed for that");
        assert_eq!(running().letter(5, to("a")).next(), Step::Wait(Some(second(110))), "what runs goes on");
        assert_eq!(case(Runs::Nothing).owned("a", 5).letter(5, to("a")).next(), Step::Start(5));
    }

    #[test]
    fn a_pod_that_ends_gives_up_what_it_has_not_started() {
        assert_eq!(case(Runs::Nothing).owned("a", 5).leaving().next(), Step::GiveUp(5));
        assert_eq!(running().stopped().leaving().next(), write("", 6));
        assert_eq!(running().stopped().leaving().letter(5, to("b")).next(), write("b", 6), "a successor is better");
        assert_eq!(case(Runs::Nothing).owned("a", 5).letter(5, to("b")).next(), Step::GiveUp(5));
    }
}
