//! Equipment of the tests, and the examples, as programs.
pub mod web;
