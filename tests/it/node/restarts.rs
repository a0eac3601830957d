//! Rows about how containers end and start again.
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use serde_json::json;

use super::fixture::{
    Space, condition, ended, idle, last_state, looping, main, phase, sh, signal, state, until, waiting, with,
};

fn terminated(pod: &Pod) -> ContainerStateTerminated {
    state(main(pod).unwrap()).terminated.unwrap()
}

/// N7, N8, N9
#[tokio::test]
async fn a_crashing_container_is_restarted_at_once_then_after_10_s_then_after_20_s() {
    let space = Space::new("n7").await;
    // Each start leaves the time: seconds with a fraction.
    let script = "date +%s.%N >>/shared/starts; exit 1";
    let mount = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let spec = json!({ "volumes": [space.shared()], "containers": [with(sh(script), mount)] });
    space.create("crash", spec).await;

    let pod = space.until_waiting("crash", 10, "CrashLoopBackOff").await;
    let status = main(&pod).unwrap();
    assert!(waiting(status).unwrap().1.contains("back-off 10s restarting failed container=main"), "{status:?}");
    assert_eq!((status.restart_count, ended(status)), (1, Some((1, "Error".into()))));
    assert_eq!(phase(&pod), "Running");
    assert_eq!(condition(&pod, "Ready").reason.as_deref(), Some("ContainersNotReady"));
    let first = last_state(status).terminated.unwrap().container_id;
    assert_eq!(status.container_id, first);

    let pod = space
        .until("crash", 20, "a back-off of 20 s", |pod| {
            waiting(main(pod)?)?.1.contains("back-off 20s").then(|| pod.clone())
        })
        .await;
    assert_ne!(main(&pod).unwrap().container_id, first, "each start has an id of its own");
    let starts = async || {
        let text = space.shared_file("starts");
        let times: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
        (times.len() == 4).then_some(times)
    };
    let times = until(30, "a fourth start", starts).await;
    let pauses: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, expected) in pauses.iter().zip([0.0, 10.0, 20.0]) {
        assert!((expected..expected + 8.0).contains(pause), "{pauses:?}");
    }
}

/// N10, N11
#[tokio::test]
async fn under_never_the_exit_code_decides_the_phase() {
    let space = Space::new("n10").await;
    for (name, script) in [("good", "exit 0"), ("bad", "exit 3")] {
        space.create(name, json!({ "restartPolicy": "Never", "containers": [sh(script)] })).await;
    }
    let good = space.until_phase("good", "Succeeded").await;
    assert_eq!((terminated(&good).exit_code, terminated(&good).reason.as_deref()), (0, Some("Completed")));
    assert_eq!(condition(&good, "Ready").reason.as_deref(), Some("PodCompleted"));
    let bad = space.until_phase("bad", "Failed").await;
    assert_eq!((terminated(&bad).exit_code, terminated(&bad).reason.as_deref()), (3, Some("Error")));
    assert_eq!(condition(&bad, "Ready").reason.as_deref(), Some("PodFailed"));
    for pod in [good, bad] {
        assert_eq!(main(&pod).unwrap().restart_count, 0);
        let (started, finished) = (terminated(&pod).started_at.unwrap(), terminated(&pod).finished_at.unwrap());
        assert!(started <= finished && pod.metadata.creation_timestamp.unwrap() <= started);
    }
}

/// N12
#[tokio::test]
async fn under_on_failure_only_failures_are_restarted() {
    let space = Space::new("n12").await;
    let once = "if [ -e /scratch/seen ]; then exit 0; fi; touch /scratch/seen; exit 7";
    let mount = json!({ "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] });
    let volumes = json!([{ "name": "scratch", "emptyDir": {} }]);
    let containers = [with(sh(once), mount)];
    space.create("retry", json!({ "restartPolicy": "OnFailure", "volumes": volumes, "containers": containers })).await;
    let pod = space.until_phase("retry", "Succeeded").await;
    let status = main(&pod).unwrap();
    assert_eq!((status.restart_count, terminated(&pod).exit_code), (1, 0));
    assert_eq!(last_state(status).terminated.unwrap().exit_code, 7);
}

/// N13, N14
#[tokio::test]
async fn a_killed_process_is_seen_and_replaced_within_a_second() {
    let space = Space::new("n13").await;
    // The best of several, as other tests keep the machine busy.
    let mut took = Vec::new();
    while took.last().is_none_or(|took| *took >= Duration::from_secs(1)) {
        assert!(took.len() < 10, "{took:?}");
        let name = &format!("main-{}", took.len());
        space.run(name, &sh(&idle())).await;
        let pod = space.until_ready(name).await;
        signal("KILL", space.pid(&pod, "main", 0));
        let begun = Instant::now();
        let pod = space.until_restarted(name, 10, 1).await;
        took.push(begun.elapsed());
        let last = last_state(main(&pod).unwrap()).terminated.unwrap();
        assert_eq!((last.exit_code, last.signal, last.reason.as_deref()), (137, Some(9), Some("Error")));
        assert_ne!(main(&pod).unwrap().container_id, last.container_id);
    }
}

/// N15
#[tokio::test]
async fn a_command_that_ends_by_sigterm_exits_with_143() {
    let space = Space::new("n15").await;
    let script = "sh -c 'kill -TERM $$$$'; exit $?"; // Kubernetes makes one $ of two
    space.create("term", json!({ "restartPolicy": "Never", "containers": [sh(script)] })).await;
    assert_eq!(terminated(&space.until_phase("term", "Failed").await).exit_code, 143);
}

/// N16
#[tokio::test]
async fn a_command_that_does_not_exist_is_a_start_error() {
    let space = Space::new("n16").await;
    space.run("nothing", &with(sh(""), json!({ "command": ["/no/such/program"] }))).await;
    let pod = space.until_waiting("nothing", 10, "CrashLoopBackOff").await;
    let last = last_state(main(&pod).unwrap()).terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
    assert!(last.message.unwrap().contains("/no/such/program"));
    space.until_event("nothing", "Failed", "/no/such/program").await;
}

/// N17
#[tokio::test]
async fn last_words_are_kept() {
    let space = Space::new("n17").await;
    let from_log = || json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    let of_file = format!("{}end", "x".repeat(4096 - 3));
    let of_lines = (21..=100).map(|line| line.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    let of_line = format!("{}end\n", "x".repeat(2048 - 4));
    let cases = [
        ("file", json!({}), "echo log; printf words >/dev/termination-log; exit 1", Some("words")),
        ("path", json!({ "terminationMessagePath": "/tmp/end" }), "printf there >/tmp/end", Some("there")),
        ("none", json!({}), "echo log; exit 1", None),
        ("log", from_log(), "echo from the log; exit 1", Some("from the log\n")),
        ("fine", from_log(), "echo from the log", None),
        ("both", from_log(), "echo log; printf words >/dev/termination-log; exit 1", Some("words")),
        // Of what is longer than may be told, the end.
        ("long-file", json!({}), "printf %05000dend 0 | tr 0 x >/dev/termination-log; exit 1", Some(&*of_file)),
        ("long-log", from_log(), "seq 1 100; exit 1", Some(&*of_lines)),
        ("long-line", from_log(), "printf %05000d 0 | tr 0 x; echo end; exit 1", Some(&*of_line)),
    ];
    for (name, fields, script, expected) in cases {
        space.create(name, json!({ "restartPolicy": "Never", "containers": [with(sh(script), fields)] })).await;
        let end = |pod: &Pod| state(main(pod)?).terminated;
        let message = space.until(name, 10, "its end", end).await.message;
        assert_eq!(message.as_deref(), expected, "{name}");
    }
}

/// N18
#[tokio::test]
async fn a_restarted_container_begins_with_a_clean_root_and_the_same_volumes() {
    let space = Space::new("n18").await;
    let script = "ls /tmp /scratch; touch /tmp/own /scratch/kept; sleep 100";
    let mount = json!({ "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] });
    let volumes = json!([{ "name": "scratch", "emptyDir": {} }]);
    space.create("fresh", json!({ "volumes": volumes, "containers": [with(sh(script), mount)] })).await;
    let pod = space.until_ready("fresh").await;
    space.until_log("fresh", "/tmp:").await;
    signal("KILL", space.pid(&pod, "main", 0));
    space.until_restarted("fresh", 5, 1).await;
    let log = space.until_log("fresh", "kept").await;
    assert!(!log.contains("own"), "{log}");
}

/// N19
#[tokio::test]
async fn a_pod_that_is_active_too_long_fails() {
    let space = Space::new("n19").await;
    let script = looping("until [ -e /shared/go ]; do sleep 0.1; done; exit 0");
    let mount = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let containers = [with(sh(&script), mount)];
    let spec = json!({ "activeDeadlineSeconds": 2, "volumes": [space.shared()], "containers": containers });
    space.create("long", spec).await;
    let failed = |pod: &Pod| (condition(pod, "Ready").reason.as_deref() == Some("PodFailed")).then(|| pod.clone());
    let pod = space.until("long", 10, "the deadline", failed).await;
    assert!(state(main(&pod).unwrap()).running.is_some());
    assert_eq!((phase(&pod), &pod.status.as_ref().unwrap().reason), ("Running", &None), "as long as something runs");
    std::fs::write(space.folder().join("go"), "").unwrap();
    let pod = space.until_phase("long", "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(terminated(&pod).exit_code, 0);
}
