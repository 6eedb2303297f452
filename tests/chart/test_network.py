"""Gateway → aggregator → verifiers, aggregator → cache, and nothing else."""

from __future__ import annotations

import pytest

from tests.chart.helm import NAMESPACE, PART_OF, of_kind, rendered, value_sets
from tests.chart.network import Peer, is_allowed, peers

pytestmark = pytest.mark.chart

PROMETHEUS = Peer("prometheus", "monitoring", {"app": "prometheus"})
STRANGER = Peer("stranger", NAMESPACE, {"app": "other"})
FOREIGNER = Peer("foreigner", "elsewhere", {"app": "other"})
TRAINER = Peer("trainer", NAMESPACE, {"bioverify.io/client": "true"})
NAMES = Peer("names", "kube-system", {"k8s-app": "kube-dns"}, {53: "dns"})
WORLD = Peer("world", "elsewhere", {}, {443: "https", 80: "http", 6379: "redis"})


def edges(values: str) -> set[tuple[str, str, str]]:
    """Every connection among the release's pods that its policies allow: from, to, port."""
    manifests = rendered(values)
    pods = peers(manifests)
    return {
        (_short(source), _short(target), name)
        for source in pods
        for target in pods
        if source is not target
        for port, name in target.ports.items()
        if is_allowed(manifests, source, target, port)
    }


def _short(pod: Peer) -> str:
    return pod.name.removeprefix(f"{PART_OF}-")


def test_the_services_speak_along_the_line_of_a_question_and_not_otherwise() -> None:
    verifiers = ("experimental", "go-rouge", "transcriptformer-pmi", "esm-mlp", "format", "analogy", "claims")
    assert edges("default") == {
        ("test", "gateway", "http"),
        ("gateway", "aggregator", "grpc"),
        ("aggregator", "cache", "redis"),
        *(("aggregator", verifier, "grpc") for verifier in verifiers),
    }


@pytest.mark.parametrize("values", ["tls_by_cert_manager", "own_verifier", "production", "pulled", "claim"])
def test_whatever_the_values_only_the_aggregator_reaches_a_verifier(values: str) -> None:
    manifests = rendered(values)
    verifiers = {_short(pod) for pod in peers(manifests) if pod.labels["app.kubernetes.io/component"] == "verifier"}
    found = edges(values)
    assert {edge for edge in found if edge[1] in verifiers} == {("aggregator", one, "grpc") for one in verifiers}
    assert {edge for edge in found if edge[0] in verifiers} == set()
    assert ("gateway", "aggregator", "grpc") in found


@pytest.mark.parametrize("values", [each for each in value_sets() if each != "one_verifier"])
def test_every_pod_is_under_a_policy_for_both_directions(values: str) -> None:
    manifests = rendered(values)
    for pod in peers(manifests):
        assert any(
            set(policy["spec"]["podSelector"]["matchLabels"].items()) <= set(pod.labels.items())
            and policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
            for policy in of_kind(manifests, "NetworkPolicy")
        ), pod.name


def test_who_comes_from_outside() -> None:
    manifests = rendered("default")
    by_name = {_short(pod): pod for pod in peers(manifests)}
    gateway, aggregator, verifier = by_name["gateway"], by_name["aggregator"], by_name["go-rouge"]
    reaches = {
        (source.name, _short(target), name)
        for source in (PROMETHEUS, STRANGER, FOREIGNER, TRAINER)
        for target in (gateway, aggregator, verifier, by_name["cache"])
        for port, name in target.ports.items()
        if is_allowed(manifests, source, target, port)
    }
    assert reaches == {
        ("prometheus", "aggregator", "metrics"),
        ("prometheus", "go-rouge", "metrics"),
        ("trainer", "aggregator", "grpc"),
        # The gateway asks for a key, so it may stand open within the cluster.
        *((source, "gateway", "http") for source in ("prometheus", "stranger", "foreigner", "trainer")),
    }


def test_a_gateway_with_named_callers_is_closed_to_others_but_not_to_helm_test() -> None:
    manifests = rendered("ingress")
    gateway = next(pod for pod in peers(manifests) if _short(pod) == "gateway")
    controller = Peer("controller", "ingress-nginx", {})
    assert is_allowed(manifests, controller, gateway, 50059)
    assert not is_allowed(manifests, STRANGER, gateway, 50059)
    assert ("test", "gateway", "http") in edges("ingress")


@pytest.mark.parametrize(
    ("values", "leave"),
    [
        ("default", {"artifacts"}),
        ("claim", set()),
        ("pulled", {"aggregator", "experimental", "go-rouge", "transcriptformer-pmi", "esm-mlp", "analogy", "claims"}),
    ],
)
def test_only_what_downloads_leaves_the_cluster_and_everything_else_resolves_names(
    values: str, leave: set[str]
) -> None:
    manifests = rendered(values)
    pods = peers(manifests)
    outside = {
        _short(pod).partition("-" if pod.labels["app.kubernetes.io/component"] == "artifacts" else "\0")[0]
        for pod in pods
        if is_allowed(manifests, pod, WORLD, 443)
    }
    assert outside == leave
    assert not [pod.name for pod in pods if is_allowed(manifests, pod, WORLD, 80)]
    resolving = {_short(pod) for pod in pods if is_allowed(manifests, pod, NAMES, 53)}
    assert {_short(pod) for pod in pods} - resolving <= {"cache"}
