//! A chart with a Rollout in it, as its users install it.
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use super::stage::{Stage, reason, simulated};
use crate::cluster::support::BIN;

/// Slow enough that nobody takes an installed Rollout for a complete one.
const TEMPLATE: &str = "
apiVersion: baton.dev/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 3
  minReadySeconds: 2
  selector: {matchLabels: {app: web}}
  strategy: {batchSize: 1, maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels: {app: web}
      annotations: {{ .Values.annotations | toJson }}
    spec:
      containers: [{name: web, image: 'example.local/sleeper:{{ .Values.tag }}'}]
";

fn write_chart(folder: &Path) {
    fs::create_dir(folder.join("templates")).unwrap();
    fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: web\nversion: 0.1.0\n").unwrap();
    fs::write(folder.join("values.yaml"), "tag: '1'\nannotations: {}\n").unwrap();
    fs::write(folder.join("templates/web.yaml"), TEMPLATE).unwrap();
}

fn helm(stage: &Stage, args: &[&str]) -> Output {
    let mut command = Command::new(Path::new(BIN).join("helm"));
    command.args(args).args(["--namespace", &stage.namespace, "--wait", "--timeout", "5m"]);
    command.env("KUBECONFIG", &stage.cluster.kubeconfig);
    tokio::task::block_in_place(|| command.output().unwrap())
}

/// X11: `helm --wait` returns when the Rollout is complete and not before, and fails as soon as it is rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn helm_waits_for_a_rollout() {
    let stage = Stage::new(simulated(), "helm-wait").await;
    let chart = tempfile::tempdir().unwrap();
    write_chart(chart.path());
    let chart = chart.path().to_str().unwrap();
    for (version, args) in [("1", vec!["install", "web", chart]), ("2", vec!["upgrade", "web", chart, "--set=tag=2"])] {
        let output = helm(&stage, &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rollout = stage.rollouts().get("web").await.unwrap();
        assert_eq!(reason(&rollout), "Complete", "{args:?} has returned");
        assert_eq!(rollout.status.unwrap().versions[0].version, version);
    }
    let crash = r#"--set-json=annotations={"testbed.baton.dev/fate":"crash"}"#;
    let began = Instant::now();
    let output = helm(&stage, &["upgrade", "web", chart, "--set=tag=3", crash]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && complaint.contains("web"), "{complaint}");
    assert!(began.elapsed() < Duration::from_mins(4), "it was not told, it gave up: {complaint}");
    assert_eq!(reason(&stage.rollouts().get("web").await.unwrap()), "RolledBack", "{complaint}");
}
