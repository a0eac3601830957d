//! The run: which revisions matter, which Pod stands where, and what each slot is assigned.
pub mod batches;
pub mod budget;
pub mod packages;
pub mod pins;
pub mod recreate;
pub mod released_services;
pub mod revisions;
pub mod sets;
pub mod slots;
pub mod update_path;
mod view;

pub(crate) use view::View;
