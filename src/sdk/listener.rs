//! What a listener is, and what it is given.
use std::{fmt, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::{
    Stop,
    watchdog::Until,
    wire::{Name, RESUME_BYTES_MAX},
};

/// What is yours: how one listener is run. One value of it serves all listeners of the Pod.
pub trait Listener: Send + Sync + 'static {
    /// It may come soon: connect, authenticate, load, but consume nothing. Dropped when it will not come after all, and when
    /// it does come first. What is to last until [`Self::run`] this keeps in `self`.
    fn prepare(&self, unit: &Unit) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = unit;
        async { Ok(()) }
    }

    /// It will not come: what [`Self::prepare`] keeps for it can go.
    fn unprepare(&self, unit: &Unit) -> impl Future<Output = ()> + Send {
        let _ = unit;
        async {}
    }

    /// Runs it. Returning says that nothing of it is left, so that another Pod may start it at once, from what is returned.
    ///
    /// It is asked to return by `stop`, and dropped if it does not within the listener's stop time-out, or by its deadline.
    /// It must not block its thread for longer than a fraction of a second. An error says why it ended; it is started again,
    /// later or elsewhere.
    fn run(
        &self,
        unit: Unit,
        resume: Resume,
        fence: Fence,
        stop: Stop,
    ) -> impl Future<Output = Result<Resume, Error>> + Send;
}

/// Where a listener goes on: any JSON of at most 4 KiB, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Resume(pub(super) Option<Box<RawValue>>);

impl Resume {
    /// Nothing is known. As the end of a run: what the last checkpoint said holds.
    pub fn none() -> Self {
        Self(None)
    }

    /// From here.
    ///
    /// # Errors
    /// It cannot be written as JSON, or is longer than 4 KiB.
    pub fn new<T: Serialize>(value: &T) -> Result<Self, Error> {
        let json = serde_json::value::to_raw_value(value)?;
        if json.get().len() > RESUME_BYTES_MAX {
            let message =
                format!("{} bytes of JSON, at most {RESUME_BYTES_MAX}: keep a position, not data", json.get().len());
            return Err(Error::new("ResumeTooLong", message));
        }
        Ok(Self(Some(json)))
    }

    /// What the one before has left; None: it was not said.
    ///
    /// # Errors
    /// It is something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let read = |json: &RawValue| serde_json::from_str(json.get());
        self.0.as_deref().map(read).transpose().map_err(|error| Error::new("ResumeUnreadable", error))
    }
}

/// Why a listener does not run: one word for machines, a sentence for people. Other errors become one by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    reason: String,
    message: String,
}

impl Error {
    /// `reason` is one CamelCase word, such as `ConnectTimeout`: it is what `status.exceptions` shows.
    pub fn new(reason: &str, message: impl fmt::Display) -> Self {
        Self { reason: reason.to_owned(), message: message.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new("Failed", error)
    }
}

/// One listener, and how to speak of it.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(super) about: Arc<About>,
    /// None while it is only prepared.
    pub(super) said: Option<watch::Sender<Said>>,
}

#[derive(Debug)]
pub(super) struct About {
    pub name: Name,
    pub config: Box<RawValue>,
    pub connect_timeout: Duration,
    pub use_proxy: bool,
}

/// What a run has said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// How often it said that it works.
    pub ticks: u64,
    pub resume: Resume,
}

impl Unit {
    /// Name of the listener, unique in its set.
    pub fn listener(&self) -> &str {
        &self.about.name.listener
    }

    /// Name of its ListenerSet.
    pub fn set(&self) -> &str {
        &self.about.name.set
    }

    /// Its config: a JSON object.
    ///
    /// # Errors
    /// It has other fields than these.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.about.config.get()).map_err(|error| Error::new("InvalidConfig", error))
    }

    /// How long connecting may take. To be kept to by the listener itself.
    pub fn connect_timeout(&self) -> Duration {
        self.about.connect_timeout
    }

    /// Whether to connect through the proxy; which one is yours to know.
    pub fn use_proxy(&self) -> bool {
        self.about.use_proxy
    }

    /// It works. To be said at least once, when it does: until then it counts as starting, and as failed if that takes
    /// longer than its startTimeoutSeconds.
    pub fn tick(&self) {
        if let Some(said) = &self.said {
            said.send_modify(|said| said.ticks += 1);
        }
    }

    /// Where a successor would go on if this process died now; the last one counts, and it is told ten times a second at
    /// most. Says that it works, too.
    ///
    /// # Errors
    /// See [`Resume::new`].
    pub fn checkpoint<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        let resume = Resume::new(value)?;
        if let Some(said) = &self.said {
            said.send_modify(|said| {
                said.ticks += 1;
                said.resume = resume;
            });
        }
        Ok(())
    }
}

/// Whether a run may still do something, and the token to do it with.
#[derive(Clone, Debug)]
pub struct Fence {
    pub(super) token: Arc<str>,
    pub(super) until: Until,
}

impl Fence {
    /// To be asked before each thing that others can see: looks at the clock, and does nothing else.
    ///
    /// # Errors
    /// Its time is over: another one may begin. End at once.
    pub fn check(&self) -> Result<(), Error> {
        if self.until.is_open() {
            return Ok(());
        }
        Err(Error::new("Fenced", "its time is over: another Pod may run it"))
    }

    /// How long the answer of [`Self::check`] will hold, unless the listener is asked to stop.
    pub fn rest(&self) -> Duration {
        self.until.rest()
    }

    /// The fencing token of this start: `<uid of the ListenerSet>-<number>`, with a larger number at each start. To be stored
    /// with what is written elsewhere, where a write with an older one is to be refused.
    pub fn token(&self) -> &str {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_were_written() {
        let resume = Resume::new(&(7, "a")).unwrap();
        assert_eq!(resume.read::<(u32, String)>().unwrap(), Some((7, "a".to_owned())));
        assert_eq!(Resume::none().read::<u32>().unwrap(), None);
        let error = resume.read::<u32>().unwrap_err();
        assert!(error.to_string().starts_with("ResumeUnreadable: "), "{error}");
        assert!(Resume::new(&"a".repeat(RESUME_BYTES_MAX - 2)).is_ok());
        assert_eq!(Resume::new(&"a".repeat(RESUME_BYTES_MAX - 1)).unwrap_err().reason, "ResumeTooLong");
    }

    #[test]
    fn other_errors_become_one() {
        let fails = || -> Result<u32, Error> { Ok("x".parse::<u32>()?) };
        assert_eq!(fails().unwrap_err().to_string(), "Failed: invalid digit found in string");
    }
}
