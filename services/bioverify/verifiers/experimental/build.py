"""Makes the ``experimental`` artifact: per screen and cell line one sorted array of measured pairs and their responses.

Screens are PerturbQA's (genes, and gene sets in K562) and any of your own (`bioverify.artifacts.own_screens`). Symbols
become current ones first (`labels`). Rows of one screen that agree are merged, those that contradict each other are
kept as such, with their numbers. What two screens say of one pair is kept apart, so that evidence can name both. For
beliefs from other lines, the share of pairs that respond here is counted among those that respond in another line, and
among those that do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens.settings import OwnScreen
from bioverify.artifacts.own_screens.tally import Dropped
from bioverify.artifacts.perturbqa import Screens, read_gene_sets, read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.responses import (
    CHANGED,
    CONTRADICTED,
    DECREASED,
    DIRECTION_CONTRADICTED,
    INCREASED,
    UNCHANGED,
)
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.core.outcomes import SIMULATED_REMARK
from bioverify.core.tasks import TaskKind
from bioverify.core.verifier import canaries_of
from bioverify.verifiers.experimental.artifact import (
    GENE_SETS,
    KINDS,
    NAME,
    SCREENS_FILE,
    SYMBOLS_FILE,
    contradictions_file,
    pairs_file,
    responses_file,
)
from bioverify.verifiers.experimental.labels import Measured, PerturbqaRows, Source, measure, open_own
from bioverify.verifiers.experimental.screen import KNOCKDOWN, Int8s, Screen
from bioverify.verifiers.experimental.verifier import open_verifier


class Settings(BaseModel):
    """How the artifact is made. The default never reads a test label, so that no reward leaks one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    splits: Literal["train", "all"] = "train"
    other_lines: Literal["detail", "belief"] = "detail"
    """What a pair measured in other lines alone gives: not applicable with a remark, or a belief marked as such."""
    perturbqa: bool = True
    screens: tuple[OwnScreen, ...] = ()

    @model_validator(mode="after")
    def _screens_are_told_apart(self) -> Self:
        names = ["perturbqa", GENE_SETS, "simulated", *(screen.name for screen in self.screens)]
        if len(set(names)) < len(names):
            raise ValueError(f"two screens share a name: {', '.join(names)}")
        return self


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    settings: Settings = Settings(),  # noqa: B008  frozen
) -> Manifest:
    """Make the artifact. Raises ArtifactError for a screen that cannot be read, or settings that name none."""
    resolver, genes = open_genes(store)
    read = list(_read(sources, settings, progress))
    if not read:
        raise ArtifactError("artifact experimental: no screen. Name one in the settings, or leave perturbqa true")
    if all(source.kind != KNOCKDOWN for source in read):
        raise ArtifactError(
            f"artifact experimental: no screen of knockdowns ({', '.join(f'{one.name}: {one.kind}' for one in read)}), "
            f"so no question could be answered"
        )
    measured = measure(read, resolver, splits=settings.splits, progress=progress)
    quality = _agreement_of_lines([screen for _, screen in measured.screens])
    if settings.other_lines == "belief" and len(quality) < 2 * len(KINDS):
        raise ArtifactError(
            "artifact experimental: other_lines: belief needs pairs that two lines measured, for both kinds of "
            "question, to learn how far lines agree. Write other_lines: detail"
        )
    is_simulated = any(source.simulated for source in read)
    with store.building(NAME) as folder:
        is_set = np.isin(measured.symbols, list(measured.gene_sets)).astype(np.int8)
        write_served(pa.table({"symbol": measured.symbols, "is_gene_set": is_set}), folder.path / SYMBOLS_FILE)
        entries = []
        for name, screen in measured.screens:
            line = screen.line
            np.save(folder.path / pairs_file(name, line), screen.pairs, allow_pickle=False)
            np.save(folder.path / responses_file(name, line), screen.responses, allow_pickle=False)
            np.save(folder.path / contradictions_file(name, line), screen.contradictions, allow_pickle=False)
            entries.append(
                {
                    "screen": name,
                    "line": line,
                    "provenance": screen.provenance,
                    "simulated": screen.simulated,
                    "kind": screen.kind,
                }
            )
        (folder.path / SCREENS_FILE).write_text(json.dumps(entries, indent=1) + "\n")
        return folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description="Measured responses to knockdowns: "
            + ("simulated screen, not an experiment." if is_simulated else f"{', '.join(one.name for one in read)}."),
            license="; ".join(dict.fromkeys(source.license for source in read)),
            sources=[record for source in read for record in source.records],
            simulated=is_simulated,
            inputs=[genes],
            parameters={
                "splits": settings.splits,
                "other_lines": settings.other_lines,
                "thresholds": {
                    own.name: f"adjusted p ≤ {own.max_adjusted_p:g}, |change| ≥ {own.min_abs_log_fold_change:g}"
                    for own in settings.screens
                    if not own.columns.label
                },
                "kinds": {own.name: own.kind for own in settings.screens},
                "rows": {tally.screen: tally.summary for tally in measured.tallies},
            },
            counts=_counts(measured),
            coverage=_coverage(measured),
            quality=quality,
        )


def _read(sources: Sources, settings: Settings, progress: Callable[[str], None]) -> Iterator[Source]:
    if settings.perturbqa:
        screens = read_tables(sources, progress=progress)
        if screens.simulated:
            yield _of_perturbqa("simulated", screens, SIMULATED_REMARK)
        else:
            splits = "train" if settings.splits == "train" else "train and test"
            yield _of_perturbqa("perturbqa", screens, f"PerturbQA {splits}")
            gene_sets = read_gene_sets(sources, progress=progress)
            if gene_sets is not None:
                yield _of_perturbqa(GENE_SETS, gene_sets, f"PerturbQA gene sets {splits}")
    for own in settings.screens:
        progress(f"experimental: reading {own.file} ({own.name})")
        yield open_own(own)


def _of_perturbqa(name: str, read: Screens, provenance: str) -> Source:
    rows = PerturbqaRows(read.rows)
    return Source(name, rows, provenance, read.license, read.records, read.simulated, gene_sets=name == GENE_SETS)


def _counts(measured: Measured) -> dict[str, int]:
    counts = {"symbols": len(measured.symbols), "unresolved_symbols": len(_unresolved(measured))}
    counts["contradicting_pairs"] = sum(tally.n_contradicting for tally in measured.tallies)
    for name, screen in measured.screens:
        counts[f"{name}.{screen.line}.pairs"] = len(screen.pairs)
        counts[f"{name}.{screen.line}.responding"] = int(
            np.count_nonzero(np.isin(screen.responses, (DECREASED, INCREASED, CHANGED, DIRECTION_CONTRADICTED)))
        )
    for tally in measured.tallies:
        counts |= tally.counts
    return counts


def _coverage(measured: Measured) -> dict[str, float]:
    n_symbols, n_unresolved = len(measured.symbols), len(_unresolved(measured))
    return {"resolved_symbols": n_symbols / (n_symbols + n_unresolved) if n_symbols else 0.0}


def _unresolved(measured: Measured) -> set[str]:
    causes = (Dropped.UNKNOWN, Dropped.AMBIGUOUS, Dropped.DATE, Dropped.SEVERAL)
    return {name for tally in measured.tallies for cause in causes for name in tally.names.get(cause, ())}


def _agreement_of_lines(screens: list[Screen]) -> dict[str, float]:
    """``<kind>.yes_if_yes`` and ``<kind>.yes_if_no``: shares of "yes" here, given the label in one other line."""
    asked: dict[TaskKind, tuple[list[Int8s], list[Int8s]]] = {kind: ([], []) for kind in KINDS}
    for here, there in permutations(screens, 2):
        if here.line == there.line or not here.kind == there.kind == KNOCKDOWN:
            continue
        _, at_here, at_there = np.intersect1d(here.pairs, there.pairs, assume_unique=True, return_indices=True)
        own, other = here.responses[at_here], there.responses[at_there]
        says = (own != CONTRADICTED) & (other != CONTRADICTED)
        own, other = own[says], other[says]
        asked[TaskKind.DIFFERENTIAL_EXPRESSION][0].append((own != UNCHANGED).astype(np.int8))
        asked[TaskKind.DIFFERENTIAL_EXPRESSION][1].append((other != UNCHANGED).astype(np.int8))
        both_directed = np.isin(own, (INCREASED, DECREASED)) & np.isin(other, (INCREASED, DECREASED))
        asked[TaskKind.DIRECTION_OF_CHANGE][0].append((own[both_directed] == INCREASED).astype(np.int8))
        asked[TaskKind.DIRECTION_OF_CHANGE][1].append((other[both_directed] == INCREASED).astype(np.int8))
    shares = {}
    for kind, (own_labels, other_labels) in asked.items():
        if not own_labels:
            continue
        own, other = np.concatenate(own_labels), np.concatenate(other_labels)
        for word, label in (("yes", 1), ("no", 0)):
            if np.any(other == label):
                shares[f"{kind}.yes_if_{word}"] = round(float(own[other == label].mean()), 4)
    return shares
