"""Analogy: under the perturbations most similar to this one, how did this gene respond?

Neighbour scores over perturbed and measured genes (``neighbours.py``), boosted trees over them (``model.py``), a
calibrated belief. The evidence is what a biologist would ask for: which perturbations are most alike, how alike, and in
how many of them the gene responded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

import lightgbm
import numpy as np

from bioverify.artifacts.cell_lines import CELL_LINE_NAMES, CELL_LINES
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import SIMULATED_REMARK, Evidence, NotApplicable, Outcome
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, Task, TaskKind, canonical_cell_line
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads, score_by_belief, unsupported_task
from bioverify.verifiers.analogy.artifact import (
    KINDS,
    NAME,
    ROWS_FILE,
    SYMBOLS_FILE,
    VECTORS_FILE,
    solved_column,
    trees_file,
)
from bioverify.verifiers.analogy.model import LineModel, folds_of
from bioverify.verifiers.analogy.neighbours import Rows, leading_components, unit_vectors

ANALOGIES = 9
_NAMED = 3


class Analogy:
    """Soft belief for differential expression, and for its direction."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        models: Mapping[tuple[str, TaskKind], LineModel],
        *,
        vector_name: str,
        canary_belief: float,
        artifacts: tuple[ArtifactIdentity, ...] = (),
        simulated: bool = False,
    ) -> None:
        """``models``: by cell line and kind of question. ``canary_belief``: of the first two genes, from the build."""
        self._resolver, self._symbols, self._models = resolver, symbols, models
        self._row = {symbol: row for row, symbol in enumerate(symbols)}
        self._lines = tuple(dict.fromkeys(line for line, _ in models))
        self._vector_name, self._canary_belief, self._simulated = vector_name, canary_belief, simulated
        self.description = Description(
            name=NAME,
            version="2",
            summary=f"How the gene responded under the most similar perturbations (likeness by {vector_name}).",
            task_kinds=KINDS,
            reads=self.reads,
            holds_belief=True,
            components={"no_answer.*": "1 where the completion holds no answer, with the reason in the name."},
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: belief in "yes" (or "increase"), its complement for the other answer.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``unknown_cell_line``, ``no_vector``.
        """
        outcomes: list[Outcome | None] = [None] * len(items)
        # A group's completions ask the same: each question is computed once.
        asked: dict[tuple[str, TaskKind], dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, item in enumerate(items):
            found = self._find(item)
            if isinstance(found, NotApplicable):
                outcomes[position] = found
            else:
                asked[found[0]][found[1:]].append(position)
        for key, positions_of in asked.items():
            pairs = np.array(list(positions_of), np.int64)
            rows = Rows(pairs[:, 0], pairs[:, 1], np.zeros(len(pairs), np.int8))
            for pair, belief in zip(positions_of, self._models[key].beliefs(rows), strict=True):
                evidence = self._explain(key, *pair, belief) if with_evidence else ()
                for position in positions_of[pair]:
                    outcomes[position] = score_by_belief(belief, items[position].answer, evidence, {})
        return [outcome for outcome in outcomes if outcome is not None]

    def fold(self, task: Task) -> int:
        """The fold of training perturbations that the answer is made without; −1 for none, or for no answer."""
        found = self._find(Item(task))
        return -1 if isinstance(found, NotApplicable) else int(self._models[found[0]].fold[found[1]])

    def canary(self) -> tuple[Item, Outcome]:
        """The first two genes of the table in the first line, with the belief that the build computed."""
        key = self._lines[0], TaskKind.DIFFERENTIAL_EXPRESSION
        item = Item(DifferentialExpression(self._symbols[0], self._symbols[1], key[0]), answer=True)
        return item, score_by_belief(self._canary_belief, True, self._explain(key, 0, 1, self._canary_belief), {})

    def _find(self, item: Item) -> tuple[tuple[str, TaskKind], int, int] | NotApplicable:
        task = item.task
        if not isinstance(task, DifferentialExpression | DirectionOfChange):
            refusal = unsupported_task(task, KINDS)
            assert refusal is not None
            return refusal
        line = canonical_cell_line(task.cell_line)
        if (line, task.kind) not in self._models:
            return NotApplicable("unknown_cell_line", f"{task.cell_line} is not one of {', '.join(self._lines)}.")
        rows = self._resolver.rows(
            task.genes,
            self._row,
            lambda symbol: NotApplicable("no_vector", f"{symbol} has no vector ({self._vector_name})."),
        )
        if isinstance(rows, NotApplicable):
            return rows
        return (line, task.kind), rows[0], rows[1]

    def _explain(self, key: tuple[str, TaskKind], perturbation: int, gene: int, belief: float) -> tuple[Evidence, ...]:
        line, kind = key
        is_direction = kind is TaskKind.DIRECTION_OF_CHANGE
        text = f"p({'increase' if is_direction else 'yes'}) = {belief:.2f}; "
        model = self._models[key]
        alike = model.neighbours[int(model.fold[perturbation])].nearest(perturbation, gene, ANALOGIES)
        measured = self._symbols[gene]
        if alike:
            names = [self._symbols[one] for one, _, _ in alike]
            named = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
            low, high = (f"{cosine:.2f}".replace("0.", ".", 1) for cosine in (alike[-1][1], alike[0][1]))
            span = high if low == high else f"{low}–{high}"
            verb = "increased" if is_direction else "responded"
            count = sum(label for _, _, label in alike)
            text += f"{named} (cosine {span}): {measured} {verb} in {count} of {len(alike)}"
        else:
            text += f"{measured} was not measured under any other perturbation; genes like it were"
        text += f" ({CELL_LINE_NAMES[line]}, {self._vector_name})"
        if self._simulated:
            text = f"{text} ({SIMULATED_REMARK})"
        return (Evidence(text, source=self._vector_name, simulated=self._simulated),)


def open_verifier(store: ArtifactStore) -> Analogy:
    """Open the artifacts ``genes`` and ``analogy``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    parameters = artifact.manifest.parameters
    weights, folds = parameters["weights"], parameters["folds"]
    assert isinstance(weights, dict)
    assert isinstance(folds, int)
    unit = unit_vectors(np.load(artifact.path / VECTORS_FILE, allow_pickle=False))
    components = leading_components(unit)
    table = read_served(artifact, ROWS_FILE)
    line, kind = table.numbers("line"), table.numbers("kind")
    perturbation, gene = (table.numbers(name).astype(np.int64) for name in ("perturbation", "measured_gene"))
    every = Rows(perturbation, gene, table.numbers("label"))
    solved = np.stack([table.numbers(solved_column(one)) for one in (*range(folds), -1)])
    models = {}
    for line_number, one_line in enumerate(CELL_LINES):
        for kind_number, one_kind in enumerate(KINDS):
            chosen = (line == line_number) & (kind == kind_number)
            rows = every.where(chosen)
            models[one_line, one_kind] = LineModel(
                rows,
                folds_of(rows, folds, len(unit)),
                unit,
                components,
                solved[:, chosen],
                [
                    lightgbm.Booster(model_file=artifact.path / trees_file(one_line, one_kind, number))
                    for number in range(folds)
                ],
                [float(number) for number in weights[f"{one_line}.{one_kind}"].split()],
            )
    return Analogy(
        resolver,
        read_served(artifact, SYMBOLS_FILE).strings("symbol"),
        models,
        vector_name=str(parameters["vectors"]),
        canary_belief=float(str(parameters["canary_belief"])),
        artifacts=(artifact.identity, genes.identity),
        simulated=artifact.manifest.simulated,
    )
