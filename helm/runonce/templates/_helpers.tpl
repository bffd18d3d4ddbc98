{{/*
Names and labels of everything, and nothing else.

runonce.name           the chart's name, or nameOverride
runonce.fullname       name of all objects of this release
runonce.labels         every object's labels; takes (list . COMPONENT)
runonce.selector       the part of them that never changes; takes (list . COMPONENT)
runonce.image          reference of an image; takes (list . IMAGE)
runonce.serviceAccount the controller's service account
runonce.rules          what the controller may do where Experiments are; docs/security.md gives each its reason
*/}}

{{- define "runonce.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "runonce.fullname" -}}
{{- $name := include "runonce.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "runonce.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "runonce.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "runonce.labels" -}}
{{- $root := index . 0 -}}
{{ include "runonce.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "runonce.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "runonce.serviceAccount" -}}
{{ .Values.controller.serviceAccount.name | default (include "runonce.fullname" .) }}
{{- end }}

{{- define "runonce.rules" -}}
- apiGroups: [runonce.dev]
  resources: [experiments]
  verbs: [list, watch]
- apiGroups: [runonce.dev]
  resources: [experiments/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [services]
  verbs: [create]
- apiGroups: [""]
  resources: [services]
  resourceNames: [runonce-pods]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
