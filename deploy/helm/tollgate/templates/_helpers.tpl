{{- define "tollgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tollgate.meta" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "tollgate.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What needs a restart: the rest of the configuration is taken while it runs. */}}
{{- define "tollgate.listen" -}}
listen:
  grpc: 0.0.0.0:8081
  http: 0.0.0.0:8080
  drain: {{ .Values.drain }}
  {{- with .Values.tls }}{{ if .secret }}
  tls:
    cert: /etc/tollgate-tls/tls.crt
    key: /etc/tollgate-tls/tls.key
    {{- if .clientCA }}
    client_ca: /etc/tollgate-tls/ca.crt
    {{- end }}
  {{- end }}{{ end }}
{{- end }}

{{/* Several pods with a store each would each know other consumers. */}}
{{- define "tollgate.check" -}}
{{- $source := ternary (dig "consumers" "source" "embedded" .Values.config) "file" (hasKey .Values.config "consumers") }}
{{- if and (eq $source "embedded") (or .Values.autoscaling.enabled (ne (int .Values.replicas) 1)) }}
{{- fail "config.consumers.source embedded is one pod's own store: set replicas: 1, or take consumers from a file or a database" }}
{{- end }}
{{- if and .Values.persistence.enabled (or .Values.autoscaling.enabled (ne (int .Values.replicas) 1)) }}
{{- fail "persistence is one volume for one pod: set replicas: 1, or switch it off" }}
{{- end }}
{{- end }}
