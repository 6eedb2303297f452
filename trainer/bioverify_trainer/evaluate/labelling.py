"""Which label an observation has, asked of models that were never trained on it, beside baselines.

Completions are kept in a file, with the settings they were asked with, as those of the other questions are: the same
command resumes if it was interrupted. An answer that names none of the labels is wrong, and coverage says how many
name one. Observations are taken to be independent of each other: if many come from few donors, the intervals are too
narrow.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson

from bioverify.files import append_lines, read_lines
from bioverify_trainer.evaluate.completions import keep_complete
from bioverify_trainer.evaluate.evaluation import BASELINE, Settings, answerer_of, file_of
from bioverify_trainer.evaluate.label_measures import NO_LABEL, Codes, measure_labels
from bioverify_trainer.evaluate.measures import Figure
from bioverify_trainer.evaluate.naming import named_label
from bioverify_trainer.evaluate.observations import Observations, conversation
from bioverify_trainer.evaluate.questions import EvaluationError
from bioverify_trainer.evaluate.tables import Table
from bioverify_trainer.prompts import Turn

COLUMNS = {
    "coverage": "coverage",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced acc.",
}


class Writer(Protocol):
    def write(self, conversations: Sequence[list[Turn]]) -> list[list[str]]: ...


@dataclass(frozen=True)
class Labelled:
    """A model on a task: figures with intervals. ``labels``: how many there are among the observations."""

    model: str
    task: str
    observations: int
    labels: int
    figures: dict[str, Figure]


def evaluate_labels(
    task: str,
    everything: Observations,
    settings: Settings,
    folder: Path,
    *,
    with_choices: bool,
    progress: Callable[[str, int, int], None],
) -> list[Labelled]:
    """The result of every model. ``everything``: all observations, out of which the questions are a sample."""
    asked = everything if settings.questions is None else everything.sample(settings.questions, seed=settings.seed)
    beside = [f"{BASELINE}{name}" for name in _BASELINES] if settings.with_baselines else []
    results = []
    for model in dict.fromkeys([*settings.models, *beside]):
        if model.startswith(BASELINE):
            baseline = _BASELINES.get(model.removeprefix(BASELINE))
            if baseline is None:
                raise EvaluationError(f"--model {model}: the baselines of this task are {', '.join(_BASELINES)}")
            answer = baseline(asked, everything)
        else:
            answer = _ask(model, task, asked, settings, folder / task, with_choices, progress)
        figures = measure_labels(asked.label, answer, resamples=settings.resamples, seed=settings.seed)
        results.append(Labelled(model, task, len(asked), len(np.unique(asked.label)), figures))
    return results


def _ask(
    model: str,
    task: str,
    asked: Observations,
    settings: Settings,
    folder: Path,
    with_choices: bool,
    progress: Callable[[str, int, int], None],
) -> Codes:
    path = file_of(model, settings, folder, with_choices=with_choices, labels=list(asked.labels))
    complete = keep_complete(
        path, lambda lines: [orjson.loads(line)["observation"] for line in lines], settings.samples
    )
    left = [place for place, name in enumerate(asked.names) if name not in complete]
    if left:
        writer: Writer = answerer_of(model, settings)
        choices = asked.labels if with_choices else ()
        for start in range(0, len(left), settings.at_once):
            progress(model, len(asked) - len(left) + start, len(asked))
            batch = left[start : start + settings.at_once]
            turns = [
                conversation(task, asked.genes[place], choices, settings.presets[model].prompts) for place in batch
            ]
            append_lines(
                path,
                b"".join(
                    _line(asked.names[place], completion)
                    for place, completions in zip(batch, writer.write(turns), strict=True)
                    for completion in completions
                ),
            )
    answered = defaultdict[str, list[str]](list)
    for record in map(orjson.loads, read_lines(path)):
        answered[record["observation"]].append(record["completion"])
    return np.array([_majority(answered[name], asked.labels) for name in asked.names])


def _majority(completions: Sequence[str], labels: Sequence[str]) -> int:
    """The label that most samples name; of several, the one that came first."""
    named = [label for completion in completions if (label := named_label(completion, labels)) is not None]
    return Counter(named).most_common(1)[0][0] if named else NO_LABEL


def _line(name: str, completion: str) -> bytes:
    return orjson.dumps({"observation": name, "completion": completion}, option=orjson.OPT_APPEND_NEWLINE)


def majority_class(asked: Observations, everything: Observations) -> Codes:
    """The most frequent label of the file for everybody: its balanced accuracy is one over the number of labels."""
    return np.full(len(asked), np.bincount(everything.label).argmax())


def nearest_centroid(asked: Observations, everything: Observations) -> Codes:
    """The label whose other observations share most of the listed genes: no zero shot, but what the lists hold.

    A gene counts for a label by the share of its observations that list it; the observation itself is left out.
    """
    column = {gene: place for place, gene in enumerate(sorted({gene for genes in everything.genes for gene in genes}))}
    listed = np.zeros((len(everything), len(column)))
    for row, genes in enumerate(everything.genes):
        listed[row, [column[gene] for gene in genes]] = 1
    size = np.bincount(everything.label, minlength=len(everything.labels))
    sums = np.stack([listed[everything.label == code].sum(axis=0) for code in range(len(size))])
    place_of = {name: place for place, name in enumerate(everything.names)}
    answers = []
    for name in asked.names:
        row = place_of[name]
        own = np.arange(len(size)) == everything.label[row]
        centroid = (sums - own[:, None] * listed[row]) / np.maximum(1, size - own)[:, None]
        apart = ((centroid - listed[row]) ** 2).sum(axis=1)
        answers.append(np.where(size - own > 0, apart, np.inf).argmin())
    return np.array(answers)


_BASELINES: dict[str, Callable[[Observations, Observations], Codes]] = {
    "majority-class": majority_class,
    "nearest-centroid": nearest_centroid,
}


def as_json(results: Sequence[Labelled]) -> str:
    return json.dumps({"results": [asdict(result) for result in results]}, indent=2) + "\n"


def as_table(results: Sequence[Labelled]) -> Table:
    """For `bioverify_trainer.evaluate.tables`."""
    rows = [
        ([one.task, one.model, f"{one.observations:,}", str(one.labels)], [one.figures[name] for name in COLUMNS])
        for one in results
    ]
    return Table(("task", "model", "observations", "labels"), tuple(COLUMNS.values()), rows)
