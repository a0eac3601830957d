//! Text fixtures, folds to completion, property tests.
mod faults;
pub(crate) mod fixture;
mod folds;
mod looks;
pub(crate) mod properties;
