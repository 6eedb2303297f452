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

from tests.chart.helm import NAMESPACE, PART_OF, RELEASE, Manifest, named, of_kind, value_sets
from tests.chart.test_training import jobs, lost, manifests
from tests.cluster.older import ENOUGH, older
from tests.cluster.release import Release, address, left_over
from tests.cluster.server import Server

pytestmark = pytest.mark.cluster

# A set of values that asks for the artifacts' volume in another class and mode than all others, and those that ask for
# any volume in a class of their own.
OTHER_CLAIM = "private_registry"
OTHER_CLASSES = {OTHER_CLAIM, "aks", "eks", "gke", "k3s"}
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
    # The key's hook was made by the installation; the test pod is made when somebody asks for it.
    for hook in of_kind(fresh.hooks(), "Pod"):
        if fresh.server.minor < ENOUGH:
            hook = older(hook)
        assert refusals(fresh.server, hook) == ""
    fresh.helm("uninstall", RELEASE)
    assert {one["kind"] for one in left_over(fresh.server)} <= KEPT


def test_a_release_goes_from_every_set_of_values_to_the_next_and_back(fresh: Release) -> None:
    names = [name for name in value_sets() if name not in OTHER_CLASSES]
    for values in [*names, names[0]]:
        fresh.put(values)
    fresh.helm("rollback", RELEASE, "1")


def test_a_claim_that_is_there_keeps_its_class_and_mode(fresh: Release) -> None:
    """As the chart's README says: Kubernetes lets nobody change them."""
    fresh.put("default")
    with pytest.raises(AssertionError, match="immutable after creation"):
        fresh.put(OTHER_CLAIM)


def keys(release: Release) -> dict[str, str]:
    """What lies in the secret that the chart made."""
    found = release.server.ask(f"/api/v1/namespaces/{NAMESPACE}/secrets/{PART_OF}-keys")
    return {name: base64.b64decode(text).decode() for name, text in found["data"].items()}


def change_keys(release: Release, **entries: str | None) -> None:
    """As a person does it with kubectl; None takes an entry out."""
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{PART_OF}-keys"
    secret = release.server.ask(path)
    for name, text in entries.items():
        secret["data"].pop(name, None)
        if text is not None:
            secret["data"][name] = base64.b64encode(text.encode()).decode()
    release.server.ask(path, secret, method="PUT")


def test_an_upgrade_and_a_new_installation_keep_the_key(fresh: Release) -> None:
    fresh.put("default")
    first = keys(fresh)
    assert first["token"]
    fresh.put("pulled")
    assert keys(fresh) == first
    fresh.helm("uninstall", RELEASE)
    fresh.put("default")
    assert keys(fresh) == first


ROTATED = "keys:\n  - {name: second, sha256: " + "2" * 64 + ", scopes: [admin]}\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"keys.yaml": ROTATED},
        {"keys.yaml": ROTATED, "token": "bv_of-the-second"},
        # Nobody is to have the text of an admin key.
        {"keys.yaml": ROTATED, "token": None},
        {"a-note": "rotated in November"},
    ],
    ids=["revoked", "revoked-and-a-new-token", "revoked-without-a-token", "an-entry-of-a-person"],
)
def test_neither_an_upgrade_nor_a_rollback_nor_a_new_installation_brings_a_revoked_key_back(
    fresh: Release, changes: dict[str, str | None]
) -> None:
    fresh.put("default")
    made = keys(fresh)
    change_keys(fresh, **changes)
    meant = {name: text for name, text in (made | changes).items() if text is not None}
    assert keys(fresh) == meant != made
    # One that keeps the volumes: Helm rolls back to no volume that it kept and forgot.
    fresh.put("quota")
    assert keys(fresh) == meant
    fresh.helm("rollback", RELEASE, "1")
    assert keys(fresh) == meant
    fresh.helm("uninstall", RELEASE)
    fresh.put("default")
    assert keys(fresh) == meant


def test_a_job_that_was_taken_away_is_made_again_by_the_same_values(fresh: Release) -> None:
    """The runbook of a job that failed for good."""
    fresh.put("default")
    (job,) = of_kind(fresh.manifests(), "Job")
    path = f"{address(fresh.server, job)}/{job['metadata']['name']}"
    fresh.server.ask(f"{path}?propagationPolicy=Background", method="DELETE")
    with pytest.raises(urllib.error.HTTPError):
        fresh.server.ask(path)
    fresh.put("default")
    assert fresh.server.ask(path)["spec"]["template"]["spec"]["containers"][0]["name"] == "artifacts"


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
