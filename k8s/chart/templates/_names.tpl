{{/* A name of at most 32 characters. What is cut leaves a hash, so that two long names stay two; the end, by which it is known, stays. */}}
{{- define "bioverify.short" -}}
{{- if gt (len .) 32 -}}
{{- printf "%s-%s-%s" (trunc 15 . | trimSuffix "-") (sha256sum . | trunc 6) (trunc -9 . | trimAll "-") -}}
{{- else -}}
{{- . | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "bioverify.name" -}}
{{- include "bioverify.short" (default .Chart.Name .Values.nameOverride) -}}
{{- end }}

{{/* Short enough for the longest name behind it, "-transcriptformer-pmi-headless", within the 63 of a label. */}}
{{- define "bioverify.fullname" -}}
{{- $name := include "bioverify.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- include "bioverify.short" (default $whole .Values.fullnameOverride) -}}
{{- end }}

{{/* Names of Kubernetes know no underscore. */}}
{{- define "bioverify.part" -}}
{{- printf "%s-%s" (include "bioverify.fullname" .root) (.name | replace "_" "-") -}}
{{- end }}

{{/* Where gRPC finds every pod of a service, to spread calls over them: dns:///… */}}
{{- define "bioverify.target" -}}
{{- printf "dns:///%s-headless.%s.svc.%s:%d" (include "bioverify.part" .) .root.Release.Namespace .root.Values.clusterDomain (int .port) -}}
{{- end }}

{{- define "bioverify.selector" -}}
app.kubernetes.io/name: {{ include "bioverify.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .verifier }}
bioverify.io/verifier: {{ . }}
{{- end }}
{{- end }}

{{- define "bioverify.labels" -}}
{{ include "bioverify.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* root, image, and name, which is that of an image of ours unless it has a folder of its own. */}}
{{- define "bioverify.image" -}}
{{- $images := .root.Values.images -}}
{{- $ours := ternary .name (printf "%s%s" $images.prefix (.name | replace "_" "-")) (contains "/" .name) -}}
{{- $repository := default $ours .image.repository -}}
{{- with .image.registry | default (ternary "" $images.registry (not (empty .image.repository))) -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default (default .root.Chart.AppVersion $images.tag) .image.tag) -}}
{{- end -}}
{{- end }}

{{- define "bioverify.serviceAccount" -}}
{{- default (ternary (include "bioverify.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{/* The enabled verifiers with their defaults filled in, as JSON: name → settings. */}}
{{- define "bioverify.verifiers" -}}
{{- $found := dict -}}
{{- range $name, $own := .Values.verifiers -}}
{{- $settings := mergeOverwrite (deepCopy $.Values.verifierDefaults) (deepCopy (default dict $own)) -}}
{{- if $settings.enabled -}}
{{- $_ := set $found $name $settings -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{/* The secret with the certificate of all services; empty without TLS. */}}
{{- define "bioverify.tlsSecret" -}}
{{- if .Values.tls.enabled -}}
{{- default (printf "%s-tls" (include "bioverify.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}
{{- end }}

{{- define "bioverify.gatewayTlsSecret" -}}
{{- if .Values.gateway.tls.enabled -}}
{{- default (printf "%s-gateway-tls" (include "bioverify.fullname" .)) .Values.gateway.tls.existingSecret -}}
{{- end -}}
{{- end }}

{{- define "bioverify.keysSecret" -}}
{{- if not .Values.gateway.keys.openToAnyone -}}
{{- default (printf "%s-keys" (include "bioverify.fullname" .)) .Values.gateway.keys.existingSecret -}}
{{- end -}}
{{- end }}

{{- define "bioverify.artifactsClaim" -}}
{{- default (printf "%s-artifacts" (include "bioverify.fullname" .)) .Values.artifacts.existingClaim -}}
{{- end }}

{{/* Whether there is a Valkey of the chart's. */}}
{{- define "bioverify.hasValkey" -}}
{{- if and .Values.valkey.enabled (not (include "bioverify.hasExternalRedis" .)) }}true{{ end -}}
{{- end }}

{{- define "bioverify.hasExternalRedis" -}}
{{- with .Values.externalRedis }}{{ if or .url .existingSecret }}true{{ end }}{{ end -}}
{{- end }}

{{/* host:port to listen on, port given. */}}
{{- define "bioverify.listen" -}}
{{- printf "%s:%d" .root.Values.listenAddress (int .port) -}}
{{- end }}
