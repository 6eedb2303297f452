"""One server for all of these tests; without its binaries they are skipped and say so."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from tests.chart.helm import CHART, NAMESPACE
from tests.chart.operators import SPECS
from tests.chart.test_training import MODELS
from tests.cluster.older import ENOUGH
from tests.cluster.release import Release
from tests.cluster.server import BINARIES, Server, binaries, running

_CLUSTER_WIDE = {"ResourceFlavor", "ClusterQueue"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = binaries()
    if found is None:
        pytest.skip(f"no {' and '.join(BINARIES)} in KUBEBUILDER_ASSETS or PATH (docs/kubernetes.md)")
    with running(tmp_path_factory.mktemp("cluster"), found) as started:
        started.ask("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        # The service account that a controller makes in every namespace; here there is none.
        started.ask(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
        _make_kinds(started)
        yield started


@pytest.fixture(scope="session")
def release(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Release:
    chart = tmp_path_factory.mktemp("chart") / "bioverify"
    shutil.copytree(CHART, chart, symlinks=False)
    if server.minor < ENOUGH:
        about = chart / "Chart.yaml"
        lines = about.read_text().splitlines(keepends=True)
        about.write_text("".join(line for line in lines if not line.startswith("kubeVersion:")))
    return Release(server, chart, tmp_path_factory.mktemp("home"))


def _make_kinds(server: Server) -> None:
    """The kinds of the operators, with any content: what is in them is checked by tests/chart."""
    trainer = {
        ("jobset.x-k8s.io/v1alpha2" if kind == "JobSet" else "trainer.kubeflow.org/v1alpha1", kind) for kind in MODELS
    }
    for api_version, kind in {*SPECS, *trainer}:
        group, version = api_version.split("/")
        plural = f"{kind.lower()}s"
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{plural}.{group}",
                # Groups of Kubernetes' own community ask for the approval that their CRDs carry.
                "annotations": {"api-approved.kubernetes.io": "unapproved, of the tests"},
            },
            "spec": {
                "group": group,
                "names": {"kind": kind, "plural": plural},
                "scope": "Cluster" if kind in _CLUSTER_WIDE else "Namespaced",
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                ],
            },
        }
        server.ask("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    _wait_until_served(server)


def _wait_until_served(server: Server) -> None:
    """CRDs are served a moment after they were made."""
    until = time.monotonic() + 60
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    while time.monotonic() < until:
        states = [
            {one["type"]: one["status"] for one in each.get("status", {}).get("conditions") or []}
            for each in server.ask(path)["items"]
        ]
        if all(state.get("Established") == "True" for state in states):
            return
        time.sleep(0.2)
    raise AssertionError(f"kinds that are not served: {states}")
