//! A new version: images, `spec.version`, a package.
use std::{collections::BTreeMap, fmt::Write as _};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Edited, Refusal, SpecEdit, edit::remove, set, shell_word};
use crate::api::{Rollout, rollout::Request};

/// Characters of `spec.request.reason`.
const REASON_CHARS_MAX: usize = 512;

/// An image for the container of this name, for all (`*`), or for the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// None: the only one.
    pub container: Option<String>,
    /// The image.
    pub image: String,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where it is.
    pub url: String,
    /// Its SHA-256, if it is to be this one: 64 lower-case hexadecimal digits.
    pub sha256: Option<String>,
}

/// A new version: what is given of it, the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deploy {
    /// `spec.version`.
    pub version: Option<String>,
    /// Images.
    pub images: Vec<Wanted>,
    /// The package.
    pub package: Option<Archive>,
}

/// Asks for this version. An edit without steps says that the spec asks for it already.
///
/// # Errors
/// A container or package that the Rollout does not have; two images for one container.
pub fn deploy(rollout: &Rollout, to: &Deploy, request: &Request) -> Edited {
    let mut steps = set_images(rollout, &to.images)?;
    if let Some(version) = to.version.as_ref().filter(|version| rollout.spec.version.as_ref() != Some(*version)) {
        steps.push(Step { patch: set("/spec/version", &json!(version)), said: format!("version {version}") });
    }
    if let Some(wanted) = &to.package {
        steps.extend(set_package(rollout, wanted)?);
    }
    Ok(written(rollout, steps, request, kubectl(&rollout.name_any(), to)))
}

fn kubectl(name: &str, to: &Deploy) -> String {
    let mut words = format!("kubectl baton deploy {name}");
    for Wanted { container, image } in &to.images {
        let container = container.as_ref().map(|container| format!("{container}=")).unwrap_or_default();
        let _ = write!(words, " --image {}", shell_word(&format!("{container}{image}")));
    }
    if let Some(version) = &to.version {
        let _ = write!(words, " --version {}", shell_word(version));
    }
    if let Some(Archive { url, sha256 }) = &to.package {
        let sum = sha256.as_ref().map(|sum| format!(",{sum}")).unwrap_or_default();
        let _ = write!(words, " --package {}", shell_word(&format!("{url}{sum}")));
    }
    words
}

/// A step of the patch, and what it does; empty where another says so.
struct Step {
    patch: Value,
    said: String,
}

/// The patch with who asks for it; nothing where the spec asks for all that already.
fn written(rollout: &Rollout, mut steps: Vec<Step>, request: &Request, kubectl: String) -> SpecEdit {
    let name = rollout.name_any();
    let mut changes_version = steps.iter().any(|step| step.patch["path"] == "/spec/version");
    let replaces_digest = || {
        let mut present = containers(rollout).into_iter();
        present.any(|(_, image, path)| image.contains('@') && steps.iter().any(|step| step.patch["path"] == path))
    };
    // Without a tag, `undo --digests` gave the version a name of its own. It is not the next one's.
    if !changes_version && rollout.spec.version.is_some() && replaces_digest() {
        let patch = remove("/spec/version");
        steps.push(Step { patch, said: "spec.version removed, it named the former digest".into() });
        changes_version = true;
    }
    if steps.is_empty() {
        let summary = format!(
            "rollout.baton.dev/{name} unchanged: the spec asks for that already. If that version has failed, `kubectl baton retry {name}` tries it again"
        );
        return SpecEdit { patch: Vec::new(), summary, kubectl };
    }
    let said: Vec<&str> = steps.iter().map(|step| step.said.as_str()).filter(|said| !said.is_empty()).collect();
    let said = said.join(", ");
    let kept = rollout.spec.version.as_ref().filter(|_| !changes_version);
    let kept = kept.map(|version| format!(" (spec.version stays {version})")).unwrap_or_default();
    // As kubectl's change-cause: the history says what was asked for if no reason is given.
    let reason = request.reason.clone().or_else(|| Some(said.chars().take(REASON_CHARS_MAX).collect()));
    let request = Request { reason, ..request.clone() };
    let answer = format!("rollout.baton.dev/{name} updated: {said}{kept}; watch it with `kubectl baton status {name}`");
    let mut patch: Vec<Value> = steps.into_iter().map(|step| step.patch).collect();
    patch.push(set("/spec/request", &json!(request)));
    SpecEdit { patch, summary: answer, kubectl }
}

/// Name, image and path of each container, init containers last.
fn containers(rollout: &Rollout) -> Vec<(&str, &str, String)> {
    let spec = rollout.spec.template.spec();
    let of = |list: &'static str| {
        let all = spec.and_then(|spec| spec.get(list)).and_then(Value::as_array).into_iter().flatten().enumerate();
        all.map(move |(index, container)| {
            let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
            (text("name"), text("image"), format!("/spec/template/spec/{list}/{index}/image"))
        })
    };
    of("containers").chain(of("initContainers")).collect()
}

/// What gives these containers these images.
fn set_images(rollout: &Rollout, wanted: &[Wanted]) -> Result<Vec<Step>, Refusal> {
    let (name, all) = (rollout.name_any(), containers(rollout));
    let known = || all.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ");
    let mains = || all.iter().filter(|(_, _, path)| path.contains("/containers/"));
    let mut steps: Vec<Step> = Vec::new();
    let mut given: BTreeMap<String, &String> = BTreeMap::new();
    for Wanted { container, image } in wanted {
        let meant: Vec<_> = match container.as_deref() {
            Some("*") => all.iter().collect(),
            Some(container) => all.iter().filter(|(name, _, _)| *name == container).collect(),
            None if mains().count() == 1 => mains().collect(),
            None => return Err(Refusal::WhichContainer { rollout: name, known: known() }),
        };
        if meant.is_empty() {
            let container = container.clone().unwrap_or_default();
            return Err(Refusal::NoContainer { rollout: name, container, known: known() });
        }
        for (container, _, path) in &meant {
            if let Some(other) = given.insert(path.clone(), image).filter(|other| *other != image) {
                let (container, one, other) = ((*container).to_owned(), other.clone(), image.clone());
                return Err(Refusal::TwoImages { container, one, other });
            }
        }
        let changed = meant.into_iter().filter(|(_, present, _)| present != image);
        steps.extend(
            changed.map(|(name, _, path)| Step { patch: set(path, &json!(image)), said: format!("{name}={image}") }),
        );
    }
    Ok(steps)
}

/// What makes this the package.
fn set_package(rollout: &Rollout, wanted: &Archive) -> Result<Vec<Step>, Refusal> {
    let name = rollout.name_any();
    let Some(package) = &rollout.spec.package else {
        return Err(Refusal::NoPackage { rollout: name });
    };
    let is_kept = wanted.sha256.is_none() || package.sha256 == wanted.sha256;
    if package.url.as_ref() == Some(&wanted.url) && is_kept {
        return Ok(Vec::new());
    }
    let silent = |patch| Step { patch, said: String::new() };
    let remove = |field: &str| remove(&format!("/spec/package/{field}"));
    let mut steps =
        vec![Step { patch: set("/spec/package/url", &json!(wanted.url)), said: format!("package {}", wanted.url) }];
    match &wanted.sha256 {
        Some(sum) => steps.push(silent(set("/spec/package/sha256", &json!(sum)))),
        // It is of the package before.
        None if package.sha256.is_some() => {
            steps.push(Step { patch: remove("sha256"), said: "sha256 removed, it was the former package's".into() });
        }
        None => {}
    }
    steps.extend(package.image.is_some().then(|| silent(remove("image"))));
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that is copied into a shell stays one command.
    #[test]
    fn the_command_line_is_quoted_for_a_shell() {
        let image = Wanted { container: Some("app".into()), image: "web:2".into() };
        let package = Archive { url: "https://a.b/c?x=1&y=2".into(), sha256: None };
        let to = Deploy { version: Some("2; it's".into()), images: vec![image], package: Some(package) };
        assert_eq!(
            kubectl("web", &to),
            r"kubectl baton deploy web --image app=web:2 --version '2; it'\''s' --package 'https://a.b/c?x=1&y=2'"
        );
    }
}
