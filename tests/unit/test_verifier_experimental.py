"""The experimental lookup says what the table says, and nothing where the table is silent."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.sources import PERTURBQA, Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.answers import AnswerProblem
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.experimental import build
from bioverify.verifiers.experimental.verifier import ExperimentalLookup, open_verifier
from tests.fixtures.artifacts import data_folder, silent

SYMBOLS = ["AARS1", "ASNS", "H2AZ1"]
RESOLVER = GeneResolver(
    {symbol: symbol for symbol in [*SYMBOLS, "TAFAZZIN", "WWTR1"]},
    {"AARS": ("AARS1",), "TAZ": ("TAFAZZIN", "WWTR1")},
)


@pytest.fixture
def lookup() -> ExperimentalLookup:
    """K562: AARS1→ASNS increased, AARS1→H2AZ1 unchanged, ASNS→AARS1 decreased, ASNS→H2AZ1 changed."""
    pairs = np.array([1, 2, 3, 5], np.int64)
    responses = np.array([1, 0, -1, 2], np.int8)
    return ExperimentalLookup(RESOLVER, SYMBOLS, {"k562": (pairs, responses)}, provenance="PerturbQA train")


def de(perturbation: str, gene: str, line: str = "k562") -> DifferentialExpression:
    return DifferentialExpression(perturbation, gene, line)


def direction(perturbation: str, gene: str) -> DirectionOfChange:
    return DirectionOfChange(perturbation, gene, "k562")


def test_evidence_reads_as_a_sentence(lookup: ExperimentalLookup) -> None:
    texts = []
    for task in (de("AARS1", "ASNS"), de("AARS1", "H2AZ1"), direction("AARS1", "ASNS"), direction("ASNS", "AARS")):
        outcome = lookup.score([Item(task, answer=True)])[0]
        assert isinstance(outcome, Scored)
        texts.append(outcome.evidence[0].text)
    assert texts == [
        "K562: AARS1 knocked down, ASNS measured, differentially expressed (PerturbQA train)",
        "K562: AARS1 knocked down, H2AZ1 measured, not differentially expressed (PerturbQA train)",
        "K562: AARS1 knocked down, ASNS measured, increased (PerturbQA train)",
        "K562: ASNS knocked down, AARS1 (asked as AARS) measured, decreased (PerturbQA train)",
    ]


@pytest.mark.parametrize(
    ("task", "answer", "value", "belief"),
    [
        (de("AARS1", "ASNS", "K-562"), True, 1.0, 1.0),
        (de("aars", "ASNS"), False, 0.0, 1.0),
        (de("AARS1", "H2AZ1"), True, 0.0, 0.0),
        (de("AARS1", "H2AZ1"), False, 1.0, 0.0),
        (de("ASNS", "H2AZ1"), True, 1.0, 1.0),
        (direction("AARS1", "ASNS"), True, 1.0, 1.0),
        (direction("ASNS", "AARS1"), False, 1.0, 0.0),
    ],
)
def test_the_value_is_agreement_with_the_measurement(
    lookup: ExperimentalLookup,
    task: DifferentialExpression | DirectionOfChange,
    answer: bool,
    value: float,
    belief: float,
) -> None:
    outcome = lookup.score([Item(task, answer=answer)])[0]
    assert isinstance(outcome, Scored)
    assert (outcome.value, outcome.belief) == (value, belief)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (de("NOSUCHGENE", "ASNS"), "unknown_gene"),
        (de("TAZ", "ASNS"), "ambiguous_gene"),
        (de("AARS1", "ASNS", "hela"), "unknown_cell_line"),
        (de("H2AZ1", "ASNS"), "pair_not_measured"),
        (de("WWTR1", "ASNS"), "pair_not_measured"),
        (direction("AARS1", "H2AZ1"), "no_change_measured"),
        (direction("ASNS", "H2AZ1"), "direction_not_measured"),
        (direction("H2AZ1", "ASNS"), "pair_not_measured"),
        (CoExpression("AARS1", "ASNS"), "other_task_kind"),
        (None, "unrecognised_question"),
    ],
)
def test_what_was_not_measured_is_not_applicable(
    lookup: ExperimentalLookup, task: DifferentialExpression | None, reason: str
) -> None:
    outcome = lookup.score([Item(task, answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == reason


def test_no_answer_scores_zero_with_the_reason(lookup: ExperimentalLookup) -> None:
    outcome = lookup.score([Item(de("AARS1", "ASNS"), answer=AnswerProblem.SEVERAL_ANSWER_BLOCKS)])[0]
    assert isinstance(outcome, Scored)
    assert outcome.value == 0.0
    assert outcome.components == {"no_answer.several_answer_blocks": 1.0}
    assert outcome.belief == 1.0


def write_screen(folder: Path, de_rows: list[str], dir_rows: list[str]) -> Sources:
    folder.mkdir()
    for name in PERTURBQA:
        rows = [] if not name.startswith("k562") else dir_rows if name.endswith("-dir.csv") else de_rows
        (folder / name).write_text("\n".join(["pert,gene,label,split", *rows]) + "\n")
    return Sources(None, folder / "cache", {"perturbqa": folder}, offline=True)


def test_two_old_symbols_of_one_gene_are_merged_and_contradictions_dropped(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "genes").symlink_to(bundled_store.root / "genes")
    sources = write_screen(
        tmp_path / "screen",
        [
            "AARS,ASNS,1,train",
            "AARS1,ASNS,1,train",
            "AARS,H2AFZ,0,train",
            "AARS1,H2AZ1,1,train",
            "CD4,NOSUCHGENE,0,train",
        ],
        ["AARS,ASNS,1,train"],
    )
    manifest = build.build(store, sources, progress=silent)
    assert manifest.counts["k562.pairs"] == 1
    assert manifest.counts["contradicting_pairs"] == 1
    assert manifest.counts["unresolved_symbols"] == 1
    verifier = open_verifier(store)
    agreed, contradicted = verifier.score(
        [Item(direction("AARS", "ASNS"), answer=True), Item(de("AARS1", "H2AZ1"), answer=True)]
    )
    assert isinstance(agreed, Scored)
    assert agreed.value == 1.0
    assert isinstance(contradicted, NotApplicable)


def test_test_rows_stay_out_of_the_lookup_and_a_changed_artifact_changes_the_fingerprint(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "genes").symlink_to(bundled_store.root / "genes")
    sources = write_screen(tmp_path / "screen", ["AARS1,ASNS,1,train", "ASNS,AARS1,1,test"], [])
    build.build(store, sources, progress=silent)
    trained = open_verifier(store)
    tested = Item(de("ASNS", "AARS1"), answer=True)
    assert isinstance(trained.score([tested])[0], NotApplicable)
    build.build(store, sources, progress=silent, splits=("train", "test"))
    everything = open_verifier(store)
    assert isinstance(everything.score([tested])[0], Scored)
    assert everything.description.fingerprint != trained.description.fingerprint


def test_lookup_equals_the_tables_on_2000_random_rows(real_store: ArtifactStore) -> None:
    folder = data_folder() / "perturbqa"
    verifier = open_verifier(real_store)
    choose = random.Random(7)
    items, expected = [], []
    for line in ("k562", "rpe1", "hepg2", "jurkat"):
        for kind, make in (("de", DifferentialExpression), ("dir", DirectionOfChange)):
            with (folder / f"{line}-{kind}.csv").open() as file:
                rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
            for row in choose.sample(rows, 250):
                items.append(Item(make(row["pert"], row["gene"], line), answer=True))
                expected.append(float(row["label"]))
    outcomes = verifier.score(items)
    scored = [
        (outcome.value, label) for outcome, label in zip(outcomes, expected, strict=True) if isinstance(outcome, Scored)
    ]
    assert len(items) == 2000
    assert len(scored) >= 1980
    assert all(value == label for value, label in scored)
    reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, NotApplicable)}
    assert reasons <= {"unknown_gene", "ambiguous_gene"}
