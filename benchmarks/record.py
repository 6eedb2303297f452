"""What is worth keeping of a run: ``python -m benchmarks.record RUN docs/records/NAME --evaluation E``.

Configuration, metrics and evaluations, without weights, and without completions or questions: these quote PerturbQA,
which may not be passed on. Folders of the machine become names: what lies in the run's folder reads RUN/….
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from bioverify_trainer.evaluate.tables import COLOURS
from bioverify_trainer.runs.record import Run

KEPT = ("step", "step_seconds", "reward", "reward_std", "loss", "grad_norm", "entropy", "completions/mean_length")
PREFIXES = ("source/", "value/", "watch/", "not_read/", "heldout", "reward_call/unscorable")
WINDOW = 10
"""Steps of the moving average in the figure."""


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[Path, typer.Argument(help="Folder of the record.")],
    evaluations: Annotated[
        list[Path], typer.Option("--evaluation", help="results.json of `bioverify eval`; may be repeated.")
    ],
) -> None:
    opened = Run.open(run)
    output.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in opened.config.items() if key not in ("policy_path", "target")}
    (output / "run.json").write_text(json.dumps(_portable(config, run), indent=2) + "\n")
    metrics = [
        {key: _rounded(value) for key, value in record.items() if key in KEPT or key.startswith(PREFIXES)}
        for record in opened.metrics
    ]
    (output / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    for evaluation in evaluations:
        results = _portable(json.loads(evaluation.read_text()), run)
        (output / f"{evaluation.parent.name}.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(metrics, output / "reward.svg")


def draw(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Reward and form of the answers, per step and as moving averages."""
    drawing = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = drawing.subplots(1, 2)
    for axes, keys in (
        (left, ["reward", *_keys(metrics, "source/")]),
        (right, ["value/format", "value/format.mention", "value/experimental", "value/esm_mlp"]),
    ):
        for number, key in enumerate(keys):
            known = [(record["step"], record[key]) for record in metrics if record.get(key) is not None]
            if not known:
                continue
            steps, values = zip(*known, strict=True)
            smooth = [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(values))]
            axes.plot(steps, values, ".", color=COLOURS[number], markersize=2, alpha=0.4)
            axes.plot(steps, smooth, color=COLOURS[number], label=key)
        axes.set_xlabel("step")
        axes.legend(fontsize=7, frameon=False)
    left.set_ylabel("reward")
    right.set_ylabel("mean value")
    drawing.savefig(path, metadata={"Creator": None, "Date": None})


def _keys(metrics: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    return sorted({key for record in metrics for key in record if key.startswith(prefix)})


def _portable(value: Any, run: Path) -> Any:
    """The same without the folders of this machine."""
    if isinstance(value, Mapping):
        return {key: _portable(one, run) for key, one in value.items()}
    if isinstance(value, list):
        return [_portable(one, run) for one in value]
    if not isinstance(value, str):
        return value
    place = Path(value)
    if place.is_relative_to(run) or place.is_relative_to(run.absolute()):
        return str("RUN" / place.absolute().relative_to(run.absolute()))
    return place.name if place.is_absolute() else value


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    typer.run(main)
