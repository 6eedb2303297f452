"""The command line: files in, tables and files out, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify import recipes
from bioverify.cli.services import ARTIFACTS, VERIFIERS
from bioverify.client import AsyncClient, Client, ScoreItem
from bioverify.gateway.schemas import ClaimsReply
from bioverify.rollouts.lines import LineError, read_chunks, read_items
from tests.fixtures.stack import LocalStack

QUESTION = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of {}? "
    "The answer is either yes or no."
)
GOOD = {
    "id": "first",
    "group_id": "g",
    "prompt": QUESTION.format("AARS1", "ASNS"),
    "completion": "<think>AARS1 charges tRNA with alanine; ASNS answers.</think> <answer>yes</answer>",
}


def write_lines(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_broken_line_is_reported_by_number_and_the_rest_is_scored(stack: LocalStack, tmp_path: Path) -> None:
    as_messages = {**GOOD, "id": 7, "prompt": [{"role": "user", "content": GOOD["prompt"]}], "completion": "no idea"}
    genes = {"perturbation": "AARS1", "measured_gene": "ASNS", "cell_line": "K-562"}
    with_task = {"completion": GOOD["completion"], "task": {"differential_expression": genes}, "model": "ignored"}
    file = write_lines(
        tmp_path / "completions.jsonl", GOOD, as_messages, '{"completion": "cut', "", with_task, {"prompt": "no answer"}
    )

    done = stack.run("score", file, "--recipe", "all", "--output", tmp_path / "out.jsonl", status=1)

    assert "line 3: not JSON" in done.stderr
    assert "line 6: completion is missing; found: prompt; wanted: prompt (or messages, or task)" in done.stderr
    assert "keys that nobody reads: model" in done.stderr
    assert "2 lines could not be read; the other 3 were scored" in done.stderr
    first, second, third = read_lines(tmp_path / "out.jsonl")
    assert [first["id"], second["id"], third["id"]] == ["first", "7", "5"]
    assert [first["answer"], second["answer"], third["answer"]] == ["yes", "no_answer_block", "yes"]
    assert first["task"] == {"differential_expression": {**genes, "cell_line": "k562"}}
    assert first["reward"] == sum(part["contribution"] or 0 for part in first["parts"])
    assert {part["verifier"] for part in first["parts"]} == {term.verifier for term in recipes.load("all").terms}
    said = {part["verifier"]: part for part in first["parts"]}
    assert all(part["evidence"][0]["text"] for part in said.values() if part["outcome"] == "scored")
    assert all(part["reason"] and part["value"] is None for part in said.values() if part["outcome"] != "scored")
    assert re.search(r"mean reward \d\.\d{3} of [\d.]+ over 3, 0 unscorable", done.stdout)
    assert re.match(r"2 × The simulated screen says (yes|no); the answer says yes\.\n", done.stdout)
    for line in (first, second, third):
        assert line["highest"] == sum(part["weight"] for part in line["parts"] if part["contribution"] is not None)
    assert first["verdict"].endswith("; the answer says yes.")
    assert second["verdict"].endswith("; the answer could not be read (no_answer_block).")
    assert f"2 × {first['verdict']}" in done.stdout


PROSE = (
    "AARS1 takes part in alanyl-tRNA aminoacylation.\n\n"
    "ASNS – α – does not take part in asparagine biosynthetic process. It may rain.\n"
)


def test_prose_is_checked_claim_by_claim_without_a_question(stack: LocalStack, tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text(PROSE)

    told = stack.run("check-text", tmp_path / "prose.txt").stdout

    assert 'line 1: precision 0.50\n  AARS1, "alanyl-tRNA aminoacylation": supported: GO:0006419 alanyl-tRNA' in told
    assert 'line 3: precision 0.00\n  ASNS, not "asparagine biosynthetic process": contradicted: GO:0006529 ' in told
    assert told.endswith("1 supported, 1 contradicted, 0 unsupported\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "nothing to check" in stack.run("check-text", tmp_path / "empty.txt", status=1).stderr


def test_claims_over_http_are_quoted_by_their_place_in_the_text(stack: LocalStack) -> None:
    url = f"http://127.0.0.1:{stack.port_base + 9}/v1/claims"
    reply = httpx.post(url, json={"texts": [PROSE, "It rains."]}).raise_for_status().json()
    checked, bare = ClaimsReply.model_validate(reply).texts
    quotes = [one.quote for one in checked.evidence if one.quote]
    assert [(PROSE[one.start : one.end], one.verdict) for one in quotes] == [
        ("alanyl-tRNA aminoacylation", "supported"),
        ("asparagine biosynthetic process", "contradicted"),
    ]
    assert bare.components["claims"] == 0
    assert "texts" in httpx.post(url, json={"texts": []}).json()["detail"]


def test_every_sentence_about_the_made_up_screen_says_simulated(stack: LocalStack, tmp_path: Path) -> None:
    prompts = read_simulated_questions(stack)
    file = write_lines(tmp_path / "in.jsonl", *({**GOOD, "prompt": prompt, "group_id": prompt} for prompt in prompts))

    stack.run("score", file, "--recipe", "rbio1-exp", "--output", tmp_path / "out.jsonl")

    parts = [p for line in read_lines(tmp_path / "out.jsonl") for p in line["parts"] if p["verifier"] == "experimental"]
    scored = [part for part in parts if part["outcome"] == "scored"]
    assert len(scored) == len(prompts)
    for part in scored:
        assert all(evidence["simulated"] and "imulated" in evidence["text"] for evidence in part["evidence"])


def read_simulated_questions(stack: LocalStack) -> list[str]:
    import pyarrow.parquet as pq

    folder = stack.home / "artifacts" / "prompts"
    table = pq.read_table(folder / (folder / "current").read_text().strip() / "prompts.parquet").slice(0, 2000)
    rows = [
        row
        for row in table.to_pylist()
        if row["task_kind"] == "differential_expression" and row["split"] == "train" and row["line"] == "k562"
    ]
    return [QUESTION.format(row["perturbation"], row["measured_gene"]) for row in rows[:5]]


def test_an_unscorable_line_is_a_result_and_no_error(stack: LocalStack, tmp_path: Path) -> None:
    unknown = {**GOOD, "prompt": QUESTION.format("NOSUCHGENE", "ASNS"), "group_id": "other"}
    file = write_lines(tmp_path / "in.jsonl", unknown, {**GOOD, "prompt": "Tell me a joke.", "group_id": "third"})

    done = stack.run("score", file, "--recipe", "rbio1-exp", "--no-evidence")

    lines = read_lines(tmp_path / "in.scored.jsonl")
    assert [line["reward"] for line in lines] == [None, None]
    assert "not applicable" in lines[0]["unscorable_because"]
    assert not any(part["evidence"] for line in lines for part in line["parts"])
    assert "2 unscorable" in done.stdout


def test_a_second_scoring_is_answered_by_the_cache(stack: LocalStack, tmp_path: Path) -> None:
    thoughts = (f"<think>thought {n} of AARS1, cold</think><answer>yes</answer>" for n in range(300))
    file = write_lines(tmp_path / "in.jsonl", *({**GOOD, "completion": thought} for thought in thoughts))
    cold, warm = tmp_path / "cold.jsonl", tmp_path / "warm.jsonl"

    stack.run("score", file, "--output", cold)
    stack.run("score", file, "--output", warm)

    parts = [part for line in read_lines(warm) for part in line["parts"]]
    assert sum(part["from_cache"] for part in parts) >= 0.99 * len(parts)
    for line_cold, line_warm in zip(read_lines(cold), read_lines(warm), strict=True):
        assert line_cold["reward"] == line_warm["reward"]


def test_rescoring_by_all_says_how_far_the_claims_of_stored_completions_are_supported(
    stack: LocalStack, tmp_path: Path
) -> None:
    thoughts = (
        "AARS1 takes part in alanyl-tRNA aminoacylation.",
        "ASNS does not take part in asparagine biosynthetic process.",
        "It is so.",
    )
    completions = (f"<think>{thought}</think> <answer>yes</answer>" for thought in thoughts)
    file = write_lines(tmp_path / "in.jsonl", *({**GOOD, "id": text, "completion": text} for text in completions))
    said_before = stack.run("score", file, "--recipe", "first-score").stdout

    said = stack.run("rescore", file).stdout

    assert "claims:" not in said_before
    assert "claims: mean precision 0.250 over the 2 of 3 with something to check; 1 contradicted\n" in said
    assert "3 results added" in said
    last = read_lines(tmp_path / "in.scored.jsonl")[-3:]
    assert [part["value"] is not None for row in last for part in row["parts"] if part["verifier"] == "claims"] == [
        True
    ] * 3


def test_mistakes_are_answered_with_what_mends_them(stack: LocalStack, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "in.jsonl", GOOD)

    assert "bioverify up" in stack.run("score", file, "--target", "127.0.0.1:1", status=1).stderr
    listed = stack.run("score", file, "--recipe", "nonsense", status=1).stderr
    assert "there are: all, claims+exp, claims+mlp, consensus, first-score, lift" in listed
    assert "is the input file" in stack.run("score", file, "--output", file, status=1).stderr
    assert "go_rouge" in stack.run("serve", "nonsense", status=1).stderr
    assert "there are: genes" in stack.run("data", "build", "nonsense", status=1).stderr
    write_lines(file, {**GOOD, "source": "nowhere"}, {**GOOD, "task": {"co_expression": {"gene_a": "A"}}})
    refused = stack.run("score", file, status=1).stderr
    assert "line 1: source: the recipe has no source 'nowhere'" in refused
    assert "line 2: task.co_expression.gene_b: Field required" in refused


def test_verifiers_recipes_and_artifacts_are_shown(stack: LocalStack) -> None:
    verifiers = stack.run("verifiers").stdout
    assert all(name in verifiers for name in VERIFIERS)
    assert "SIMULATED" in verifiers
    assert "rbio1-tf+go+mlp+exp" in stack.run("recipes").stdout
    listed = stack.run("data", "list").stdout
    assert all(name in listed for name in ARTIFACTS)
    shown = stack.run("data", "show", "genes")
    assert json.loads(shown.stdout)["name"] == "genes"
    assert "have their checksums" in shown.stderr


def test_an_artifact_is_built_and_a_service_without_one_refuses(tmp_path: Path) -> None:
    fresh = LocalStack(tmp_path / "home", tmp_path / "state", 0)

    refused = fresh.run_alone("serve", "go_rouge", "--listen", "127.0.0.1:0", status=1)
    built = fresh.run("data", "build", "genes", "--offline", "--mirror", tmp_path)

    assert "artifact genes: not built yet" in refused.stderr
    assert "bioverify data build genes" in refused.stderr
    assert "sha256:" in built.stdout
    assert "bundled" in built.stdout
    assert "genes" in fresh.run("data", "list").stdout


def test_help_needs_nothing_heavy() -> None:
    heavy = ("torch", "grpc", "numpy", "pyarrow", "pydantic", "redis")
    code = f"import sys, bioverify.cli; print([name for name in {heavy} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout == "[]\n"


def test_train_takes_its_options_and_finds_the_stack_that_runs(stack: LocalStack) -> None:
    shown = json.loads(stack.run_alone("train", "rbio1-exp", "--output", "run", "--dry-run").stdout)

    assert shown["recipe"]["name"] == "rbio1-exp"
    # By the stack that runs, of which the trainer knows nothing.
    assert isinstance(shown["sources"][0]["example"]["reward"], float), shown["sources"][0]["example"]


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=60), st.integers(1, 7))
def test_chunks_keep_every_line_in_order_and_cut_no_group(groups: list[str], size: int) -> None:
    lines = [json.dumps(GOOD | ({"group_id": group} if group else {})).encode() for group in groups]
    chunks = [[line.item for line in chunk] for chunk in read_chunks(lines, [], pytest.fail, size)]

    assert [int(item.id) for chunk in chunks for item in chunk] == [n + 1 for n in range(len(groups))]
    for earlier, later in pairwise(chunks):
        assert len(earlier) >= size
        assert not {item.group_id for item in earlier} & {item.group_id for item in later} - {""}


def test_a_file_without_end_is_read_as_it_comes() -> None:
    endless = (json.dumps({"completion": str(n)}).encode() for n in count())

    chunks = list(islice(read_chunks(endless, [], lambda error: pytest.fail(str(error)), 256), 3))

    assert [len(chunk) for chunk in chunks] == [256, 256, 256]


@given(st.lists(st.one_of(st.binary(max_size=40), st.just(json.dumps(GOOD).encode())), max_size=20))
def test_whatever_a_line_holds_it_is_an_item_or_an_error(lines: list[bytes]) -> None:
    errors: list[LineError] = []

    items = list(read_items(lines, [], errors.append))

    assert len(items) + len(errors) == sum(bool(line.strip()) for line in lines)
    assert all(str(error).startswith("line ") for error in errors)


def test_what_is_listed_for_people_is_had_as_json_for_programs(stack: LocalStack) -> None:
    processes = {one["name"]: one for one in json.loads(stack.run("status", "--json").stdout)}
    assert set(VERIFIERS) < set(processes)
    assert processes["experimental"] | {"uptime_s": 0, "pid": 0} == {
        "name": "experimental",
        "address": f"127.0.0.1:{stack.port_base + 1}",
        "state": "running",
        "pid": 0,
        "is_ready": True,
        "uptime_s": 0,
        "simulated": True,
    }
    known = {one["name"]: one for one in json.loads(stack.run("recipes", "--json").stdout)}
    assert set(known) == set(recipes.names())
    assert known["rbio1-exp"] == recipes.load("rbio1-exp").model_dump(mode="json")
    verifiers = {one["name"]: one for one in json.loads(stack.run("verifiers", "--json").stdout)}
    assert tuple(verifiers) == VERIFIERS
    assert verifiers["go_rouge"]["is_ready"]
    assert verifiers["experimental"]["artifacts"][0]["simulated"]
    listed = {one["name"]: one for one in json.loads(stack.run("data", "list", "--json").stdout)}
    assert set(listed) == set(ARTIFACTS)
    described = json.loads(stack.run("data", "show", "genes").stdout)
    assert {key: listed["genes"][key] for key in described} == described
    opened = {one["name"]: one["digest"] for one in verifiers["go_rouge"]["artifacts"]}
    assert opened == {name: listed[name]["digest"] for name in opened}


def test_an_artifact_that_is_damaged_is_listed_as_such(tmp_path: Path) -> None:
    broken = tmp_path / "home/artifacts/genes"
    broken.mkdir(parents=True)
    (broken / "current").write_text("0123456789abcdef\n")
    (listed,) = json.loads(LocalStack(tmp_path / "home", tmp_path / "state", 0).run("data", "list", "--json").stdout)
    assert listed["name"] == "genes"
    assert "genes" in listed["damaged"]


def test_at_80_columns_nothing_that_identifies_a_row_is_cut(stack: LocalStack, tmp_path: Path) -> None:
    narrow = LocalStack(stack.home, stack.state, stack.port_base, columns=80)
    long_id = "a-run-with-a-long-name/checkpoint-000123/question-0000000000000000000000042"
    file = write_lines(tmp_path / "in.jsonl", {**GOOD, "id": long_id})

    shown = {
        command: narrow.run(*command.split()).stdout for command in ("status", "verifiers", "recipes", "data list")
    }
    scored = narrow.run("score", file, "--recipe", "rbio1-tf+go+mlp+exp").stdout

    for name in VERIFIERS:
        assert name in shown["status"]
        assert name in shown["verifiers"]
        assert f"127.0.0.1:{stack.port_base + 1 + VERIFIERS.index(name)}" in shown["status"]
    assert all(name in shown["recipes"] for name in recipes.names())
    digests = [one["digest"] for one in json.loads(narrow.run("data", "list", "--json").stdout)]
    assert all(f"{digest.removeprefix('sha256:')[:16]}" in shown["data list"] for digest in digests)
    # Folded over several lines of its column.
    first_column = "".join(line.split("│")[1].strip() for line in scored.splitlines() if line.startswith("│"))
    assert long_id in first_column
    assert "format.mention" in scored


def test_without_a_recipe_every_door_takes_the_same(stack: LocalStack, tmp_path: Path) -> None:
    item = ScoreItem("first", GOOD["completion"], prompt=GOOD["prompt"])
    file = write_lines(tmp_path / "in.jsonl", GOOD)

    async def asked() -> float | None:
        async with AsyncClient(stack.target) as client:
            return (await client.score([item])).rewards[0].reward

    with Client(stack.target) as client:
        by_name = client.score([item], "all").rewards[0].reward
        by_default = client.score([item]).rewards[0].reward
    stack.run("score", file, "--output", tmp_path / "out.jsonl")
    url = f"http://127.0.0.1:{stack.port_base + 9}/v1/score"
    over_http = httpx.post(url, json={"items": [GOOD]}).raise_for_status().json()["rewards"][0]["reward"]

    assert by_name is not None
    answered = [by_default, asyncio.run(asked()), read_lines(tmp_path / "out.jsonl")[0]["reward"], over_http]
    assert answered == [by_name] * 4
