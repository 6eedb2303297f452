"""The chart for a server older than the chart asks for: what it does not know yet, in the form that it does.

As a program: Helm's post-renderer, manifests in and out. Only what is named here is changed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml

# Below this the chart itself refuses to be installed; from it on nothing is changed.
ENOUGH = 30
VERSIONS = {"policy/v1": "policy/v1beta1", "autoscaling/v2": "autoscaling/v2beta2"}


def older(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same for Kubernetes 1.20, in place."""
    manifest["apiVersion"] = VERSIONS.get(manifest["apiVersion"], manifest["apiVersion"])
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Service":
        # Of both families there is a stable word since 1.23.
        for key in ("ipFamilyPolicy", "ipFamilies", "loadBalancerClass"):
            spec.pop(key, None)
    if manifest["kind"] == "PodDisruptionBudget":
        del spec["unhealthyPodEvictionPolicy"]
    pod = spec if manifest["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
    for spread in pod.get("topologySpreadConstraints", []):
        del spread["matchLabelKeys"]
    for container in pod.get("containers", []):
        for probe in (container.get(f"{name}Probe", {}) for name in ("startup", "readiness", "liveness")):
            if grpc := probe.pop("grpc", None):
                probe["tcpSocket"] = {"port": grpc["port"]}
        if sleep := container.get("lifecycle", {}).get("preStop", {}).pop("sleep", None):
            container["lifecycle"]["preStop"]["exec"] = {"command": ["sleep", str(sleep["seconds"])]}
    return manifest


if __name__ == "__main__":
    for one in filter(None, yaml.load_all(sys.stdin, Loader=yaml.CSafeLoader)):
        # JSON, in which no two readers of YAML differ.
        print("---", json.dumps(older(one)), sep="\n")
