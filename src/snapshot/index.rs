//! Watch events in, sorted values out.
