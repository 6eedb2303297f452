{{/* What no schema can say: values that do not go together. */}}
{{- define "bioverify.checkValues" -}}
{{- $verifiers := include "bioverify.verifiers" . | fromJson -}}
{{- $fullname := include "bioverify.fullname" . -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $fullname) }}{{ fail (printf "%s: a service's name begins with a letter and has no dot. Name the release otherwise, or set fullnameOverride" $fullname) }}{{ end -}}
{{- range $name, $_ := $verifiers -}}
{{- if hasSuffix "_headless" $name }}{{ fail (printf "verifiers.%s: a name that ends with _headless is taken by the chart's second service of another verifier" $name) }}{{ end -}}
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
{{- $ranges := .service.loadBalancerSourceRanges -}}
{{- if and .enabled .keys.openToAnyone (ne .service.type "ClusterIP") (or (eq .service.type "NodePort") (empty $ranges) (has "0.0.0.0/0" $ranges) (has "::/0" $ranges)) }}{{ fail (printf "gateway.keys.openToAnyone: with gateway.service.type %s whoever reaches the cluster's addresses could score without a key. Ask for keys, or take a LoadBalancer with the networks in gateway.service.loadBalancerSourceRanges" .service.type) }}{{ end -}}
{{- if and (ne .service.type "LoadBalancer") (or $ranges .service.loadBalancerClass) }}{{ fail "gateway.service: loadBalancerSourceRanges and loadBalancerClass are for type LoadBalancer; gateway.service.type is another" }}{{ end -}}
{{- if and .tls.enabled (not .tls.existingSecret) (not $.Values.certManager.issuer) }}{{ fail "gateway.tls: needs existingSecret, or certManager.issuer" }}{{ end -}}
{{- if and .ingress.enabled (not .ingress.host) }}{{ fail "gateway.ingress.host: needed with gateway.ingress.enabled" }}{{ end -}}
{{- end -}}
{{- with .Values.aggregator.ingress -}}
{{- if and .enabled (not .host) }}{{ fail "aggregator.ingress.host: needed with aggregator.ingress.enabled" }}{{ end -}}
{{- end -}}
{{- with .Values.externalRedis -}}
{{- if and .url .existingSecret }}{{ fail "externalRedis: either url, or existingSecret with the whole address" }}{{ end -}}
{{- if and .passwordSecret (not .url) (not .existingSecret) }}{{ fail "externalRedis.passwordSecret: needs externalRedis.url, the address that the password is for" }}{{ end -}}
{{- end -}}
{{- if and .Values.caBundle.configMap .Values.caBundle.secret }}{{ fail "caBundle: either configMap or secret" }}{{ end -}}
{{- if and .Values.monitoring.alerts (not (contains "bioverify" $fullname)) }}{{ fail (printf "monitoring.alerts: the rules know services by bioverify in their names, and these begin with %s. Set a fullnameOverride that has it" $fullname) }}{{ end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) (not .Values.certManager.issuer) }}{{ fail "tls: needs existingSecret, or certManager.issuer" }}{{ end -}}
{{- range $name, $settings := $verifiers -}}
{{- if lt (int $settings.autoscaling.maxReplicas) (int $settings.autoscaling.minReplicas) }}{{ fail (printf "verifiers.%s.autoscaling: maxReplicas is below minReplicas" $name) }}{{ end -}}
{{- end -}}
{{- end }}
