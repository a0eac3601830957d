//! Rollouts, a line for each.
use jiff::Timestamp;

use super::{Options, columns_within, on_one_line, painted};
use crate::view::{Tone, age::age};

/// Columns of a message where no terminal says how wide it is.
const MESSAGE_MAX: usize = 60;

/// A Rollout.
pub(in crate::cli) struct Row {
    pub namespace: String,
    pub name: String,
    /// `3/4`.
    pub ready: String,
    pub updated: i32,
    /// How it is meant, and the word.
    pub state: (Tone, String),
    pub version: String,
    pub created: Option<Timestamp>,
    pub message: String,
}

/// All of them; with their namespaces where they are of several.
pub(in crate::cli) fn list(all: &[Row], everywhere: bool, options: Options) -> Vec<String> {
    let mut heading = vec!["NAME", "READY", "UP-TO-DATE", "STATUS", "VERSION", "AGE", "MESSAGE"];
    if everywhere {
        heading.insert(0, "NAMESPACE");
    }
    let row = |row: &Row| {
        let (tone, word) = &row.state;
        let age = row.created.map(|created| age(options.now.as_second() - created.as_second())).unwrap_or_default();
        let message = on_one_line(&row.message);
        let short = if options.wide || options.width.is_some() {
            message
        } else {
            console::truncate_str(&message, MESSAGE_MAX, "…").into_owned()
        };
        let own = [row.ready.clone(), row.updated.to_string(), painted(*tone, word), row.version.clone(), age, short];
        let place = everywhere.then(|| row.namespace.clone()).into_iter().chain([row.name.clone()]);
        place.chain(own).collect::<Vec<_>>()
    };
    let last = heading.len() - 1;
    let rows = [heading.into_iter().map(str::to_owned).collect()].into_iter().chain(all.iter().map(row));
    let width = options.width.filter(|_| !options.wide);
    columns_within(&rows.collect::<Vec<_>>(), width, &[last, last - 2])
}
