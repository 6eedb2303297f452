"""The example verifier in JavaScript, which has the contract's proto files and nothing else of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from bioverify.client import Client, ScoreItem
from bioverify.conformance import Status, run
from bioverify.core.outcomes import Scored
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.core.tasks import DifferentialExpression
from bioverify.health import serves
from tests.fixtures import servers
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.node
FOLDER = servers.ROOT / "examples" / "verifier-node"
NAME = "charged_amino_acid"


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    target = f"127.0.0.1:{servers.free_port()}"
    with subprocess.Popen(["node", "server.js", target], cwd=FOLDER, stdout=subprocess.DEVNULL) as service:
        try:
            wait_until(lambda: serves(target, servers.VERIFIER_SERVICE), "the service is ready")
            yield target
        finally:
            service.terminate()
    assert service.returncode == 0


def test_its_own_tests_pass() -> None:
    done = subprocess.run(["node", "--test"], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_keeps_the_contract(target: str) -> None:
    report = run(target)
    assert [(result.check.name, result.found) for result in report.failed] == []
    not_shown = {result.check.name for result in report.results if result.status is Status.NOT_SHOWN}
    assert not_shown <= {"answers", "deadline"}


def test_an_aggregator_rewards_with_it(target: str) -> None:
    recipe = Recipe(name=NAME, terms=(Term(verifier=NAME, weight=1, requirement=Requirement.REQUIRED),))
    task = DifferentialExpression("AARS", "TRIB3", "k562")
    said = {
        "right": "AARS charges alanine.",
        "unsure": "AARS charges alanine or serine.",
        "wrong": "AARS charges serine.",
    }
    items = [ScoreItem(name, f"<think>{text}</think> <answer>yes</answer>", task=task) for name, text in said.items()]
    with servers.aggregator({NAME: target}) as aggregator, Client(aggregator.target) as client:
        rewards = client.score(items, recipe).rewards
    assert [reward.reward for reward in rewards] == [1.0, 0.5, 0.0]
    outcome = rewards[2].parts[0].outcome
    assert isinstance(outcome, Scored)
    assert outcome.evidence[0].text == "AARS1 charges alanine; the completion names serine"
