{{/* The gateway's settings file. */}}
{{- define "bioverify.gatewaySettings" -}}
{{- $gateway := .Values.gateway -}}
{{- $settings := dict "listen" (include "bioverify.listen" (dict "root" . "port" 50059)) "aggregator" (include "bioverify.target" (dict "root" . "name" "aggregator" "port" 50050)) -}}
{{- if $gateway.keys.openToAnyone }}{{ $_ := set $settings "open_to_anyone" true }}{{ else }}{{ $_ := set $settings "keys_file" "/etc/bioverify/keys/keys.yaml" }}{{ end -}}
{{- if $gateway.jobs.enabled }}{{ $_ := set $settings "folder" "/var/lib/bioverify/gateway" }}{{ end -}}
{{- if $gateway.runsClaim }}{{ $_ := set $settings "runs_folder" "/var/lib/bioverify/runs" }}{{ end -}}
{{- if $gateway.tls.enabled -}}
{{- $_ := set $settings "tls_certificate" "/etc/bioverify/gateway-tls/tls.crt" -}}
{{- $_ := set $settings "tls_key" "/etc/bioverify/gateway-tls/tls.key" -}}
{{- end -}}
{{- range $name, $value := $gateway.settings -}}
{{- $_ := set $settings $name (ternary (int64 $value) $value (and (kindIs "float64" $value) (eq (float64 (int64 $value)) $value))) -}}
{{- end -}}
{{- if $gateway.keys.openToAnyone -}}
{{- /* Without keys the gateway answers to its own names only: those of its service, of the ingress and of the route are. */ -}}
{{- $name := include "bioverify.part" (dict "root" . "name" "gateway") -}}
{{- $domain := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts := list $name $domain (printf "%s.svc" $domain) (printf "%s.svc.%s" $domain .Values.clusterDomain) -}}
{{- if and $gateway.ingress.enabled $gateway.ingress.host }}{{ $hosts = append $hosts $gateway.ingress.host }}{{ end -}}
{{- if $gateway.route.parentRefs }}{{ $hosts = concat $hosts $gateway.route.hostnames }}{{ end -}}
{{- $_ := set $settings "allowed_hosts" (concat $hosts (default list $gateway.settings.allowed_hosts)) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end }}

{{- define "bioverify.httpProbe" -}}
httpGet: {path: {{ .path }}, port: http, scheme: {{ ternary "HTTPS" "HTTP" .tls }}}
{{- end }}

{{- define "bioverify.httpProbes" -}}
startupProbe:
  {{- include "bioverify.httpProbe" (dict "path" "/healthz" "tls" .tls) | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  {{- include "bioverify.httpProbe" (dict "path" "/readyz" "tls" .tls) | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  {{- include "bioverify.httpProbe" (dict "path" "/healthz" "tls" .tls) | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
