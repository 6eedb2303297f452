"""The PMI's scaling is a law, its matrix symmetric, and its evidence says what it was computed from."""

from __future__ import annotations

import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify.artifacts.cells import OwnCells
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.genes import build as build_genes
from bioverify.artifacts.go import Annotations, Term
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.transcriptformer_pmi import build
from bioverify.verifiers.transcriptformer_pmi.artifact import FACTORS_FILE, MATRIX_FILE, WORTH_ASKING
from bioverify.verifiers.transcriptformer_pmi.empirical import PSEUDO_CELLS, informative_genes, pmi_matrix
from bioverify.verifiers.transcriptformer_pmi.factors import Factors
from bioverify.verifiers.transcriptformer_pmi.partners import LEAST_PAIRS, MOST_MEMBERS, known_partners, partners_auc
from bioverify.verifiers.transcriptformer_pmi.scaling import N_QUANTILES, Scaling, fit_scaling
from bioverify.verifiers.transcriptformer_pmi.tissues import profiles, read_tissues
from bioverify.verifiers.transcriptformer_pmi.verifier import (
    TranscriptFormerPmi,
    _open_matrix,
    _ordinal,
    open_verifier,
)
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


class _Trap:
    def __init__(self, sprung: Path) -> None:
        self._sprung = sprung

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._sprung,)


def test_a_matrix_that_is_a_pickle_is_refused_and_not_opened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for name, measure in ((MATRIX_FILE, "pmi"), (FACTORS_FILE, "correlation")):
        (tmp_path / name).write_bytes(pickle.dumps(_Trap(sprung)))
        with pytest.raises(ValueError, match="pickled"):
            _open_matrix(tmp_path, measure)
        assert not sprung.exists()


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


TISSUES = ("a:liver", "a:lung", "a:heart", "b:liver", "b:brain")


def write_table(path: Path, rows: list[tuple[str, str, list[str]]], tissues: tuple[str, ...] = TISSUES) -> Path:
    lines = [["ensembl_gene_id", "symbol", *tissues], *([ensembl, symbol, *tpm] for ensembl, symbol, tpm in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


def test_a_table_of_tissues_is_read_by_id_then_symbol_and_leaves_out_what_has_no_name_value_or_expression(
    tmp_path: Path,
) -> None:
    resolver = GeneResolver({"AARS1": "AARS1", "CD4": "CD4", "CD8A": "CD8A", "ENSG1": "AARS1"}, {"T4": ("CD4",)})
    rows = [
        ("ENSG1", "OLDNAME", ["1", "2", "3", "4", "5"]),
        ("ENSG2", "T4", ["9", "2", "0", "4", "0"]),
        ("ENSG3", "AARS1", ["7", "7", "7", "7", "9"]),  # a second row of a gene
        ("ENSG4", "NOSUCHGENE", ["1", "2", "3", "4", "5"]),
        ("ENSG5", "CD8A", ["0.9", "0", "0", "0.5", "0"]),
    ]
    read = read_tissues(write_table(tmp_path / "tissues.tsv", rows), resolver)
    assert (read.symbols, read.n_genes, read.n_tissues, read.data_sets) == (["AARS1", "CD4"], 5, 5, ("a", "b"))
    missing = [(ensembl, symbol, ["", *tpm[1:]] if symbol == "T4" else tpm) for ensembl, symbol, tpm in rows]
    with pytest.raises(ArtifactError, match="of 5 genes 1 are known and expressed"):
        read_tissues(write_table(tmp_path / "tissues.tsv", missing), resolver)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found nothing"),
        ("gene\tsymbol\ta:x\ta:y\n", "found gene, symbol, a:x, a:y"),
        ("ensembl_gene_id\tsymbol\tliver\tlung\n", "data set:tissue"),
        ("ensembl_gene_id\tsymbol\ta:x\ta:y\nE\tCD4\t1\n", "line 2: 3 columns, expected 4"),
        ("ensembl_gene_id\tsymbol\ta:x\ta:y\nE\tCD4\t1\thigh\n", "is no number .*'high'"),
        ("ensembl_gene_id\tsymbol\ta:x\ta:y\nE\tCD4\t1\tnan\n", "negative or not finite"),
        ("ensembl_gene_id\tsymbol\ta:x\ta:y\nE\tCD4\t1\t-2\n", "negative or not finite"),
    ],
)
def test_a_table_that_is_none_of_tissues_is_refused_with_what_was_found(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tissues.tsv").write_text(text)
    with pytest.raises(ArtifactError, match=said):
        read_tissues(tmp_path / "tissues.tsv", GeneResolver({"CD4": "CD4"}, {}))


@pytest.mark.parametrize(
    ("name", "content"), [("t.tsv.gz", b"no gzip"), ("t.tsv", b"\xff\xfe"), ("t.tsv.gz", b"\x1f\x8b\x08")]
)
def test_a_table_that_is_no_text_or_was_cut_short_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name}: neither text in UTF-8 nor a whole .gz of it"):
        read_tissues(tmp_path / name, GeneResolver({"CD4": "CD4"}, {}))


def test_the_product_of_two_profiles_is_the_mean_of_the_data_sets_correlations() -> None:
    tpm = np.random.default_rng(3).gamma(1.0, 20.0, (40, 9))
    tpm[:, 4] *= 50.0  # a deep tissue
    sets = [np.arange(9) < 5, np.arange(9) >= 5]
    matrix = Factors(profiles(tpm, sets))
    level = np.log2(tpm + 1.0)
    level -= level.mean(axis=0)
    expected = np.mean([np.corrcoef(level[:, columns]) for columns in sets], axis=0)
    first, second = np.triu_indices(40, 1)
    assert matrix[first, second].astype(float) == pytest.approx(expected[first, second], abs=1e-3)
    assert (matrix[first, second] == matrix[second, first]).all()
    assert matrix[3:5].astype(float) == pytest.approx(expected[3:5], abs=1e-3)
    assert len(matrix) == 40


def test_known_partners_are_those_of_small_complexes_and_random_pairs_have_the_same_genes() -> None:
    n_genes = 400
    genes = {f"G{number}": [number // 4, 200] for number in range(n_genes)}
    terms = [Term(f"GO:{number}", f"complex {number}", "C") for number in range(200)]
    # Of all genes, no small complex; and "cytosol" is no complex.
    terms += [Term("GO:200", "large complex", "C")]
    annotations = Annotations(terms, genes, {}, [])
    symbols = list(genes)
    pairs = known_partners(annotations, symbols)
    assert len(pairs) == 100 * 6 > LEAST_PAIRS
    assert n_genes > MOST_MEMBERS
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert (pairs[:, 0] // 4 == pairs[:, 1] // 4).all()
    assert (
        len(known_partners(Annotations([*terms[:-1], Term("GO:200", "cytosol", "C")], genes, {}, []), symbols)) == 600
    )
    alike = (np.arange(n_genes)[:, None] // 4 == np.arange(n_genes) // 4).astype(np.float16)
    assert partners_auc(alike, pairs) == 1.0
    # One that only knows which genes are in many pairs knows nothing of pairs.
    weight = np.random.default_rng(1).random(n_genes)
    popular = (weight[:, None] + weight).astype(np.float16)
    auc = partners_auc(popular, pairs)
    assert auc is not None
    assert abs(auc - 0.5) < 0.04
    assert partners_auc(alike, pairs[: LEAST_PAIRS - 1]) is None


@pytest.mark.parametrize(("auc", "is_weak"), [(0.52, True), (WORTH_ASKING, False), (0.7, False), (None, False)])
def test_a_matrix_that_hardly_knows_partners_says_so_in_every_sentence_and_in_its_description(
    verifier: TranscriptFormerPmi, auc: float | None, is_weak: bool
) -> None:
    matrix = np.array([[0, 0.5], [0.5, 0]], np.float16)
    weak = TranscriptFormerPmi(
        verifier._resolver, ["CD79A", "CD79B"], matrix, SCALING, origin="x", measure="pmi", partners_auc=auc
    )
    outcome = weak.score([Item(CoExpression("CD79A", "CD79B"), answer=True)])[0]
    assert isinstance(outcome, Scored)
    for text in (outcome.evidence[0].text, weak.description.summary):
        assert ("; hardly worth asking: AUC 0.52 for known partners)" in text) == is_weak


def test_tissues_are_the_default_where_their_table_is_and_cells_are_an_option(tmp_path: Path) -> None:
    sources = Sources(mirror=data_folder(), cache=tmp_path / "cache", offline=True)
    if not (data_folder() / "knowledge/tissue_expression.tpm.tsv.gz").is_file():
        pytest.skip("needs knowledge/tissue_expression.tpm.tsv.gz")
    store = ArtifactStore(tmp_path / "artifacts")
    build_genes(store, sources, progress=silent)
    manifest = build.build(store, sources, progress=silent)
    assert manifest.parameters["measure"] == "correlation"
    assert manifest.quality["known_partners_auc"] == pytest.approx(0.642, abs=0.005)
    assert manifest.counts["genes"] > 18_000
    assert manifest.coverage == {"textbook_pairs": 1.0}
    tissues = open_verifier(store)
    item, expected = tissues.canary()
    assert tissues.score([item]) == [expected]
    together = tissues.score([Item(CoExpression("HBA1", "HBB"), answer=True)])[0]
    assert isinstance(together, Scored)
    assert together.value > 0.5
    assert together.evidence[0].text.startswith("correlation 0.")
    assert "(correlation over 64 tissues of HPA and GTEX, not TranscriptFormer)" in together.evidence[0].text
    cells = build.build(store, sources, progress=silent, settings=build.Settings(expression="cells"))
    assert cells.parameters["measure"] == "pmi"
    assert cells.quality["known_partners_auc"] < WORTH_ASKING
    assert "hardly worth asking" in open_verifier(store).description.summary
