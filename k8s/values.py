"""The one source of the chart's values: names, types, bounds, defaults and what each is for.

`python k8s/values.py` writes the chart's `values.yaml`, `values.schema.json` and the table in its `README.md` from the
models below; `--check` fails where one of them is not what would be written (`make lint`). Empty means unset: an empty
string, list or mapping. Every mapping of ours refuses unknown keys; what Kubernetes itself defines (tolerations, label
selectors, …) is passed on as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from bioverify.gateway.config import GatewayConfig

CHART = Path(__file__).parent / "chart"
SET_BY_THE_CHART = {
    "listen", "aggregator", "folder", "runs_folder", "keys_file", "open_to_anyone", "tls_certificate", "tls_key",
    "client_ca", "identity",
}  # fmt: skip

Count = Annotated[int, Field(ge=1)]
# Metrics and health are on ports up to 2000 above it.
Port = Annotated[int, Field(ge=1024, le=63535)]
Quantity = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?)?$")]
Name = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
ArtifactName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
PinnedArtifact = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(@sha256:[0-9a-f]{64})?$")]
VerifierName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9_]{0,28}[a-z0-9])?$")]
HostName = Annotated[str, Field(pattern=r"^([a-z0-9*]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
# null: the cluster's default class; "": no class, a volume that was made beforehand; else its name.
StorageClass = Name | None
Kubernetes = dict[str, Any]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)


class Images(Block):
    registry: str = ""
    """Host, and folder, of all images, the cache's too; empty: the container runtime's own."""
    prefix: str = "bioverify/"
    """Before the name of every image of ours, which is its target in services/Dockerfile."""
    tag: str = ""
    """Of every image of ours; empty: the chart's appVersion."""
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pullSecrets: list[Name] = []
    """Names of secrets of type kubernetes.io/dockerconfigjson."""


class Image(Block):
    registry: str = ""
    """Empty: images.registry."""
    repository: str = ""
    """Empty: the image that belongs here. One that is given has its host in it, unless a registry stands beside it."""
    tag: str = ""
    """Empty: images.tag."""
    digest: Digest = ""
    """Wins over the tag."""


class Amounts(Block):
    cpu: Quantity = ""
    memory: Quantity = ""
    ephemeral_storage: Annotated[Quantity, Field(alias="ephemeral-storage")] = ""


class Resources(Block):
    requests: Amounts = Amounts()
    limits: Amounts = Amounts()
    """Without a limit of CPU a pod may use what its node has to spare; with one, its slowest answers become slower."""


class Gpu(Block):
    count: Annotated[int, Field(ge=0)] = 0
    """GPUs of each pod."""
    resource: str = "nvidia.com/gpu"
    runtimeClassName: Name = ""


class Bounds(Block):
    minReplicas: Count = 2
    maxReplicas: Count = 8
    cpuPercent: Annotated[int, Field(ge=1, le=100)] = 70
    """Of the CPU requested, on average."""
    calmSeconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """So long the load has to stay low before a pod is taken away."""


class CpuScaling(Bounds):
    kind: Literal["none", "cpu"] = "none"
    """none: replicas as given. cpu: a HorizontalPodAutoscaler."""


class Scaling(Bounds):
    kind: Literal["none", "cpu", "queue"] = "none"
    """none: replicas as given. cpu: a HorizontalPodAutoscaler. queue: KEDA, by the time that calls wait."""
    queueSeconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """A call's mean wait for its turn above which pods are added."""
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"
    """Where KEDA asks for it."""


class EveryPod(Block):
    """What may be said of any pod; under `pods` of all of them, init containers included."""

    podLabels: dict[str, str] = {}
    podAnnotations: dict[str, str] = {}
    nodeSelector: dict[str, str] = {}
    tolerations: list[Kubernetes] = []
    affinity: Kubernetes = {}
    """One that a pod has of its own stands in the place of that of all pods."""
    priorityClassName: Name = ""
    podSecurityContext: Kubernetes = {}
    containerSecurityContext: Kubernetes = {}
    resources: Resources = Resources()
    env: list[Kubernetes] = []
    """More environment variables, as a container has them."""
    envFrom: list[Kubernetes] = []
    extraVolumes: list[Kubernetes] = []
    extraVolumeMounts: list[Kubernetes] = []


class Pods(EveryPod):
    podSecurityContext: Kubernetes = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    """A null, here or of one of its keys, leaves it to the platform, as OpenShift wants it of users and groups."""
    containerSecurityContext: Kubernetes = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


class CaBundle(Block):
    configMap: Name = ""
    secret: Name = ""
    key: str = "ca.crt"
    """Its entry with all authorities in PEM, the public ones too if a pod has to know them."""


class Deployed(EveryPod):
    image: Image = Image()
    strategy: Kubernetes = {}
    """How old pods give way to new ones; empty: no pod goes before another is ready."""


class Workload(Deployed):
    replicas: Count = 1
    topologySpread: list[str] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    """Labels of nodes over whose values the pods are spread, as far as there is room."""


class Ingress(Block):
    enabled: bool = False
    className: Name = ""
    annotations: dict[str, str] = {}
    host: HostName = ""
    tlsSecret: Name = ""


class Route(Block):
    parentRefs: list[Kubernetes] = []
    """Gateways (gateway.networking.k8s.io/v1) that it hangs on; empty: there is no route."""
    hostnames: list[HostName] = []
    annotations: dict[str, str] = {}


class Verifier(Workload):
    enabled: bool = True
    workers: Count = 1
    """Processes of one pod that share its port; as many as it has cores for."""
    port: Port = 50051
    """gRPC; metrics are on the port 1000 above, health without TLS 2000 above."""
    artifacts: list[ArtifactName] = []
    """What it opens below /var/lib/bioverify; none: it gets no artifacts."""
    args: list[str] = []
    """Of a verifier of your own: the container's arguments instead of `serve NAME …`. With tls they hold --health-port
    with the port 2000 above; certificate, key and CA are in the environment (docs/security.md)."""
    deadlineSeconds: Annotated[float, Field(ge=0)] = 0
    """Seconds of a call that it may take at most; 0: all that the call has."""
    gpu: Gpu = Gpu()
    autoscaling: Scaling = Scaling()


class Aggregator(Workload):
    workers: Count = 1
    autoscaling: CpuScaling = CpuScaling()
    consensus: bool = True
    """Compose the beliefs of esm_mlp and analogy; needs both, and the artifact consensus."""
    cacheSecret: Name = ""
    """A secret that remembered outcomes are signed with, so that nobody else who writes to the cache can make a reward:
    32 characters or more, read when the aggregator starts (docs/security.md)."""
    cacheSecretKey: str = "secret"
    """The entry of cacheSecret."""
    ingress: Ingress = Ingress()
    """gRPC from outside. The aggregator asks for no key: what stands in front of it decides who may score."""
    route: Route = Route()
    """A GRPCRoute."""
    resources: Resources = Resources(requests=Amounts(cpu="500m", memory="256Mi"), limits=Amounts(memory="1Gi"))


class Keys(Block):
    existingSecret: Name = ""
    """A secret with `keys.yaml`, made by `bioverify keys`. Empty: the chart makes one key, and keeps it."""
    tokenKey: str = "token"
    """The secret's entry with the text of a key of scope admin, for `helm test` and for Prometheus; may be absent."""
    openToAnyone: bool = False
    """Ask for no key, because something in front of the gateway decides who may call. It is then called by address, by
    the names of its service and by `ingress.host`; other names go into `settings.allowed_hosts`."""


class Jobs(Block):
    enabled: bool = True
    """Scoring of files, kept on a volume. One pod keeps them, so there is one pod; without jobs there may be many."""
    size: Quantity = "10Gi"
    storageClass: StorageClass = None
    """null: the cluster's default; "": none, for a volume that was made beforehand."""
    existingClaim: Name = ""
    """Instead of a volume of the chart's."""


class GatewayTls(Block):
    enabled: bool = False
    existingSecret: Name = ""
    """A secret with tls.crt and tls.key. Empty: a certificate of certManager's issuer."""
    hosts: list[str] = []
    """Names in that certificate beside those of the service."""


class GatewayService(Block):
    """The gateway's address; names as in a Service."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "ClusterIP"
    annotations: dict[str, str] = {}
    """For instance what a cloud's load balancer is to be: internal, of which kind, with which certificate."""
    loadBalancerSourceRanges: list[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]] = []
    """Networks that may call; empty: all."""
    loadBalancerClass: str = ""
    externalTrafficPolicy: Literal["", "Cluster", "Local"] = ""
    nodePort: Annotated[int, Field(ge=0, le=32767)] = 0
    """0: Kubernetes chooses."""


class Gateway(Workload):
    enabled: bool = True
    autoscaling: CpuScaling = CpuScaling()
    resources: Resources = Resources(requests=Amounts(cpu="250m", memory="256Mi"), limits=Amounts(memory="1Gi"))
    keys: Keys = Keys()
    settings: Kubernetes = {}
    """Any of the gateway's own settings (docs/http.md) that the chart does not make: max_items, cors_origins, …"""
    jobs: Jobs = Jobs()
    runsClaim: Name = ""
    """A volume claim with training runs to show."""
    tls: GatewayTls = GatewayTls()
    service: GatewayService = GatewayService()
    ingress: Ingress = Ingress()
    route: Route = Route()
    """An HTTPRoute."""


class Pull(Block):
    url: Annotated[str, Field(pattern=r"^((s3|gs|az|https?|file)://.+)?$")] = ""
    """s3://bucket/prefix, gs://…, az://…"""
    digests: dict[ArtifactName, Digest] = {}
    """Name → digest to insist on (`bioverify data list`). A change of it rolls the pods that open the artifact."""
    existingSecret: Name = ""
    """Whose entries become the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, …"""
    image: Image = Image()
    sizeLimit: Quantity = "4Gi"
    """Of the folder in each pod."""


class Build(EveryPod):
    args: list[str] = ["--all"]
    """Of `bioverify data build`. Downloads under a non-commercial licence need --accept-license."""
    image: Image = Image()
    resources: Resources = Resources(requests=Amounts(cpu="1", memory="4Gi"), limits=Amounts(memory="12Gi"))
    size: Quantity = "20Gi"
    storageClass: StorageClass = None
    accessMode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """ReadWriteOnce binds everywhere; all pods that open artifacts then run on one node. For several nodes:
    ReadWriteMany, if there is a class that has it, or `source: pull`."""


class Artifacts(Block):
    source: Literal["build", "pull", "claim"] = "build"
    """build: a job makes them on a volume that all pods read. pull: each pod fetches its own from shared storage.
    claim: they lie on a volume of yours."""
    build: Build = Build()
    pull: Pull = Pull()
    existingClaim: Name = ""
    """For claim: a volume with the folder artifacts/."""


class ValkeyImage(Image):
    tag: str = "8.1-alpine"


class Valkey(Deployed):
    enabled: bool = True
    """A cache in the cluster, without a disk. Without it and without externalRedis nothing is remembered."""
    image: Image = ValkeyImage()
    """Of valkey/valkey."""
    maxMemory: Annotated[str, Field(pattern=r"^[0-9]+(mb|gb)$")] = "512mb"
    """Beyond it the least used entries go."""
    resources: Resources = Resources(requests=Amounts(cpu="100m", memory="640Mi"), limits=Amounts(memory="768Mi"))


class ExternalRedis(Block):
    url: Annotated[str, Field(pattern=r"^(rediss?(\+(cluster|sentinel))?://([^:@/]+@)?[^@]+)?$")] = ""
    """Its address without a password (docs/deployment.md); the password is in passwordSecret."""
    passwordSecret: Name = ""
    """A secret with the password alone. It is mounted: a rotated one is taken up without a restart."""
    passwordKey: str = "password"
    existingSecret: Name = ""
    """Instead of url: a secret with the whole address, password included. It is read when the aggregator starts."""
    key: str = "url"
    """The entry of existingSecret."""


class Test(EveryPod):
    resources: Resources = Resources(requests=Amounts(cpu="50m", memory="64Mi"), limits=Amounts(memory="256Mi"))


class CertManager(Block):
    issuer: Name = ""
    """Name of the issuer; empty: cert-manager is not used."""
    issuerKind: Literal["Issuer", "ClusterIssuer"] = "ClusterIssuer"
    duration: Annotated[str, Field(pattern=r"^[0-9]+h$")] = "2160h"
    renewBefore: Annotated[str, Field(pattern=r"^[0-9]+h$")] = "720h"


class Tls(Block):
    enabled: bool = False
    """Mutual TLS between gateway, aggregator and verifiers."""
    existingSecret: Name = ""
    """A secret with tls.crt, tls.key and ca.crt, good for the names of all services. Empty: by certManager."""


class NetworkPolicies(Block):
    enabled: bool = True
    clients: list[Kubernetes] = [{"podSelector": {"matchLabels": {"bioverify.io/client": "true"}}}]
    """Who may call the aggregator beside the gateway: peers as in a NetworkPolicy. Trainers carry this label."""
    gatewayClients: list[Kubernetes] = []
    """Who may call the gateway; empty: everybody."""
    metricsFrom: list[Kubernetes] = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    """Who may read metrics."""
    dns: list[Kubernetes] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    """Where names are resolved."""
    dnsPorts: list[Annotated[int, Field(ge=1, le=65535)]] = [53]
    """By which ports of its pods; OpenShift's listen on 5353."""
    downloads: list[Kubernetes] = [{"ports": [{"port": 443, "protocol": "TCP"}]}]
    """Egress rules of the job that builds artifacts: to the public sources, or to a proxy."""
    objectStore: list[Kubernetes] = [{"ports": [{"port": 443, "protocol": "TCP"}]}]
    """Egress rules of pods that pull artifacts."""
    identity: list[Kubernetes] = []
    """Egress rules of the same pods and of the job, to what tells them who they are: a cloud's metadata server."""
    externalRedis: list[Kubernetes] = [{"ports": [{"port": 6379, "protocol": "TCP"}]}]
    """Egress rules of the aggregator to externalRedis."""
    traces: list[Kubernetes] = []
    """Egress rules of every service, to a collector of traces."""
    moreEgress: list[Kubernetes] = []
    """Egress rules of every pod, for instance to a mesh's control plane."""
    moreIngress: list[Kubernetes] = []
    """Ingress rules of every pod, for instance of a mesh's tunnel."""


class Services(Block):
    """All of them."""

    ipFamilyPolicy: Literal["", "SingleStack", "PreferDualStack", "RequireDualStack"] = "PreferDualStack"
    """PreferDualStack: both families if the cluster has both."""
    ipFamilies: list[Literal["IPv4", "IPv6"]] = []
    annotations: dict[str, str] = {}


class Monitoring(Block):
    serviceMonitor: bool = False
    """For the Prometheus operator."""
    interval: Annotated[str, Field(pattern=r"^[0-9]+(s|m)$")] = "15s"
    alerts: bool = False
    """A PrometheusRule of k8s/alerts, which knows the services by "bioverify" in their names."""
    labels: dict[str, str] = {}
    """Of both, by which a Prometheus chooses what it takes."""
    dashboards: bool = False
    """ConfigMaps with the dashboards of k8s/dashboards, for Grafana's sidecar."""
    dashboardLabels: dict[str, str] = {"grafana_dashboard": "1"}
    """By which the sidecar finds them."""


class ServiceAccount(Block):
    create: bool = True
    name: Name = ""
    """Empty: named as the release, or `default` where none is created."""
    annotations: dict[str, str] = {}
    """For instance a cloud's role that may read the artifacts."""


def _lookup(*artifacts: str, memory: str, limit: str) -> Verifier:
    resources = Resources(requests=Amounts(memory=memory), limits=Amounts(memory=limit))
    return Verifier(artifacts=list(artifacts), resources=resources)


class Values(Block):
    nameOverride: Name = ""
    fullnameOverride: Name = ""
    clusterDomain: str = "cluster.local"
    """Of the names by which services find each other."""
    listenAddress: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9.]+)$")] = "[::]"
    """Of every port. [::] and 0.0.0.0 are both families where the node has both."""
    images: Images = Images()
    pods: Pods = Pods()
    """What holds for every pod and init container, the job's, the cache's and the test's too. Each has the same keys of
    its own, which win; lists of both are joined."""
    caBundle: CaBundle = CaBundle()
    """Authorities by which every pod knows servers outside (object stores, a Redis with TLS, proxies), instead of the
    image's: a config map or a secret."""
    services: Services = Services()
    serviceAccount: ServiceAccount = ServiceAccount()
    verifierDefaults: Verifier = Verifier(
        resources=Resources(requests=Amounts(cpu="250m", memory="256Mi"), limits=Amounts(memory="512Mi"))
    )
    """What holds for each verifier unless its own entry says otherwise."""
    verifiers: dict[VerifierName, Verifier] = {
        "experimental": _lookup("genes", "experimental", memory="256Mi", limit="512Mi"),
        "go_rouge": _lookup("genes", "go_rouge", memory="384Mi", limit="768Mi"),
        "transcriptformer_pmi": _lookup("genes", "transcriptformer_pmi", memory="256Mi", limit="512Mi"),
        "esm_mlp": _lookup("genes", "esm_mlp", memory="384Mi", limit="1Gi"),
        "format": Verifier(resources=Resources(requests=Amounts(memory="128Mi"), limits=Amounts(memory="384Mi"))),
        "analogy": _lookup("genes", "analogy", memory="512Mi", limit="1Gi"),
        "claims": _lookup("genes", "claims", memory="384Mi", limit="768Mi"),
    }
    """Name → what differs from verifierDefaults. One of your own needs no more than an entry here. Limits of memory are
    twice what was resident under load, or more (docs/performance.md)."""
    aggregator: Aggregator = Aggregator()
    gateway: Gateway = Gateway()
    artifacts: Artifacts = Artifacts()
    valkey: Valkey = Valkey()
    externalRedis: ExternalRedis = ExternalRedis()
    """Instead of valkey."""
    certManager: CertManager = CertManager()
    tls: Tls = Tls()
    networkPolicies: NetworkPolicies = NetworkPolicies()
    monitoring: Monitoring = Monitoring()
    test: Test = Test()
    """The pod of `helm test`."""


HEADER = "# Written by `python k8s/values.py` (make chart); edit the models there.\n"


def values_yaml() -> str:
    """Every key with its default, and once, where it first stands, what it is for."""
    explained: set[tuple[type[BaseModel], str]] = set()

    def lines(block: BaseModel, depth: int, *, only_set: bool) -> Iterator[str]:
        indent = "  " * depth
        for name, info in type(block).model_fields.items():
            if only_set and name not in block.model_fields_set:
                continue
            owner = next(kind for kind in reversed(type(block).__mro__) if name in getattr(kind, "model_fields", {}))
            if info.description and (owner, name) not in explained:
                explained.add((owner, name))
                yield from (f"{indent}# {line.strip()}" for line in info.description.splitlines())
            value = getattr(block, name)
            name = info.alias or name
            if isinstance(value, BaseModel):
                inner = list(lines(value, depth + 1, only_set=only_set))
                yield from [f"{indent}{name}:", *inner] if inner else [f"{indent}{name}: {{}}"]
            elif isinstance(value, dict) and any(isinstance(entry, BaseModel) for entry in value.values()):
                yield f"{indent}{name}:"
                for key, entry in value.items():
                    yield f"{indent}  {key}:"
                    yield from lines(entry, depth + 2, only_set=True)
            else:
                written = yaml.safe_dump(value, default_flow_style=None, width=1000).removesuffix("...\n").rstrip()
                yield from _entry(indent, name, value, written)

    return HEADER + "".join(_spaced(lines(Values(), 0, only_set=False)))


def _entry(indent: str, name: str, value: Any, written: str) -> Iterator[str]:
    if "\n" in written or (isinstance(value, list) and any(isinstance(entry, dict) for entry in value)):
        yield f"{indent}{name}:"
        yield from (f"{indent}  {line}" for line in written.splitlines())
    else:
        yield f"{indent}{name}: {written}"


def _spaced(lines: Iterator[str]) -> Iterator[str]:
    """An empty line before each key of the top, or before what explains it."""
    previous = ""
    for line in lines:
        if not line.startswith(" ") and not previous.startswith("#"):
            yield "\n"
        yield line + "\n"
        previous = line


def schema() -> dict[str, Any]:
    """What Helm checks values by. Entries of verifiers need no key: a mapping is laid over the defaults."""
    written = Values.model_json_schema(mode="validation")

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        kept = {key: plain(value) for key, value in node.items() if key not in {"title", "default"}}
        if "properties" in node:
            kept["properties"] = {name: plain(value) for name, value in node["properties"].items()}
        if "patternProperties" in node:
            kept["additionalProperties"] = False
        return kept

    found: dict[str, Any] = plain(written)
    own = GatewayConfig.model_json_schema()["properties"]
    found["$defs"]["Gateway"]["properties"]["settings"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: plain(entry) for name, entry in own.items() if name not in SET_BY_THE_CHART},
    }
    # `helm --set verifiers.analogy=null` takes a verifier out; a subchart's parent hands down `global`.
    found["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found}


def readme() -> str:
    """The chart's README with the table of values between its marks."""
    rows = ["| value | default | what it is |", "|---|---|---|"]

    def add(block: BaseModel, path: str) -> None:
        for name, info in type(block).model_fields.items():
            value = getattr(block, name)
            name = info.alias or name
            about = " ".join((info.description or "").split()).replace("|", "\\|")
            if isinstance(value, BaseModel):
                if about:
                    rows.append(f"| `{path}{name}` | | {about} |")
                add(value, f"{path}{name}.")
            elif name == "verifiers":
                rows.append(f"| `{path}{name}` | {', '.join(value)} | {about} |")
            else:
                rows.append(f"| `{path}{name}` | `{json.dumps(value)}` | {about} |")

    add(Values(), "")
    before, _, rest = (CHART / "README.md").read_text().partition("<!-- values -->")
    _, _, after = rest.partition("<!-- end values -->")
    return f"{before}<!-- values -->\n" + "\n".join(rows) + f"\n<!-- end values -->{after}"


def main() -> None:
    written = {
        "values.yaml": values_yaml(),
        "values.schema.json": json.dumps(schema(), indent=2) + "\n",
        "README.md": readme(),
    }
    stale = []
    for name, text in written.items():
        path = CHART / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"not what k8s/values.py writes: {', '.join(stale)} of k8s/chart. Run: make chart")


if __name__ == "__main__":
    main()
