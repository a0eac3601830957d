//! What the operator wrote, by the API server's audit log.
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;

/// The part of an audit event that is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    request_uri: String,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Option<Timestamp>,
    response_status: Option<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    subresource: String,
}

/// Writes by what they write, and the answer where it is no success: `create pods`, `update rollouts/status 409`, …
pub type Writes = BTreeMap<String, u64>;

/// Writes of `users` that arrived from `from` to `to`, refused ones included. Leases are left out, because they go by
/// time and not by work; so are dry runs, because nothing is written.
pub fn of(log: &Path, users: &[&str], from: Timestamp, to: Timestamp) -> Result<Writes> {
    let mut writes = Writes::new();
    for write in all(log, users)?.into_iter().filter(|it| (from..=to).contains(&it.at) && !it.is_lease) {
        *writes.entry(write.what).or_default() += 1;
    }
    Ok(writes)
}

/// A write that arrived at the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub at: Timestamp,
    /// Until it was answered, in milliseconds; as far as the log tells.
    pub took: Option<i64>,
    /// As in [`Writes`].
    pub what: String,
    /// Of the object; empty for one that a create makes.
    pub name: String,
    pub is_lease: bool,
}

/// All writes of `users`, refused ones included, in the order in which they were answered.
pub fn all(log: &Path, users: &[&str]) -> Result<Vec<Write>> {
    read(log, |user| users.contains(&user))
}

/// The same of everybody.
pub fn everybodys(log: &Path) -> Result<Vec<Write>> {
    read(log, |_| true)
}

fn read(log: &Path, counts: impl Fn(&str) -> bool) -> Result<Vec<Write>> {
    let file = File::open(log).with_context(|| format!("cannot read the audit log {}", log.display()))?;
    let mut writes = Vec::new();
    for line in BufReader::new(file).lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Event>(&line?) else { continue };
        if counts(&event.user.username) {
            writes.extend(written(&event));
        }
    }
    Ok(writes)
}

fn written(event: &Event) -> Option<Write> {
    let object = event.object_ref.as_ref()?;
    let writes = matches!(&*event.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    if !writes || event.request_uri.contains("dryRun=") {
        return None;
    }
    let slash = if object.subresource.is_empty() { "" } else { "/" };
    let code = event.response_status.as_ref().map_or(0, |answer| answer.code);
    let refused = if code < 400 { String::new() } else { format!(" {code}") };
    let what = format!("{} {}{slash}{}{refused}", event.verb, object.resource, object.subresource);
    let (name, is_lease) = (object.name.clone(), object.resource == "leases");
    let at = event.request_received_timestamp;
    let took = event.stage_timestamp.map(|end| end.as_millisecond() - at.as_millisecond());
    Some(Write { at, took, what, name, is_lease })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn only_real_writes_of_that_user_in_that_time_count() {
        let mut log = String::new();
        for (second, user, verb, uri, resource, subresource) in [
            (9, "operator", "create", "/pods", "pods", ""),
            (10, "operator", "create", "/pods", "pods", ""),
            (11, "operator", "create", "/pods", "pods", ""),
            (12, "operator", "create", "/pods?dryRun=All", "pods", ""),
            (13, "operator", "update", "/rollouts/web/status", "rollouts", "status"),
            (14, "operator", "update", "/leases/baton", "leases", ""),
            (15, "operator", "list", "/pods", "pods", ""),
            (16, "somebody", "create", "/pods", "pods", ""),
            (21, "operator", "delete", "/pods/a", "pods", ""),
        ] {
            let event = serde_json::json!({
                "verb": verb, "user": {"username": user}, "requestURI": uri,
                "objectRef": {"resource": resource, "subresource": subresource},
                "requestReceivedTimestamp": Timestamp::from_second(second).unwrap().to_string(),
            });
            writeln!(log, "{event}").unwrap();
        }
        log.push_str("{\"half\": ");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        std::fs::write(&path, log).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let expect = [("create pods".to_owned(), 2), ("update rollouts/status".to_owned(), 1)];
        assert_eq!(of(&path, &["operator"], at(10), at(20)).unwrap(), expect.into());
    }
}
