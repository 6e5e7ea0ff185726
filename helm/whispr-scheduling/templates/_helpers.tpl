{{/* Every resource of a release begins with its name, so that two releases (blue and green) stand side by side. */}}
{{- define "scheduling.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Selector labels of a component: (list $ "api"). They never change, since selectors cannot. */}}
{{- define "scheduling.selector" -}}
app.kubernetes.io/name: whispr-scheduling
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* As above for what blue and green share: policies of the mesh and of the network hold for every release here. */}}
{{- define "scheduling.sharedSelector" -}}
app.kubernetes.io/name: whispr-scheduling
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{/* Labels of a resource: (list $ "component"). `app` and `version` are what Kiali and the mesh's telemetry go by. */}}
{{- define "scheduling.labels" -}}
{{ include "scheduling.selector" . }}
app.kubernetes.io/version: {{ include "scheduling.version" (index . 0) | quote }}
app.kubernetes.io/part-of: whispr
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end -}}

{{- define "scheduling.version" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}

{{- define "scheduling.image" -}}
{{- .Values.image.repository -}}:{{ include "scheduling.version" . }}{{ with .Values.image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Identity of a service account in this namespace, as AuthorizationPolicies write it: (list $ "account"). */}}
{{- define "scheduling.principal" -}}
{{ (index . 0).Values.mesh.trustDomain }}/ns/{{ (index . 0).Release.Namespace }}/sa/{{ index . 1 }}
{{- end -}}

{{/* What the target table and the access policy say, made by helm/generate.py. */}}
{{- define "scheduling.mesh" -}}
{{ .Files.Get "files/mesh.yaml" }}
{{- end -}}

{{/* Host of a sibling: (list $ "messaging"); the one place that both the processes and the mesh go by. */}}
{{- define "scheduling.siblingAddress" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- get ($root.Values.siblings.addresses | default dict) $name | default (printf "%s-service.%s.svc.%s:%d" $name $root.Release.Namespace $root.Values.mesh.clusterDomain (int $root.Values.siblings.port)) -}}
{{- end -}}
{{- define "scheduling.siblingHost" -}}
{{- include "scheduling.siblingAddress" . | splitList ":" | first -}}
{{- end -}}
{{- define "scheduling.siblingPort" -}}
{{- include "scheduling.siblingAddress" . | splitList ":" | last -}}
{{- end -}}

{{/* Host of our own API inside the cluster. */}}
{{- define "scheduling.host" -}}
{{ .Values.api.service.name }}.{{ .Release.Namespace }}.svc.{{ .Values.mesh.clusterDomain }}
{{- end -}}

{{/* Whole seconds of a duration as the settings write it: 500ms (rounded up), 30s, 5m, 24h, 7d. */}}
{{- define "scheduling.seconds" -}}
{{- $units := dict "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- if hasSuffix "ms" . -}}
{{- ceil (divf (float64 (trimSuffix "ms" .)) 1000.0) | int64 -}}
{{- else -}}
{{- $unit := . | trunc -1 -}}
{{- ceil (mulf (float64 (trimSuffix $unit .)) (float64 (get $units $unit))) | int64 -}}
{{- end -}}
{{- end -}}

{{/* The environment of a process: (list $ (list further settings …)). Later settings win over earlier ones. */}}
{{- define "scheduling.env" -}}
{{- $root := index . 0 -}}
{{- $settings := deepCopy $root.Values.settings -}}
{{- range index . 1 }}{{ $settings = merge (deepCopy (. | default dict)) $settings }}{{ end -}}
- name: SCHEDULING_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "scheduling.secret" $root }}
      key: {{ $root.Values.secrets.databaseUrlKey }}
- name: SCHEDULING_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "scheduling.secret" $root }}
      key: {{ $root.Values.secrets.redisUrlKey }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
- name: SCHEDULING_{{ upper $name }}
  value: {{ kindIs "float64" $value | ternary (int64 $value) $value | toString | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "scheduling.secret" -}}
{{- if .Values.secrets.externalSecret.enabled -}}
{{ include "scheduling.fullname" . }}-connections
{{- else -}}
{{ required "secrets.existingSecret is needed: a Secret with the URLs of PostgreSQL and Redis" .Values.secrets.existingSecret }}
{{- end -}}
{{- end -}}

{{/* Settings of a server that the chart decides. */}}
{{- define "scheduling.apiSettings" -}}
grpc_listen: 0.0.0.0:{{ .Values.ports.grpc }}
metrics_listen: 0.0.0.0:{{ .Values.ports.metrics }}
{{- if .Values.istio.enabled }}
identity: mesh
identity_self: spiffe://{{ include "scheduling.principal" (list . .Values.serviceAccounts.api) }}
policy_file: /etc/scheduling/policy/{{ .Values.policy.key }}
{{- else if .Values.api.exposedWithoutIdentity }}
identity_exposed: true
{{- else }}
{{- fail "without Istio nobody tells who calls: set api.exposedWithoutIdentity to true if whoever reaches the API may do all" }}
{{- end }}
{{- end -}}

{{/* Settings of a worker that the chart decides. */}}
{{- define "scheduling.workerSettings" -}}
metrics_listen: 0.0.0.0:{{ .Values.ports.metrics }}
{{- range $name, $_ := (include "scheduling.mesh" . | fromYaml).siblings }}
{{ $name }}_address: {{ include "scheduling.siblingAddress" (list $ $name) }}
{{- end }}
{{- end -}}

{{/* Labels that only pods carry: (list $ "component"). Kiali and the mesh group by app and version. */}}
{{- define "scheduling.podLabels" -}}
{{- $root := index . 0 -}}
{{- if ne (index . 1) "migrate" }}
scheduling.whispr/metrics: "true"
{{- end }}
app: {{ eq (index . 1) "api" | ternary $root.Values.api.service.name (printf "scheduling-%s" (index . 1)) }}
version: {{ include "scheduling.version" $root | quote }}
{{- if $root.Values.istio.enabled }}
sidecar.istio.io/inject: {{ ne (index . 1) "migrate" | quote }}
{{- end }}
{{- with $root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "scheduling.podAnnotations" -}}
{{- if .Values.istio.enabled -}}
# No process starts before its sidecar takes connections, and no sidecar ends before its process is done.
proxy.istio.io/config: |
  holdApplicationUntilProxyStarts: true
  proxyMetadata:
    EXIT_ON_ZERO_ACTIVE_CONNECTIONS: "true"
{{- if .Values.istio.nativeSidecar }}
sidecar.istio.io/nativeSidecar: "true"
{{- end }}
# STRICT would refuse the kubelet: its probes go through the sidecar's agent.
sidecar.istio.io/rewriteAppHTTPProbers: "true"
sidecar.istio.io/proxyCPU: {{ .Values.istio.sidecar.cpu | quote }}
sidecar.istio.io/proxyMemory: {{ .Values.istio.sidecar.memory | quote }}
sidecar.istio.io/proxyCPULimit: {{ .Values.istio.sidecar.cpuLimit | quote }}
sidecar.istio.io/proxyMemoryLimit: {{ .Values.istio.sidecar.memoryLimit | quote }}
{{- if eq .Values.istio.datastores "exclude" }}
# PostgreSQL and Redis have TLS and pools of their own, and the sidecar is no part of their way.
traffic.sidecar.istio.io/excludeOutboundPorts: "{{ .Values.postgresql.port }},{{ .Values.redis.port }}"
{{- end }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "scheduling.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "scheduling.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: ["ALL"]
{{- end -}}

{{/* Spread over zones and nodes: (list $ "component" matchLabels-text). */}}
{{- define "scheduling.spread" -}}
{{- $root := index . 0 -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $root.Values.spread }}
  labelSelector:
    matchLabels:
      {{- index $ 1 | nindent 6 }}
  matchLabelKeys: ["pod-template-hash"]
{{- end }}
{{- end -}}

{{/* What pods of every kind share: scheduling of pods, and a folder to write in. */}}
{{- define "scheduling.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "scheduling.liveness" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  # The event loop only: a restart would not bring PostgreSQL back.
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- define "scheduling.policy" -}}
{{ .Values.policy.existingConfigMap | default (printf "%s-policy" (include "scheduling.fullname" .)) }}
{{- end -}}
