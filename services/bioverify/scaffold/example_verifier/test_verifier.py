"""The examples, alone and behind the real server, which is held to the contract."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bioverify.conformance import from_items, run
from bioverify.core.answers import parse_answer
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.questions import parse_task
from bioverify.core.verifier import Item
from bioverify.health import serves
from bioverify.rollouts.lines import FileItem, LineError, read_items

from .verifier import open_verifier

FOLDER = Path(__file__).parent
PATIENCE_S = 120
EXAMPLES = FOLDER / "examples.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_each_example_is_scored_as_expected(row: dict[str, Any]) -> None:
    task = parse_task(row["prompt"])
    assert task is not None
    item = Item(task, parse_answer(row["completion"], task.kind), row["completion"])
    [outcome] = open_verifier().score([item])
    if isinstance(row["expected"], str):
        assert isinstance(outcome, NotApplicable)
        assert outcome.reason == row["expected"]
    else:
        assert isinstance(outcome, Scored)
        assert outcome.value == pytest.approx(row["expected"])


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    target = f"unix:{tmp_path_factory.mktemp('served')}/socket"
    command = [sys.executable, "-m", "bioverify.cli", "verifier", "serve", str(FOLDER), "--listen", target]
    with subprocess.Popen(command) as service:
        try:
            give_up = time.monotonic() + PATIENCE_S
            while not serves(target, "bioverify.v1.VerifierService"):
                assert service.poll() is None, f"the service ended with {service.returncode}"
                assert time.monotonic() < give_up, f"the service is not ready after {PATIENCE_S} s"
                time.sleep(0.1)
            yield target
        finally:
            service.terminate()


def test_the_service_keeps_the_contract(target: str) -> None:
    def refuse(error: LineError) -> None:
        raise error

    with EXAMPLES.open("rb") as lines:
        examples: list[FileItem] = list(read_items(lines, (), refuse))
    report = run(target, from_items([example.item for example in examples]))
    assert [(result.check.name, result.found) for result in report.failed] == []
