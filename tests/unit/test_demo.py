"""How `make demo` runs its steps: one line each, and a failure that says what to look at and leaves nothing running."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import pytest
import typer

from bioverify.cli.demo import BUILT, SERVED, Steps, learnt
from tests.fixtures.waiting import wait_until


def test_only_what_its_recipes_ask_is_built_and_served() -> None:
    assert SERVED == ("experimental", "go_rouge", "transcriptformer_pmi", "format")
    assert BUILT == ("genes", "experimental", "go_rouge", "transcriptformer_pmi", "prompts", "esm_mlp")


def test_a_step_is_one_line_with_its_seconds_and_what_it_printed_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps(tmp_path)
    steps.run("say the version", "--version")
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"say the version +\d+\.\d s +\d+\.\d s of CPU", line)
    assert (tmp_path / "say-the-version.log").read_text().startswith("bioverify ")
    assert steps.cpu_s[0] > 0


def test_a_step_that_fails_shows_the_end_of_its_log_and_stops_the_other_lane(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps(tmp_path)
    serving = [("serve", "serve", "format", "--listen", "127.0.0.1:0")]
    with pytest.raises(typer.Exit) as ended:
        steps.side_by_side(serving, [("fail", "data", "build", "nonsense"), ("never", "--version")])
    assert ended.value.exit_code == 1
    printed = capsys.readouterr().out
    assert "fail: exit status 1" in printed
    assert "no artifact is called nonsense" in printed
    assert not (tmp_path / "never.log").exists()
    assert not [child for child in psutil.Process().children() if "serve" in child.cmdline()]


def test_a_demo_that_is_told_to_stop_ends_the_step_that_runs() -> None:
    code = (
        "import signal, sys; from bioverify.cli.demo import Steps; "
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "Steps(None).run('serve', 'serve', 'format', '--listen', '127.0.0.1:0')"
    )
    demo = psutil.Popen([sys.executable, "-c", code])
    wait_until(lambda: bool(demo.children()), "the step is started")
    (step,) = demo.children()
    demo.terminate()
    assert demo.wait(30) == 143
    assert not step.is_running()


def test_what_the_policy_learnt_is_told_beside_chance() -> None:
    steps = [
        b'{"step": 1, "reward": 1.5, "heldout_before/auc_per_gene": 0.5}',
        b'{"step": 2, "reward": 1.5, "heldout/auc_per_gene": 0.55}',
        b'{"step": 3, "reward": 1.61, "heldout/auc_per_gene": null}',
        b'{"step": 4, "reward": 1.62, "heldout/auc_per_gene": 0.62}',
    ]
    said = learnt(steps)
    assert said.startswith("Held-out questions, AUC per gene (chance: 0.5): 0.500 before, 0.620 after 4 steps")
    assert said.endswith("reward 1.50 → 1.62")
    assert "0.500 before, not asked again within 1 steps; " in learnt(steps[:1])
