//! `set image`, `deploy`: a new version, by one write to the spec.
use anyhow::Result;
use clap::{ArgGroup, Args, Subcommand};

use super::{Connection, change::Editor, exit::Exit, target::RolloutTarget};
use crate::command::deploy::{self as command, Archive, Wanted};

/// `kubectl baton set image web web=example.local/web:1.1`
#[derive(Args, Debug)]
pub(super) struct Set {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Set images of containers, as `kubectl set image` does. `*=IMAGE` sets the image of all containers and init
    /// containers.
    Image(SetImage),
}

#[derive(Args, Debug)]
#[command(override_usage = "kubectl baton set image [OPTIONS] [rollout] <NAME> <CONTAINER=IMAGE>...")]
struct SetImage {
    /// Name of the Rollout, then each container with its new image.
    #[arg(required = true, num_args = 1.., value_name = "NAME CONTAINER=IMAGE")]
    words: Vec<String>,
    /// Reason; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `kubectl baton deploy web --image example.local/web:1.1 --reason "new prices"`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Deploy {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Version that people read; sets `spec.version`.
    #[arg(long, value_name = "VERSION", group = "what")]
    version: Option<String>,
    /// Image of a container. CONTAINER may be left out if the Pod has one container. May be repeated.
    #[arg(long, value_name = "[CONTAINER=]IMAGE", group = "what", value_parser = wanted)]
    image: Vec<Wanted>,
    /// URL of the package, and the SHA-256 that the download must have. Without SHA256, Baton records what the first
    /// instance downloads.
    #[arg(long, value_name = "URL[,SHA256]", group = "what", value_parser = package)]
    package: Option<Archive>,
    /// Reason; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let (container, image) = text.split_once('=').map_or((None, text), |(name, image)| (Some(name.to_owned()), image));
    if image.is_empty() || container.as_ref().is_some_and(String::is_empty) {
        return Err("write CONTAINER=IMAGE, such as web=registry.example.com/web:1.1".into());
    }
    Ok(Wanted { container, image: image.to_owned() })
}

fn package(text: &str) -> Result<Archive, String> {
    let is_sum = |sum: &str| !sum.is_empty() && sum.chars().all(|digit| digit.is_ascii_hexdigit());
    let (url, sum) = match text.rsplit_once(',') {
        Some((url, sum)) if is_sum(sum) => (url, Some(sum.to_lowercase())),
        _ => (text, None),
    };
    if sum.as_ref().is_some_and(|sum| sum.len() != 64) {
        return Err("write URL or URL,SHA256; a SHA-256 has 64 hexadecimal digits, as sha256sum prints them".into());
    }
    Ok(Archive { url: url.to_owned(), sha256: sum })
}

impl Set {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let What::Image(SetImage { words, reason }) = &self.what;
        let (images, target): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.contains('='));
        if images.is_empty() {
            return Err(Exit::Usage.because("which image? Write CONTAINER=IMAGE after the name"));
        }
        let images: Result<Vec<Wanted>, String> = images.into_iter().map(|word| wanted(word)).collect();
        let to = command::Deploy { images: images.map_err(|why| Exit::Usage.because(why))?, ..Default::default() };
        let editor = Editor::connect(connection, &RolloutTarget::of(target.into_iter().cloned().collect())).await?;
        let request = editor.request("set-image", reason.clone()).await;
        Box::pin(editor.change(|rollout| command::deploy(rollout, &to, &request))).await
    }
}

impl Deploy {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = editor.request("deploy", self.reason.clone()).await;
        let to = self.asked();
        Box::pin(editor.change(|rollout| command::deploy(rollout, &to, &request))).await
    }

    fn asked(&self) -> command::Deploy {
        let (version, images, package) = (self.version.clone(), self.image.clone(), self.package.clone());
        command::Deploy { version, images, package }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{Rollout, rollout::Request},
        cli::{Cli, Verb},
        command::set,
    };

    fn rollout() -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {}}, "template": {"spec": {
                "initContainers": [{"name": "migrate", "image": "a/migrate:1"}],
                "containers": [{"name": "web", "image": "a/web:1", "env": []}, {"name": "log", "image": "a/log:1"}],
            }}},
        }))
        .unwrap()
    }

    /// Paths and values that are written, or why nothing is.
    fn images(rollout: &Rollout, words: &[&str]) -> Result<Vec<String>, String> {
        let wanted: Vec<Wanted> = words.iter().map(|word| wanted(word).unwrap()).collect();
        let to = command::Deploy { images: wanted, ..Default::default() };
        let edit = command::deploy(rollout, &to, &Request::default()).map_err(|why| why.to_string())?;
        let steps = edit.patch.iter().filter(|step| step["path"] != "/spec/request");
        Ok(steps.map(|step| format!("{} {}", step["path"], step["value"]).replace('"', "")).collect())
    }

    /// As `kubectl set image`: by name, init containers too, and all by a star; nothing but the image is written.
    #[test]
    fn images_are_set_by_container() {
        let rollout = rollout();
        let at = |path: &str, image: &str| format!("/spec/template/spec/{path}/image {image}");
        assert_eq!(images(&rollout, &["web=a/web:2"]).unwrap(), [at("containers/0", "a/web:2")]);
        let both = images(&rollout, &["log=a/log:2", "migrate=a/migrate:2"]).unwrap();
        assert_eq!(both, [at("containers/1", "a/log:2"), at("initContainers/0", "a/migrate:2")]);
        assert_eq!(images(&rollout, &["*=a/web:1"]).unwrap().len(), 2, "all but the one that has it");
        assert_eq!(images(&rollout, &["web=a/web:1"]).unwrap(), [""; 0]);
        let unknown = images(&rollout, &["wbe=a/web:2"]).unwrap_err();
        assert_eq!(unknown, "web has no container \"wbe\"; it has web, log, migrate");
        let which = images(&rollout, &["a/web:2"]).unwrap_err();
        assert_eq!(which, "web has several containers: write CONTAINER=IMAGE; it has web, log, migrate");
        let mut single = rollout;
        single.spec.template.0["spec"]["containers"].as_array_mut().unwrap().pop();
        assert_eq!(images(&single, &["a/web:2"]).unwrap(), [at("containers/0", "a/web:2")]);
    }

    /// What `deploy web ARGS` writes, and says.
    fn deployed(rollout: &Rollout, args: &[&str]) -> Result<(Vec<Value>, String), String> {
        let words = [&["kubectl-baton", "deploy", "web"], args].concat();
        let Verb::Deploy(deploy) = Cli::try_parse_from(words).map_err(|error| error.to_string())?.verb else {
            panic!("deploy")
        };
        let request = Request { by: Some("ann".into()), ..Request::default() };
        let edit = command::deploy(rollout, &deploy.asked(), &request).map_err(|why| why.to_string())?;
        Ok((edit.patch, edit.summary))
    }

    #[test]
    fn a_version_is_deployed_by_one_write() {
        let mut rollout = rollout();
        let (patch, said) = deployed(&rollout, &["--image", "web=a/web:2", "--version", "2"]).unwrap();
        let paths: Vec<_> = patch.iter().map(|step| step["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/spec/template/spec/containers/0/image", "/spec/version", "/spec/request"]);
        let request = json!({"by": "ann", "reason": "web=a/web:2, version 2"});
        assert_eq!(patch[2]["value"], request, "the history says what was asked for");
        let expected =
            "rollout.baton.dev/web updated: web=a/web:2, version 2; watch it with `kubectl baton status web`";
        assert_eq!(said, expected);
        rollout.spec.version = Some("2".into());
        let (patch, said) = deployed(&rollout, &["--version", "2"]).unwrap();
        assert!(patch.is_empty() && said.contains("unchanged"), "{said}");
        let (_, said) = deployed(&rollout, &["--image", "web=a/web:3"]).unwrap();
        assert!(said.contains("web=a/web:3 (spec.version stays 2)"), "{said}");
        rollout.spec.template.0["spec"]["containers"][0]["image"] = json!("a/web@sha256:0f");
        let (patch, said) = deployed(&rollout, &["--image", "web=a/web:3"]).unwrap();
        assert_eq!(patch[1], json!({"op": "remove", "path": "/spec/version"}), "{said}");
        let error = deployed(&rollout, &["--image", "web=a/web:3", "--image", "web=a/web:4"]).unwrap_err();
        assert_eq!(error, "web is given two images: a/web:3 and a/web:4");
        let nothing = deployed(&rollout, &[]).unwrap_err();
        assert!(nothing.contains("--version <VERSION>|--image"), "{nothing}");
    }

    #[test]
    fn a_package_is_deployed_with_its_checksum_or_without() {
        let mut rollout = rollout();
        let error = deployed(&rollout, &["--package", "https://a.b/2.zip"]).unwrap_err();
        assert_eq!(error, "web has no spec.package: apply one first, which says its mountPath");
        let sum = "0f".repeat(32);
        let package = json!({"url": "https://a.b/1.zip", "sha256": sum, "mountPath": "/opt/app"});
        rollout.spec.package = serde_json::from_value(package).unwrap();
        let (patch, _) = deployed(&rollout, &["--package", "https://a.b/1.zip"]).unwrap();
        assert!(patch.is_empty(), "it keeps its checksum: {patch:?}");
        let (patch, said) = deployed(&rollout, &["--package", "https://a.b/2.zip"]).unwrap();
        assert!(said.contains("sha256 removed"), "{said}");
        assert_eq!(patch[0], set("/spec/package/url", &json!("https://a.b/2.zip")));
        assert_eq!(patch[1], json!({"op": "remove", "path": "/spec/package/sha256"}), "it is of the one before");
        let (patch, _) = deployed(&rollout, &["--package", &format!("https://a.b/2,5.zip,{sum}")]).unwrap();
        assert_eq!(patch[0]["value"], "https://a.b/2,5.zip");
        assert_eq!(patch[1], set("/spec/package/sha256", &json!(sum)));
        let (patch, _) = deployed(&rollout, &["--package", &format!("https://a.b/1.zip,{sum}")]).unwrap();
        assert!(patch.is_empty(), "{patch:?}");
        let error = deployed(&rollout, &["--package", "https://a.b/2.zip,0f0f"]).unwrap_err();
        assert!(error.contains("a SHA-256 has 64 hexadecimal digits"), "{error}");
    }
}
