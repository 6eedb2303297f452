{{/* What no schema can say: values that do not go together. */}}
{{- define "bioverify.checkValues" -}}
{{- $verifiers := include "bioverify.verifiers" . | fromJson -}}
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
