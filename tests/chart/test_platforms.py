"""The chart where it is really installed: what each set of values promises of the platform that it is named after."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART as CHART_FOLDER
from tests.chart.helm import (
    NAMESPACE,
    VALUES,
    Manifest,
    containers,
    named,
    of_kind,
    pod_templates,
    rendered,
    rendered_text,
    run_helm,
    template,
    value_sets,
)
from tests.chart.network import Peer, is_allowed, peers

pytestmark = pytest.mark.chart


def every_container(manifests: list[Manifest]) -> list[tuple[str, Manifest]]:
    return [
        (f"{name}/{each['name']}", each) for name, pod in pod_templates(manifests).items() for each in containers(pod)
    ]


def parts(manifests: list[Manifest]) -> set[str]:
    """Which kinds of pods there are: a test over all pods is none if the job or the cache is not among them."""
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pod_templates(manifests).values()}


# One setting after the other, put on all pods, and where it then stands in a pod or a container.
OF_PODS = {
    "pods.podLabels.team=biology": lambda pod: pod["metadata"]["labels"].get("team") == "biology",
    "pods.podAnnotations.owner=lab": lambda pod: pod["metadata"]["annotations"]["owner"] == "lab",
    "pods.nodeSelector.disk=fast": lambda pod: pod["spec"]["nodeSelector"] == {"disk": "fast"},
    "pods.tolerations[0].key=pool": lambda pod: {"key": "pool"} in pod["spec"]["tolerations"],
    "pods.affinity.nodeAffinity.x=y": lambda pod: pod["spec"]["affinity"]["nodeAffinity"] == {"x": "y"},
    "pods.priorityClassName=high": lambda pod: pod["spec"]["priorityClassName"] == "high",
    "images.pullSecrets[0]=registry": lambda pod: pod["spec"]["imagePullSecrets"] == [{"name": "registry"}],
    "pods.podSecurityContext.runAsUser=4000": lambda pod: pod["spec"]["securityContext"]["runAsUser"] == 4000,
    "pods.podSecurityContext.runAsUser=null": lambda pod: "runAsUser" not in pod["spec"]["securityContext"],
    "pods.podSecurityContext=null": lambda pod: "securityContext" not in pod["spec"],
    "pods.extraVolumes[0].name=more": lambda pod: {"name": "more"} in pod["spec"]["volumes"],
}
OF_CONTAINERS = {
    "images.registry=registry.example.org": lambda one: one["image"].startswith("registry.example.org/"),
    "pods.env[0].name=HTTPS_PROXY": lambda one: {"name": "HTTPS_PROXY"} in one["env"],
    "pods.envFrom[0].prefix=P_": lambda one: {"prefix": "P_"} in one["envFrom"],
    "pods.extraVolumeMounts[0].name=more": lambda one: {"name": "more"} in one["volumeMounts"],
    "pods.resources.limits.cpu=3000m": lambda one: one["resources"]["limits"]["cpu"] == "3000m",
    "pods.containerSecurityContext.privileged=false": lambda one: one["securityContext"]["privileged"] is False,
    "pods.containerSecurityContext=null": lambda one: "securityContext" not in one,
    "caBundle.secret=authorities": lambda one: (
        {"name": "SSL_CERT_FILE", "value": "/etc/bioverify/ca/ca.crt"} in one["env"]
    ),
    "images.pullPolicy=Always": lambda one: one["imagePullPolicy"] == "Always",
}


@pytest.mark.parametrize("change", OF_PODS)
@pytest.mark.parametrize("values", ["default", "pulled"])
def test_what_is_said_of_all_pods_holds_for_every_pod(values: str, change: str) -> None:
    manifests = rendered(values, change)
    expected = {"verifier", "aggregator", "gateway", "cache", "test"}
    assert parts(manifests) == expected | ({"artifacts"} if values == "default" else set())
    assert [name for name, pod in pod_templates(manifests).items() if not OF_PODS[change](pod)] == []


@pytest.mark.parametrize("change", OF_CONTAINERS)
@pytest.mark.parametrize("values", ["default", "pulled"])
def test_what_is_said_of_all_pods_holds_for_every_container_and_init_container(values: str, change: str) -> None:
    found = every_container(rendered(values, change))
    assert {"wait-for-artifacts" if values == "default" else "pull", "cache", "score"} <= {
        one["name"] for _, one in found
    }
    assert [name for name, one in found if not OF_CONTAINERS[change](one)] == []


OWN = {
    "verifierDefaults": "go-rouge",
    "aggregator": "aggregator",
    "gateway": "gateway",
    "valkey": "cache",
    "artifacts.build": "artifacts",
    "test": "test",
}


@pytest.mark.parametrize("block", OWN)
def test_what_a_pod_has_of_its_own_wins_and_is_its_own_alone(block: str) -> None:
    changes = [
        f"pods.nodeSelector.pool=all,{block}.nodeSelector.pool=own",
        f"pods.env[0].name=ALL,{block}.env[0].name=OWN",
        f"{block}.podSecurityContext.runAsUser=5000,{block}.resources.limits.memory=9Gi",
        f"{block}.priorityClassName=own",
    ]
    pods = pod_templates(rendered("default", *changes))
    own = [pod for name, pod in pods.items() if name.startswith(f"rewards-bioverify-{OWN[block]}")]
    assert own
    others = [
        pod
        for pod in pods.values()
        if pod not in own and (block != "verifierDefaults" or "bioverify.io/verifier" not in pod["metadata"]["labels"])
    ]
    assert others
    for pod in own:
        spec = pod["spec"]
        assert spec["nodeSelector"] == {"pool": "own"}
        assert spec["priorityClassName"] == "own"
        assert spec["securityContext"]["runAsUser"] == 5000
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert [each["name"] for each in spec["containers"][0]["env"]][-2:] == ["ALL", "OWN"]
        if block != "verifierDefaults":  # each verifier has a limit of memory of its own
            assert spec["containers"][0]["resources"]["limits"]["memory"] == "9Gi"
    for pod in others:
        assert pod["spec"]["nodeSelector"] == {"pool": "all"}
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert "priorityClassName" not in pod["spec"]


def test_no_label_of_a_person_takes_the_place_of_one_that_a_service_selects_by() -> None:
    manifests = rendered("default", "pods.podLabels.app\\.kubernetes\\.io/component=mine")
    assert "mine" not in parts(manifests)


@pytest.mark.parametrize("values", [name for name in value_sets() if name != "openshift"])
def test_every_pod_is_admitted_where_restricted_is_enforced(values: str) -> None:
    """Kubernetes' Pod Security Standards, level restricted, as far as a pod of the chart could break it."""
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected", "csi", "downwardAPI"}
    for name, pod in pod_templates(rendered(values)).items():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"]), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        for container in containers(pod):
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name
            assert not rights.get("privileged"), name
            assert all("hostPort" not in port for port in container.get("ports", ())), name


def test_openshift_chooses_the_users_and_its_names_and_routers_are_let_through() -> None:
    manifests = rendered("openshift")
    for name, pod in pod_templates(manifests).items():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["spec"]["securityContext"]), name
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, name
    names = Peer("names", "openshift-dns", {}, {5353: "dns"})
    reaching = {pod.name for pod in peers(manifests) if is_allowed(manifests, pod, names, 5353)}
    assert {pod.name for pod in peers(manifests)} - reaching == {"rewards-bioverify-cache"}
    udp = [
        port
        for policy in of_kind(manifests, "NetworkPolicy")
        for rule in policy["spec"]["egress"]
        for port in rule.get("ports", ())
        if port["protocol"] == "UDP"
    ]
    assert udp
    assert {port["port"] for port in udp} == {5353}


def test_every_service_takes_both_families_unless_told_otherwise() -> None:
    for service in of_kind(rendered("default"), "Service"):
        assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    for service in of_kind(rendered("ipv6"), "Service"):
        assert service["spec"]["ipFamilies"] == ["IPv6"]
        assert service["spec"]["ipFamilyPolicy"] == "SingleStack"


def test_whatever_listens_listens_at_the_address_of_the_values() -> None:
    manifests = rendered("default", "listenAddress=10.0.0.1")
    listening = [
        word
        for _, container in every_container(manifests)
        for word in container.get("args", ())
        if word.startswith("--listen=")
    ]
    assert len(listening) == 8
    assert all(word.startswith("--listen=10.0.0.1:") for word in listening)
    settings = yaml.safe_load(named(manifests, "ConfigMap", "gateway")["data"]["gateway.yaml"])
    assert settings["listen"] == "10.0.0.1:50059"
    # Where nothing is said, both families.
    settings = yaml.safe_load(named(rendered("default"), "ConfigMap", "gateway")["data"]["gateway.yaml"])
    assert settings["listen"] == "[::]:50059"


def test_a_quota_finds_every_amount_in_every_container_and_never_two_pods_for_one() -> None:
    manifests = rendered("quota")
    for name, container in every_container(manifests):
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}, (name, kind)
    job = of_kind(manifests, "Job")[0]["spec"]["template"]["spec"]["containers"][0]
    assert job["resources"]["limits"] == {"cpu": "2", "memory": "12Gi", "ephemeral-storage": "8Gi"}
    for deployment in of_kind(manifests, "Deployment"):
        if not deployment["metadata"]["name"].endswith("cache"):
            assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_an_init_container_asks_for_no_more_than_its_pod_does_anyway() -> None:
    for values in ("default", "pulled", "gpu"):
        for pod in pod_templates(rendered(values)).values():
            main = pod["spec"]["containers"][0]["resources"]
            for one in pod["spec"].get("initContainers", ()):
                assert one["resources"]["requests"].items() <= main["requests"].items()


def test_a_mesh_is_in_every_pod_and_its_tunnel_and_control_plane_pass_the_policies() -> None:
    manifests = rendered("mesh")
    plane = Peer("istiod", "istio-system", {}, {15012: "tls"})
    neighbour = Peer("neighbour", "elsewhere", {}, {15008: "tunnel"})
    for pod in peers(manifests):
        assert pod.labels["sidecar.istio.io/inject"] == "true"
        assert is_allowed(manifests, pod, plane, 15012), pod.name
        assert is_allowed(manifests, pod, neighbour, 15008), pod.name
        assert is_allowed(manifests, neighbour, pod, 15008), pod.name
        assert not is_allowed(manifests, neighbour, pod, 50051), pod.name
    # A mesh reads the protocol off the port; what it would take apart it must not guess.
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            assert "appProtocol" in port or port["name"] == "metrics"


def test_without_a_way_out_every_image_file_and_connection_stays_inside() -> None:
    manifests = rendered("airgapped")
    assert {each["image"].rpartition("/")[0] for _, each in every_container(manifests)} == {
        "registry.example.org/biology/bioverify",
        "registry.example.org/biology/valkey",
    }
    for pod in pod_templates(manifests).values():
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        for container in containers(pod):
            given = {each["name"]: each.get("value") for each in container["env"]}
            for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
                assert given[variable] == "/etc/bioverify/ca/ca-bundle.crt"
            assert {"name": "ca", "mountPath": "/etc/bioverify/ca", "readOnly": True} in container["volumeMounts"]
    world, minio = Peer("world", "elsewhere", {}, {443: "https"}), Peer("minio", "storage", {}, {9000: "s3"})
    pods = peers(manifests)
    assert not [pod.name for pod in pods if is_allowed(manifests, pod, world, 443)]
    pulling = {
        name
        for name, pod in pod_templates(manifests).items()
        if any(one["name"] == "pull" for one in pod["spec"].get("initContainers", ()))
    }
    assert pulling
    assert {pod.name for pod in pods if is_allowed(manifests, pod, minio, 9000)} == pulling


def test_an_image_of_ones_own_is_taken_as_it_stands_and_one_registry_may_differ() -> None:
    manifests = rendered("own_verifier", "images.registry=mirror.example.org", "valkey.image.registry=docker.io")
    images = {name.partition("/")[0]: each["image"] for name, each in every_container(manifests)}
    assert images["rewards-bioverify-cell-sim"] == "registry.example.org/lab/cell-sim:3"
    assert images["rewards-bioverify-cache"] == "docker.io/valkey/valkey:8.1-alpine"
    assert images["rewards-bioverify-gateway"].startswith("mirror.example.org/bioverify/gateway:")


def test_a_render_without_a_cluster_is_the_same_twice_where_the_key_is_given() -> None:
    arguments = ("--values", str(VALUES / "gitops.yaml"))
    first, second = template(*arguments).stdout, template(*arguments).stdout
    assert first == second
    assert not of_kind(rendered("gitops"), "Secret")


def test_a_key_made_without_a_cluster_says_what_to_do_and_no_tool_is_asked_to_apply_it_again() -> None:
    text = rendered_text("default")
    (secret,) = of_kind(rendered("default"), "Secret")
    annotations = secret["metadata"]["annotations"]
    assert "gateway.keys.existingSecret" in annotations["bioverify.io/notice"]
    assert "gateway.keys.existingSecret" in text.partition("stringData")[0].rpartition("---")[2]
    # A hook is in no revision, so neither an upgrade nor a rollback can write an old key over a new one.
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    # It would be taken away before it is made.
    assert annotations["helm.sh/hook-delete-policy"] == "hook-failed"
    assert annotations["argocd.argoproj.io/hook"] == "Skip"


def release(name: str, *arguments: str) -> list[Manifest]:
    done = run_helm("template", name, str(CHART_FOLDER), "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one]


LONG = "a-release-with-a-name-that-says-its-purpose"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rewards", "rewards-2"),
        (f"{LONG}-1", f"{LONG}-2"),
        ("bioverify-of-the-first-group-of-the-institute", "bioverify-of-the-first-group-of-the-institution"),
    ],
)
def test_two_releases_in_a_namespace_share_nothing(one: str, other: str) -> None:
    arguments = ("--values", str(VALUES / "scaled_by_queue.yaml"), "--set", "monitoring.serviceMonitor=true")
    first, second = release(one, *arguments), release(other, *arguments)
    names = [{(each["kind"], each["metadata"]["name"]) for each in made} for made in (first, second)]
    assert names[0].isdisjoint(names[1])
    # Whatever selects pods or services of the one takes none of the other.
    things = [[pod["metadata"]["labels"] for pod in pod_templates(made).values()] for made in (first, second)]
    for made, foreign in ((first, things[1]), (second, things[0])):
        own_services = [each["metadata"]["labels"] for each in of_kind(made, "Service")]
        for selector in selectors(made):
            assert not [labels for labels in foreign if selector.items() <= labels.items()], selector
            assert any(selector.items() <= labels.items() for labels in [*things[made is second], *own_services])
    for made in (first, second):
        (scaled,) = of_kind(made, "ScaledObject")
        assert f'service="{scaled["metadata"]["name"]}"' in scaled["spec"]["triggers"][0]["metadata"]["query"]
        for each in made:
            assert len(each["metadata"]["name"]) <= 63
            # The rules know our services by it.
            assert each["kind"] != "Service" or "bioverify" in each["metadata"]["name"]


def selectors(manifests: list[Manifest]) -> list[dict[str, str]]:
    """Every selector that the chart writes, except for who comes from elsewhere."""
    found = []
    for one in manifests:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            found.append(spec["selector"])
        if one["kind"] != "Service":
            found += [spec[key]["matchLabels"] for key in ("selector", "podSelector") if key in spec]
        pod = spec.get("template", {}).get("spec", {})
        found += [each["labelSelector"]["matchLabels"] for each in pod.get("topologySpreadConstraints", ())]
        terms = pod.get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", ())
        found += [term["labelSelector"]["matchLabels"] for term in terms]
    assert found
    return found


def test_a_name_that_is_cut_is_not_the_name_of_another_that_is_cut() -> None:
    long = [f"{'n' * 30}{letter}" for letter in "abc"]
    fullnames = {release(name)[0]["metadata"]["name"] for name in (*long, "n" * 31, "n" * 40)}
    assert len(fullnames) == 5
    overridden = {release("x", "--set", f"fullnameOverride={name}-{name}")[0]["metadata"]["name"] for name in long}
    assert len(overridden) == 3


def test_tainted_arm64_nodes_take_every_pod_and_own_tolerations_are_added() -> None:
    pods = pod_templates(rendered("arm64"))
    for name, pod in pods.items():
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}, name
        assert "kubernetes.io/arch" in {each["key"] for each in pod["spec"]["tolerations"]}, name
    assert len(pods["rewards-bioverify-esm-mlp"]["spec"]["tolerations"]) == 2


def test_a_load_balancer_is_what_the_values_say_and_grpc_has_a_route() -> None:
    manifests = rendered("load_balancer")
    service = named(manifests, "Service", "gateway")
    assert service["metadata"]["annotations"] == {"service.beta.kubernetes.io/aws-load-balancer-scheme": "internal"}
    spec = {key: value for key, value in service["spec"].items() if key not in ("ports", "selector", "ipFamilyPolicy")}
    assert spec == {
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["10.0.0.0/8", "192.168.0.0/16"],
        "loadBalancerClass": "service.k8s.aws/nlb",
        "externalTrafficPolicy": "Local",
    }
    (route,) = of_kind(manifests, "GRPCRoute")
    (behind,) = route["spec"]["rules"][0]["backendRefs"]
    target = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == behind["name"]]
    assert behind["port"] in {port["port"] for port in target[0]["spec"]["ports"]}
    aggregator = next(pod for pod in peers(manifests) if pod.name.endswith("-aggregator"))
    assert is_allowed(manifests, Peer("envoy", "gateways", {}), aggregator, 50050)


@pytest.mark.parametrize("values", ["gke", "load_balancer", "ingress", "openshift", "k3s"])
def test_every_door_leads_to_a_port_that_its_service_has(values: str) -> None:
    manifests = rendered(values)
    ports = {
        (one["metadata"]["name"], key): True
        for one in of_kind(manifests, "Service")
        for port in one["spec"]["ports"]
        for key in (port["name"], port["port"])
    }
    behind = [
        (path["backend"]["service"]["name"], path["backend"]["service"]["port"]["name"])
        for one in of_kind(manifests, "Ingress")
        for rule in one["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    behind += [
        (each["name"], each["port"])
        for one in of_kind(manifests, "HTTPRoute", "GRPCRoute")
        for each in one["spec"]["rules"][0]["backendRefs"]
    ]
    assert behind
    assert [each for each in behind if each not in ports] == []


def test_grpc_has_an_ingress_where_it_is_asked_for() -> None:
    manifests = rendered("default", "aggregator.ingress.enabled=true,aggregator.ingress.host=grpc.example.org")
    (ingress,) = of_kind(manifests, "Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "rewards-bioverify-aggregator", "port": {"name": "grpc"}}


def test_a_gateway_without_keys_knows_the_names_of_its_route() -> None:
    manifests = rendered(
        "default",
        "gateway.keys.openToAnyone=true",
        "gateway.route.parentRefs[0].name=g,gateway.route.hostnames={rewards.example.org}",
    )
    settings = yaml.safe_load(named(manifests, "ConfigMap", "gateway")["data"]["gateway.yaml"])
    assert "rewards.example.org" in settings["allowed_hosts"]


@pytest.mark.parametrize(
    ("values", "address", "port"),
    [("eks", "169.254.170.23", 80), ("gke", "169.254.169.252", 988), ("gke", "169.254.169.254", 80)],
)
def test_a_clouds_identity_is_reached_by_the_pods_that_pull_and_by_no_other(
    values: str, address: str, port: int
) -> None:
    manifests = rendered(values)
    asking = {
        policy["metadata"]["name"]
        for policy in of_kind(manifests, "NetworkPolicy")
        for rule in policy["spec"]["egress"]
        for peer in rule.get("to", ())
        if peer.get("ipBlock", {}).get("cidr") == f"{address}/32" and [each["port"] for each in rule["ports"]] == [port]
    }
    pulling = {
        name
        for name, pod in pod_templates(manifests).items()
        if any(one["name"] == "pull" for one in pod["spec"].get("initContainers", ()))
    }
    assert asking == pulling


def test_the_job_that_builds_reaches_the_sources_and_the_pods_that_open_do_not() -> None:
    manifests = rendered("default", "networkPolicies.downloads[0].ports[0].port=3128")
    proxy, store = Peer("proxy", "elsewhere", {}, {3128: "proxy"}), Peer("store", "elsewhere", {}, {443: "https"})
    reaching = {pod.name.rpartition("-")[0] for pod in peers(manifests) if is_allowed(manifests, pod, proxy, 3128)}
    assert reaching == {"rewards-bioverify-artifacts"}
    assert not [pod.name for pod in peers(manifests) if is_allowed(manifests, pod, store, 443)]


@pytest.mark.parametrize(
    ("change", "classes"),
    [
        ("images.tag=x", [None, None]),
        ("artifacts.build.storageClass=,gateway.jobs.storageClass=", ["", ""]),
        ("artifacts.build.storageClass=null,gateway.jobs.storageClass=null", [None, None]),
        ("artifacts.build.storageClass=fast,gateway.jobs.storageClass=slow", ["fast", "slow"]),
    ],
)
def test_no_class_the_empty_class_and_a_named_one_are_three_things(change: str, classes: list[str | None]) -> None:
    claims = of_kind(rendered("default", change), "PersistentVolumeClaim")
    assert [claim["spec"].get("storageClassName") for claim in claims] == classes
    assert [("storageClassName" in claim["spec"]) for claim in claims] == [one is not None for one in classes]


def test_a_volume_of_one_node_draws_all_who_open_it_to_that_node() -> None:
    manifests = rendered("default")
    claim = of_kind(manifests, "PersistentVolumeClaim")[0]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    pods = pod_templates(manifests)
    for name, pod in pods.items():
        opens = any(
            "artifacts" in each.get("persistentVolumeClaim", {}).get("claimName", "") for each in pod["spec"]["volumes"]
        )
        terms = (
            pod["spec"]
            .get("affinity", {})
            .get("podAffinity", {})
            .get("requiredDuringSchedulingIgnoredDuringExecution", [])
        )
        assert bool(terms) == opens, name
        for term in terms:
            assert term["topologyKey"] == "kubernetes.io/hostname"
            # It chooses itself, else the first pod would wait for a first pod.
            assert term["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert len([pod for pod in pods.values() if "bioverify.io/volume" in pod["metadata"]["labels"]]) == 8


def test_an_affinity_of_ones_own_stays_beside_that_of_the_volume() -> None:
    own = "aggregator.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=zone"
    manifests = rendered("default", own, "aggregator.affinity.nodeAffinity.x=y")
    affinity = named(manifests, "Deployment", "aggregator")["spec"]["template"]["spec"]["affinity"]
    terms = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [term["topologyKey"] for term in terms] == ["zone", "kubernetes.io/hostname"]
    assert affinity["nodeAffinity"] == {"x": "y"}


@pytest.mark.parametrize("change", ["artifacts.build.accessMode=ReadWriteMany", "artifacts.existingClaim=shared"])
def test_a_volume_of_many_nodes_binds_nobody_to_one(change: str) -> None:
    assert not [pod for pod in pod_templates(rendered("default", change)).values() if "affinity" in pod["spec"]]


def test_a_job_that_failed_is_tried_again_by_any_change_of_its_pod() -> None:
    """For those who have values and no kubectl; docs/runbooks/artifacts-job-failed.md has both ways."""
    names = {
        of_kind(rendered("default", *change), "Job")[0]["metadata"]["name"]
        for change in ((), ("artifacts.build.podAnnotations.retry=a",), ("artifacts.build.podAnnotations.retry=b",))
    }
    assert len(names) == 3


def test_the_password_of_redis_is_a_file_of_a_secret_so_that_a_rotated_one_is_read() -> None:
    spec = named(rendered("restricted"), "Deployment", "aggregator")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "--redis-password-file=/etc/bioverify/redis/password" in container["args"]
    assert [word for word in container["args"] if word.startswith("--redis-url=redis+sentinel://")]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "redis"]
    # A file mounted by subPath is never renewed.
    assert "subPath" not in mount
    (volume,) = [each for each in spec["volumes"] if each["name"] == "redis"]
    assert volume["secret"]["secretName"] == "redis-password"
    assert not [
        one for one in of_kind(rendered("restricted"), "Deployment") if one["metadata"]["name"].endswith("cache")
    ]


@pytest.mark.parametrize("values", ["default", "restricted"])
def test_what_the_cache_remembers_is_signed_with_a_file_of_a_secret(values: str) -> None:
    manifests = rendered(values, "aggregator.cacheSecret=signing", "aggregator.cacheSecretKey=text")
    spec = named(manifests, "Deployment", "aggregator")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "--cache-secret-file=/etc/bioverify/cache/text" in container["args"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "cache-secret"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/bioverify/cache", True)
    (volume,) = [each for each in spec["volumes"] if each["name"] == "cache-secret"]
    assert volume["secret"] == {
        "secretName": "signing",
        "defaultMode": 0o440,
        "items": [{"key": "text", "path": "text"}],
    }


def test_the_cache_has_the_options_of_the_cache_in_compose() -> None:
    compose = yaml.safe_load((CHART_FOLDER.parents[1] / "docker-compose.yml").read_text())
    of_compose = compose["services"]["cache"]["command"][1:]
    container = named(rendered("default"), "Deployment", "cache")["spec"]["template"]["spec"]["containers"][0]
    both = [dict(zip(words[::2], words[1::2], strict=True)) for words in (of_compose, container["args"])]
    assert both[0].keys() == both[1].keys()
    assert {key: value for key, value in both[0].items() if key != "--maxmemory"} == {
        key: value for key, value in both[1].items() if key != "--maxmemory"
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("aggregator.ingress.enabled=true,aggregator.ingress.host=grpc.example.org", "the aggregator asks for no key"),
        ("aggregator.route.parentRefs[0].name=g", "the aggregator asks for no key"),
        ("gateway.service.type=LoadBalancer", "takes callers of every network"),
        ("gateway.service.type=NodePort", "keys come to the gateway's service in plain HTTP"),
        (
            "gateway.keys.openToAnyone=true,gateway.ingress.enabled=true,gateway.ingress.host=a.example.org",
            "asks for no key (gateway.keys.openToAnyone)",
        ),
        ("images.tag=x", "make a secret and set gateway.keys.existingSecret"),
    ],
)
def test_a_door_that_stands_open_is_said_after_an_installation(changes: str, said: str, tmp_path: Path) -> None:
    # Helm shows notes after it has spoken to a cluster; here they are the text of a config map.
    chart = tmp_path / "chart"
    shutil.copytree(CHART_FOLDER, chart)
    notes = chart / "templates" / "NOTES.txt"
    (chart / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + notes.read_text() + "{{ end }}")
    notes.unlink()
    (chart / "templates" / "notes.yaml").write_text(
        'kind: ConfigMap\nmetadata: {name: notes}\ndata:\n  text: |\n    {{- include "notes" . | nindent 4 }}\n'
    )

    def shown(*arguments: str) -> str:
        made = [one for one in yaml.safe_load_all(template(*arguments, chart=chart).stdout) if one]
        (text,) = [one["data"]["text"] for one in made if one["metadata"]["name"] == "notes"]
        return str(text)

    assert "NOTE: " in shown("--set", changes)
    assert said in shown("--set", changes)
    # And nothing of the kind is said where there is no reason.
    assert "NOTE: " not in shown("--set", "gateway.keys.existingSecret=keys-of-ours")
