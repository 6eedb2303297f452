"""The report in a real Chromium, as the file that it is: components of the pages, a phone, the dark, a hostile run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from bioverify import recipes
from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import RunFolder, read_records, run_config
from bioverify_trainer.runs.report import write_report
from tests.browser.test_pages import CHROMIUM, INJECTED, Watched, browser, check, runs
from tests.trainer.test_report import listed

__all__ = ["browser", "runs"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


@pytest.fixture
def hostile_run(runs: Path, tmp_path: Path) -> Path:
    """A run whose own name, recipe, verifier, question, completion and evidence are markup."""
    folder = RunFolder(tmp_path / INJECTED.split("<script>")[0])
    recipe = recipes.load("rbio1-exp").model_copy(update={"name": INJECTED, "description": INJECTED})
    verifier = replace(listed(simulated=True), name=INJECTED)
    config = run_config(recipe, load_preset("cpu"), [verifier], target=INJECTED, simulated=True, policy_path=INJECTED)
    folder.write_config(config)
    for file in (folder.metrics_file, folder.samples_file):
        shutil.copy(runs / "first" / file.name, file)
    return folder.path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (390, "light")])
def test_the_report_shows_a_run_as_the_pages_do_and_runs_nothing_of_it(
    width: int, scheme: Any, browser: Browser, hostile_run: Path
) -> None:
    output = hostile_run / "report.html"
    write_report(hostile_run, output)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    watched = Watched(context.new_page())
    page = watched.page
    page.on("console", lambda message: watched.faults.append(message.text))
    page.on("pageerror", lambda error: watched.faults.append(str(error)))
    page.on("request", lambda asked: None if asked.url == output.as_uri() else watched.faults.append(asked.url))
    page.goto(output.as_uri())
    reward = page.get_by_role("img", name="Mean reward: from 0.100 at step 1 to 0.800 at step 8")
    expect(reward).to_be_visible()
    reward.focus()
    page.keyboard.press("Home")
    expect(page.locator("figure.run", has=reward)).to_contain_text("step 1: 0.1000")
    page.get_by_label("Smoothing").focus()
    page.keyboard.press("End")
    expect(page.locator("figure.run polyline.faint").first).to_be_attached()
    expect(page.locator("#examples")).to_contain_text("after 8 steps <img src=x")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 23, 30)" if scheme == "dark" else "rgb(255, 255, 255)")
    expect(page.get_by_role("region", name="Verifiers")).to_contain_text("<img src=x")
    expect(page.locator("h1")).to_contain_text("<img src=x")
    assert page.title() != "run"
    assert page.locator("img").count() == 0
    check(watched)
    context.close()


def test_what_teaches_and_where_the_time_goes_are_figures_if_the_run_recorded_them(
    browser: Browser, hostile_run: Path
) -> None:
    metrics = RunFolder(hostile_run).metrics_file
    records = read_records(metrics)
    more = {"frac_reward_zero_std": 0.5, "kl": 0.01, "pace/rewards": 0.02, "pace/tokens_per_second": 9000.0}
    metrics.write_text("".join(json.dumps(record | more) + "\n" for record in records))
    output = hostile_run / "report.html"
    write_report(hostile_run, output)
    page = browser.new_page()
    page.goto(output.as_uri())
    for name in ("Share of groups rewarded all alike", "KL divergence", "Pace: rewards", "Pace: tokens_per_second"):
        expect(page.get_by_role("img", name=name)).to_be_visible()
    expect(page.get_by_role("img", name="Entropy")).to_have_count(0)
    page.close()


def test_the_report_refuses_every_script_but_its_own(browser: Browser, hostile_run: Path) -> None:
    output = hostile_run / "report.html"
    write_report(hostile_run, output)
    # What an escape that was forgotten would let through.
    output.write_text(output.read_text().replace("<h1>", f"{INJECTED}<h1>"))
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(output.as_uri())
    expect(page.get_by_role("img", name="Mean reward")).to_be_visible()
    assert page.title() != "run"
    assert any("Content Security Policy" in text for text in refused)
    page.close()
