//! The package of a Rollout: what `spec.package` adds to a Pod.
//!
//! ```text
//! url:   init container baton-package ── fetches, verifies, unpacks ──> emptyDir baton-package
//!                                                                        └─ package/files, read-only at mountPath in every container
//! image: image volume baton-package, which the kubelet pulls ───────────────── read-only at mountPath in every container
//! ```
//!
//! Like the agent, this is in no hash and no comparison: only `spec.package` itself is.
use serde_json::{Map, Value, json};

use super::addition::{self, Addition};
use crate::{
    api::{names, rollout::Package},
    snapshot::package::{ARCHIVE_BYTES_MAX, BYTES_MAX, ENTRIES_MAX, FILES, FOLDER as PACKAGE},
};

/// The volume of what is fetched and unpacked.
const VOLUME: &str = names::CONTAINER_PACKAGE;
/// Where the init container has it. Nothing else sees more of it than [`files`].
const FOLDER: &str = "/baton-package";
/// The volume with the Secret, and where the init container has it.
const SECRET: (&str, &str) = ("baton-package-secret", "/baton-package-secret");
/// Where Kubernetes puts the token of a Pod's ServiceAccount, unless a container has something there already: the init
/// container talks to a server that Kubernetes does not know, so it gets an empty folder of its volume.
const NO_TOKEN: (&str, &str) = ("no-token", "/var/run/secrets/kubernetes.io/serviceaccount");
/// Limits of the init container. Most of the memory is for tar.zst, whose window may be 128 MiB.
const LIMITS: (&str, &str) = ("1", "256Mi");

/// The package of a revision with this data.
pub fn of(data: &Value) -> Option<Package> {
    let package = data.get("package")?;
    serde_json::from_value(package.clone()).ok()
}

/// Whether a revision with this data has a package of which only the first fetch tells the checksum.
pub(super) fn is_bound_by_fetch(data: &Value) -> bool {
    data.get("package").is_some_and(|package| package.get("url").is_some() && package.get("sha256").is_none())
}

/// It may be another one each time that it is had.
pub(super) fn is_open(package: &Package) -> bool {
    match &package.image {
        Some(image) => !image.contains('@'),
        None => package.sha256.is_none(),
    }
}

/// Adds the package to the specification of a Pod, before the agent is: what that needs in each container is not for this one.
/// `image` is the agent's.
///
/// # Errors
/// A sentence that names the field and the remedy; then nothing was added.
pub(super) fn add(
    spec: &mut Map<String, Value>,
    package: &Package,
    bound: Option<&str>,
    image: Option<&str>,
) -> Result<(), String> {
    let mut mount = json!({"name": VOLUME, "mountPath": package.mount_path, "readOnly": true});
    let (container, volumes) = if let Some(url) = &package.url {
        mount["subPath"] = json!(files());
        fetched(package, url, bound, image)?
    } else {
        (None, vec![json!({"name": VOLUME, "image": {"reference": package.image}})])
    };
    let addition = Addition { by: "spec.package".into(), container, volumes, mount };
    addition.check(spec)?;
    addition.add(spec, |_, _| true);
    Ok(())
}

/// What fetches an archive, and the volumes that it needs for that.
fn fetched(
    package: &Package,
    url: &str,
    bound: Option<&str>,
    image: Option<&str>,
) -> Result<(Option<Value>, Vec<Value>), String> {
    let image = image.ok_or(
        "spec.package: the agent's image fetches it, and this operator was not told which that is: start it with \
         --agent-image (chart: agent.image.repository)",
    )?;
    let mut volumes = vec![json!({"name": VOLUME, "emptyDir": {"sizeLimit": size_limit()}})];
    if let Some(secret) = &package.secret_ref {
        volumes.push(json!({"name": SECRET.0, "secret": {"secretName": secret.name}}));
    }
    Ok((Some(container(package, url, bound, image)), volumes))
}

/// As much as the agent takes at most: an archive, what is in it, and a block of the node's disk that each entry fills in part.
fn size_limit() -> String {
    const BLOCK_BYTES: u64 = 4_096;
    let bytes = ARCHIVE_BYTES_MAX + BYTES_MAX + ENTRIES_MAX * BLOCK_BYTES;
    format!("{}Gi", bytes.div_ceil(1 << 30))
}

/// What is unpacked, within the volume; there once it is whole.
fn files() -> String {
    format!("{PACKAGE}/{FILES}")
}

fn container(package: &Package, url: &str, bound: Option<&str>, image: &str) -> Value {
    let mut arguments = vec!["fetch", "--url", url, "--to", FOLDER];
    if let Some(sha256) = package.sha256.as_deref().or(bound) {
        arguments.extend(["--sha256", sha256]);
    }
    let mut mounts = vec![
        json!({"name": VOLUME, "mountPath": FOLDER}),
        json!({"name": VOLUME, "mountPath": NO_TOKEN.1, "subPath": NO_TOKEN.0, "readOnly": true}),
    ];
    if package.secret_ref.is_some() {
        arguments.extend(["--secret", SECRET.1]);
        mounts.push(json!({"name": SECRET.0, "mountPath": SECRET.1, "readOnly": true}));
    }
    addition::container(names::CONTAINER_PACKAGE, image, &escaped(&arguments), LIMITS, &mounts)
}

/// Kubernetes expands `$(NAME)` in arguments: a URL may contain it, and means itself.
fn escaped(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| argument.replace("$(", "$$(")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::revision;

    const IMAGE: Option<&str> = Some("registry/agent:1");

    fn package(more: &Value) -> Package {
        let mut package = json!({"url": "https://packages.example.com/web.tar.gz?v=$(V)", "mountPath": "/opt/app"});
        package.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(&json!({"package": package})).unwrap()
    }

    fn template() -> Value {
        json!({
            "initContainers": [{"name": "migrate"}],
            "containers": [{"name": "web", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}, {"name": "log"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        })
    }

    fn added(package: &Package, bound: Option<&str>) -> Value {
        let mut spec = template().as_object().unwrap().clone();
        add(&mut spec, package, bound, IMAGE).unwrap();
        Value::Object(spec)
    }

    fn arguments(spec: &Value) -> Vec<&str> {
        spec["initContainers"][0]["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
    }

    /// C8, F14: and what fetches them has no token of the Pod.
    #[test]
    fn every_container_of_the_template_sees_the_files_and_nothing_else_of_the_volume() {
        let spec = added(&package(&json!({})), None);
        let mount =
            json!({"name": "baton-package", "mountPath": "/opt/app", "subPath": "package/files", "readOnly": true});
        for container in ["/initContainers/1", "/containers/0", "/containers/1"] {
            let mounts = spec.pointer(container).unwrap()["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.last(), Some(&mount), "{container}");
        }
        let fetch = &spec["initContainers"][0];
        assert_eq!((&fetch["name"], &fetch["image"]), (&json!("baton-package"), &json!("registry/agent:1")));
        let service_account = "/var/run/secrets/kubernetes.io/serviceaccount";
        let no_token =
            json!({"name": "baton-package", "mountPath": service_account, "subPath": "no-token", "readOnly": true});
        let volume = json!({"name": "baton-package", "mountPath": "/baton-package"});
        assert_eq!(fetch["volumeMounts"], json!([volume, no_token]));
        assert_eq!(spec["volumes"][1], json!({"name": "baton-package", "emptyDir": {"sizeLimit": "11Gi"}}));
        let url = "https://packages.example.com/web.tar.gz?v=$$(V)";
        assert_eq!(arguments(&spec), ["fetch", "--url", url, "--to", "/baton-package"]);
    }

    /// C8: nothing fetches it, so no agent's image is needed.
    #[test]
    fn an_image_is_mounted_by_the_kubelet_in_every_container_of_the_template() {
        let package = json!({"image": "registry/rules:1", "mountPath": "/opt/rules"});
        let mut spec = template().as_object().unwrap().clone();
        add(&mut spec, &of(&json!({"package": package})).unwrap(), None, None).unwrap();
        let mut expected = template();
        let mount = json!({"name": "baton-package", "mountPath": "/opt/rules", "readOnly": true});
        for container in ["/initContainers/0", "/containers/1"] {
            expected.pointer_mut(container).unwrap()["volumeMounts"] = json!([mount]);
        }
        expected["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
        let volume = json!({"name": "baton-package", "image": {"reference": "registry/rules:1"}});
        expected["volumes"].as_array_mut().unwrap().push(volume);
        assert_eq!(Value::Object(spec), expected);
    }

    /// C8: what the template has itself is only what an image takes.
    #[test]
    fn an_image_takes_the_place_of_no_container() {
        let package = of(&json!({"package": {"image": "registry/rules:1", "mountPath": "/opt/rules"}})).unwrap();
        for (pointer, value, said) in [
            ("/volumes/0/name", "baton-package", Some("volumes[0].name: spec.package adds the volume baton-package")),
            ("/containers/0/volumeMounts/0/mountPath", "/opt/rules", Some("containers[0].volumeMounts[0].mountPath")),
            ("/containers/1/name", "baton-package", None),
            ("/volumes/0/name", "baton-package-secret", None),
        ] {
            let mut spec = template();
            *spec.pointer_mut(pointer).unwrap() = json!(value);
            let added = add(spec.as_object_mut().unwrap(), &package, None, None);
            let why = added.err().unwrap_or_default();
            assert!(said.map_or(why.is_empty(), |said| why.contains(said)), "{why}");
        }
    }

    /// C8
    #[test]
    fn what_the_spec_says_of_the_checksum_comes_before_what_was_fetched_first() {
        let [told, found] = ["a".repeat(64), "b".repeat(64)];
        let spec = added(&package(&json!({"sha256": told})), Some(&found));
        assert_eq!(arguments(&spec)[5..], ["--sha256", &told]);
        let spec = added(&package(&json!({})), Some(&found));
        assert_eq!(arguments(&spec)[5..], ["--sha256", &found]);
    }

    /// C8: only the init container gets it.
    #[test]
    fn the_secret_is_mounted_where_the_package_is_fetched_and_nowhere_else() {
        let spec = added(&package(&json!({"secretRef": {"name": "packages"}})), None);
        assert_eq!(spec["volumes"][2], json!({"name": "baton-package-secret", "secret": {"secretName": "packages"}}));
        assert_eq!(arguments(&spec)[5..], ["--secret", "/baton-package-secret"]);
        assert_eq!(spec.to_string().matches("/baton-package-secret").count(), 2);
    }

    /// The Pod of a template with this agent and a package.
    fn pod_with_agent(asked: &str, spec: &Value) -> Result<Value, String> {
        let template = json!({"metadata": {"annotations": {"baton.dev/agent": asked}}, "spec": spec});
        let package = package(&json!({}));
        let recipe = revision::PodRecipe {
            rollout: "web",
            namespace: "shop",
            rollout_uid: "u",
            slot: 0,
            revision: "web-b",
            hash: "b",
            data: &json!({"package": package, "template": template}),
            restarted_at: None,
            package_sha256: None,
            agent_image: IMAGE,
            is_gated: false,
        };
        revision::pod(&recipe, "web-0-b").map(|mut pod| pod["spec"].take())
    }

    /// Its first init container is not the Pod's: the package's is.
    #[test]
    fn what_the_agent_cannot_be_added_to_is_named_as_the_template_has_it() {
        let mut spec = template();
        spec["initContainers"][0]["name"] = json!("baton-install");
        let why = pod_with_agent("install", &spec).unwrap_err();
        assert!(why.starts_with("spec.template.spec.initContainers[0].name: baton.dev/agent: install adds"), "{why}");
    }

    /// The kubelet gives a Pod the class Guaranteed where each container asks for exactly what it may use.
    #[test]
    fn a_guaranteed_pod_stays_one_and_grows_by_no_init_containers_cpu() {
        let exact = json!({"limits": {"cpu": "100m", "memory": "1Gi"}, "requests": {"cpu": "100m"}});
        let more = json!({"limits": {"cpu": "100m", "memory": "1Gi"}, "requests": {"cpu": "50m"}});
        for (asked, cpu) in [("install", "100m"), ("sidecar", "200m")] {
            let in_other_words =
                json!({"limits": {"cpu": 0.1, "memory": "1024Mi"}, "requests": {"cpu": "100m", "memory": "1Gi"}});
            for (last, is_guaranteed) in [(&exact, true), (&in_other_words, true), (&more, false), (&json!({}), false)]
            {
                let mut spec = template();
                for (container, resources) in
                    [("/initContainers/0", &exact), ("/containers/0", &exact), ("/containers/1", last)]
                {
                    spec.pointer_mut(container).unwrap()["resources"] = resources.clone();
                }
                let pod = pod_with_agent(asked, &spec).unwrap();
                for (added, cpu) in [(0, cpu), (1, "100m")] {
                    let resources = &pod["initContainers"][added]["resources"];
                    assert_eq!(resources["requests"] == resources["limits"], is_guaranteed, "{asked} {last}");
                    let is_as_much = [json!(cpu), json!(0.1)].contains(&resources["limits"]["cpu"]);
                    assert_eq!(is_as_much, is_guaranteed || cpu == "200m", "{resources}");
                }
            }
        }
    }

    /// R14: reckoned by another program, in another language.
    #[test]
    fn the_hash_of_a_revision_with_a_package_never_changes() {
        let containers = json!([{"name": "web", "image": "example.local/web:1"}]);
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "web"}},
            "version": "1",
            "package": {"url": "https://packages.example.com/web.tar.gz", "mountPath": "/opt/app"},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}},
        });
        let hash = |spec: &Value| revision::hash(&revision::data(&serde_json::from_value(spec.clone()).unwrap()));
        assert_eq!(hash(&spec), "qtsqjkbmtn");
        spec["package"]["sha256"] = json!("0".repeat(64));
        spec["package"]["secretRef"] = json!({"name": "packages"});
        assert_eq!(hash(&spec), "plq2smdzms");
        spec["package"] = json!({"image": "registry.example.com/rules:1.4.2", "mountPath": "/opt/rules"});
        assert_eq!(hash(&spec), "fxknwbqggk");
    }

    /// The API server would refuse each Pod, for a volume or a mount that the template does not have.
    #[test]
    fn what_the_template_has_itself_is_said_with_its_field_and_the_remedy() {
        for (pointer, value, said) in [
            ("/volumes/0/name", "baton-package", "volumes[0].name: spec.package adds the volume baton-package itself"),
            (
                "/volumes/0/name",
                "baton-package-secret",
                "volumes[0].name: spec.package adds the volume baton-package-s",
            ),
            (
                "/containers/1/name",
                "baton-package",
                "containers[1].name: spec.package adds the container baton-package",
            ),
            ("/initContainers/0/name", "baton-package", "initContainers[0].name: spec.package adds the container"),
            (
                "/containers/0/volumeMounts/0/mountPath",
                "/opt/app/",
                "containers[0].volumeMounts[0].mountPath: spec.package",
            ),
        ] {
            let mut spec = template();
            *spec.pointer_mut(pointer).unwrap() = json!(value);
            let mut after = spec.as_object().unwrap().clone();
            let package = package(&json!({"secretRef": {"name": "packages"}}));
            let why = add(&mut after, &package, None, IMAGE).unwrap_err();
            assert!(why.starts_with(&format!("spec.template.spec.{said}")), "{why}");
            assert_eq!(Value::Object(after), spec, "{why}");
        }
    }

    #[test]
    fn without_an_agents_image_nothing_is_added() {
        let mut spec = Map::new();
        let why = add(&mut spec, &package(&json!({})), None, None).unwrap_err();
        assert!(why.starts_with("spec.package: ") && why.contains("--agent-image"), "{why}");
        assert!(spec.is_empty());
    }
}
