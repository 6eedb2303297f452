"""What could not be read is counted by reason, and the same at every door, over the running services."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from bioverify.cli import app
from bioverify.client import AsyncClient, Client, ScoreItem
from bioverify.client.thoughts import FEWEST
from bioverify.client.values import readings_of
from bioverify.core.readings import ALL_REASONS
from tests.fixtures import servers
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.waiting import wait_until

RECIPE = "rbio1-exp"
Q = "Is a knockdown of A in k562 cells likely to result in differential expression of B?"
KNOCKOUT = "Is a knockout of A in k562 cells likely to result in differential expression of B?"
C = "<think>Without A there is no B.</think> <answer>yes</answer>"
ROWS = [
    *[{"prompt": Q, "completion": C}] * 5,
    *[{"prompt": KNOCKOUT, "completion": C}] * 3,
    {
        "prompt": "Is treatment of K562 cells with tunicamycin likely to change the expression of TRIB3?",
        "completion": C,
    },
    {"prompt": "What is the capital of France?", "completion": C},
    {"prompt": "Answer now, in the tags.", "completion": C},
    {"completion": C},
    {"prompt": Q, "completion": "<answer>yes</answer>"},
    {"prompt": Q, "completion": "<scratchpad>So.</scratchpad> <answer>no</answer>"},
    {"prompt": Q, "completion": "<think>\n\n</think>\n\n<answer>yes</answer>"},
    {"prompt": Q, "completion": "<think>Without A, and without B, and"},
    {"prompt": Q, "completion": "Without A, and without B, and", "prefix": "<think>\n"},
    {"prompt": Q, "completion": "<think>So.</think> <answer>maybe</answer>"},
    {"prompt": Q, "completion": "<think>So.</think> <answer>yes</answer> <answer>no</answer>"},
    {"prompt": Q, "completion": ""},
]
EXPECTED = {
    "question": {"knockout": 3, "drug": 1, "other_subject": 1, "nothing_asked": 2},
    "thought": {"no_thought": 3, "empty_thought": 1, "thought_not_closed": 2},
    "answer": {"no_answer_block": 2, "no_answer_word": 1, "several_answer_blocks": 1, "empty_completion": 1},
}
NONE_HAS_A_THOUGHT = "completions has a thought"


class Doors(NamedTuple):
    aggregator: servers.Service
    gateway: RunningGateway

    @property
    def target(self) -> str:
        return self.aggregator.target


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Format") as form,
        servers.aggregator(
            {"experimental": lookup.target, "format": form.target}, metrics_port=servers.free_port()
        ) as aggregator,
        scratch_folder() as folder,
        gateway(folder, aggregator.target) as http,
    ):
        yield Doors(aggregator, http)


def items(rows: list[dict[str, Any]]) -> list[ScoreItem]:
    return [
        ScoreItem(str(n), row["completion"], row.get("prompt", ()), prefix=row.get("prefix", ""))
        for n, row in enumerate(rows)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})
    assert done.exit_code == 0, f"{done.output}{done.exc_info}"
    return done.output


def without_nothing(counts: Any) -> dict[str, dict[str, int]]:
    return {what: dict(reasons) for what, reasons in counts.items() if reasons}


def counted_by_metrics(doors: Doors) -> Counter[tuple[str, str]]:
    return Counter(
        {
            (what, reason): int(
                doors.aggregator.metric(f'bioverify_items_not_read_total{{reason="{reason}",what="{what}"}}')
            )
            for what, reason in ALL_REASONS
        }
    )


def test_the_client_the_metrics_the_lines_of_a_file_and_http_say_the_same_counts(doors: Doors, tmp_path: Path) -> None:
    before = counted_by_metrics(doors)
    with Client(doors.target) as client:
        told = readings_of(client.score(items(ROWS), RECIPE).rewards)
    assert without_nothing(told.not_read) == EXPECTED
    assert told.items == len(ROWS)
    counted = counted_by_metrics(doors) - before
    assert counted == {(what, reason): count for what, reasons in EXPECTED.items() for reason, count in reasons.items()}

    file = write(tmp_path / "rows.jsonl", ROWS)
    for command in ("score", "rescore"):
        (tmp_path / "rows.scored.jsonl").unlink(missing_ok=True)
        said = run(command, file, "--recipe", RECIPE, "--target", doors.target)
        assert "7 of 20 questions were not read: knockout 3, nothing_asked 2, drug 1, other_subject 1" in said
        assert (
            "6 of 20 completions have no thought that could be read: no_thought 3, thought_not_closed 2, "
            "empty_thought 1" in said
        )
        assert "5 of 20 answers could not be read: no_answer_block 2," in said
        assert NONE_HAS_A_THOUGHT not in said
        rows = [json.loads(line) for line in (tmp_path / "rows.scored.jsonl").read_text().splitlines()]
        assert Counter(row["unread_question"] for row in rows if row["unread_question"]) == EXPECTED["question"]
        assert Counter(row["thought_problem"] for row in rows if row["thought_problem"]) == EXPECTED["thought"]

    answer = doors.gateway.http.post("/v1/score", json={"items": ROWS, "recipe": RECIPE}).json()
    assert (
        Counter(one["unread_question"] for one in answer["rewards"] if one["unread_question"]) == (EXPECTED["question"])
    )
    assert Counter(one["thought_problem"] for one in answer["rewards"] if one["thought_problem"]) == EXPECTED["thought"]


def job_of(doors: Doors, rows: list[dict[str, Any]]) -> dict[str, Any]:
    http = doors.gateway.http
    body = "".join(json.dumps(row) + "\n" for row in rows)
    job_id = http.post("/v1/jobs", params={"recipe": RECIPE}, content=body).json()["id"]
    wait_until(lambda: http.get(f"/v1/jobs/{job_id}").json()["state"] == "done", "the job is done", 60)
    job: dict[str, Any] = http.get(f"/v1/jobs/{job_id}").json()
    return job


def test_a_job_says_what_was_not_read_over_all_its_chunks(doors: Doors) -> None:
    job = job_of(doors, ROWS * 60)
    assert without_nothing(job["not_read"]) == {
        what: {reason: 60 * count for reason, count in reasons.items()} for what, reasons in EXPECTED.items()
    }
    assert (job["looked_at"], job["warning"]) == (1200, "")
    loud = job_of(doors, [{"prompt": Q, "completion": "<answer>yes</answer>"}] * 600)
    assert loud["not_read"]["thought"] == {"no_thought": 600}
    assert loud["warning"].startswith("None of the 600 completions has a thought")
    assert "[THINK]" in loud["warning"]


def test_a_file_without_any_thought_is_warned_of_once_and_loudly(doors: Doors, tmp_path: Path) -> None:
    # Three chunks, one warning.
    file = write(tmp_path / "none.jsonl", [{"prompt": Q, "completion": "Well. <answer>yes</answer>"}] * 700)
    said = run("score", file, "--recipe", RECIPE, "--target", doors.target)
    assert said.count("WARNING: None of the 700 completions has a thought that could be read") == 1
    assert said.count("Read as a thought are") == 1
    for named in ("<think>…</think>", "[THINK]…", "reasoning_content", "If the chat template ends with <think>"):
        assert named in said
    assert "None of" not in run("rescore", file, "--recipe", RECIPE, "--target", doors.target)
    one = write(tmp_path / "one.jsonl", [{"prompt": Q, "completion": "<answer>yes</answer>"}])
    assert "WARNING: The completion has no thought" in run("score", one, "--recipe", RECIPE, "--target", doors.target)


def bare(count: int) -> list[ScoreItem]:
    return [ScoreItem(str(n), f"{n} <answer>yes</answer>", Q) for n in range(count)]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if NONE_HAS_A_THOUGHT in record.getMessage()]


def test_a_client_says_once_and_not_per_call_that_no_completion_has_a_thought(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Client(doors.target) as client:
        # A few may be so by themselves.
        client.score(bare(FEWEST - 1), RECIPE)
        assert warnings_of(caplog) == []
        client.score(bare(2), RECIPE)
        assert len(warnings_of(caplog)) == 1
        assert warnings_of(caplog)[0].startswith(f"None of the {FEWEST + 1} completions has a thought")
        client.score(bare(20), RECIPE)
    assert len(warnings_of(caplog)) == 1


def test_an_asynchronous_client_says_it_too_and_one_that_is_told_not_to_does_not(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(*, warns: bool) -> None:
        async with AsyncClient(doors.target, warns=warns) as client:
            for _ in range(3):
                await client.score(bare(FEWEST), RECIPE)

    with caplog.at_level(logging.WARNING):
        asyncio.run(ask(warns=False))
        assert warnings_of(caplog) == []
        asyncio.run(ask(warns=True))
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("one", [C, "So.</think> <answer>yes</answer>", "[THINK]So.[/THINK]<answer>yes</answer>"])
def test_one_thought_among_many_completions_is_enough_to_say_nothing(
    doors: Doors, caplog: pytest.LogCaptureFixture, one: str
) -> None:
    with caplog.at_level(logging.WARNING), Client(doors.target) as client:
        client.score([*bare(20), ScoreItem("one", one, Q)], RECIPE)
        client.score(bare(20), RECIPE)
    assert warnings_of(caplog) == []
