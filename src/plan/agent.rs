//! The agent in Pods whose image has none: what the annotation `baton.dev/agent` adds to a template.
//!
//! | value | adds | for |
//! |---|---|---|
//! | `own` | nothing | images that run their program under `baton-agent` |
//! | `install` | an init container that copies the agent to `/baton` | `command: [/baton/baton-agent, exec, --, …]` in any image |
//! | `sidecar` | the agent as a container of its own, which runs as long as the Pod | its local API |
//!
//! Like the variables that every Pod gets, this is in no hash and no comparison: another version of the agent replaces no Pod.
use serde_json::{Map, Value, json};

use super::addition::{Addition, container, containers, is_sidecar};
use crate::api::names;

/// The volume that holds the agent, and what it must not forget while its container is restarted.
const VOLUME: &str = "baton";
/// Where the volume is, in every container.
const FOLDER: &str = "/baton";
/// The init container that copies the agent.
const CONTAINER_INSTALL: &str = "baton-install";
/// Where the sidecar answers the kubelet's probes.
const PORT_PROBES: u16 = 9465;
/// Where it answers its Pod. It listens on 127.0.0.1 alone, and yet no other process can listen on all addresses.
const PORT_LOCAL: u16 = 9464;

/// Processor time that it may use at most.
const CPU: &str = "200m";

/// Adds to the specification of a Pod what this value of the annotation asks for. `own` is what the template says of it.
///
/// # Errors
/// A sentence that names the field and the remedy; then nothing was added.
pub(super) fn add(
    spec: &mut Map<String, Value>,
    own: &Map<String, Value>,
    asked: &str,
    image: Option<&str>,
) -> Result<(), String> {
    let container = match asked {
        names::AGENT_OWN => return Ok(()),
        names::AGENT_INSTALL => install as fn(&str) -> Value,
        names::AGENT_SIDECAR => sidecar,
        other => {
            return Err(format!(
                "spec.template.metadata.annotations[{}]: {other:?} is none of own, install and sidecar",
                names::ANNOTATION_HAS_AGENT
            ));
        }
    };
    let image = image.ok_or_else(|| {
        format!(
            "spec.template.metadata.annotations[{}]: {asked} adds the agent's image, and this operator was not told which \
             that is: start it with --agent-image (chart: agent.image.repository), or use own",
            names::ANNOTATION_HAS_AGENT
        )
    })?;
    let by = format!("{}: {asked}", names::ANNOTATION_HAS_AGENT);
    let volumes = vec![json!({"name": VOLUME, "emptyDir": {}})];
    let addition = Addition { by, container: Some(container(image)), volumes, mount: own_mount() };
    addition.check(own)?;
    if addition.container.as_ref().is_some_and(is_sidecar) {
        check_network(own, &addition.by)?;
        check_ports(own, &addition.by)?;
    }
    addition.add(spec, |field, container| field == "containers" || is_sidecar(container));
    Ok(())
}

/// With the node's network the node has one 127.0.0.1 for all Pods, and one port 9464.
fn check_network(own: &Map<String, Value>, by: &str) -> Result<(), String> {
    if own.get("hostNetwork").is_none_or(|asked| asked != &json!(true)) {
        return Ok(());
    }
    Err(format!(
        "spec.template.spec.hostNetwork: {by} adds an agent that answers on 127.0.0.1, which hostNetwork shares with the \
         whole node; remove hostNetwork, or run the program under the agent (install or own, and baton-agent exec)"
    ))
}

fn check_ports(own: &Map<String, Value>, by: &str) -> Result<(), String> {
    for (field, index, container) in containers(own) {
        if let Some((at, port)) = taken_port(container) {
            return Err(format!(
                "spec.template.spec.{field}[{index}].ports[{at}].containerPort: {by} adds an agent that listens on {port} \
                 itself; use another port here, or own and an agent with --port and --probes"
            ));
        }
    }
    Ok(())
}

/// A port that this container says it listens on, and the sidecar does: all containers of a Pod share its addresses.
fn taken_port(container: &Value) -> Option<(usize, u16)> {
    let ports = container["ports"].as_array().into_iter().flatten().enumerate();
    let is_tcp = |port: &Value| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
    let mut ports = ports.filter(|(_, port)| is_tcp(port));
    ports.find_map(|(at, port)| {
        let taken = [PORT_LOCAL, PORT_PROBES].into_iter().find(|taken| port["containerPort"] == *taken)?;
        Some((at, taken))
    })
}

fn own_mount() -> Value {
    json!({"name": VOLUME, "mountPath": FOLDER})
}

fn install(image: &str) -> Value {
    let arguments = ["install", "--to", FOLDER].map(str::to_owned);
    container(CONTAINER_INSTALL, image, &arguments, (CPU, "64Mi"), &[own_mount()])
}

/// All containers' preStop hooks begin at once, and a sidecar is told to end when the others have: so it is the hook that
/// begins the hand-over.
///
/// Ready with an application at its stream: a Pod gets listeners once it is Ready, and no other Pod could run them. Other
/// containers start once a sidecar has *started*, so that must not wait for the application: it asks whether the agent
/// listens.
fn sidecar(image: &str) -> Value {
    let probes = format!("--probes=0.0.0.0:{PORT_PROBES}");
    let arguments = ["serve".to_owned(), probes];
    let mut container = container(names::CONTAINER_AGENT, image, &arguments, (CPU, "128Mi"), &[own_mount()]);
    let probe = |path: &str, period: u8, failures: u8| {
        let get = json!({"path": path, "port": PORT_PROBES});
        json!({"httpGet": get, "periodSeconds": period, "failureThreshold": failures})
    };
    container["restartPolicy"] = json!("Always");
    container["startupProbe"] = probe("/healthz", 1, 60);
    container["readinessProbe"] = probe("/readyz", 2, 3);
    container["livenessProbe"] = probe("/healthz", 10, 3);
    container["lifecycle"] = json!({"preStop": {"exec": {"command": ["baton-agent", "drain", "--wait"]}}});
    container
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Map<String, Value> {
        let spec = json!({
            "initContainers": [{"name": "migrate"}, {"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "bots", "volumeMounts": [{"name": "tokens", "mountPath": "/tokens"}]}, {"name": "log"}],
            "volumes": [{"name": "tokens", "secret": {"secretName": "tokens"}}],
        });
        spec.as_object().unwrap().clone()
    }

    fn added(asked: &str) -> Value {
        let mut after = spec();
        add(&mut after, &spec(), asked, Some("registry/agent:1")).unwrap();
        Value::Object(after)
    }

    /// Names of the volumes that each container mounts.
    fn mounts(spec: &Value, field: &str) -> Vec<(String, Vec<String>)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mounts = |container: &Value| {
            container["volumeMounts"].as_array().into_iter().flatten().map(|mount| text(&mount["name"])).collect()
        };
        spec[field].as_array().unwrap().iter().map(|container| (text(&container["name"]), mounts(container))).collect()
    }

    fn owned(found: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        found.iter().map(|(name, all)| ((*name).to_owned(), all.iter().map(|it| (*it).to_owned()).collect())).collect()
    }

    #[test]
    fn the_agent_is_installed_before_anything_of_the_templates() {
        let spec = added("install");
        let inits: [(&str, &[&str]); 3] = [("baton-install", &["baton"]), ("migrate", &[]), ("proxy", &["baton"])];
        assert_eq!(mounts(&spec, "initContainers"), owned(&inits));
        assert_eq!(mounts(&spec, "containers"), owned(&[("bots", &["tokens", "baton"]), ("log", &["baton"])]));
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 2);
        let init = &spec["initContainers"][0];
        assert_eq!(
            (&init["image"], &init["args"]),
            (&json!("registry/agent:1"), &json!(["install", "--to", "/baton"]))
        );
        assert_eq!(init.get("restartPolicy"), None);
    }

    /// The container that is the agent itself is known by its name (see `snapshot::agent`).
    #[test]
    fn a_sidecar_lives_as_long_as_the_pod() {
        let spec = added("sidecar");
        let agent = &spec["initContainers"][0];
        assert_eq!((&agent["name"], &agent["restartPolicy"]), (&json!(names::CONTAINER_AGENT), &json!("Always")));
        assert_eq!(
            (&agent["command"], &agent["args"]),
            (&json!(["baton-agent"]), &json!(["serve", "--probes=0.0.0.0:9465"]))
        );
        assert_eq!(agent["lifecycle"]["preStop"]["exec"]["command"], json!(["baton-agent", "drain", "--wait"]));
        assert_eq!(mounts(&spec, "containers"), owned(&[("bots", &["tokens", "baton"]), ("log", &["baton"])]));
    }

    /// Other containers wait for its startup probe: one that waited for the application would wait for ever.
    #[test]
    fn a_sidecar_is_ready_with_its_application_and_started_without() {
        let agent = &added("sidecar")["initContainers"][0];
        for (probe, path) in
            [("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
        {
            assert_eq!(agent[probe]["httpGet"], json!({"path": path, "port": 9465}), "{probe}");
        }
        assert_eq!(added("install")["initContainers"][0].get("readinessProbe"), None, "it ends, and cannot have one");
    }

    /// A ResourceQuota refuses Pods with a container that does not say all that it counts.
    #[test]
    fn what_is_added_says_all_its_resources() {
        for asked in ["install", "sidecar"] {
            let resources = &added(asked)["initContainers"][0]["resources"];
            for (kind, resource) in
                [("requests", "cpu"), ("requests", "memory"), ("limits", "cpu"), ("limits", "memory")]
            {
                assert!(resources[kind][resource].is_string(), "{asked}: {kind}.{resource}");
            }
        }
    }

    /// H7: every process of the node would reach the agent's local API.
    #[test]
    fn a_sidecar_on_the_network_of_its_node_is_refused() {
        for (asked, on_host_network, refused) in
            [("sidecar", true, true), ("sidecar", false, false), ("install", true, false), ("own", true, false)]
        {
            let mut own = spec();
            own.insert("hostNetwork".to_owned(), json!(on_host_network));
            let outcome = add(&mut own.clone(), &own, asked, Some("registry/agent:1"));
            assert_eq!(outcome.is_err(), refused, "{asked}");
            let named = |why: &String| why.starts_with("spec.template.spec.hostNetwork: ") && why.contains("remove");
            assert!(outcome.as_ref().err().is_none_or(named), "{outcome:?}");
        }
    }

    #[test]
    fn a_port_that_the_sidecar_needs_is_refused_and_any_other_is_not() {
        let with = |asked: &str, field: &str, at: usize, port: Value| {
            let mut spec = Value::Object(spec());
            spec[field][at]["ports"] = json!([{"containerPort": 8080}, port]);
            let own = spec.as_object().unwrap();
            add(&mut own.clone(), own, asked, Some("registry/agent:1"))
        };
        let why = with("sidecar", "containers", 1, json!({"containerPort": 9465})).unwrap_err();
        assert!(why.starts_with("spec.template.spec.containers[1].ports[1].containerPort: "), "{why}");
        assert!(why.contains("listens on 9465"), "{why}");
        let why = with("sidecar", "initContainers", 0, json!({"containerPort": 9464, "protocol": "TCP"})).unwrap_err();
        assert!(why.starts_with("spec.template.spec.initContainers[0].ports[1].containerPort: "), "{why}");
        assert_eq!(with("sidecar", "containers", 1, json!({"containerPort": 9465, "protocol": "UDP"})), Ok(()));
        assert_eq!(with("sidecar", "containers", 1, json!({"containerPort": 9466})), Ok(()));
        assert_eq!(with("install", "containers", 1, json!({"containerPort": 9465})), Ok(()), "it serves nothing");
    }

    #[test]
    fn own_adds_nothing_and_needs_no_image() {
        let mut after = spec();
        add(&mut after, &spec(), "own", None).unwrap();
        assert_eq!(after, spec());
    }

    #[test]
    fn what_cannot_be_added_is_said_with_the_remedy_and_leaves_the_template_alone() {
        let refused = |asked: &str, image: Option<&str>, pointer: &str, value: Value| {
            let mut spec = Value::Object(spec());
            *spec.pointer_mut(pointer).unwrap() = value;
            let mut after = spec.as_object().unwrap().clone();
            let why = add(&mut after, spec.as_object().unwrap(), asked, image).unwrap_err();
            assert_eq!(Value::Object(after), spec, "{why}");
            why
        };
        let image = Some("registry/agent:1");
        let none = refused("install", None, "/volumes", json!([]));
        assert!(none.contains("--agent-image") && none.contains("[baton.dev/agent]"), "{none}");
        let other = refused("inject", image, "/volumes", json!([]));
        assert!(other.contains("\"inject\" is none of own, install and sidecar"), "{other}");
        for (asked, pointer, value, field) in [
            ("install", "/volumes", json!([{"name": "baton"}]), "spec.template.spec.volumes[0].name: "),
            ("install", "/containers/1/name", json!("baton-install"), "spec.template.spec.containers[1].name: "),
            ("sidecar", "/initContainers/0/name", json!("baton-agent"), "spec.template.spec.initContainers[0].name: "),
            (
                "sidecar",
                "/containers/0/volumeMounts/0/mountPath",
                json!("/baton/"),
                "spec.template.spec.containers[0].volumeMounts[0].mountPath: ",
            ),
        ] {
            let why = refused(asked, image, pointer, value);
            assert!(why.starts_with(field), "{why}");
        }
    }
}
