{{/*
What the operator does in the namespaces that it serves: exactly that, for its tests run under these rules, and another
compares them with its own list. No Secrets: the kubelet mounts them into runner pods.
*/}}
{{- define "vr.rules" -}}
# delete: for ttlSecondsAfterFinished.
- apiGroups: [videorestoration.dev]
  resources: [videorestorations]
  verbs: [get, list, watch, delete]
- apiGroups: [videorestoration.dev]
  resources: [videorestorations/status, restorationprofiles/status]
  verbs: [patch]
- apiGroups: [videorestoration.dev]
  resources: [restorationprofiles]
  verbs: [list, watch]
# patch: for the Job's own time to live, once its end is recorded.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Snapshots, read and created by name: no list, so that other ConfigMaps stay unseen.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
# Why a pod is missing is said in Events only.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Events of our own; patch counts up the series of one that happens again.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.kueue.readWorkloads }}
# Why a Job is held back.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
{{- end }}

{{/* What has no namespace. */}}
{{- define "vr.clusterRules" -}}
{{- if .Values.scope.clusterProfiles -}}
- apiGroups: [videorestoration.dev]
  resources: [clusterrestorationprofiles]
  verbs: [list, watch]
- apiGroups: [videorestoration.dev]
  resources: [clusterrestorationprofiles/status]
  verbs: [patch]
{{- end }}
{{- if not .Values.scope.namespaces }}
# Whether the node of a pod that does not end is still there.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
{{- end }}
{{- if .Values.scope.namespaceSelector }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}

{{- define "vr.subjects" -}}
- kind: ServiceAccount
  name: {{ include "vr.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}
