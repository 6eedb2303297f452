"""`bioverify verifier new`: what an outside author gets runs as it is, in a folder that is none of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bioverify.cli import app
from tests.fixtures import servers
from tests.fixtures.waiting import wait_until

NAME = "gene_age"


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MYPYPATH": str(servers.ROOT / "services"), "PYTHONPATH": ""}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder around a verifier that was just begun."""
    folder = tmp_path_factory.mktemp("outside")
    done = run("bioverify.cli", "verifier", "new", NAME, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("GeneAge", "lower-case letters"),
        ("gene-age", "lower-case letters"),
        ("../gene_age", "lower-case letters"),
        ("", "lower-case letters"),
        ("g" * 41, "at most 40"),
        ("format", "has a verifier of that name"),
        ("consensus", "has a verifier of that name"),
        ("lambda", "word or a module of Python"),
        ("json", "word or a module of Python"),
        ("numpy", "a Python module is called so"),
    ],
)
def test_a_name_that_cannot_be_taken_is_refused(elsewhere: Path, name: str, problem: str) -> None:
    refused = CliRunner().invoke(app, ["verifier", "new", name])
    assert refused.exit_code == 1
    assert problem in refused.output
    assert list(elsewhere.iterdir()) == []


def test_a_folder_that_exists_is_left_as_it_is(elsewhere: Path) -> None:
    (elsewhere / NAME).mkdir()
    refused = CliRunner().invoke(app, ["verifier", "new", NAME])
    assert refused.exit_code == 1
    assert "exists and is left as it is" in refused.output
    assert list((elsewhere / NAME).iterdir()) == []


def test_nothing_of_the_template_is_left_in_it(begun: Path) -> None:
    for path in (begun / NAME).iterdir():
        if path.is_file():
            assert not {"example_verifier", "ExampleVerifier", "example-verifier"} & set(path.read_text().split())
            assert "example_verifier" not in path.read_text()


def test_it_is_typed_and_clean(begun: Path) -> None:
    config = str(servers.ROOT / "pyproject.toml")
    cache = str(servers.ROOT / ".mypy_cache")
    typed = run("mypy", "--config-file", config, "--cache-dir", cache, NAME, folder=begun)
    assert typed.returncode == 0, typed.stdout
    clean = run("ruff", "check", "--isolated", NAME, folder=begun)
    assert clean.returncode == 0, clean.stdout


def test_its_own_tests_pass_which_hold_it_to_the_contract(begun: Path) -> None:
    tested = run("pytest", "-q", "-p", "no:cacheprovider", NAME, folder=begun)
    assert tested.returncode == 0, tested.stdout
    assert "6 passed" in tested.stdout


def test_its_files_for_compose_and_helm_name_the_command_that_serves_it(begun: Path) -> None:
    compose = yaml.safe_load((begun / NAME / "compose.yaml").read_text())
    assert list(compose["services"]) == ["gene-age"]
    values = yaml.safe_load((begun / NAME / "values.yaml").read_text())
    dockerfile = (begun / NAME / "Dockerfile").read_text()
    command = json.loads(dockerfile.rpartition("CMD ")[2])
    assert values["verifiers"][NAME]["args"] == command


@pytest.fixture(scope="module")
def served(begun: Path) -> Iterator[str]:
    target = f"127.0.0.1:{servers.free_port()}"
    command = [sys.executable, "-m", "bioverify.cli", "verifier", "serve", NAME, "--listen", target]
    with subprocess.Popen(command, cwd=begun, stderr=subprocess.DEVNULL) as service:
        try:
            wait_until(lambda: CliRunner().invoke(app, ["healthcheck", target]).exit_code == 0, "the service answers")
            yield target
        finally:
            service.terminate()


def test_an_aggregator_rewards_with_it(begun: Path, served: str) -> None:
    with (
        servers.verifier("Text", parameters={"name": "format"}) as format_service,
        servers.aggregator({"format": format_service.target, NAME: served}) as aggregator,
    ):
        recipe, output = begun / NAME / "recipe.yaml", begun / "scored.jsonl"
        arguments = ["score", str(begun / NAME / "examples.jsonl"), "--recipe", str(recipe), "--output", str(output)]
        done = CliRunner().invoke(app, [*arguments, "--target", aggregator.target])
    assert done.exit_code == 0, done.output
    scored = {row["id"]: row for row in map(json.loads, output.read_text().splitlines())}
    said = {name: row["parts"][1] for name, row in scored.items()}
    assert said["agrees"]["contribution"] == 2.0
    assert said["disagrees"]["contribution"] == 0.0
    assert said["unknown"]["contribution"] is None
    assert said["unknown"]["reason"] == "pair_not_listed"
    assert scored["agrees"]["reward"] == pytest.approx(2.0 + scored["agrees"]["parts"][0]["contribution"])


def test_a_recipe_file_that_cannot_be_read_says_so(begun: Path, served: str) -> None:
    (begun / "wrong.yaml").write_text("name: wrong\n")
    with servers.aggregator({NAME: served}) as aggregator:
        arguments = ["score", str(begun / NAME / "examples.jsonl"), "--recipe", str(begun / "wrong.yaml")]
        refused = CliRunner().invoke(app, [*arguments, "--target", aggregator.target])
    assert refused.exit_code == 1
    assert "wrong.yaml: a recipe needs at least one term" in refused.output


def test_a_folder_without_a_verifier_is_not_served(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["verifier", "serve", str(tmp_path)])
    assert refused.exit_code == 1
    assert "has no verifier.py. Begin one: bioverify verifier new NAME" in refused.output


def test_a_verifier_without_the_function_that_opens_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "verifier.py").touch()
    done = run("bioverify.cli", "verifier", "serve", "empty", "--listen", f"unix:{tmp_path}/s", folder=tmp_path)
    assert done.returncode == 1
    assert "has no open_verifier()" in done.stderr
