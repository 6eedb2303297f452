"""One reward, whichever way it is asked for: curl, the Python client, the command line, grpcurl and the web pages.

The same items go every way to one running stack, and the rewards have to be equal to the last bit: over HTTP and gRPC
they travel as doubles, so there is no tolerance to choose. Of the page with the form, what the person reads is compared
as well, to the three decimals that are shown. Items are real training questions with generated thoughts
(`benchmarks.items`), each a group of its own, because the form scores one at a time.

Run with a stack up, Chromium and curl: ``python -m benchmarks.same_rewards``
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console
from rich.table import Table

from benchmarks.items import Questions
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import Client, ScoreItem
from bioverify.core.questions import parse_task
from bioverify.core.tasks import DifferentialExpression
from bioverify.ports import PORT_BASE

RECIPE = "all"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
SHOWN_HALF_A_DIGIT = 0.0005

Rewards = dict[str, float | None]
"""By the item's id."""


def draw(store: ArtifactStore, n_items: int, seed: int) -> tuple[list[ScoreItem], bool]:
    """The items, and whether the questions' answers are simulated."""
    questions = Questions(store)
    # Groups of one: a group rule that the form cannot follow would not be the same question.
    items = [replace(item, group_id="") for item in questions.draw(n_items * 8, seed)[::8]]
    return items, questions.is_simulated


def rows_of(items: Sequence[ScoreItem]) -> list[dict[str, Any]]:
    """As a person writes them, in a file or a call."""
    return [{"id": item.id, "prompt": item.prompt[-1].content, "completion": item.completion} for item in items]


def by_python(items: Sequence[ScoreItem], target: str) -> Rewards:
    with Client(target) as client:
        return {reward.id: reward.reward for reward in client.score(items, RECIPE).rewards}


def by_curl(items: Sequence[ScoreItem], gateway: str) -> Rewards:
    body = json.dumps({"items": rows_of(items), "recipe": RECIPE})
    said = _run("curl", "--silent", "--fail", "--noproxy", "*", f"{gateway}/v1/score", "--data-binary", "@-", said=body)
    return _rewards(json.loads(said)["rewards"])


def by_command_line(items: Sequence[ScoreItem], target: str) -> Rewards:
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder) / "items.jsonl", Path(folder) / "scored.jsonl"
        file.write_text(_lines(items))
        options = ("--recipe", RECIPE, "--target", target, "--output", str(output))
        _run(sys.executable, "-m", "bioverify.cli", "score", str(file), *options)
        return _rewards(map(json.loads, output.read_text().splitlines()))


def by_grpcurl(items: Sequence[ScoreItem], target: str) -> Rewards:
    body = {
        "recipe_name": RECIPE,
        "items": [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows_of(items)],
    }
    arguments = ("-plaintext", "-max-msg-sz", str(64 * 2**20), "-d", "@", target)
    said = _run("grpcurl", *arguments, "bioverify.v1.RewardService/ScoreBatch", said=json.dumps(body))
    return {reward["item_id"]: reward.get("reward") for reward in json.loads(said)["rewards"]}


def by_form(items: Sequence[ScoreItem], page: Page, gateway: str) -> Rewards:
    """One by one through the page's form. Raises AssertionError where another number is shown than was answered."""
    page.goto(f"{gateway}/")
    # Until the recipes have come there is one option, and choosing it would be undone.
    expect(page.locator("#recipe option").nth(1)).to_be_attached()
    page.get_by_label("Reward by").select_option(RECIPE)
    rewards: Rewards = {}
    for item in items:
        page.get_by_label("Question").fill(item.prompt[-1].content)
        page.get_by_label("Completion", exact=True).fill(item.completion)
        with page.expect_response("**/v1/score") as answered:
            page.get_by_role("button", name="Score", exact=True).click()
        [reward] = answered.value.json()["rewards"]
        expect(page.locator("#said")).to_contain_text("Answered in")
        shown = page.locator("article.card .reward").inner_text()
        rewards[item.id] = reward["reward"]
        if reward["reward"] is None:
            assert shown == "unscorable", shown
        else:
            number, highest = shown.removeprefix("reward ").replace("−", "-").split(" of ")
            for figure, answered_figure in ((number, reward["reward"]), (highest, reward["highest"])):
                assert abs(float(figure) - answered_figure) <= SHOWN_HALF_A_DIGIT, (
                    f"{item.id}: {shown} for {reward['reward']} of {reward['highest']}"
                )
    return rewards


def by_file(items: Sequence[ScoreItem], page: Page, gateway: str) -> Rewards:
    """As a file sent and downloaded on the page of files."""
    page.goto(f"{gateway}/files.html")
    page.get_by_label("File", exact=True).set_input_files(
        {"name": "items.jsonl", "mimeType": "application/x-ndjson", "buffer": _lines(items).encode()}
    )
    with page.expect_response(lambda answer: "/v1/jobs?recipe=" in answer.url) as sent:
        page.get_by_role("button", name="Send").click()
    row = page.locator("#jobs tbody tr", has_text=sent.value.json()["id"])
    expect(row).to_contain_text("done", timeout=120_000)
    with page.expect_download() as downloading:
        row.get_by_role("button", name="Download").click()
    rewards = _rewards(map(json.loads, downloading.value.path().read_text().splitlines()))
    row.get_by_role("button", name="Remove").click()
    return rewards


def ask_every_way(items: Sequence[ScoreItem], target: str, gateway: str) -> dict[str, Rewards]:
    """By the name of the way. ``target``: the aggregator's host:port; ``gateway``: URL."""
    asked = {
        "curl": by_curl(items, gateway),
        "Python": by_python(items, target),
        "CLI": by_command_line(items, target),
        "grpcurl": by_grpcurl(items, target),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS))
        with closing(browser):
            page = browser.new_page()
            asked["page, form"] = by_form(items, page, gateway)
            asked["page, file"] = by_file(items, page, gateway)
    return asked


def differing(asked: Mapping[str, Rewards]) -> list[str]:
    """Ids of the items whose rewards are not the same every way."""
    ways = list(asked.values())
    ids = dict.fromkeys(item_id for way in ways for item_id in way)
    return [item_id for item_id in ids if len({way.get(item_id, "missing") for way in ways}) != 1]


def table(items: Sequence[ScoreItem], asked: Mapping[str, Rewards]) -> Table:
    shown = Table("item", "question", *asked, box=None, padding=(0, 2, 0, 0))
    for item in items:
        task = parse_task(item.prompt[-1].content)
        assert isinstance(task, DifferentialExpression)
        question = f"{task.perturbation} → {task.measured_gene}, {task.cell_line}"
        cells = (way.get(item.id, "missing") for way in asked.values())
        shown.add_row(item.id, question, *("unscorable" if cell is None else str(cell) for cell in cells))
    return shown


def _rewards(rows: Any) -> Rewards:
    return {row["id"]: row["reward"] for row in rows}


def _lines(items: Sequence[ScoreItem]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows_of(items))


def _run(*command: str, said: str | None = None) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    done = subprocess.run(
        command, input=said, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_rewards", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--port-base", type=int, default=PORT_BASE, help="that of `bioverify up`")
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(argv)
    items, is_simulated = draw(ArtifactStore.default(), chosen.items, chosen.seed)
    asked = ask_every_way(items, f"127.0.0.1:{chosen.port_base}", f"http://127.0.0.1:{chosen.port_base + 9}")
    console = Console(width=200, highlight=False)
    console.print(table(items, asked))
    wrong = differing(asked)
    scored = sum(reward is not None for reward in asked["Python"].values())
    questions = "questions of the simulated screen" if is_simulated else "PerturbQA training questions"
    console.print(
        f"{len(items)} {questions}, {scored} scored by {RECIPE}: {len(items) - len(wrong)} of {len(items)} have the "
        f"same reward in {len(asked)} ways{f'; not: {wrong}' if wrong else ''}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
