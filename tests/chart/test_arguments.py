"""The commands of the containers are ones that the images' program takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.exceptions import TyperException

from bioverify.cli import app
from bioverify.client import TlsIdentity
from bioverify.gateway.api_keys import Scope, read_keys
from bioverify.gateway.config import GatewayConfig, make_config
from tests.chart.helm import (
    NAMESPACE,
    ROOT,
    VALUES,
    Manifest,
    containers,
    named,
    of_kind,
    pod_templates,
    rendered,
    template,
    value_sets,
)
from tests.chart.schemas import NEWEST, problems

pytestmark = pytest.mark.chart


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Command and values of its options. Raises TyperException for what the program would refuse."""
    command: Any = typer.main.get_command(app)
    words = list(arguments)
    path = []
    while isinstance(command, TyperGroup):
        path.append(words.pop(0))
        found = command.get_command(None, path[-1])
        assert found is not None, f"there is no command {' '.join(path)}"
        command = found
    with command.make_context(path[-1], words) as context:
        return " ".join(path), context.params


def commands(manifests: list[Manifest]) -> Iterator[tuple[str, list[str]]]:
    """The arguments of every container that runs the image's own program."""
    for pod in pod_templates(manifests).values():
        for container in containers(pod):
            if "command" not in container and "/lab/" not in container["image"]:
                yield container["name"], container["args"]


@pytest.mark.parametrize("values", value_sets())
def test_every_command_is_taken_by_the_program(values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "gateway.yaml"
    settings.touch()
    for _name, arguments in commands(rendered(values)):
        command, _ = parsed([each.replace("/etc/bioverify/settings/gateway.yaml", str(settings)) for each in arguments])
        assert command in {"serve", "aggregate", "gateway", "data build", "data pull"}


def test_every_image_of_ours_is_a_target_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM .* AS ([a-z-]+)$", (ROOT / "services" / "Dockerfile").read_text(), re.MULTILINE))
    named_images = {
        container["image"].removeprefix("bioverify/").partition(":")[0]
        for values in value_sets()
        for pod in pod_templates(rendered(values)).values()
        for container in containers(pod)
        if container["image"].startswith("bioverify/")
    }
    assert {"gateway", "puller", "artifacts"} <= named_images
    assert named_images <= targets


def test_a_flag_that_the_program_lacks_would_be_seen() -> None:
    with pytest.raises(TyperException, match="--no-such"):
        parsed(["serve", "format", "--no-such=1"])


@pytest.mark.parametrize("values", value_sets())
def test_a_verifier_listens_where_its_service_and_the_aggregator_look(values: str) -> None:
    manifests = rendered(values)
    _, asked = parsed(named(manifests, "Deployment", "aggregator")["spec"]["template"]["spec"]["containers"][0]["args"])
    targets = dict(each.split("=", 1) for each in asked["verifier"])
    served = {}
    for deployment in of_kind(manifests, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        if container["name"] == "verifier":
            name = deployment["metadata"]["labels"]["bioverify.io/verifier"]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            served[name] = ports["grpc"]
            if container["args"][0] == "serve":
                _, options = parsed(container["args"])
                assert options["verifier"] == name
                assert options["listen"] == f"[::]:{ports['grpc']}"
                assert options["metrics_port"] == ports["metrics"]
                assert options.get("health_port") == ports.get("health")
    assert {name: int(target.rpartition(":")[2]) for name, target in targets.items()} == served


@pytest.mark.parametrize("values", [each for each in value_sets() if each != "one_verifier"])
def test_the_gateways_settings_are_ones_it_takes(values: str, tmp_path: Path) -> None:
    manifests = rendered(values)
    path = tmp_path / "gateway.yaml"
    path.write_text(named(manifests, "ConfigMap", "gateway")["data"]["gateway.yaml"])
    config = make_config(path, {})
    pod = named(manifests, "Deployment", "gateway")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    for folder in (config.folder, config.runs_folder):
        assert folder is None or str(folder) in mounts
    for file in (config.keys_file, config.tls_certificate, config.tls_key):
        assert file is None or str(file.parent) in mounts
    # It refuses to start otherwise (docs/http.md).
    assert config.keys_file or config.open_to_anyone
    scheme = pod["containers"][0]["readinessProbe"]["httpGet"]["scheme"]
    assert scheme == ("HTTPS" if config.tls_certificate else "HTTP")


def test_a_begun_verifier_joins_by_the_values_it_was_begun_with(tmp_path: Path) -> None:
    begun = ROOT / "services/bioverify/scaffold/example_verifier/values.yaml"
    done = template("--values", str(begun), "--values", str(VALUES / "tls_by_secret.yaml"))
    assert done.returncode == 0, done.stderr
    manifests = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert problems(manifests, NEWEST) == []
    (container,) = named(manifests, "Deployment", "example-verifier")["spec"]["template"]["spec"]["containers"]
    command, options = parsed([each.replace("/srv/example_verifier", str(tmp_path)) for each in container["args"]])
    assert command == "verifier serve"
    assert options["listen"].endswith(f":{next(p['containerPort'] for p in container['ports'] if p['name'] == 'grpc')}")
    given = TlsIdentity.from_environment({each["name"]: each["value"] for each in container["env"]})
    assert given is not None
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "tls"]
    assert {str(file.parent) for file in given.files} == {mount["mountPath"]}
    (asked,) = named(manifests, "Deployment", "aggregator")["spec"]["template"]["spec"]["containers"]
    assert any(each.startswith("--verifier=example_verifier=dns:///") for each in asked["args"])


def test_settings_of_the_values_reach_the_gateway_unchanged() -> None:
    written = yaml.safe_load(named(rendered("ingress"), "ConfigMap", "gateway")["data"]["gateway.yaml"])
    config = GatewayConfig.model_validate(written)
    assert (config.max_items, config.max_job_bytes, config.max_deadline_s) == (2048, 2**30, 120.5)
    assert (config.cors_origins, config.log_level) == (("https://lab.example.org",), "warning")


def test_a_gateway_without_keys_answers_to_the_names_of_its_service() -> None:
    written = yaml.safe_load(named(rendered("open"), "ConfigMap", "gateway")["data"]["gateway.yaml"])
    service = named(rendered("open"), "Service", "gateway")["metadata"]["name"]
    config = GatewayConfig.model_validate(written)
    assert config.allowed_hosts == (
        service,
        f"{service}.{NAMESPACE}",
        f"{service}.{NAMESPACE}.svc",
        f"{service}.{NAMESPACE}.svc.cluster.local",
    )
    assert "allowed_hosts" not in yaml.safe_load(
        named(rendered("default"), "ConfigMap", "gateway")["data"]["gateway.yaml"]
    )


def test_the_key_that_the_chart_makes_is_one_that_the_gateway_knows(tmp_path: Path) -> None:
    made = named(rendered("default"), "Secret", "keys")["stringData"]
    path = tmp_path / "keys.yaml"
    path.write_text(made["keys.yaml"])
    (key,) = read_keys(path)
    assert key.sha256 == hashlib.sha256(made["token"].encode()).hexdigest()
    assert key.may(Scope.ADMIN)
    assert len(made["token"]) >= 43
