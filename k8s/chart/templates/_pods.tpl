{{/*
What a pod is to be, as JSON: what holds for every pod (values.pods), and over it what is its own. Lists are joined; a
null takes an entry away; empty is unset.
*/}}
{{- define "bioverify.settings" -}}
{{- $given := list (default dict .root.Values.pods) .own -}}
{{- $found := dict "env" list "envFrom" list "extraVolumes" list "extraVolumeMounts" list "tolerations" list -}}
{{- range $name := list "podLabels" "podAnnotations" "nodeSelector" "podSecurityContext" "containerSecurityContext" -}}
{{- $merged := dict -}}
{{- range $one := $given -}}
{{- range $key, $value := default dict (get $one $name) -}}
{{- if kindIs "invalid" $value }}{{ $_ := unset $merged $key }}{{ else }}{{ $_ := set $merged $key $value }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $found $name $merged -}}
{{- end -}}
{{- range $one := $given -}}
{{- range $name := list "env" "envFrom" "extraVolumes" "extraVolumeMounts" "tolerations" -}}
{{- with get $one $name }}{{ $_ := set $found $name (concat (get $found $name) .) }}{{ end -}}
{{- end -}}
{{- range $name := list "affinity" "priorityClassName" -}}
{{- with get $one $name }}{{ $_ := set $found $name . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $resources := dict -}}
{{- range $kind := list "requests" "limits" -}}
{{- $amounts := dict -}}
{{- range $one := $given -}}
{{- range $name, $amount := default dict (get (default dict (get $one "resources")) $kind) -}}
{{- if $amount }}{{ $_ := set $amounts $name $amount }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $amounts }}{{ $_ := set $resources $kind $amounts }}{{ end -}}
{{- end -}}
{{- $_ := set $found "resources" $resources -}}
{{- toJson $found -}}
{{- end }}

{{/*
Every pod of the chart, as YAML of its metadata and spec: those of the services and of the cache, the job's and the test's.
Its init containers have the same resources, for which Kubernetes asks nothing more, the same rights, environment and
mounts.
root, component, verifier, settings; container: what is the main one's own; optional: env, mounts, volumes, artifacts,
annotations, labels (else those of the chart), tmp (the volume), spec.
*/}}
{{- define "bioverify.pod" -}}
{{- $values := .root.Values -}}
{{- $of := dict "root" .root "component" .component "verifier" .verifier -}}
{{- $settings := include "bioverify.settings" (dict "root" .root "own" .settings) | fromJson -}}
{{- $env := default list .env -}}
{{- $mounts := list (dict "name" "tmp" "mountPath" "/tmp") -}}
{{- $volumes := list (dict "name" "tmp" "emptyDir" (default dict .tmp)) -}}
{{- if or $values.caBundle.configMap $values.caBundle.secret -}}
{{- $file := printf "/etc/bioverify/ca/%s" $values.caBundle.key -}}
{{- /* OpenSSL and what is written in Rust look at the first, libraries of Amazon and many in Python at the others. */ -}}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" }}{{ $env = append $env (dict "name" . "value" $file) }}{{ end -}}
{{- $mounts = append $mounts (dict "name" "ca" "mountPath" "/etc/bioverify/ca" "readOnly" true) -}}
{{- $items := list (dict "key" $values.caBundle.key "path" $values.caBundle.key) -}}
{{- $source := dict "secret" (dict "secretName" $values.caBundle.secret "items" $items) -}}
{{- with $values.caBundle.configMap }}{{ $source = dict "configMap" (dict "name" . "items" $items) }}{{ end -}}
{{- $volumes = append $volumes (merge (dict "name" "ca") $source) -}}
{{- end -}}
{{- $artifacts := include "bioverify.artifacts" (dict "root" .root "names" (default list .artifacts) "image" .container.image) | fromJson -}}
{{- $common := dict "imagePullPolicy" $values.images.pullPolicy "resources" $settings.resources -}}
{{- with $settings.containerSecurityContext }}{{ $_ := set $common "securityContext" . }}{{ end -}}
{{- $env = concat $env $settings.env -}}
{{- with $env }}{{ $_ := set $common "env" . }}{{ end -}}
{{- $init := list -}}
{{- range $artifacts.initContainers -}}
{{- $container := merge (dict "volumeMounts" (concat $mounts .volumeMounts $settings.extraVolumeMounts)) (deepCopy .) (deepCopy $common) -}}
{{- with concat (default list .envFrom) $settings.envFrom }}{{ $_ := set $container "envFrom" . }}{{ end -}}
{{- $init = append $init $container -}}
{{- end -}}
{{- $main := merge (dict "volumeMounts" (concat $mounts $artifacts.mounts (default list .mounts) $settings.extraVolumeMounts)) (deepCopy .container) (deepCopy $common) -}}
{{- with $settings.envFrom }}{{ $_ := set $main "envFrom" . }}{{ end -}}
{{- $spec := dict "serviceAccountName" (include "bioverify.serviceAccount" .root) "automountServiceAccountToken" false "enableServiceLinks" false -}}
{{- $_ := set $spec "containers" (list $main) -}}
{{- with $init }}{{ $_ := set $spec "initContainers" . }}{{ end -}}
{{- $_ := set $spec "volumes" (concat $volumes $artifacts.volumes (default list .volumes) $settings.extraVolumes) -}}
{{- with $settings.podSecurityContext }}{{ $_ := set $spec "securityContext" . }}{{ end -}}
{{- $secrets := list -}}
{{- range $values.images.pullSecrets }}{{ $secrets = append $secrets (dict "name" .) }}{{ end -}}
{{- with $secrets }}{{ $_ := set $spec "imagePullSecrets" . }}{{ end -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- with get $settings $name }}{{ $_ := set $spec $name . }}{{ end -}}
{{- end -}}
{{- with .settings.gpu -}}
{{- if .count -}}
{{- range $kind := list "requests" "limits" -}}
{{- $_ := set $main.resources $kind (merge (dict $.settings.gpu.resource (int $.settings.gpu.count)) (default dict (get $main.resources $kind))) -}}
{{- end -}}
{{- end -}}
{{- with .runtimeClassName }}{{ $_ := set $spec "runtimeClassName" . }}{{ end -}}
{{- end -}}
{{- $spread := list -}}
{{- range .settings.topologySpread -}}
{{- $spread = append $spread (dict "topologyKey" . "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway" "matchLabelKeys" (list "pod-template-hash") "labelSelector" (dict "matchLabels" (include "bioverify.selector" $of | fromYaml))) -}}
{{- end -}}
{{- with $spread }}{{ $_ := set $spec "topologySpreadConstraints" . }}{{ end -}}
{{- $labels := merge (dict) (default (include "bioverify.labels" $of | fromYaml) .labels) $settings.podLabels -}}
{{- if and (include "bioverify.isOnOneNode" .root) (or .artifacts (eq .component "artifacts")) -}}
{{- $beside := dict "app.kubernetes.io/instance" .root.Release.Name "bioverify.io/volume" "artifacts" -}}
{{- $labels = merge $labels $beside -}}
{{- $affinity := default dict $spec.affinity -}}
{{- $with := default dict $affinity.podAffinity -}}
{{- $required := append (default list $with.requiredDuringSchedulingIgnoredDuringExecution) (dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $beside)) -}}
{{- $_ := set $spec "affinity" (merge (dict "podAffinity" (merge (dict "requiredDuringSchedulingIgnoredDuringExecution" $required) $with)) $affinity) -}}
{{- end -}}
{{- $metadata := dict "labels" $labels -}}
{{- with merge (dict) (default dict .annotations) $settings.podAnnotations }}{{ $_ := set $metadata "annotations" . }}{{ end -}}
{{- toYaml (dict "metadata" $metadata "spec" (merge (default dict .spec) $spec)) -}}
{{- end }}

{{/* gRPC probes: "" says alive, the service's name says ready. Kubelet's speak no TLS: with it they have a port of their own. */}}
{{- define "bioverify.grpcProbes" -}}
startupProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  grpc: {port: {{ .port }}, service: {{ .service }}}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* What each service shows the others, and by which authority it knows them. */}}
{{- define "bioverify.tlsArguments" -}}
- --tls-certificate=/etc/bioverify/tls/tls.crt
- --tls-key=/etc/bioverify/tls/tls.key
- --tls-ca=/etc/bioverify/tls/ca.crt
{{- end }}

{{/*
How a pod gets the artifacts it opens, as JSON: volumes, mounts, initContainers. It reads them and never writes; on a
volume that a job fills it waits for them; pulled ones are fetched, with every checksum verified, before it starts.
*/}}
{{- define "bioverify.artifacts" -}}
{{- $artifacts := .root.Values.artifacts -}}
{{- $parts := dict "volumes" list "mounts" list "initContainers" list -}}
{{- if .names -}}
{{- $mount := dict "name" "artifacts" "mountPath" "/var/lib/bioverify" -}}
{{- $_ := set $parts "mounts" (list (merge (dict "readOnly" true) $mount)) -}}
{{- if eq $artifacts.source "pull" -}}
{{- $_ := set $parts "volumes" (list (dict "name" "artifacts" "emptyDir" (dict "sizeLimit" $artifacts.pull.sizeLimit))) -}}
{{- $wanted := list -}}
{{- range .names -}}
{{- $digest := get $artifacts.pull.digests . -}}
{{- $wanted = append $wanted (ternary (printf "%s@%s" . $digest) . (not (empty $digest))) -}}
{{- end -}}
{{- $container := dict "name" "pull" "image" (include "bioverify.image" (dict "root" .root "name" "puller" "image" $artifacts.pull.image)) "args" (concat (list "data" "pull" $artifacts.pull.url) $wanted) "volumeMounts" (list $mount) -}}
{{- with $artifacts.pull.existingSecret -}}
{{- $_ := set $container "envFrom" (list (dict "secretRef" (dict "name" .))) -}}
{{- end -}}
{{- $_ := set $parts "initContainers" (list $container) -}}
{{- else -}}
{{- $_ := set $parts "volumes" (list (dict "name" "artifacts" "persistentVolumeClaim" (dict "claimName" (include "bioverify.artifactsClaim" .root) "readOnly" true))) -}}
{{- if eq $artifacts.source "build" -}}
{{- $container := dict "name" "wait-for-artifacts" "image" .image "command" (list "python" "-c" (.root.Files.Get "files/wait_for_artifacts.py")) "args" .names "volumeMounts" $parts.mounts -}}
{{- $_ := set $parts "initContainers" (list $container) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $parts -}}
{{- end }}

{{/* Whether the job's volume is one that only one node can have at a time. */}}
{{- define "bioverify.isOnOneNode" -}}
{{- with .Values.artifacts }}{{ if and (eq .source "build") (eq .build.accessMode "ReadWriteOnce") (not .existingClaim) }}true{{ end }}{{ end -}}
{{- end }}

{{/*
One Deployment. At the end of a pod, the sleep lets its address leave the services first; then the server finishes what it
accepted, for which it takes no longer than is left of the grace period.
What "bioverify.pod" takes, and name, ports, probes, replicas (none: an autoscaler's), strategy (unless the settings have one).
*/}}
{{- define "bioverify.deployment" -}}
{{- $labels := dict "root" .root "component" .component "verifier" .verifier -}}
{{- $ports := list -}}
{{- range $name, $port := .ports }}{{ $ports = append $ports (dict "name" $name "containerPort" (int $port)) }}{{ end -}}
{{- $_ := set .container "name" .component -}}
{{- $_ := set .container "ports" $ports -}}
{{- $_ := set .container "lifecycle" (dict "preStop" (dict "sleep" (dict "seconds" 5))) -}}
{{- $_ := set . "container" (merge .container (.probes | fromYaml)) -}}
{{- $_ := set . "tmp" (dict "sizeLimit" "1Gi") -}}
{{- $_ := set . "spec" (dict "terminationGracePeriodSeconds" 35) -}}
{{- $rolling := dict "type" "RollingUpdate" "rollingUpdate" (dict "maxUnavailable" 0 "maxSurge" 1) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "bioverify.part" . }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
spec:
  {{- with .replicas }}
  replicas: {{ int . }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy: {{- .settings.strategy | default .strategy | default $rolling | toYaml | nindent 4 }}
  selector:
    matchLabels: {{- include "bioverify.selector" $labels | nindent 6 }}
  template: {{- include "bioverify.pod" . | nindent 4 }}
{{- end }}

{{/* A node's draining takes one pod at a time. */}}
{{- define "bioverify.budget" -}}
{{- $labels := dict "root" .root "component" .component "verifier" .verifier -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "bioverify.part" . }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "bioverify.selector" $labels | nindent 6 }}
{{- end }}

{{/* One Service: root, name, component, verifier, ports; optional: suffix of its name, labels, annotations, spec. */}}
{{- define "bioverify.service" -}}
{{- $of := dict "root" .root "component" .component "verifier" .verifier -}}
{{- $all := .root.Values.services -}}
{{- $spec := dict "selector" (include "bioverify.selector" $of | fromYaml) "ports" .servicePorts -}}
{{- with $all.ipFamilyPolicy }}{{ $_ := set $spec "ipFamilyPolicy" . }}{{ end -}}
{{- with $all.ipFamilies }}{{ $_ := set $spec "ipFamilies" . }}{{ end -}}
{{- $labels := merge (include "bioverify.labels" $of | fromYaml) (default dict .serviceLabels) -}}
{{- $metadata := dict "name" (printf "%s%s" (include "bioverify.part" .) (default "" .suffix)) "labels" $labels -}}
{{- with merge (dict) (default dict .serviceAnnotations) $all.annotations }}{{ $_ := set $metadata "annotations" . }}{{ end -}}
{{- toYaml (dict "apiVersion" "v1" "kind" "Service" "metadata" $metadata "spec" (merge (default dict .serviceSpec) $spec)) -}}
{{- end }}

{{/* A gRPC service twice: one address for it, and the headless one over which clients of ours spread their calls. */}}
{{- define "bioverify.services" -}}
{{- $grpc := dict "name" "grpc" "port" (int .port) "targetPort" "grpc" "appProtocol" "grpc" -}}
{{- $metrics := dict "name" "metrics" "port" (add .port 1000) "targetPort" "metrics" -}}
{{ include "bioverify.service" (merge (dict "servicePorts" (list $grpc $metrics) "serviceLabels" (dict "bioverify.io/metrics" "true")) .) }}
---
{{ include "bioverify.service" (merge (dict "servicePorts" (list $grpc) "suffix" "-headless" "serviceSpec" (dict "clusterIP" "None")) .) }}
{{- end }}

{{- define "bioverify.scaler" -}}
{{- $labels := dict "root" .root "component" .component "verifier" .verifier -}}
{{- $scaling := .settings.autoscaling -}}
{{- if eq $scaling.kind "cpu" }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "bioverify.part" . }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "bioverify.part" . }}
  minReplicas: {{ int $scaling.minReplicas }}
  maxReplicas: {{ int $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ int $scaling.cpuPercent }}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: {{ int $scaling.calmSeconds }}
{{- else if eq $scaling.kind "queue" }}
{{- /* By its service, which the release names: another one in the namespace has verifiers of the same names. */}}
{{- $of := printf "{namespace=%q,service=%q,verifier=%q}" .root.Release.Namespace (include "bioverify.part" .) .verifier }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "bioverify.part" . }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ include "bioverify.part" . }}
  minReplicaCount: {{ int $scaling.minReplicas }}
  maxReplicaCount: {{ int $scaling.maxReplicas }}
  pollingInterval: 15
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          stabilizationWindowSeconds: {{ int $scaling.calmSeconds }}
  triggers:
    - type: prometheus
      # A mean over all pods: as Value it is compared as it is, and not divided by the number of pods.
      metricType: Value
      metadata:
        serverAddress: {{ $scaling.prometheus }}
        # No calls: 0, because 0 / 0 is no number to scale by.
        query: sum(rate(bioverify_verifier_queue_seconds_sum{{ $of }}[2m])) / clamp_min(sum(rate(bioverify_verifier_queue_seconds_count{{ $of }}[2m])), 1e-9)
        threshold: {{ $scaling.queueSeconds | quote }}
        ignoreNullValues: "true"
{{- end }}
{{- end }}
