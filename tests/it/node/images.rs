//! Rows about images and commands.
use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

use serde_json::json;

use super::fixture::{IMAGE, Space, cluster, container, idle, main, phase, sh, waiting, with};

/// N1, N2
#[tokio::test]
async fn a_missing_image_is_pulled_again_after_ten_seconds() {
    let space = Space::new("n1").await;
    let begun = Instant::now();
    space.run("late", &with(sh(&idle()), json!({ "image": "example.local/late:1.0" }))).await;
    let pod = space.until_waiting("late", 10, "ErrImagePull").await;
    assert_eq!(phase(&pod), "Pending");
    assert!(waiting(main(&pod).unwrap()).unwrap().1.contains("example.local/late:1.0: not found"));
    space.until_waiting("late", 10, "ImagePullBackOff").await;
    space.until_event("late", "BackOff", "Back-off pulling image").await;

    fs::create_dir_all(cluster().dir.join("images/late/1.0")).unwrap();
    let pod = space.until_ready("late").await;
    let seconds = begun.elapsed().as_secs_f32();
    assert!((9.0..19.0).contains(&seconds), "{seconds}");
    assert_eq!(main(&pod).unwrap().restart_count, 0);
}

/// N3
#[tokio::test]
async fn an_invalid_image_name_is_called_so() {
    let space = Space::new("n3").await;
    space.run("bad", &with(sh(&idle()), json!({ "image": "example.local/BAD:1.0" }))).await;
    let pod = space.until_waiting("bad", 10, "InvalidImageName").await;
    assert!(waiting(main(&pod).unwrap()).unwrap().1.contains("couldn't parse image name"));
}

/// N4
#[tokio::test]
async fn an_image_that_must_not_be_pulled_is_not() {
    let space = Space::new("n4").await;
    let fields = json!({ "image": "example.local/none:1.0", "imagePullPolicy": "Never" });
    space.run("never", &with(sh(&idle()), fields)).await;
    space.until_waiting("never", 10, "ErrImageNeverPull").await;
}

/// N5
#[tokio::test]
async fn command_and_args_replace_what_the_image_says() {
    let space = Space::new("n5").await;
    let folder = cluster().dir.join("images/entry/1.0");
    fs::create_dir_all(&folder).unwrap();
    let script = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("entrypoint", "#!/bin/sh\necho \"entrypoint $*\"; pwd");
    script("tool", "#!/bin/sh\necho \"tool $*\"");
    let cases = [
        ("none", json!({}), "entrypoint \n/image\n"),
        ("args", json!({ "args": ["a", "b c"] }), "entrypoint a b c\n/image\n"),
        ("command", json!({ "command": ["tool"], "args": ["x"] }), "tool x\n"),
        ("dir", json!({ "args": ["y"], "workingDir": "/srv/here" }), "entrypoint y\n/srv/here\n"),
    ];
    for (name, mut fields, expected) in cases {
        fields["name"] = json!("main");
        fields["image"] = json!("example.local/entry:1.0");
        space.create(name, json!({ "restartPolicy": "Never", "containers": [fields] })).await;
        space.until_phase(name, "Succeeded").await;
        assert_eq!(space.log(name), expected, "{name}");
    }
}

/// N6
#[tokio::test]
async fn the_image_id_is_the_digest_of_the_folder() {
    let space = Space::new("n6").await;
    let folder = cluster().dir.join("images/digest");
    for (tag, text) in [("1.0", "one"), ("1.1", "two"), ("again", "one")] {
        fs::create_dir_all(folder.join(tag)).unwrap();
        fs::write(folder.join(tag).join("file"), text).unwrap();
    }
    let containers = ["1.0", "1.1", "again"].map(|tag| {
        json!({ "name": tag.replace('.', "-"), "image": format!("example.local/digest:{tag}"), "command": ["sleep", "100"] })
    });
    space.create("three", json!({ "containers": containers })).await;
    let pod = space.until_ready("three").await;
    let id = |name: &str| container(&pod, name).unwrap().image_id.clone();
    assert!(id("1-0").starts_with("example.local/digest@sha256:"), "{}", id("1-0"));
    assert_eq!(id("1-0"), id("again"));
    assert_ne!(id("1-0"), id("1-1"));
    assert_ne!(IMAGE, id("1-0"));
    // As `kubectl baton undo --digests` writes it.
    let digest = id("1-0").split_once('@').unwrap().1.to_owned();
    let by_digest =
        |tag: &str| json!({ "image": format!("example.local/digest:{tag}@{digest}"), "command": ["sleep", "100"] });
    space.run("right", &with(sh(&idle()), by_digest("1.0"))).await;
    space.until_ready("right").await;
    space.run("wrong", &with(sh(&idle()), by_digest("1.1"))).await;
    space.until_waiting("wrong", 10, "ErrImagePull").await;
}

/// N83, N84
#[tokio::test]
async fn an_image_is_a_volume_too() {
    let space = Space::new("n83").await;
    let folder = cluster().dir.join("images/rules/1.0");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("file"), "text\n").unwrap();
    let mounts = json!({ "volumeMounts": [{ "name": "rules", "mountPath": "/opt/rules" }] });
    let spec = |tag: &str| {
        let script = "cat /opt/rules/file; (echo x >>/opt/rules/file) 2>/dev/null || echo refused";
        let volume = json!({ "name": "rules", "image": { "reference": format!("example.local/rules:{tag}") } });
        json!({ "restartPolicy": "Never", "volumes": [volume], "containers": [with(sh(script), mounts.clone())] })
    };
    space.create("there", spec("1.0")).await;
    space.until_phase("there", "Succeeded").await;
    assert_eq!(space.log("there"), "text\nrefused\n");
    space.create("missing", spec("2.0")).await;
    let pod = space.until_waiting("missing", 10, "ErrImagePull").await;
    assert!(waiting(main(&pod).unwrap()).unwrap().1.contains("example.local/rules:2.0: not found"));
    space.until_waiting("missing", 10, "ImagePullBackOff").await;
}
