//! Generated files are as the code says.
use std::path::Path;

use baton::operator::manifests;

use crate::sources;

#[test]
fn manifests_are_fresh() {
    let stale = manifests::stale(sources::root()).unwrap();
    assert!(stale.is_empty(), "run `make generate`, then look at what it changed: {}", stale.join(", "));
}

#[test]
fn a_changed_a_missing_and_a_left_over_file_are_seen() {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in manifests::files().unwrap() {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let stale = || manifests::stale(root.path()).unwrap();
    let file = |path: &str| root.path().join(Path::new(path));
    assert!(stale().is_empty());
    std::fs::write(file("crds/rollouts.yaml"), "kind: Other\n").unwrap();
    std::fs::remove_file(file("charts/baton/values.yaml")).unwrap();
    std::fs::write(file("config/rbac/old.yaml"), "").unwrap();
    std::fs::write(file("charts/baton/templates/NOTES.txt"), "by hand").unwrap();
    assert_eq!(stale(), ["charts/baton/values.yaml", "crds/rollouts.yaml", "config/rbac/old.yaml"]);
}
