"""The chart's release in a cluster: installed, upgraded, rolled back and taken away by Helm itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import NAMESPACE, RELEASE, ROOT, VALUES, Manifest, helm
from tests.cluster.older import ENOUGH
from tests.cluster.server import Server


@dataclass(frozen=True)
class Release:
    server: Server
    chart: Path
    home: Path

    def helm(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(helm()), *arguments, "--namespace", NAMESPACE, "--kubeconfig", str(self.server.kubeconfig)],
            capture_output=True, text=True, check=False, timeout=120,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def put(self, values: str) -> None:
        """Installed, or upgraded where it is there."""
        arguments = [
            "upgrade",
            "--install",
            "--history-max=0",
            RELEASE,
            str(self.chart),
            "--values",
            str(VALUES / f"{values}.yaml"),
        ]
        if self.server.minor < ENOUGH:
            arguments += ["--post-renderer", sys.executable]
            arguments += [f"--post-renderer-args={word}" for word in ("-m", "tests.cluster.older")]
        self.helm(*arguments)

    def manifests(self) -> list[Manifest]:
        """What Helm gave to the server last."""
        text = self.helm("get", "manifest", RELEASE)
        return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]

    def hooks(self) -> list[Manifest]:
        return [one for one in yaml.load_all(self.helm("get", "hooks", RELEASE), Loader=yaml.CSafeLoader) if one]


def address(server: Server, manifest: Manifest) -> str:
    """Where things of its kind lie, as the server itself says."""
    version = manifest["apiVersion"]
    root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    (found,) = [
        one for one in server.ask(root)["resources"] if one["kind"] == manifest["kind"] and "/" not in one["name"]
    ]
    return f"{root}/namespaces/{NAMESPACE}/{found['name']}" if found["namespaced"] else f"{root}/{found['name']}"


def left_over(server: Server) -> list[Manifest]:
    """Everything in the namespace that carries the release's label, of whatever kind."""
    groups = [group["preferredVersion"]["groupVersion"] for group in server.ask("/apis")["groups"]]
    found: list[Manifest] = []
    for version in ["v1", *groups]:
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        for kind in server.ask(root)["resources"]:
            if kind["namespaced"] and "/" not in kind["name"] and "list" in kind["verbs"]:
                listed: dict[str, Any] = server.ask(f"{root}/namespaces/{NAMESPACE}/{kind['name']}")
                found += [
                    one | {"apiVersion": version, "kind": kind["kind"]}
                    for one in listed["items"]
                    if one["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
                ]
    return found
