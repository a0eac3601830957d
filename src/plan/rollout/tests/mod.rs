//! Text fixtures, folds to completion, property tests.
pub(crate) mod fixture;
mod folds;
mod looks;
pub(crate) mod properties;
