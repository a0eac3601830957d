//! What the clients of a Service notice of a rollout.
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::stage::{Stage, program, real};
use crate::{cluster::support::TESTBED, sources, testbed::web};

/// Requests to the Service `web` that never pause.
pub struct Load {
    process: Child,
    report: PathBuf,
}

impl Load {
    /// Returns once requests are answered.
    pub fn start(stage: &Stage) -> Self {
        let report = stage.cluster.dir.join(format!("{}-load.json", stage.namespace));
        let mut command = stage.cluster.enter(TESTBED);
        command.args(["load", "--service", "web", "--namespace", &stage.namespace, "--stream"]);
        command.args(["--rate", "50", "--connections", "4", "--report"]).arg(&report);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let load = Self { process, report };
        let is_answer = |line: &String| {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            line["ok"].as_u64().is_some_and(|ok| ok > 0)
        };
        assert!(lines.any(|line| is_answer(&line)), "no request was answered");
        // What is not read would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        load
    }

    pub fn finish(mut self) -> Value {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        serde_json::from_slice(&std::fs::read(&self.report).unwrap()).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// D12: the interruption is none: no request fails, none needs a second try, while every instance is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_every_instance_is_replaced() {
    let cluster = real();
    for version in ["1.0", "1.1"] {
        program(cluster, "web", version, &std::fs::read(web::program()).unwrap());
    }
    let stage = Stage::new(cluster, "requests").await;
    let sample = sources::root().join("config/samples/rollout_web.yaml");
    cluster.kubectl(&["apply", "-n", &stage.namespace, "-f", sample.to_str().unwrap()]);
    stage.complete(60).await;
    let load = tokio::task::block_in_place(|| Load::start(&stage));
    let image =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.local/web:1.1"}]);
    let patch = ["patch", "rollouts.baton.dev", "web", "-n", &stage.namespace, "--type=json", "-p"];
    cluster.kubectl(&[&patch[..], &[&image.to_string()]].concat());
    stage.complete(120).await;
    let report = tokio::task::block_in_place(|| load.finish());
    assert_eq!((&report["failed"], &report["retried"]), (&json!(0), &json!(0)), "{report:#}");
    for version in ["1.0", "1.1"] {
        assert!(report["versions"][version].as_u64() > Some(0), "{version} never answered: {report:#}");
    }
    let silent = |second: &&Value| second["ok"].as_u64() == Some(0);
    let silent = report["seconds"].as_array().unwrap().iter().filter(silent).count();
    assert_eq!(silent, 0, "seconds without an answer: {report:#}");
}
