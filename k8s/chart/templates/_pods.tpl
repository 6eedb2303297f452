{{/* What every pod of ours is not allowed to do. */}}
{{- define "bioverify.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "bioverify.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Without what is empty. */}}
{{- define "bioverify.resources" -}}
{{- $kept := dict -}}
{{- range $kind := list "requests" "limits" -}}
{{- $amounts := dict -}}
{{- range $name, $amount := index $.resources $kind -}}
{{- if $amount }}{{ $_ := set $amounts $name $amount }}{{ end -}}
{{- end -}}
{{- if and $.gpu $.gpu.count }}{{ $_ := set $amounts $.gpu.resource (int $.gpu.count) }}{{ end -}}
{{- if $amounts }}{{ $_ := set $kept $kind $amounts }}{{ end -}}
{{- end -}}
{{- toYaml $kept -}}
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
{{- $security := include "bioverify.containerSecurity" . | fromYaml -}}
{{- $temporary := dict "name" "tmp" "mountPath" "/tmp" -}}
{{- if eq $artifacts.source "pull" -}}
{{- $_ := set $parts "volumes" (list (dict "name" "artifacts" "emptyDir" (dict "sizeLimit" $artifacts.pull.sizeLimit))) -}}
{{- $wanted := list -}}
{{- range .names -}}
{{- $digest := get $artifacts.pull.digests . -}}
{{- $wanted = append $wanted (ternary (printf "%s@%s" . $digest) . (not (empty $digest))) -}}
{{- end -}}
{{- $container := dict "name" "pull" "image" (include "bioverify.image" (dict "root" .root "name" "puller" "image" $artifacts.pull.image)) "imagePullPolicy" .root.Values.images.pullPolicy "args" (concat (list "data" "pull" $artifacts.pull.url) $wanted) "volumeMounts" (list $mount $temporary) "securityContext" $security "resources" (dict "requests" (dict "cpu" "100m" "memory" "128Mi") "limits" (dict "memory" "512Mi")) -}}
{{- with $artifacts.pull.existingSecret -}}
{{- $_ := set $container "envFrom" (list (dict "secretRef" (dict "name" .))) -}}
{{- end -}}
{{- $_ := set $parts "initContainers" (list $container) -}}
{{- else -}}
{{- $_ := set $parts "volumes" (list (dict "name" "artifacts" "persistentVolumeClaim" (dict "claimName" (include "bioverify.artifactsClaim" .root) "readOnly" true))) -}}
{{- if eq $artifacts.source "build" -}}
{{- $container := dict "name" "wait-for-artifacts" "image" .image "imagePullPolicy" .root.Values.images.pullPolicy "command" (list "python" "-c" (.root.Files.Get "files/wait_for_artifacts.py")) "args" .names "volumeMounts" $parts.mounts "securityContext" $security "resources" (dict "requests" (dict "cpu" "10m" "memory" "32Mi") "limits" (dict "memory" "64Mi")) -}}
{{- $_ := set $parts "initContainers" (list $container) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $parts -}}
{{- end }}

{{/*
One Deployment, with its disruption budget. At the end of a pod, the sleep lets its address leave the services first;
then the server finishes what it accepted, for which it takes no longer than is left of the grace period.
root, name, component, verifier, settings, image, args, ports, probes, env, artifacts, mounts, volumes, annotations,
replicas (none: an autoscaler's), strategy.
*/}}
{{- define "bioverify.deployment" -}}
{{- $labels := dict "root" .root "component" .component "verifier" .verifier -}}
{{- $parts := include "bioverify.artifacts" (dict "root" .root "names" .artifacts "image" .image) | fromJson -}}
{{- $settings := .settings -}}
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
  strategy: {{- .strategy | toYaml | nindent 4 }}
  selector:
    matchLabels: {{- include "bioverify.selector" $labels | nindent 6 }}
  template:
    metadata:
      labels:
        {{- with $settings.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "bioverify.labels" $labels | nindent 8 }}
      {{- with merge (deepCopy .annotations) $settings.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "bioverify.serviceAccount" .root }}
      {{- include "bioverify.podSecurity" . | nindent 6 }}
      terminationGracePeriodSeconds: 35
      {{- with .root.Values.images.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      {{- with $settings.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- if $settings.gpu }}
      {{- with $settings.gpu.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- end }}
      {{- with $settings.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $settings.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $settings.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $settings.topologySpread }}
      topologySpreadConstraints:
        {{- range . }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          matchLabelKeys: [pod-template-hash]
          labelSelector:
            matchLabels: {{- include "bioverify.selector" $labels | nindent 14 }}
        {{- end }}
      {{- end }}
      {{- with $parts.initContainers }}
      initContainers: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ .image }}
          imagePullPolicy: {{ .root.Values.images.pullPolicy }}
          args: {{- toYaml .args | nindent 12 }}
          ports:
            {{- range $name, $port := .ports }}
            - name: {{ $name }}
              containerPort: {{ int $port }}
            {{- end }}
          {{- .probes | nindent 10 }}
          lifecycle:
            preStop:
              sleep: {seconds: 5}
          {{- with concat .env .root.Values.env $settings.env }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          resources: {{- include "bioverify.resources" $settings | nindent 12 }}
          securityContext: {{- include "bioverify.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - name: tmp
              mountPath: /tmp
            {{- with concat $parts.mounts .mounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
        {{- with concat $parts.volumes .volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
---
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

{{/* A gRPC service twice: one address for it, and the headless one over which clients of ours spread their calls. */}}
{{- define "bioverify.services" -}}
{{- $labels := dict "root" .root "component" .component "verifier" .verifier -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "bioverify.part" . }}
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
    bioverify.io/metrics: "true"
spec:
  selector: {{- include "bioverify.selector" $labels | nindent 4 }}
  ports:
    - {name: grpc, port: {{ int .port }}, targetPort: grpc, appProtocol: grpc}
    - {name: metrics, port: {{ add .port 1000 }}, targetPort: metrics}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "bioverify.part" . }}-headless
  labels: {{- include "bioverify.labels" $labels | nindent 4 }}
spec:
  clusterIP: None
  selector: {{- include "bioverify.selector" $labels | nindent 4 }}
  ports:
    - {name: grpc, port: {{ int .port }}, targetPort: grpc, appProtocol: grpc}
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
{{- $of := printf "{namespace=%q,verifier=%q}" .root.Release.Namespace .verifier }}
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
