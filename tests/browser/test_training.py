"""A run started, stopped and resumed from the page, over the real training service."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.test_pages import CHROMIUM, browser, tab_to
from tests.fixtures.gateway import gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.stack import LocalStack
from tests.fixtures.training import training_service
from tests.trainer.test_service import end_all

__all__ = ["browser"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]
CHANGES = (
    "grpo.max_steps=5000",
    "grpo.per_device_train_batch_size=64",
    "heldout.questions=16",
    "",
    "  prompts.balance=label ",
)


def test_a_run_is_started_stopped_and_resumed_by_keyboard_alone(
    browser: Browser, stack: LocalStack, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    page = browser.new_page()
    try:
        with (
            scratch_folder() as scratch,
            training_service(folder, stack.home, stack.target) as service,
            gateway(scratch, stack.target, runs_folder=folder, trainer=service.target) as running,
        ):
            page.goto(f"{running.url}/runs.html")
            expect(page.locator("#said")).to_contain_text("Start one below")
            expect(page.locator("#start-recipe option", has_text="rbio1-mlp")).to_be_attached()
            tab_to(page, "Start a run")
            page.keyboard.press("Enter")
            tab_to(page, "Name")
            page.keyboard.type("mine")
            tab_to(page, "Reward by")
            page.keyboard.type("rbio1-exp")
            tab_to(page, "Preset")
            page.keyboard.press("Control+A")
            page.keyboard.type("no-such-preset")
            page.keyboard.press("Enter")
            expect(page.locator("#said")).to_contain_text("no-such-preset")
            page.keyboard.press("Control+A")
            page.keyboard.type("gene-vectors")
            tab_to(page, "Changes of the preset, one a line")
            page.keyboard.type("\n".join(CHANGES))
            tab_to(page, "Start")
            page.keyboard.press("Enter")
            run = page.locator("#runs tbody tr")
            expect(run).to_contain_text("running")
            expect(run.locator("td").nth(0)).to_have_text("rbio1-exp")
            expect(page.get_by_role("img", name="Mean reward: from")).to_be_visible(timeout=240_000)
            tab_to(page, "Stop mine")
            page.keyboard.press("Enter")
            expect(run).to_contain_text("stopped", timeout=120_000)
            steps = int(run.locator("td.number").first.inner_text().replace(",", ""))
            assert 0 < steps < 5000
            tab_to(page, "Resume mine")
            page.keyboard.press("Enter")
            expect(run).to_contain_text("running")
            expect(run.locator("td.number").first).not_to_have_text(f"{steps:,}", timeout=240_000)
            tab_to(page, "Stop mine")
            page.keyboard.press("Enter")
            expect(run).to_contain_text("stopped", timeout=120_000)
    finally:
        page.close()
        end_all(folder)
