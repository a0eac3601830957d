//! What a person sees of a history: its trace, and the operators' own logs in it.
use std::io::{self, Write};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::trace::Trace;
use crate::fake_apiserver::{
    Commit,
    kinds::{LISTENER_SETS, PODS, ROLLOUTS, SERVICES},
};

/// A write, in a line.
pub fn line(commit: &Commit) -> String {
    let change = &commit.change;
    let object = &change.object;
    let end = if change.is_gone { " gone" } else { "" };
    let what = format!("{} {} {}@{}{end}", commit.verb.as_str(), change.kind.resource, object.name(), change.revision);
    if *change.kind == PODS && !change.is_gone {
        format!("{what} {}", pod(object))
    } else if *change.kind == ROLLOUTS {
        format!("{what} {}", rollout(object))
    } else if *change.kind == LISTENER_SETS {
        format!("{what} {}", listener_set(object))
    } else if *change.kind == SERVICES {
        format!("{what} [{}]", object["spec"]["selector"])
    } else {
        what
    }
}

fn pod(pod: &Value) -> String {
    let status = &pod["status"];
    let is_true = |type_: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
    };
    let waiting = status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default();
    let ready = if is_true("Ready") { "ready" } else { "not ready" };
    let ending = if pod["metadata"]["deletionTimestamp"].is_string() { " terminating" } else { "" };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    // Given another image in place, it goes on with the one before for a while.
    let images = [&pod["spec"]["containers"][0], &status["containerStatuses"][0]].map(|of| text(&of["image"]));
    let runs = if images[0] == images[1] { String::new() } else { format!(" {} for {}", images[1], images[0]) };
    format!("[{} {} {ready} {waiting}{ending}{runs}]", text(&pod["spec"]["nodeName"]), text(&status["phase"]))
}

fn rollout(rollout: &Value) -> String {
    let (spec, status) = (&rollout["spec"], &rollout["status"]);
    let reason = super::users::reason(rollout, "Ready").unwrap_or("-");
    let image =
        spec["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or("-").rsplit(':').next().unwrap_or("-");
    let answers: Vec<String> = ["paused", "approve", "abort", "retryAt", "restartAt", "pins"]
        .iter()
        .filter(|answer| !spec[**answer].is_null() && spec[**answer] != false)
        .map(|answer| format!(" {answer}={}", spec[*answer]))
        .collect();
    format!(
        "[generation {} {image} x{}{} | observed {} run {} opened {} {}->{} {reason}: {}]",
        rollout["metadata"]["generation"],
        spec["replicas"],
        answers.concat(),
        status["observedGeneration"],
        status["run"],
        status["batch"]["opened"],
        status["currentRevision"],
        status["targetRevision"],
        status["waitingFor"].as_str().unwrap_or_default(),
    )
}

fn listener_set(set: &Value) -> String {
    let status = &set["status"];
    let reason = |type_: &str| super::users::reason(set, type_).unwrap_or("-").to_owned();
    let exceptions = status["exceptions"].as_array().into_iter().flatten();
    let exceptions: Vec<String> = exceptions
        .map(|one| {
            [&one["listener"], &one["state"], &one["holder"], &one["reason"]]
                .map(|word| word.as_str().unwrap_or("-"))
                .join(" ")
        })
        .collect();
    format!(
        "[generation {} | observed {} {} of {} run, {} move, last {} {}; {}; {}]",
        set["metadata"]["generation"],
        status["observedGeneration"],
        status["running"],
        status["listeners"],
        status["moving"],
        status["lastMove"],
        reason("Ready"),
        reason("Degraded"),
        exceptions.join(", "),
    )
}

/// Has the operators' logs written into the trace, while the guard lives.
pub fn logs_into(trace: &Trace) -> tracing::subscriber::DefaultGuard {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Logs(trace.clone()))
        .with_env_filter("info,baton=debug")
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .finish();
    tracing::subscriber::set_default(subscriber)
}

#[derive(Clone)]
struct Logs(Trace);

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.say("log", String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
