"""`bioverify doctor`, and what is said of an extra that is not installed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bioverify.artifacts.prebuilt import install
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli import app
from bioverify.cli.services import VERIFIERS
from bioverify.errors import MODULES_OF, missing_extra
from bioverify.stack import free_port_base

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path))
    for name in ("BIOVERIFY_STATE", "BIOVERIFY_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def doctor(*options: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--port-base", str(free_port_base(VERIFIERS)), *options])


def line(said: Result, what: str) -> str:
    (found,) = [one for one in said.output.splitlines() if one[6:].startswith(f"{what} ")]
    return found


def test_a_stranger_is_told_what_is_there_and_what_to_begin_with(home: Path) -> None:
    said = doctor()
    assert said.exit_code == 0
    assert line(said, "artifacts").endswith("What ships is enough to begin: bioverify try")
    assert "no stack is up. Start it: bioverify up" in line(said, "services")
    assert line(said, "python").startswith(f"ok    python     {sys.version.split()[0]}, bioverify ")
    for what in ("memory", "disk", "cache", "gpu", "clock", "[claims]", "[train]"):
        assert line(said, what)


def test_simulated_artifacts_are_told_and_so_is_what_is_not_built(home: Path) -> None:
    install(ArtifactStore(home / "artifacts"))
    said = doctor().output
    assert "experimental: simulated, not an experiment. Real data: bioverify data fetch --accept-license" in said
    assert "go_rouge: built from real data" in said
    assert "not built: claims, esm_mlp, analogy, consensus. Run: bioverify data build claims esm_mlp" in said


def test_a_damaged_artifact_is_wrong(home: Path) -> None:
    store = ArtifactStore(home / "artifacts")
    install(store)
    manifest = next((home / "artifacts" / "genes").glob("*/manifest.json"))
    manifest.chmod(0o600)
    manifest.parent.chmod(0o700)
    manifest.write_text("{")
    said = doctor()
    assert said.exit_code == 1
    assert "Run: bioverify data verify genes" in said.output


def test_a_taken_port_is_wrong_and_its_holder_is_named(home: Path) -> None:
    base = free_port_base(VERIFIERS)
    with socket.create_server(("127.0.0.1", base + 2)):
        said = CliRunner().invoke(app, ["doctor", "--port-base", str(base)])
    assert said.exit_code == 1
    assert re.search(
        rf"wrong ports +{base + 2} \(go_rouge\) is taken, by .+ \(pid {os.getpid()}\)\. Free it", said.output
    )


def test_a_cache_that_does_not_answer_is_a_note_and_its_password_is_not_shown(home: Path) -> None:
    said = doctor("--redis-url", "redis://:secret@127.0.0.1:1/0")
    assert said.exit_code == 0
    assert "does not answer. Start it, or leave --redis-url out" in line(said, "cache")
    assert "secret" not in said.output


def test_an_extra_that_is_not_installed_is_told_with_what_to_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    assert "not installed (ahocorasick_rs). Run in a clone of bioverify: pip install -e '.[claims]'" in line(
        doctor(), "[claims]"
    )


@pytest.mark.parametrize(
    ("library", "command", "said"),
    [
        ("lightgbm", ["serve", "analogy"], "analogy: the library lightgbm is not installed here. .*analogy"),
        ("ahocorasick_rs", ["serve", "claims"], "claims: the library ahocorasick_rs is not installed here. .*claims"),
        ("lightgbm", ["data", "build", "analogy", "--offline"], "analogy: the library lightgbm is not .*build"),
        (
            "pyarrow",
            ["data", "build", "prompts", "--offline"],
            "bioverify: the library pyarrow is not installed .*build",
        ),
    ],
)
def test_a_command_that_misses_an_extra_says_so_in_one_sentence(
    home: Path, library: str, command: list[str], said: str
) -> None:
    install(ArtifactStore(home / "artifacts"))
    code = f"import sys; sys.modules[{library!r}] = None\nfrom bioverify.cli import app; app({command!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=home)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"{said}\]'$", done.stderr.strip()), done.stderr
    assert "Traceback" not in done.stderr


def test_an_extra_brings_what_is_said_of_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in MODULES_OF.items():
        brought = " ".join(extras[extra]).replace("-", "_").replace("opentelemetry_", "opentelemetry.")
        assert all(module in brought for module in modules), extra


def test_a_library_that_no_extra_brings_is_not_explained() -> None:
    assert missing_extra(ModuleNotFoundError("No module named 'nowhere'", name="nowhere")) == ""
    assert "[train]" in missing_extra(ModuleNotFoundError("No module named 'trl'", name="trl"))
