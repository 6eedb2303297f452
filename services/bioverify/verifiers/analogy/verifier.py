"""Analogy: under the perturbations most similar to this one, how did this gene respond?

Neighbour scores over perturbed and measured genes (``neighbours.py``), boosted trees over them (``model.py``), a
calibrated belief. The evidence is what a biologist would ask for: which perturbations are most alike, how alike, and in
how many of them the gene responded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import lightgbm
import numpy as np

from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.genes import GeneResolver
from bioverify.core.knockdowns import COMPONENTS, KINDS, KnockdownModels, Question
from bioverify.core.outcomes import Outcome
from bioverify.core.tasks import Task, TaskKind
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads
from bioverify.verifiers.analogy.artifact import (
    MEMBERS_FILE,
    NAME,
    ROWS_FILE,
    SETS_FILE,
    SYMBOLS_FILE,
    TESTED_FILE,
    VECTORS_FILE,
    others_of,
    solved_column,
    trees_file,
)
from bioverify.verifiers.analogy.gene_sets import GeneSets
from bioverify.verifiers.analogy.kept import Kept, Rows
from bioverify.verifiers.analogy.model import LineModel, folds_of
from bioverify.verifiers.analogy.neighbours import leading_components, unit_vectors

KEPT_BYTES = 32 * 2**20
"""Of profiles of genes and perturbations: some 450 of either."""
_NAMED = 3


class Analogy:
    """Soft belief for differential expression, and for its direction."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        models: Mapping[tuple[str, TaskKind], LineModel],
        gene_sets: GeneSets,
        *,
        vector_name: str,
        similar: float,
        scores_base_rate: bool,
        canary_belief: float,
        artifacts: tuple[ArtifactIdentity, ...] = (),
        simulated: bool = False,
    ) -> None:
        """``models``: by cell line and kind of question. ``canary_belief``: of `canary_pair`, from the build.

        ``similar``: the least cosine of what is called similar.
        """
        self._models = KnockdownModels(
            resolver,
            symbols,
            models,
            vector_name=vector_name,
            own_lines=True,
            scores_base_rate=scores_base_rate,
            simulated=simulated,
        )
        self._symbols, self._line_models, self._gene_sets = symbols, models, gene_sets
        self._vector_name, self._similar, self._canary_belief = vector_name, similar, canary_belief
        self.description = Description(
            name=NAME,
            version="5",
            summary=f"How the gene responded under the most similar perturbations (likeness by {vector_name}).",
            task_kinds=KINDS,
            reads=self.reads,
            holds_belief=True,
            components=COMPONENTS,
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: belief in "yes" (or "increase"), its complement for the other answer.

        Not applicable: `KnockdownModels.score`.
        """
        return self._models.score(items, self._explain, with_evidence=with_evidence)

    def fold(self, task: Task) -> int:
        """The fold of training perturbations that the answer is made without; −1 for none, or for no answer."""
        return self._models.fold(task)

    def canary(self) -> tuple[Item, Outcome]:
        """A pair in the first line, with the belief that the build computed."""
        return self._models.canary(self._canary_belief, self._explain)

    def canary_items(self) -> list[Item]:
        return self._models.canary_items()

    def _explain(self, question: Question, belief: float, usual: float) -> str:
        gene = self._symbols[question.gene]
        told = self._line_models[question.line, question.kind].neighbours.analogues(
            question.perturbation, question.gene
        )
        text = ""
        n_similar = sum(cosine >= self._similar for cosine in told.cosines)
        if n_similar:
            names = ", ".join(self._symbols[row] for row in told.perturbations[: min(n_similar, _NAMED)])
            more = f" and {n_similar - _NAMED} more" if n_similar > _NAMED else ""
            low, high = _cosine(told.cosines[n_similar - 1]), _cosine(told.cosines[0])
            text += f"; similar: {names}{more} (cosine {high if low == high else f'{low}–{high}'})"
            text += self._in_common(question.perturbation, told.perturbations[: min(n_similar, _NAMED)])
            verb = "increased" if question.kind is TaskKind.DIRECTION_OF_CHANGE else "responded"
            text += f"; {gene} {verb} in {told.share:.0%} of all perturbations, weighted by likeness"
            if _is_opposite(belief, told.share, usual):
                text += f", which alone would say {'less' if told.share < belief else 'more'}: the trees and kriging"
                text += " over all genes outweigh it"
        elif told.cosines:
            nearest, cosine = self._symbols[told.perturbations[0]], _cosine(told.cosines[0])
            text += (
                f"; no close analogue (nearest: {nearest}, cosine {cosine}), judged by all perturbations and by genes"
            )
            text += f" like {gene}"
        else:
            text = f"; judged by genes like {gene}"
        return f"{text} ({self._vector_name})"

    def _in_common(self, perturbation: int, others: Sequence[int]) -> str:
        """Of the named analogues: which complexes and processes they share with the perturbation."""
        shared = self._gene_sets.shared(perturbation, others)
        told = (f"{name} with {', '.join(self._symbols[one] for one in own)}" for name, own in shared.items())
        return f"; {self._symbols[perturbation]} shares {' and '.join(told)}" if shared else ""


def _cosine(cosine: float) -> str:
    return f"{cosine:.2f}".replace("0.", ".", 1)


def _is_opposite(belief: float, share: float, usual: float) -> bool:
    """Whether the two stand on different sides of the usual rate or of one half, to the digits that are shown."""
    shown = round(belief, 2), round(share, 2)
    return any((shown[0] - middle) * (shown[1] - middle) < 0 for middle in (round(usual, 2), 0.5))


def open_verifier(store: ArtifactStore) -> Analogy:
    """Open the artifacts ``genes`` and ``analogy``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    parameters = artifact.manifest.parameters
    weights, folds = parameters["weights"], parameters["folds"]
    kept = Kept(KEPT_BYTES)
    assert isinstance(weights, dict)
    assert isinstance(folds, int)
    unit = unit_vectors(np.load(artifact.path / VECTORS_FILE, allow_pickle=False))
    components = leading_components(unit)
    table = read_served(artifact, ROWS_FILE)
    line, kind = table.numbers("line"), table.numbers("kind")
    perturbation, gene = (table.numbers(name).astype(np.int64) for name in ("perturbation", "measured_gene"))
    every = Rows(perturbation, gene, table.numbers("label"))
    solved = np.stack([table.numbers(solved_column(one)) for one in (*range(folds), -1)])
    held_out = read_served(artifact, TESTED_FILE)
    tested_line, tested = held_out.numbers("line"), held_out.numbers("perturbation").astype(np.int64)
    models = {}
    for line_index, one_line in enumerate(CELL_LINES):
        for kind_number, one_kind in enumerate(KINDS):
            chosen = (line == line_index) & (kind == kind_number)
            rows = every.where(chosen)
            of_kind = kind == kind_number
            models[one_line, one_kind] = LineModel(
                rows,
                folds_of(rows, folds, len(unit)),
                unit,
                components,
                solved[:, chosen],
                [
                    lightgbm.Booster(model_file=artifact.path / trees_file(one_line, one_kind, number))
                    for number in range(2 * folds)
                ],
                kept,
                others_of(line_index, line[of_kind], every.where(of_kind), tested[tested_line == line_index]),
                [float(number) for number in weights[f"{one_line}.{one_kind}"].split()],
            )
    return Analogy(
        resolver,
        read_served(artifact, SYMBOLS_FILE).strings("symbol"),
        models,
        GeneSets(read_served(artifact, SETS_FILE).strings("name"), *read_served(artifact, MEMBERS_FILE).lists("sets")),
        vector_name=str(parameters["vectors"]),
        similar=float(str(artifact.parameter("similar"))),
        scores_base_rate=artifact.parameter("base_rate") == "score",
        canary_belief=float(str(parameters["canary_belief"])),
        artifacts=(artifact.identity, genes.identity),
        simulated=artifact.manifest.simulated,
    )
