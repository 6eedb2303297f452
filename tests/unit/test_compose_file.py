"""docker-compose.yml with other people's `.env`: what stands in it, and what Compose itself makes of a matrix of them.

Compose needs no engine for that; without the plugin the matrix is skipped and the file is still read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
LOGS = ROOT / "compose" / "logs"


def has_compose() -> bool:
    try:
        return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def composed(env: Path, *profiles: str) -> subprocess.CompletedProcess[str]:
    words = [word for profile in profiles for word in ("--profile", profile)]
    # Only the file of the test says anything: a variable of this process would win over it.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    return subprocess.run(
        ["docker", "compose", "-f", str(FILE), "--env-file", str(env), *words, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def test_every_folder_of_this_machine_is_mounted_in_the_long_form_and_labelled_for_selinux(
    written: dict[str, Any],
) -> None:
    mounts = [(name, mount) for name, one in written["services"].items() for mount in one.get("volumes", ())]
    bound = [(name, mount) for name, mount in mounts if isinstance(mount, dict)]
    assert len(bound) == 8
    for name, mount in bound:
        assert mount["type"] == "bind", name
        assert mount["bind"]["selinux"] == "z", name
        # Without it Compose hands the mount over in a form that has no label, and drops it in silence.
        assert mount["bind"]["create_host_path"] is True, name
        assert mount["read_only"] is True, name
    # In the short form a path with a colon is cut, and one without ./ is a volume.
    short = {mount.partition(":")[0] for _, mount in mounts if isinstance(mount, str)}
    assert short <= set(written["volumes"])


def test_every_variable_is_quoted_and_explained() -> None:
    explained = (ROOT / ".env.example").read_text()
    for line in FILE.read_text().splitlines():
        for variable in re.findall(r"\$\{([A-Z_]+)", line.partition("#")[0]):
            before = line.partition("${")[0]
            assert before.count('"') % 2 == 1, line
            assert re.search(rf"^#? ?{variable}=", explained, re.MULTILINE) or variable.endswith(("_IMAGE", "_PORT")), (
                line
            )


def test_a_driver_of_logs_has_only_options_that_it_knows() -> None:
    known = {
        "json-file": {"max-size", "max-file"},
        "local": {"max-size", "max-file"},
        "k8s-file": {"max-size"},
        "journald": set(),
        "syslog": set(),
    }
    files = {path.stem: yaml.safe_load(path.read_text())["services"]["logs"]["logging"] for path in LOGS.iterdir()}
    assert {name: one["driver"] for name, one in files.items()} == {name: name for name in known}
    for name, one in files.items():
        assert set(one.get("options", {})) == known[name]


# `.env`, and what has to be true of the composed file.
MATRIX: dict[str, tuple[str, Any]] = {
    "nothing": ("", lambda made: mirror(made) == str(ROOT / "compose/no-mirror")),
    "the example": ((ROOT / ".env.example").read_text(), lambda made: mirror(made) == str(ROOT / "compose/no-mirror")),
    # Compose takes it whole; the engine refuses it by name, because its label is behind a colon (docs/deployment.md).
    "a mirror with a colon": ("BIOVERIFY_DATA_MIRROR=/srv/data:2026", lambda made: mirror(made) == "/srv/data:2026"),
    "a mirror with a space": ('BIOVERIFY_DATA_MIRROR="/srv/my data"', lambda made: mirror(made) == "/srv/my data"),
    "a mirror beside": ("BIOVERIFY_DATA_MIRROR=mirror", lambda made: mirror(made) == str(ROOT / "mirror")),
    "a mirror above": ("BIOVERIFY_DATA_MIRROR=../mirror", lambda made: mirror(made) == str(ROOT.parent / "mirror")),
    "other ports": (
        "AGGREGATOR_PORT=15050\nGATEWAY_PORT=15059",
        lambda made: (
            {
                (name, port["host_ip"], port["published"])
                for name in ("aggregator", "gateway")
                for port in made["services"][name]["ports"]
            }
            == {("aggregator", "127.0.0.1", "15050"), ("gateway", "127.0.0.1", "15059")}
        ),
    ),
    "a version like a number": (
        "VERSION=1.10\nREVISION=0123456",
        lambda made: (
            made["services"]["gateway"]["build"]["args"]["VERSION"] == "1.10"
            and made["services"]["gateway"]["build"]["args"]["REVISION"] == "0123456"
        ),
    ),
    "a recipe of signs": (
        'RECIPE="lab: #1"\nRUN="of: monday"',
        lambda made: (
            made["services"]["trainer"]["command"][1] == "lab: #1"
            and made["services"]["trainer"]["command"][-1] == "--output=/runs/of: monday"
        ),
    ),
    "a registry with a port and a digest": (
        f"CACHE_IMAGE=registry.example.org:5000/valkey@sha256:{'1' * 64}",
        lambda made: made["services"]["cache"]["image"].startswith("registry.example.org:5000/valkey@sha256:"),
    ),
    "the journal": ("LOG_DRIVER=journald", lambda made: logging(made) == {'{"driver": "journald"}'}),
    "Podman": (
        "LOG_DRIVER=k8s-file",
        lambda made: logging(made) == {'{"driver": "k8s-file", "options": {"max-size": "10m"}}'},
    ),
    "traces": (
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector:4317",
        lambda made: (
            made["services"]["gateway"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4317"
        ),
    ),
}


def mirror(made: dict[str, Any]) -> str:
    (found,) = [each for each in made["services"]["artifacts"]["volumes"] if each["target"] == "/mirror"]
    assert found["bind"]["selinux"] == "z"
    return str(found["source"])


def logging(made: dict[str, Any]) -> set[str]:
    return {json.dumps(one["logging"], sort_keys=True) for one in made["services"].values()}


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed: the matrix of .env files is not tried")
@pytest.mark.parametrize("case", MATRIX)
def test_compose_makes_of_an_env_what_it_says(case: str, tmp_path: Path) -> None:
    text, holds = MATRIX[case]
    env = tmp_path / ".env"
    env.write_text(text + "\n")
    done = composed(env, "train", "gpu", "observability")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert len(logging(made)) == 1
    assert holds(made), {name: made["services"][name] for name in ("artifacts", "gateway", "cache", "trainer")}


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed: the matrix of .env files is not tried")
def test_a_driver_that_has_no_file_is_refused_by_its_name(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("LOG_DRIVER=no-such\n")
    done = composed(env)
    assert done.returncode != 0
    assert "compose/logs/no-such.yaml" in done.stderr
