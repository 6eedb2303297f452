"""The conformance suite passes what keeps the contract and catches what breaks one rule of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from bioverify.cli import app
from bioverify.conformance import CHECKS, Check, Status, run, suite
from bioverify.health import serves
from tests.contract.rogues import ROGUES, Honest, serving
from tests.fixtures import servers
from tests.fixtures.certificates import issue
from tests.fixtures.waiting import wait_until

LIMITS = {"max_items": 64, "max_bytes": 2**19, "max_items_in_flight": 128}


@pytest.fixture(scope="module")
def lookup() -> Iterator[str]:
    with servers.verifier("Lookup", **LIMITS) as service:
        yield service.target


@pytest.fixture(scope="module")
def text() -> Iterator[str]:
    with servers.verifier("Text", **LIMITS) as service:
        yield service.target


def the(name: str) -> Check:
    [check] = [check for check in CHECKS if check.name == name]
    return check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("kind", ["lookup", "text"])
def test_the_runtime_keeps_every_rule(kind: str, check: Check, request: pytest.FixtureRequest) -> None:
    [result] = run(request.getfixturevalue(kind), checks=[check]).results
    assert (result.status, result.found) == (Status.PASSED, "") or result.status is Status.NOT_SHOWN


@pytest.mark.parametrize(("rogue", "check"), ROGUES, ids=[f"{rogue.__name__}-{check}" for rogue, check in ROGUES])
def test_a_rogue_is_caught_by_the_rule_that_it_breaks(lookup: str, rogue: type[Honest], check: str) -> None:
    with serving(rogue, lookup) as target:
        [result] = run(target, checks=[the(check)]).results
    assert result.status is Status.FAILED, result
    assert result.found


def test_what_rogues_are_made_of_is_honest(lookup: str) -> None:
    with serving(Honest, lookup) as target:
        report = run(target)
    assert [(result.check.name, result.found) for result in report.failed] == []


def test_every_check_catches_somebody() -> None:
    assert {check for _, check in ROGUES} == {check.name for check in CHECKS}


def test_a_slow_verifier_is_held_to_deadlines() -> None:
    with servers.verifier("Lookup", parameters={"delay_s": 0.2}, **LIMITS) as service:
        [result] = run(service.target, checks=[the("deadline")]).results
    assert (result.status, result.found) == (Status.PASSED, "")


def test_a_report_is_printed_and_decides_the_exit_status(lookup: str) -> None:
    passed = CliRunner().invoke(app, ["verifier", "test", lookup, "--json"])
    assert passed.exit_code == 0, passed.output
    report = json.loads(passed.output)
    assert (report["name"], report["passed"], len(report["checks"])) == ("lookup", True, len(CHECKS))

    rogue = next(rogue for rogue, check in ROGUES if check == "reads")
    with serving(rogue, lookup) as target:
        failed = CliRunner().invoke(app, ["verifier", "test", target])
    assert failed.exit_code == 1
    assert "another completion: value" in failed.output
    for part in ("DescribeResponse.reads", "Add the field to reads", " failed"):
        assert part in failed.output


def test_where_nobody_answers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "CONNECT_S", 0.5)
    with servers.black_hole() as target:
        missed = CliRunner().invoke(app, ["verifier", "test", target])
    assert missed.exit_code == 1
    assert f"nobody answers at {target} within 0.5 s" in missed.output


def test_a_verifier_behind_mutual_tls_is_asked_by_who_may_ask_it(tmp_path: Path) -> None:
    identity = issue(tmp_path / "ours", trustme.CA())
    target = f"127.0.0.1:{servers.free_port()}"
    tls = [str(file) for file in identity.files]
    with servers.verifier("Lookup", wait=False, listen=target, tls=tls, **LIMITS):
        wait_until(lambda: serves(target, servers.VERIFIER_SERVICE, tls=identity), "the verifier is ready")
        report = run(target, tls=identity)
    assert [(result.check.name, result.found) for result in report.failed] == []
