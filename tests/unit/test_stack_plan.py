"""What a stack starts, where it listens, and what is kept of it."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bioverify import __version__, ports
from bioverify.cli import app
from bioverify.cli.services import VERIFIERS as ALL_VERIFIERS
from bioverify.cli.services import workers_of
from bioverify.stack import Plan, StackError, down, status
from bioverify.stack.plan import PLAN_FILE
from bioverify.stack.supervision import MARK

ROOT = Path(__file__).parents[2]
VERIFIERS = ("experimental", "go_rouge", "format")


@pytest.mark.parametrize(
    ("cores", "aggregator", "go_rouge", "form"), [(1, 1, 1, 1), (2, 1, 1, 1), (16, 4, 4, 2), (64, 16, 16, 8)]
)
def test_what_costs_most_gets_more_processes_where_there_are_cores(
    cores: int, aggregator: int, go_rouge: int, form: int
) -> None:
    expected = {"aggregator": aggregator, "experimental": 1, "go_rouge": go_rouge, "format": form}
    assert workers_of(VERIFIERS, None, cores) == expected


def test_a_number_that_is_asked_for_holds_for_all() -> None:
    assert workers_of(VERIFIERS, 3, 64) == dict.fromkeys(("aggregator", *VERIFIERS), 3)


@given(data=st.data())
def test_a_plan_that_was_cut_short_says_what_to_do(saved: tuple[Path, bytes], data: st.DataObject) -> None:
    folder, whole = saved
    # Without its last brace at least.
    (folder / PLAN_FILE).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    with pytest.raises(StackError, match="bioverify down"):
        Plan.load(folder)
    with pytest.raises(StackError, match="bioverify down"):
        status(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("stack")
    plan = Plan(folder, VERIFIERS, redis_url="redis://:a-password@127.0.0.1:6379/0")
    plan.save()
    whole = (folder / PLAN_FILE).read_bytes()
    return folder, whole


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"folder": "x"}', '{"folder": 1, "verifiers": 2}', "\x00"]
)
def test_down_stops_what_runs_whatever_became_of_the_plan(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN_FILE).write_text(content)
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env=os.environ | {MARK: str(tmp_path)}
    )
    try:
        assert down(tmp_path) == [f"pid {left.pid}"]
        assert not psutil.pid_exists(left.pid)
        assert down(tmp_path) == []
    finally:
        left.kill()


def test_what_may_hold_a_password_is_its_owners_alone(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "home" / "stack", VERIFIERS, redis_url="redis://:a-password@127.0.0.1:6379/0")
    plan.make_folders()
    plan.save()
    assert stat.S_IMODE((plan.folder / PLAN_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(plan.folder.stat().st_mode) == 0o700
    assert b"a-password" not in (plan.folder / PLAN_FILE).read_bytes()
    assert Plan.load(plan.folder) == dataclasses.replace(plan, redis_url="redis://127.0.0.1:6379/0")
    assert not any("a-password" in word for program in plan.programs() for word in program.command)


def test_no_port_of_the_stack_is_one_that_a_system_gives_to_outgoing_connections() -> None:
    """Linux gives 32768 to 60999, IANA's range is 49152 to 65535; Kubernetes' node ports are 30000 to 32767."""
    listened_on = [*Plan(Path(), ALL_VERIFIERS, has_gateway=True).ports, ports.PORT_BASE + ports.TRAINER_OFFSET]
    assert all(1024 < port < 30_000 for port in listened_on)
    assert len(set(listened_on)) == len(listened_on)


def test_a_verifier_of_ones_own_is_proposed_a_port_that_the_stack_leaves_free() -> None:
    own = int(ports.OWN_VERIFIER.rpartition(":")[2])
    taken = Plan(Path(), tuple("abcdefg"), has_gateway=True).ports
    assert not {own, own + ports.METRICS_OFFSET} & {*taken, ports.PORT_BASE + ports.TRAINER_OFFSET}


@pytest.mark.parametrize("runs", [None, Path("/somewhere/runs")])
def test_a_plan_that_was_kept_is_the_plan_that_is_read(tmp_path: Path, runs: Path | None) -> None:
    plan = Plan(tmp_path, VERIFIERS, 20_000, workers={"format": 2}, has_gateway=True, runs_folder=runs)
    plan.save()
    assert Plan.load(tmp_path) == plan


def test_the_version_is_told_and_is_that_of_the_project() -> None:
    told = CliRunner().invoke(app, ["--version"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (told.exit_code, told.output) == (0, f"bioverify {project['version']}\n")
    version = project["version"]
    assert __version__ == version
    # Of wheel, chart, images and citation there is one.
    chart = yaml.safe_load((ROOT / "k8s/chart/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    images = [
        image
        for file in (ROOT / "k8s/training").glob("*.yaml")
        for image in re.findall(r"image: bioverify/\S+:(\S+)", file.read_text())
    ]
    assert len(images) >= 5
    assert set(images) == {version}
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
