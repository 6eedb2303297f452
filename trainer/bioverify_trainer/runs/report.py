"""One self-contained HTML page about a run: what was trained, what the verifiers said, how they fared.

Everything is inline (plots as SVG, styles, the configuration), so the file can be mailed or kept beside the weights.
Text from a model is escaped like any other text from outside.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bioverify.core import alarms
from bioverify.files import read_lines
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records
from bioverify_trainer.runs.record import TEACHES

N_EXAMPLES = 3
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's colours, which people with colour blindness can tell apart."""

Series = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure and what it shows, in words."""

    title: str
    note: str
    svg: Markup


def write_report(run: Path, output: Path, *, scores: Path | None = None) -> None:
    """Write the page about the run in ``run``. ``scores``: JSONL of ``bioverify score``. Raises RunError."""
    folder = RunFolder(run)
    if not folder.config_file.is_file():
        raise RunError(f"{run} holds no run (no {folder.config_file.name}); give the --output of a training")
    if not folder.metrics_file.is_file():
        raise RunError(f"{run}: the run has no {folder.metrics_file.name}, not one step of it was finished")
    config = json.loads(folder.config_file.read_text())
    metrics, samples = read_records(folder.metrics_file), read_records(folder.samples_file)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("bioverify_trainer.runs").joinpath("report.html.jinja").read_text())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        template.render(
            name=run.resolve().name,
            config=config,
            config_text=json.dumps(config, indent=2),
            summary=summarise(metrics),
            alarms=alarms.raised(metrics),
            watched=any(record.get(alarms.HELD_OUT) is not None for record in metrics),
            plots=make_plots(metrics),
            examples=choose_examples(samples),
            scores=tabulate_scores(scores) if scores else None,
        )
    )


def summarise(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reward of the first and last quarter of the steps, shares of what could not be scored, time."""
    quarter = max(1, len(metrics) // 4)

    def mean(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
        values = [record[key] for record in records if record.get(key) is not None]
        return fmean(values) if values else None

    return {
        "steps": metrics[-1]["step"] if metrics else 0,
        "quarter": quarter,
        "rows": [
            {"name": label, "first": mean(metrics[:quarter], key), "last": mean(metrics[-quarter:], key)}
            for label, key in [("reward", "reward"), *((k.split("/", 1)[1], k) for k in _keys(metrics, "value/"))]
        ],
        "unscorable": mean(metrics, "reward_call/unscorable"),
        "failed_calls": sum(record.get("reward_call/failed", 0) > 0 for record in metrics),
        "step_seconds": mean(metrics, "step_seconds"),
        "call_seconds": mean(metrics, "reward_call/seconds"),
    }


def make_plots(metrics: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """The figures of a run, one point per step; a step without a figure leaves a gap."""
    steps = [int(record["step"]) for record in metrics]

    def series(prefix: str, suffix: str = "") -> dict[str, list[float | None]]:
        return {
            key.removeprefix(prefix).removesuffix(suffix): [record.get(key) for record in metrics]
            for key in _keys(metrics, prefix, suffix)
        }

    total: Series = {"reward": [record.get("reward") for record in metrics]}
    unscored: Series = {
        "unscorable": [record.get("reward_call/unscorable") for record in metrics],
        **{f"{name}: failed": values for name, values in series("verifier/", "/failed").items()},
        **{f"{name}: not applicable": values for name, values in series("verifier/", "/not_applicable").items()},
    }
    shown = {name: values for name, values in unscored.items() if name == "unscorable" or any(values)}
    held_out = {name: values for name, values in series("heldout/").items() if any(v is not None for v in values)}
    watched = {name: values for name, values in series("watch/").items() if name != "words"}
    not_read = {name: values for name, values in series(alarms.NOT_READ).items() if any(values)}
    taught = {
        name: [record.get(name) for record in metrics]
        for name in TEACHES
        if any(record.get(name) is not None for record in metrics)
    }
    pace = {name: values for name, values in series("pace/").items() if name != "tokens_per_second"}
    return [
        *(
            [
                Plot(
                    "Held-out questions",
                    "Greedy answers to the same questions, half of them positive.",
                    _draw(steps, held_out, "value", top=1.0),
                )
            ]
            if held_out
            else []
        ),
        Plot(
            "Signs of reward hacking",
            'Shares over the completions of a step: repetition within a completion, answers "yes", answers that cannot '
            "be read, thoughts that name the genes and say nothing else, distance between verifiers' beliefs.",
            _draw(steps, watched, "share", top=1.0),
        ),
        *(
            [
                Plot(
                    "Not read",
                    "Share of the completions of a step of which the question, a thought or the answer could not be "
                    "read, by reason: docs/reading.md.",
                    _draw(steps, not_read, "share", top=1.0),
                )
            ]
            if not_read
            else []
        ),
        Plot(
            "Reward by source",
            "Mean over the completions of each source of questions.",
            _draw(steps, series("source/"), "reward"),
        ),
        Plot(
            "Reward and its parts",
            "Mean over the completions of a step. Each part is weight × value; the black line is their sum.",
            _draw(steps, {**total, **series("contribution/")}, "reward", first_colour="black"),
        ),
        Plot(
            "What each verifier said",
            "Mean value in [0, 1] over the completions that it could score.",
            _draw(steps, series("value/"), "mean value", top=1.0),
        ),
        *(
            [
                Plot(
                    "What teaches",
                    "Groups whose members are all rewarded alike teach nothing. Tokens that the loss clips, distance "
                    "to the start, entropy of the next token; ratio of the trainer's to vLLM's probability, near 1.",
                    _draw(steps, taught, "share, nats"),
                )
            ]
            if taught
            else []
        ),
        *(
            [
                Plot(
                    "Where the time goes",
                    "Shares of a step. Rewards should be below 5 %: while they are waited for, nothing is computed.",
                    _draw(steps, pace, "share", top=1.0),
                )
            ]
            if pace
            else []
        ),
        Plot(
            "Latency of each verifier",
            "Seconds from the aggregator's first call to the last reply, per step.",
            _draw(steps, series("verifier/", "/seconds"), "seconds"),
        ),
        Plot(
            "Answered from the cache",
            "Share of the distinct questions of a step that the cache answered, per verifier. In training nearly every "
            "question is new; hits come from answers that recur and from earlier runs.",
            _draw(steps, series("verifier/", "/cache_hits"), "share", top=1.0),
        ),
        Plot(
            "Without a score",
            "Share of the completions that had no reward, or no word from a verifier. They are left out, never zero.",
            _draw(steps, shown, "share", top=1.0),
        ),
    ]


def choose_examples(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """An early completion, the best one, and a late one: different ones, if there are as many."""
    scored = [sample for sample in samples if sample["reward"] is not None]
    if not scored:
        return list(samples[:N_EXAMPLES])
    wanted = [scored[0], max(scored, key=lambda sample: float(sample["reward"])), *reversed(scored)]
    different = {(sample["step"], sample["id"]): sample for sample in wanted}
    return sorted(list(different.values())[:N_EXAMPLES], key=lambda sample: int(sample["step"]))


def tabulate_scores(path: Path) -> dict[str, Any]:
    """Per term: mean value, and how many completions it scored, had nothing to say of, failed for."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    outcomes: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    rewards: list[float] = []
    n = 0
    try:
        for line in map(json.loads, read_lines(path)):
            n += 1
            if line["reward"] is not None:
                rewards.append(line["reward"])
            for part in line["parts"]:
                label = ".".join(filter(None, (part["verifier"], part["component"])))
                outcomes[label][part["outcome"]] += 1
                if part["value"] is not None:
                    values[label].append(part["value"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"--scores {path}: not what `bioverify score` writes ({error!r})") from error
    rows = [
        {"term": label, "mean": fmean(values[label]) if values[label] else None, **_three(counts)}
        for label, counts in outcomes.items()
    ]
    return {"file": path.name, "n": n, "mean": fmean(rewards) if rewards else None, "rows": rows}


def _three(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in ("scored", "not_applicable", "failed")}


def _keys(metrics: Sequence[Mapping[str, Any]], prefix: str, suffix: str = "") -> list[str]:
    names = {key for record in metrics for key in record}
    return sorted(name for name in names if name.startswith(prefix) and name.endswith(suffix))


def _draw(
    steps: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    unit: str,
    *,
    top: float | None = None,
    first_colour: str | None = None,
) -> Markup:
    colours = [*([first_colour] if first_colour else []), *_COLOURS]
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(series.items()):
        points = [float("nan") if value is None else value for value in values]
        axes.plot(steps, points, label=name, color=colours[index % len(colours)], marker=".", linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0, top=None if top is None else top * 1.05)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if series:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    drawing = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        # Creator and date would differ from run to run, and the type points to an address.
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawing, format="svg", metadata=nothing)
    text = drawing.getvalue()
    # The XML and document type headers have no place inside a page. matplotlib escapes the labels.
    return Markup(text[text.index("<svg") :])  # noqa: S704
