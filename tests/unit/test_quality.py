"""The quality benchmark: baselines equal to the figures published with the task, parts that resume, a control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.quality import (
    BEST,
    DEFAULT,
    Build,
    Cell,
    Prepared,
    collect,
    figures_of,
    measure,
    training_alone,
)
from benchmarks.quality_models import Inputs, as_written, names_of, trivial
from benchmarks.quality_table import calibration_error, markdown, paired, standard_error
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.vectors import Vectors
from bioverify.cli.build_settings import BuildSettings
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.esm_mlp.build import Table
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors
from bioverify.verifiers.esm_mlp.settings import Settings
from bioverify.verifiers.esm_mlp.train import Rows

N_PERTURBATIONS, N_MEASURED = 90, 40
NONE = np.zeros((0, 0), np.float32)


def test_the_trivial_baselines_have_their_known_figures(real_sources: Sources) -> None:
    kind = TaskKind.DIFFERENTIAL_EXPRESSION
    rows = read_tables(real_sources, progress=lambda _said: None).rows
    table = as_written(rows)
    known = zip((0.614, 0.566, 0.620, 0.618), (0.761, 0.839, 0.799, 0.816), (0.725, 0.812, 0.766, 0.786), strict=True)
    for line, (auc, f1, mcc) in zip(CELL_LINES, known, strict=True):
        asked = table.of(line, kind, "test")
        found = trivial(Inputs(table, table, NONE, NONE, line, kind, 0, Settings()))
        figures = {name: figures_of(asked, names_of(rows), scores) for name, scores in found.items()}
        elsewhere = list(figures["rate in other lines (loose)"]["auc_of_gene"].values())
        assert np.mean(elsewhere) == pytest.approx(auc, abs=0.005)
        assert set(figures["gene base rate"]["auc_of_gene"].values()) == {0.5}
        assert figures["gene base rate"]["pooled"]["f1"] == pytest.approx(f1, abs=0.001)
        assert figures["gene base rate"]["pooled"]["mcc"] == pytest.approx(mcc, abs=0.001)
        assert figures["always yes"]["pooled"]["f1"] == pytest.approx(0.245, abs=0.01)


@pytest.fixture(scope="module")
def screen() -> tuple[Table, Vectors]:
    """Perturbations and measured genes of three families each; whether a gene responds depends on the two alone."""
    random = np.random.default_rng(5)
    n_genes = N_PERTURBATIONS + N_MEASURED
    family = np.arange(n_genes) % 3
    vectors = (np.eye(12)[family] * 3 + 0.3 * random.standard_normal((n_genes, 12))).astype(np.float32)
    perturbation, gene = (one.ravel() for one in np.mgrid[0:N_PERTURBATIONS, N_PERTURBATIONS:n_genes])
    label = ((family[perturbation] == family[gene]) ^ (random.random(len(gene)) < 0.1)).astype(np.int8)
    split = np.where(perturbation % 5 == 0, "test", "train")
    line = np.array(CELL_LINES)[perturbation % 2]
    kind = np.full(len(gene), TaskKind.DIRECTION_OF_CHANGE.value)
    return Table(Rows(perturbation, gene, label), line, kind, split), vectors


def test_cells_are_measured_once_and_make_a_table_that_says_what_is_not_run(
    screen: tuple[Table, Vectors], tmp_path: Path
) -> None:
    table, vectors = screen
    names = [f"G{number}" for number in range(len(vectors))]
    genes = GeneVectors("families", names, vectors)
    prepared = Prepared(table, table, names, genes, genes)
    builds = [Build(DEFAULT, {}, BuildSettings()), Build(BEST, {}, BuildSettings(esm_mlp=Settings(go_dimensions=8)))]
    cells = [Cell(part, "direction", "k562", seed, "0") for part in ("mlp", "analogy") for seed in (0, 1)]
    cells += [Cell(part, "direction", "k562", 0, "0") for part in ("trivial", "shuffled", "strict", "loose")]
    for cell in cells:
        measure(builds[0], cell, prepared, tmp_path)
    measure(builds[1], cells[2], prepared, tmp_path)
    report = collect(tmp_path, builds, cells)
    models = report["builds"][DEFAULT]["models"]
    one = models["consensus"]["direction"]["k562"]
    assert [np.mean(list(one[seed]["0"]["auc_of_gene"].values())) > 0.8 for seed in ("0", "1")] == [True, True]
    assert sum(point["rows"] for point in one["0"]["0"]["reliability"]) == len(table.of("k562", _kind(), "test"))
    shuffled = models["neighbours, shuffled vectors"]["direction"]["k562"]["0"]["0"]["auc_of_gene"]
    assert abs(np.mean(list(shuffled.values())) - 0.5) < 0.2
    written = markdown(report["builds"], folds=["0"], seeds=2, test_rows=False)
    assert "no test row read" in written
    assert "CORE-Voting" not in written  # its figure is of test rows
    assert "| consensus, Brier score | not run | ." in written
    # The same vectors and seed: no difference, and none is claimed for what only one of the builds has.
    assert "| best analogy − default analogy | not run | +.000 (.000) not run not run not run |" in written
    assert "best MLP" not in written
    assert "CORE-Voting" in markdown(report["builds"], folds=["test"], seeds=2, test_rows=True)


def _kind() -> TaskKind:
    return TaskKind.DIRECTION_OF_CHANGE


def test_differences_are_of_the_same_genes_seeds_and_folds() -> None:
    def of(**aucs: float) -> dict[str, dict[str, float]]:
        return {"auc_of_gene": aucs}

    ours = {"0": {"0": of(A=0.9, B=0.7, C=0.1), "1": of(A=0.7)}, "1": {"0": of(A=0.9, B=0.9)}}
    other = {"0": {"0": of(A=0.6, B=0.6, D=1.0)}, "1": {"0": of(A=0.6, B=0.6)}}
    found = paired(ours, other)
    assert found == pytest.approx((0.25, standard_error([0.3, 0.2])))
    assert found is not None
    assert found[1] == pytest.approx(0.05)
    assert paired(ours, {"0": {"4": of(A=0.5)}}) is None


def test_calibration_error_is_of_all_folds_together() -> None:
    one = {"reliability": [{"belief": 0.25, "frequency": 0.35, "rows": 10}]}
    other = {"reliability": [{"belief": 0.25, "frequency": 0.15, "rows": 10}]}
    assert calibration_error([one]) == pytest.approx(0.1)
    assert calibration_error([one, other]) == pytest.approx(0.0)


def test_a_choice_is_measured_on_training_perturbations_and_no_test_row_is_left() -> None:
    random = np.random.default_rng(0)
    n_rows = 2_000
    perturbation = [f"P{number}" for number in random.integers(0, 37, n_rows)]
    rows = pa.table(
        {
            "line": pa.array(random.choice(CELL_LINES[:2], n_rows).tolist()).dictionary_encode(),
            "task_kind": pa.array([_kind().value] * n_rows).dictionary_encode(),
            "perturbation": pa.array(perturbation).dictionary_encode(),
            "measured_gene": pa.array([f"M{number}" for number in random.integers(0, 9, n_rows)]).dictionary_encode(),
            "label": pa.array(random.integers(0, 2, n_rows), pa.int8()),
            "split": pa.array(["test" if one in ("P3", "P7") else "train" for one in perturbation]).dictionary_encode(),
        }
    )
    asked: dict[str, set[str]] = {line: set() for line in CELL_LINES[:2]}
    for fold in range(5):
        alone = training_alone(rows, fold)
        assert alone.num_rows == sum(one not in ("P3", "P7") for one in perturbation)
        names, table = names_of(alone), as_written(alone)
        assert not {"P3", "P7"} & set(names)
        for line in CELL_LINES[:2]:
            chosen = {names[code] for code in table.of(line, _kind(), "test").perturbation}
            known = {names[code] for code in table.of(line, _kind(), "train").perturbation}
            assert chosen == set(sorted(chosen | known)[fold::5])
            assert not chosen & known
            assert not chosen & asked[line]
            asked[line] |= chosen
    assert len(asked[CELL_LINES[0]]) == 35
