//! A small HTTP service that reports its version and drains on SIGTERM.
fn main() {}
