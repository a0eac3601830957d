//! What an application and the agent beside it say to each other: JSON over HTTP on 127.0.0.1.
//!
//! The application opens one stream of [`Event`]s (`POST /v1/listeners`), and answers by `POST
//! /v1/listeners/{set}/{listener}/{word}` ([`path()`]). Times are readings of CLOCK_BOOTTIME in nanoseconds, the same in every
//! container of the machine, so that an event means the same however late it is read.
//!
//! # Until when an application may run anything
//! ```text
//! t                    the renewal was sent that was last acknowledged
//! t + S                the agent asks for the end of everything (`stop`)
//! deadline - 500 ms    STOPS_BEFORE: the SDK asks for it too, if the agent has not        not before S
//! deadline - 250 ms    DROPS_BEFORE: the SDK cancels what has not ended; fences are shut
//! deadline             nothing runs: the SDK aborts the process if something does         K - 0.5 s
//! t + K                the agent counts it as ended                                       at most 0.8 D
//! t + D                another Pod may run it
//! ```
//! With the profile Fast (S 3, K 4, D 5 s) that is 3.0, 3.0, 3.25, 3.5, 4.0, 5.0 s.
use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Where the agent of a Pod listens, unless told otherwise.
pub const PORT: u16 = 9464;
/// Folder that all containers of a Pod share, unless told otherwise.
pub const STATE_DIR: &str = "/baton";
/// In it: the port that the agent listens on, in decimal.
pub const PORT_FILE: &str = "agent.port";
/// In it: what each request must have as [`TOKEN_HEADER`]. Each agent writes another one before it listens.
pub const TOKEN_FILE: &str = "agent.token";
/// Header of requests: that of who can read the folder.
pub const TOKEN_HEADER: &str = "baton-token";
/// In it: locked by the one process that runs listeners.
pub const LOCK_FILE: &str = "application.lock";

/// So long before a deadline a listener is asked to stop, at the latest.
pub const STOPS_BEFORE: Duration = Duration::from_millis(500);
/// So long before a deadline a listener is cancelled; from then on nothing is to be begun under its fence.
pub const DROPS_BEFORE: Duration = Duration::from_millis(250);

/// Longest resume value, as JSON.
pub const RESUME_BYTES_MAX: usize = 4096;
/// Longest reason of a failure; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest name of an instance.
pub const INSTANCE_BYTES_MAX: usize = 64;
/// Longest event, as JSON.
pub const EVENT_BYTES_MAX: usize = 64 << 10;
/// The stream is never silent for longer: where there is nothing to say an empty line (or comment) is sent.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A listener within a Pod: two sets may have listeners of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// Name of its ListenerSet.
    pub set: String,
    /// Its name in that.
    pub listener: String,
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.set, self.listener)
    }
}

/// Where one answers about a listener.
pub fn path(name: &Name, word: Word) -> String {
    format!("/v1/listeners/{name}/{}", word.as_str())
}

/// A reason as it is kept: without control characters, and cut to what reports have room for.
pub fn presentable(reason: &str) -> String {
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What an application says of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It could start at once.
    Prepared,
    /// It works.
    Started,
    /// It works still.
    Tick,
    /// Where a successor would go on.
    Resume,
    /// Something is wrong.
    Failed,
    /// Nothing of it is left.
    Stopped,
}

impl Word {
    /// Each of them.
    pub const ALL: [Self; 6] = [Self::Prepared, Self::Started, Self::Tick, Self::Resume, Self::Failed, Self::Stopped];

    /// As in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Started => "started",
            Self::Tick => "tick",
            Self::Resume => "resume",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Opens the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// A random name of this process.
    pub instance: String,
    /// Higher with each stream that this process opens: one that comes late, or that a library repeats by itself, says what
    /// does not hold any more.
    pub stream: u64,
    /// All that still runs in it. What is not in here has ended.
    pub running: Vec<Running>,
}

/// A listener that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// Name of its ListenerSet.
    pub set: String,
    /// Its name.
    pub listener: String,
    /// The token that it was started with.
    pub token: String,
}

/// The body of an answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The token that it was started with; none of what was only prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where a successor goes on.
    // Not just `default`: null is a resume value too.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub resume: Option<Box<RawValue>>,
    /// What is wrong: `Reason: a sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// What the agent says when it refuses something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong, by its name in path, query or body.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

/// What the agent says of a listener that runs: `GET …/fence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// The token of its present start.
    pub token: String,
    /// It is still to run: its end was not asked for, and its deadline has not passed.
    pub mine: bool,
    /// By then it must have stopped, as told on the stream so far.
    pub deadline: u64,
    /// How far off that is.
    pub milliseconds: u64,
}

/// What the agent says on the stream.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// Connect, but consume nothing: it may come.
    Prepare(Prepare),
    /// It will not come.
    Unprepare(Name),
    /// Start it.
    Start(Start),
    /// By then everything must have stopped, instead of by what was said before.
    Deadline(Deadline),
    /// Stop this one.
    Stop(Stop),
}

/// See [`Event::Prepare`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prepare {
    /// Name of its ListenerSet.
    pub set: String,
    /// Its name.
    pub listener: String,
    /// Its config, a JSON object.
    pub config: Box<RawValue>,
    /// How long connecting may take.
    pub connect_timeout_seconds: u32,
    /// Whether to connect through the proxy.
    pub use_proxy: bool,
}

/// See [`Event::Start`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// Name of its ListenerSet.
    pub set: String,
    /// Its name.
    pub listener: String,
    /// The fencing token of this start. Each start has one of its own.
    pub token: String,
    /// Its config, a JSON object.
    pub config: Box<RawValue>,
    /// Where to go on; absent if it was not said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub resume: Option<Box<RawValue>>,
    /// How long connecting may take.
    pub connect_timeout_seconds: u32,
    /// Whether to connect through the proxy.
    pub use_proxy: bool,
    /// By then it, and everything else, must have stopped, instead of by what was said before.
    pub deadline: u64,
    /// How far off that was when this was written: for people.
    pub milliseconds: u64,
    /// How long it will have to stop once it is asked to.
    pub stop_timeout_seconds: u32,
}

/// See [`Event::Deadline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// By then everything must have stopped.
    pub deadline: u64,
    /// How far off that was when this was written: for people.
    pub milliseconds: u64,
}

/// See [`Event::Stop`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Name of its ListenerSet.
    pub set: String,
    /// Its name.
    pub listener: String,
    /// The start that is to stop.
    pub token: String,
    /// By then it must have stopped, or by that of all if that is earlier.
    pub deadline: u64,
    /// How far off that was when this was written: for people.
    pub milliseconds: u64,
}

impl Event {
    /// Reads one event. None: one that this version does not know.
    ///
    /// # Errors
    /// It is no event.
    pub fn read(json: &str) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Kind {
            event: String,
        }
        // In two steps: a tagged enum cannot keep JSON as it was written.
        Ok(Some(match serde_json::from_str::<Kind>(json)?.event.as_str() {
            "prepare" => Self::Prepare(serde_json::from_str(json)?),
            "unprepare" => Self::Unprepare(serde_json::from_str(json)?),
            "start" => Self::Start(serde_json::from_str(json)?),
            "deadline" => Self::Deadline(serde_json::from_str(json)?),
            "stop" => Self::Stop(serde_json::from_str(json)?),
            _ => return Ok(None),
        }))
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "prepare",
            Self::Unprepare(_) => "unprepare",
            Self::Start(_) => "start",
            Self::Deadline(_) => "deadline",
            Self::Stop(_) => "stop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let (set, listener) = ("bots".to_owned(), "one".to_owned());
        let name = Name { set: set.clone(), listener: listener.clone() };
        let events = [
            Event::Prepare(Prepare {
                set: set.clone(),
                listener: listener.clone(),
                config: raw(r#"{"big":123456789012345678901234567890}"#),
                connect_timeout_seconds: 30,
                use_proxy: true,
            }),
            Event::Unprepare(name.clone()),
            Event::Start(Start {
                set: set.clone(),
                listener: listener.clone(),
                token: "u-7".into(),
                config: raw("{}"),
                resume: Some(raw("1.50")),
                connect_timeout_seconds: 30,
                use_proxy: false,
                deadline: 7,
                milliseconds: 0,
                stop_timeout_seconds: 10,
            }),
            Event::Deadline(Deadline { deadline: u64::MAX, milliseconds: 3 }),
            Event::Stop(Stop { set, listener, token: "u-7".into(), deadline: 9, milliseconds: 1 }),
        ];
        for event in events {
            let json = serde_json::to_string(&event).unwrap();
            assert!(json.starts_with(&format!(r#"{{"event":"{}","#, event.kind())), "{json}");
            let read = Event::read(&json).unwrap().unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json, "to the letter");
        }
        assert!(Event::read(r#"{"event":"dance"}"#).unwrap().is_none(), "of a later version");
        assert!(Event::read("[]").is_err());
        assert_eq!(path(&name, Word::Stopped), "/v1/listeners/bots/one/stopped");
    }

    #[test]
    fn null_is_a_resume_value_and_none_is_none() {
        let resume = |json: &str| serde_json::from_str::<Answer>(json).unwrap().resume.map(|raw| raw.get().to_owned());
        assert_eq!(resume(r#"{"resume":null}"#).as_deref(), Some("null"));
        assert_eq!(resume("{}"), None);
        assert!(serde_json::from_str::<Answer>(r#"{"resum":1}"#).is_err());
    }
}
