"""Stored rollouts scored, and scored again: what is asked for, what is added, and that nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bioverify.cli import app
from tests.fixtures import servers
from tests.fixtures.waiting import wait_until

QUESTION = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of {}? "
    "The answer is either yes or no."
)
RECIPE = "rbio1-exp"
FORMAT_LIKE = {"name": "format", "component": "mention"}


def rollouts(count: int, genes: tuple[str, ...] = ("A", "B", "C", "D", "UNKNOWN")) -> list[dict[str, Any]]:
    """In groups of four with one question each."""
    draw = random.Random(3)
    rows = []
    for group in range(count // 4):
        prompt = QUESTION.format(genes[group % len(genes)], f"G{group}")
        for _ in range(4):
            text = f"<think>{draw.random()}</think> <answer>{draw.choice(['yes', 'no'])}</answer>"
            rows.append({"prompt": prompt, "completion": text, "group_id": f"g{group}"})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def latest(path: Path) -> dict[int, float | None]:
    """The reward of each row: its last line counts."""
    return {result["row"]: result["reward"] for result in results(path)}


def run(*arguments: str | Path, status: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})
    assert done.exit_code == status, f"{done.output}{done.exc_info}"
    return done.output


@contextmanager
def services(
    *, lookup_version: str = "1", with_text: bool = True, with_lookup: bool = True, text_delay_s: float = 0
) -> Iterator[str]:
    """An aggregator with what rbio1-exp asks; one that is left out is named, and does not answer."""
    nobody = f"127.0.0.1:{servers.free_port()}"
    lookup = {"name": "experimental", "version": lookup_version}
    with (
        servers.verifier("Lookup", parameters=lookup) as one,
        servers.verifier("Text", parameters=FORMAT_LIKE | {"delay_s": text_delay_s}) as other,
        servers.aggregator(
            {"experimental": one.target if with_lookup else nobody, "format": other.target if with_text else nobody}
        ) as aggregator,
    ):
        yield aggregator.target


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with services() as target:
        yield target


def test_a_second_run_adds_nothing_and_a_changed_or_new_row_is_all_that_is_asked(target: str, tmp_path: Path) -> None:
    rows = rollouts(40)
    file, out = write(tmp_path / "in.jsonl", rows), tmp_path / "in.scored.jsonl"
    run("score", file, "--recipe", RECIPE, "--target", target)
    before = out.read_bytes()

    said = run("rescore", file, "--recipe", RECIPE, "--target", target)

    assert "40 stand as they are" in said
    assert "0 results added" in said
    assert out.read_bytes() == before
    rows[5]["completion"] = "<think>another</think> <answer>yes</answer>"
    write(file, rows + [row | {"group_id": "new"} for row in rollouts(4)])
    dry = run("rescore", file, "--recipe", RECIPE, "--target", target, "--dry-run")
    assert "4 without a result, 4 changed, 36 stand as they are: 8 rows in 2 groups to be asked about" in dry
    assert "A sample of 8 took" in dry
    assert out.read_bytes() == before
    run("rescore", file, "--recipe", RECIPE, "--target", target)
    assert out.read_bytes().startswith(before)
    # The other three of row 6's group were asked about with it, and nothing new was said of them but by their key.
    assert [result["row"] for result in results(out)[40:]] == [6, 41, 42, 43, 44]
    assert "0 results added" in run("rescore", file, "--recipe", RECIPE, "--target", target)


def test_a_run_that_was_killed_is_gone_on_with_without_loss_or_doubling(target: str, tmp_path: Path) -> None:
    rows = rollouts(2400)
    file, out, whole = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    run("score", file, "--recipe", RECIPE, "--target", target, "--output", whole)
    with services(text_delay_s=0.3) as slow:
        command = ["score", str(file), "--recipe", RECIPE, "--target", slow, "--output", str(out)]
        process = subprocess.Popen([sys.executable, "-m", "bioverify.cli", *command], stdout=subprocess.DEVNULL)
        wait_until(lambda: out.exists() and out.stat().st_size > 0, "some results are written", 120)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with out.open("ab") as torn:
        torn.write(whole.read_bytes()[:1000].splitlines()[0][:200])

    said = run("rescore", file, "--recipe", RECIPE, "--target", target, "--output", out)

    n_before = 2400 - int(said.rsplit(" results added")[0].split("\n")[-1].replace(",", ""))
    assert 0 < n_before < 2400
    assert [result["row"] for result in results(out)] == [*range(1, 2401)]
    assert [strip(result) for result in results(out)] == [strip(result) for result in results(whole)]


def strip(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "parts": [{**part, "from_cache": None} for part in result["parts"]]}


def test_only_what_failed_is_asked_for_again(target: str, tmp_path: Path) -> None:
    file, out = write(tmp_path / "in.jsonl", rollouts(24)), tmp_path / "in.scored.jsonl"
    with services(with_lookup=False) as broken:
        run("score", file, "--recipe", RECIPE, "--target", broken)
        assert set(latest(out).values()) == {None}
        assert "0 results added" in run("rescore", file, "--recipe", RECIPE, "--target", broken, "--only-failed")
    good = tmp_path / "good.jsonl"
    run("score", file, "--recipe", RECIPE, "--target", target, "--output", good)

    said = run("rescore", file, "--recipe", RECIPE, "--target", target, "--only-failed")

    assert "24 failed" in said
    assert latest(out) == latest(good)
    assert "0 results added" in run("rescore", file, "--recipe", RECIPE, "--target", target, "--only-failed")
    assert "0 results added" in run("rescore", file, "--recipe", RECIPE, "--target", target)


def test_a_new_version_of_one_verifier_is_asked_alone_and_the_rewards_are_those_of_asking_all(tmp_path: Path) -> None:
    file, out, whole = write(tmp_path / "in.jsonl", rollouts(24)), tmp_path / "in.scored.jsonl", tmp_path / "w.jsonl"
    only = ("--recipe", RECIPE, "--only-verifier", "experimental")
    with services() as old:
        run("score", file, "--recipe", RECIPE, "--target", old)
        assert "does not ask go_rouge" in run(
            "rescore", file, "--recipe", RECIPE, "--only-verifier", "go_rouge", "--target", old, status=1
        )
    first = latest(out)
    with services(lookup_version="2") as new:
        run("score", file, "--recipe", RECIPE, "--target", new, "--output", whole)
    # The other verifier is gone: it is not needed.
    with services(lookup_version="2", with_text=False) as lacking:
        said = run("rescore", file, *only, "--target", lacking)
        assert "24 changed" in said
        assert "0 results added" in run("rescore", file, *only, "--target", lacking)

    assert latest(out) == latest(whole) != first
    assert len([value for value in latest(out).values() if value is None]) == 4
    by_row = {result["row"]: strip(result) for result in results(out)}
    assert by_row == {result["row"]: strip(result) for result in results(whole)}


def test_a_row_mended_by_one_verifier_still_quotes_the_question_that_was_not_read(tmp_path: Path) -> None:
    question = "Is a knockout of A in k562 cells likely to result in differential expression of G7?"
    text = "<think>So.</think> <answer>yes</answer>"
    rows = [
        *rollouts(4),
        {"prompt": question, "completion": text},
        {"prompt": [{"role": "user", "content": question}], "completion": "<answer>yes</answer>"},
        {"prompt": "Answer now, in the tags.", "completion": text},
    ]
    file, out, whole = write(tmp_path / "in.jsonl", rows), tmp_path / "in.scored.jsonl", tmp_path / "w.jsonl"
    with services() as old:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            "name: both\ndescription: of every question\nterms:\n"
            "- {verifier: format, weight: 1, requirement: optional}\n"
            "- {verifier: experimental, weight: 2, requirement: required}\n"
        )
        run("score", file, "--recipe", recipe, "--target", old)
    with services(lookup_version="2") as new:
        run("score", file, "--recipe", recipe, "--target", new, "--output", whole)
    with services(lookup_version="2", with_text=False) as lacking:
        said = run("rescore", file, "--recipe", recipe, "--target", lacking, "--only-verifier", "experimental")
    assert "7 changed" in said
    assert "3 of 7 questions were not read: knockout 2, nothing_asked 1" in said
    mended = {result["row"]: strip(result) for result in results(out)}
    assert mended == {result["row"]: strip(result) for result in results(whole)}
    for row in (5, 6):
        assert mended[row]["reward"] is None
        assert (
            f'the question was not read (knockout): The prompt\'s last question was not read: "{question}"'
            in (mended[row]["unscorable_because"])
        )
        assert mended[row]["unread_question"] == "knockout"
    assert mended[6]["thought_problem"] == "no_thought"
    assert mended[7]["unread_question"] == "nothing_asked"


def test_parquet_and_trl_s_tables_give_the_rewards_of_jsonl(target: str, tmp_path: Path) -> None:
    rows = rollouts(16)
    run("score", write(tmp_path / "in.jsonl", rows), "--recipe", RECIPE, "--target", target)
    expected = latest(tmp_path / "in.scored.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    tables = tmp_path / "completions"
    tables.mkdir()
    for step, part in enumerate((rows[:8], rows[8:]), 1):
        as_trl = [
            {
                "step": step,
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["completion"]}],
                "bioverify_reward": 0.0,
                "advantage": 0.0,
            }
            for row in part
        ]
        pq.write_table(pa.Table.from_pylist(as_trl), tables / f"completions_{step:05d}.parquet")

    run("score", tmp_path / "table.parquet", "--recipe", RECIPE, "--target", target)
    run("score", tables, "--recipe", RECIPE, "--target", target)

    assert latest(tmp_path / "table.scored.jsonl") == expected
    assert latest(tables / "scored.jsonl") == expected
    assert len(set(expected.values())) > 2


def test_score_touches_nothing_before_something_is_scored_and_nothing_that_is_not_its_own(
    target: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "in.jsonl", rollouts(8))
    run("score", file, "--recipe", RECIPE, "--target", target)
    out = tmp_path / "in.scored.jsonl"
    before = out.read_bytes()
    file.write_text('{"question": "no completion"}\n')
    said = run("score", file, "--recipe", RECIPE, "--target", target, status=1)
    assert "none of its 1 lines could be read" in said
    assert out.read_bytes() == before
    write(file, rollouts(4))
    run("score", file, "--recipe", RECIPE, "--target", target)
    assert len(results(out)) == 4
    notes = tmp_path / "notes.txt"
    notes.write_text("buy milk")
    said = run("score", file, "--recipe", RECIPE, "--target", target, "--output", notes, status=1)
    assert "not a result of bioverify score or rescore. Choose another --output" in said
    assert notes.read_text() == "buy milk"
    missing = tmp_path / "no" / "folder" / "out.jsonl"
    said = run("score", file, "--recipe", RECIPE, "--target", target, "--output", missing, status=1)
    assert "there is no folder" in said
    assert "mkdir -p" in said
    said = run("score", file, "--recipe", RECIPE, "--target", target, "--output", tmp_path, status=1)
    assert "is a folder; name a file in it" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "in.scored.jsonl", "notes.txt"]


def test_what_cannot_be_rescored_says_what_to_do(target: str, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", rollouts(4))
    dry = run("rescore", file, "--recipe", RECIPE, "--target", target, "--dry-run", status=1)
    assert "Score first: bioverify score" in dry
    other = write(tmp_path / "other.jsonl", [{"reward": 1.0}])
    refused = run("rescore", file, "--recipe", RECIPE, "--target", target, "--output", other, status=1)
    assert "not a result of bioverify score or rescore" in refused
    assert results(other) == [{"reward": 1.0}]
    (tmp_path / "no.parquet").write_text("text")
    assert "is no Parquet file" in run("score", tmp_path / "no.parquet", "--target", target, status=1)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    assert "no column completion" in run("score", tmp_path / "text.parquet", "--target", target, status=1)
