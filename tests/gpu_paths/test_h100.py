"""The stages for one H100, rehearsed on the CPU, and what is carried there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks import h100
from benchmarks.h100_folder import LOCKS, WANTED, pins
from tests.fixtures import servers

pytestmark = [pytest.mark.gpu_paths, pytest.mark.timeout(900)]


def test_every_stage_runs_on_a_cpu_and_tells_its_figures_in_one_line(gpu_packages) -> None:
    path = os.pathsep.join([str(gpu_packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "benchmarks.h100", "--shape", "tiny", "--limits", "3"]
    done = subprocess.run(
        command,
        cwd=servers.ROOT,
        env=os.environ | {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["stage"] for line in lines] == list(h100.STAGES)
    assert not [line for line in lines if "error" in line]
    assert done.returncode == 0, done.stderr[-2000:]
    by_stage = {line["stage"]: line for line in lines}
    assert by_stage["unscored"]["steps_2_3_4_moved_weights_by"][1] == 0
    assert by_stage["training_step"]["zero3_recomputed"]["backward"] > 0
    assert by_stage["rewards"]["512_items_while_training"]["p95_ms"] > 0


def test_a_stage_that_hangs_is_ended_with_what_it_started_and_the_next_one_runs() -> None:
    line = h100.told("machine", "tiny", 0.2)
    assert (line["stage"], line["error"]) == ("machine", "not done after 0.2 s")


def test_the_locks_name_what_is_carried() -> None:
    named = {name for lock in LOCKS for name in pins((servers.ROOT / "requirements" / lock).read_text())}
    assert named >= WANTED
