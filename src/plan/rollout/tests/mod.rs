//! Text fixtures, folds to completion, property tests.
mod blue_green;
mod faults;
pub(crate) mod fixture;
mod folds;
mod gates;
mod in_place;
mod laws;
mod leftovers;
mod listeners;
mod looks;
mod packages;
mod pins;
mod properties;
mod recreate;
mod reload;
mod restarts;
pub(crate) mod worlds;
