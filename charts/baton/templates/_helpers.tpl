# Generated from src/operator/manifests by `make generate`; do not edit.
{{- define "baton.labels" -}}
app.kubernetes.io/component: operator
app.kubernetes.io/name: baton
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The chart's appVersion is the tag unless the values name a tag or a digest. */}}
{{- define "baton.image" -}}
{{- $chart := (index . 0).Chart }}
{{- with index . 1 }}
{{- $tag := .tag | default (ternary "" $chart.AppVersion (not (empty .digest))) }}
{{- .repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{- /* Nodes are no part of any namespace: read where it serves the whole cluster. */}}
{{- define "baton.rules" -}}
- apiGroups:
  - baton.dev
  resources:
  - listenersets
  - rollouts
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - baton.dev
  resources:
  - listenersets/status
  - rollouts/status
  verbs:
  - update
- apiGroups:
  - baton.dev
  resources:
  - rollouts/finalizers
  verbs:
  - update
- apiGroups:
  - ""
  resources:
  - pods
  verbs:
  - get
  - list
  - watch
  - create
  - delete
  - patch
- apiGroups:
  - ""
  resources:
  - pods/resize
  - pods/status
  verbs:
  - patch
- apiGroups:
  - apps
  resources:
  - controllerrevisions
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - ""
  resources:
  - services
  verbs:
  - get
  - list
  - watch
  - patch
- apiGroups:
  - discovery.k8s.io
  resources:
  - endpointslices
  verbs:
  - list
  - watch
- apiGroups:
  - ""
  resources:
  - configmaps
  verbs:
  - list
  - watch
- apiGroups:
  - batch
  resources:
  - jobs
  verbs:
  - get
  - list
  - watch
  - create
  - delete
- apiGroups:
  - ""
  resources:
  - events
  verbs:
  - create
{{- if not .Values.watchNamespaces }}
- apiGroups:
  - ""
  resources:
  - nodes
  verbs:
  - list
  - watch
{{- end }}
{{- end }}
