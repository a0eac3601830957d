//! What is installed in a cluster: CRDs, roles, Deployment; as plain files for kubectl (`crds/`), as a kustomize base
//! (`config/`) and as a Helm chart (`charts/baton`). All of it is written by `make generate` from the objects in
//! [`objects`], so that the three cannot differ.
//!
//! It stands beside the operator because it says what the operator needs: its rights, its environment, its probes.

mod chart;
mod fields;
mod hooks_policy;
mod kustomize;
mod network;
mod objects;
mod policies;
mod restraint;
mod rules;
mod text;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::api::crd;

/// Folders that hold generated files only, but for [`HAND_WRITTEN`].
const FOLDERS: [&str; 3] = ["crds", "config", "charts/baton"];

/// Files and folders below [`FOLDERS`] that people write.
const HAND_WRITTEN: [&str; 2] = ["config/samples", "charts/baton/templates/NOTES.txt"];

/// First line of each generated file that can have comments.
const HEADER: &str = "# Generated from src/operator/manifests by `make generate`; do not edit.\n";

/// `baton-operator generate`: writes the manifests into a clone of the repository.
#[derive(Clone, Debug, clap::Args)]
pub struct Generate {
    /// Write nothing. Fail if a file differs from what would be written.
    #[arg(long)]
    check: bool,

    /// Root of the clone.
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

impl Generate {
    /// Writes or checks.
    ///
    /// # Errors
    /// A file that cannot be read or written; with `--check`, any file that is not fresh.
    pub fn run(&self) -> anyhow::Result<()> {
        if self.check {
            let stale = stale(&self.root)?;
            anyhow::ensure!(stale.is_empty(), "not fresh, run `make generate`: {}", stale.join(", "));
            return Ok(());
        }
        for (path, content) in files()? {
            let path = self.root.join(path);
            let folder = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        for path in left_over(&self.root)? {
            fs::remove_file(self.root.join(&path)).with_context(|| format!("cannot remove {path}"))?;
        }
        Ok(())
    }
}

/// Every generated file: path below the root of the repository -> content.
///
/// # Errors
/// An object that cannot be written as YAML.
pub fn files() -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for (file, crd) in objects::crds()? {
        files.insert(format!("crds/{file}"), format!("{HEADER}{}", text::yaml(&crd)?));
    }
    files.extend(crd::all().iter().filter_map(fields::page));
    files.extend(kustomize::files()?.into_iter().map(|(path, content)| (format!("config/{path}"), content)));
    files.extend(chart::files()?.into_iter().map(|(path, content)| (format!("charts/baton/{path}"), content)));
    Ok(files)
}

/// The ValidatingAdmissionPolicies, each with its binding and the name of its file. `named`: see [`restraint::operator`].
fn admission(labels: &Value, named: &str) -> [(&'static str, [Value; 2]); 4] {
    [
        ("hooks.yaml", hooks_policy::hooks(labels)),
        ("leases.yaml", policies::leases(labels)),
        ("operator.yaml", restraint::operator(labels, named)),
        ("rollouts.yaml", hooks_policy::rollouts(labels)),
    ]
}

/// The variables of a policy: each is evaluated when it is first used.
fn named(variables: Vec<(&str, String)>) -> Value {
    variables.into_iter().map(|(name, expression)| json!({"name": name, "expression": expression})).collect()
}

/// A ValidatingAdmissionPolicy, and what puts it into force everywhere.
fn installed(name: &str, labels: &Value, spec: &Value) -> [Value; 2] {
    let metadata = json!({"name": name, "labels": labels});
    let object = |kind: &str, spec: &Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let binding = json!({"policyName": name, "validationActions": ["Deny", "Audit"]});
    [object("ValidatingAdmissionPolicy", spec), object("ValidatingAdmissionPolicyBinding", &binding)]
}

/// Paths below `root` that are missing, differ from what [`files`] says, or should not be there.
///
/// # Errors
/// As [`files`], and folders that cannot be read.
pub fn stale(root: &Path) -> anyhow::Result<Vec<String>> {
    let differs = |(path, content): &(String, String)| {
        fs::read_to_string(root.join(path)).map_or(true, |present| present != *content)
    };
    let mut stale: Vec<String> = files()?.into_iter().filter(differs).map(|(path, _)| path).collect();
    stale.extend(left_over(root)?);
    Ok(stale)
}

/// Files in the generated folders that are not generated any more.
fn left_over(root: &Path) -> anyhow::Result<Vec<String>> {
    let files = files()?;
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let path = folder.join(entry.file_name());
            if HAND_WRITTEN.iter().any(|by_hand| path.starts_with(by_hand)) {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(path);
            } else if let Some(path) = path.to_str().filter(|path| !files.contains_key(*path)) {
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
