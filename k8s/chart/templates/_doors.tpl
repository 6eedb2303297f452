{{/*
How a part is reached from outside: an Ingress, and a route of the Gateway API. root, name, component, verifier, settings
(ingress, route), portName and servicePort of its service, routeKind.
*/}}
{{- define "bioverify.doors" -}}
{{- $labels := dict "root" .root "component" .component "verifier" .verifier -}}
{{- $name := include "bioverify.part" . -}}
{{- $portName := .portName -}}
{{- with .settings.ingress }}
{{- if .enabled }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $name }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  rules:
    - host: {{ .host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ $name }}
                port: {name: {{ $portName }}}
  {{- if .tlsSecret }}
  tls:
    - hosts: [{{ .host | quote }}]
      secretName: {{ .tlsSecret }}
  {{- end }}
{{- end }}
{{- end }}
{{- $port := int .servicePort }}
{{- $kind := .routeKind }}
{{- with .settings.route }}
{{- if .parentRefs }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs: {{- toYaml .parentRefs | nindent 4 }}
  {{- with .hostnames }}
  hostnames: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - backendRefs:
        - {name: {{ $name }}, port: {{ $port }}}
{{- end }}
{{- end }}
{{- end }}
