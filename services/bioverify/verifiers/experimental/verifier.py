"""Experimental lookup: did the screen see this gene respond?

The artifact holds, per cell line, the measured pairs as sorted numbers and their responses (−1 decreased, 0 unchanged,
+1 increased, 2 changed). A batch becomes one array of numbers per line and one binary search in a memory-mapped array,
so the screen is neither loaded nor copied, and worker processes share its pages.

Source of labels: PerturbQA (Wu et al., ICLR 2025), training split unless it was built otherwise; or a simulated screen,
which every sentence of evidence then says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from bioverify.artifacts.genes import open_genes
from bioverify.artifacts.perturbqa import CELL_LINE_NAMES, CELL_LINES, SIMULATED_REMARK
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_table
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind, canonical_cell_line
from bioverify.core.verifier import (
    ArtifactIdentity,
    Description,
    Item,
    Reads,
    score_by_belief,
    unsupported_task,
)
from bioverify.verifiers.experimental.build import (
    DECREASED,
    INCREASED,
    NAME,
    SYMBOLS_FILE,
    UNCHANGED,
    Int8s,
    Int64s,
    pairs_file,
    responses_file,
)

_KINDS = (TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE)
_DIRECTION_WORDS = {INCREASED: "increased", DECREASED: "decreased"}


class ExperimentalLookup:
    """Belief 1 where the screen agrees with "yes" (or "increase"), 0 where it does not."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        screens: Mapping[str, tuple[Int64s, Int8s]],
        *,
        provenance: str,
        artifacts: tuple[ArtifactIdentity, ...] = (),
        simulated: bool = False,
    ) -> None:
        """``screens``: cell line → sorted pairs (perturbation × len(symbols) + measured gene) and their responses."""
        self._resolver = resolver
        self._symbols = symbols
        self._index = {symbol: position for position, symbol in enumerate(symbols)}
        self._screens = screens
        self._provenance = provenance
        self._simulated = simulated
        self.description = Description(
            name=NAME,
            version="1",
            summary=f"What the screen measured ({provenance}): does the gene respond to the knockdown, and how?",
            task_kinds=_KINDS,
            reads=self.reads,
            holds_belief=True,
            components={"no_answer.*": "1 where the completion holds no answer, with the reason in the name."},
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: 1.0 if the answer agrees with the measurement, else 0.0.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``unknown_cell_line``, ``pair_not_measured``, and
        ``no_change_measured`` for the direction of a change that was not seen.
        """
        outcomes: list[Outcome | None] = [None] * len(items)
        asked: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for position, item in enumerate(items):
            found = self._find(item)
            if isinstance(found, NotApplicable):
                outcomes[position] = found
            else:
                line, pair = found
                asked[line].append((position, pair))
        for line, lookups in asked.items():
            responses = self._responses(line, np.array([pair for _, pair in lookups], np.int64))
            for (position, pair), response in zip(lookups, responses, strict=True):
                outcomes[position] = self._judge(items[position], line, pair, response, with_evidence)
        return [outcome for outcome in outcomes if outcome is not None]

    def canary(self) -> tuple[Item, Outcome]:
        """The first measured pair of the first line, answered with "yes"."""
        line, (pairs, responses) = next((line, screen) for line, screen in self._screens.items() if len(screen[0]))
        perturbation, measured = divmod(int(pairs[0]), len(self._symbols))
        task = DifferentialExpression(self._symbols[perturbation], self._symbols[measured], line)
        item = Item(task, answer=True)
        return item, self._judge(item, line, int(pairs[0]), int(responses[0]), with_evidence=True)

    def _find(self, item: Item) -> tuple[str, int] | NotApplicable:
        """The cell line and the number of the pair; −1 where a gene is in no screen."""
        task = item.task
        if not isinstance(task, DifferentialExpression | DirectionOfChange):
            refusal = unsupported_task(task, _KINDS)
            assert refusal is not None
            return refusal
        line = canonical_cell_line(task.cell_line)
        if line not in self._screens:
            return NotApplicable("unknown_cell_line", f"{task.cell_line} is not one of {', '.join(self._screens)}.")
        perturbation = self._resolver.resolve(task.perturbation)
        if isinstance(perturbation, NotApplicable):
            return perturbation
        measured = self._resolver.resolve(task.measured_gene)
        if isinstance(measured, NotApplicable):
            return measured
        if perturbation not in self._index or measured not in self._index:
            return line, -1
        return line, self._index[perturbation] * len(self._symbols) + self._index[measured]

    def _responses(self, line: str, wanted: Int64s) -> list[int | None]:
        """Stored responses, None where a pair was not measured."""
        pairs, responses = self._screens[line]
        if not len(pairs):
            return [None] * len(wanted)
        at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        is_measured = pairs[at] == wanted
        found: list[int] = responses[at].tolist()
        return [response if known else None for response, known in zip(found, is_measured.tolist(), strict=True)]

    def _judge(self, item: Item, line: str, pair: int, response: int | None, with_evidence: bool) -> Outcome:
        task = item.task
        assert isinstance(task, DifferentialExpression | DirectionOfChange)
        line_name = CELL_LINE_NAMES.get(line, line)
        if response is None:
            return NotApplicable(
                "pair_not_measured",
                f"{line_name}: {task.measured_gene} was not measured under knockdown of {task.perturbation} "
                f"({self._provenance}).",
            )
        if isinstance(task, DirectionOfChange) and response not in _DIRECTION_WORDS:
            seen = "no change" if response == UNCHANGED else "a change of unknown direction"
            return NotApplicable(
                "no_change_measured" if response == UNCHANGED else "direction_not_measured",
                f"{line_name}: {seen} of {task.measured_gene} measured under knockdown of {task.perturbation} "
                f"({self._provenance}).",
            )
        if isinstance(task, DirectionOfChange):
            belief, finding = float(response == INCREASED), _DIRECTION_WORDS[response]
        elif response == UNCHANGED:
            belief, finding = 0.0, "not differentially expressed"
        else:
            belief, finding = 1.0, "differentially expressed"
        evidence: tuple[Evidence, ...] = ()
        if with_evidence:
            genes = [self._symbols[index] for index in divmod(pair, len(self._symbols))]
            knocked_down, measured = (
                current if asked == current else f"{current} (asked as {asked})"
                for asked, current in zip(task.genes, genes, strict=True)
            )
            text = f"{line_name}: {knocked_down} knocked down, {measured} measured, {finding} ({self._provenance})"
            evidence = (Evidence(text, source=self._provenance, simulated=self._simulated),)
        return score_by_belief(belief, item.answer, evidence, {})


def open_verifier(store: ArtifactStore) -> ExperimentalLookup:
    """Open the artifacts ``genes`` and ``experimental``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    splits = artifact.manifest.parameters["splits"]
    assert isinstance(splits, list)
    simulated = artifact.manifest.simulated
    return ExperimentalLookup(
        resolver,
        read_table(artifact.path / SYMBOLS_FILE)["symbol"].to_pylist(),
        {
            line: (_map(artifact.path / pairs_file(line)), _map(artifact.path / responses_file(line)))
            for line in CELL_LINES
        },
        provenance=SIMULATED_REMARK if simulated else f"PerturbQA {' and '.join(splits)}",
        artifacts=(artifact.identity, genes.identity),
        simulated=simulated,
    )


def _map(path: Path) -> np.ndarray:
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
