//! The end of a Pod, or of its application: others may take the listeners, and then the agent gives them back.
use std::time::Duration;

use crate::agent::boottime::Boottime;

/// What the agent is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Let others take the listeners.
    Drain,
    /// Another process of the application has connected: what the one before has asked for is over.
    Anew,
    /// The same as [`Self::Drain`], and end when nothing is held. Said again: do not wait for others.
    Terminate,
}

/// Whether the agent lets go of what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    since: Option<Boottime>,
    terminates: bool,
    hastens: bool,
}

impl Drain {
    /// It is told something from outside.
    pub fn notice(&mut self, notice: Notice, now: Boottime) {
        if notice == Notice::Anew {
            if self.since.is_some() && !self.terminates {
                tracing::info!("not draining any more: the application was started again");
                *self = Self::default();
            }
            return;
        }
        if self.since.is_none() {
            tracing::info!(?notice, "draining: others may take the listeners");
        }
        self.since.get_or_insert(now);
        if notice == Notice::Terminate && std::mem::replace(&mut self.terminates, true) {
            self.hastens = true;
        }
    }

    /// Others may take the listeners.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// The agent ends once nothing is held.
    pub fn terminates(&self) -> bool {
        self.terminates
    }

    /// Since when no successor is waited for any more: what is held is given back.
    pub fn leaves_at(&self, timeout: Duration) -> Option<Boottime> {
        let since = self.since?;
        Some(if self.hastens { since } else { since.after(timeout) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn second(second: u64) -> Boottime {
        Boottime(Duration::from_secs(second))
    }

    fn told(notices: &[Notice]) -> Drain {
        let mut drain = Drain::default();
        for (notice, now) in notices.iter().zip(100..) {
            drain.notice(*notice, second(now));
        }
        drain
    }

    #[test]
    fn the_first_word_counts_and_the_second_signal_hastens() {
        let drain = told(&[Notice::Drain, Notice::Terminate]);
        assert_eq!((drain.leaves_at(TIMEOUT), drain.terminates()), (Some(second(130)), true));
        assert_eq!(told(&[Notice::Terminate, Notice::Terminate]).leaves_at(TIMEOUT), Some(second(100)));
        assert_eq!(told(&[]).leaves_at(TIMEOUT), None);
    }

    /// A6: a container that is restarted alone gets listeners again; a Pod that ends does not.
    #[test]
    fn who_was_started_again_has_not_asked_for_anything() {
        assert!(!told(&[Notice::Drain, Notice::Anew]).is_on());
        assert!(told(&[Notice::Anew, Notice::Drain]).is_on());
        for ends in
            [&[Notice::Drain, Notice::Terminate, Notice::Anew], &[Notice::Terminate, Notice::Anew, Notice::Drain]]
        {
            let drain = told(ends);
            assert!(drain.is_on() && drain.terminates(), "{ends:?}");
        }
    }
}
