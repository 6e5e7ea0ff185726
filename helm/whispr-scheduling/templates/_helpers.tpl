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
