"""Training prompts drawn from PerturbQA.

Every prompt is one draw: first the recipe's source by its share, then a row among the training rows of all cell lines.
A screen holds seven times as many unchanged genes as changed ones, so labels are balanced, in one of two ways:

* ``label``: yes or no with probability one half, then a row of that label, as rbio draws. The measured gene then tells
  nine tenths of the label: some genes respond to nearly everything, most to nearly nothing.
* ``gene``: first a line's measured gene, with a weight of min(its yes, its no), then yes or no with probability one
  half, then a row of it. The gene then says nothing of the label, and what is left to learn is the perturbation.

A source with ``pairs: any`` takes line and gene of the row, and any training perturbation of that line in place of the
row's own; such a question has no label.

A draw depends on the seed, its own index and how often it was drawn again (`bioverify_trainer.draws`) alone, so a
resumed run sees the same prompts in the same order, and nothing is kept but the index: a row of the dataset is made
when it is asked for.

Only rows of the ``train`` split are ever drawn. A perturbation that one line holds out may be a training perturbation
of another; ``strict`` leaves such rows out as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset  # type: ignore[import-untyped]

from bioverify.artifacts import prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.completions import PromptForm
from bioverify.core.recipes import Pairs, Recipe, Source
from bioverify.core.tasks import TASKS, Task, TaskKind, make_task
from bioverify.errors import BioverifyError
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import make_prompt

# Genes to write about are those of measured pairs; any other question has rows of its own kind.
_ROWS_OF = {kind: kind for kind in TaskKind} | {TaskKind.GENE_ANNOTATION: TaskKind.DIFFERENTIAL_EXPRESSION}


Balance = Literal["label", "gene"]
Ints = np.ndarray[Any, np.dtype[np.int64]]


_AS_BY_DEFAULT = PromptPreset()


class DatasetError(BioverifyError):
    """A table that cannot give the prompts that the recipe asks for."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One training prompt. ``label`` is None if none is known. ``again``: which of the draws of its index it is."""

    index: int
    again: int
    prompt_id: str
    source: str
    task: Task
    label: int | None
    prompt_form: PromptForm


class PromptSource:
    """The training rows of the ``prompts`` artifact, ready to be drawn from."""

    def __init__(
        self,
        table: pa.Table,
        recipe: Recipe,
        *,
        seed: int,
        lines: Sequence[str] = (),
        strict: bool = False,
        balance: Balance = "label",
    ) -> None:
        """``table``: columns line, task_kind, perturbation, measured_gene, label, split, simulated.

        ``lines``: draw from these cell lines only (co-expression has none, and stays); if empty, from all. ``strict``:
        leave out, in every line, the perturbations that any line holds out. ``balance``: as above.
        """
        train = table.filter(pc.equal(table["split"], "train"))
        if lines:
            train = train.filter(pc.is_in(train["line"].cast(pa.string()), pa.array(["", *lines])))
        if strict:
            held_out = table.filter(pc.equal(table["split"], "test"))["perturbation"].unique().cast(pa.string())
            is_knockdown = pc.not_equal(train["task_kind"].cast(pa.string()), str(TaskKind.CO_EXPRESSION))
            leaks = pc.and_(is_knockdown, pc.is_in(train["perturbation"].cast(pa.string()), held_out))
            train = train.filter(pc.invert(leaks))
        if train.num_rows == 0:
            raise DatasetError("the prompts artifact has no row of the train split. Run: bioverify data build prompts")
        self.simulated = bool(pc.any(train["simulated"]).as_py())
        self.n_rows = train.num_rows
        self._recipe = recipe
        self._seed = seed
        self._lines = _Dictionary(train["line"])
        self._perturbations = _Dictionary(train["perturbation"])
        self._measured_genes = _Dictionary(train["measured_gene"])
        self._balance = balance
        self._rows: dict[tuple[TaskKind, int], Ints] = {}
        self._genes: dict[TaskKind, _GenesWithBothLabels] = {}
        self._perturbations_of: dict[tuple[TaskKind, int], Ints] = {}
        kinds, labels = train["task_kind"], train["label"]
        self._sources = recipe.sources or (_DEFAULT_SOURCE,)
        shares = np.cumsum([source.share for source in self._sources])
        # `Generator.choice` draws by the same sums, and makes them anew for each draw.
        self._up_to = shares / shares[-1]
        for source in self._sources:
            kind = _ROWS_OF[source.task_kind]
            for label in (0, 1):
                rows = np.flatnonzero(pc.and_(pc.equal(kinds, str(kind)), pc.equal(labels, label)).to_numpy())
                if not len(rows):
                    raise DatasetError(
                        f"recipe {recipe.name}, source {source.name}: the prompts artifact has no {kind} row with "
                        f"label {label} in the train split"
                    )
                self._rows[kind, label] = rows
            if balance == "gene" and kind not in self._genes:
                gene = self._lines.codes * len(self._measured_genes.values) + self._measured_genes.codes
                self._genes[kind] = _GenesWithBothLabels(gene, self._rows[kind, 0], self._rows[kind, 1])
                if not self._genes[kind].exist:
                    raise DatasetError(
                        f"recipe {recipe.name}, source {source.name}: no gene has {kind} rows of both labels in the "
                        "train split; set prompts.balance to label"
                    )
            if source.pairs is Pairs.ANY:
                of_kind = np.concatenate([self._rows[kind, 0], self._rows[kind, 1]])
                for line in np.unique(self._lines.codes[of_kind]).tolist():
                    there = of_kind[self._lines.codes[of_kind] == line]
                    self._perturbations_of[kind, line] = np.unique(self._perturbations.codes[there])

    def draw(self, index: int, again: int = 0) -> Draw:
        """The draw number ``index``, or the ``again``-th in its place; always the same for the same seed."""
        which = [index, again] if again else [index]
        rng = np.random.default_rng([self._seed, *which])
        source = self._sources[int(np.searchsorted(self._up_to, rng.random(), side="right"))]
        prompt_id = "-".join(map(str, [self._seed, *which]))
        name = source.name if self._recipe.sources else ""
        kind = _ROWS_OF[source.task_kind]
        genes = self._genes.get(kind)
        gene = genes.draw(rng) if genes else 0
        label = int(rng.integers(2))
        row = genes.draw_row(gene, label, rng) if genes else int(rng.choice(self._rows[kind, label]))
        line, perturbation, measured_gene = (
            column[row] for column in (self._lines, self._perturbations, self._measured_genes)
        )
        if source.pairs is Pairs.ANY:
            perturbation = self._any_perturbation(kind, row, rng)
        task = TASKS[source.task_kind].about(perturbation, measured_gene, line)
        # A question without a yes or no has no label, whatever the row that it was drawn from says.
        is_labelled = task.words is not None and source.pairs is Pairs.MEASURED
        return Draw(index, again, prompt_id, name, task, label if is_labelled else None, source.prompt_form)

    def _any_perturbation(self, kind: TaskKind, row: int, rng: np.random.Generator) -> str:
        """A training perturbation of the row's line that is not its measured gene."""
        among = self._perturbations_of[kind, int(self._lines.codes[row])]
        chosen = int(rng.integers(len(among)))
        if self._perturbations.values[among[chosen]] == self._measured_genes[row]:
            chosen = (chosen + 1) % len(among)
        return self._perturbations.values[int(among[chosen])]


class _GenesWithBothLabels:
    """Rows by gene and label, and each gene's weight: min(its yes, its no). ``exist``: whether any has both."""

    def __init__(self, gene: Ints, no_rows: Ints, yes_rows: Ints) -> None:
        """``gene``: of every row, a code; ``no_rows``, ``yes_rows``: positions of the rows of each label."""
        both = np.intersect1d(gene[no_rows], gene[yes_rows])
        self.exist = len(both) > 0
        self._of_label = [_rows_by_gene(gene, rows, both) for rows in (no_rows, yes_rows)]
        counts = np.minimum(*(np.diff(starts) for _, starts in self._of_label))
        self._up_to = np.cumsum(counts)

    def draw(self, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self._up_to, rng.integers(self._up_to[-1]), side="right"))

    def draw_row(self, gene: int, label: int, rng: np.random.Generator) -> int:
        rows, starts = self._of_label[label]
        return int(rows[rng.integers(starts[gene], starts[gene + 1])])


def _rows_by_gene(gene: Ints, rows: Ints, genes: Ints) -> tuple[Ints, Ints]:
    """The rows of ``genes`` (sorted), gene by gene, and at which place each gene's begin, with the end of the last."""
    rows = rows[np.isin(gene[rows], genes)]
    rows = rows[np.argsort(gene[rows], kind="stable")]
    return rows, np.r_[np.searchsorted(gene[rows], genes), len(rows)]


# A recipe without sources scores any prompt: it then trains on differential expression, the published question.
_DEFAULT_SOURCE = Source(name="perturbqa", share=1, task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, terms=())


class _Dictionary:
    """A column of few distinct strings as an array of codes: half a million rows in a few megabytes."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        self.values: list[str] = encoded.dictionary.to_pylist()
        self.codes: Ints = encoded.indices.to_numpy().astype(np.int64)

    def __getitem__(self, row: int) -> str:
        return self.values[int(self.codes[row])]


def open_prompts(
    store: ArtifactStore, recipe: Recipe, *, seed: int, wanted: PromptPreset = _AS_BY_DEFAULT
) -> PromptSource:
    """The prompts artifact of the store, drawn from as ``wanted``. Raises ArtifactError if missing or damaged."""
    table, _artifact = prompts.open_prompts(store)
    return PromptSource(table, recipe, seed=seed, lines=wanted.lines, strict=wanted.strict, balance=wanted.balance)


Row = dict[str, Any]
"""A row of the dataset: ``prompt`` (messages), ``prompt_id``, ``source``, ``prompt_form``, ``task_kind``, ``task`` (its
fields as JSON, since the kinds differ in theirs), ``label`` (None if unknown), ``index`` and ``again`` of the draw."""
MakeRow = Callable[[int, int], Row]
"""Index and how often it was drawn again → the row."""


def rows_of(source: PromptSource, *, example_turns: int = 0, chain_of_thought: bool = False) -> MakeRow:
    """What makes a row of a draw of ``source``."""

    def row(index: int, again: int) -> Row:
        draw = source.draw(index, again)
        return {
            "prompt": make_prompt(
                draw.task, draw.prompt_form, example_turns=example_turns, chain_of_thought=chain_of_thought
            ),
            "prompt_id": draw.prompt_id,
            "source": draw.source,
            "prompt_form": str(draw.prompt_form),
            "task_kind": str(draw.task.kind),
            "task": json.dumps(asdict(draw.task)),
            "label": draw.label,
            "index": index,
            "again": again,
        }

    return row


def make_dataset(row: MakeRow, n_prompts: int) -> Dataset:
    """A dataset of the first ``n_prompts`` rows, made lazily."""

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        made = [row(index, 0) for index in batch["draw"]]
        return {name: [one[name] for one in made] for name in made[0]}

    return Dataset.from_dict({"draw": range(n_prompts)}).with_transform(rows)


def read_task(kind: str, fields: str) -> Task:
    """The task of a dataset row, from its ``task_kind`` and ``task`` columns."""
    return make_task(TaskKind(kind), json.loads(fields).values())
