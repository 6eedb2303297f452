"""Takes docs/img from a running stack: `make pictures`, by hand and seldom.

The stack is to stand on the bundled set, built without a mirror: genes, the Gene Ontology, blood cells and the
simulated screen may be shown, PerturbQA's rows may not. A gateway and a training service of this script's own stand
before it. They train two runs of the small policy below RUNS: the first is kept there for the next time, the second is
photographed while it trains. For the last picture a verifier is killed, which the stack starts again.
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bioverify.artifacts.store import ArtifactStore
from bioverify.stack import status
from bioverify.stack.plan import state_folder
from tests.fixtures.gateway import gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.training import training_service

FOLDER = Path(__file__).parent / "img"
RUNS = Path(".cache/pictures/runs").absolute()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = (1280, 860), (390, 844)
FEW = ("grpo.max_steps=60", "grpo.per_device_train_batch_size=2048", "heldout.questions=128")
ASKED = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of {}? "
    "The answer is either yes or no."
)
EXAMPLES = {
    "right": ("ANXA1", "CTSC", "all", "simulated screen says yes; the answer says yes"),
    "wrong": ("AARS1", "TRIB3", "all", "simulated screen says no; the answer says yes"),
    "undecided": ("S100A9", "LYZ", "all", "has no row for this pair"),
    "not-applicable": ("TRIBB3", "LIZ", "all", "does not know one of the genes"),
}
"""What a reader sees first of the answer yes: perturbed and measured gene, recipe, verdict. Two genes are mistyped."""
DOWN = ("CD74", "ATF3", "rbio1-exp", "could not be asked")
"""A pair of which nobody else asks, so that no cache answers."""


def score(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#recipe option").nth(1)).to_be_attached()
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_role("img", name="Reliability of esm_mlp").wait_for()


def group(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Add a completion").click()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.get_by_role("img", name="Reliability of esm_mlp")).to_have_count(2)


def claims(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#recipe option", has_text="claims+exp")).to_be_attached()
    page.get_by_label("Reward by").select_option("claims+exp")
    page.get_by_label("Completion", exact=True).fill(
        "<think>AARS1 does alanyl-tRNA aminoacylation in the cytosol. TRIB3 does not take part in negative regulation "
        "of protein kinase activity. AARS1 transports calcium ions.</think> <answer>yes</answer>"
    )
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator("mark.contradicted").first.hover()


def file(page: Page) -> None:
    page.goto("/files.html")
    done = page.locator("#jobs tbody tr", has_text="done")
    if not done.count():
        genes = ("ANXA1", "S100A9", "AARS1", "EIF2B4", "BRAF", "CD74")
        measured = ("CTSC", "LYZ", "TRIB3", "DDIT3", "CST3", "AIF1", "FOS", "CD3E")
        pairs = [(one, other) for one in genes for other in measured]
        rows = [
            {
                "id": f"{one}-{other}-{answer}",
                "prompt": ASKED.format(one, other),
                "completion": f"<think>{one} may act on {other}.</think> <answer>{answer}</answer>",
            }
            for one, other in pairs
            for answer in ("yes", "no")
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows) + "not JSON\n"
        page.get_by_label("File", exact=True).set_input_files(
            {"name": "answers.jsonl", "mimeType": "application/x-ndjson", "buffer": lines.encode()}
        )
        page.get_by_role("button", name="Send").click()
        done.wait_for(timeout=120_000)
    done.get_by_role("button", name="Look").click()
    page.get_by_role("button", name="reward", exact=True).click()
    expect(page.locator("#rewards tbody tr").first).to_be_visible()


def live(page: Page) -> None:
    page.goto("/runs.html#believed")
    page.locator("figure.run").first.wait_for()


def overlaid(page: Page) -> None:
    live(page)
    page.get_by_label("Beside it").select_option("measured")
    page.get_by_label("Smoothing").fill("0.6")
    figure = page.get_by_role("img", name=re.compile("^Mean reward:"))
    expect(figure.locator("polyline")).to_have_count(4)
    figure.focus()
    page.keyboard.press("Home")
    for _ in range(10):
        page.keyboard.press("ArrowRight")


def verifiers(page: Page) -> None:
    page.goto("/verifiers.html")
    page.locator("article.card").first.wait_for()
    page.get_by_label("Gene", exact=True).fill("ANXA1")
    page.get_by_label("Second gene").fill("CTSC")
    page.get_by_label("Second gene").press("Enter")
    page.get_by_role("region", name="What each verifier knows").wait_for()


def answer(
    perturbation: str, measured: str, recipe: str, verdict: str, before: Callable[[], None] = lambda: None
) -> Callable[[Page], None]:
    def visit(page: Page) -> None:
        page.goto("/")
        expect(page.locator("#recipe option", has_text="rbio1-exp").first).to_be_attached()
        page.get_by_label("Reward by").select_option(recipe)
        page.get_by_label("Question").fill(ASKED.format(perturbation, measured))
        page.get_by_label("Completion", exact=True).fill(
            f"<think>{perturbation} may act on {measured}.</think> <answer>yes</answer>"
        )
        before()
        page.get_by_role("button", name="Score", exact=True).click()
        expect(page.locator("article.card .verdict")).to_contain_text(verdict, timeout=30_000)

    return visit


SCENES: dict[str, Callable[[Page], None]] = {
    "score": score,
    "group": group,
    "claims": claims,
    "file": file,
    "verifiers": verifiers,
    "run-live": live,
    "runs-overlaid": overlaid,
}
SEEN_FROM = {"file": "#preview-title", "runs-overlaid": "#controls", "claims": "article.card section h3 >> nth=2"}
"""Where a window begins that does not begin at the head of its page."""
DRESSES = {"": (WIDE, "light"), "-dark": (WIDE, "dark"), "-phone": (PHONE, "light"), "-phone-dark": (PHONE, "dark")}
PICTURES = [
    *((name, dress) for name in ("score", "group", "file", "verifiers", "run-live") for dress in ("", "-phone-dark")),
    *(("claims", ""), ("runs-overlaid", "-dark"), ("runs-overlaid", "-phone")),
]


@contextmanager
def visited(browser: Browser, url: str, visit: Callable[[Page], None], dress: str) -> Iterator[Page]:
    (width, height), scheme = DRESSES[dress]
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    visit(page)
    yield page
    context.close()


def keep(name: str, picture: bytes) -> None:
    """In 128 colours, which these pages have hardly more of: a third of the bytes."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(FOLDER / f"{name}.png", optimize=True)
    print(f"{name}.png {(FOLDER / f'{name}.png').stat().st_size:,} B")


def take(browser: Browser, url: str, name: str, dress: str) -> None:
    with visited(browser, url, SCENES[name], dress) as page:
        if name in SEEN_FROM:
            page.locator(SEEN_FROM[name]).first.evaluate("(node) => node.scrollIntoView()")
        elif dress in ("", "-dark"):
            # Pressing a button may have moved the window; a phone shows what a reader then sees.
            page.evaluate("scrollTo(0, 0)")
        keep(f"{name}{dress}", page.screenshot())


def take_head(browser: Browser, url: str, name: str, visit: Callable[[Page], None]) -> None:
    """Of an answer's card what stands above the first verifier."""
    with visited(browser, url, visit, "") as page:
        page.evaluate("scrollTo(0, 0)")
        card, section = page.locator("article.card"), page.locator("article.card > section").first
        box = card.bounding_box()
        below = section.bounding_box() if section.count() else None
        if box is None:
            sys.exit(f"{name}: the page shows no card")
        height = min((below["y"] if below else box["y"] + box["height"]) - box["y"], 420)
        clip: Any = {"x": box["x"], "y": box["y"], "width": box["width"], "height": height}
        keep(f"first-{name}", page.screenshot(full_page=True, clip=clip))


def train(http: httpx.Client, name: str, recipe: str, steps: float = math.inf) -> None:
    """Starts a run and returns as soon as it has made so many steps; without a number when it has finished."""
    body = {"name": name, "recipe": recipe, "preset": "gene-vectors", "changes": list(FEW)}
    http.post("/v1/runs", json=body).raise_for_status()
    said: dict[str, Any] = {}
    with http.stream("GET", f"/v1/runs/{name}/events", timeout=None) as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                said = json.loads(line.removeprefix("data: "))
                if said.get("step", 0) >= steps:
                    return
    if said.get("state") != "finished" or steps < math.inf:
        sys.exit(f"the run {name} ended too soon: {said}. See {RUNS / name / 'service' / 'log.txt'}")


def kill_screen() -> None:
    """The stack starts it again, within seconds."""
    [screen] = [process for process in status(state_folder()) if process.name == "experimental"]
    psutil.Process(screen.pid).kill()


def refuse_measured(target: str, http: httpx.Client) -> None:
    listed = http.get("/v1/verifiers").json()["verifiers"]
    for artifact in (artifact for verifier in listed for artifact in verifier["artifacts"]):
        if "Non-Commercial" in artifact["license"]:
            sys.exit(
                f"{target} shows rows of {artifact['name']}, which are not ours to ship: see the head of this file"
            )


def main(target: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    RUNS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(RUNS / "believed", ignore_errors=True)
    home = ArtifactStore.default().root.parent
    with (
        scratch_folder() as scratch,
        training_service(RUNS, home, target) as service,
        gateway(scratch, target, runs_folder=RUNS, trainer=service.target) as running,
        sync_playwright() as playwright,
    ):
        refuse_measured(target, running.http)
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        if not (RUNS / "measured").is_dir():
            train(running.http, "measured", "rbio1-exp")
        try:
            train(running.http, "believed", "rbio1-mlp", steps=25)
            for name, dress in sorted(PICTURES, key=lambda picture: not picture[0].startswith("run")):
                take(browser, running.url, name, dress)
        finally:
            # A run outlives its service.
            running.http.post("/v1/runs/believed:stop")
        for name, example in EXAMPLES.items():
            take_head(browser, running.url, name, answer(*example))
        take_head(browser, running.url, "verifier-down", answer(*DOWN, before=kill_screen))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
