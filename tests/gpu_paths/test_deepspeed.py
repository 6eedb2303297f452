"""The presets' own DeepSpeed blocks on two CPU processes: the weights of a run without DeepSpeed, to 1e-5.

Also: a run resumed from a checkpoint, a step without any reward, held-out questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import read_records
from tests.gpu_paths.conftest import apart, launch, weights_of

pytestmark = [pytest.mark.gpu_paths, pytest.mark.timeout(580)]

SHAPE = {"ranks": 2, "beta": 0.04}
MORE = {"fixed_completions": True, "unscored": {"3": [0, 1, 2, 3]}}
HELD_OUT = {"every": 2, "questions": 8, "per_gene": 2}


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, Any]]:
    """The run without DeepSpeed, once it is there."""
    return []


@pytest.mark.parametrize("name", ["rbio1-published", "h100x8"])
def test_a_presets_own_deepspeed_block_trains_as_without_it(
    name, settings, tiny_preset, gpu_packages, capsys, undisturbed
):
    if not undisturbed:
        plain = settings("plain", **SHAPE) | MORE
        plain["preset"]["grpo"]["use_cpu"] = True
        plain["preset"]["heldout"] = HELD_OUT
        launch("tests.gpu_paths.on_cpu", [plain], 2, gpu_packages)
        undisturbed.append(plain)
    (plain,) = undisturbed
    block = load_preset(name).launcher.deepspeed
    spread = settings("spread", **SHAPE, deepspeed=block) | MORE
    spread["preset"]["heldout"] = HELD_OUT
    resumed = settings("resumed", **SHAPE, deepspeed=block) | MORE
    resumed |= {"resume": f"{spread['output']}/checkpoints/checkpoint-2"}
    launch("tests.gpu_paths.on_cpu", [spread, resumed], 2, gpu_packages)

    start = load_file(str(tiny_preset.policy.model) + "/model.safetensors")
    moved = [apart(weights_of(spread), start)] + [
        apart(weights_of(spread, f"checkpoints/checkpoint-{n}"), weights_of(spread, f"checkpoints/checkpoint-{n + 1}"))
        for n in (1, 2, 3)
    ]
    differences = apart(weights_of(plain), weights_of(spread)), apart(weights_of(spread), weights_of(resumed))
    with capsys.disabled():
        stage = block["zero_optimization"]["stage"]
        print(
            f"\n{name}, ZeRO-{stage}: weights moved {moved[0]:.2e}; steps 2, 3 (unscored), 4 moved them {moved[1:]}; "
        )
        print(
            f"apart from the run without DeepSpeed {differences[0]:.2e}, resumed from not resumed {differences[1]:.2e}"
        )
    assert moved[0] > 1e-3
    assert moved[1] > 1e-4
    assert moved[2] == 0
    assert moved[3] > 1e-4
    assert differences[0] < 1e-5
    assert differences[1] == 0
    ours, theirs = (read_records(Path(run["output"]) / "metrics.jsonl") for run in (spread, plain))
    assert ours[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert ours[-1]["kl"] > 0
    for step, key in ((0, "heldout_before"), (1, "heldout"), (3, "heldout")):
        for figure in ("balanced_accuracy", "auc_per_gene", "coverage", "yes_share"):
            assert ours[step][f"{key}/{figure}"] == pytest.approx(theirs[step][f"{key}/{figure}"], nan_ok=True)
