"""What Helm makes of every set of values is what Kubernetes and the operators take."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from bioverify import __version__
from tests.chart.helm import CHART, VALUES, named, of_kind, rendered, rendered_text, run_helm, template, value_sets
from tests.chart.schemas import NEWEST, OLDEST, problems

pytestmark = pytest.mark.chart

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("values", value_sets())
def test_lint_finds_nothing(values: str) -> None:
    done = run_helm("lint", "--strict", str(CHART), "--values", str(VALUES / f"{values}.yaml"))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", value_sets())
def test_every_manifest_holds_against_the_published_schemas(values: str, version: str) -> None:
    assert problems(rendered(values), version) == []


def test_the_schemas_would_see_a_mistake() -> None:
    manifests = copy.deepcopy(rendered("production"))
    named(manifests, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    named(manifests, "HorizontalPodAutoscaler", "aggregator")["spec"]["maxReplicas"] = "many"
    named(manifests, "ScaledObject", "go-rouge")["spec"]["triggers"][0]["metadata"]["threshold"] = 0.25
    of_kind(manifests, "Certificate")[0]["spec"]["dnsName"] = "one"
    assert len(problems(manifests, NEWEST)) == 4


@pytest.mark.parametrize("values", value_sets())
def test_nothing_is_made_twice(values: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered(values)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("values", ["one_verifier", "default"])
def test_manifests_are_as_they_were(values: str) -> None:
    """After a change that is meant: UPDATE_GOLDEN=1 make test-chart, and read the difference."""
    # A fresh key each time, and the version, are no change of the chart.
    text = re.sub(r"(token: |sha256: ).*", r"\1…", rendered_text(values))
    path = GOLDEN / f"{values}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(
    "change",
    [
        "pods.env[0].name=A,pods.env[0].value=b",
        "images.pullPolicy=Always",
        "images.pullSecrets[0]=registry",
        "serviceAccount.name=other",
        "artifacts.build.args[0]=genes",
        "artifacts.build.resources.limits.memory=16Gi",
    ],
)
def test_a_job_whose_pod_changes_is_another_job(change: str) -> None:
    """Kubernetes refuses to change the pod of a job, and with it the whole upgrade."""
    (before,), (after,) = of_kind(rendered("default"), "Job"), of_kind(rendered("default", change), "Job")
    assert before["spec"]["template"] != after["spec"]["template"]
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_a_new_version_of_the_chart_leaves_the_job_with_the_same_image_as_it_is(tmp_path: Path) -> None:
    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    about = newer / "Chart.yaml"
    about.write_text(re.sub(r"ersion: \d+\.\d+\.\d+", "ersion: 99.0.0", about.read_text()))
    arguments = ("--set", "images.tag=mine")
    jobs = [
        of_kind([one for one in yaml.safe_load_all(template(*arguments, chart=chart).stdout) if one], "Job")[0]
        for chart in (CHART, newer)
    ]
    assert jobs[0]["metadata"]["labels"] != jobs[1]["metadata"]["labels"]
    assert jobs[0]["metadata"]["name"] == jobs[1]["metadata"]["name"]
    assert jobs[0]["spec"] == jobs[1]["spec"]


def test_the_packaged_chart_makes_the_same(tmp_path: Path) -> None:
    done = run_helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("*.tgz")
    arguments = ("--values", str(VALUES / "monitored.yaml"), "--set", "gateway.keys.existingSecret=keys")
    assert template(*arguments, chart=packed).stdout == template(*arguments).stdout
    with tarfile.open(packed) as files:
        inside = {Path(name).relative_to("bioverify") for name in files.getnames()}
    assert {path.parts[1] for path in inside if path.parts[0] == "alerts"} == {
        "cluster.yaml",
        "faults.yaml",
        "slo.yaml",
    }
    assert {path.suffix for path in inside if path.parts[0] == "dashboards"} == {".json"}


def test_the_alerts_and_dashboards_are_those_of_their_folders() -> None:
    manifests = rendered("monitored")
    (rule,) = of_kind(manifests, "PrometheusRule")
    written = [
        group
        for path in sorted(CHART.parent.glob("alerts/*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert written
    assert rule["spec"]["groups"] == written
    shown = {
        name: json.loads(text)
        for one in of_kind(manifests, "ConfigMap")
        for name, text in one["data"].items()
        if one["metadata"]["labels"].get("grafana_dashboard")
    }
    assert shown == {path.name: json.loads(path.read_text()) for path in CHART.parent.glob("dashboards/*.json")}
    assert shown
    # By this the rules tell a service from another that the same Prometheus watches.
    for service in of_kind(manifests, "Service"):
        assert "bioverify" in service["metadata"]["name"]


def test_the_chart_is_of_the_version_of_the_distribution() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == __version__


def test_a_certificate_is_good_for_every_name_that_is_dialled() -> None:
    manifests = rendered("production")
    (certificate,) = [one for one in of_kind(manifests, "Certificate") if one["metadata"]["name"].endswith("fy-tls")]
    dialled = set(re.findall(r"dns:///([a-z0-9.-]+):", rendered_text("production")))
    assert dialled
    assert dialled <= set(certificate["spec"]["dnsNames"])
    assert {"server auth", "client auth"} <= set(certificate["spec"]["usages"])


def test_every_name_that_is_dialled_is_a_headless_service() -> None:
    for values in value_sets():
        headless = {
            one["metadata"]["name"]
            for one in of_kind(rendered(values), "Service")
            if one["spec"].get("clusterIP") == "None"
        }
        dialled = set(re.findall(r"dns:///([a-z0-9-]+)\.biology\.svc\.", rendered_text(values)))
        assert dialled <= headless
        assert dialled
