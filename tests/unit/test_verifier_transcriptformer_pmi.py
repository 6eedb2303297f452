"""The PMI's scaling is a law, its matrix symmetric, and its evidence says what it was computed from."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify.artifacts.cells import OwnCells
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.transcriptformer_pmi import build
from bioverify.verifiers.transcriptformer_pmi.empirical import PSEUDO_CELLS, informative_genes, pmi_matrix
from bioverify.verifiers.transcriptformer_pmi.scaling import N_QUANTILES, Scaling, fit_scaling
from bioverify.verifiers.transcriptformer_pmi.verifier import TranscriptFormerPmi, _ordinal, open_verifier
from tests.fixtures.artifacts import data_folder, silent

VALUES = np.random.default_rng(5).normal(0.0, 0.5, 5000).astype(np.float16)
SCALING = fit_scaling([VALUES])


@pytest.fixture(scope="module")
def verifier(bundled_store: ArtifactStore) -> TranscriptFormerPmi:
    return open_verifier(bundled_store)


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5))
def test_beliefs_are_in_range_and_grow_with_pmi(a: float, b: float) -> None:
    low, high = SCALING.beliefs(np.array(sorted((a, b))))
    assert 0.0 <= low <= high <= 1.0
    assert np.diff(SCALING.percentiles(np.array(sorted((a, b))))) >= 0.0


def test_the_two_pieces_meet_at_one_half_at_the_99th_percentile() -> None:
    assert SCALING.cutoff == pytest.approx(np.quantile(VALUES.astype(float), 0.99), abs=1e-3)
    expected = [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    middle = (SCALING.cutoff + SCALING.maximum) / 2
    values = [-1.0, 0.0, SCALING.cutoff / 2, SCALING.cutoff, middle, SCALING.maximum, 9.0]
    assert SCALING.beliefs(np.array(values)).tolist() == pytest.approx(expected)
    assert (SCALING.beliefs(VALUES.astype(float)) > 0.5).mean() == pytest.approx(0.01, abs=0.001)


def test_values_without_a_top_percent_above_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="no top 1 %"):
        fit_scaling([np.zeros(100, np.float16)])


def test_the_matrix_is_the_formula_and_symmetric() -> None:
    detected = np.random.default_rng(1).random((60, 7)) < 0.5
    matrix = pmi_matrix(detected)
    assert (matrix == matrix.T).all()
    n_cells = len(detected)
    together = (detected[:, 2] & detected[:, 5]).sum()
    expected = detected[:, 2].sum() * detected[:, 5].sum() / n_cells
    smoothed = (together + PSEUDO_CELLS * expected / n_cells) / (expected * (1 + PSEUDO_CELLS / n_cells))
    assert float(matrix[2, 5]) == pytest.approx(math.log(smoothed), abs=2e-3)


def test_of_two_columns_of_one_gene_the_more_detected_stays_and_rare_genes_go() -> None:
    detected = np.zeros((20, 4), bool)
    detected[:5, 0] = detected[:9, 1] = detected[:1, 2] = detected[:10, 3] = True
    resolver = GeneResolver({"AARS1": "AARS1", "CD4": "CD4", "CD8A": "CD8A"}, {"AARS": ("AARS1",)})
    symbols, kept = informative_genes(["AARS", "AARS1", "CD4", "CD8A"], detected, resolver, 10)
    assert symbols == ["AARS1", "CD8A"]
    assert kept.sum(axis=0).tolist() == [9, 10]


def test_scores_are_symmetric_in_the_genes(verifier: TranscriptFormerPmi) -> None:
    symbols = np.random.default_rng(2).permutation(verifier._symbols)[:200].tolist()
    pairs = list(zip(symbols[:100], symbols[100:], strict=True))
    one_way = verifier.score([Item(CoExpression(a, b), answer=True) for a, b in pairs])
    other_way = verifier.score([Item(CoExpression(b, a), answer=True) for a, b in pairs])
    assert one_way == other_way


def test_markers_of_one_cell_type_go_together_and_evidence_says_of_which_cells(verifier: TranscriptFormerPmi) -> None:
    together, apart = verifier.score(
        [Item(CoExpression("CD79A", "CD79B"), answer=True), Item(CoExpression("CD79A", "S100A8"), answer=False)]
    )
    assert isinstance(together, Scored)
    assert isinstance(apart, Scored)
    assert together.value > 0.5
    assert apart.value > 0.9
    assert apart.belief == pytest.approx(1.0 - apart.value)
    text = together.evidence[0].text
    assert text.startswith("PMI ")
    assert "percentile of pairs (empirical PMI of 700 peripheral blood cells (PBMC), not TranscriptFormer)" in text


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (CoExpression("CD79A", "CD79A"), "same_gene"),
        (CoExpression("CD79A", "AARS1"), "gene_not_in_matrix"),
        (DifferentialExpression("NOSUCHGENE", "CD79A", "k562"), "unknown_gene"),
        (DirectionOfChange("CD79A", "CD79B", "k562"), "other_task_kind"),
    ],
)
def test_what_the_matrix_does_not_hold_is_not_applicable(
    verifier: TranscriptFormerPmi, task: CoExpression, reason: str
) -> None:
    outcome = verifier.score([Item(task, answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == reason


@pytest.mark.parametrize("pair", [("HBA1", "HBB"), ("CD79A", "AARS"), ("COL1A1", "COL1A2"), ("CD79A", "MT-CO2")])
def test_a_gene_outside_the_matrix_is_told_with_the_number_of_its_genes_and_cells(
    verifier: TranscriptFormerPmi, pair: tuple[str, str]
) -> None:
    outcome = verifier.score([Item(CoExpression(*pair), answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    missing = next(name for name in pair if name != "CD79A").replace("AARS", "AARS1")
    assert outcome.detail == (
        f"{missing} is not among the {len(verifier._symbols)} genes of the matrix "
        "(empirical PMI of 700 peripheral blood cells (PBMC), not TranscriptFormer)."
    )


def test_the_manifest_tells_the_share_of_textbook_pairs_that_the_matrix_knows(
    bundled_store: ArtifactStore, verifier: TranscriptFormerPmi
) -> None:
    answers = verifier.score([Item(CoExpression(*pair), answer=True) for pair in build.TEXTBOOK_PAIRS])
    share = sum(isinstance(answer, Scored) for answer in answers) / len(build.TEXTBOOK_PAIRS)
    assert bundled_store.manifest("transcriptformer_pmi").coverage == {"textbook_pairs": share}
    assert 0 < share < 1


def test_counted_quantiles_are_those_of_numpy_however_the_values_are_cut() -> None:
    expected = np.quantile(VALUES.astype(np.float64), np.linspace(0.0, 1.0, N_QUANTILES))
    parts = fit_scaling([VALUES[:7], VALUES[7:4000].reshape(3, -1), VALUES[4000:]])
    assert np.allclose(parts.quantiles, expected, atol=1e-12)
    assert (parts.cutoff, parts.maximum) == (SCALING.cutoff, SCALING.maximum)


def test_a_matrix_of_both_directions_becomes_their_mean_across_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TILE", 16)
    ratios = np.random.default_rng(3).normal(size=(60, 60)).astype(np.float16)
    rows = np.arange(1, 60, 2)
    out = np.zeros((30, 30), np.float16)
    build.symmetrise(ratios, rows, out)
    chosen = ratios[np.ix_(rows, rows)].astype(np.float64)
    assert np.allclose(out, (chosen + chosen.T) / 2, atol=2e-3)
    assert (out == out.T).all()
    pairs = list(build.distinct_pairs(out))
    assert np.array_equal(np.concatenate([values for *_, values in pairs]), out[np.triu_indices(30, k=1)])


@pytest.mark.parametrize(
    ("pmi", "belief", "shown"),
    [
        (-1.5, 0.0, "PMI -1.5, "),
        (0.0, 0.0, "PMI 0.0, "),
        (0.5, 0.25, "PMI 0.5, "),
        (1.0, 0.5, "PMI 1.0, "),
        (2.0, 0.75, "PMI 2.0, "),
        (3.0, 1.0, "PMI 3.0, "),
        (4.0, 1.0, "PMI 4.0, "),
    ],
)
def test_the_canary_is_what_the_verifier_says_on_either_side_of_the_cutoff(
    pmi: float, belief: float, shown: str
) -> None:
    quantiles = np.linspace(-2.0, 3.0, 101)
    made = TranscriptFormerPmi(
        GeneResolver({"AARS1": "AARS1", "CD4": "CD4"}, {}),
        ["AARS1", "CD4"],
        np.array([[0.0, pmi], [pmi, 0.0]], np.float16),
        Scaling(1.0, 3.0, quantiles),
        origin="made up",
    )
    item, expected = made.canary()
    assert item == Item(CoExpression("AARS1", "CD4"), answer=True)
    assert made.score([item]) == [expected]
    assert isinstance(expected, Scored)
    assert (expected.value, expected.belief) == (belief, belief)
    assert expected.components["pmi"] == pmi
    assert expected.components["percentile"] == pytest.approx(min(100.0, max(0.0, (pmi + 2.0) * 20.0)), abs=1.0)
    [evidence] = expected.evidence
    assert evidence.text.startswith(shown)
    assert evidence.text.endswith(" percentile of pairs (made up)")
    assert evidence.source == "made up"
    [no] = made.score([Item(CoExpression("CD4", "AARS1"), answer=False)], with_evidence=False)
    assert isinstance(no, Scored)
    assert (no.value, no.belief, no.evidence) == (1.0 - belief, belief, ())


@pytest.mark.parametrize(
    ("percentile", "shown"),
    [(0.0, "0.0th"), (1.1, "1.1st"), (52.22, "52.2nd"), (13.3, "13.3rd"), (99.94, "99.9th"), (21.0, "21.0th")],
)
def test_a_percentile_is_an_ordinal_by_its_last_digit(percentile: float, shown: str) -> None:
    assert _ordinal(percentile) == shown


def test_normalised_pmi_lies_between_never_and_always_together() -> None:
    random = np.random.default_rng(4)
    detected = random.random((400, 6)) < 0.3
    detected[:, 1] = detected[:, 0]
    detected[:, 3] = ~detected[:, 2]
    detected[:, 4] = True
    normalised = pmi_matrix(detected, normalised=True).astype(float)
    assert normalised[0, 1] > 0.95
    assert normalised[2, 3] < -0.5
    assert normalised[0, 4] == pytest.approx(0.0, abs=1e-3)
    assert np.abs(normalised).max() <= 1.0
    plain = pmi_matrix(detected).astype(float)
    assert (np.sign(normalised.round(2)) == np.sign(plain.round(2)))[normalised.round(2) != 0].all()


def test_own_cells_are_counted_and_named_in_evidence(
    bundled_store: ArtifactStore, real_sources: Sources, tmp_path: Path
) -> None:
    cells = OwnCells(file=data_folder() / "cells/10x_pbmc68k_reduced.h5ad", name="cells of mine", license="ours")
    shutil.copytree(bundled_store.root / "genes", tmp_path / "genes")
    store = ArtifactStore(tmp_path)
    build.build(
        store, real_sources, progress=silent, settings=build.Settings(measure="npmi", cells=cells, max_genes=5_000)
    )
    own = open_verifier(store)
    outcome = own.score([Item(CoExpression("CD79A", "CD79B"), answer=True)])[0]
    assert isinstance(outcome, Scored)
    assert -1.0 <= outcome.components["pmi"] <= 1.0
    assert outcome.evidence[0].text.startswith("NPMI 0.")
    assert "(empirical NPMI of 700 cells of mine, not TranscriptFormer)" in outcome.evidence[0].text
    item, expected = own.canary()
    assert own.score([item]) == [expected]
