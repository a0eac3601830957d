//! What Baton adds to a Pod beside what its template says: the agent, a package.
use serde_json::{Map, Value, json};

use crate::api::quantity::billionths;

/// Volumes with the container that fills them, and where others see them.
pub(super) struct Addition {
    /// The field that asks for it, as messages name it.
    pub by: String,
    /// An init container. None: the kubelet fills them.
    pub container: Option<Value>,
    pub volumes: Vec<Value>,
    /// In the containers that see it.
    pub mount: Value,
}

impl Addition {
    /// Nothing of the template's own has a name or a place that this needs: the API server would refuse each Pod for something
    /// that no user wrote.
    ///
    /// # Errors
    /// A sentence that names the field and the remedy.
    pub fn check(&self, own: &Map<String, Value>) -> Result<(), String> {
        let Self { by, container: added, volumes, mount } = self;
        for (at, volume) in list(own, "volumes").iter().enumerate() {
            if volumes.iter().any(|added| added["name"] == volume["name"]) {
                return Err(format!(
                    "spec.template.spec.volumes[{at}].name: {by} adds the volume {} itself; remove or rename the one that is \
                     there, with its mounts",
                    text(&volume["name"])
                ));
            }
        }
        let folder = text(&mount["mountPath"]);
        for (field, index, container) in containers(own) {
            if let Some(added) = added.as_ref().filter(|added| container["name"] == added["name"]) {
                return Err(format!(
                    "spec.template.spec.{field}[{index}].name: {by} adds the container {} itself; remove or rename this one",
                    text(&added["name"])
                ));
            }
            let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
            if let Some(at) = mounts.position(|mount| text(&mount["mountPath"]).trim_end_matches('/') == folder) {
                return Err(format!(
                    "spec.template.spec.{field}[{index}].volumeMounts[{at}].mountPath: {by} mounts its volume at {folder}; \
                     mount this one elsewhere"
                ));
            }
        }
        Ok(())
    }

    /// Adds it, before the template's own init containers: these may need it. `sees` is told the list that a container is in.
    pub fn add(mut self, spec: &mut Map<String, Value>, sees: impl Fn(&str, &Value) -> bool) {
        if let Some(added) = &mut self.container {
            keep_class(spec, added);
        }
        for field in FIELDS {
            let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter(|container| sees(field, container)) {
                match container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                    Some(mounts) => mounts.push(self.mount.clone()),
                    None => container["volumeMounts"] = json!([self.mount]),
                }
            }
        }
        let volumes = list(spec, "volumes").iter().cloned().chain(self.volumes).collect();
        spec.insert("volumes".into(), Value::Array(volumes));
        if let Some(added) = self.container {
            let inits = [added].into_iter().chain(list(spec, "initContainers").iter().cloned()).collect();
            spec.insert("initContainers".into(), Value::Array(inits));
        }
    }
}

/// Where each container asks for exactly what it may use, the Pod is of the class Guaranteed: it stays so. One that ends before
/// the others start asks for no more CPU than they, so that the Pod does not grow by it: it may have what the largest of them
/// has. Its memory it needs.
fn keep_class(spec: &Map<String, Value>, added: &mut Value) {
    let is_exact = |container: &Value| {
        let Value::Object(limits) = &container["resources"]["limits"] else { return false };
        let requests = &container["resources"]["requests"];
        let is_asked = |resource| requests.get(resource).is_none_or(|request| is_same(request, &limits[resource]));
        ["cpu", "memory"].into_iter().all(|resource| limits.contains_key(resource) && is_asked(resource))
    };
    let own: Vec<_> = containers(spec).map(|(.., container)| container).collect();
    if !own.iter().all(|container| is_exact(container)) {
        return;
    }
    let limits = own.iter().map(|container| &container["resources"]["limits"]["cpu"]);
    let Some(most) = limits.max_by_key(|cpu| amount(cpu)) else { return };
    if !is_sidecar(added) {
        added["resources"]["limits"]["cpu"] = most.clone();
    }
    added["resources"]["requests"] = added["resources"]["limits"].clone();
}

/// `1` is `1000m`.
fn is_same(a: &Value, b: &Value) -> bool {
    a == b || (amount(a).is_some() && amount(a) == amount(b))
}

fn amount(quantity: &Value) -> Option<i128> {
    billionths(&quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned))
}

/// A native one: an init container that goes on running.
pub(super) fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

const FIELDS: [&str; 2] = ["containers", "initContainers"];

/// All containers of a template, with the list that each is in, and where.
pub(super) fn containers(spec: &Map<String, Value>) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    FIELDS
        .into_iter()
        .flat_map(|field| list(spec, field).iter().enumerate().map(move |(index, container)| (field, index, container)))
}

fn list<'a>(spec: &'a Map<String, Value>, field: &str) -> &'a [Value] {
    spec.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Starts under Pod security "restricted", independent of what the template says of its own containers; and under a ResourceQuota, which
/// refuses a Pod of which any container says less than it counts.
pub(super) fn container(
    name: &str,
    image: &str,
    arguments: &[String],
    (cpu, memory): (&str, &str),
    mounts: &[Value],
) -> Value {
    json!({
        "name": name,
        "image": image,
        "command": ["baton-agent"],
        "args": arguments,
        "resources": {
            "requests": {"cpu": "5m", "memory": "16Mi"},
            "limits": {"cpu": cpu, "memory": memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    })
}
