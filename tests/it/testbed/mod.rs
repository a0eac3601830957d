//! Equipment of the tests, and the examples, as programs.
mod web;
