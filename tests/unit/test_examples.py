"""What README, documents, pages and examples/ ask has an answer on a machine without data and without a network."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import open_verifier
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.questions import parse_task
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, Task
from bioverify.core.verifier import Item
from tests.fixtures.artifacts import data_folder

ROOT = Path(__file__).parents[2]
SHOWN = [
    ROOT / "README.md",
    # reading.md shows how a question may be put, mutation.md lines of code: neither asks what is known.
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in {"reading.md", "mutation.md"}),
    *sorted((ROOT / "examples").glob("*.jsonl")),
    *sorted((ROOT / "services/bioverify/gateway").rglob("*.js")),
    ROOT / "services/bioverify/gateway/scoring.py",
    ROOT / "services/bioverify/client/json_form.py",
]
_GENE = r"\"([A-Za-z0-9.-]+)\""
_PYTHON = re.compile(rf"(DifferentialExpression|DirectionOfChange|CoExpression)\({_GENE}, {_GENE}(?:, {_GENE})?\)")
_JSON = re.compile(rf"\"perturbation\": {_GENE}, \"measured_gene\": {_GENE}, \"cell_line\": {_GENE}")
_JSON_PAIR = re.compile(rf"\"gene_a\": {_GENE}, \"gene_b\": {_GENE}")
_KINDS = {kind.__name__: kind for kind in (DifferentialExpression, DirectionOfChange, CoExpression)}


def shown_tasks() -> list[tuple[str, Task]]:
    """Every question in every form, and the file that asks it."""
    found: dict[tuple[str, Task], None] = {}
    for path in SHOWN:
        text = " ".join(path.read_text(encoding="utf-8").split())
        tasks = [parse_task(piece) for piece in re.split(r"(?<=\?)", text)]
        tasks += [_KINDS[kind](*filter(None, genes)) for kind, *genes in _PYTHON.findall(text)]
        tasks += [DifferentialExpression(*names) for names in _JSON.findall(text)]
        tasks += [CoExpression(*names) for names in _JSON_PAIR.findall(text)]
        found |= {(path.name, task): None for task in tasks if task is not None}
    return list(found)


TASKS = shown_tasks()


def test_the_places_that_ask_are_read() -> None:
    asking = {name for name, _ in TASKS}
    assert asking >= {
        "README.md",
        "tutorial.md",
        "http.md",
        "adapters.md",
        "completions.jsonl",
        "score.js",
        "scoring.py",
    }
    assert {type(task) for _, task in TASKS} >= {DifferentialExpression, DirectionOfChange, CoExpression}


@pytest.mark.parametrize(("shown_in", "task"), TASKS, ids=str)
def test_an_example_is_answered_from_what_ships(bundled_store: ArtifactStore, shown_in: str, task: Task) -> None:
    name = "transcriptformer_pmi" if isinstance(task, CoExpression) else "experimental"
    outcome = open_verifier(name, bundled_store).score([Item(task, answer=True)])[0]
    assert isinstance(outcome, Scored), f"{shown_in}: {outcome}"
    assert [one.simulated for one in outcome.evidence] == [name == "experimental"]


@pytest.mark.parametrize(
    ("shown_in", "task"), [(name, task) for name, task in TASKS if not isinstance(task, CoExpression)], ids=str
)
def test_an_example_of_a_screen_is_answered_from_the_real_one_too(
    real_store: ArtifactStore, shown_in: str, task: Task
) -> None:
    outcome = open_verifier("experimental", real_store).score([Item(task, answer=True)])[0]
    assert isinstance(outcome, Scored), f"{shown_in}: {outcome}"
    assert "(PerturbQA train)" in outcome.evidence[0].text


def test_a_co_expression_example_is_of_genes_that_the_tissues_know_as_well() -> None:
    with gzip.open(data_folder() / "knowledge/tissue_expression.tpm.tsv.gz", "rt") as lines:
        known = {line.split("\t")[1] for line in lines}
    asked = {gene for _, task in TASKS if isinstance(task, CoExpression) for gene in task.genes}
    assert {"CD3D", "CD3E"} <= asked <= known


def test_no_simulated_row_is_in_the_co_expression_matrix(bundled_store: ArtifactStore) -> None:
    artifact = bundled_store.open("transcriptformer_pmi")
    assert not artifact.manifest.simulated
    cells, *of_the_check = artifact.manifest.sources
    assert (cells.name, cells.kind) == ("10x_pbmc68k_reduced.h5ad", "bundled")
    assert "go-basic.obo" in {record.name for record in of_the_check}
    # An example gene of the simulated screen that no cell of the bundle expresses is in no matrix.
    outcome = open_verifier("transcriptformer_pmi", bundled_store).score(
        [Item(CoExpression("TRIB3", "CD3D"), answer=True)]
    )[0]
    assert isinstance(outcome, NotApplicable)
