//! When to renew, and until when one may run: what the profile of a session means to its own agent.
use std::time::Duration;

use crate::{
    agent::{boottime::Boottime, exec::GUARD_MARGIN},
    api::session::SessionProfile,
    plan::listener_set::session,
};

/// Times of a session, as far as its agent may rely on them.
///
/// Others wait for D of the Lease. So the times of a shorter D hold from the moment at which the renewal is sent that writes it,
/// and count from then; those of a longer one from the renewal whose answer shows it. Not from when a shorter one is wanted: by
/// its S the last renewal may be over already, and everything would stop for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    in_force: SessionProfile,
    wanted: SessionProfile,
    /// When the renewal was sent that was last acknowledged.
    sent_at: Option<Boottime>,
    /// Since then renewals were sent that write a shorter D: what holds should one have come through.
    at_most: Option<Deadlines>,
}

/// Until when something may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// All listeners are told to stop.
    pub stop: Boottime,
    /// Their guards kill what has not stopped. So much before K that a guard which does not do so is itself killed by K
    /// ([`GUARD_MARGIN`]), and not before S.
    pub kill: Boottime,
}

impl Pace {
    /// Before the claim, which writes D of this profile.
    pub fn new(profile: SessionProfile) -> Self {
        Self { in_force: profile, wanted: profile, sent_at: None, at_most: None }
    }

    /// Another profile is asked for.
    pub fn wish(&mut self, wanted: SessionProfile) {
        self.wanted = wanted;
    }

    /// A renewal is about to be sent, which writes D of the profile that is wanted.
    pub fn sends(&mut self, at: Boottime) {
        if self.wanted.times().expire < self.in_force.times().expire {
            let new = deadlines(at, self.wanted);
            self.at_most = Some(self.at_most.map_or(new, |other| other.earlier(new)));
        }
    }

    /// The profile that renewals should write.
    pub fn wanted(&self) -> SessionProfile {
        self.wanted
    }

    /// A renewal was acknowledged that had been sent then; the Lease has this D now.
    pub fn acknowledged(&mut self, sent_at: Boottime, duration: Duration) {
        // One that no profile has was written by another: as long as it is not too short, any profile will do.
        let profiles = [SessionProfile::Calm, SessionProfile::Default, SessionProfile::Fast];
        let written = profiles.into_iter().find(|profile| profile.times().expire <= duration);
        self.in_force = written.unwrap_or(SessionProfile::Fast);
        self.sent_at = self.sent_at.max(Some(sent_at));
        self.at_most = None;
    }

    /// The machine may have stood still for so long, which others have counted: deadlines come that much earlier.
    pub fn stood_still(&mut self, pause: Duration) {
        self.sent_at = self.sent_at.map(|sent_at| sent_at.before(pause));
        let earlier = |at: Deadlines| Deadlines { stop: at.stop.before(pause), kill: at.kill.before(pause) };
        self.at_most = self.at_most.map(earlier);
    }

    /// The longest pause that need not be counted, as it fits between K and D: people set clocks, and leap seconds are 1 s.
    pub fn tolerance(&self) -> Duration {
        let times = self.in_force.times();
        TOLERANCE_MAX.min(times.expire.saturating_sub(times.kill + TOLERANCE_MARGIN))
    }

    /// Nothing that was acknowledged counts any more: the session is lost.
    pub fn void(&mut self) {
        self.sent_at = None;
    }

    /// Until when something may run. In the past without an acknowledged renewal.
    pub fn deadlines(&self) -> Deadlines {
        let Some(sent_at) = self.sent_at else { return Deadlines::default() };
        let own = deadlines(sent_at, self.in_force);
        self.at_most.map_or(own, |at_most| at_most.earlier(own))
    }

    /// D: how long others wait for a silent session, by the last renewal that was acknowledged.
    pub fn expire(&self) -> Duration {
        self.in_force.times().expire
    }

    /// R: of the shorter profile from when it is wanted.
    pub fn period(&self) -> Duration {
        self.in_force.times().renew.min(self.wanted.times().renew)
    }

    /// How long a call may take that others wait for: at most R, so that there is time for them before S.
    pub fn timeout(&self) -> Duration {
        (self.period() * 2 / 3).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// How long the answer to a renewal is waited for, while others follow it: up to S, until which it counts.
    pub fn patience(&self) -> Duration {
        self.in_force.times().stop.min(self.period() * IN_FLIGHT_MAX)
    }

    /// When the next renewal is due, given when and how the last one was sent. A failed one is followed a second later,
    /// or at once where it took longer than that.
    pub fn next(&self, sent_at: Boottime, has_failed: bool) -> Boottime {
        sent_at.after(if has_failed { RETRY.min(self.period()) } else { self.period() })
    }
}

/// Renewals without an answer.
pub const IN_FLIGHT_MAX: u32 = 4;
const TOLERANCE_MAX: Duration = Duration::from_secs(2);
const TOLERANCE_MARGIN: Duration = Duration::from_millis(100);
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

impl Deadlines {
    fn earlier(self, other: Self) -> Self {
        Self { stop: self.stop.min(other.stop), kill: self.kill.min(other.kill) }
    }
}

fn deadlines(sent_at: Boottime, profile: SessionProfile) -> Deadlines {
    let times = profile.times();
    let kill = times.kill.saturating_sub(GUARD_MARGIN).max(times.stop);
    Deadlines { stop: session::deadline(sent_at, times.stop), kill: session::deadline(sent_at, kill) }
}

/// Pause before what has ended by itself is started again: 0.25 s, 2 s, 4 s … 60 s. A single crash costs little; what fails
/// three times in a row, which can end a release, has had some seconds to recover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_mins(1);
    /// What has run for so long has not failed to start.
    const GOOD: Duration = Duration::from_mins(1);

    /// Starts in a row that have failed.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// It ended by itself after this time, or never ran; how long to wait.
    pub fn failed(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= Self::GOOD {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Self::FIRST,
            failures => Duration::from_secs(1 << (failures - 1).min(6)).min(Self::LONGEST),
        }
    }

    /// It runs, and has done so for this time.
    pub fn runs_for(&mut self, time: Duration) {
        if time >= Self::GOOD {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(second: u64) -> Boottime {
        Boottime(Duration::from_secs(second))
    }

    fn duration(profile: SessionProfile) -> Duration {
        profile.times().expire
    }

    const ALL: [SessionProfile; 3] = [SessionProfile::Fast, SessionProfile::Default, SessionProfile::Calm];

    #[test]
    fn guards_kill_before_k_and_not_before_s() {
        for profile in ALL {
            let mut pace = Pace::new(profile);
            assert_eq!(pace.deadlines(), Deadlines::default(), "not acknowledged");
            pace.acknowledged(second(100), duration(profile));
            let (times, deadlines) = (profile.times(), pace.deadlines());
            assert_eq!(deadlines.stop, second(100).after(times.stop));
            assert!(deadlines.kill >= deadlines.stop);
            assert!(deadlines.kill.after(GUARD_MARGIN) <= second(100).after(times.kill), "{profile:?}");
            assert!(deadlines.kill.after(GUARD_MARGIN) < second(100).after(times.expire), "{profile:?}");
        }
    }

    #[test]
    fn a_shorter_profile_holds_from_when_it_is_sent_a_longer_one_when_it_was_answered() {
        let mut pace = Pace::new(SessionProfile::Default);
        pace.acknowledged(second(100), duration(SessionProfile::Default));
        pace.wish(SessionProfile::Fast);
        assert_eq!(pace.deadlines().stop, second(110), "what runs need not stop for that");
        assert_eq!(pace.period(), SessionProfile::Fast.times().renew);
        for sent_at in [103, 104] {
            pace.sends(second(sent_at));
            assert_eq!(pace.deadlines().stop, second(106), "the first may have come through");
        }
        pace.acknowledged(second(104), duration(SessionProfile::Fast));
        assert_eq!(pace.deadlines().stop, second(107));
        let mut pace = Pace::new(SessionProfile::Fast);
        pace.acknowledged(second(101), duration(SessionProfile::Fast));
        pace.wish(SessionProfile::Calm);
        pace.sends(second(102));
        assert_eq!((pace.deadlines().stop, pace.wanted()), (second(104), SessionProfile::Calm));
        pace.acknowledged(second(102), duration(SessionProfile::Fast));
        assert_eq!(pace.deadlines().stop, second(105), "it has not been written");
        pace.acknowledged(second(103), duration(SessionProfile::Calm));
        assert_eq!(pace.deadlines().stop, second(163));
        pace.acknowledged(second(104), Duration::from_secs(4));
        assert_eq!(pace.deadlines().stop, second(107), "no profile has it");
    }

    /// H2
    #[test]
    fn a_pause_brings_deadlines_forward_by_its_length() {
        let mut pace = Pace::new(SessionProfile::Default);
        pace.acknowledged(second(100), duration(SessionProfile::Default));
        pace.stood_still(Duration::from_secs(3));
        assert_eq!(pace.deadlines().stop, second(107));
        pace.acknowledged(second(101), duration(SessionProfile::Default));
        assert_eq!(pace.deadlines().stop, second(111));
        pace.stood_still(Duration::from_hours(1));
        assert!(pace.deadlines().kill < second(101), "it is long over");
        let tolerances = ALL.map(|profile| Pace::new(profile).tolerance().as_millis());
        assert!(ALL.into_iter().zip(tolerances).all(|(profile, tolerance)| {
            let times = profile.times();
            tolerance < times.expire.saturating_sub(times.kill).as_millis() && tolerance != 1_000
        }));
        assert_eq!(Pace::new(SessionProfile::Fast).tolerance(), Duration::from_millis(900));
        pace.void();
        assert_eq!(pace.deadlines(), Deadlines::default());
    }

    #[test]
    fn a_failed_renewal_is_soon_followed_by_another() {
        for profile in ALL {
            let pace = Pace::new(profile);
            let times = profile.times();
            assert!(pace.timeout() <= times.renew);
            assert_eq!(pace.next(second(100), false), second(100).after(times.renew));
            assert_eq!(pace.next(second(100), true), second(101));
            // Two that get no answer at all still end by S.
            assert!(times.renew + 2 * pace.timeout() <= times.stop, "{profile:?}");
        }
    }

    proptest! {
        /// With any wish and answer: no other's wait is shorter than our S.
        #[test]
        fn s_is_always_that_of_a_duration_that_others_wait_for(
            steps in prop::collection::vec((0_usize..3, any::<bool>(), any::<bool>()), 1..12)
        ) {
            let mut pace = Pace::new(SessionProfile::Default);
            // What others see: the last renewal that came through.
            let mut seen = (second(99), SessionProfile::Default);
            pace.acknowledged(seen.0, duration(seen.1));
            for (number, (wish, arrives, answered)) in steps.into_iter().enumerate() {
                pace.wish(ALL[wish]);
                let sent_at = second(100 + number as u64);
                pace.sends(sent_at);
                if arrives {
                    seen = (sent_at, pace.wanted());
                }
                if arrives && answered {
                    pace.acknowledged(sent_at, duration(seen.1));
                }
                let (Deadlines { stop, kill }, times) = (pace.deadlines(), seen.1.times());
                prop_assert!(stop <= seen.0.after(times.stop) && kill <= seen.0.after(times.kill));
            }
        }

        #[test]
        fn pauses_grow_to_a_minute(runs in prop::collection::vec(0_u64..59, 1..20)) {
            let mut backoff = Backoff::default();
            let pauses: Vec<_> = runs.iter().map(|ran| backoff.failed(Duration::from_secs(*ran)).as_millis()).collect();
            let expected = [250, 2_000, 4_000, 8_000, 16_000, 32_000].into_iter().chain(std::iter::repeat(60_000));
            prop_assert!(pauses.iter().copied().eq(expected.take(runs.len())));
            prop_assert_eq!(backoff.failed(Duration::from_mins(1)).as_millis(), 250);
            backoff.runs_for(Duration::from_mins(1));
            prop_assert_eq!(backoff.failures(), 0);
        }
    }
}
