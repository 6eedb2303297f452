"""The commands of the chart's containers, run here as they stand but for addresses and paths."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bioverify.stack.plan import AGGREGATOR_HEALTH, VERIFIER_HEALTH
from tests.chart.helm import Manifest, containers, named, pod_templates, rendered
from tests.fixtures.servers import ROOT, Service, free_port

pytestmark = pytest.mark.chart

VALUES = ("one_verifier", "gateway.enabled=true", "gateway.jobs.enabled=false")


def container(manifests: list[Manifest], part: str) -> Manifest:
    found: Manifest = named(manifests, "Deployment", part)["spec"]["template"]["spec"]["containers"][0]
    return found


@contextlib.contextmanager
def running(folder: Path, arguments: list[str], port: int, health: str = "") -> Iterator[Service]:
    """`bioverify …` until the end of the block, and what its probes would see."""
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bioverify.cli", *arguments], cwd=ROOT, stdout=file, stderr=file
        )
    try:
        yield Service(f"127.0.0.1:{port}", health, process, log)
    finally:
        process.terminate()
        process.wait(30)


def at(arguments: list[str], **replaced: str) -> list[str]:
    """The arguments with other values for these options."""
    written = {f"--{name.replace('_', '-')}": value for name, value in replaced.items()}
    return [f"{name}={written[name]}" if (name := each.partition("=")[0]) in written else each for each in arguments]


def test_what_helm_test_runs_scores_through_gateway_aggregator_and_verifier(tmp_path: Path) -> None:
    manifests = rendered(*VALUES)
    ports = {name: free_port() for name in ("verifier", "aggregator", "gateway", "m1", "m2")}
    settings = named(manifests, "ConfigMap", "gateway")["data"]["gateway.yaml"]
    aggregator = container(manifests, "aggregator")["args"]
    (target,) = [each.rpartition("=")[2] for each in aggregator if each.startswith("--verifier=")]
    secret = named(manifests, "Secret", "keys")["stringData"]
    (tmp_path / "keys.yaml").write_text(secret["keys.yaml"])
    elsewhere = yaml.safe_load(settings) | {
        "listen": f"127.0.0.1:{ports['gateway']}",
        "keys_file": str(tmp_path / "keys.yaml"),
        "aggregator": f"127.0.0.1:{ports['aggregator']}",
    }
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(elsewhere))
    serve = at(
        container(manifests, "format")["args"], listen=f"127.0.0.1:{ports['verifier']}", metrics_port=str(ports["m1"])
    )
    aggregate = at(aggregator, listen=f"127.0.0.1:{ports['aggregator']}", metrics_port=str(ports["m2"]))
    aggregate = [each.replace(target, f"dns:///localhost:{ports['verifier']}") for each in aggregate]
    gateway = at(container(manifests, "gateway")["args"], config=str(tmp_path / "gateway.yaml"))
    pod = named(manifests, "Pod", "test")
    (score,) = containers(pod)
    environment = {"PATH": os.environ["PATH"], "GATEWAY_URL": f"http://127.0.0.1:{ports['gateway']}"}
    # Which `pods.env` would give to every pod: what is inside of the cluster is not asked of it.
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY"), f"http://127.0.0.1:{free_port()}")
    command = [sys.executable, *score["command"][1:], *score["args"]]
    with (
        running(tmp_path, serve, ports["verifier"], VERIFIER_HEALTH) as verifier,
        running(tmp_path, aggregate, ports["aggregator"], AGGREGATOR_HEALTH) as service,
        running(tmp_path, gateway, ports["gateway"]) as http,
    ):
        verifier.wait_until_ready(60)
        service.wait_until_ready(60)
        given = environment | {"GATEWAY_KEY": secret["token"]}
        done = tried(command, given, http)
        assert done.returncode == 0, done.stderr + http.log
        assert '"format": "scored"' in done.stdout
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "401" in refused.stderr
        verifier.kill()
        away = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
        assert away.returncode == 1
        assert "not ready: format" in away.stderr


def tried(command: list[str], environment: dict[str, str], http: Service) -> subprocess.CompletedProcess[str]:
    """The command's end once the gateway listens."""
    for _ in range(300):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if "refused" not in done.stderr or http.process.poll() is not None:
            break
        time.sleep(0.2)
    return done


def test_a_verifier_waits_for_the_artifacts_that_the_job_makes(tmp_path: Path) -> None:
    spec = pod_templates(rendered("default"))["rewards-bioverify-go-rouge"]["spec"]
    (waiting,) = spec["initContainers"]
    command = [sys.executable, *waiting["command"][1:], *waiting["args"]]
    environment = {"PATH": os.environ["PATH"], "BIOVERIFY_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"waiting for genes, go_rouge in {tmp_path}/artifacts\n"
        for name in ("genes", "go_rouge"):
            (tmp_path / "artifacts" / name).mkdir(parents=True)
            assert process.poll() is None
            (tmp_path / "artifacts" / name / "current").write_text("0123456789abcdef\n")
        assert process.wait(30) == 0
