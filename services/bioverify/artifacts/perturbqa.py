"""The screens: PerturbQA's tables of knockdowns in four cell lines, or a simulated screen if they are not to be had.

PerturbQA (Wu et al., ICLR 2025) has two tables per line with the columns pert, gene, label, split: differential
expression (label 1 = responds) and, for exactly its positive rows, the direction (label 1 = increase). A gene may be
named NA, so no string is read as a missing value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from bioverify.artifacts import simulated
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.screens import screen_rows
from bioverify.artifacts.sources import GENENTECH, PERTURBQA, PERTURBQA_GENE_SETS, LocatedSource, Sources
from bioverify.artifacts.store import SourceRecord
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.tasks import TaskKind

_KIND_OF_FILE = {"de": TaskKind.DIFFERENTIAL_EXPRESSION, "dir": TaskKind.DIRECTION_OF_CHANGE}


@dataclass(frozen=True)
class Screens:
    """``rows`` has the columns line, task_kind, perturbation, measured_gene, label (int8, 0 or 1), split.

    Symbols are as the source writes them. ``simulated``: the rows come from a generator.
    """

    rows: pa.Table
    simulated: bool
    license: str
    records: list[SourceRecord]


def read_tables(sources: Sources, *, progress: Callable[[str], None]) -> Screens:
    """All four lines, both kinds of question, all splits. Falls to the simulated screen if no file is found."""
    located = sources.find_all(list(PERTURBQA.values()))
    if located is None:
        progress("PerturbQA is not to be had (no file, mirror or network): a simulated screen takes its place")
        rows = simulated.simulate_screen(sources.bundled, CELL_LINES)
        return Screens(rows, simulated=True, license="Apache-2.0", records=[simulated.RECORD])
    progress(f"PerturbQA: reading {len(located)} tables ({located[0].kind}). Licence: {GENENTECH}")
    rows = pa.concat_tables([_read_table(source) for source in located]).unify_dictionaries()
    return Screens(rows, simulated=False, license=GENENTECH, records=[source.record for source in located])


def read_gene_sets(sources: Sources, *, progress: Callable[[str], None]) -> Screens | None:
    """Responses of gene sets in K562, in the form of `read_tables`; None if the tables are not to be had.

    A set stands where the measured gene stands elsewhere, under PerturbQA's name for it: a number, a hyphen, and what
    its genes have in common.
    """
    tables = [source for file_name, source in PERTURBQA_GENE_SETS.items() if file_name.endswith(".csv")]
    located = sources.find_all(tables)
    if located is None:
        return None
    progress(f"PerturbQA: reading {len(located)} tables of gene sets ({located[0].kind})")
    rows = pa.concat_tables([_read_table(source) for source in located]).unify_dictionaries()
    return Screens(rows, simulated=False, license=GENENTECH, records=[source.record for source in located])


def _read_table(located: LocatedSource) -> pa.Table:
    line, _, kind = located.source.name.rpartition("/")[2].removesuffix(".csv").partition("-")
    wanted = {"pert": pa.string(), "gene": pa.string(), "label": pa.int8(), "split": pa.string()}
    try:
        table = pacsv.read_csv(
            located.path,
            convert_options=pacsv.ConvertOptions(
                column_types=wanted, include_columns=list(wanted), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ArtifactError(
            f"source {located.source.name}: {located.path} is no table with the columns "
            f"pert, gene, label, split: {error}"
        ) from error
    return screen_rows(
        line.removesuffix("_set"),
        _KIND_OF_FILE[kind],
        perturbation=table["pert"],
        measured_gene=table["gene"],
        label=table["label"],
        split=table["split"],
    )
