//! The nodes of a cluster: which, and what makes them.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::Path,
    str::FromStr,
};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};

use serde_json::json;

use super::{
    certificates::Authority,
    kubeconfig, kwok,
    layout::{Layout, private_file, private_folder},
    machine::Machine,
    processes::{Place, Spec},
};

/// The port of a node's kubelet API, as everywhere.
const KUBELET_PORT: u16 = 10250;
/// A process node has a /24 of 10.244.0.0/16, as has a kubelet; the API server has one too.
const MAX_PROCESS_NODES: u16 = 200;
/// Each costs a kubelet and a containerd.
const MAX_KUBELETS: u16 = 20;
const MAX_KWOK_NODES: u16 = 5000;
const CREATED_AT_ONCE: usize = 8;

/// How many nodes of each kind: `process[:N],kwok[:N],kubelet[:N]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodesSpec {
    pub process: u16,
    pub kwok: u16,
    /// Machines with a real kubelet and containerd.
    pub kubelet: u16,
}

impl FromStr for NodesSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut nodes = Self::default();
        for part in text.split(',') {
            let (kind, count) = part.split_once(':').unwrap_or((part, "1"));
            let (slot, max) = match kind {
                "process" => (&mut nodes.process, MAX_PROCESS_NODES),
                "kwok" => (&mut nodes.kwok, MAX_KWOK_NODES),
                "kubelet" => (&mut nodes.kubelet, MAX_KUBELETS),
                _ => {
                    return Err(format!(
                        "unknown kind of node {kind:?}; there are process[:N], kwok[:N] and kubelet[:N]"
                    ));
                }
            };
            let count = count.parse().ok().filter(|count| (1..=max).contains(count));
            let count = count.ok_or_else(|| format!("{part:?}: 1 to {max} nodes of this kind are possible"))?;
            if *slot != 0 {
                return Err(format!("{kind} is given twice"));
            }
            *slot = count;
        }
        Ok(nodes)
    }
}

impl fmt::Display for NodesSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("process", self.process), ("kwok", self.kwok), ("kubelet", self.kubelet)];
        let parts = kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind}:{count}"));
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

impl NodesSpec {
    /// The names of all nodes.
    pub fn names(self) -> impl Iterator<Item = String> {
        let process = (1..=self.process).map(process_name);
        process.chain((0..self.kwok).map(kwok_name)).chain(self.machines().map(Machine::kubelet))
    }

    pub fn total(self) -> usize {
        usize::from(self.process) + usize::from(self.kwok) + usize::from(self.kubelet)
    }

    /// Seconds without a sign of life until a node is NotReady. Short where nodes can really die; simulated ones, of
    /// which there may be thousands, would have to renew their leases all the time for it.
    pub fn grace_period_seconds(self) -> u16 {
        if self.process + self.kubelet > 0 { 8 } else { 40 }
    }

    /// The machines of the kubelets; their Pod networks come after those of the process nodes.
    pub fn machines(self) -> impl Iterator<Item = Machine> {
        (1..=self.kubelet).map(move |number| Machine { number, network: self.process + number })
    }

    /// The third byte of each network of process nodes.
    pub fn process_networks(self) -> impl Iterator<Item = u16> {
        1..=self.process
    }
}

fn process_name(number: u16) -> String {
    format!("process-{number}")
}

fn kwok_name(number: u16) -> String {
    format!("kwok-{number}")
}

/// `process-1`, … with everything `baton-testbed node` needs in its state folder.
pub fn process_node(layout: &Layout, program: &Path, number: u16, authority: &Authority) -> Result<Spec> {
    let name = process_name(number);
    let user = format!("system:node:{name}");
    let state = layout.node(&name);
    private_folder(&state)?;
    let kubeconfig = state.join("kubeconfig");
    kubeconfig::write(layout, &kubeconfig, &user, Some("system:nodes"), authority)?;
    let address = Ipv4Addr::new(10, 244, number as u8, 1);
    let serving = authority.server(&user, Some("system:nodes"), &[name.clone(), address.to_string()])?;
    private_file(&state.join("serving.crt"), &serving.certificate, 0o600)?;
    private_file(&state.join("serving.key"), &serving.key, 0o600)?;
    private_file(&state.join("ca.crt"), &authority.certificate(), 0o600)?;
    let flags = [
        ("name", name.clone()),
        ("kubeconfig", kubeconfig.display().to_string()),
        ("images", layout.images.display().to_string()),
        ("state", state.display().to_string()),
        ("pod-cidr", format!("10.244.{number}.0/24")),
        ("address", format!("{address}:{KUBELET_PORT}")),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]);
    Ok(Spec {
        program: program.to_owned(),
        args: ["node".to_owned()].into_iter().chain(flags).collect(),
        log: layout.log(&name),
        name,
        essential: false,
        place: Place::Cluster,
    })
}

/// Creates the Node objects of the simulated nodes; kwok makes them Ready.
pub async fn create_kwok_nodes(client: &Client, nodes: NodesSpec) -> Result<()> {
    let api = Api::<Node>::all(client.clone());
    let objects = (0..nodes.kwok).map(|number| kwok_node(number, nodes.process + nodes.kubelet > 0));
    stream::iter(objects)
        .map(|node| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &node).await }
        })
        .buffer_unordered(CREATED_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

/// With nodes beside it that run programs a simulated node is tainted, or Pods that must run would land on it.
fn kwok_node(number: u16, tainted: bool) -> Node {
    let name = kwok_name(number);
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let resources = [("cpu", "256"), ("memory", "1Ti"), ("pods", "1000")];
    let resources: BTreeMap<_, _> =
        resources.iter().map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned()))).collect();
    let taint =
        Taint { key: kwok::NODE_KEY.into(), value: Some("fake".into()), effect: "NoSchedule".into(), time_added: None };
    Node {
        metadata: ObjectMeta {
            labels: Some(owned(&[("type", "kwok"), ("kubernetes.io/hostname", &name), ("kubernetes.io/os", "linux")])),
            annotations: Some(owned(&[(kwok::NODE_KEY, "fake")])),
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: tainted.then(|| vec![taint]), ..NodeSpec::default() }),
        status: Some(NodeStatus {
            allocatable: Some(resources.clone()),
            capacity: Some(resources),
            ..NodeStatus::default()
        }),
    }
}

/// Labels the process nodes, so that Pods can select them.
pub async fn label_process_nodes(client: &Client, nodes: NodesSpec) -> Result<()> {
    let api = Api::<Node>::all(client.clone());
    let labels = Patch::Merge(json!({ "metadata": { "labels": { "baton.dev/node": "process" } } }));
    for number in 1..=nodes.process {
        api.patch(&process_name(number), &PatchParams::default(), &labels).await?;
    }
    Ok(())
}

/// Fails unless every node is there and Ready.
pub async fn check_ready(client: &Client, nodes: NodesSpec) -> Result<()> {
    let all = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    let ready: BTreeSet<String> = all.iter().filter(|node| is_ready(node)).map(ResourceExt::name_any).collect();
    let missing: Vec<String> = nodes.names().filter(|name| !ready.contains(name)).collect();
    let (first, more) = (missing[..missing.len().min(5)].join(", "), missing.len().saturating_sub(5));
    ensure!(missing.is_empty(), "not Ready: {first} and {more} more");
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

#[cfg(test)]
mod tests {
    use super::NodesSpec;

    fn check(text: &str, expect: Result<(u16, u16, u16), &str>) {
        let parsed = text.parse::<NodesSpec>();
        match expect {
            Ok((process, kwok, kubelet)) => assert_eq!(parsed, Ok(NodesSpec { process, kwok, kubelet }), "{text}"),
            Err(part) => assert!(parsed.as_ref().is_err_and(|error| error.contains(part)), "{text}: {parsed:?}"),
        }
    }

    #[test]
    fn all_kinds_of_nodes_can_be_asked_for() {
        check("process", Ok((1, 0, 0)));
        check("process:3", Ok((3, 0, 0)));
        check("kwok:50", Ok((0, 50, 0)));
        check("kubelet:2", Ok((0, 0, 2)));
        check("process,kwok:50,kubelet", Ok((1, 50, 1)));
        check("kwok:0", Err("1 to 5000"));
        check("process:201", Err("1 to 200"));
        check("kwok:2,kwok:3", Err("twice"));
        check("kind", Err("unknown kind"));
        check("", Err("unknown kind"));
    }

    #[test]
    fn a_spec_prints_as_it_is_written() {
        let nodes = NodesSpec { process: 1, kwok: 50, kubelet: 2 };
        assert_eq!(nodes.to_string().parse(), Ok(nodes));
    }
}
