"""Does it help to pick by claims? Of n completions of a question the one that claims values most, beside other picks.

```console
$ python -m benchmarks.best_of_n write written.jsonl      # SmolLM2 answers held-out questions, four times each
$ python -m benchmarks.best_of_n measure written.jsonl    # picks, judged by the held-out labels
$ python -m benchmarks.best_of_n sheet written.jsonl sheet.tsv key.tsv
$ python -m benchmarks.best_of_n count sheet.tsv key.tsv record.tsv
```

Picks are by `claims`, by `go_rouge`, by length (words), and at random, which is the mean over all n; if several are
valued alike, it is the mean over these. An answer that cannot be read is wrong, as everywhere. Questions to which one
of the verifiers does not apply are left out for all picks, and counted.

``sheet`` writes texts to be read by hand: of questions drawn by a seed the one that claims picks and the one that ROUGE
picks, if they differ, shuffled, without a word about who picked it or what the answer was; the key is another file, and
says of how many that were valued alike a pick was drawn. Each text's statements are counted as true, false or not to be
told from the sources; ``count`` then opens the key, and writes both as one record. Needs the artifacts genes, prompts,
claims and go_rouge of the real files.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import orjson
import typer

from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import open_verifier
from bioverify.core.completions import PromptForm, TaggedText
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.files import read_lines
from bioverify_trainer.evaluate import completions
from bioverify_trainer.evaluate.questions import TASKS, Rows, Screens
from bioverify_trainer.prompts import make_prompt

Floats = npt.NDArray[np.float64]

MODEL, EXAMPLE_TURNS, MAX_TOKENS, TEMPERATURE = "smollm2", 2, 64, 0.7
N_QUESTIONS, PER_GENE, N_SAMPLES = 96, 2, 4
SEED, N_RESAMPLES, N_SHEET = 3, 1000, 25
VERIFIERS = ("claims", "go_rouge")
VERDICTS = ("true", "false", "unverifiable")

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)
Written = Annotated[Path, typer.Argument(help="JSONL of `write`.")]


@dataclass(frozen=True)
class Asked:
    """Questions with n completions each, to which both verifiers apply. Arrays are questions × completions."""

    rows: Rows
    texts: list[list[str]]
    values: Mapping[str, Floats]
    """By what is picked by; the highest is picked."""
    n_left_out: int

    @property
    def answers(self) -> npt.NDArray[np.int64]:
        """1, 0, or -1 if it cannot be read."""
        read = (completions.read_answers(own, self.rows.kind) for own in self.texts)
        return np.array([[int(one) if isinstance(one, bool) else -1 for one in own] for own in read])


@app.command()
def write(written: Written) -> None:
    """Let the model say what it knows of both genes, think and answer. The same command resumes."""
    import torch

    from bioverify_trainer.model.generation import complete
    from bioverify_trainer.model.policy import open_for, use_threads
    from bioverify_trainer.preset import preset_for

    use_threads(1)
    torch.manual_seed(SEED)
    policy = open_for(preset_for(MODEL, None), MODEL)

    def answer(tasks: Sequence[DifferentialExpression | DirectionOfChange]) -> list[list[completions.Sample]]:
        turns = [make_prompt(task, PromptForm.GENE_INFO, example_turns=EXAMPLE_TURNS) for task in tasks]
        asked = [own for own in turns for _ in range(N_SAMPLES)]
        said = [
            completions.Sample(text, None)
            for text in complete(policy, asked, max_tokens=MAX_TOKENS, temperature=TEMPERATURE)
        ]
        return [said[start : start + N_SAMPLES] for start in range(0, len(said), N_SAMPLES)]

    with typer.progressbar(length=N_QUESTIONS) as bar:
        completions.ask(_questions(), answer, written, samples=N_SAMPLES, at_once=8, progress=bar.update)


@app.command()
def measure(written: Written) -> None:
    """Print what the picks are worth by the held-out labels, with 95 % intervals over perturbations."""
    asked = _read(written)
    answers = asked.answers
    right = (answers == asked.rows.label[:, None]).astype(float)
    readable = (answers >= 0).astype(float)
    picked = {name: _picked(values, right) for name, values in asked.values.items()}
    read = {name: _picked(values, readable) for name, values in asked.values.items()}
    _, cluster = np.unique(np.stack([asked.rows.line, asked.rows.perturbation]), axis=1, return_inverse=True)
    weights = _weights(cluster)
    print(f"{len(right)} questions × {right.shape[1]} completions; {asked.n_left_out} questions left out.\n")
    print("| picked by | right | right, minus a random pick's | answers that can be read | ties |")
    print("|---|---|---|---|---|")
    for name, values in asked.values.items():
        ties = float(((values == values.max(axis=1, keepdims=True)).sum(axis=1) > 1).mean())
        cells = [
            _with_interval(picked[name], weights),
            _with_interval(picked[name] - picked["random"], weights),
            _with_interval(read[name], weights),
            f"{ties:.0%}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nSome completion is right: {_with_interval(right.max(axis=1), weights)}")
    for name, values in asked.values.items():
        if values.any():
            print(f"Mean of {name}: {values.mean():.3f}, of the pick {values.max(axis=1).mean():.3f}")


@app.command()
def sheet(written: Written, sheet_at: Path, key_at: Path) -> None:
    """Write the sheet to be read by hand, and apart from it who picked what."""
    asked = _read(written)
    draw = random.Random(SEED)
    found: list[list[dict[str, str]]] = []
    for row in draw.sample(range(len(asked.rows)), len(asked.rows)):
        best = {name: np.flatnonzero(asked.values[name][row] == asked.values[name][row].max()) for name in VERIFIERS}
        picks = {name: int(draw.choice(own)) for name, own in best.items()}
        if picks["claims"] != picks["go_rouge"] and len(found) < N_SHEET:
            told = {"question": str(len(found) + 1), "genes": " ".join(asked.rows.task(row).genes)}
            found.append(
                [
                    {**told, "text": _thoughts(asked.texts[row][pick]), "by": name, "of": str(len(best[name]))}
                    for name, pick in picks.items()
                ]
            )
    texts = [one for pair in found for one in pair]
    draw.shuffle(texts)
    for number, one in enumerate(texts, 1):
        one["number"] = str(number)
    _write(sheet_at, ("number", "genes", "text", *VERDICTS, "why"), texts)
    _write(key_at, ("number", "question", "by", "of"), texts)
    print(f"{len(texts)} texts of {len(found)} questions")


@app.command()
def count(sheet_at: Path, key_at: Path, record_at: Path) -> None:
    """Print what the reading found of either pick, and write sheet and key as one record."""
    key = {one["number"]: one for one in _rows(key_at)}
    texts = [{**one, **key[one["number"]]} for one in _rows(sheet_at)]
    _write(record_at, ("number", "question", "by", "of", "genes", "text", *VERDICTS, "why"), texts)
    tied = {one["question"] for one in texts if one["of"] != "1"}
    for which, drawn in (
        ("All pairs", texts),
        ("Pairs without a tie", [one for one in texts if one["question"] not in tied]),
    ):
        counts = {
            name: np.array([[float(one[verdict]) for verdict in VERDICTS] for one in own])
            for name in VERIFIERS
            if (own := sorted((one for one in drawn if one["by"] == name), key=lambda one: int(one["question"])))
        }
        if counts:
            print(f"\n{which}\n")
            _tell(counts)


def _tell(counts: Mapping[str, Floats]) -> None:
    """``counts``: texts × `VERDICTS` of either pick, in the order of the questions."""
    weights = _weights(np.arange(len(counts["claims"])))
    print("| picked by | texts | true | false | unverifiable | texts with a true statement | with a false one |")
    print("|---|---|---|---|---|---|---|")
    for name, found in counts.items():
        sums = found.sum(axis=0)
        shares = " | ".join(f"{n:.0f} ({n / sums.sum():.0%})" for n in sums)
        has = [_with_interval((found[:, verdict] > 0).astype(float), weights) for verdict in (0, 1)]
        print(f"| {name} | {len(found)} | {shares} | {' | '.join(has)} |")
    apart = counts["claims"] - counts["go_rouge"]
    for verdict, name in enumerate(VERDICTS):
        print(f"{name}, a text: claims minus go_rouge {_with_interval(apart[:, verdict], weights)}")


def _questions() -> Rows:
    screens = Screens.read(open_prompts(ArtifactStore.default())[0])
    return screens.rows(TASKS["de"], "test").sample(N_QUESTIONS, per_gene=PER_GENE, seed=SEED)


def _read(written: Path) -> Asked:
    store, rows = ArtifactStore.default(), _questions()
    texts: defaultdict[int, list[str]] = defaultdict(list)
    places = rows.questions()
    for record in map(orjson.loads, read_lines(written)):
        task = DifferentialExpression(**record["task"]["differential_expression"])
        place = places.get((task.perturbation, task.measured_gene, task.cell_line))
        if place is not None:  # a file of more questions holds those of fewer
            texts[place].append(record["completion"])
    items = [Item(rows.task(row), completion=text) for row in sorted(texts) for text in texts[row]]
    shape = len(texts), N_SAMPLES
    values = {name: _values(name, items, store).reshape(shape) for name in VERIFIERS}
    values["length"] = np.array([len(item.completion.split()) for item in items], float).reshape(shape)
    values["random"] = np.zeros(shape)
    applies = np.count_nonzero(np.isnan(np.stack(list(values.values()))), axis=(0, 2)) == 0
    kept = [row for row, has in zip(sorted(texts), applies, strict=True) if has]
    return Asked(
        rows.where(np.array(kept)),
        [texts[row] for row in kept],
        {name: own[applies] for name, own in values.items()},
        int((~applies).sum()),
    )


def _values(name: str, items: Sequence[Item], store: ArtifactStore) -> Floats:
    """NaN: not applicable."""
    outcomes = open_verifier(name, store).score(items, with_evidence=False)
    return np.array([one.value if isinstance(one, Scored) else np.nan for one in outcomes])


def _picked(values: Floats, of: Floats) -> Floats:
    """Of each question the mean of ``of`` over the completions that are valued most."""
    best = values == values.max(axis=1, keepdims=True)
    mean: Floats = (of * best).sum(axis=1) / best.sum(axis=1)
    return mean


def _weights(cluster: npt.NDArray[np.int64]) -> Floats:
    """Resamples × rows: how often the row's cluster is drawn."""
    n = int(cluster.max()) + 1
    drawn = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    weights: Floats = drawn[:, cluster].astype(float)
    return weights


def _with_interval(figures: Floats, weights: Floats) -> str:
    low, high = np.percentile(weights @ figures / weights.sum(axis=1), (2.5, 97.5))
    return f"{figures.mean():.3f} [{low:.3f}, {high:.3f}]"


def _thoughts(text: str) -> str:
    """What is said of the genes, and thought; not the answer."""
    read = TaggedText(text)
    return " ".join(" ".join([*read.gene_info_blocks, read.thoughts]).split())


def _write(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fields, restval="", extrasaction="ignore", delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


if __name__ == "__main__":
    app()
