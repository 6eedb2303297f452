"""The pages in a real Chromium, over the real local stack with artifacts of the bundled set."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bioverify.cli.services import VERIFIERS
from bioverify.gateway.api_keys import Scope, new_key, write_keys
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.stack import LocalStack
from tests.integration.test_gateway import item

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
INJECTED = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run = folder / "first"
    run.mkdir()
    config = {"recipe": {"name": "rbio1-exp"}, "preset": {"name": "cpu"}, "started_at": "2026-01-02T03:04:05+00:00"}
    (run / "run.json").write_text(json.dumps(config))
    steps = [{"step": n, "reward": n / 10, "reward_call/unscorable": 0.0, "step_seconds": 1.5} for n in range(1, 9)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"step": 9, "rew')
    return folder


@pytest.fixture(scope="module")
def site(stack: LocalStack, runs: Path) -> Iterator[RunningGateway]:
    with scratch_folder() as folder, gateway(folder, stack.target, runs_folder=runs) as running:
        yield running


@dataclass
class Watched:
    """A page, and everything that went wrong on it."""

    page: Page
    faults: list[str] = field(default_factory=list)


@pytest.fixture(params=list(SIZES))
def watched(request: pytest.FixtureRequest, browser: Browser, site: RunningGateway) -> Iterator[Watched]:
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, base_url=site.url)
    watched = Watched(context.new_page())
    watched.page.on("console", lambda message: watched.faults.append(message.text))
    watched.page.on("pageerror", lambda error: watched.faults.append(str(error)))
    watched.page.on(
        "request",
        lambda asked: None if asked.url.startswith((site.url, "blob:", "data:")) else watched.faults.append(asked.url),
    )
    yield watched
    context.close()


def check(watched: Watched) -> None:
    """Nothing on the console, no request to elsewhere, no serious finding of axe, nothing wider than the window."""
    assert watched.faults == []
    findings = Axe().run(watched.page).response["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in findings if each["impact"] in {"serious", "critical"}]
    assert serious == []
    assert watched.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_an_answer_is_scored_and_compared(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator("#recipe option", has_text="rbio1-exp").first).to_be_attached()
    page.get_by_role("button", name="Compare with a second one").click()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("article.card")).to_have_count(2)
    expect(page.locator("article.card .reward").first).to_have_text(re.compile(r"^reward \d+\.\d{3} of \d+$"))
    expect(page.locator("article.card .verdict").first).to_have_text(
        re.compile(r"^The .*screen .*; the answer says yes\.$")
    )
    expect(page.locator("article.card").first).to_contain_text("all 11 checks passed")
    expect(page.locator("svg.bar")).to_have_count(2)
    assert page.locator("mark").count() > 0
    expect(page.get_by_role("img", name="Reliability of esm_mlp").first).to_be_visible()
    check(watched)


def test_a_measured_pair_is_shown_in_all_cell_lines(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    # Of the simulated screen, which is the same everywhere: no response in HepG2, one in the other three.
    page.get_by_label("Question").fill(
        "Is a knockdown of ANXA1 in k562 cells likely to result in differential expression of CTSC?"
    )
    page.get_by_role("button", name="Score", exact=True).click()
    rows = page.get_by_role("region", name="ANXA1 and CTSC across cell lines, first completion").locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(page.locator("tr.asked")).to_contain_text("K562")
    expect(page.locator("tr.asked")).to_contain_text("responds")
    expect(rows.filter(has_text="HEPG2")).to_contain_text("no response")
    expect(rows.filter(has_text="simulated")).to_have_count(4)
    check(watched)


def test_a_pair_is_shown_among_all_pairs(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Question").fill("Are gene CD3D and gene CD3E likely to be co-expressed together?")
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.get_by_role("img", name="Histogram of all gene pairs; this pair")).to_be_visible()
    expect(page.locator("svg.chart rect.here")).to_have_count(1)
    check(watched)


def test_what_a_model_wrote_is_shown_and_not_run(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Completion", exact=True).fill(f"<think>{INJECTED}</think> <answer>yes</answer>")
    page.get_by_label("Question").fill(f"{INJECTED} {item('AARS1')['prompt']}")
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("p.said")).to_contain_text("onerror")
    assert page.title() != "run"
    check(watched)


def test_a_link_brings_the_same_texts_back(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Completion", exact=True).fill("Größe ≥ 3 🧬 <answer>no</answer>")
    page.get_by_role("button", name="Copy a link").click()
    expect(page.locator("#said")).to_contain_text("link")
    address = page.url
    page.goto("/verifiers.html")
    page.goto(address)
    expect(page.get_by_label("Completion", exact=True)).to_have_value("Größe ≥ 3 🧬 <answer>no</answer>")
    check(watched)


def test_the_keyboard_is_enough(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.get_by_label("Completion", exact=True).focus()
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Score":
            break
    page.keyboard.press("Enter")
    expect(page.locator("article.card")).to_have_count(1)
    check(watched)


def test_a_file_is_sent_watched_filtered_and_downloaded(watched: Watched, tmp_path: Path) -> None:
    rows = [item(gene, f"<think>{gene}</think> <answer>yes</answer>", id=gene) for gene in ("AARS1", "EIF2B4", "BRAF")]
    rows[2]["completion"] = "<answer>yes</answer>"
    file = tmp_path / "completions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    page = watched.page
    page.goto("/files.html")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Send").click()
    job = page.locator("#jobs tbody tr").first
    expect(job).to_contain_text("done", timeout=60_000)
    expect(job).to_contain_text("completions without a thought: no_thought 1")
    expect(job).not_to_contain_text("answers not read")
    with page.expect_download() as downloading:
        job.get_by_role("button", name="Download").click()
    downloaded = [json.loads(line) for line in downloading.value.path().read_text().splitlines()]
    assert [row["id"] for row in downloaded] == ["AARS1", "EIF2B4", "BRAF"]
    job.get_by_role("button", name="Look").click()
    expect(page.locator("#rewards tbody tr")).to_have_count(3)
    page.get_by_role("button", name="id", exact=True).click()
    expect(page.locator("#rewards tbody tr td").first).to_have_text("AARS1")
    page.get_by_label("Filter").fill("BRAF")
    expect(page.locator("#rewards tbody tr")).to_have_count(1)
    check(watched)
    job.get_by_role("button", name="Remove").click()
    expect(page.locator("#jobs tbody tr")).to_have_count(0)


def test_the_verifiers_tell_of_themselves(watched: Watched) -> None:
    watched.page.goto("/verifiers.html")
    expect(watched.page.locator("article.card")).to_have_count(len(VERIFIERS))
    expect(watched.page.locator("#said")).to_contain_text(f"{len(VERIFIERS)} of {len(VERIFIERS)} answer")
    form = watched.page.locator("article.card", has=watched.page.get_by_role("heading", name="format"))
    expect(form).to_contain_text("not measured")
    watched.page.get_by_role("button", name="Measure latency").click()
    expect(form).to_contain_text("slowest of nine", timeout=60_000)
    watched.page.locator("summary", has_text="Artifact, address, fields").first.click()
    expect(watched.page.get_by_role("region", name="Facts of experimental")).to_contain_text("figures of its making")
    check(watched)


def test_the_curves_of_a_run_are_drawn(watched: Watched) -> None:
    watched.page.goto("/runs.html")
    watched.page.get_by_role("button", name="first").click()
    expect(watched.page.locator("#curves svg")).to_have_count(3)
    expect(watched.page.locator("#curves svg").first).to_have_attribute(
        "aria-label", "Mean reward: from 0.100 at step 1 to 0.800 at step 8"
    )
    check(watched)


def test_the_api_is_described_without_a_word_to_elsewhere(watched: Watched) -> None:
    watched.page.goto("/docs")
    expect(watched.page.get_by_text("/v1/score").first).to_be_visible()
    assert watched.faults == []


def test_a_gateway_that_asks_for_a_key_asks_the_person(browser: Browser, stack: LocalStack) -> None:
    text, key = new_key("reader", (Scope.SCORE,))
    with scratch_folder() as folder:
        write_keys(folder / "keys.yaml", (key,))
        with gateway(folder, stack.target, keys_file=folder / "keys.yaml") as running:
            page = browser.new_page()
            page.goto(f"{running.url}/verifiers.html")
            page.get_by_label("Key", exact=True).fill(text)
            page.get_by_role("button", name="Use it").click()
            expect(page.locator("article.card")).to_have_count(len(VERIFIERS))
            page.close()
