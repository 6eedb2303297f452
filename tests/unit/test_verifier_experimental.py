"""The experimental lookup says what the table says, and nothing where the table is silent."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import PERTURBQA, Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.answers import AnswerProblem
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import SIMULATED_REMARK, NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, TaskKind
from bioverify.core.verifier import Item
from bioverify.verifiers.experimental import build
from bioverify.verifiers.experimental.screen import Screen
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
    return ExperimentalLookup(RESOLVER, SYMBOLS, [Screen("k562", "PerturbQA train", pairs, responses)])


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


def test_two_old_symbols_of_one_gene_are_merged_and_contradictions_kept_with_their_numbers(
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
    assert manifest.counts["perturbqa.k562.pairs"] == 2
    assert manifest.counts["perturbqa.k562.responding"] == 1
    assert manifest.counts["contradicting_pairs"] == 1
    assert manifest.counts["unresolved_symbols"] == 1
    verifier = open_verifier(store)
    agreed, contradicted = verifier.score(
        [Item(direction("AARS", "ASNS"), answer=True), Item(de("AARS1", "H2AZ1"), answer=True)]
    )
    assert isinstance(agreed, Scored)
    assert agreed.value == 1.0
    assert isinstance(contradicted, NotApplicable)
    assert contradicted.reason == "rows_contradict"
    assert contradicted.detail.startswith("K562: H2AZ1 under knockdown of AARS1: ")
    assert "rows contradict (1 changed, 1 not)" in contradicted.detail


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
    build.build(store, sources, progress=silent, settings=build.Settings(splits="all"))
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


def screen(line: str, name: str, responses: dict[int, int]) -> Screen:
    return Screen(
        line, name, np.array(sorted(responses), np.int64), np.array([responses[p] for p in sorted(responses)], np.int8)
    )


TWO_SCREENS = [
    screen("k562", "first", {1: 1, 2: 0, 3: -1, 5: 2}),
    screen("k562", "second", {1: 1, 2: 1, 3: 1, 5: -1}),
    screen("rpe1", "third", {1: 0, 6: 1, 7: -1}),
]


def test_two_screens_that_agree_are_both_named() -> None:
    lookup = ExperimentalLookup(RESOLVER, SYMBOLS, TWO_SCREENS)
    outcome = lookup.score([Item(de("AARS1", "ASNS"), answer=True)])[0]
    assert isinstance(outcome, Scored)
    assert outcome.value == 1.0
    assert [one.source for one in outcome.evidence] == ["first", "second"]


def test_screens_that_contradict_each_other_have_no_label_and_both_are_told() -> None:
    lookup = ExperimentalLookup(RESOLVER, SYMBOLS, TWO_SCREENS)
    responds, rises, either_way, known_by_one = lookup.score(
        [
            Item(de("AARS1", "H2AZ1"), answer=True),
            Item(direction("ASNS", "AARS1"), answer=True),
            Item(de("ASNS", "AARS1"), answer=True),
            Item(direction("ASNS", "H2AZ1"), answer=True),
        ]
    )
    assert isinstance(responds, NotApplicable)
    assert responds.reason == "screens_contradict"
    assert responds.detail == (
        "K562: H2AZ1 under knockdown of AARS1: not differentially expressed (first); differentially expressed (second)."
    )
    assert isinstance(rises, NotApplicable)
    assert rises.reason == "screens_contradict"
    assert "decreased (first); increased (second)" in rises.detail
    assert isinstance(either_way, Scored)
    assert either_way.value == 1.0
    assert isinstance(known_by_one, Scored)
    assert known_by_one.belief == 0.0


NOTHING = (np.array([], np.int64), np.array([], np.int8))


@pytest.mark.parametrize(
    ("name", "provenance", "has_test_rows", "told"),
    [
        (
            "perturbqa",
            "PerturbQA train",
            False,
            "no row in PerturbQA's training split (held out, or left out by PerturbQA)",
        ),
        ("perturbqa", "PerturbQA train and test", True, "no row in PerturbQA (left out by PerturbQA)"),
        ("simulated", SIMULATED_REMARK, False, f"no training row in the {SIMULATED_REMARK}"),
        ("mine", "mine", False, "no training row in mine"),
        ("mine", "mine", True, "no row in mine"),
    ],
)
def test_a_pair_without_a_row_is_not_said_to_be_unmeasured(
    name: str, provenance: str, has_test_rows: bool, told: str
) -> None:
    screen = Screen("k562", provenance, *NOTHING, simulated=name == "simulated", name=name)
    lookup = ExperimentalLookup(RESOLVER, SYMBOLS, [screen], has_test_rows=has_test_rows)
    outcome = lookup.score([Item(de("AARS1", "ASNS"), answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.detail.startswith(f"K562: ASNS under knockdown of AARS1: {told}")


def test_a_question_about_a_gene_is_not_told_of_the_tables_of_gene_sets() -> None:
    genes = Screen("k562", "PerturbQA train", *NOTHING, name="perturbqa")
    sets = Screen("k562", "PerturbQA gene sets train", *NOTHING, name="perturbqa-sets")
    own = Screen("k562", "mine", *NOTHING, name="mine")
    lookup = ExperimentalLookup(RESOLVER, [*SYMBOLS, "1-ribosome"], [genes, sets, own], gene_sets=["1-ribosome"])
    of_gene, of_set = lookup.score([Item(de("AARS1", gene), answer=True) for gene in ("ASNS", "1-ribosome")])
    assert isinstance(of_gene, NotApplicable)
    assert of_gene.detail == (
        "K562: ASNS under knockdown of AARS1: no row in PerturbQA's training split "
        "(held out, or left out by PerturbQA); no training row in mine."
    )
    assert isinstance(of_set, NotApplicable)
    assert of_set.detail == (
        "K562: 1-ribosome under knockdown of AARS1: no row in the training split of PerturbQA's gene sets "
        "(held out, or left out by PerturbQA)."
    )


def test_a_held_out_pair_is_told_apart_from_an_unmeasured_one_only_as_far_as_the_tables_do(
    real_store: ArtifactStore,
) -> None:
    held_out = next(
        row
        for row in csv.DictReader((data_folder() / "perturbqa/jurkat-de.csv").open())
        if row["pert"] == "EIF2B4" and row["gene"] == "TRIB3"
    )
    assert held_out["split"] == "test"
    outcome = open_verifier(real_store).score([Item(de("EIF2B4", "TRIB3", "jurkat"), answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.detail.startswith(
        "Jurkat: TRIB3 under knockdown of EIF2B4: no row in PerturbQA's training split (held out, or left out by Pert"
    )


def test_what_other_lines_saw_is_told_and_is_no_label() -> None:
    lookup = ExperimentalLookup(RESOLVER, SYMBOLS, TWO_SCREENS)
    outcome = lookup.score([Item(de("H2AZ1", "AARS1"), answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == "pair_not_measured"
    assert "In other lines, which is no label here: RPE1: differentially expressed (third)." in outcome.detail


def test_a_belief_from_other_lines_is_marked_and_only_fills_gaps() -> None:
    agreement = {TaskKind.DIFFERENTIAL_EXPRESSION: (0.8, 0.1), TaskKind.DIRECTION_OF_CHANGE: (0.9, 0.2)}
    screens = [*TWO_SCREENS, screen("jurkat", "fourth", {6: 0})]
    lookup = ExperimentalLookup(RESOLVER, SYMBOLS, screens, agreement=agreement)
    gap, falling, measured, contradicted = lookup.score(
        [
            Item(de("H2AZ1", "AARS1"), answer=False),
            Item(direction("H2AZ1", "ASNS"), answer=False),
            Item(de("AARS1", "ASNS", "rpe1"), answer=True),
            Item(de("AARS1", "H2AZ1"), answer=True),
        ]
    )
    assert isinstance(gap, Scored)
    assert gap.belief == pytest.approx(0.45)
    assert gap.value == pytest.approx(0.55)
    assert gap.components == {"other_lines": 2.0}
    assert [one.text.split(":")[0] for one in gap.evidence] == ["No row of K562, from another line"] * 2
    assert isinstance(falling, Scored)
    assert falling.belief == pytest.approx(0.2)
    assert isinstance(measured, Scored)
    assert (measured.belief, measured.components) == (0.0, {})
    assert isinstance(contradicted, NotApplicable)


def test_a_belief_from_other_lines_is_an_option_of_the_build(bundled_store: ArtifactStore, tmp_path: Path) -> None:
    store = with_genes(bundled_store, tmp_path)
    rows = {
        "de": ["AARS1,ASNS,1,train", "AARS1,H2AZ1,0,train", "ASNS,AARS1,1,train"],
        "dir": ["AARS1,ASNS,1,train", "ASNS,AARS1,0,train"],
    }
    sources = write_screen(tmp_path / "screen", rows["de"], rows["dir"])
    for kind, shared in rows.items():
        lines = ["pert,gene,label,split", *shared, "ASNS,H2AZ1,1,train"]
        (tmp_path / "screen" / f"rpe1-{kind}.csv").write_text("\n".join(lines) + "\n")
    asked = Item(de("ASNS", "H2AZ1"), answer=True)
    found = {}
    for told in ("detail", "belief"):
        settings = build.Settings.model_validate({"other_lines": told})
        manifest = build.build(store, sources, progress=silent, settings=settings)
        found[told] = open_verifier(store).score([asked])[0]
    assert isinstance(found["detail"], NotApplicable)
    assert isinstance(found["belief"], Scored)
    assert found["belief"].belief == manifest.quality["differential_expression.yes_if_yes"]


@given(
    st.lists(st.dictionaries(st.integers(0, 8), st.sampled_from([-1, 0, 1, 2])), min_size=1, max_size=4), st.randoms()
)
def test_the_bulk_lookup_says_what_the_items_are_told_whatever_the_order_of_screens(
    stored: list[dict[int, int]], random: random.Random
) -> None:
    screens = [screen("k562", f"screen {number}", responses) for number, responses in enumerate(stored)]
    pairs = random.choices(range(9), k=20)
    perturbations, genes = np.divmod(np.array(pairs, np.int64), 3)
    found = ExperimentalLookup(RESOLVER, SYMBOLS, screens).responses("k562", perturbations, genes)
    random.shuffle(screens)
    lookup = ExperimentalLookup(RESOLVER, SYMBOLS, screens)
    assert lookup.responses("k562", perturbations, genes).tolist() == found.tolist()
    outcomes = lookup.score([Item(de(SYMBOLS[pair // 3], SYMBOLS[pair % 3]), answer=True) for pair in pairs])
    for code, outcome in zip(found.tolist(), outcomes, strict=True):
        if isinstance(outcome, Scored):
            assert outcome.value == float(code != 0)
            assert code in {-1, 0, 1, 2, 4}
        else:
            assert isinstance(outcome, NotApplicable)
            assert {3: "screens_contradict", 5: "pair_not_measured"}[code] == outcome.reason


def with_genes(bundled_store: ArtifactStore, folder: Path) -> ArtifactStore:
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "genes").symlink_to(bundled_store.root / "genes")
    return ArtifactStore(folder / "artifacts")


ROWS = [  # perturbation, gene, line, log fold change, adjusted p
    ("AARS", "ASNS", "K-562", 1.2, 0.001),
    ("AARS", "H2AFZ", "K-562", 0.1, 0.001),
    ("AARS", "GAPDH", "K-562", -2.0, 0.2),
    ("NA", "ASNS", "THP-1", -0.8, 0.05),
    ("CD4", "ASNS", "THP-1", None, None),
]


def write_own(folder: Path, form: str) -> Path:
    path = folder / f"own.{form}"
    names = ["target", "gene", "line", "lfc", "padj"]
    columns = dict(zip(names, map(list, zip(*ROWS, strict=True)), strict=True))
    table = pa.table(
        {**columns, "lfc": pa.array(columns["lfc"], pa.float64()), "padj": pa.array(columns["padj"], pa.float64())}
    )
    if form == "parquet":
        pq.write_table(table, path)
    elif form in {"csv", "tsv"}:
        pacsv.write_csv(table, path, pacsv.WriteOptions(delimiter="," if form == "csv" else "\t"))
    else:
        targets, genes = ["AARS", "NA", "CD4"], ["ASNS", "H2AFZ", "GAPDH"]
        layers = {name: np.full((3, 3), np.nan) for name in ("lfc", "padj")}
        for target, gene, _, lfc, padj in ROWS:
            at = targets.index(target), genes.index(gene)
            layers["lfc"][at], layers["padj"][at] = lfc or np.nan, padj or np.nan
        obs = pd.DataFrame({"target": targets, "line": ["K-562", "THP-1", "THP-1"]}, index=list("abc"))
        anndata.AnnData(
            np.zeros((3, 3)), obs, pd.DataFrame({"gene": genes}, index=list("xyz")), layers=layers
        ).write_h5ad(path)
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "h5ad"])
def test_your_own_screen_is_read_by_named_columns(bundled_store: ArtifactStore, tmp_path: Path, form: str) -> None:
    store = with_genes(bundled_store, tmp_path)
    own = {
        "name": "my-screen",
        "file": write_own(tmp_path, form),
        "columns": {
            "perturbation": "target",
            "measured_gene": "gene",
            "cell_line": "line",
            "log_fold_change": "lfc",
            "adjusted_p": "padj",
        },
        "min_abs_log_fold_change": 0.5,
        "license": "ours",
    }
    settings = build.Settings.model_validate({"perturbqa": False, "screens": [own]})
    manifest = build.build(store, Sources(None, tmp_path, offline=True), progress=silent, settings=settings)
    assert manifest.counts["my-screen.k562.pairs"] == 3
    assert manifest.counts["my-screen.k562.responding"] == 1
    assert manifest.license == "ours"
    assert manifest.sources[0].sha256
    lookup = open_verifier(store)
    outcomes = lookup.score(
        [
            Item(direction("AARS1", "ASNS"), answer=True),
            Item(de("AARS1", "H2AZ1"), answer=False),
            Item(de("AARS1", "GAPDH"), answer=False),
            Item(de("CD4", "ASNS", "thp1"), answer=True),
        ]
    )
    assert [outcome.value for outcome in outcomes if isinstance(outcome, Scored)] == [1.0, 1.0, 1.0]
    assert isinstance(outcomes[3], NotApplicable), "a row without numbers was not measured"
    assert "(my-screen)" in outcomes[0].evidence[0].text


TARGET_GENE = {"perturbation": "target", "measured_gene": "gene"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"columns": {"perturbation": "target", "measured_gene": "gene", "label": "seen"}},
            r"own\.csv has no column seen; there are: target, gene, line, lfc, padj",
        ),
        (
            {"columns": {"perturbation": "target", "measured_gene": "gene", "label": "lfc"}},
            r'in column lfc holds the label "1\.2"; expected 0 or 1',
        ),
        ({"file": "nowhere.csv"}, "nowhere.csv is no file"),
    ],
)
def test_a_screen_that_cannot_be_read_says_why(
    bundled_store: ArtifactStore, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    own = {
        "name": "my-screen",
        "file": write_own(tmp_path, "csv"),
        "cell_line": "k562",
        "columns": TARGET_GENE | {"label": "padj"},
        "license": "ours",
    }
    settings = build.Settings.model_validate({"perturbqa": False, "screens": [own | changes]})
    with pytest.raises(ArtifactError, match=message):
        build.build(
            with_genes(bundled_store, tmp_path),
            Sources(None, tmp_path, offline=True),
            progress=silent,
            settings=settings,
        )


def test_settings_that_make_no_sense_are_refused() -> None:
    columns = {"perturbation": "a", "measured_gene": "b", "label": "c"}
    good = {"name": "mine", "file": "x.csv", "cell_line": "k562", "columns": columns, "license": "ours"}
    build.Settings.model_validate({"screens": [good]})
    for wrong in (
        {"columns": {**columns, "log_fold_change": "d"}},
        {"columns": {"perturbation": "a", "measured_gene": "b", "adjusted_p": "d"}},
        {"cell_line": ""},
        {"columns": {**columns, "cell_line": "d"}},
        {"name": "perturbqa"},
        {"name": "../x"},
        {"max_adjusted_p": 0},
        {"unknown": 1},
    ):
        with pytest.raises(ValidationError):
            build.Settings.model_validate({"screens": [good | wrong]})


def test_gene_sets_are_asked_under_perturbqas_names(real_store: ArtifactStore) -> None:
    with (data_folder() / "perturbqa" / "k562_set-de.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    chosen = random.Random(5).sample(rows, 200)
    outcomes = open_verifier(real_store).score([Item(de(row["pert"], row["gene"]), answer=True) for row in chosen])
    scored = [
        (outcome.value, float(row["label"]))
        for outcome, row in zip(outcomes, chosen, strict=True)
        if isinstance(outcome, Scored)
    ]
    assert len(scored) >= 195
    assert all(value == label for value, label in scored)


def test_lines_agree_on_shared_pairs_as_published(real_store: ArtifactStore) -> None:
    quality = real_store.manifest("experimental").quality
    assert quality["differential_expression.yes_if_yes"] > 0.7
    assert quality["differential_expression.yes_if_no"] < 0.1
