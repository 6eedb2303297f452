"""From rows to labels: names become current symbols, rows become pairs, and what is left out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.orthologs import read_orthologs
from bioverify.artifacts.own_screens.naming import MOUSE_SHARE, Named, Names, resolved, share_of_mouse_names
from bioverify.artifacts.own_screens.reading import open_screen
from bioverify.artifacts.own_screens.rows import Block, Rows, is_training_split
from bioverify.artifacts.own_screens.settings import OwnScreen
from bioverify.artifacts.own_screens.tally import Dropped, Tally
from bioverify.artifacts.own_screens.words import is_missing
from bioverify.artifacts.responses import CHANGED, DECREASED, INCREASED, NOT_MEASURED, UNCHANGED
from bioverify.artifacts.store import SourceRecord
from bioverify.core.genes import GeneResolver
from bioverify.core.tasks import TaskKind, canonical_cell_line
from bioverify.verifiers.experimental.collapse import collapse, keys_of
from bioverify.verifiers.experimental.screen import KNOCKDOWN, Int8s, Int64s, Screen

_MOST_LINES = 200


@dataclass(frozen=True)
class Source:
    """A screen as it was read, before its names are resolved. ``own``: the settings of one of your own."""

    name: str
    rows: Rows
    provenance: str
    license: str
    records: Sequence[SourceRecord]
    simulated: bool = False
    gene_sets: bool = False
    """Whether what stands in the place of measured genes are gene sets, which have names of their own."""
    own: OwnScreen | None = None

    @property
    def kind(self) -> str:
        return self.own.kind if self.own else KNOCKDOWN


@dataclass
class Measured:
    """``symbols``: what the pairs number, gene sets last. ``screens``: by name of the source."""

    symbols: list[str]
    gene_sets: set[str]
    screens: list[tuple[str, Screen]] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)


def open_own(screen: OwnScreen) -> Source:
    """Raises ArtifactError for a file that cannot be read, or whose genes are another species'."""
    rows = open_screen(screen)
    share = share_of_mouse_names([*rows.perturbations, *rows.measured_genes])
    if screen.species is None and share >= MOUSE_SHARE:
        raise screen.refuse(
            f"names genes as the mouse's are written ({share:.0%} of the names). Write species: mouse and orthologs: "
            f"FILE (mouse name, human name), or species: human if they are human"
        )
    return Source(screen.name, rows, screen.name, screen.license, [screen.record], own=screen)


def measure(
    sources: Sequence[Source], resolver: GeneResolver, *, splits: str, progress: Callable[[str], None]
) -> Measured:
    """Raises ArtifactError for a screen of which no pair is left."""
    named = [_named(source, resolver) for source in sources]
    sets = {one.symbol for source, (_, genes) in zip(sources, named, strict=True) if source.gene_sets for one in genes}
    symbols = {one.symbol for names in named for axis in names for one in axis if one.symbol} - sets
    measured = Measured([*sorted(symbols), *sorted(sets)], sets)
    index = {symbol: position for position, symbol in enumerate(measured.symbols)}
    for source, (perturbations, genes) in zip(sources, named, strict=True):
        tally = Tally(source.name)
        if source.own is not None:
            progress(f"experimental: {source.name}: {', '.join(f'{of}: {it}' for of, it in source.rows.taken.items())}")
        of_line = _keys(source, perturbations, genes, index, tally, splits)
        if not any(map(len, of_line.values())):
            raise ArtifactError(f"screen {source.name}: no pair is left. {tally.summary}")
        for line in list(of_line):
            # PerturbQA's directions are of its positive rows, and a held-out row may not be told by its direction.
            pairs, responses, contradictions = collapse(
                np.concatenate(of_line.pop(line)), need_undirected=source.own is None
            )
            if not len(pairs):
                continue
            tally.n_contradicting += len(contradictions)
            screen = Screen(
                line,
                source.provenance,
                pairs,
                responses,
                source.simulated,
                name=source.name,
                kind=source.kind,
                contradictions=contradictions,
            )
            measured.screens.append((source.name, screen))
            progress(f"experimental: {source.name} {line}, {len(pairs):,} measured pairs")
        measured.tallies.append(tally)
        progress(f"experimental: {source.name}: {tally.summary}")
        for remark in source.rows.remarks:
            progress(f"experimental: {source.name}: {remark}")
        for warning in tally.warnings():
            progress(f"WARNING: {warning}")
    return measured


def _named(source: Source, resolver: GeneResolver) -> tuple[list[Named], list[Named]]:
    """What the perturbations and the measured genes stand for."""
    rows, own = source.rows, source.own
    if own is None:
        of_perturbations = resolver.of_column(rows.perturbations)
        perturbations = [resolved(name, of_perturbations) for name in rows.perturbations]
        if source.gene_sets:
            return perturbations, [Named(name) for name in rows.measured_genes]
        of_genes = resolver.of_column(rows.measured_genes)
        return perturbations, [resolved(name, of_genes) for name in rows.measured_genes]
    orthologs = read_orthologs(own.orthologs) if own.orthologs else None
    names = Names(resolver, frozenset(own.controls), orthologs, any_case=own.species == "human")
    others = frozenset(rows.measured_genes)
    guides, transcripts = (names.of_column(column) for column in (rows.perturbations, rows.measured_genes))
    return (
        [guides.perturbation(name) for name in rows.perturbations],
        [transcripts.measured_gene(name, others) for name in rows.measured_genes],
    )


def _keys(
    source: Source,
    perturbations: Sequence[Named],
    genes: Sequence[Named],
    index: Mapping[str, int],
    tally: Tally,
    splits: str,
) -> dict[str, list[Int64s]]:
    """Per line the keys of its rows, as `collapse` wants them. Fills the tally."""
    rows = source.rows
    axes = [_Axis.of(rows.perturbations, perturbations, index), _Axis.of(rows.measured_genes, genes, index)]
    counted: list[Counter[int]] = [Counter(), Counter()]
    held_out: Counter[int] = Counter()
    keys: dict[str, list[Int64s]] = {}
    lines = _lines(source)
    is_line = np.array([bool(line) for line in lines], np.bool_)
    is_train = np.array([splits == "all" or is_training_split(one) for one in rows.splits], np.bool_)
    n_empty = 0
    for block in rows.blocks():
        tally.n_rows += len(block.response)
        kept = is_train[block.split]
        held_out.update(_bincount(block.split[~kept]))
        for axis, codes, counter in zip(axes, (block.perturbation, block.measured_gene), counted, strict=True):
            is_lost = kept & axis.is_lost[codes]
            counter.update(_bincount(codes[is_lost]))
            kept &= ~is_lost
        has_line = is_line[block.line]
        tally.drop(Dropped.NO_LINE, "", int(np.count_nonzero(kept & ~has_line)))
        kept &= has_line
        is_empty = kept & (block.response == NOT_MEASURED)
        n_empty += int(np.count_nonzero(is_empty))
        kept &= ~is_empty
        tally.n_used += int(np.count_nonzero(kept))
        pairs = axes[0].index[block.perturbation[kept]] * len(index) + axes[1].index[block.measured_gene[kept]]
        found = keys_of(pairs, block.response[kept])
        of_row = block.line[kept]
        for code, line in enumerate(lines):
            own = found if len(lines) == 1 else found[of_row == code]
            if len(own):
                keys.setdefault(line, []).append(own)
    for code, n in held_out.items():
        tally.drop(Dropped.HELD_OUT, rows.splits[code], n)
    for axis, counter in zip(axes, counted, strict=True):
        for code, n in counter.items():
            one = axis.named[code]
            assert one.why is not None
            tally.drop(one.why, axis.names[code], n, one.remark)
    _drop_empty(tally, n_empty, rows.unread)
    return keys


def _lines(source: Source) -> list[str]:
    """The canonical cell line per code, empty for a missing one. Raises ArtifactError for what cannot be cell lines."""
    written = source.rows.lines
    lines = ["" if is_missing(line) else canonical_cell_line(line) for line in written]
    if len(set(lines)) > _MOST_LINES:
        raise ArtifactError(
            f"screen {source.name}: {len(set(lines)):,} cell lines ({', '.join(written[:3])}, …) in "
            f"{source.rows.taken.get('cell_line')}; is that the right column?"
        )
    return lines


def _drop_empty(tally: Tally, n_empty: int, unread: Counter[str]) -> None:
    """Rows without a number, by the texts that stood there instead."""
    for text, n in unread.most_common():
        told = min(n, n_empty)
        tally.drop(Dropped.NO_NUMBER, text, told)
        n_empty -= told
    tally.drop(Dropped.NO_NUMBER, "", n_empty)


def _bincount(codes: npt.NDArray[np.int32]) -> dict[int, int]:
    counts = np.bincount(codes)
    return {int(code): int(counts[code]) for code in np.flatnonzero(counts)}


@dataclass(frozen=True)
class _Axis:
    names: Sequence[str]
    named: Sequence[Named]
    index: Int64s
    is_lost: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, names: Sequence[str], named: Sequence[Named], index: Mapping[str, int]) -> _Axis:
        of_name = np.array([index[one.symbol] if one.symbol else -1 for one in named], np.int64)
        return cls(names, named, of_name, of_name < 0)


class PerturbqaRows:
    """PerturbQA's two kinds of rows (`bioverify.artifacts.screens`), each as a response."""

    def __init__(self, table: pa.Table) -> None:
        self.unread: Counter[str] = Counter()
        self.remarks: list[str] = []
        self.taken: dict[str, str] = {}
        columns = {name: table[name].combine_chunks() for name in ("perturbation", "measured_gene", "line", "split")}
        names = {name: column.dictionary.to_pylist() for name, column in columns.items()}
        self.perturbations, self.measured_genes = names["perturbation"], names["measured_gene"]
        self.lines, self.splits = names["line"], names["split"]
        is_de = np.asarray(pc.equal(table["task_kind"], TaskKind.DIFFERENTIAL_EXPRESSION.value))
        is_one = table["label"].to_numpy() == 1
        responses: Int8s = np.where(
            is_de, np.where(is_one, CHANGED, UNCHANGED), np.where(is_one, INCREASED, DECREASED)
        ).astype(np.int8)
        perturbation, measured_gene, line, split = (columns[name].indices.to_numpy() for name in columns)
        self._block = Block(perturbation, measured_gene, line, split, responses)

    def blocks(self) -> Iterator[Block]:
        yield self._block
