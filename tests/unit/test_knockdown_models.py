"""What the verifiers of knockdowns share, on models small enough to be read: three genes, two lines, one fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from bioverify.core.answers import AnswerProblem
from bioverify.core.cell_lines import line_name
from bioverify.core.genes import GeneResolver
from bioverify.core.knockdowns import COMPONENTS, KnockdownModels, Question, smoothed_rates
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, Knockdown, Task, TaskKind
from bioverify.core.verifier import Item, lift

DE, DIRECTION = TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE
SYMBOLS = ("AARS1", "ASNS", "TRIB3", "NOROW")
RESOLVER = GeneResolver({name: name for name in (*SYMBOLS, "OTHER")}, {"AARS": ("AARS1",)})


@dataclass
class Table:
    """Beliefs are (10 · perturbation + gene + ``plus``) hundredths, one row in five is a yes.

    AARS1 lies in fold 0, where TRIB3 has no row.
    """

    plus: int = 0
    asked: list[list[tuple[int, int]]] = field(default_factory=list)
    fold = np.array([0, -1, -1, -1], np.int8)
    has_rows = np.array([[True, True, False, False], [True, True, True, False]])

    def beliefs(self, perturbations: np.ndarray, genes: np.ndarray) -> list[float]:
        pairs = list(zip(perturbations.tolist(), genes.tolist(), strict=True))
        self.asked.append(pairs)
        return [(10 * perturbation + gene + self.plus) / 100 for perturbation, gene in pairs]

    def rates(self, perturbations: np.ndarray, genes: np.ndarray) -> npt.NDArray[np.float64]:
        return np.where(self.has_rows[self.fold[perturbations], genes], 0.2, np.nan)


def made(*, scores_base_rate: bool = True, simulated: bool = False, own_lines: bool = True) -> KnockdownModels:
    models = {(line, kind): Table(plus) for plus, (line, kind) in enumerate(
        [("k562", DE), ("k562", DIRECTION), ("rpe1", DE), ("rpe1", DIRECTION), ("mine", DE)]
    )}  # fmt: skip
    return KnockdownModels(
        RESOLVER,
        SYMBOLS,
        models,
        vector_name="GO",
        own_lines=own_lines,
        scores_base_rate=scores_base_rate,
        simulated=simulated,
    )


def explained(question: Question, belief: float, usual: float) -> str:
    return f"; {question.line}/{question.kind}/{question.perturbation}/{question.gene}/{belief:.3f}/{usual}"


def score(models: KnockdownModels, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
    return models.score(items, explained, with_evidence=with_evidence)


def test_each_question_is_asked_of_its_lines_model_once_and_answered_in_order() -> None:
    models = made()
    items = [
        Item(DifferentialExpression("ASNS", "TRIB3", "K-562"), answer=True),
        Item(DirectionOfChange("ASNS", "TRIB3", "rpe1"), answer=False),
        Item(DifferentialExpression("ASNS", "TRIB3", "k562"), answer=False),
        Item(CoExpression("ASNS", "TRIB3"), answer=True),
        Item(DifferentialExpression("TRIB3", "ASNS", "k562"), answer=AnswerProblem.NO_ANSWER_BLOCK),
    ]
    yes, decrease, no, other, unread = score(models, items, with_evidence=False)
    # .12 · .8 / (.12 · .8 + .88 · .2), and .85 · .2 / (.85 · .2 + .15 · .8): beside a rate of one in five.
    for outcome, value, belief, beyond in (
        (yes, 0.12, 0.12, 0.352941),
        (decrease, 0.85, 0.15, 0.586207),
        (no, 0.88, 0.12, 0.647059),
    ):
        assert isinstance(outcome, Scored)
        assert (outcome.value, outcome.belief) == (value, belief)
        assert outcome.components == {"lift": pytest.approx(beyond, abs=1e-6)}
    assert isinstance(other, NotApplicable)
    assert other.reason == "other_task_kind"
    assert unread == Scored(0.0, {"lift": 0.0, "no_answer.no_answer_block": 1.0}, belief=0.21)
    # Equal questions are computed once; those whose names were asked otherwise are told otherwise.
    asked = {key: model.asked for key, model in models._models.items() if isinstance(model, Table) and model.asked}
    assert asked == {("k562", DE): [[(1, 2), (2, 1)]], ("rpe1", DIRECTION): [[(1, 2)]]}


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (
            DifferentialExpression("ASNS", "TRIB3", "k562"),
            "TRIB3 under knockdown of ASNS in K562: p(yes) = 0.12; usually 0.20; "
            "k562/differential_expression/1/2/0.120/0.2",
        ),
        (
            DirectionOfChange("AARS", "ASNS", "rpe1"),
            "ASNS under knockdown of AARS1 (asked as AARS) in RPE1: p(increase) = 0.04; usually 0.20; "
            "rpe1/direction_of_change/0/1/0.040/0.2",
        ),
        (
            DifferentialExpression("AARS1", "TRIB3", "mine"),
            "TRIB3 under knockdown of AARS1 in mine: p(yes) = 0.06, base rate: TRIB3 has no training row in mine "
            "outside the fold of AARS1; mine/differential_expression/0/2/0.060/nan",
        ),
        (
            DifferentialExpression("ASNS", "NOROW", "rpe1"),
            "NOROW under knockdown of ASNS in RPE1: p(yes) = 0.15, base rate: NOROW has no training row in RPE1; "
            "rpe1/differential_expression/1/3/0.150/nan",
        ),
    ],
)
@pytest.mark.parametrize("simulated", [False, True])
def test_evidence_names_the_genes_as_they_were_asked_and_what_the_belief_rests_on(
    task: Task, text: str, simulated: bool
) -> None:
    [outcome] = score(made(simulated=simulated), [Item(task, answer=True)])
    assert isinstance(outcome, Scored)
    told = f"{text} (simulated screen, not an experiment)" if simulated else text
    assert outcome.evidence == (Evidence(told, "GO", simulated),)
    assert list(outcome.components) == (["base_rate"] if "base rate" in text else ["lift"])


@pytest.mark.parametrize(
    ("task", "reason", "detail"),
    [
        (DifferentialExpression("AARS1", "TRIB3", "k562"), "no_training_row",
         "TRIB3 has no training row in K562 outside the fold of AARS1 (GO)."),
        (DifferentialExpression("ASNS", "NOROW", "mine"), "no_training_row",
         "NOROW has no training row in mine (GO)."),
        (DifferentialExpression("OTHER", "TRIB3", "k562"), "no_vector", "OTHER has no vector (GO)."),
        (DifferentialExpression("ASNS", "TRIB3", "K526"), "unknown_cell_line",
         "K526 is not one of k562, rpe1, mine. Is K562 meant?"),
        (DifferentialExpression("ASNS", "TRIB3", "HeLa"), "unknown_cell_line",
         "HeLa is not one of k562, rpe1, mine."),
        (None, "unrecognised_question", "The item has no task, and its prompt asks no question of a known form."),
        (CoExpression("ASNS", "TRIB3"), "other_task_kind", "The question is about co_expression; this verifier "
         "answers differential_expression, direction_of_change."),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_applicable_with_the_reason(task: Task | None, reason: str, detail: str) -> None:
    models = made(scores_base_rate=False)
    assert score(models, [Item(task, answer=True)]) == [NotApplicable(reason, detail)]
    if task is not None:
        assert models.fold(task) == -1


def test_a_build_without_base_rates_scores_what_has_rows() -> None:
    [outcome] = score(made(scores_base_rate=False), [Item(DifferentialExpression("ASNS", "TRIB3", "k562"), True)])
    assert isinstance(outcome, Scored)
    assert (outcome.belief, list(outcome.components)) == (0.12, ["lift"])


@pytest.mark.parametrize(
    ("belief", "usual", "yes"),
    [
        (0.2, 0.2, 0.5),
        (0.9, 0.9, 0.5),
        (0.5, 0.2, 0.8),
        (0.2, 0.5, 0.2),
        (0.6, 0.2, 6 / 7),
        (0.0, 0.3, 0.0),
        (1.0, 0.3, 1.0),
    ],
)
def test_lift_is_the_belief_beyond_what_is_usual_for_the_gene(belief: float, usual: float, yes: float) -> None:
    """σ(logit(belief) − logit(usual)): odds of the belief over odds of the rate."""
    assert lift(belief, usual, True) == pytest.approx(yes)
    assert lift(belief, usual, False) == pytest.approx(1 - yes)
    assert lift(belief, usual, None) == 0.0


def test_a_genes_rate_is_drawn_to_the_rate_of_all_by_two_rows() -> None:
    genes, labels = np.array([0, 0, 0, 2, 2]), np.array([1, 1, 0, 0, 0], np.int8)
    assert smoothed_rates(genes, labels, 4) == pytest.approx([2.8 / 5, 0.4, 0.8 / 4, 0.4])


def test_the_fold_is_the_perturbations() -> None:
    models = made()
    assert models.fold(DifferentialExpression("AARS", "ASNS", "k562")) == 0
    assert models.fold(DifferentialExpression("ASNS", "AARS", "k562")) == -1
    assert models.fold(CoExpression("AARS1", "ASNS")) == -1


@pytest.mark.parametrize(("own_lines", "of_rpe1"), [(True, "RPE1"), (False, "K562, mine")])
def test_a_model_says_whose_rows_it_learned_from(own_lines: bool, of_rpe1: str) -> None:
    assert made(own_lines=own_lines).trained_on("rpe1") == of_rpe1


@pytest.mark.parametrize(
    ("line", "name"), [("k562", "K562"), ("rpe1", "RPE1"), ("hepg2", "HepG2"), ("jurkat", "Jurkat"), ("mine", "mine")]
)
def test_a_line_is_called_as_people_write_it(line: str, name: str) -> None:
    assert line_name(line) == name


def test_what_a_score_is_made_of_is_described() -> None:
    questions = [DifferentialExpression("AARS1", gene, "k562") for gene in ("ASNS", "TRIB3")]
    answers: list[bool | AnswerProblem] = [True, AnswerProblem.NO_ANSWER_WORD]
    found = score(made(), [Item(task, answer=answer) for task in questions for answer in answers])
    named = {name for outcome in found if isinstance(outcome, Scored) for name in outcome.components}
    assert named == {"lift", "base_rate", "no_answer.no_answer_word"}
    assert {"no_answer.*" if name.startswith("no_answer.") else name for name in named} <= set(COMPONENTS)


def test_canaries_are_drawn_from_every_line_and_kind_and_are_scored() -> None:
    models = made()
    items = models.canary_items()
    asked = {(item.task.cell_line, item.task.kind) for item in items if isinstance(item.task, Knockdown)}
    assert asked == {("k562", DE), ("k562", DIRECTION), ("rpe1", DE), ("rpe1", DIRECTION), ("mine", DE)}
    assert {item.answer for item in items} == {True, False}
    assert any(isinstance(outcome, Scored) for outcome in score(models, items))
    assert len({(item.task, item.answer) for item in items}) == len(items) == 20


def test_the_canary_is_the_first_pair_that_has_rows() -> None:
    models = made()
    item, expected = models.canary(0.01, explained)
    assert item == Item(DifferentialExpression("AARS1", "ASNS", "k562"), answer=True)
    assert score(models, [item]) == [expected]
