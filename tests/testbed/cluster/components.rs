//! The programs of the control plane and their flags.
//!
//! Flags are either what a production cluster would set, or save work on a small machine; each of
//! the latter says so.
use std::path::Path;

use anyhow::{Result, ensure};

use super::{
    certificates::Authority,
    kubeconfig,
    layout::{APISERVER_ADDRESS, Layout, SERVICE_CIDR, private_file},
    nodes::NodesSpec,
    processes::{Place, Spec},
};

const ETCD_URL: &str = "http://127.0.0.1:2379";

/// What Baton and its peers (Deployment, StatefulSet, …) rely on. Controllers for volumes, cloud,
/// certificates and the like would only cost memory and start-up time.
const CONTROLLERS: [&str; 21] = [
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
    "legacy-serviceaccount-token-cleaner-controller",
];

const AUDIT_POLICY_FILE: &str = "audit-policy.yaml";
/// Who did what, one line of JSON a request, of everybody with limited rights: that is what tests ask for; and what the
/// built-in controllers of workloads write, which `bench` compares with. The rest of the control plane, the nodes and the
/// administrator would only fill the disk.
const AUDIT_POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  users:
  - system:serviceaccount:kube-system:deployment-controller
  - system:serviceaccount:kube-system:replicaset-controller
  - system:serviceaccount:kube-system:statefulset-controller
  verbs: [create, update, patch, delete, deletecollection]
# The agents of `bench listeners` have an administrator's rights.
- level: Metadata
  namespaces: [bench]
  resources:
  - group: coordination.k8s.io
    resources: [leases]
  verbs: [create, update, patch, delete, deletecollection]
- level: None
  userGroups: ['system:masters', 'system:nodes', 'system:serviceaccounts:kube-system', 'system:unauthenticated']
- level: None
  users: ['system:apiserver', 'system:kube-controller-manager', 'system:kube-scheduler']
- level: Metadata
";

/// Fails when a program that these nodes need is missing.
pub fn check_programs(bin: &Path, nodes: NodesSpec) -> Result<()> {
    let mut programs = vec!["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    if nodes.kwok > 0 {
        programs.push("kwok");
    }
    programs.retain(|program| !bin.join(program).is_file());
    ensure!(programs.is_empty(), "no {} in {}: run `make control-plane` first", programs.join(", "), bin.display());
    Ok(())
}

pub fn etcd(layout: &Layout) -> Spec {
    let peer_url = "http://127.0.0.1:2380";
    spec(
        layout,
        "etcd",
        [
            format!("--data-dir={}", layout.etcd().display()),
            format!("--listen-client-urls={ETCD_URL}"),
            format!("--advertise-client-urls={ETCD_URL}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            "--unsafe-no-fsync".into(), // the data dies with the cluster
            "--log-level=warn".into(),
        ],
    )
}

pub fn kube_apiserver(layout: &Layout) -> Spec {
    let pki = |file: &str| layout.pki(file).display().to_string();
    spec(
        layout,
        "kube-apiserver",
        [
            format!("--etcd-servers={ETCD_URL}"),
            "--bind-address=0.0.0.0".into(),
            format!("--advertise-address={APISERVER_ADDRESS}"),
            format!("--secure-port={}", layout.port),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement".into(),
            "--allow-privileged=true".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", pki("service-account.pub")),
            format!("--service-account-signing-key-file={}", pki("service-account.key")),
            format!("--audit-policy-file={}", pki(AUDIT_POLICY_FILE)),
            format!("--audit-log-path={}", layout.log("audit").display()),
            "--audit-log-maxsize=100".into(), // MiB
            "--audit-log-maxbackup=1".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            // Without it watches stay open until a graceful stop gives up after a minute.
            "--shutdown-watch-termination-grace-period=5s".into(),
            "--profiling=false".into(),
        ],
    )
}

pub fn kube_controller_manager(layout: &Layout, nodes: NodesSpec) -> Spec {
    spec(
        layout,
        "kube-controller-manager",
        [
            format!("--kubeconfig={}", layout.pki("kube-controller-manager.kubeconfig").display()),
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={}", layout.pki("service-account.key").display()),
            format!("--root-ca-file={}", layout.pki("ca.crt").display()),
            format!("--controllers={}", CONTROLLERS.join(",")),
            format!("--node-monitor-grace-period={}s", nodes.grace_period_seconds()),
            "--node-monitor-period=1s".into(),
            "--leader-elect=false".into(),
            // The defaults (20, 30) are for a control plane that many share, and would be what a
            // benchmark of Deployment and StatefulSet measures.
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
            "--secure-port=0".into(), // nobody asks; saves making a certificate
            "--profiling=false".into(),
        ],
    )
}

pub fn kube_scheduler(layout: &Layout) -> Spec {
    spec(
        layout,
        "kube-scheduler",
        [
            format!("--kubeconfig={}", layout.pki("kube-scheduler.kubeconfig").display()),
            "--leader-elect=false".into(),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
            "--secure-port=0".into(),
            "--profiling=false".into(),
        ],
    )
}

/// A program of the control plane under its own name; the cluster ends when it dies.
pub fn spec(layout: &Layout, name: &str, args: impl IntoIterator<Item = String>) -> Spec {
    Spec {
        name: name.into(),
        program: layout.bin.join(name),
        args: args.into_iter().collect(),
        log: layout.log(name),
        essential: true,
        place: Place::Cluster,
    }
}

/// Writes what the API server is to note in `logs/audit.log`.
pub fn write_audit_policy(layout: &Layout) -> Result<()> {
    private_file(&layout.pki(AUDIT_POLICY_FILE), AUDIT_POLICY, 0o600)
}

/// Writes the kubeconfigs of the administrator and of the components.
pub fn write_kubeconfigs(layout: &Layout, authority: &Authority) -> Result<()> {
    let admin = Some("system:masters");
    kubeconfig::write(layout, &layout.pki("admin.kubeconfig"), "admin", admin, authority)?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let path = layout.pki(&format!("{name}.kubeconfig"));
        kubeconfig::write(layout, &path, &format!("system:{name}"), None, authority)?;
    }
    Ok(())
}
