//! The hand-off of listeners: who may run one, who may give it to whom. At most one fenced owner at any time.
//!
//! The same functions decide at both ends, in the controller and in the agent of each Pod, and in the model that looks for
//! two owners (`tests/it/model`). They never ask who leads or what an inbox says: both only make things happen sooner.
//! What they rest on:
//! 1. Every change of an ownership is a compare-and-swap on its resourceVersion; one that names a holder, or none, raises
//!    its epoch. An epoch is started at most once, by the boot that its Lease names.
//! 2. A boot runs something only until its deadline: the time at which it *sent* its last acknowledged renewal, and S
//!    ([`session::deadline`]). Others wait D > S for a silent session.
//! 3. An owner gives a listener away only when that has certainly stopped ([`ownership::hand_over`]); anybody else takes it
//!    only from a boot that is dead by a fact that can never turn false again ([`death::proof`]).
pub mod change;
pub mod death;
pub mod ownership;
pub mod placement;
pub mod session;
pub mod unit;
