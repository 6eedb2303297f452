"""What a stack starts, and where it listens."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bioverify import __version__, ports
from bioverify.cli import app
from bioverify.cli.services import VERIFIERS as ALL_VERIFIERS
from bioverify.cli.services import workers_of
from bioverify.stack import Plan

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
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert (told.exit_code, told.output) == (0, f"bioverify {project['version']}\n")
    assert __version__ == project["version"]
