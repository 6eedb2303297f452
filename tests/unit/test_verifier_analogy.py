"""Analogy: the formula against its definition, no memory of the question itself, and evidence that can be read."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from bioverify.artifacts.go import Annotations, Term
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.knockdowns import smoothed_rates
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, TaskKind
from bioverify.core.verifier import Item
from bioverify.verifiers.analogy.artifact import others_of
from bioverify.verifiers.analogy.build import telling_sets
from bioverify.verifiers.analogy.elsewhere import Elsewhere
from bioverify.verifiers.analogy.fit import fit
from bioverify.verifiers.analogy.gene_sets import MOST_MEMBERS, GeneSets
from bioverify.verifiers.analogy.kept import Floats, Kept, Rows
from bioverify.verifiers.analogy.model import folds_of
from bioverify.verifiers.analogy.neighbours import (
    CHUNK,
    FEATURES,
    GENE_WIDTH,
    KRIGING_GENE_SHARE,
    KRIGING_NOISE,
    KRIGING_WIDTH,
    PERTURBATION_WIDTHS,
    SHRINKAGE,
    STRENGTH_ROWS,
    Neighbours,
    krige,
    leading_components,
    unit_vectors,
)
from bioverify.verifiers.analogy.verifier import Analogy, open_verifier

N_GENES, N_PERTURBATIONS = 60, 36


@pytest.fixture(scope="module")
def verifier(bundled_store: ArtifactStore) -> Analogy:
    return open_verifier(bundled_store)


@pytest.fixture(scope="module")
def unit() -> Floats:
    """Six families of ten like genes."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.standard_normal((6, 12)), 10, axis=0)
    return unit_vectors((centres + 0.4 * random.standard_normal((N_GENES, 12))).astype(np.float32))


def screen(unit: Floats, seed: int = 1) -> Rows:
    """Whether a gene responds depends on the two families alone, but for noise."""
    random = np.random.default_rng(seed)
    pairs = np.array([(p, g) for p in range(N_PERTURBATIONS) for g in range(N_GENES) if random.random() < 0.5])
    rule = random.random((6, 6)) < 0.3
    label = rule[pairs[:, 0] // 10, pairs[:, 1] // 10] ^ (random.random(len(pairs)) < 0.05)
    return Rows(pairs[:, 0], pairs[:, 1], label.astype(np.int8))


def reference(rows: Rows, fold: npt.NDArray[np.int8], unit: Floats, pair: tuple[int, int]) -> Floats:
    """FEATURES and SCORES of one pair as the formulas of `neighbours` and the README have them, with dense matrices."""
    perturbation, gene = pair
    outside = rows.where(fold[rows.perturbation] != fold[perturbation]) if fold[perturbation] >= 0 else rows
    residual, mask, solved = np.zeros((3, N_GENES, N_GENES))
    at = outside.perturbation, outside.gene
    residual[at] = outside.label - smoothed_rates(outside.gene, outside.label, N_GENES)[outside.gene]
    mask[at], solved[at] = 1.0, krige(outside, unit)
    cosine, components = unit @ unit.T, leading_components(unit)
    alone = np.eye(N_GENES)[gene]
    others = np.unique(outside.perturbation)
    weights = [np.exp((cosine[perturbation] - 1) / tau) for tau in PERTURBATION_WIDTHS]
    scores = [
        (w @ residual @ v) / (w @ mask @ v + SHRINKAGE)
        for v in (alone, np.exp((cosine[gene] - 1) / GENE_WIDTH))
        for w in weights
    ]
    strength = [w @ residual.sum(axis=1) / (w @ mask.sum(axis=1) + STRENGTH_ROWS) for w in weights]
    same = alone + KRIGING_GENE_SHARE * np.exp((cosine[gene] - 1) / KRIGING_WIDTH)
    kriged = np.exp((cosine[perturbation] - 1) / KRIGING_WIDTH) @ solved @ same
    rate = smoothed_rates(rows.gene, rows.label, N_GENES)[gene]
    place = [rate, cosine[perturbation, gene], cosine[perturbation, others].max()]
    parts = [scores, place, strength, components[perturbation], components[gene], [kriged, np.mean(scores), kriged]]
    return np.concatenate(parts)


def line_of(rows: Rows, unit: Floats, folds: int, kept: Kept) -> tuple[Neighbours, npt.NDArray[np.int8]]:
    fold = folds_of(rows, folds, N_GENES) if folds else np.full(N_GENES, -1, np.int8)
    of_row = fold[rows.perturbation]
    solved = np.zeros((folds + 1, len(rows)), np.float32)
    for one in (*range(folds), -1):
        outside = of_row != one if one >= 0 else np.ones(len(rows), np.bool_)
        solved[one, outside] = krige(rows.where(outside), unit)
    return Neighbours(rows, fold, unit, leading_components(unit), solved, kept), fold


@pytest.mark.parametrize("size_bytes", [2**20, 20_000, 0], ids=["all kept", "some forgotten", "nothing kept"])
def test_features_are_what_the_formulas_say_whatever_is_kept_and_in_whatever_company(
    unit: Floats, size_bytes: int
) -> None:
    rows = screen(unit)
    # Genes that were measured nowhere, and one that a single fold measured.
    rows = rows.where((rows.gene < 55) & ((rows.gene != 3) | (rows.perturbation % 3 == 0)))
    line, fold = line_of(rows, unit, 3, Kept(size_bytes))
    random = np.random.default_rng(2)
    perturbations, genes = random.integers(0, N_GENES, (2, 3 * CHUNK))
    perturbations[:2], genes[:2] = (0, 50), (3, 3)
    expected = np.array([reference(rows, fold, unit, pair) for pair in zip(perturbations, genes, strict=True)])
    for some in (slice(0, 1), slice(None), slice(100, 130), slice(0, 2), slice(None)):
        made = np.hstack(line.features(perturbations[some], genes[some]))
        np.testing.assert_allclose(made, expected[some], rtol=0, atol=1e-8)
    assert set(fold[perturbations]) == {-1, 0, 1, 2}


@pytest.mark.parametrize("size_bytes", [2**20, 0], ids=["kept", "nothing kept"])
def test_another_line_tells_what_it_saw_without_the_fold_of_the_question(unit: Floats, size_bytes: int) -> None:
    rows = screen(unit, seed=3)
    rows = rows.where((rows.gene < 55) & (rows.perturbation > 4))
    fold = folds_of(screen(unit), 3, N_GENES)
    fold[9] = -1  # not perturbed in the line that is asked about
    random = np.random.default_rng(4)
    perturbations, genes = random.integers(0, N_GENES, (2, 300))
    perturbations[:2], genes[:2] = (7, 50), (57, 3)
    rate = smoothed_rates(rows.gene, rows.label, N_GENES)
    expected = []
    for perturbation, gene in zip(perturbations, genes, strict=True):
        lacks = fold[rows.perturbation] == fold[perturbation] if fold[perturbation] >= 0 else np.zeros(len(rows), bool)
        outside = rows.where(~lacks)
        weight = np.exp((unit[outside.perturbation] @ unit[perturbation] - 1) / 0.1)
        above = outside.label - rate[outside.gene]
        own = outside.gene == gene
        score = (weight * above)[own].sum() / (weight[own].sum() + 0.3)
        expected.append([score, rate[gene], (weight * above).sum() / (weight.sum() + 10.0)])
    told = Elsewhere(rows, fold, unit, Kept(size_bytes))
    for some in (slice(0, 1), slice(None), slice(1, 40)):
        np.testing.assert_allclose(told.features(perturbations[some], genes[some]), expected[some], atol=1e-6)
    assert set(fold[perturbations]) == {-1, 0, 1, 2}


def test_a_lines_tested_perturbations_are_in_no_other_lines_rows_for_it(verifier: Analogy, unit: Floats) -> None:
    rows = screen(unit)
    of_row = (np.arange(len(rows)) % 3).astype(np.int8)  # the fourth line has no row
    others = others_of(1, of_row, rows, np.array([2, 5]))
    assert [len(one) for one in others] == [
        int(((of_row == other) & ~np.isin(rows.perturbation, [2, 5])).sum()) for other in (0, 2)
    ]
    assert not {2, 5} & {*others[0].perturbation, *others[1].perturbation}
    assert {len(model.others) for model in verifier._line_models.values()} == {3}


def test_trees_hear_other_lines_and_not_what_these_saw_of_the_questions_fold(unit: Floats) -> None:
    rows, other, components = screen(unit), screen(unit, 7), leading_components(unit)
    asked = np.arange(N_PERTURBATIONS), np.arange(N_PERTURBATIONS) % N_GENES
    told = [
        np.array(fit(rows, [one], unit, components, 3, 1)[0].beliefs(*asked))
        for one in (other, Rows(other.perturbation, other.gene, 1 - other.label))
    ]
    assert np.abs(told[0] - told[1]).max() > 1e-3
    model, _, _ = fit(rows, [other], unit, components, 3, 1)
    fold = model.fold
    own = other.perturbation == 4
    flipped = Rows(other.perturbation, other.gene, np.where(own, 1 - other.label, other.label).astype(np.int8))
    again, _, _ = fit(rows, [flipped], unit, components, 3, 1)
    score = len(FEATURES)  # of the other line; its rate is of all rows
    of_fold = rows.where(fold[rows.perturbation] == fold[4])
    rate = smoothed_rates(flipped.gene, flipped.label, N_GENES) - smoothed_rates(other.gene, other.label, N_GENES)
    same = np.abs(rate[of_fold.gene]) == 0
    before, after = (
        one.neighbours.features(of_fold.perturbation[same], of_fold.gene[same])[0][:, score] for one in (model, again)
    )
    assert same.any()
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_what_is_kept_stays_within_its_size_and_forgets_what_was_not_asked_for_longest() -> None:
    kept = Kept(100)
    for number in range(4):
        kept.put((number,), str(number), 30)
        assert kept.get((0,)) == "0"
    assert [kept.get((number,)) for number in range(4)] == ["0", None, "2", "3"]
    kept.put((9,), "larger than all", 101)
    assert [kept.get((number,)) for number in (0, 2, 3, 9)] == [None] * 4


def test_kriging_is_gaussian_process_regression_at_the_measured_pairs(unit: Floats) -> None:
    rows = screen(unit)
    rate = smoothed_rates(rows.gene, rows.label, N_GENES)
    asked = Rows(np.array([50, 3, 50]), np.array([7, 7, 21]), np.zeros(3, np.int8))
    _, scored = line_of(rows, unit, 0, Kept(2**20))[0].features(asked.perturbation, asked.gene)
    alike = np.exp((unit @ unit.T - 1) / KRIGING_WIDTH)
    same = KRIGING_GENE_SHARE * alike + np.eye(N_GENES)

    def kernel(one: Rows, other: Rows) -> Floats:
        made: Floats = alike[np.ix_(one.perturbation, other.perturbation)] * same[np.ix_(one.gene, other.gene)]
        return made

    residual = rows.label - rate[rows.gene]
    exact = kernel(asked, rows) @ np.linalg.solve(kernel(rows, rows) + KRIGING_NOISE * np.eye(len(rows)), residual)
    assert scored[:, 1] == pytest.approx(exact, abs=0.02)
    assert np.abs(exact).max() > 0.1


def test_a_training_perturbation_is_answered_without_its_own_rows(unit: Floats) -> None:
    rows = screen(unit)
    flipped = Rows(rows.perturbation, rows.gene, np.where(rows.perturbation == 4, 1 - rows.label, rows.label))
    asked = rows.where(rows.perturbation == 4)
    components = leading_components(unit)
    one, other = (
        fit(some, [], unit, components, 3, 1)[0].neighbours.features(asked.perturbation, asked.gene)
        for some in (rows, flipped)
    )
    differs = {name for name, column in zip(FEATURES, (one[0] != other[0]).any(axis=0), strict=True) if column}
    assert differs == {"gene_rate"}
    assert (one[1] == other[1]).all()


def test_trees_learn_who_is_like_whom_and_repeat_themselves(unit: Floats) -> None:
    rows, components = screen(unit), leading_components(unit)
    model, _, out_of_fold = fit(rows, [], unit, components, 3, 1)
    assert np.mean((out_of_fold > 0) == rows.label) > 0.85
    perturbations, genes = np.mgrid[40:60, 0:N_GENES].reshape(2, -1)
    beliefs = model.beliefs(perturbations, genes)
    assert beliefs == fit(rows, [], unit, components, 3, 1)[0].beliefs(perturbations, genes)
    some = range(0, len(genes), 97)
    assert [model.beliefs(perturbations[[row]], genes[[row]])[0] for row in some] == beliefs[::97]
    assert (model.fold == folds_of(rows, 3, N_GENES)).all()
    assert set(model.fold[N_PERTURBATIONS:]) == {-1}


def asked_of_training_rows(verifier: Analogy, per_model: int) -> list[Item]:
    """Questions about training rows and, of as many, the same perturbation with a gene of any other row."""
    random = np.random.default_rng(5)
    items = []
    for (line, kind), model in verifier._line_models.items():
        task = DifferentialExpression if kind is TaskKind.DIFFERENTIAL_EXPRESSION else DirectionOfChange
        rows = random.integers(len(model.rows), size=per_model)
        genes = np.concatenate(
            [model.rows.gene[rows[: per_model // 2]], random.integers(len(model.unit), size=per_model // 2)]
        )
        for perturbation, gene in zip(model.rows.perturbation[rows], genes, strict=True):
            items.append(Item(task(verifier._symbols[perturbation], verifier._symbols[gene], line), answer=True))
    return items


SENTENCE = re.compile(
    r"(?P<gene>\S+) under knockdown of (?P<perturbation>\S+) in (?P<line>\w+): p\((?:yes|increase)\) = (?P<p>[\d.]+)"
    r"(?:, base rate: (?P=gene) has no training row in (?P=line)(?P<fold> outside the fold of (?P=perturbation))?"
    r"; judged by genes like (?P=gene)"
    r"|; usually (?P<usual>[\d.]+); (?:similar: (?P<names>\S+(?:, \S+){0,2})(?: and (?P<more>\d+) more)? "
    r"\(cosine (?P<low>-?[\d.]+)(?:–(?P<high>[\d.]+))?\)(?:; (?P=perturbation) shares (?P<shared>.+? with \S+.*?))?; "
    r"(?P=gene) (?P<verb>responded|increased) in "
    r"(?P<share>\d+)% of all perturbations, weighted by likeness(?:, which alone would "
    r"say (?P<alone>less|more): the trees and kriging over "
    r"all genes outweigh it)?"
    r"|no close analogue \(nearest: (?P<nearest>\S+), cosine (?P<cosine>-?[\d.]+)\), judged by all perturbations and "
    r"by genes like (?P=gene)))"
    r" \(GO-SVD 16-d, not ESM2\) \(simulated screen, not an experiment\)"
)


def test_sentence_and_number_point_to_one_side_or_the_sentence_says_what_outweighs_the_neighbours(
    verifier: Analogy,
) -> None:
    seen = set()
    for outcome in verifier.score(asked_of_training_rows(verifier, 100)):
        assert isinstance(outcome, Scored)
        told = SENTENCE.fullmatch(outcome.evidence[0].text)
        assert told, outcome.evidence[0].text
        assert float(told["p"]) == pytest.approx(outcome.belief, abs=0.005001)
        assert (
            (told["usual"] is None) == (outcome.components == {"base_rate": 1.0}) == ("lift" not in outcome.components)
        )
        if told["nearest"]:
            seen.add("no close analogue")
            assert float(told["cosine"]) < verifier._similar + 0.005
        if told["share"]:
            assert told["verb"] == ("increased" if "p(increase)" in told[0] else "responded")
            p, share, usual = float(told["p"]), int(told["share"]) / 100, float(told["usual"])
            assert float(told["low"]) > verifier._similar - 0.006
            opposite = (p - usual) * (share - usual) < 0 or (p - 0.5) * (share - 0.5) < 0
            assert told["alone"] == (("less" if share < p else "more") if opposite else None)
            seen |= {told["alone"], "shared" if told["shared"] else ""}
        seen.add(told["fold"] or "")
    assert {"no close analogue", "shared", None, "less", "more"} <= seen


def test_one_in_twenty_random_pairs_of_a_lines_perturbations_is_called_similar(verifier: Analogy) -> None:
    shares = []
    for model in verifier._line_models.values():
        own = np.unique(model.rows.perturbation)
        cosines = (model.unit[own] @ model.unit[own].T)[np.triu_indices(len(own), 1)]
        shares.append((cosines >= verifier._similar).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)


def test_complexes_and_processes_that_are_shared_are_told_the_most_telling_first() -> None:
    names = ("C: pair", "P: pair", "P: many")
    terms = [Term(str(number), name, name[0]) for number, name in enumerate(["complex of many", *names, "F: same"])]
    genes = {"A": [0, 1, 3, 4], "B": [0, 1, 3], "C": [0, 2, 3], "D": [0, 2, 4], "E": [0, 3]}
    genes |= {f"OTHER{number}": [0] for number in range(MOST_MEMBERS)}
    terms[1] = Term("1", "a complex", "C")
    annotations = Annotations(terms, genes, {}, [])
    told, of_symbol = telling_sets(annotations, ["A", "B", "C", "D", "E", "UNKNOWN"])
    assert told == ["a complex", "P: pair", "P: many"]
    assert of_symbol == [[0, 2], [0, 2], [1, 2], [1], [2], []]
    starts = np.cumsum([0, *map(len, of_symbol)]).astype(np.int32)
    sets = GeneSets(told, starts, np.concatenate([np.array(one, np.int32) for one in of_symbol]))
    assert sets.shared(0, [4, 1, 2, 3, 5]) == {"P: many": [4, 2], "a complex": [1]}
    assert sets.shared(5, [0, 1]) == {}


def test_the_share_is_weighted_as_the_neighbour_score_is(unit: Floats) -> None:
    rows = screen(unit)
    line, fold = line_of(rows, unit, 3, Kept(2**20))
    told = line.analogues(7, 12)
    outside = rows.where(fold[rows.perturbation] != fold[7])
    usual = smoothed_rates(outside.gene, outside.label, N_GENES)[12]
    own = outside.where(outside.gene == 12)
    cosine = unit[own.perturbation] @ unit[7]
    order = np.argsort(-cosine)
    assert told.perturbations == own.perturbation[order].tolist()
    assert told.cosines == pytest.approx(cosine[order])
    scores = np.hstack(line.features(np.array([7]), np.array([12])))[0, : len(PERTURBATION_WIDTHS)]
    assert told.share == pytest.approx(usual + scores.mean(), abs=1e-8)
    assert 7 not in told.perturbations


def test_a_gene_is_told_as_it_was_resolved_and_as_it_was_asked(verifier: Analogy) -> None:
    gene = verifier._symbols[verifier._line_models["k562", TaskKind.DIRECTION_OF_CHANGE].rows.gene[0]]
    texts = []
    for asked in ("AARS", "AARS1"):
        tasks = (DirectionOfChange(asked, gene, "K-562"), DirectionOfChange("AARS1", gene, "k562"))
        outcomes = verifier.score([Item(task, answer=False) for task in tasks])
        assert all(isinstance(one, Scored) and one.belief == pytest.approx(1.0 - one.value) for one in outcomes)
        texts.append([one.evidence[0].text for one in outcomes if isinstance(one, Scored)])
    assert texts[0][0].startswith(f"{gene} under knockdown of AARS1 (asked as AARS) in K562: p(increase) = ")
    assert texts[0][0].replace(" (asked as AARS)", "") == texts[0][1] == texts[1][0] == texts[1][1]


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (DifferentialExpression("NOSUCHGENE", "ASNS", "k562"), "unknown_gene"),
        (DifferentialExpression("AARS1", "ASNS", "hela"), "unknown_cell_line"),
        (DifferentialExpression("ANKRD22", "ASNS", "k562"), "no_vector"),
        (CoExpression("AARS1", "ASNS"), "other_task_kind"),
    ],
)
def test_what_has_no_analogy_is_not_applicable(verifier: Analogy, task: CoExpression, reason: str) -> None:
    outcome = verifier.score([Item(task, answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == reason
