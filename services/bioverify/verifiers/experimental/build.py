"""Makes the ``experimental`` artifact: per screen and cell line one sorted array of measured pairs and their responses.

Screens are PerturbQA's (genes, and gene sets in K562) and any of your own (`bioverify.artifacts.own_screens`). Symbols
become current ones first. Two old symbols may then name one gene: rows of one screen that agree are merged, those that
contradict each other are dropped and counted. What two screens say of one pair is kept apart, so that evidence can name
both. For beliefs from other lines, the share of pairs that respond here is counted among those that respond in another
line, and among those that do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, model_validator

from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens import OwnScreen, read_own_screen
from bioverify.artifacts.perturbqa import Screens, read_gene_sets, read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import SIMULATED_REMARK
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.experimental.artifact import (
    GENE_SETS,
    KINDS,
    NAME,
    SCREENS_FILE,
    SYMBOLS_FILE,
    pairs_file,
    responses_file,
)
from bioverify.verifiers.experimental.screen import (
    CHANGED,
    DECREASED,
    INCREASED,
    UNCHANGED,
    Int8s,
    Int64s,
    Screen,
)


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
    read = {name: (one, provenance) for name, one, provenance in _read(sources, settings, progress)}
    if not read:
        raise ArtifactError("artifact experimental: no screen. Name one in the settings, or leave perturbqa true")
    rows = {name: one.rows for name, (one, _) in read.items()}
    if settings.splits == "train":
        rows = {name: table.filter(pc.equal(table["split"], "train")) for name, table in rows.items()}
    gene_sets = (
        set(pc.unique(rows["perturbqa-sets"]["measured_gene"]).to_pylist()) if "perturbqa-sets" in rows else set()
    )
    current, unresolved = _current_symbols(list(rows.values()), resolver, gene_sets)
    symbols = sorted(set(current.values()) - gene_sets) + sorted(gene_sets)
    index = {symbol: position for position, symbol in enumerate(symbols)}
    counts = {"symbols": len(symbols), "unresolved_symbols": len(unresolved), "contradicting_pairs": 0}
    is_simulated = any(one.simulated for one, _ in read.values())

    with store.building(NAME) as folder:
        is_set = np.isin(symbols, list(gene_sets)).astype(np.int8)
        write_served(pa.table({"symbol": symbols, "is_gene_set": is_set}), folder.path / SYMBOLS_FILE)
        screens = []
        entries = []
        for name, (one, provenance) in read.items():
            for line in pc.unique(rows[name]["line"]).to_pylist():
                pairs, responses, n_contradicting = _one_line(rows[name], line, current, index)
                np.save(folder.path / pairs_file(name, line), pairs, allow_pickle=False)
                np.save(folder.path / responses_file(name, line), responses, allow_pickle=False)
                screens.append(Screen(line, provenance, pairs, responses, one.simulated))
                entries.append({"screen": name, "line": line, "provenance": provenance, "simulated": one.simulated})
                counts[f"{name}.{line}.pairs"] = len(pairs)
                counts[f"{name}.{line}.responding"] = int(np.count_nonzero(responses))
                counts["contradicting_pairs"] += n_contradicting
                progress(f"experimental: {name} {line}, {len(pairs):,} measured pairs")
        (folder.path / SCREENS_FILE).write_text(json.dumps(entries, indent=1) + "\n")
        quality = _agreement_of_lines(screens)
        if settings.other_lines == "belief" and len(quality) < 2 * len(KINDS):
            raise ArtifactError(
                "artifact experimental: other_lines: belief needs pairs that two lines measured, for both kinds of "
                "question, to learn how far lines agree. Write other_lines: detail"
            )
        return folder.commit(
            description="Measured responses to knockdowns: "
            + ("simulated screen, not an experiment." if is_simulated else f"{', '.join(read)}."),
            license="; ".join(dict.fromkeys(one.license for one, _ in read.values())),
            sources=[record for one, _ in read.values() for record in one.records],
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
            },
            counts=counts,
            coverage={"resolved_symbols": len(current) / (len(current) + len(unresolved)) if current else 0.0},
            quality=quality,
        )


def _read(sources: Sources, settings: Settings, progress: Callable[[str], None]) -> Iterator[tuple[str, Screens, str]]:
    """Name, rows and provenance of each screen."""
    if settings.perturbqa:
        screens = read_tables(sources, progress=progress)
        if screens.simulated:
            yield "simulated", screens, SIMULATED_REMARK
        else:
            splits = "train" if settings.splits == "train" else "train and test"
            yield "perturbqa", screens, f"PerturbQA {splits}"
            gene_sets = read_gene_sets(sources, progress=progress)
            if gene_sets is not None:
                yield GENE_SETS, gene_sets, f"PerturbQA gene sets {splits}"
    for own in settings.screens:
        progress(f"experimental: reading {own.file} ({own.name})")
        rows = read_own_screen(own)
        yield own.name, Screens(rows, simulated=False, license=own.license, records=[own.record]), own.name


def _current_symbols(
    tables: list[pa.Table], resolver: GeneResolver, gene_sets: set[str]
) -> tuple[dict[str, str], set[str]]:
    """Symbol of the source → current symbol (a gene set's name is its own), and those that have none."""
    names: set[str] = set()
    for rows in tables:
        names |= set(pc.unique(rows["perturbation"]).to_pylist()) | set(pc.unique(rows["measured_gene"]).to_pylist())
    resolved = {name: resolver.resolve(name) for name in names - gene_sets}
    current = {name: symbol for name, symbol in resolved.items() if isinstance(symbol, str)}
    return {**current, **{name: name for name in gene_sets}}, resolved.keys() - current.keys()


def _one_line(rows: pa.Table, line: str, current: dict[str, str], index: dict[str, int]) -> tuple[Int64s, Int8s, int]:
    """Sorted pairs, their responses, and how many pairs were dropped for contradicting rows."""
    of_line = rows.filter(pc.equal(rows["line"], line))

    def of_kind(kind: TaskKind) -> tuple[Int64s, Int8s]:
        chosen = of_line.filter(pc.equal(of_line["task_kind"], kind.value))
        perturbation = _indices(chosen["perturbation"], current, index)
        measured = _indices(chosen["measured_gene"], current, index)
        is_known = (perturbation >= 0) & (measured >= 0)
        pairs = perturbation * len(index) + measured
        return pairs[is_known], chosen["label"].to_numpy()[is_known]

    de_pairs, de_labels = of_kind(TaskKind.DIFFERENTIAL_EXPRESSION)
    dir_pairs, dir_labels = of_kind(TaskKind.DIRECTION_OF_CHANGE)
    pairs, de_low, de_high = _range_by_pair(de_pairs, de_labels)
    directed, dir_low, dir_high = _range_by_pair(dir_pairs, dir_labels)

    responses = np.where(de_high == 1, CHANGED, UNCHANGED).astype(np.int8)
    has_direction = np.isin(directed, pairs) & (dir_low == dir_high)
    responses[np.searchsorted(pairs, directed[has_direction])] = np.where(
        dir_low[has_direction] == 1, INCREASED, DECREASED
    )
    agrees = de_low == de_high
    n_contradicting = int(np.count_nonzero(~agrees)) + int(np.count_nonzero(dir_low != dir_high))
    return pairs[agrees], responses[agrees], n_contradicting


def _indices(column: pa.ChunkedArray, current: dict[str, str], index: dict[str, int]) -> Int64s:
    """Index of each row's current symbol, −1 where it has none."""
    encoded = column.combine_chunks()
    names = encoded.dictionary.to_pylist()
    of_name = np.array([index[current[name]] if name in current else -1 for name in names], np.int64)
    chosen: Int64s = of_name[encoded.indices.to_numpy()]
    return chosen


def _range_by_pair(pairs: Int64s, labels: Int8s) -> tuple[Int64s, Int8s, Int8s]:
    """Distinct pairs in order, and the lowest and highest label of each."""
    order = np.lexsort((labels, pairs))
    distinct, first, n_rows = np.unique(pairs[order], return_index=True, return_counts=True)
    ordered = labels[order]
    return distinct, ordered[first], ordered[first + n_rows - 1]


def _agreement_of_lines(screens: list[Screen]) -> dict[str, float]:
    """``<kind>.yes_if_yes`` and ``<kind>.yes_if_no``: shares of "yes" here, given the label in one other line."""
    asked: dict[TaskKind, tuple[list[Int8s], list[Int8s]]] = {kind: ([], []) for kind in KINDS}
    for here, there in permutations(screens, 2):
        if here.line == there.line:
            continue
        _, at_here, at_there = np.intersect1d(here.pairs, there.pairs, assume_unique=True, return_indices=True)
        own, other = here.responses[at_here], there.responses[at_there]
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
