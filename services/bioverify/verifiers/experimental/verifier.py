"""Experimental lookup: did the screen see this gene respond?

The artifact holds, per screen and cell line, the measured pairs as sorted numbers and their responses. A batch becomes
one array of numbers per line and one binary search per screen (`screen`), so nothing is loaded or copied, and worker
processes share the pages.

A pair without a row is not said to be unmeasured: PerturbQA holds out its test pairs and leaves out pairs that it could
not judge, and neither can be told from pairs that nobody looked at.

If several screens measured a pair in a line, each is named in the evidence. If they contradict each other, there
is no label: to vote would be to invent an experiment. A pair that only other lines measured is not applicable, and the
detail says what they saw; an artifact built with ``other_lines: belief`` gives the mean, over these lines, of the share
of pairs that respond here given the label there, and marks it so.

Source of labels: PerturbQA (Wu et al., ICLR 2025), training split unless it was built otherwise; your own screens; or a
simulated screen, which every sentence of evidence then says.
"""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.responses import (
    CHANGED,
    CONTRADICTED,
    DECREASED,
    DIRECTION_CONTRADICTED,
    INCREASED,
    NOT_MEASURED,
    UNCHANGED,
)
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.cell_lines import line_name
from bioverify.core.genes import GeneResolver
from bioverify.core.knockdowns import asked_of, gene_name
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind
from bioverify.core.verdicts import OTHER_LINES
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads, score_by_belief, spread
from bioverify.verifiers.experimental.artifact import (
    GENE_SETS,
    KINDS,
    NAME,
    PERTURBQA,
    SCREENS_FILE,
    SYMBOLS_FILE,
    contradictions_file,
    pairs_file,
    responses_file,
)
from bioverify.verifiers.experimental.screen import KNOCKDOWN, Int8s, Int64s, Screen, combine

Finding = tuple[Screen, int]
"""A screen that measured the pair, and the response that it saw."""

Agreement = Mapping[TaskKind, tuple[float, float]]
"""Per kind of question the share of "yes" in a line if another line says yes, and if it says no."""

_DIRECTION_WORDS = {INCREASED: "increased", DECREASED: "decreased"}
_CHANGES = (INCREASED, DECREASED, CHANGED, DIRECTION_CONTRADICTED)


class ExperimentalLookup:
    """Belief 1 if the screens agree with "yes" (or "increase"), 0 if they do not."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        screens: Sequence[Screen],
        *,
        gene_sets: Sequence[str] = (),
        has_test_rows: bool = False,
        agreement: Agreement | None = None,
        artifacts: tuple[ArtifactIdentity, ...] = (),
    ) -> None:
        """``symbols``: what the pairs of ``screens`` number. ``gene_sets``: those that are no genes.

        ``has_test_rows``: whether the screens hold more than their training rows.
        ``agreement``: None if other lines are only told of.
        """
        self._resolver = resolver
        self._symbols = symbols
        self._index = {symbol: position for position, symbol in enumerate(symbols)}
        self._gene_sets = set(gene_sets)
        self._has_test_rows = has_test_rows
        self._screens: dict[str, list[Screen]] = {screen.line: [] for screen in screens}
        self._not_knockdowns = [screen for screen in screens if screen.kind != KNOCKDOWN]
        for screen in screens:
            if screen.kind == KNOCKDOWN:
                self._screens[screen.line].append(screen)
        self._agreement = agreement
        provenance = "; ".join(dict.fromkeys(screen.provenance for screen in screens))
        self.description = Description(
            name=NAME,
            version="3",
            summary=f"What was measured ({provenance}): does the gene respond to the knockdown, and how?",
            task_kinds=KINDS,
            reads=self.reads,
            holds_belief=True,
            components={
                OTHER_LINES: "Number of other lines that the belief comes from, if the line itself has none.",
                "no_answer.*": "1 if the completion holds no answer, with the reason in the name.",
            },
            artifacts=artifacts,
        )

    def responses(self, line: str, perturbations: Int64s, measured_genes: Int64s) -> Int8s:
        """What the line's screens say of many pairs, by the positions of their symbols; the codes are `screen`'s.

        For whole tables: 3.8 million pairs/s on one core against a screen of 100 million (docs/artifacts.md).
        """
        pairs = perturbations.astype(np.int64) * len(self._symbols) + measured_genes
        return combine([screen.find(pairs) for screen in self._screens[line]])

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: 1.0 if the answer agrees with the measurement, else 0.0.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``unknown_cell_line``, ``pair_not_measured``,
        ``screens_contradict``, ``rows_contradict`` within one screen, ``no_change_measured`` for the direction of a
        change that was not seen, ``direction_not_measured``, and ``not_a_knockdown`` for a pair that was measured
        under another kind of perturbation.
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
            pairs = np.array([pair for _, pair in lookups], np.int64)
            findings = self._findings(line, pairs)
            unmeasured = [row for row, own in enumerate(findings) if not own]
            elsewhere = self._elsewhere(line, pairs, unmeasured)
            for row, (position, pair) in enumerate(lookups):
                item = items[position]
                if findings[row]:
                    outcomes[position] = self._judge(item, line, pair, findings[row], with_evidence)
                else:
                    outcomes[position] = self._judge_elsewhere(item, line, pair, elsewhere.get(row, {}), with_evidence)
        return [outcome for outcome in outcomes if outcome is not None]

    def canary(self) -> tuple[Item, Outcome]:
        """The first pair of the first screen on which the line's screens do not contradict each other, with "yes"."""
        for screens in self._screens.values():
            for pair in screens[0].pairs[:1000].tolist() if screens else ():
                findings = []
                for screen in screens:
                    at = bisect.bisect_left(screen.pairs, pair)
                    if at < len(screen.pairs) and screen.pairs[at] == pair:
                        findings.append((screen, int(screen.responses[at])))
                perturbation, measured = divmod(pair, len(self._symbols))
                line = screens[0].line
                item = Item(
                    DifferentialExpression(self._symbols[perturbation], self._symbols[measured], line), answer=True
                )
                outcome = self._judge(item, line, pair, findings, with_evidence=True)
                if not isinstance(outcome, NotApplicable):
                    return item, outcome
        raise AssertionError("an artifact holds a measured pair")

    def canary_items(self) -> list[Item]:
        """Pairs from all over every screen, with "yes" and "no" by turns."""
        items = []
        for screen in (screen for screens in self._screens.values() for screen in screens):
            for number, at in enumerate(spread(16, len(screen.pairs))):
                perturbation, measured = divmod(int(screen.pairs[at]), len(self._symbols))
                task = DifferentialExpression(self._symbols[perturbation], self._symbols[measured], screen.line)
                items.append(Item(task, answer=number % 2 == 0))
        return items

    def _find(self, item: Item) -> tuple[str, int] | NotApplicable:
        """The cell line and the number of the pair; −1 if a gene is in no screen."""
        asked = asked_of(item.task, self._screens)
        if isinstance(asked, NotApplicable):
            return asked
        task, line = asked
        perturbation = self._resolver.resolve(task.perturbation)
        if isinstance(perturbation, NotApplicable):
            return perturbation
        is_gene_set = task.measured_gene in self._gene_sets
        measured = task.measured_gene if is_gene_set else self._resolver.resolve(task.measured_gene)
        if isinstance(measured, NotApplicable):
            return measured
        if perturbation not in self._index or measured not in self._index:
            return line, -1
        return line, self._index[perturbation] * len(self._symbols) + self._index[measured]

    def _findings(self, line: str, pairs: Int64s) -> list[list[Finding]]:
        """Per pair the line's screens that measured it, and what each saw."""
        findings: list[list[Finding]] = [[] for _ in pairs]
        for screen in self._screens[line]:
            for own, response in zip(findings, screen.find(pairs).tolist(), strict=True):
                if response != NOT_MEASURED:
                    own.append((screen, response))
        return findings

    def _elsewhere(self, line: str, pairs: Int64s, rows: Sequence[int]) -> dict[int, dict[str, list[Finding]]]:
        """Row → other line → what its screens saw."""
        found: dict[int, dict[str, list[Finding]]] = defaultdict(dict)
        if not rows:
            return found
        for other in self._screens:
            if other != line:
                for row, findings in zip(rows, self._findings(other, pairs[rows]), strict=True):
                    if findings:
                        found[row][other] = findings
        return found

    def _under_another_kind(self, line: str, pair: int) -> list[Screen]:
        wanted = np.array([pair], np.int64)
        return [
            screen for screen in self._not_knockdowns if screen.line == line and screen.find(wanted)[0] != NOT_MEASURED
        ]

    def _judge(self, item: Item, line: str, pair: int, findings: Sequence[Finding], with_evidence: bool) -> Outcome:
        task = item.task
        assert isinstance(task, DifferentialExpression | DirectionOfChange)
        told = f"{task.measured_gene} under knockdown of {task.perturbation}"
        belief = _belief(task, response := _together(findings))
        if belief is None:
            seen = "; ".join(f"{_finding(task, pair, *one)} ({one[0].provenance})" for one in findings)
            contradict = "screens_contradict" if len(findings) > 1 else "rows_contradict"
            reason = {
                CONTRADICTED: contradict,
                DIRECTION_CONTRADICTED: contradict,
                UNCHANGED: "no_change_measured",
                CHANGED: "direction_not_measured",
            }[response]
            return NotApplicable(reason, f"{line_name(line)}: {told}: {seen}.")
        evidence = tuple(self._evidence(task, line, pair, *one) for one in findings) if with_evidence else ()
        return score_by_belief(belief, item.answer, evidence, {})

    def _judge_elsewhere(
        self,
        item: Item,
        line: str,
        pair: int,
        elsewhere: Mapping[str, Sequence[Finding]],
        with_evidence: bool,
    ) -> Outcome:
        """Of a pair that the line's own screens did not measure."""
        task = item.task
        assert isinstance(task, DifferentialExpression | DirectionOfChange)
        labels = {other: _belief(task, _together(findings)) for other, findings in elsewhere.items()}
        shares = self._agreement[task.kind] if self._agreement else None
        beliefs = [shares[0] if label else shares[1] for label in labels.values() if label is not None and shares]
        if not beliefs:
            other_kinds = self._under_another_kind(line, pair)
            if other_kinds:
                kinds = " and ".join(dict.fromkeys(screen.kind for screen in other_kinds))
                named = "; ".join(dict.fromkeys(screen.provenance for screen in other_kinds))
                return NotApplicable(
                    "not_a_knockdown",
                    f"{line_name(line)}: {task.measured_gene} was measured under {kinds} of {task.perturbation}, not "
                    f"a knockdown ({named}).",
                )
            is_gene_set = task.measured_gene in self._gene_sets
            asked = [screen for screen in self._screens[line] if is_gene_set == (screen.name == GENE_SETS)]
            absent = "; ".join(dict.fromkeys(self._absence(screen) for screen in asked or self._screens[line]))
            absent = absent or "no screen of knockdowns"
            seen = "; ".join(
                f"{line_name(other)}: {_finding(task, pair, screen, response)} ({screen.provenance})"
                for other, findings in elsewhere.items()
                for screen, response in findings
            )
            return NotApplicable(
                "pair_not_measured",
                f"{line_name(line)}: {task.measured_gene} under knockdown of {task.perturbation}: {absent}."
                + (f" In other lines, which is no label here: {seen}." if seen else ""),
            )
        evidence: tuple[Evidence, ...] = ()
        if with_evidence:
            told = [
                self._evidence(task, other, pair, *one)
                for other, label in labels.items()
                if label is not None
                for one in elsewhere[other]
            ]
            evidence = tuple(
                Evidence(
                    f"No row of {line_name(line)}, from another line: {one.text}",
                    source=one.source,
                    simulated=one.simulated,
                )
                for one in told
            )
        return score_by_belief(sum(beliefs) / len(beliefs), item.answer, evidence, {OTHER_LINES: float(len(beliefs))})

    def _absence(self, screen: Screen) -> str:
        """What a pair that has no row in the screen can be said to be."""
        if screen.name in {PERTURBQA, GENE_SETS}:
            tables = "PerturbQA" if screen.name == PERTURBQA else "PerturbQA's gene sets"
            if self._has_test_rows:
                return f"no row in {tables} (left out by PerturbQA)"
            part = "PerturbQA's training split" if screen.name == PERTURBQA else f"the training split of {tables}"
            return f"no row in {part} (held out, or left out by PerturbQA)"
        kind = "row" if self._has_test_rows else "training row"
        return f"no {kind} in {'the ' if screen.simulated else ''}{screen.provenance}"

    def _evidence(
        self,
        task: DifferentialExpression | DirectionOfChange,
        line: str,
        pair: int,
        screen: Screen,
        response: int,
    ) -> Evidence:
        genes = [self._symbols[index] for index in divmod(pair, len(self._symbols))]
        knocked_down, measured = map(gene_name, task.genes, genes)
        text = (
            f"{line_name(line)}: {knocked_down} knocked down, {measured} measured, "
            f"{_finding(task, pair, screen, response)} ({screen.provenance})"
        )
        return Evidence(text, source=screen.provenance, simulated=screen.simulated)


def _together(findings: Sequence[Finding]) -> int:
    if len(findings) == 1:
        return findings[0][1]
    return int(combine([np.array([response], np.int8) for _, response in findings])[0])


def _belief(task: DifferentialExpression | DirectionOfChange, response: int) -> float | None:
    """1 for yes (or increase), 0 for no (or decrease), None if the response does not say."""
    if isinstance(task, DirectionOfChange):
        return {INCREASED: 1.0, DECREASED: 0.0}.get(response)
    return {**dict.fromkeys(_CHANGES, 1.0), UNCHANGED: 0.0}.get(response)


def _finding(task: DifferentialExpression | DirectionOfChange, pair: int, screen: Screen, response: int) -> str:
    is_about_direction = isinstance(task, DirectionOfChange)
    if response == CONTRADICTED or (response == DIRECTION_CONTRADICTED and is_about_direction):
        return f"rows contradict ({screen.contradiction(pair)})"
    if is_about_direction:
        if response in _DIRECTION_WORDS:
            return _DIRECTION_WORDS[response]
        return "no change" if response == UNCHANGED else "a change of unknown direction"
    return "not differentially expressed" if response == UNCHANGED else "differentially expressed"


def open_verifier(store: ArtifactStore) -> ExperimentalLookup:
    """Open the artifacts ``genes`` and ``experimental``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    table = read_served(artifact, SYMBOLS_FILE)
    symbols = table.strings("symbol")
    entries = json.loads((artifact.path / SCREENS_FILE).read_bytes())
    if any(contradictions_file(one["screen"], one["line"]) not in artifact.manifest.files for one in entries):
        raise ArtifactError(f"artifact {NAME}: another version of bioverify made it. Run: bioverify data build {NAME}")
    screens = [
        Screen(
            entry["line"],
            entry["provenance"],
            _map(artifact.path / pairs_file(entry["screen"], entry["line"])),
            _map(artifact.path / responses_file(entry["screen"], entry["line"])),
            entry["simulated"],
            name=entry["screen"],
            kind=entry["kind"],
            contradictions=_map(artifact.path / contradictions_file(entry["screen"], entry["line"])),
        )
        for entry in entries
    ]
    agreement = None
    if artifact.manifest.parameters["other_lines"] == "belief":
        quality = artifact.manifest.quality
        agreement = {kind: (quality[f"{kind}.yes_if_yes"], quality[f"{kind}.yes_if_no"]) for kind in KINDS}
    return ExperimentalLookup(
        resolver,
        symbols,
        screens,
        gene_sets=[symbols[row] for row in np.flatnonzero(table.numbers("is_gene_set"))],
        has_test_rows=artifact.manifest.parameters["splits"] == "all",
        agreement=agreement,
        artifacts=(artifact.identity, genes.identity),
    )


def _map(path: Path) -> np.ndarray:
    # As a plain array: np.memmap's own indexing costs three times as much.
    mapped: np.ndarray = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return mapped
