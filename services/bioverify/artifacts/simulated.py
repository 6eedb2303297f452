"""A made-up screen for machines without PerturbQA and without a network, so that everything can be tried.

Nothing in it was measured, and everything that is built from it says so. Real names are used: genes that were detected
in the bundled blood cells and have Gene Ontology annotations, and those of the examples in our documents and pages. A
knockdown of p changes g if

    z = gene(g) + perturbation(p) + affinity(p, g) + noise

is among the highest 14 %: gene and perturbation are normal effects, affinity is the weight of the terms that the two
genes share (a term counts log(genes / annotated genes)), standardised. The sign follows the gene and the shared terms.
Each line keeps 90 % of the common labels and draws the others again, so two lines agree on about 95 %; each measures
40 % of the pairs, and its test perturbations are disjoint from its training perturbations. The generator is seeded and
reads bundled files only: the screen is the same everywhere.

The pairs of the examples are measured in every line, as training rows. Their labels are drawn like all others, so they
need not be what an experiment says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bioverify.artifacts.arrow import read_parquet
from bioverify.artifacts.screens import screen_rows
from bioverify.artifacts.sources import BLOOD_CELLS, GO_ANNOTATIONS
from bioverify.artifacts.store import SourceRecord
from bioverify.core.tasks import TaskKind

SEED = 20250818
EXAMPLE_PERTURBATIONS, EXAMPLE_GENES = ("AARS1", "EIF2B4"), ("ASNS", "DDIT3", "TRIB3")
"""What documents, pages and examples/ ask the screen about."""
N_PERTURBATIONS, N_MEASURED_GENES = 300, 200
RESPONSE_SHARE = 0.14
KEPT_SHARE = 0.9
MEASURED_SHARE = 0.4
TEST_SHARE = 0.15

RECORD = SourceRecord(
    name="simulated screen",
    kind="generated",
    location=f"bioverify.artifacts.simulated, seed {SEED}",
    url="",
    sha256="",
    license="Apache-2.0",
)

Matrix = npt.NDArray[np.float64]


def simulate_screen(bundled: Path, lines: Sequence[str]) -> pa.Table:
    """Rows of all lines in the form of `screen_rows`, about 110,000 with four lines."""
    random = np.random.default_rng(SEED)
    terms_of = _annotated_genes(bundled)
    others = random.permutation(sorted(terms_of.keys() - {*EXAMPLE_PERTURBATIONS, *EXAMPLE_GENES})).tolist()
    n_others = N_PERTURBATIONS - len(EXAMPLE_PERTURBATIONS)
    perturbations = sorted([*EXAMPLE_PERTURBATIONS, *others[:n_others]])
    genes = sorted([*EXAMPLE_GENES, *others[n_others:][: N_MEASURED_GENES - len(EXAMPLE_GENES)]])
    shape = (len(perturbations), len(genes))
    is_example_perturbation = np.isin(perturbations, EXAMPLE_PERTURBATIONS)
    is_example = np.outer(is_example_perturbation, np.isin(genes, EXAMPLE_GENES))

    affinity = _affinity(perturbations, genes, terms_of)
    z = (
        random.standard_normal(len(genes))[None, :]
        + 0.7 * random.standard_normal(len(perturbations))[:, None]
        + 1.5 * affinity
        + 0.5 * random.standard_normal(shape)
    )
    responds = z > np.quantile(z, 1.0 - RESPONSE_SHARE)
    signed = random.standard_normal(len(genes))[None, :] - 0.5 * affinity + 0.5 * random.standard_normal(shape)
    increases = signed > 0.0

    tables = []
    for line in lines:
        is_redrawn = random.random(shape) > KEPT_SHARE
        line_responds = np.where(is_redrawn, random.random(shape) < RESPONSE_SHARE, responds)
        is_measured = (random.random(shape) < MEASURED_SHARE) | is_example
        is_test = (random.random(len(perturbations)) < TEST_SHARE) & ~is_example_perturbation
        for kind, measured, labels in (
            (TaskKind.DIFFERENTIAL_EXPRESSION, is_measured, line_responds),
            (TaskKind.DIRECTION_OF_CHANGE, is_measured & line_responds, increases),
        ):
            rows, columns = np.nonzero(measured)
            tables.append(
                screen_rows(
                    line,
                    kind,
                    perturbation=_column([perturbations[row] for row in rows]),
                    measured_gene=_column([genes[column] for column in columns]),
                    label=pa.chunked_array([pa.array(labels[rows, columns].astype(np.int8))]),
                    split=_column(np.where(is_test[rows], "test", "train").tolist()),
                )
            )
    return pa.concat_tables(tables).unify_dictionaries()


def _column(values: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def _annotated_genes(bundled: Path) -> dict[str, set[int]]:
    """Term numbers of the genes that the bundled cells express, and of those of the examples."""
    expressed = set(read_parquet(bundled / BLOOD_CELLS.bundled)["symbol"].to_pylist())
    expressed.update(EXAMPLE_PERTURBATIONS, EXAMPLE_GENES)
    annotated = read_parquet(bundled / GO_ANNOTATIONS.bundled).to_pydict()
    return {
        symbol: set(terms)
        for symbol, terms in zip(annotated["symbol"], annotated["terms"], strict=True)
        if symbol in expressed
    }


def _affinity(perturbations: Sequence[str], genes: Sequence[str], terms_of: dict[str, set[int]]) -> Matrix:
    """Weight of shared terms, perturbations × genes, with mean 0 and variance 1."""
    numbers = sorted(set().union(*terms_of.values()))
    column = {number: index for index, number in enumerate(numbers)}

    def indicator(symbols: Sequence[str]) -> Matrix:
        matrix = np.zeros((len(symbols), len(numbers)))
        for row, symbol in enumerate(symbols):
            matrix[row, [column[number] for number in terms_of[symbol]]] = 1.0
        return matrix

    n_annotated = indicator(list(terms_of)).sum(axis=0)
    weight = np.log(len(terms_of) / n_annotated)
    shared = (indicator(perturbations) * weight) @ indicator(genes).T
    logged = np.log1p(shared)
    standardised: Matrix = (logged - logged.mean()) / logged.std()
    return standardised
