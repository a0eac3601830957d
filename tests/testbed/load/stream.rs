//! What happens while it happens: a line of JSON each, on standard output.
use std::io::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    endpoints::Endpoint,
    tally::{Break, Second},
};

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Line {
    /// Counts of a second that has passed.
    Second(Second),
    /// A try that gave no good answer.
    Break(Break),
    /// The ready endpoints changed.
    Endpoints { at: Timestamp, pods: Vec<String> },
}

/// Where the lines go.
#[derive(Clone, Copy)]
pub struct Stream {
    enabled: bool,
}

impl Stream {
    pub fn new(enabled: bool) -> Self {
        Self { enabled }
    }

    pub fn second(self, second: Second) {
        self.write(|| Line::Second(second));
    }

    pub fn broke(self, broke: &Break) {
        self.write(|| Line::Break(broke.clone()));
    }

    pub fn endpoints(self, at: Timestamp, endpoints: &[Endpoint]) {
        let pods = || {
            endpoints.iter().map(|it| if it.pod.is_empty() { it.address.to_string() } else { it.pod.clone() }).collect()
        };
        self.write(|| Line::Endpoints { at, pods: pods() });
    }

    fn write(self, line: impl FnOnce() -> Line) {
        if !self.enabled {
            return;
        }
        if let Ok(text) = serde_json::to_string(&line()) {
            // A reader that has gone away must not end the load: the report is still to be written.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }
}
