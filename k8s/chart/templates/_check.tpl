{{/* What no schema can say: values that do not go together. */}}
{{- define "bioverify.checkValues" -}}
{{- $verifiers := include "bioverify.verifiers" . | fromJson -}}
{{- $fullname := include "bioverify.fullname" . -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $fullname) }}{{ fail (printf "%s: a service's name begins with a letter and has no dot. Name the release otherwise, or set fullnameOverride" $fullname) }}{{ end -}}
{{- range $name, $_ := $verifiers -}}
{{- if has $name (list "aggregator" "gateway" "cache" "artifacts" "test") }}{{ fail (printf "verifiers.%s: the chart has a part of this name already" $name) }}{{ end -}}
{{- $longest := printf "%s-headless" (include "bioverify.part" (dict "root" $ "name" $name)) -}}
{{- if gt (len $longest) 63 }}{{ fail (printf "verifiers.%s: %s is longer than the 63 characters of a service's name. Set a shorter fullnameOverride" $name $longest) }}{{ end -}}
{{- end -}}
{{- if not $verifiers }}{{ fail "verifiers: none is enabled; the aggregator needs at least one" }}{{ end -}}
{{- if .Values.aggregator.consensus -}}
{{- range list "esm_mlp" "analogy" -}}
{{- if not (hasKey $verifiers .) }}{{ fail (printf "aggregator.consensus is made of esm_mlp and analogy, and verifiers.%s is not enabled: set aggregator.consensus to false" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with .Values.artifacts -}}
{{- if and (eq .source "pull") (not .pull.url) }}{{ fail "artifacts.pull.url: needed with artifacts.source pull, for instance s3://bucket/prefix" }}{{ end -}}
{{- if and (eq .source "claim") (not .existingClaim) }}{{ fail "artifacts.existingClaim: needed with artifacts.source claim" }}{{ end -}}
{{- end -}}
{{- with .Values.gateway -}}
{{- if and .keys.openToAnyone .keys.existingSecret }}{{ fail "gateway.keys: either existingSecret or openToAnyone" }}{{ end -}}
{{- if and .enabled .jobs.enabled (or (gt (int .replicas) 1) (ne .autoscaling.kind "none")) }}{{ fail "gateway.jobs: one pod keeps the jobs. Set gateway.jobs.enabled to false, or replicas to 1 and autoscaling.kind to none" }}{{ end -}}
{{- if and .tls.enabled (not .tls.existingSecret) (not $.Values.certManager.issuer) }}{{ fail "gateway.tls: needs existingSecret, or certManager.issuer" }}{{ end -}}
{{- if and .ingress.enabled (not .ingress.host) }}{{ fail "gateway.ingress.host: needed with gateway.ingress.enabled" }}{{ end -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) (not .Values.certManager.issuer) }}{{ fail "tls: needs existingSecret, or certManager.issuer" }}{{ end -}}
{{- range $name, $settings := $verifiers -}}
{{- if lt (int $settings.autoscaling.maxReplicas) (int $settings.autoscaling.minReplicas) }}{{ fail (printf "verifiers.%s.autoscaling: maxReplicas is below minReplicas" $name) }}{{ end -}}
{{- end -}}
{{- end }}
