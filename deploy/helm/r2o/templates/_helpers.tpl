{{- define "r2o.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "r2o.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "r2o.labels" -}}
{{ include "r2o.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: [root, name]. */}}
{{- define "r2o.image" -}}
{{- $root := index . 0 -}}
{{- printf "%s/%s:%s" $root.Values.image.registry (index . 1) ($root.Values.image.tag | default $root.Chart.AppVersion) | quote -}}
{{- end -}}

{{- define "r2o.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "r2o.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "r2o.tls" -}}
{{- if ne .Values.tls.mode "none" }}true{{ end -}}
{{- end -}}

{{- define "r2o.scheme" -}}
{{- if include "r2o.tls" . }}https{{ else }}http{{ end -}}
{{- end -}}

{{- define "r2o.serverSecret" -}}
{{- if eq .Values.tls.mode "secret" }}{{ .Values.tls.secret.server }}{{ else }}{{ include "r2o.fullname" . }}-tls{{ end -}}
{{- end -}}

{{- define "r2o.clientSecret" -}}
{{- if eq .Values.tls.mode "secret" }}{{ .Values.tls.secret.client }}{{ else }}{{ include "r2o.fullname" . }}-client-tls{{ end -}}
{{- end -}}

{{- define "r2o.tokensSecret" -}}
{{- if eq .Values.tokens.mode "secret" }}{{ .Values.tokens.secret }}{{ else }}{{ include "r2o.fullname" . }}-tokens{{ end -}}
{{- end -}}

{{/* The names that the coordinator's certificate is for, as a JSON list under `names`. */}}
{{- define "r2o.names" -}}
{{- $name := printf "%s-coordinator" (include "r2o.fullname" .) -}}
{{- $service := printf "%s.%s" $name .Release.Namespace -}}
{{- dict "names" (concat (list $name $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service) "localhost") .Values.tls.names) | toJson -}}
{{- end -}}

{{/* What a restricted pod says of itself. */}}
{{- define "r2o.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "r2o.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What every pod begins with. */}}
{{- define "r2o.pod" -}}
serviceAccountName: {{ include "r2o.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "r2o.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where a pod runs, from the values of its part. */}}
{{- define "r2o.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* How a client of the coordinator finds it and shows itself: [root, role]. */}}
{{- define "r2o.clientEnv" -}}
{{- $root := index . 0 -}}
- name: R2O_COORDINATOR
  value: {{ printf "%s://%s-coordinator:%v" (include "r2o.scheme" $root) (include "r2o.fullname" $root) $root.Values.service.grpc | quote }}
{{- if ne $root.Values.tokens.mode "none" }}
- name: R2O_TOKEN_FILE
  value: /etc/r2o/token/{{ index . 1 }}
{{- end }}
{{- if include "r2o.tls" $root }}
- name: R2O_TLS_CA
  value: /etc/r2o/ca/ca.crt
{{- if $root.Values.tls.clients }}
- name: R2O_TLS_CERT
  value: /etc/r2o/tls/tls.crt
- name: R2O_TLS_KEY
  value: /etc/r2o/tls/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{- define "r2o.clientMounts" -}}
{{- if ne .Values.tokens.mode "none" }}
- {name: token, mountPath: /etc/r2o/token, readOnly: true}
{{- end }}
{{- if include "r2o.tls" . }}
- {name: ca, mountPath: /etc/r2o/ca, readOnly: true}
{{- if .Values.tls.clients }}
- {name: tls, mountPath: /etc/r2o/tls, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "r2o.clientVolumes" -}}
{{- $root := index . 0 -}}
{{- if ne $root.Values.tokens.mode "none" }}
- name: token
  secret:
    secretName: {{ include "r2o.tokensSecret" $root }}
    defaultMode: 0440
    items: [{key: {{ index . 1 }}, path: {{ index . 1 }}}]
{{- end }}
{{- if include "r2o.tls" $root }}
- name: ca
  secret:
    secretName: {{ include "r2o.serverSecret" $root }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}]
{{- if $root.Values.tls.clients }}
- name: tls
  secret:
    secretName: {{ include "r2o.clientSecret" $root }}
    defaultMode: 0440
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- end }}
{{- end -}}

{{/* Storage and traces: what coordinator and workers have in common. [root, part] */}}
{{- define "r2o.commonEnv" -}}
{{- $root := index . 0 -}}
{{- range $name, $value := $root.Values.storage.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with $root.Values.telemetry.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: grpc
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $root.Values.telemetry.ratio | quote }}
{{- with $root.Values.telemetry.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: headers}}
{{- end }}
- name: OTEL_SERVICE_NAME
  value: r2o-{{ index $ 1 }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ $root.Release.Namespace }},service.instance.id=$(POD_NAME)
{{- end }}
{{- end -}}

{{- define "r2o.storageEnvFrom" -}}
{{- with .Values.storage.secret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end -}}

{{/* The shared volume, if there is one. */}}
{{- define "r2o.sharedVolume" -}}
{{- if eq .Values.state.kind "shared" }}
- name: state
  {{- if .Values.state.volume.hostPath }}
  hostPath:
    path: {{ .Values.state.volume.hostPath }}
    type: Directory
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ .Values.state.volume.claim | default (printf "%s-state" (include "r2o.fullname" .)) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Whether the cluster's probes speak gRPC: from 1.24 on, and not through TLS. */}}
{{- define "r2o.grpcProbes" -}}
{{- if and (not (include "r2o.tls" .)) (semverCompare ">=1.24.0-0" .Capabilities.KubeVersion.Version) }}true{{ end -}}
{{- end -}}

{{/* A worker serves its web port with the certificate that it shows to the coordinator, if it has one. */}}
{{- define "r2o.workerScheme" -}}
{{- if and (include "r2o.tls" .) .Values.tls.clients }}https{{ else }}http{{ end -}}
{{- end -}}
