"""TRL's two ways to use vLLM, over a stand-in that writes by transformers: seeds, weights, masks and the KL distance.

What only a GPU shows: vLLM's own kernels and their distance from the trainer's, its memory, NCCL.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bioverify_trainer.draws import REPLACED
from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import read_records
from tests.fixtures import servers
from tests.gpu_paths.conftest import apart, launch, weights_of

pytestmark = [pytest.mark.gpu_paths, pytest.mark.timeout(580)]

RATIO = "sampling/importance_sampling_ratio"


def metrics_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    return read_records(Path(run["output"]) / "metrics.jsonl")


def written(run: dict[str, Any], rank: int = 0) -> list[dict[str, Any]]:
    """Groups, completions and rewards of one process, step by step."""
    return [json.loads(line) for line in (Path(run["output"]) / f"rank-{rank}.jsonl").read_text().splitlines()]


def check_the_record(run: dict[str, Any]) -> None:
    """The engine wrote with the trainer's weights at every step, and the KL distance is that to the start."""
    records = metrics_of(run)
    for record in records:
        for which in ("min", "mean", "max"):
            assert record[f"{RATIO}/{which}"] == pytest.approx(1, abs=1e-3), (record["step"], which)
    assert records[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert records[-1]["kl"] > 1e-5


def test_beside_the_trainer_with_h100x1s_deepspeed_block(settings, gpu_packages, capsys):
    """ZeRO-2 on one process; one row, then a whole step without a reward; vLLM asleep while the trainer trains."""
    shape = {
        "ranks": 1,
        "deepspeed": load_preset("h100x1").launcher.deepspeed,
        "gradient_accumulation_steps": 2,
        "beta": 0.04,
        "use_vllm": True,
        "vllm_enable_sleep_mode": True,
    }
    whole = settings("whole", **shape) | {"unscored": {"2": [1], "3": list(range(8))}}
    other = settings("other", **shape, seed=1)
    other["preset"]["grpo"]["max_steps"] = 1
    resumed = settings("resumed", **shape) | {
        "unscored": whole["unscored"],
        "resume": f"{whole['output']}/checkpoints/checkpoint-2",
    }
    launch("tests.gpu_paths.on_cpu", [whole, other, resumed], 1, gpu_packages)

    check_the_record(whole)
    step = ["wake weights", "weights", "wake kv_cache", "generate", "sleep"]
    assert json.loads((Path(whole["output"]) / "engine.json").read_text()) == ["sleep", *step * 4]

    completions = [line["completions"] for line in written(whole)]
    assert all(len(set(group)) > 1 for line in completions for group in (line[:4], line[4:]))
    assert written(other)[0]["completions"] != completions[0]
    assert [line["completions"] for line in written(resumed)] == completions[2:]
    moved = [
        apart(weights_of(whole, f"checkpoints/checkpoint-{n}"), weights_of(whole, f"checkpoints/checkpoint-{n + 1}"))
        for n in (1, 2, 3)
    ]
    difference = apart(weights_of(whole), weights_of(resumed))
    with capsys.disabled():
        print(f"\nsteps 2, 3 (unscored), 4 moved the weights {moved}; resumed apart {difference}")
    assert moved[0] > 1e-4
    assert moved[1] == 0
    assert moved[2] > 1e-4
    assert difference == 0


DRAWN = {"num_generations": 2, "max_completion_length": 1, "learning_rate": 1e-2}
"""By `VOWELS` some groups are rewarded alike: two tokens without one."""
VOWELS = {"verifier": "text", "component": "vowels", "weight": 1, "requirement": "required"}
HELD_OUT = {"every": 2, "questions": 16, "per_gene": 4}


def check_what_was_drawn_and_held_out(drawn: dict[str, Any], resumed: dict[str, Any], asked: dict[str, Any]) -> None:
    """``asked``: by transformers, of the weights of step 2."""
    check_the_record(drawn)
    records = metrics_of(drawn)
    assert 0 < sum(record[REPLACED] for record in records) < len(records)
    assert sum(record["frac_reward_zero_std"] for record in records) < len(records)
    ranks = range(drawn["preset"]["launcher"]["processes"])
    for rank in ranks:
        calls, after = written(drawn, rank), written(resumed, rank)
        assert after == calls[-len(after) :]
        before, after_two_steps, _ = held_out_answers(drawn, rank, times=3)
        assert after_two_steps == held_out_answers(asked, rank, times=1)[0]
        assert after_two_steps != before
    assert apart(weights_of(drawn), weights_of(resumed)) == 0
    for figure in ("balanced_accuracy", "auc_per_gene", "coverage", "yes_share"):
        theirs = metrics_of(asked)[0][f"heldout_before/{figure}"]
        assert records[1][f"heldout/{figure}"] == pytest.approx(theirs, nan_ok=True), figure


def held_out_answers(run: dict[str, Any], rank: int, times: int) -> list[list[str]]:
    """What one process read, each time that held-out questions were asked."""
    lines = (Path(run["output"]) / f"held-out-{rank}.jsonl").read_text().splitlines()
    each = len(lines) // times
    return [lines[start : start + each] for start in range(0, len(lines), each)]


def drawing_runs(settings: Callable[..., dict[str, Any]], **shape: Any) -> list[dict[str, Any]]:
    """A run that draws questions again and asks held-out ones, resumed at step 2, and its weights there asked."""
    drawn, resumed = (settings(name, **shape, **DRAWN) for name in ("drawn", "drawn-resumed"))
    plain = {key: value for key, value in shape.items() if not key.startswith(("use_vllm", "vllm"))}
    asked = settings("asked", **plain, **DRAWN)
    for run in (drawn, resumed):
        run["preset"]["prompts"]["redraws"] = 2
        run["recipe"] = {"name": "vowels", "terms": [VOWELS]}
    for run in (drawn, resumed, asked):
        run["preset"]["heldout"] = HELD_OUT
    checkpoint = f"{drawn['output']}/checkpoints/checkpoint-2"
    asked["preset"]["policy"]["model"] = checkpoint
    asked["preset"]["grpo"]["max_steps"] = 1
    return [drawn, resumed | {"resume": checkpoint}, asked]


def test_beside_the_trainer_questions_are_drawn_again_and_held_out_ones_asked(settings, gpu_packages):
    runs = drawing_runs(
        settings, ranks=1, per_device_train_batch_size=16, beta=0.04, use_vllm=True, vllm_enable_sleep_mode=True
    )
    launch("tests.gpu_paths.on_cpu", runs, 1, gpu_packages)
    check_what_was_drawn_and_held_out(*runs)
    log = json.loads((Path(runs[0]["output"]) / "engine.json").read_text())
    # Each turn of vLLM is one of a step's draws, or held-out questions: before the first step, after two, after four.
    assert log.count("generate") == len(written(runs[0])) + 3
    assert log == ["sleep", *["wake weights", "weights", "wake kv_cache", "generate", "sleep"] * log.count("generate")]


@contextmanager
def vllm_server(model: Path, log: Path) -> Iterator[str]:
    port = servers.free_port()
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tests.gpu_paths.vllm_stand_in", str(model), str(port)]
        server = subprocess.Popen(command, cwd=servers.ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_as_a_server_two_processes_train_as_one_asks(settings, tiny_policy, gpu_packages, tmp_path):
    with vllm_server(tiny_policy, tmp_path / "server.txt") as address:
        shape = {
            "ranks": 2,
            "beta": 0.04,
            "use_vllm": True,
            "vllm_mode": "server",
            "vllm_server_base_url": address,
        }
        runs = [
            settings("whole", **shape, vllm_group_port=servers.free_port()) | {"unscored": {"2": [1]}},
            settings("other", **shape, vllm_group_port=servers.free_port(), seed=1),
        ]
        runs[1]["preset"]["grpo"]["max_steps"] = 1
        resumed = settings("resumed", **shape, vllm_group_port=servers.free_port())
        runs.append(resumed | {"resume": f"{runs[0]['output']}/checkpoints/checkpoint-2"})
        drawn = drawing_runs(settings, **shape, per_device_train_batch_size=8)
        for run in drawn[:2]:
            run["preset"]["grpo"]["vllm_group_port"] = servers.free_port()
        launch("tests.gpu_paths.on_cpu", [*runs, *drawn], 2, gpu_packages)
    check_what_was_drawn_and_held_out(*drawn)
    whole, other, resumed = runs
    check_the_record(whole)
    for rank in (0, 1):
        completions = [line["completions"] for line in written(whole, rank)]
        assert all(len(set(group)) > 1 for group in completions)
        assert written(other, rank)[0]["completions"] != completions[0]
        assert [line["completions"] for line in written(resumed, rank)] == completions[2:]
    assert apart(weights_of(whole), weights_of(resumed)) == 0
    asked = [line.split(" ", 1) for line in (tmp_path / "server.txt").read_text().splitlines() if line.startswith("/")]
    # Two questions a step, in 4 + 1 + 2 steps; then the runs that draw questions again.
    requests = [json.loads(body) for path, body in asked if path == "/v1/completions"][:14]
    # One per question; the group's four completions are its n.
    assert {request["n"] for request in requests} == {4}
    first, others = requests[:8], requests[8:10]
    assert len({request["seed"] for request in first + others}) == 10
    assert {request["seed"] for request in requests[10:]} == {request["seed"] for request in first[4:]}
