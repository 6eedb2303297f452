"""Who may speak to whom under NetworkPolicies: what a cluster's network would enforce, as far as the chart uses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chart.helm import NAMESPACE, Manifest, of_kind, pod_templates


@dataclass(frozen=True)
class Peer:
    """A pod. ``ports``: number → name."""

    name: str
    namespace: str
    labels: Mapping[str, str] = field(hash=False)
    ports: Mapping[int, str] = field(default_factory=dict, hash=False)


def peers(manifests: Iterable[Manifest]) -> list[Peer]:
    """The pods of a release."""
    found = []
    for name, pod in pod_templates(manifests).items():
        ports = {
            port["containerPort"]: port["name"]
            for container in pod["spec"]["containers"]
            for port in container.get("ports", ())
        }
        found.append(Peer(name, NAMESPACE, pod["metadata"]["labels"], ports))
    return found


def is_allowed(policies: Iterable[Manifest], source: Peer, target: Peer, port: int) -> bool:
    """Whether a TCP connection may be made: the source's policies let it out, and the target's let it in."""
    of_source = [one for one in of_kind(policies, "NetworkPolicy") if _applies(one, source)]
    of_target = [one for one in of_kind(policies, "NetworkPolicy") if _applies(one, target)]
    return _lets(of_source, "egress", target, target, port) and _lets(of_target, "ingress", source, target, port)


def _applies(policy: Manifest, pod: Peer) -> bool:
    return pod.namespace == NAMESPACE and _matches(policy["spec"]["podSelector"], pod.labels)


def _lets(policies: list[Manifest], way: str, other: Peer, target: Peer, port: int) -> bool:
    chosen = [one["spec"] for one in policies if way.capitalize() in one["spec"]["policyTypes"]]
    if not chosen:
        return True
    side = {"egress": "to", "ingress": "from"}[way]
    return any(
        (not rule.get(side) or any(_is(peer, other) for peer in rule[side]))
        and (not rule.get("ports") or any(_has(entry, target, port) for entry in rule["ports"]))
        for spec in chosen
        for rule in spec.get(way, ())
    )


def _has(entry: Mapping[str, Any], target: Peer, port: int) -> bool:
    return entry.get("protocol", "TCP") == "TCP" and entry["port"] in (port, target.ports.get(port))


def _is(peer: Mapping[str, Any], pod: Peer) -> bool:
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        where = _matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": pod.namespace})
    else:
        where = pod.namespace == NAMESPACE
    return where and _matches(peer.get("podSelector", {}), pod.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"only matchLabels are understood here: {selector}"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
