"""The quality benchmark: baselines equal to the figures published with the task, parts that resume, a control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import _kept, _start, collect, figures_of, markdown, measure, training_alone
from benchmarks.quality_models import Inputs, as_written, trivial
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.sources import Sources
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.esm_mlp.build import Table
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors
from bioverify.verifiers.esm_mlp.settings import Settings
from bioverify.verifiers.esm_mlp.train import Rows, Vectors

N_PERTURBATIONS, N_MEASURED = 90, 40


def test_the_trivial_baselines_have_their_known_figures(real_sources: Sources) -> None:
    kind = TaskKind.DIFFERENTIAL_EXPRESSION
    table = as_written(read_tables(real_sources, progress=lambda _said: None).rows)
    known = zip((0.614, 0.566, 0.620, 0.618), (0.761, 0.839, 0.799, 0.816), (0.725, 0.812, 0.766, 0.786), strict=True)
    for line, (auc, f1, mcc) in zip(CELL_LINES, known, strict=True):
        asked = table.of(line, kind, "test")
        found = trivial(Inputs(table, table, np.zeros((0, 0), np.float32), line, kind, 0, Settings()))
        figures = {name: figures_of(asked, scores) for name, scores in found.items()}
        assert figures["rate in other lines (loose)"]["auc"] == pytest.approx(auc, abs=0.005)
        assert figures["gene base rate"]["auc"] == 0.5
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


def test_parts_are_measured_once_and_make_a_table(screen: tuple[Table, Vectors], tmp_path: Path) -> None:
    table, vectors = screen
    _start(table, table, GeneVectors("families", [], vectors), Settings())
    setup = {"vectors": {}, "settings": Settings().model_dump(mode="json")}
    jobs = [(part, "direction", "k562", seed) for part in ("mlp", "analogy") for seed in (0, 1)]
    jobs += [(part, "direction", "k562", 0) for part in ("trivial", "shuffled", "strict", "loose")]
    for job in jobs:
        measure(job, tmp_path, setup)
    report = collect(tmp_path, setup, jobs)
    one = report["models"]["consensus"]["direction"]["k562"]
    assert [figures["auc"] > 0.8 for figures in one] == [True, True]
    assert sum(point["rows"] for point in one[0]["reliability"]) == len(table.of("k562", _kind(), "test"))
    assert abs(report["models"]["neighbours, shuffled vectors"]["direction"]["k562"][0]["auc"] - 0.5) < 0.2
    written = markdown(report["models"])
    assert "| *wanted* | .73 .70 .73 .69 | .87 .78 .80 .82 |" in written
    assert "| consensus, Brier score | – | ." in written
    assert _kept(tmp_path, setup, jobs[0]) != _kept(
        tmp_path, {**setup, "settings": Settings(go_dimensions=8).model_dump(mode="json")}, jobs[0]
    )


def _kind() -> TaskKind:
    return TaskKind.DIRECTION_OF_CHANGE


def test_a_choice_is_measured_on_training_perturbations_and_no_test_row_is_left(screen: tuple[Table, Vectors]) -> None:
    table, _ = screen
    alone = training_alone(table)
    assert len(alone.rows) == int((table.split == "train").sum())
    tested = set(table.rows.perturbation[table.split == "test"])
    assert not tested & set(alone.rows.perturbation)
    for line in CELL_LINES[:2]:
        asked = set(alone.of(line, _kind(), "test").perturbation)
        assert asked == set(np.unique(table.of(line, _kind(), "train").perturbation)[::5])
        assert not asked & set(alone.of(line, _kind(), "train").perturbation)
