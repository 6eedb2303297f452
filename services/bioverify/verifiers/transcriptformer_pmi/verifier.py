"""Single-cell PMI: do the two genes go together more often than by chance?

A memory-mapped gene × gene matrix of pointwise mutual information, in half precision: a batch is one gather, worker
processes share its pages. The two-piece scaling turns a value into a belief. rbio fills the matrix from
TranscriptFormer's gene logits; the artifact says what it was filled from, and so does every sentence of evidence.

Source: rbio's public development history for the scaling, and for asking it about knockdowns as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome
from bioverify.core.tasks import CoExpression, DifferentialExpression, TaskKind
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads, refuse, score_by_belief, spread
from bioverify.verifiers.transcriptformer_pmi.artifact import (
    FACTORS_FILE,
    MATRIX_FILE,
    NAME,
    PARTNERS_AUC,
    SCALING_FILE,
    SYMBOLS_FILE,
    WORTH_ASKING,
)
from bioverify.verifiers.transcriptformer_pmi.factors import Factors
from bioverify.verifiers.transcriptformer_pmi.scaling import Scaling

_KINDS = (TaskKind.CO_EXPRESSION, TaskKind.DIFFERENTIAL_EXPRESSION)
_SUMMARIES = {
    "pmi": "Pointwise mutual information of the two genes in single cells",
    "npmi": "Normalised pointwise mutual information of the two genes in single cells",
    "correlation": "Whether the two genes are expressed in the same tissues",
}
_UNITS = {
    "pmi": "Pointwise mutual information in nats.",
    "npmi": "Normalised pointwise mutual information, from −1 to 1.",
    "correlation": "Correlation over tissues, from −1 to 1.",
}


class TranscriptFormerPmi:
    """Belief from the scaled PMI of the two genes; symmetric in them."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        matrix: npt.NDArray[np.float16] | Factors,
        scaling: Scaling,
        *,
        origin: str,
        measure: str = "pmi",
        partners_auc: float | None = None,
        artifacts: tuple[ArtifactIdentity, ...] = (),
    ) -> None:
        """``matrix``: len(symbols) × len(symbols), symmetric, nats (npmi, correlation: −1 to 1).

        ``origin``: what it comes from. ``partners_auc``: how well it tells known partners, if checked.
        """
        self._resolver = resolver
        self._symbols = symbols
        self._row = {symbol: row for row, symbol in enumerate(symbols)}
        self._matrix = matrix
        self._scaling = scaling
        self._origin, self._measure = origin, measure
        is_weak = partners_auc is not None and partners_auc < WORTH_ASKING
        self._remark = f"; hardly worth asking: AUC {partners_auc:.2f} for known partners" if is_weak else ""
        self.description = Description(
            name=NAME,
            version="3",
            summary=f"{_SUMMARIES[measure]} ({origin}{self._remark}).",
            task_kinds=_KINDS,
            reads=self.reads,
            holds_belief=True,
            components={
                "pmi": _UNITS[measure],
                "percentile": "Share of gene pairs with a lower value, in percent.",
                "no_answer.*": "1 if the completion holds no answer, with the reason in the name.",
            },
            artifacts=artifacts,
        )

    def beliefs(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Beliefs in "yes" of many pairs of genes, given by their rows in the matrix."""
        return self._scaling.beliefs(self._matrix[first, second].astype(np.float64))

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: the belief in "yes" for the answer yes, its complement for no.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``gene_not_in_matrix``, ``same_gene``.
        """
        found = [self._find(item) for item in items]
        pairs = np.array([pair for pair in found if not isinstance(pair, NotApplicable)], np.int64).reshape(-1, 2)
        pmi = self._matrix[pairs[:, 0], pairs[:, 1]].astype(np.float64)
        rows = zip(
            pmi.tolist(),
            self._scaling.beliefs(pmi).tolist(),
            self._scaling.percentiles(pmi).tolist(),
            strict=True,
        )
        outcomes: list[Outcome] = []
        for item, pair in zip(items, found, strict=True):
            if isinstance(pair, NotApplicable):
                outcomes.append(pair)
                continue
            value, belief, percentile = next(rows)
            evidence = self._evidence(value, percentile) if with_evidence else ()
            components = {"pmi": value, "percentile": percentile}
            outcomes.append(score_by_belief(belief, item.answer, evidence, components))
        return outcomes

    def canary(self) -> tuple[Item, Outcome]:
        """The first two genes of the matrix, answered with "yes"; the value computed by hand."""
        value = float(self._matrix[np.array([0]), np.array([1])][0])
        scaling = self._scaling
        clamped = min(max(value, 0.0), scaling.maximum)
        if clamped < scaling.cutoff:
            belief = 0.5 * clamped / scaling.cutoff
        else:
            belief = 0.5 + 0.5 * (clamped - scaling.cutoff) / (scaling.maximum - scaling.cutoff)
        percentile = float(scaling.percentiles(np.array([value]))[0])
        item = Item(CoExpression(self._symbols[0], self._symbols[1]), answer=True)
        components = {"pmi": value, "percentile": percentile}
        return item, score_by_belief(belief, True, self._evidence(value, percentile), components)

    def canary_items(self) -> list[Item]:
        """Pairs of genes from all over the matrix."""
        rows = spread(64, len(self._symbols))
        pairs = zip(rows, [*rows[1:], *rows[:1]], strict=True)
        return [Item(CoExpression(self._symbols[row], self._symbols[other]), answer=True) for row, other in pairs]

    def _evidence(self, value: float, percentile: float) -> tuple[Evidence, ...]:
        shown = f"{value:.1f}" if self._measure == "pmi" else f"{value:.2f}"
        name = self._measure if self._measure == "correlation" else self._measure.upper()
        text = f"{name} {shown}, {_ordinal(percentile)} percentile of pairs ({self._origin}{self._remark})"
        return (Evidence(text, source=self._origin),)

    def _find(self, item: Item) -> tuple[int, int] | NotApplicable:
        task = item.task
        if not isinstance(task, CoExpression | DifferentialExpression):
            return refuse(task, _KINDS)
        rows = self._resolver.rows(
            task.genes,
            self._row,
            lambda symbol: NotApplicable(
                "gene_not_in_matrix",
                f"{symbol} is not among the {len(self._symbols):,} genes of the matrix ({self._origin}).",
            ),
        )
        if isinstance(rows, NotApplicable):
            return rows
        if rows[0] == rows[1]:
            return NotApplicable("same_gene", f"{task.genes[0]} and {task.genes[1]} are one gene.")
        return rows[0], rows[1]


def _ordinal(percentile: float) -> str:
    shown = f"{percentile:.1f}"
    suffix = {"1": "st", "2": "nd", "3": "rd"}.get(shown[-1], "th")
    return shown + suffix


def open_verifier(store: ArtifactStore) -> TranscriptFormerPmi:
    """Open the artifacts ``genes`` and ``transcriptformer_pmi``; ArtifactError says what mends them."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    parameters = artifact.manifest.parameters
    cutoff, maximum, origin = parameters["cutoff"], parameters["maximum"], parameters["origin"]
    measure = parameters.get("measure", "pmi")
    assert isinstance(cutoff, float)
    assert isinstance(maximum, float)
    assert isinstance(origin, str)
    assert isinstance(measure, str)
    scaling = Scaling(cutoff, maximum, np.load(artifact.path / SCALING_FILE, allow_pickle=False))
    at_percentiles = {f"pmi_at_percentile_{percent}": value for percent, value in scaling.spread()}
    matrix = replace(artifact.identity, figures={**artifact.identity.figures, **at_percentiles})
    return TranscriptFormerPmi(
        resolver,
        read_served(artifact, SYMBOLS_FILE).strings("symbol"),
        _open_matrix(artifact.path, measure),
        scaling,
        origin=origin,
        measure=measure,
        partners_auc=artifact.manifest.quality.get(PARTNERS_AUC),
        artifacts=(matrix, genes.identity),
    )


def _open_matrix(folder: Path, measure: str) -> npt.NDArray[np.float16] | Factors:
    if measure == "correlation":
        return Factors(np.load(folder / FACTORS_FILE, allow_pickle=False))
    return np.asarray(np.load(folder / MATRIX_FILE, mmap_mode="r", allow_pickle=False))
