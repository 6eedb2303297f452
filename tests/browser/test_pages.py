"""The pages in a real Chromium, over the real local stack with artifacts of the bundled set."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

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
    held_out = [{"heldout_before/balanced_accuracy": 0.5}, *[{}] * 6, {"heldout/balanced_accuracy": 0.5}]
    steps = [step | measured for step, measured in zip(steps, held_out, strict=True)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"step": 9, "rew')
    other = folder / "second"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(config | {"recipe": {"name": INJECTED}}))
    (other / "metrics.jsonl").write_text("".join(json.dumps(step | {"reward": 0.5}) + "\n" for step in steps[:4]))
    part = {"term": "format", "weight": 1.0, "value": 0.5, "contribution": 0.5, "dropped_because": "", "reason": ""}
    samples = [
        {
            "step": n,
            "id": f"{n}-0",
            "question": f"{INJECTED}?",
            "completion": f"after {n} steps {INJECTED}",
            "reward": 0.5,
            "unscorable_because": "",
            "parts": [part | {"evidence": [{"text": INJECTED, "source": INJECTED, "simulated": True}]}],
        }
        for n in (1, 3, 8)
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
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
    """Nothing on the console, no request to elsewhere, no finding of axe of any impact, nothing wider than the page."""
    assert watched.faults == []
    findings = Axe().run(watched.page).response["violations"]
    assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in findings] == []
    wider = """() => {
      const root = document.documentElement;
      const isOut = (each) => each.getBoundingClientRect().right > root.clientWidth;
      const out = [...document.querySelectorAll("main *")].filter(isOut);
      return root.scrollWidth <= root.clientWidth ? [] : out.slice(0, 3).map((each) => each.outerHTML.slice(0, 200));
    }"""
    assert watched.page.evaluate(wider) == []


def test_an_answer_is_scored_and_compared(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator("#recipe option", has_text="rbio1-exp").first).to_be_attached()
    page.get_by_role("button", name="Add a completion").click()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("article.card")).to_have_count(2)
    assert [float(text) for text in page.locator("#results td:last-child.number").all_inner_texts()] == pytest.approx(
        [-0.707, 0.707], abs=1e-3
    )
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
    rows = page.get_by_role("region", name="ANXA1 and CTSC across cell lines, completion 1").locator("tbody tr")
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


def test_the_verdict_is_in_view_before_anything_else(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator(".empty")).to_contain_text("Nothing is scored yet")
    page.get_by_label("Completion", exact=True).press("Control+Enter")
    verdict = page.get_by_role("heading", name="The simulated screen says")
    expect(verdict).to_be_in_viewport()
    expect(page.locator("article.card .reward")).to_be_in_viewport()
    titles = page.locator("article.card section h3").all_inner_texts()
    assert titles[0].startswith("The experiment")
    assert [title.split()[0] for title in titles[-3:-1]] == ["Form", "format.mention"]
    check(watched)


def test_what_does_not_apply_is_one_line_with_its_reason(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_role("button", name="Score", exact=True).click()
    silent = page.locator("article.card details.silent")
    expect(silent.locator("summary")).to_have_text("Not applicable: transcriptformer_pmi")
    silent.locator("summary").press("Enter")
    expect(silent).to_contain_text("AARS1 is not among the 634 genes of the matrix")
    assert "missing" not in page.locator("article.card").inner_text()
    check(watched)


def test_a_mistyped_gene_is_named_before_the_account_of_all_verifiers(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Question").fill(item("TRIBB3")["prompt"])
    page.get_by_role("button", name="Score", exact=True).click()
    card = page.locator("article.card")
    expect(card.locator(".verdict")).to_contain_text("The screen does not know one of the genes")
    expect(card.locator(".reward")).to_have_text("unscorable")
    expect(card.locator("p.warn")).to_have_text("TRIBB3 is no known human gene symbol, alias or id.")
    expect(card.locator("p.warn + p.soft")).to_contain_text("no verifier had anything to say")
    # A fault is told by the account, not by an address and a status.
    said = page.evaluate(
        """async () => {
          const [{ card }, { Weights }] = [await import("./card.js"), await import("./group.js")];
          const part = { verifier: "a", component: "", weight: 1, contribution: null, evidence: [], components: {} };
          const parts = [{ ...part, outcome: "failed", detail: "a at 10.0.0.1: UNAVAILABLE", dropped_because: "" },
                         { ...part, verifier: "b", outcome: "not_applicable", detail: "not in b" }];
          const reward = { id: "1", verdict: "", reward: null, unscorable_because: "a failed: unavailable", parts };
          const made = card({ ...reward, answer: null, task: null, consensus: null }, "", new Weights([reward]));
          return made.querySelector("p.warn").textContent;
        }"""
    )
    assert said == "a failed: unavailable"
    check(watched)


def test_a_question_of_direction_is_answered_in_its_own_words(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Question").fill(
        "Is a knockdown of ANXA1 in k562 cells likely to result decrease or increase of CTSC?"
    )
    page.get_by_label("Completion", exact=True).fill("<think>ANXA1</think> <answer>increase</answer>")
    page.get_by_role("button", name="Score", exact=True).click()
    card = page.locator("article.card")
    expect(card.locator("meter").first).to_have_attribute("aria-label", "belief in increase")
    assert "belief in yes" not in card.inner_text()
    check(watched)


def test_a_mark_says_why_it_is_there_by_pointer_and_by_keyboard(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_role("button", name="Score", exact=True).click()
    # What comes after the words moves the text below it.
    for picture in ("Reliability of esm_mlp", "Reliability of analogy"):
        expect(page.get_by_role("img", name=picture)).to_be_visible()
    expect(page.get_by_role("region", name="AARS1 and TRIB3 across cell lines")).to_be_visible()
    says = page.locator("article.card .says")
    expect(says).to_contain_text("Point at a mark")
    page.locator("mark", has_text="alanyl-tRNA aminoacylation").hover()
    expect(says).to_contain_text("go_rouge: AARS1: ROUGE-L")
    page.get_by_role("button", name="TRIB3", exact=True).focus()
    expect(says).to_contain_text("format: names AARS1, TRIB3")
    # A pointer at rest, below which the text scrolls, takes nothing from who reads by the keyboard.
    page.mouse.wheel(0, 40)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
    expect(says).to_contain_text("format: names AARS1, TRIB3")
    page.keyboard.press("Shift+Tab")
    expect(says).not_to_contain_text("names AARS1, TRIB3")
    check(watched)


def test_claims_are_marked_by_their_verdict_with_the_source_by_pointer_and_by_keyboard(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator("#recipe option", has_text="claims+exp")).to_be_attached()
    page.get_by_label("Reward by").select_option("claims+exp")
    # The thought that the prompt opens stands before the completion as it is scored, and a character may be two units.
    asked = "Is a knockdown of AARS1 in k562 cells likely to result in differential expression of TRIB3?"
    page.get_by_label("Question").fill(f"{asked}\n<think>\n")
    page.get_by_label("Completion", exact=True).fill(
        "🧬🧬 AARS1 does alanyl-tRNA aminoacylation. It is not true that AARS1 does alanyl-tRNA aminoacylation. "
        "TRIB3 transports calcium ions.</think> <answer>yes</answer>"
    )
    page.get_by_role("button", name="Score", exact=True).click()
    text, says = page.locator("article.card p.said"), page.locator("article.card .says")
    expect(text.locator("mark.supported")).to_have_text("alanyl-tRNA aminoacylation")
    expect(text.locator("mark.contradicted")).to_have_text("alanyl-tRNA aminoacylation")
    expect(text.locator("mark.unsupported").first).to_have_text("transports")
    before = """(node) => {
      const range = document.createRange();
      range.setStart(node.closest(".said"), 0);
      range.setEndBefore(node);
      return range.toString();
    }"""
    assert text.locator("mark.supported").evaluate(before) == "🧬🧬 AARS1 does "
    assert text.locator("mark.contradicted").evaluate(before).endswith("It is not true that AARS1 does ")
    expect(says).to_contain_text("Claims: 1 contradicted, ")
    expect(page.get_by_role("region", name="AARS1 and TRIB3 across cell lines")).to_be_visible()
    text.locator("mark.supported").hover()
    expect(says).to_contain_text("supported: GO:0006419 alanyl-tRNA aminoacylation")
    expect(says).to_contain_text("(Gene Ontology)")
    text.locator("button", has=page.locator("mark.supported")).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(text.locator("button:focus mark")).to_have_class("contradicted")
    expect(says).to_contain_text('AARS1, not "alanyl-tRNA aminoacylation": contradicted')
    check(watched)


def test_marks_hold_to_what_is_quoted_and_do_not_fall_apart(watched: Watched) -> None:
    page = watched.page
    page.goto("/")

    def pieces(text: str, *evidence: dict[str, object]) -> list[list[object]]:
        found = page.evaluate(
            """async ([text, evidence]) => (await import("./marks.js"))
              .marked(text, [{ verifier: "v", component: "", evidence }])
              .map(({ from, to, verdict }) => [text.slice(from, to), from, verdict])""",
            [text, [{"source": "", "quote": None} | each for each in evidence]],
        )
        assert isinstance(found, list)
        return found

    def claim(text: str, start: int, end: int) -> dict[str, object]:
        return {"text": text, "quote": {"start": start, "end": end, "verdict": "supported"}}

    # A verifier of another house repeats no piece: its place counts. One beyond the text marks nothing.
    assert pieces("🧬 binds DNA", claim("so it is", 2, 7)) == [["binds", 3, "supported"]]
    assert pieces("binds", claim("so it is", 2, 700)) == []
    # A piece that is not there, since the text was spelled otherwise when it was scored, is not put elsewhere.
    assert pieces("binds DNA", claim('A, "cuts RNA": supported', 0, 8)) == []
    # A quotation mark within the piece is no end of it.
    assert pieces('a "b" c', claim('A, ""b" c": supported', 2, 7)) == [['"b" c', 2, "supported"]]
    # Of words matched one by one those within a longer match are not marked again.
    assert pieces("the kinase activity", {"text": "A: ROUGE-L 0.1; matched: kinase activity, kinase binding"}) == [
        ["kinase activity", 4, None]
    ]
    assert pieces("names (AARS1) x", {"text": "names AARS1, X.*"}) == [["AARS1", 7, None]]
    check(watched)


def test_a_question_is_built_from_completed_names(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_text("Build it from genes").press("Enter")
    page.get_by_label("Gene A").fill("aars")
    expect(page.locator("#genes option").first).to_have_attribute("value", "AARS1")
    page.get_by_label("Gene A").fill("CD3D")
    page.get_by_label("Gene B").fill("CD3E")
    expect(page.get_by_label("Question")).to_have_value(
        re.compile("^Is a knockdown of CD3D in k562 cells .* differential expression of CD3E")
    )
    page.get_by_label("Form").select_option("2")
    expect(page.get_by_label("Cell line")).to_be_disabled()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("article.card .read")).to_contain_text("co expression: CD3D · CD3E")
    check(watched)


def test_a_moved_weight_moves_every_reward_at_once(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_role("button", name="Add a completion").click()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("article.card .reward")).to_have_count(2)
    before = page.locator("article.card .reward").all_inner_texts()
    page.get_by_text("Weights: move them").press("Enter")
    slider = page.get_by_label("experimental", exact=True)
    slider.focus()
    page.keyboard.press("Home")
    # The answers are yes and no, so one of the two loses the experiment's 2, and both lose it of their highest.
    after = page.locator("article.card .reward").all_inner_texts()
    lost = [float(was.split()[1]) - float(now.split()[1]) for was, now in zip(before, after, strict=True)]
    assert sorted(lost) == pytest.approx([0, 2], abs=2e-3)
    assert [text.split()[-1] for text in after] == ["10", "10"]
    expect(page.locator("article.card").first).to_contain_text("by your weights; by the recipe's")
    page.get_by_role("button", name="Back to the recipe's").click()
    assert page.locator("article.card .reward").all_inner_texts() == before
    check(watched)


def test_a_group_of_eight_says_what_the_group_rule_dropped(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    for n in range(2, 9):
        page.get_by_role("button", name="Add a completion").click()
        page.get_by_label(f"Completion {n}", exact=True).fill(
            f"<think>AARS1 {n}</think> <answer>{'yes' if n % 2 else 'no'}</answer>"
        )
    expect(page.get_by_role("button", name="Add a completion")).to_be_disabled()
    page.get_by_role("button", name="Remove completion 8").click()
    page.get_by_label("Completion 7", exact=True).fill("no tag")
    page.get_by_role("button", name="Score", exact=True).click()
    group = page.get_by_role("region", name="The group")
    expect(group.locator("tbody tr")).to_have_count(7)
    expect(group).to_contain_text("transcriptformer_pmi: applies to none of them")
    # What only a fault brings about: of three, one lacks an optional term and one has no reward.
    said = page.evaluate(
        """async () => {
          const { Weights, groupTable } = await import("./group.js");
          const part = (verifier, outcome, value, contribution) =>
            ({ verifier, component: "", weight: 1, outcome, value, contribution });
          const parts = [[part("a", "scored", 1, 1), part("b", "scored", 0.5, null)],
                         [part("a", "scored", 0, 0), part("b", "failed", null, null)],
                         [part("a", "failed", null, null), part("b", "scored", 0.5, null)]];
          const rewards = [1, 0, null].map((reward, n) =>
            ({ id: `completion ${n + 1}`, answer: "yes", reward, highest: 1, parts: parts[n] }));
          const weights = new Weights(rewards);
          const table = groupTable(rewards, weights);
          weights.changed();
          const gained = [...table.querySelectorAll("td:last-child")].map((each) => each.textContent);
          return [gained, table.querySelector("ul").textContent];
        }"""
    )
    assert said[0] == ["+0.707", "-0.707", "masked"]
    assert "b: dropped for all, since completion 2 lacks it" in said[1]
    check(watched)


def test_the_same_request_from_code_has_the_same_reward(watched: Watched, stack: LocalStack, tmp_path: Path) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Completion", exact=True).fill(
        "<think>It's 'AARS1' \\ \"TRIB3\" $HOME `ls` é🧬\n</think> <answer>no</answer>"
    )
    page.get_by_role("button", name="Score", exact=True).click()
    with page.expect_download() as downloading:
        page.get_by_text("Use this from code").press("Enter")
        page.get_by_role("button", name="Download the reply as JSON").click()
    [reward] = json.loads(downloading.value.path().read_text())["rewards"]
    wanted = reward["reward"]
    curl, python, line = (
        page.get_by_role("region", name=name, exact=True).inner_text() for name in ("curl", "Python", "Command line")
    )
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BIOVERIFY_TARGET": stack.target,
        "NO_PROXY": "*",
    }

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    assert json.loads(run("bash", "-c", curl))["rewards"][0]["reward"] == wanted
    run("bash", "-c", f"{line} --output scored.jsonl")
    assert json.loads((tmp_path / "scored.jsonl").read_text())["reward"] == wanted
    said = run(sys.executable, "-c", python.replace("127.0.0.1:15050", stack.target))
    assert said.startswith(f"completion 1 {wanted} ")
    check(watched)


def test_what_was_scored_in_this_tab_comes_back(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_label("Completion", exact=True).fill(f"{INJECTED} <answer>no</answer>")
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#said")).to_contain_text("Answered in")
    page.goto("/")
    page.get_by_text("Scored in this tab").press("Enter")
    page.locator("#history li button").click()
    expect(page.get_by_label("Completion", exact=True)).to_have_value(f"{INJECTED} <answer>no</answer>")
    expect(page.locator("article.card")).to_have_count(1)
    assert page.title() != "run"
    check(watched)


def test_what_is_named_in_a_card_leads_further(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_role("button", name="Score", exact=True).click()
    link = page.get_by_role("link", name="AARS1 at NCBI Gene")
    expect(link).to_have_attribute("href", "https://www.ncbi.nlm.nih.gov/gene/?term=AARS1%5Bsym%5D+AND+human%5Borgn%5D")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    # As the verifiers of claims and of gene sets write it.
    text = 'AARS1, "charges tRNA": supported: GO:0004813 alanine-tRNA ligase activity (IDA), PMID:123; PerturbQA'
    hrefs = page.evaluate(
        "async (text) => (await import('./links.js')).linked(text).map((each) => each.href).filter(Boolean)",
        text,
    )
    assert hrefs == [
        "https://www.ebi.ac.uk/QuickGO/term/GO:0004813",
        "https://pubmed.ncbi.nlm.nih.gov/123/",
        "https://arxiv.org/abs/2502.21290",
    ]


@pytest.mark.parametrize("address", ["/", "/files.html", "/runs.html", "/verifiers.html"])
def test_a_page_is_light(address: str, browser: Browser, site: RunningGateway) -> None:
    context = browser.new_context(base_url=site.url)
    page = context.new_page()
    bodies: list[int] = []
    page.on("response", lambda answer: bodies.append(len(answer.body())) if "/v1/" not in answer.url else None)
    page.goto(address)
    expect(page.locator("nav [aria-current]")).to_have_count(1)
    page.wait_for_load_state("load")
    context.close()
    assert 4 <= len(bodies) <= 14
    assert sum(bodies) <= 70_000


FIRST_VERDICT_MS = 300.0


def test_the_first_verdict_is_soon_there(browser: Browser, site: RunningGateway) -> None:
    page = browser.new_page(base_url=site.url)
    page.goto("/")
    expect(page.locator("#recipe option", has_text="rbio1-exp").first).to_be_attached()
    waited_ms = []
    for n in range(5):
        page.get_by_label("Completion", exact=True).fill(f"<think>AARS1 {n}</think> <answer>yes</answer>")
        waited_ms.append(
            page.evaluate(
                """() => new Promise((resolve) => {
                  const results = document.getElementById("results");
                  results.replaceChildren();
                  const started = performance.now();
                  new MutationObserver(() => results.querySelector(".verdict") && resolve(performance.now() - started))
                    .observe(results, { childList: true, subtree: true });
                  document.getElementById("score-form").requestSubmit();
                })"""
            )
        )
        expect(page.locator("#said")).to_contain_text("Answered in")
    page.close()
    # Of five, because the machine that tests has other work.
    assert min(waited_ms) <= FIRST_VERDICT_MS


def test_a_page_says_what_it_rewards_that_it_is_busy_and_what_to_do_if_there_is_nothing(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.get_by_role("img", name="The verifiers look at what was asked and answered")).to_be_visible()
    page.get_by_label("Reward by").select_option("rbio1-exp")
    expect(page.locator("#rewards-what")).to_have_text(re.compile(r"^\S.*\. At most 4 for differential expression\.$"))
    held: list[Route] = []
    page.route("**/v1/score", lambda route: held.append(route))
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#said")).to_have_text("Asking the verifiers…")
    expect(page.get_by_role("button", name="Score", exact=True)).to_be_disabled()
    held[0].continue_()
    expect(page.locator("article.card")).to_have_count(1)
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    page.goto("/files.html")
    expect(page.get_by_text("No file was sent yet. Choose one above and press Send")).to_be_visible()
    expect(page.locator("#jobs")).to_be_hidden()
    check(watched)


def test_what_is_printed_is_the_answer_with_every_reason(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_role("button", name="Score", exact=True).click()
    reason = page.get_by_text("AARS1 is not among the 634 genes of the matrix")
    expect(reason).to_be_hidden()
    page.emulate_media(media="print")
    expect(reason).to_be_visible()
    expect(page.locator("article.card .verdict")).to_be_visible()
    for hidden in ("header", "#score-form", "#weights", "#code"):
        expect(page.locator(hidden)).to_be_hidden()
    assert watched.faults == []


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


NAME_OF_FOCUS = """() => {
  const at = document.activeElement;
  const labels = [...(at.labels ?? [])].map((each) => each.textContent).join(" ");
  return (at.getAttribute("aria-label") ?? (labels || at.textContent)).trim();
}"""


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until the focus is on what is called so ("so…": what begins so), and shows that it is there."""
    seen = []
    for _ in range(150):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(NAME_OF_FOCUS))
        if seen[-1].startswith(name[:-1]) if name.endswith("…") else seen[-1] == name:
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
    raise AssertionError(f"no way by Tab to {name!r}, only to {seen}")


def test_completions_are_scored_weighed_and_taken_away_by_keyboard_alone(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, "Reward by")
    expect(page.locator("#recipe option", has_text="claims+exp")).to_be_attached()
    page.keyboard.type("claims+exp")
    tab_to(page, "Build it from genes")
    page.keyboard.press("Enter")
    tab_to(page, "Form")
    tab_to(page, "Gene A")
    page.keyboard.type("ANXA1")
    tab_to(page, "Gene B")
    page.keyboard.type("CTSC")
    page.keyboard.press("Escape")  # the list of completed names
    tab_to(page, "Completion")
    page.keyboard.press("Control+A")
    page.keyboard.type("<think>ANXA1 takes part in inflammatory response.</think> <answer>yes</answer>")
    tab_to(page, "Add a completion")
    page.keyboard.press("Enter")
    page.keyboard.type("<think>ANXA1 and CTSC.</think> <answer>no</answer>")
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.card")).to_have_count(2)
    expect(page.locator("article.card .read").first).to_contain_text("ANXA1 · CTSC")
    before = page.locator("article.card .reward").all_inner_texts()
    tab_to(page, "inflammatory response")
    expect(page.locator("article.card .says").first).to_contain_text("claims: ANXA1")
    tab_to(page, "Weights: move them…")
    page.keyboard.press("Enter")
    tab_to(page, "experimental")
    page.keyboard.press("ArrowRight")
    # The experiment says yes, so the first answer alone gains the step of the slider.
    after = page.locator("article.card .reward").all_inner_texts()
    gained = [float(now.split()[1]) - float(was.split()[1]) for was, now in zip(before, after, strict=True)]
    assert gained == pytest.approx([0.05, 0], abs=2e-3)
    tab_to(page, "Back to the recipe's")
    page.keyboard.press("Enter")
    assert page.locator("article.card .reward").all_inner_texts() == before
    tab_to(page, "Use this from code")
    page.keyboard.press("Enter")
    tab_to(page, "Download the reply…")
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    assert len(json.loads(downloading.value.path().read_text())["rewards"]) == 2
    # Round to the head of the page.
    tab_to(page, "API key")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="API key")).to_be_focused()
    tab_to(page, "Remove completion 2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Add a completion")).to_be_focused()
    tab_to(page, "Copy a link")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("link")
    tab_to(page, "Scored in this tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("Answered in")
    expect(page.locator("article.card")).to_have_count(2)
    check(watched)


def sent_job(page: Page) -> str:
    """The id of the file that was just sent: others may be listed."""
    said = page.locator("#said")
    expect(said).to_have_text(re.compile(r"^Job \w+: [\d,]+ lines"))
    return said.inner_text().split()[1].removesuffix(":")


def test_a_file_is_sent_read_sorted_and_removed_by_keyboard_alone(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    rows = [item(gene, f"<think>{gene}</think> <answer>yes</answer>", id=gene) for gene in ("AARS1", "EIF2B4")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    page = watched.page
    # The first listener turns the chooser's interception on, which a key pressed at once would overtake.
    page.on("filechooser", lambda _: None)
    page.goto("/files.html")
    tab_to(page, "File")
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Enter")
    choosing.value.set_files(file)
    tab_to(page, "Reward by")
    page.keyboard.type("rbio1-exp")
    tab_to(page, "Send")
    page.keyboard.press("Enter")
    job = page.locator("#jobs tbody tr", has_text=sent_job(page))
    expect(job).to_contain_text("done", timeout=60_000)
    expect(job).to_contain_text("rbio1-exp")
    tab_to(page, "Bad lines…")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Bad lines of a job")).to_contain_text("line 3: ")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    # The focus is on the title of what was asked for, so the way to its filters is short.
    expect(page.locator("#preview-title")).to_be_focused()
    tab_to(page, "Filter")
    page.keyboard.type("eif2b4")
    expect(page.locator("#rewards tbody tr")).to_have_count(1)
    tab_to(page, "Verifier")
    page.keyboard.type("experimental")
    tab_to(page, "Show all")
    page.keyboard.press("Enter")
    expect(page.locator("#rewards tbody tr")).to_have_count(2)
    tab_to(page, "id")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#rewards th").first).to_have_attribute("aria-sort", "descending")
    tab_to(page, "EIF2B4")
    page.keyboard.press("Enter")
    opened = page.get_by_role("dialog", name="A completion")
    expect(opened).to_contain_text("Line 2 of keys.jsonl")
    page.keyboard.press("Escape")
    expect(opened).to_be_hidden()
    expect(page.get_by_role("button", name="EIF2B4", exact=True)).to_be_focused()
    tab_to(page, "Remove job…")
    page.keyboard.press("Enter")
    expect(page.locator("#jobs tbody tr")).to_have_count(0)
    check(watched)


def test_verifiers_are_asked_and_measured_by_keyboard_alone(watched: Watched) -> None:
    page = watched.page
    page.goto("/verifiers.html")
    expect(page.locator("article.card")).to_have_count(len(VERIFIERS))
    tab_to(page, "Gene")
    page.keyboard.press("Control+A")
    page.keyboard.type("ANXA1")
    tab_to(page, "Second gene")
    page.keyboard.press("Control+A")
    page.keyboard.type("CTSC")
    page.keyboard.press("Enter")
    known = page.get_by_role("region", name="What each verifier knows")
    expect(known.get_by_role("row", name="experimental")).to_contain_text("knows it")
    tab_to(page, "Calibration…")
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="Reliability of").first).to_be_visible()
    tab_to(page, "Measure latency")
    page.keyboard.press("Enter")
    expect(page.locator("article.card").last).to_contain_text("slowest of nine", timeout=60_000)
    # What was open stays open, though all cards were made again.
    expect(page.get_by_role("img", name="Reliability of").first).to_be_visible()
    check(watched)


def test_runs_are_compared_and_gone_through_by_keyboard_alone(watched: Watched) -> None:
    page = watched.page
    page.goto("/runs.html")
    expect(page.locator("#runs tbody tr")).to_have_count(2)
    tab_to(page, "first")
    page.keyboard.press("Enter")
    expect(page.locator("#curves")).to_contain_text("first")
    expect(page.locator("#runs button", has_text="first")).to_be_focused()
    tab_to(page, "Beside it")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#curves h2")).to_have_text("first and second")
    tab_to(page, "Smoothing")
    page.keyboard.press("End")
    tab_to(page, "Mean reward…")
    page.keyboard.press("Home")
    expect(page.locator("figure.run").first).to_contain_text("step 1: first 0.1000; second 0.5000")
    tab_to(page, "Step")
    page.keyboard.press("Home")
    expect(page.get_by_role("region", name="Completions over time")).to_contain_text("after 1 steps")
    check(watched)


def test_a_files_progress_shows_while_it_is_scored_and_a_cancelled_one_keeps_what_it_has(
    watched: Watched, tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl"
    rows = (item("AARS1", f"<think>AARS1 {n}</think> <answer>yes</answer>", id=str(n)) for n in range(40_000))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = watched.page
    page.goto("/files.html")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Send").click()
    job = page.locator("#jobs tbody tr", has_text=sent_job(page))
    # Not "queued" for the four seconds after which a quiet page asks again: 2 s are for a busy machine.
    expect(job).to_contain_text("running", timeout=2_000)
    expect(job).to_contain_text("large.jsonl, ")
    progress = job.get_by_role("progressbar")
    expect(progress).not_to_have_attribute("value", "0")
    line, lines = (int(progress.get_attribute(name) or "") for name in ("value", "max"))
    assert 0 < line < lines == 40_000
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("cancelled")
    job.get_by_role("button", name="Look").click()
    expect(page.locator("#rewards tbody tr").first).to_be_visible()
    check(watched)
    job.get_by_role("button", name="Remove").click()
    expect(job).to_have_count(0)


def test_a_file_is_sent_watched_filtered_and_downloaded(watched: Watched, tmp_path: Path) -> None:
    rows = [item(gene, f"<think>{gene}</think> <answer>yes</answer>", id=gene) for gene in ("AARS1", "EIF2B4", "BRAF")]
    rows[2]["completion"] = "<answer>yes</answer>"
    file = tmp_path / "completions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    page = watched.page
    page.goto("/files.html")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Send").click()
    job = page.locator("#jobs tbody tr", has_text=sent_job(page))
    expect(job).to_contain_text("done", timeout=60_000)
    expect(job).to_contain_text("completions without a thought: no_thought 1")
    expect(job).not_to_contain_text("answers not read")
    with page.expect_download() as downloading:
        job.get_by_role("button", name="Download").click()
    downloaded = [json.loads(line) for line in downloading.value.path().read_text().splitlines()]
    assert [row["id"] for row in downloaded] == ["AARS1", "EIF2B4", "BRAF"]
    expect(job).to_contain_text("completions.jsonl, ")
    job.get_by_role("button", name="Bad lines").click()
    bad = page.get_by_role("region", name="Bad lines of a job")
    expect(bad.locator("li")).to_have_count(1)
    expect(bad).to_contain_text("line 4: ")
    with page.expect_download() as downloading:
        bad.get_by_role("button", name="Download the bad lines").click()
    assert downloading.value.path().read_text().count("\n") == 1
    job.get_by_role("button", name="Look").click()
    expect(page.locator("#rewards tbody tr")).to_have_count(3)
    page.get_by_role("button", name="id", exact=True).click()
    expect(page.locator("#rewards tbody tr td").first).to_have_text("AARS1")
    expect(page.get_by_role("img", name="Histogram. Rewards from")).to_be_visible()
    expect(page.get_by_role("region", name="Disagreement between verifiers")).to_contain_text(
        "esm_mlp and experimental"
    )
    page.get_by_label("Filter").fill("BRAF")
    expect(page.locator("#rewards tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Show all").press("Enter")
    expect(page.locator("#rewards tbody tr")).to_have_count(3)
    page.get_by_label("Verifier", exact=True).select_option("format")
    page.get_by_role("button", name="value of format").press("Enter")
    values = page.locator("#rewards tbody td:nth-child(4)").all_inner_texts()
    assert values == sorted(values, key=float)
    assert len(set(values)) > 1
    page.get_by_label("said", exact=True).select_option("failed")
    expect(page.locator("#rewards tbody tr")).to_have_count(0)
    page.get_by_role("button", name="Show all").press("Enter")
    check(watched)
    # One step to the completion, as the page with the form shows it, without a second scoring; and back.
    page.get_by_role("button", name="EIF2B4", exact=True).press("Enter")
    opened = page.get_by_role("dialog", name="A completion")
    expect(opened).to_contain_text("Line 2 of completions.jsonl")
    expect(opened.locator("article.card .verdict")).to_contain_text("the answer says yes")
    expect(opened.locator("p.said").last).to_contain_text("EIF2B4")
    check(watched)
    href = opened.get_by_role("link", name="Try changes of it").get_attribute("href")
    page.keyboard.press("Escape")
    expect(opened).to_be_hidden()
    page.goto(f"/{href}".replace("/./", "/"))
    expect(page.get_by_label("Completion", exact=True)).to_have_value("<think>EIF2B4</think> <answer>yes</answer>")
    page.goto("/files.html")
    job.get_by_role("button", name="Remove").click()
    expect(page.locator("#jobs tbody tr")).to_have_count(0)


LONGEST_TASK_MS = 200.0
"""Of the page at a thousand results: what a reader begins to feel. Measured on two cores with ten busy processes: 86 ms
at the opening, none of 50 ms at a key press and at sorting; all rows made at once 158 to 477 ms at the opening."""


def test_a_thousand_results_are_shown_filtered_and_sorted_without_a_stutter(
    browser: Browser, site: RunningGateway, tmp_path: Path
) -> None:
    genes = ("AARS1", "EIF2B4", "BRAF", "ANXA1", "CTSC")
    rows = [
        item(genes[n % 5], f"<think>{genes[n % 5]} {n}</think> <answer>{'yes' if n % 3 else 'no'}</answer>", id=f"r{n}")
        for n in range(1000)
    ]
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = browser.new_page(base_url=site.url)
    page.goto("/files.html")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Send").click()
    job = sent_job(page)
    expect(page.locator("#jobs tbody tr", has_text=job)).to_contain_text("done", timeout=120_000)
    page.evaluate(
        """() => {
          window.tasks = [];
          new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((each) => each.duration)))
            .observe({ entryTypes: ["longtask"] });
        }"""
    )
    shown = page.locator("#rewards tbody tr")

    def longest_ms(selector: str, rows: int, event: str = "click", text: str = "") -> float:
        """Of one action until its rows are there. By selectors: a locator by role reads the names of all thousand
        buttons within the page, which takes a second and a half."""
        page.evaluate("window.tasks.length = 0")
        page.evaluate(
            """([selector, event, text]) => {
              const node = document.querySelector(selector);
              if (event === "input") node.value = text;
              node.dispatchEvent(new Event(event));
            }""",
            [selector, event, text],
        )
        expect(shown).to_have_count(rows, timeout=30_000)
        # Entries come with the frame after the next one.
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
        return float(page.evaluate("Math.max(0, ...window.tasks)"))

    actions = {
        "look": (f'[data-name="Look {job}"]', 1000),
        "filter": ("#filter", 200, "input", "eif2b4"),
        "show all": ("#clear", 1000),
        "sort": ("[data-sort=reward]", 1000),
    }
    measured: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(3):
        for name, action in actions.items():
            measured[name].append(longest_ms(*action))
            if name == "sort":
                texts = page.locator("#rewards tbody td:nth-child(2)").all_inner_texts()
                rewards = [float(text.split()[0]) for text in texts]
                assert rewards == sorted(rewards)
    page.close()
    # The best of three, because the machine that tests has other work.
    assert {name: took for name, took in measured.items() if min(took) > LONGEST_TASK_MS} == {}


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
    net = watched.page.locator("article.card", has=watched.page.get_by_role("heading", name="esm_mlp"))
    net.locator("summary", has_text="Calibration").press("Enter")
    expect(net.get_by_role("img", name="Reliability of esm_mlp: differential expression, K562")).to_be_visible()
    # What they know of a pair that a person types, and of a gene that nobody knows.
    watched.page.get_by_label("Second gene").press("Enter")
    known = watched.page.get_by_role("region", name="What each verifier knows")
    of_screen = known.get_by_role("row", name="experimental")
    expect(of_screen).to_contain_text("TRIB3 measured")
    expect(of_screen).to_contain_text("simulated")
    check(watched)
    watched.page.get_by_label("Gene", exact=True).fill("NOGENE1")
    watched.page.get_by_label("Gene", exact=True).press("Enter")
    expect(of_screen).not_to_contain_text("knows it")
    expect(of_screen).to_contain_text("NOGENE1")


def test_the_curves_of_a_run_are_drawn(watched: Watched) -> None:
    watched.page.goto("/runs.html")
    watched.page.get_by_role("button", name="first").click()
    expect(watched.page.locator("#curves svg")).to_have_count(4)
    expect(watched.page.locator("#curves svg").first).to_have_attribute(
        "aria-label", "Mean reward: from 0.100 at step 1 to 0.800 at step 8"
    )
    expect(watched.page.locator("#curves svg").nth(1)).to_have_attribute(
        "aria-label", "Held-out questions: balanced_accuracy: from 0.500 at step 0 to 0.500 at step 8"
    )
    expect(watched.page.get_by_role("region", name="Alarms")).to_contain_text(
        "held-out questions went from 0.500 to 0.500: it is something else that is being rewarded"
    )
    check(watched)


def test_completions_over_time_are_gone_through_by_keyboard(watched: Watched) -> None:
    page = watched.page
    page.goto("/runs.html#first")
    samples = page.get_by_role("region", name="Completions over time")
    expect(samples).to_contain_text("after 8 steps <img")
    step = page.get_by_label("Step", exact=True)
    step.focus()
    page.keyboard.press("ArrowLeft")
    expect(samples).to_contain_text("after 3 steps")
    page.keyboard.press("Home")
    expect(samples).to_contain_text("after 1 steps")
    expect(samples).to_contain_text("format 0.50 × 1")
    expect(step).to_have_attribute("aria-valuetext", "step 1")
    assert page.title() != "run"
    check(watched)


def test_a_run_that_trains_grows_under_the_eyes_of_who_reads_it(watched: Watched, runs: Path) -> None:
    page = watched.page
    grown = runs / "grown"
    try:
        shutil.copytree(runs / "first", grown)
        lines = (grown / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:8]
        lines = [line.replace(b"}", b', "not_read/thought/no_thought": 1.0}') for line in lines]
        (grown / "metrics.jsonl").write_bytes(b"".join(lines))
        page.goto("/runs.html#grown")
        expect(page.locator("#start")).to_be_hidden()
        page.get_by_text("What the figures mean").press("Enter")
        page.get_by_role("img", name="Mean reward").focus()
        page.keyboard.press("Home")
        with (grown / "metrics.jsonl").open("ab") as file:
            file.write(lines[-1].replace(b'"step": 8', b'"step": 9'))
        reward = page.get_by_role("img", name="Mean reward: from 0.100 at step 1 to 0.800 at step 9")
        expect(reward).to_be_focused(timeout=15_000)
        expect(page.locator("figure.run").first).to_contain_text("step 1: 0.1000")
        expect(page.locator("#curves details[open]")).to_contain_text("greedy answers to the same questions")
        # What was seen is said; what to do about it, which is long, on demand.
        alarm = page.locator("details.alarm")
        expect(alarm.locator("summary")).to_contain_text("no thought could be read (no_thought 100%).")
        expect(alarm.get_by_text("Read as a thought are")).to_be_hidden()
        alarm.locator("summary").press("Enter")
        expect(alarm.get_by_text("Read as a thought are")).to_be_visible()
        check(watched)
    finally:
        shutil.rmtree(grown)


def test_two_runs_are_laid_over_each_other_and_read_by_keyboard(watched: Watched) -> None:
    page = watched.page
    page.goto("/runs.html")
    expect(page.locator("#runs")).to_contain_text("onerror")
    page.get_by_role("button", name="first").press("Enter")
    page.get_by_label("Beside it").select_option("second")
    reward = page.get_by_role(
        "img", name="Mean reward: first from 0.100 at step 1 to 0.800 at step 8; second from 0.500"
    )
    expect(reward.locator("polyline")).to_have_count(2)
    page.get_by_label("Smoothing").focus()
    page.keyboard.press("End")
    expect(reward.locator("polyline")).to_have_count(4)
    figure = page.locator("figure.run", has=reward)
    reward.focus()
    page.keyboard.press("Home")
    expect(figure).to_contain_text("step 1: first 0.1000; second 0.5000")
    page.keyboard.press("End")
    expect(figure).to_contain_text("step 8: first 0.8000; second –")
    reward.hover(position={"x": 60, "y": 20})
    expect(figure).not_to_contain_text("step 8: first")
    # A mean of what there was so far: constant figures stay, and the first one counts whole.
    assert page.evaluate("async () => (await import('./curves.js')).smoothed([1, 1, 4], 0.5)") == pytest.approx(
        [1, 1, (0.25 + 0.5 + 4) / 1.75]
    )
    assert page.title() != "run"
    check(watched)


DRESSES = {"1600": (1600, False), "1600-dark": (1600, True), "phone-dark": (390, True)}
SHOWN = {
    *(
        "text",
        "source",
        "detail",
        "reason",
        "verdict",
        "description",
        "summary",
        "recipe",
        "preset",
        "prompt",
        "completion",
    ),
    *("question", "unscorable_because", "problem", "term", "license", "version"),
    *("perturbation", "measured_gene", "gene_a", "gene_b", "genes", "cell_line"),
}
"""Keys of replies whose text is shown, whoever wrote it."""
NAMES = {"verifier", "component"}
"""What some address or arithmetic goes by as well: shown as markup in one dress alone."""


def hostile(content: Any, keys: set[str], key: str = "") -> Any:
    """A reply whose every shown text begins with markup."""
    if isinstance(content, list):
        return [hostile(each, keys, key) for each in content]
    if isinstance(content, dict):
        return {name: hostile(value, keys, name) for name, value in content.items()}
    return f"{INJECTED} {content}" if key in keys and isinstance(content, str) else content


@pytest.mark.parametrize("dress", list(DRESSES))
def test_every_page_is_accessible_in_every_dress_and_runs_nothing_that_it_shows(
    dress: str, browser: Browser, site: RunningGateway, tmp_path: Path
) -> None:
    width, is_dark = DRESSES[dress]
    scheme: Any = "dark" if is_dark else "light"
    keys = SHOWN | NAMES if dress == "1600" else SHOWN
    context = browser.new_context(
        viewport={"width": width, "height": 900}, base_url=site.url, color_scheme=scheme, reduced_motion="reduce"
    )
    watched = Watched(context.new_page())
    page = watched.page
    page.on("pageerror", lambda error: watched.faults.append(str(error)))

    def answer(route: Route) -> None:
        reply = route.fetch()
        if not reply.ok or "json" not in reply.headers["content-type"]:
            route.fulfill(response=reply)
        elif "ndjson" in reply.headers["content-type"]:
            lines = [json.dumps(hostile(json.loads(line), keys)) for line in reply.text().splitlines()]
            route.fulfill(response=reply, body="".join(line + "\n" for line in lines))
        else:
            content = hostile(reply.json(), keys)
            if route.request.url.endswith("/v1/recipes"):
                content["recipes"].append(content["recipes"][0] | {"name": INJECTED})
            route.fulfill(response=reply, json=content)

    page.route("**/v1/**", answer)
    page.goto("/")
    expect(page.locator("#recipe option", has_text="<img src=x")).to_be_attached()
    page.get_by_label("Reward by").select_option(INJECTED)
    expect(page.locator("#rewards-what")).to_contain_text("<img src=x")
    page.get_by_label("Reward by").select_option("all")
    page.get_by_role("button", name="Add a completion").click()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("article.card")).to_have_count(2)
    expect(page.locator("article.card").first).to_contain_text("<img src=x")
    check(watched)
    # Genes of the builder, with the list of what was scored and the request as code open.
    page.get_by_text("Build it from genes").click()
    page.get_by_label("Gene A").fill(INJECTED)
    page.get_by_label("Gene B").fill(INJECTED)
    page.get_by_label("Completion", exact=True).fill(f"<think>{INJECTED}</think> <answer>{INJECTED}</answer>")
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("article.card p.said").first).to_contain_text("<think><img src=x")
    page.get_by_text("Scored in this tab").click()
    expect(page.locator("#history")).to_contain_text("<img src=x")
    page.get_by_text("Use this from code").click()
    expect(page.get_by_role("region", name="curl", exact=True)).to_contain_text("<img src=x")
    page.get_by_role("button", name="Copy a link").click()
    check(watched)
    page.reload()
    expect(page.get_by_label("Question")).to_have_value(re.compile("<img src=x"))
    page.goto("/verifiers.html")
    expect(page.locator("article.card").first).to_contain_text("<img src=x")
    page.get_by_label("Second gene").fill(INJECTED[:60])
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("region", name="What each verifier knows")).to_contain_text("<img src=x")
    check(watched)
    file = tmp_path / "hostile.jsonl"
    file.write_text(json.dumps(item("AARS1", f"{INJECTED} <answer>yes</answer>", id=INJECTED)) + f"\n{INJECTED}\n")
    page.goto("/files.html")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Send").click()
    job = page.locator("#jobs tbody tr", has_text=sent_job(page))
    expect(job).to_contain_text("done", timeout=60_000)
    job.get_by_role("button", name="Bad lines").click()
    job.get_by_role("button", name="Look").click()
    expect(page.locator("#rewards tbody tr")).to_contain_text("<img src=x")
    page.locator("#rewards tbody button").click()
    expect(page.get_by_role("dialog", name="A completion")).to_contain_text("<img src=x")
    check(watched)
    page.goto("/runs.html#first")
    expect(page.get_by_role("region", name="Completions over time")).to_contain_text("<img src=x")
    page.get_by_label("Beside it").select_option("second")
    check(watched)
    expect(page.locator("#curves")).to_contain_text("first and second")
    assert page.title() != "run"
    assert page.locator("img").count() == 0
    context.close()


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
