"""Takes docs/img from a running stack: `make pictures GATEWAY=http://127.0.0.1:15059`.

The stack shows a run (`bioverify up --runs docs/records`) and is to stand on the bundled set, built without a mirror:
the Gene Ontology and the simulated screen may be shown, PerturbQA's rows may not.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FOLDER = Path(__file__).parent / "img"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = (1280, 860), (390, 844)


def one_completion(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#recipe option").nth(1)).to_be_attached()
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_role("img", name="Reliability of esm_mlp").wait_for()


def a_group(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Add a completion").click()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.get_by_role("img", name="Reliability of esm_mlp")).to_have_count(2)


def a_run(page: Page) -> None:
    page.goto("/runs.html")
    page.locator("#runs button").first.click()
    page.get_by_label("Smoothing").fill("0.8")
    page.locator("figure.run").first.wait_for()


def verifiers(page: Page) -> None:
    page.goto("/verifiers.html")
    page.locator("article.card").first.wait_for()


PICTURES: dict[str, tuple[Callable[[Page], None], tuple[int, int], bool]] = {
    "score.png": (one_completion, WIDE, False),
    "score-dark-phone.png": (one_completion, PHONE, True),
    "group.png": (a_group, WIDE, False),
    "run-dark.png": (a_run, WIDE, True),
    "verifiers.png": (verifiers, WIDE, False),
}


def main(gateway: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for name, (visit, (width, height), is_dark) in PICTURES.items():
            context = browser.new_context(
                base_url=gateway,
                viewport={"width": width, "height": height},
                color_scheme="dark" if is_dark else "light",
            )
            page = context.new_page()
            visit(page)
            if visit is one_completion and "simulated" not in page.locator(".verdict").inner_text():
                sys.exit(
                    f"{gateway} shows rows of a real screen, which are not ours to ship; see the head of this file"
                )
            if width > PHONE[0]:
                # Pressing a button may have moved the window; a phone shows what a reader then sees.
                page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=FOLDER / name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
