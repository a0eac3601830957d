//! What was sent, what came back, what broke and when.
use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{endpoints::Endpoint, histogram::Histogram};

/// Single breaks kept in the report; further ones are only counted.
const BREAKS_MAX: usize = 10_000;
/// Seconds kept in the report: a day.
const SECONDS_MAX: usize = 86_400;

/// Why a try gave no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Nobody listens at the endpoint.
    Refused,
    /// The endpoint cannot be reached for another reason.
    Unreachable,
    /// No connection in time.
    ConnectTimeout,
    /// The connection was reset before a response.
    Reset,
    /// The connection was closed before a response.
    Closed,
    /// The connection broke in the middle of a response.
    Truncated,
    /// No response in time.
    Timeout,
    /// A response, but not 2xx.
    Status,
    /// There was no ready endpoint.
    NoEndpoint,
}

impl Cause {
    /// True where nothing of a response was seen and the connection is gone: an idempotent request can be tried again.
    pub fn may_be_tried_again(self) -> bool {
        match self {
            Self::Refused | Self::Unreachable | Self::ConnectTimeout | Self::Reset | Self::Closed => true,
            Self::Truncated | Self::Timeout | Self::Status | Self::NoEndpoint => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::NoEndpoint => "no endpoint",
        })
    }
}

/// One try that gave no good answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Break {
    pub at: Timestamp,
    pub cause: Cause,
    /// True: tried once more on another endpoint. False: the request failed.
    pub retried: bool,
    /// Address and Pod; empty for [`Cause::NoEndpoint`].
    pub endpoint: String,
    pub pod: String,
}

/// Counts of one second, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests that ended, well or not: `ok + failed`. A request counts once, however often it was tried.
    pub sent: u64,
    pub ok: u64,
    pub failed: u64,
    /// Requests that were tried a second time.
    pub retried: u64,
    /// Good answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
}

/// Counts of the second that begins at `at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Second {
    pub at: Timestamp,
    #[serde(flatten)]
    pub counts: Counts,
}

/// Everything, as written to the report file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    #[serde(flatten)]
    pub counts: Counts,
    /// Requests that were due but given up, because all connections were busy for too long.
    pub skipped: u64,
    pub retries_by_cause: BTreeMap<Cause, u64>,
    pub failures_by_cause: BTreeMap<Cause, u64>,
    pub latency: Latency,
    /// In order of time.
    pub breaks: Vec<Break>,
    pub breaks_omitted: u64,
    /// By time; a second without requests is absent.
    pub seconds: Vec<Second>,
}

/// Milliseconds from the time a request was due to its good answer, second tries included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names)] // units last in names
pub struct Latency {
    pub p50_milliseconds: f64,
    pub p90_milliseconds: f64,
    pub p99_milliseconds: f64,
    pub p999_milliseconds: f64,
    pub max_milliseconds: f64,
}

/// Counts what the workers report.
pub struct Tally {
    started_at: Timestamp,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    total: Counts,
    skipped: u64,
    retries: BTreeMap<Cause, u64>,
    failures: BTreeMap<Cause, u64>,
    latency: Histogram,
    breaks: Vec<Break>,
    breaks_omitted: u64,
    seconds: BTreeMap<i64, Counts>,
}

impl Tally {
    pub fn new(started_at: Timestamp) -> Self {
        Self { started_at, inner: Mutex::default() }
    }

    /// A good answer at `at`, `took` after the request was due.
    pub fn ok(&self, at: Timestamp, version: &str, took: Duration) {
        let mut inner = self.lock();
        inner.count(at, |counts| {
            counts.sent += 1;
            counts.ok += 1;
            match counts.versions.get_mut(version) {
                Some(count) => *count += 1,
                None => drop(counts.versions.insert(version.to_owned(), 1)),
            }
        });
        inner.latency.record(took);
    }

    /// A try that is followed by a second one.
    pub fn retried(&self, at: Timestamp, cause: Cause, endpoint: &Endpoint) -> Break {
        let mut inner = self.lock();
        inner.count(at, |counts| counts.retried += 1);
        *inner.retries.entry(cause).or_default() += 1;
        inner.broke(at, cause, true, Some(endpoint))
    }

    /// A request that failed for good.
    pub fn failed(&self, at: Timestamp, cause: Cause, endpoint: Option<&Endpoint>) -> Break {
        let mut inner = self.lock();
        inner.count(at, |counts| {
            counts.sent += 1;
            counts.failed += 1;
        });
        *inner.failures.entry(cause).or_default() += 1;
        inner.broke(at, cause, false, endpoint)
    }

    /// Requests that were due and not sent.
    pub fn skipped(&self, requests: u64) {
        self.lock().skipped += requests;
    }

    /// Counts of these seconds (since 1970), where anything happened in them.
    pub fn seconds(&self, range: RangeInclusive<i64>) -> Vec<Second> {
        if range.is_empty() {
            return Vec::new();
        }
        self.lock().seconds.range(range).map(second).collect()
    }

    /// Everything up to now.
    pub fn report(&self, ended_at: Timestamp) -> Report {
        let inner = self.lock();
        let milliseconds = |percent| inner.latency.percentile(percent).as_secs_f64() * 1_000.0;
        Report {
            started_at: self.started_at,
            ended_at,
            counts: inner.total.clone(),
            skipped: inner.skipped,
            retries_by_cause: inner.retries.clone(),
            failures_by_cause: inner.failures.clone(),
            latency: Latency {
                p50_milliseconds: milliseconds(50.0),
                p90_milliseconds: milliseconds(90.0),
                p99_milliseconds: milliseconds(99.0),
                p999_milliseconds: milliseconds(99.9),
                max_milliseconds: inner.latency.max().as_secs_f64() * 1_000.0,
            },
            breaks: inner.breaks.clone(),
            breaks_omitted: inner.breaks_omitted,
            seconds: inner.seconds.iter().map(second).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Plain counters: whatever a panicking worker left is still what was counted.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, at: Timestamp, change: impl Fn(&mut Counts)) {
        change(&mut self.total);
        change(self.seconds.entry(at.as_second()).or_default());
        if self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_first();
        }
    }

    fn broke(&mut self, at: Timestamp, cause: Cause, retried: bool, endpoint: Option<&Endpoint>) -> Break {
        let (address, pod) =
            endpoint.map(|endpoint| (endpoint.address.to_string(), endpoint.pod.clone())).unwrap_or_default();
        let broke = Break { at, cause, retried, endpoint: address, pod };
        if self.breaks.len() < BREAKS_MAX {
            self.breaks.push(broke.clone());
        } else {
            self.breaks_omitted += 1;
        }
        broke
    }
}

/// Seconds come from timestamps, so the fallback is never met.
fn second((second, counts): (&i64, &Counts)) -> Second {
    Second { at: Timestamp::from_second(*second).unwrap_or_default(), counts: counts.clone() }
}
