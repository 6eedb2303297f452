"""What a run shows: one trace per step, down to the verifiers, and metrics that agree with metrics.jsonl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bioverify.core.readings import ALL_REASONS
from bioverify_trainer.runs.folder import RunFolder, read_records
from tests.fixtures import servers, traces
from tests.fixtures.servers import ROOT

# In a process of its own: a provider of spans is set once for all time.
RUN = """
import json, sys, urllib.request
from pathlib import Path
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.preset import Preset
from bioverify_trainer.train import train

asked = json.loads(sys.stdin.read())
train(
    Recipe.model_validate(asked["recipe"]), Preset.model_validate(asked["preset"]), target=asked["target"],
    output=Path(asked["output"]), store=ArtifactStore(Path(asked["store"])), metrics_listen=asked["metrics"],
)
print("METRICS" + urllib.request.urlopen(f"http://{asked['metrics']}/metrics").read().decode())
"""


def test_a_step_is_one_trace_and_its_figures_are_metrics(recipe, tiny_preset, store, tmp_path: Path) -> None:
    import json

    metrics = f"127.0.0.1:{servers.free_port()}"
    with (
        traces.receiver() as receiver,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with (
            servers.verifier("Text") as text,
            servers.verifier("Lookup") as lookup,
            servers.aggregator({"text": text.target, "lookup": lookup.target}) as aggregator,
        ):
            asked = {
                "recipe": recipe.model_dump(mode="json"),
                "preset": tiny_preset.model_dump(mode="json"),
                "target": aggregator.target,
                "output": str(tmp_path / "run"),
                "store": str(store.root),
                "metrics": metrics,
            }
            done = subprocess.run(
                [sys.executable, "-c", RUN],
                input=json.dumps(asked),
                cwd=ROOT,
                env=os.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            spans = receiver.wait_for(lambda spans: len({span.service for span in spans}) == 3 and len(spans) >= 12)

    steps = [span for span in spans if span.name == "training step"]
    assert [span.told["step"] for span in steps] == [1, 2]
    assert not any(span.parent_id for span in steps)
    assert {span.trace_id for span in spans} == {span.trace_id for span in steps}
    for step in steps:
        services = {span.service for span in spans if span.trace_id == step.trace_id}
        assert services == {"bioverify-trainer", "bioverify-aggregator", "bioverify-verifier"}

    shown = done.stdout.partition("METRICS")[2]
    last = list(read_records(RunFolder(tmp_path / "run").metrics_file))[-1]
    assert f"bioverify_training_reward {last['reward']}" in shown
    for part in ("rewards", "generation", "optimiser", "rest"):
        assert f'bioverify_training_step_share_ratio{{part="{part}"}} {last[f"pace/{part}"]}' in shown
    assert f"bioverify_training_tokens_per_second {last['pace/tokens_per_second']}" in shown
    assert f"bioverify_training_groups_alike_ratio {last['frac_reward_zero_std']}" in shown
    assert "bioverify_training_step 2.0" in shown
    assert f'bioverify_training_info{{preset="{tiny_preset.name}",recipe="{recipe.name}"}} 1.0' in shown
    assert 'bioverify_training_reward_calls_total{result="answered"} 2.0' in shown
    for what, reason in ALL_REASONS:
        share = last[f"not_read/{what}/{reason}"]
        assert f'bioverify_training_not_read_ratio{{reason="{reason}",what="{what}"}} {share}' in shown
    assert last["not_read/thought/no_thought"] > 0
    assert f'bioverify_training_value{{term="text"}} {last["value/text"]}' in shown
