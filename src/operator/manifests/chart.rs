//! `charts/baton`: the same objects as templates of a Helm chart.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    HEADER, network,
    objects::{self, AGENT_IMAGE_REPOSITORY, IMAGE_REPOSITORY, NAME, REPLICAS, VERSION, Variant},
    policies, rules, text,
};

/// Marks in the objects and what takes their place (see [`text::fill`]). Some stand in a `range`: `$`, not `.`.
const EXPRESSIONS: &[(&str, &str)] = &[
    ("__labels__", "{{- include \"baton.labels\" $ | nindent COLUMN }}\n"),
    ("__rules__", "{{- include \"baton.rules\" $ | nindent COLUMN }}\n"),
    ("__resources__", "{{- toYaml .Values.resources | nindent COLUMN }}\n"),
    ("__namespaces__", "{{- range .Values.watchNamespaces }}\n- --namespace={{ . }}\n{{- end }}\n"),
    (
        "__agent__",
        "{{- if .Values.agent.image.repository }}\n- --agent-image={{ include \"baton.image\" (list $ .Values.agent.image) }}\n{{- end }}\n",
    ),
    // Marks that begin with `zz` are no first entry of an element of a list, whose dash would go with the line.
    (
        "zz__metrics_from__",
        "{{- with .Values.networkPolicy.metricsFrom }}\nfrom:\n{{- toYaml . | nindent COLUMN }}\n{{- end }}\n",
    ),
    (
        "__api_server_ports__",
        "{{- range .Values.networkPolicy.apiServerPorts }}\n- {port: {{ . }}, protocol: TCP}\n{{- end }}\n",
    ),
    (
        "zz__api_server_to__",
        "{{- with .Values.networkPolicy.apiServerCIDRs }}\nto:\n{{- range . }}\n- ipBlock: {cidr: {{ . | quote }}}\n{{- end }}\n{{- end }}\n",
    ),
    (
        "__served__",
        "{{- with .Values.watchNamespaces }}\nmatchExpressions:\n- key: kubernetes.io/metadata.name\n  operator: In\n  values: {{ toJson . }}\n{{- else }}\nmatchLabels: {}\n{{- end }}\n",
    ),
    ("__keep__", "{{- if .Values.crds.keep }}\nannotations:\n  helm.sh/resource-policy: keep\n{{- end }}\n"),
    ("__namespace__", "{{ $.Release.Namespace }}"),
    ("__watched__", "{{ . }}"),
    ("__named__", "{{ .Values.watchNamespaces | toJson }}"),
    ("__replicas__", "{{ .Values.replicaCount }}"),
    ("__image__", "{{ include \"baton.image\" (list $ .Values.image) }}"),
    ("__pull_policy__", "{{ .Values.image.pullPolicy }}"),
];

fn variant() -> Variant {
    Variant {
        labels: json!({"__labels__": ""}),
        namespace: json!("__namespace__"),
        replicas: json!("__replicas__"),
        image: json!("__image__"),
        image_pull_policy: json!("__pull_policy__"),
        resources: json!({"__resources__": ""}),
        arguments: vec![json!("__namespaces__"), json!("__agent__")],
    }
}

/// Path below `charts/baton` -> content.
pub fn files() -> anyhow::Result<BTreeMap<String, String>> {
    let variant = variant();
    let own = json!("__namespace__");
    let template = |objects: &[Value]| -> anyhow::Result<String> {
        let documents = objects.iter().map(text::yaml).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(text::fill(&text::documents(&documents), EXPRESSIONS))
    };
    let rules = json!(["__rules__"]);

    let operator_role = format!(
        "{{{{- if .Values.watchNamespaces }}}}\n\
         {{{{- range .Values.watchNamespaces }}}}\n---\n{}{{{{- end }}}}\n\
         {{{{- else }}}}\n{}{{{{- end }}}}\n",
        template(&[
            variant.role(WATCHER, &json!("__watched__"), &rules),
            variant.role_binding(WATCHER, &json!("__watched__")),
        ])?,
        template(&[variant.cluster_role(NAME, &rules), variant.cluster_role_binding(NAME)])?,
    );
    let own_role = template(&[variant.role(NAME, &own, &rules::own_namespace()), variant.role_binding(NAME, &own)])?;
    let only_with_crds = |text: String| format!("{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n");

    let mut listed = BTreeMap::new();
    for (file, mut crd) in objects::crds()? {
        crd["metadata"]["__keep__"] = json!("");
        listed.insert(format!("templates/crds/{file}"), only_with_crds(template(&[crd])?));
    }
    for (file, objects) in super::admission(&variant.labels, "__named__") {
        let text = template(&objects)?;
        let text = format!("{{{{- if and .Values.crds.install .Values.policies.enabled }}}}\n{text}{{{{- end }}}}\n");
        listed.insert(format!("templates/policies/{file}"), text);
    }

    // Agents go on without an operator, so that they keep their rights where the CRDs stay.
    let mut agent_role = variant.cluster_role(policies::AGENT_ROLE, &policies::agent_rules());
    agent_role["metadata"]["__keep__"] = json!("");
    let peers = network::Peers {
        metrics: vec![("zz__metrics_from__", json!(""))],
        api_server_ports: json!(["__api_server_ports__"]),
        api_server: vec![("zz__api_server_to__", json!(""))],
        namespaces: json!({"__served__": ""}),
    };
    let network_policy = format!(
        "{{{{- if .Values.networkPolicy.enabled }}}}\n{}{{{{- end }}}}\n",
        template(&[network::policy(&variant.labels, &own, &peers)])?
    );
    let flow = format!(
        "{{{{- if and .Values.crds.install .Values.flowSchema.enabled }}}}\n{}{{{{- end }}}}\n",
        template(&network::flow(&variant.labels))?
    );

    let files = [
        ("Chart.yaml", text::yaml(&chart())?),
        ("values.yaml", values()?),
        ("templates/_helpers.tpl", helpers()?),
        ("templates/rbac/agent_role.yaml", only_with_crds(template(&[agent_role])?)),
        ("templates/rbac/leader_election_role.yaml", own_role),
        ("templates/rbac/operator_role.yaml", operator_role),
        ("templates/rbac/service_account.yaml", template(&[variant.service_account()])?),
        ("templates/rbac/user_roles.yaml", only_with_crds(template(&variant.user_roles())?)),
        ("templates/flow.yaml", flow),
        ("templates/network_policy.yaml", network_policy),
        ("templates/deployment.yaml", template(&[variant.deployment()])?),
    ];
    let files = files.into_iter().map(|(path, content)| (path.to_owned(), content)).chain(listed);
    let mut files: BTreeMap<String, String> =
        files.map(|(path, content)| (path, format!("{HEADER}{content}"))).collect();
    files.insert("values.schema.json".to_owned(), format!("{:#}\n", values_schema()));
    Ok(files)
}

/// Name of the operator's Role in each watched namespace: not [`NAME`], which its own namespace has for the lock.
const WATCHER: &str = "baton-operator-rollouts";

fn chart() -> Value {
    json!({
        "apiVersion": "v2",
        "name": "baton",
        "description": "Batched, slot-by-slot rollouts for workloads that hold something",
        "type": "application",
        "version": VERSION,
        "appVersion": VERSION,
        "kubeVersion": ">=1.30.0-0",
        "keywords": ["rollout", "deployment", "operator"],
    })
}

/// Named templates: labels of every object, references to images, and the operator's rules, which a Role and a
/// ClusterRole share.
fn helpers() -> anyhow::Result<String> {
    let Value::Object(selector) = objects::selector_labels() else { anyhow::bail!("labels are an object") };
    let nodes = text::yaml(&rules::cluster_wide())?;
    Ok(format!(
        "{{{{- define \"baton.labels\" -}}}}\n{}\
         app.kubernetes.io/instance: {{{{ .Release.Name }}}}\n\
         app.kubernetes.io/managed-by: {{{{ .Release.Service }}}}\n\
         app.kubernetes.io/version: {{{{ .Chart.AppVersion | quote }}}}\n\
         helm.sh/chart: {{{{ .Chart.Name }}}}-{{{{ .Chart.Version | replace \"+\" \"_\" }}}}\n\
         {{{{- end }}}}\n\n\
         {{{{- /* The chart's appVersion is the tag unless the values name a tag or a digest. */}}}}\n\
         {{{{- define \"baton.image\" -}}}}\n\
         {{{{- $chart := (index . 0).Chart }}}}\n\
         {{{{- with index . 1 }}}}\n\
         {{{{- $tag := .tag | default (ternary \"\" $chart.AppVersion (not (empty .digest))) }}}}\n\
         {{{{- .repository }}}}{{{{ with $tag }}}}:{{{{ . }}}}{{{{ end }}}}{{{{ with .digest }}}}@{{{{ . }}}}{{{{ end }}}}\n\
         {{{{- end }}}}\n\
         {{{{- end }}}}\n\n\
         {{{{- /* Nodes are no part of any namespace: read where it serves the whole cluster. */}}}}\n\
         {{{{- define \"baton.rules\" -}}}}\n{}\
         {{{{- if not .Values.watchNamespaces }}}}\n{nodes}{{{{- end }}}}\n\
         {{{{- end }}}}\n",
        text::yaml(&selector)?,
        text::yaml(&rules::where_rollouts_are())?,
    ))
}

fn values() -> anyhow::Result<String> {
    let resources = text::yaml(&json!({"resources": objects::resources()}))?;
    Ok(format!(
        "\
# Replicas of the operator: one leads, the others take over.
replicaCount: {REPLICAS}

image:
  # Images are not published yet: `make image` builds them (docs/images.md).
  repository: {IMAGE_REPOSITORY}
  # If tag and digest are empty, the tag is the chart's appVersion.
  tag: \"\"
  # sha256:… pins the image, also if its tag moves.
  digest: \"\"
  pullPolicy: IfNotPresent

{resources}
# Serve only Rollouts in these namespaces, with a Role in each instead of a ClusterRole. All namespaces where empty.
watchNamespaces: []

agent:
  image:
    # For Pods whose template asks for the agent (baton.dev/agent: install or sidecar). Not published yet either. If the
    # repository is empty, Baton refuses such templates.
    repository: {AGENT_IMAGE_REPOSITORY}
    # If tag and digest are empty, the tag is the chart's appVersion. Running Pods keep the image that they have.
    tag: \"\"
    digest: \"\"

crds:
  # Install and upgrade the CustomResourceDefinitions with this release, and with them the roles of users and agents.
  install: true
  # Leave them, and with them every Rollout and its Pods, when the release is uninstalled.
  keep: true

policies:
  # Have the API server refuse what the hand-off of listeners does not allow (one Pod writing another's Leases), what the
  # operator itself does not do (Pods of no Rollout, others' Leases, anything in kube-* unless watchNamespaces names it), and
  # what only those may say who may run it themselves: the template, package, pins and hooks of a Rollout, and Jobs of hooks.
  # For the whole cluster, so only with crds.install.
  enabled: true

flowSchema:
  # Have the API server serve requests about Leases by ServiceAccounts, so those of agents, from a priority level of their
  # own. For the whole cluster, so only with crds.install.
  enabled: true

networkPolicy:
  # Let only probes and metrics in to the operator, and only the API server and Pods (strategy.update: HotReload) out.
  enabled: false
  # Peers of a NetworkPolicy that may read metrics; all if empty. The kubelet's probes pass either way.
  metricsFrom: []
  # Where the API server is, such as 10.0.0.1/32; anywhere if empty.
  apiServerCIDRs: []
  # Ports on which it listens, behind its Service.
  apiServerPorts: [443, 6443]
"
    ))
}

/// Refuses what is not a value of the chart, so that a typo is not silently ignored.
fn values_schema() -> Value {
    let object = |description: &str, properties: Value| json!({"type": "object", "description": description, "additionalProperties": false, "properties": properties});
    let quantities = json!({"type": "object", "additionalProperties": {"type": ["string", "number"]}});
    let flag = |description: &str| json!({"type": "boolean", "description": description});
    let tag = json!({"type": "string", "description": "If tag and digest are empty, the chart's appVersion."});
    let digest = json!({
        "type": "string",
        "pattern": "^(sha256:[0-9a-f]{64})?$",
        "description": "Pins the image: the reference becomes repository@digest, or repository:tag@digest.",
    });
    let mut schema = object(
        "Values of the chart baton.",
        json!({
            "global": {"type": "object", "description": "Helm's own, for charts that contain this one."},
            "replicaCount": {"type": "integer", "minimum": 0, "maximum": 10, "description": "Replicas of the operator."},
            "image": object("Image of the operator.", json!({
                "repository": {"type": "string", "minLength": 1, "description": "Registry and name."},
                "tag": tag,
                "digest": digest,
                "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"], "description": "When to pull it."},
            })),
            "resources": object("Of the operator's container.", json!({"requests": quantities, "limits": quantities})),
            "watchNamespaces": {
                "type": "array",
                "description": "Serve only Rollouts in these namespaces; all where empty.",
                "uniqueItems": true,
                "maxItems": 100,
                "items": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
            },
            "agent": object("The agent that Baton adds to Pods.", json!({
                "image": object("Its image.", json!({
                    "repository": {"type": "string", "description": "Registry and name; where empty templates that ask for it are refused."},
                    "tag": tag,
                    "digest": digest,
                })),
            })),
            "crds": object("CustomResourceDefinitions.", json!({
                "install": flag("Install and upgrade them with this release."),
                "keep": flag("Leave them when the release is uninstalled."),
            })),
            "policies": object("ValidatingAdmissionPolicies.", json!({
                "enabled": flag("Refuse what the hand-off of listeners does not allow, what the operator does not do, and Pods and hooks of those who may not run them; only with crds.install."),
            })),
        }),
    );
    schema["properties"]["flowSchema"] = object(
        "The API server's fairness.",
        json!({
            "enabled": flag("A priority level of their own for requests about Leases; only with crds.install."),
        }),
    );
    schema["properties"]["networkPolicy"] = object(
        "NetworkPolicy of the operator.",
        json!({
            "enabled": flag("Install it."),
            "metricsFrom": {"type": "array", "items": {"type": "object"}, "description": "Peers that may read metrics; all if empty."},
            "apiServerCIDRs": {"type": "array", "items": {"type": "string"}, "description": "Where the API server is; anywhere if empty."},
            "apiServerPorts": {
                "type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1, "maximum": 65535},
                "description": "Ports on which it listens, behind its Service.",
            },
        }),
    );
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema
}
