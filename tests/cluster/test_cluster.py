"""The chart and the manifests for training before a real API server: what it refuses, and what becomes of a release.

It judges what no schema says: names and their lengths, volumes that a mount names, ports, selectors, quantities, and
what may be changed by an upgrade. No pod runs.
"""

from __future__ import annotations

import base64
import copy
import json
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.helm import RELEASE, Manifest, named, of_kind, value_sets
from tests.chart.test_training import jobs, lost, manifests
from tests.cluster.older import ENOUGH, older
from tests.cluster.release import Release, address, left_over
from tests.cluster.server import Server

pytestmark = pytest.mark.cluster

# The set of values that asks for the artifacts' volume in another class and mode than all others.
OTHER_CLAIM = "private_registry"
KEPT = {"PersistentVolumeClaim", "Secret"}


def refusals(server: Server, manifest: Manifest) -> str:
    """What the server has against it; empty where it would take it."""
    try:
        server.ask(address(server, manifest) + "?dryRun=All", manifest)
    except urllib.error.HTTPError as error:
        return str(json.load(error)["message"])
    return ""


def stored(server: Server, manifest: Manifest) -> Manifest:
    return server.ask(f"{address(server, manifest)}/{manifest['metadata']['name']}")


def as_the_server_writes(written: Any, of: str = "") -> Any:
    """An empty list and none are one to it, and an amount is text."""
    if isinstance(written, dict):
        if of in ("requests", "limits"):
            return {key: str(value) for key, value in written.items()}
        return {key: as_the_server_writes(value, key) for key, value in written.items() if value != []}
    if isinstance(written, list):
        return [as_the_server_writes(one) for one in written]
    return written


@pytest.fixture
def fresh(release: Release) -> Iterator[Release]:
    """No release before, and none after."""
    yield release
    if RELEASE in release.helm("list", "--all", "--short").split():
        release.helm("uninstall", RELEASE)
    for kept in left_over(release.server):
        release.server.ask(f"{address(release.server, kept)}/{kept['metadata']['name']}", method="DELETE")


@pytest.mark.parametrize("values", value_sets())
def test_a_set_of_values_is_installed_as_written_and_taken_away(fresh: Release, values: str) -> None:
    fresh.put(values)
    for manifest in fresh.manifests():
        read = stored(fresh.server, manifest)
        # What a secret is written with as text it keeps as bytes.
        manifest["data"] = manifest.get("data", {}) | {
            name: base64.b64encode(text.encode()).decode() for name, text in manifest.pop("stringData", {}).items()
        }
        written = {key: manifest[key] for key in ("spec", "data") if manifest.get(key)}
        assert lost(as_the_server_writes(written), read) == [], manifest["metadata"]["name"]
    for hook in fresh.hooks():
        if fresh.server.minor < ENOUGH:
            hook = older(hook)
        assert refusals(fresh.server, hook) == ""
    fresh.helm("uninstall", RELEASE)
    assert {one["kind"] for one in left_over(fresh.server)} <= KEPT


def test_a_release_goes_from_every_set_of_values_to_the_next_and_back(fresh: Release) -> None:
    names = [name for name in value_sets() if name != OTHER_CLAIM]
    for values in [*names, names[0]]:
        fresh.put(values)
    fresh.helm("rollback", RELEASE, "1")


def test_a_claim_that_is_there_keeps_its_class_and_mode(fresh: Release) -> None:
    """As the chart's README says: Kubernetes lets nobody change them."""
    fresh.put("default")
    with pytest.raises(AssertionError, match="immutable after creation"):
        fresh.put(OTHER_CLAIM)


def test_an_upgrade_and_a_new_installation_keep_the_key(fresh: Release) -> None:
    def token() -> str:
        (secret,) = of_kind(fresh.manifests(), "Secret")
        return str(stored(fresh.server, secret)["data"]["token"])

    fresh.put("default")
    first = token()
    fresh.put("pulled")
    assert token() == first
    fresh.helm("uninstall", RELEASE)
    fresh.put("default")
    assert token() == first


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_a_manifest_for_training_is_taken(server: Server, manifest: Manifest) -> None:
    assert refusals(server, manifest) == ""
    # The jobs as the operators make them of it: by these names, with these pods.
    if manifest["kind"] in ("JobSet", "TrainingRuntime"):
        for job in jobs(manifest):
            made = copy.deepcopy(job["template"])
            labels = made.get("metadata", {}).get("labels", {})
            name = f"{manifest['metadata']['name']}-{job['name']}-0"
            made |= {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}}
            assert refusals(server, made) == ""


def test_the_server_would_see_a_mistake(fresh: Release) -> None:
    """Each of them passes the schemas."""
    fresh.put("default")
    deployment = named(fresh.manifests(), "Deployment", "aggregator")
    deployment["metadata"]["name"] = "another"
    pod = deployment["spec"]["template"]
    assert refusals(fresh.server, deployment) == ""

    def changed(path: str, value: object) -> str:
        wrong = copy.deepcopy(deployment)
        *steps, last = path.split(".")
        place = wrong["spec"]["template"]
        for step in steps:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
        return refusals(fresh.server, wrong)

    long = pod["metadata"]["labels"] | {"a": "b" * 64}
    assert "volumeMounts[0].name: Not found" in changed("spec.volumes", [])
    assert "selector" in changed("metadata.labels", {"a": "b"})
    assert "must be no more than 63 characters" in changed("metadata.labels", long)
    assert "quantities" in changed("spec.containers.0.resources", {"limits": {"memory": "1 GiB"}})
