//! Whether an owner can be reached from a state: it is played on without further faults, everybody doing what he should.
use super::{
    state::{Renewal, State, Who},
    steps::Action,
    world::World,
};

/// Ticks that it may take; D and K are at most 4.
const ROUNDS: usize = 16;

impl<const I: usize, const L: usize> World<I, L> {
    /// Whether every listener comes to run, or no Pod is left that could run it.
    pub fn recovers(&self, state: &State<I, L>) -> bool {
        let world = self.calm();
        let mut state = *state;
        for _ in 0..ROUNDS {
            for pod in 0..I {
                world.keep_session(&mut state, pod);
            }
            if state.instances.iter().all(|x| x.pod_gone && !x.has_orphan()) {
                return true;
            }
            let owned = (0..L).filter(|listener| world.find_owner(&mut state, *listener)).count();
            if owned == L {
                return true;
            }
            world.play(&mut state, Action::Tick { slow: None });
            for pod in 0..I {
                world.play(&mut state, Action::Fence(pod));
            }
        }
        false
    }

    fn play(&self, state: &mut State<I, L>, action: Action) -> bool {
        self.next(state, action).inspect(|next| *state = *next).is_some()
    }

    /// The agent of this Pod is there, and has renewed its session.
    fn keep_session(&self, state: &mut State<I, L>, pod: usize) {
        self.play(state, Action::MendSession(pod));
        if !state.instances[pod].session.exists {
            self.play(state, Action::MakeSession(pod));
        }
        if state.instances[pod].renewal != Renewal::None {
            self.play(state, Action::LoseRenewal(pod));
        }
        // Fenced meanwhile: ends, starts again, claims.
        for _ in 0..3 {
            let x = &state.instances[pod];
            if !x.lives {
                self.play(state, Action::Restart(pod));
            } else if !x.knows {
                self.play(state, Action::ClaimAgain(pod));
            } else {
                self.play(state, Action::SendRenewal(pod));
                let _ = self.play(state, Action::CommitRenewal(pod)) || self.play(state, Action::RefuseRenewal(pod));
            }
            if state.instances[pod].renewal == Renewal::Committed {
                self.play(state, Action::AnswerRenewal(pod));
                return;
            }
        }
    }

    fn find_owner(&self, state: &mut State<I, L>, listener: usize) -> bool {
        for _ in 0..3 {
            let version = state.listeners[listener].epoch;
            let holder = state.listeners[listener].holders[usize::from(version)];
            if (0..I).any(|pod| {
                let runs = state.instances[pod].units[listener].runs;
                runs == version && self.me(state, pod) == Some(holder)
            }) || (0..I).any(|pod| self.play(state, Action::Start { pod, listener, version }))
            {
                return true;
            }
            let others = |state: &State<I, L>, holder: Who| {
                let pods = (0..I).filter(|pod| !state.instances[*pod].pod_gone);
                pods.filter_map(|pod| self.me(state, pod)).filter(|me| *me != holder).collect::<Vec<_>>()
            };
            for to in others(state, holder) {
                self.play(state, Action::Assign { listener, version, to });
            }
            for pod in 0..I {
                let unsent = state.instances[pod].units[listener].put == 0;
                if unsent && !self.play(state, Action::SendPut { pod, listener }) {
                    continue;
                }
                let mut heirs = others(state, holder);
                heirs.push(holder); // nobody else is there: it takes it back
                let _ = heirs.into_iter().any(|to| self.play(state, Action::CommitPut { pod, listener, to }));
            }
        }
        false
    }
}
