//! Text fixtures, folds to completion, property tests.
mod fixture;
mod folds;
mod looks;
mod properties;
