{{/*
runonce.config   the controller's configuration; its Python model refuses what it does not know
*/}}
{{- define "runonce.config" -}}
cluster: {{ .Values.clusterName | default .Release.Name | toJson }}
namespaces: {{ toJson .Values.namespaces }}
lease: {{ include "runonce.fullname" . }}
stores: {{ toJson .Values.stores }}
profiles: {{ toJson .Values.profiles }}
port: {{ .Values.controller.port }}
logLevel: {{ .Values.controller.logLevel }}
workers: {{ .Values.controller.workers }}
{{- if .Values.signing.secretName }}
signing: {keyFile: /etc/runonce-signing/key, required: {{ .Values.signing.requireSigned }}}
{{- end }}
workerImage: {{ include "runonce.image" (list . .Values.image.worker) | toJson }}
{{- end }}
