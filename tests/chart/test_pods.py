"""What every pod may do, how it is seen to live, and how it ends."""

from __future__ import annotations

import re

import pytest

from bioverify.aggregator.config import AggregatorConfig
from bioverify.gateway.server import GRACE_S
from bioverify.runtime.config import ServerConfig
from bioverify.runtime.metrics import QUEUE_SECONDS
from bioverify.stack.plan import AGGREGATOR_HEALTH, VERIFIER_HEALTH
from tests.chart.helm import (
    CHART,
    PART_OF,
    ROOT,
    Manifest,
    containers,
    named,
    of_kind,
    pod_templates,
    rendered,
    value_sets,
)

pytestmark = pytest.mark.chart


@pytest.fixture(params=value_sets())
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


def test_no_container_may_do_more_than_it_needs(manifests: list[Manifest]) -> None:
    for name, pod in pod_templates(manifests).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        # OpenShift chooses them, and refuses whoever does.
        whose = {spec["securityContext"].get(key, "the platform's") for key in ("runAsUser", "runAsGroup", "fsGroup")}
        assert whose in ({10001}, {"the platform's"}), name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, container["name"])


def test_every_container_says_what_it_needs_and_has_a_limit_of_memory(manifests: list[Manifest]) -> None:
    for name, pod in pod_templates(manifests).items():
        for container in containers(pod):
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), (name, container["name"])
            assert "memory" in resources["limits"], (name, container["name"])


def test_every_mount_is_of_a_volume_that_the_pod_has(manifests: list[Manifest]) -> None:
    for name, pod in pod_templates(manifests).items():
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert mounted == volumes, name


def test_every_claim_secret_and_account_is_made_here_or_named_in_the_values(manifests: list[Manifest]) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    made |= {("Secret", one["spec"]["secretName"]) for one in of_kind(manifests, "Certificate")}
    given = {"unused", "artifacts-of-ours", "bucket", "redis", "services-tls", "public-tls", "keys-of-ours", "runs"}
    given |= {"minio", "company-ca", "redis-password"}
    for pod in pod_templates(manifests).values():
        used = {("ServiceAccount", pod["spec"]["serviceAccountName"])}
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                used.add(("Secret", volume["secret"]["secretName"]))
            if "configMap" in volume:
                used.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                used.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for container in containers(pod):
            for variable in container.get("env", ()):
                if "valueFrom" in variable:
                    used.add(("Secret", variable["valueFrom"]["secretKeyRef"]["name"]))
            used |= {("Secret", each["secretRef"]["name"]) for each in container.get("envFrom", ())}
        assert {one for one in used - made if one[1] not in {*given, "default"}} == set()


def test_services_and_budgets_select_exactly_their_own_pods(manifests: list[Manifest]) -> None:
    pods = pod_templates(manifests)
    for one in of_kind(manifests, "Service", "PodDisruptionBudget"):
        spec = one["spec"]
        selector = spec["selector"].get("matchLabels", spec["selector"])
        chosen = {name for name, pod in pods.items() if selector.items() <= pod["metadata"]["labels"].items()}
        assert chosen == {one["metadata"]["name"].removesuffix("-headless")}
        ports = {port["name"] for name in chosen for port in pods[name]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in spec.get("ports", ())} <= ports


def test_every_served_deployment_may_lose_one_pod_at_a_time(manifests: list[Manifest]) -> None:
    served = {one["metadata"]["name"] for one in of_kind(manifests, "Deployment")}
    budgets = {one["metadata"]["name"]: one["spec"] for one in of_kind(manifests, "PodDisruptionBudget")}
    assert {name for name in served if not name.endswith("-cache")} == set(budgets)
    for budget in budgets.values():
        assert budget["maxUnavailable"] == 1
        # One that is broken anyway must not hold up the draining of its node.
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_grpc_probes_ask_for_alive_and_ready_by_their_names(manifests: list[Manifest]) -> None:
    for deployment in of_kind(manifests, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ready = {"verifier": VERIFIER_HEALTH, "aggregator": AGGREGATOR_HEALTH}.get(container["name"])
        if ready is None:
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        port = ports.get("health", ports["grpc"])
        assert container["startupProbe"]["grpc"] == container["livenessProbe"]["grpc"] == {"port": port}
        assert container["readinessProbe"]["grpc"] == {"port": port, "service": ready}
        assert ("health" in ports) == any(each.startswith("--tls-") for each in container["args"])


def test_a_pod_has_the_time_to_drain(manifests: list[Manifest]) -> None:
    drains_s = {
        "verifier": ServerConfig(listen="").grace_s,
        "aggregator": AggregatorConfig(listen="", verifiers={}).grace_s,
        "gateway": GRACE_S,
    }
    for deployment in of_kind(manifests, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        asleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        # Longer than endpoints take to leave the services, so that no new call comes to a server that ends.
        assert asleep_s >= 5
        if container["name"] in drains_s:
            assert spec["terminationGracePeriodSeconds"] >= asleep_s + drains_s[container["name"]] + 5
            rolling = deployment["spec"]["strategy"].get("rollingUpdate")
            assert rolling is None or rolling["maxUnavailable"] == 0


def test_verifiers_read_their_artifacts_and_write_none(manifests: list[Manifest]) -> None:
    for name, pod in pod_templates(manifests).items():
        for container in pod["spec"]["containers"]:
            for mount in container["volumeMounts"]:
                if mount["name"] == "artifacts" and container["name"] != "artifacts":
                    assert mount["readOnly"] is True, name


def test_artifacts_pulled_are_those_of_the_digest() -> None:
    pod = pod_templates(rendered("pulled"))["rewards-bioverify-go-rouge"]
    (pull,) = pod["spec"]["initContainers"]
    assert pull["args"] == [
        "data",
        "pull",
        "s3://models/bioverify",
        "genes@sha256:" + 64 * "1",
        "go_rouge@sha256:" + 64 * "2",
    ]
    assert pull["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    # Without a digest it is what the bucket names as current.
    (pull,) = pod_templates(rendered("pulled"))["rewards-bioverify-esm-mlp"]["spec"]["initContainers"]
    assert pull["args"][-1] == "esm_mlp"


def amount(text: str) -> float:
    """Of CPU, or of memory in MiB."""
    number = float(re.sub(r"[A-Za-z]+$", "", text))
    return number * {"m": 0.001, "": 1, "Mi": 1, "Gi": 1024}[text.lstrip("0123456789.")]


def test_the_docs_say_what_a_default_release_asks_of_a_cluster() -> None:
    pods = pod_templates(rendered("default"))
    asked = {
        name.removeprefix(f"{PART_OF}-"): [
            amount(pod["spec"]["containers"][0]["resources"]["requests"][kind]) for kind in ("cpu", "memory")
        ]
        for name, pod in pods.items()
    }
    job = next(each for name, each in asked.items() if name.startswith("artifacts-"))
    served = [each for name, each in asked.items() if name != "test" and not name.startswith("artifacts-")]
    cpus, memory = (sum(column) for column in zip(*served, strict=True))
    docs = " ".join((ROOT / "docs" / "kubernetes.md").read_text().split())
    assert f"room for {cpus:.1f} CPUs and {memory / 1024:.1f} GiB that the default release asks for" in docs
    assert f"and {job[0]:.0f} CPU and {job[1] / 1024:.1f} GiB of the job" in docs
    bound = [
        asked[name.removeprefix(f"{PART_OF}-")]
        for name, pod in pods.items()
        if "bioverify.io/volume" in pod["metadata"]["labels"] and "-artifacts-" not in name
    ]
    cpus, memory = (sum(column) for column in zip(*bound, strict=True))
    readme = " ".join((CHART / "README.md").read_text().split())
    assert f"run on one node ({cpus:.0f} cores and {memory / 1024:.1f} GiB, and beside them the job)" in readme


def test_a_changed_build_is_another_job() -> None:
    (before,) = of_kind(rendered("default"), "Job")
    (after,) = of_kind(rendered("default", "images.tag=v2"), "Job")
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_gpus_are_asked_for_where_the_values_say_so() -> None:
    spec = pod_templates(rendered("gpu"))["rewards-bioverify-esm-mlp"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    other = pod_templates(rendered("gpu"))["rewards-bioverify-go-rouge"]["spec"]
    assert "nvidia.com/gpu" not in other["containers"][0]["resources"]["limits"]


def test_the_password_of_redis_stands_on_no_command_line() -> None:
    container = named(rendered("claim"), "Deployment", "aggregator")["spec"]["template"]["spec"]["containers"][0]
    assert not [each for each in container["args"] if "redis" in each]
    (variable,) = container["env"]
    assert variable == {
        "name": "BIOVERIFY_REDIS_URL",
        "valueFrom": {"secretKeyRef": {"name": "redis", "key": "address"}},
    }
    assert not [one for one in of_kind(rendered("claim"), "Deployment") if one["metadata"]["name"].endswith("-cache")]


def test_replicas_are_left_to_an_autoscaler_where_there_is_one() -> None:
    manifests = rendered("production")
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    }
    assert scaled == {f"rewards-bioverify-{part}" for part in ("go-rouge", "format", "aggregator")}
    for deployment in of_kind(manifests, "Deployment"):
        assert ("replicas" in deployment["spec"]) == (deployment["metadata"]["name"] not in scaled)


def test_keda_scales_by_the_seconds_that_a_call_waits() -> None:
    (scaled,) = of_kind(rendered("scaled_by_queue"), "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metricType"] == "Value"
    assert trigger["metadata"]["threshold"] == "0.1"
    (waiting,) = QUEUE_SECONDS.describe()
    for series in (f"{waiting.name}_sum", f"{waiting.name}_count"):
        assert (
            f'{series}{{namespace="biology",service="rewards-bioverify-go-rouge",verifier="go_rouge"}}'
            in trigger["metadata"]["query"]
        )


def test_names_stay_within_what_kubernetes_allows() -> None:
    manifests = rendered("default", "fullnameOverride=a-name-that-is-much-longer-than-anyone-would-want-it-to-be")
    assert max(len(one["metadata"]["name"]) for one in of_kind(manifests, "Service", "Deployment")) <= 63
