"""Cell types and disease states: observations out of an .h5ad, answers matched with labels, figures."""

from __future__ import annotations

import json
import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse
from sklearn.metrics import balanced_accuracy_score, f1_score
from typer.testing import CliRunner

from bioverify_trainer.cli import app
from bioverify_trainer.evaluate.label_measures import NO_LABEL, measure_labels
from bioverify_trainer.evaluate.naming import match, named_label
from bioverify_trainer.evaluate.observations import conversation, question, read_observations
from bioverify_trainer.evaluate.questions import EvaluationError
from bioverify_trainer.preset import PromptPreset

LABELS = ("CD14+ Monocyte", "CD19+ B", "CD4+/CD45RO+ Memory", "CD56+ NK", "CD8+ Cytotoxic T", "Dendritic", "Naive T")


def small_file(path, *, sparse=True):
    """Twelve cells of two kinds: the even ones express the first genes, the odd ones the last."""
    counts = np.zeros((12, 150))
    for cell in range(12):
        counts[cell, (0 if cell % 2 == 0 else 140) + np.arange(10)] = 20 - np.arange(10)
        counts[cell, 20:130] = 1
    cells = anndata.AnnData(scipy.sparse.csr_matrix(counts) if sparse else counts)
    cells.var_names = [f"G{number}" for number in range(150)]
    cells.obs_names = [f"cell-{number}" for number in range(12)]
    cells.obs["kind"] = ["B cell" if cell % 2 == 0 else "T cell" for cell in range(11)] + [None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("CD14+ Monocyte", "CD14+ Monocyte"),
        ("cd14+ monocytes", "CD14+ Monocyte"),
        ("monocyte", "CD14+ Monocyte"),
        ("a dendritic cell", "Dendritic"),
        ("NK cells", "CD56+ NK"),
        ("memory CD4+ CD45RO+ T cell", "CD4+/CD45RO+ Memory"),
        ("It is a CD19+ B cell", "CD19+ B"),
        ("T cell", None),
        ("monocyte or dendritic cell", None),
        ("CD19+ B and CD56+ NK", None),
        ("neuron", None),
        ("", None),
        ("the cell", None),
    ],
)
def test_an_answer_names_a_label_by_its_words(answer, label):
    found = match(answer, LABELS)
    assert (None if found is None else LABELS[found]) == label


def test_a_label_that_holds_all_words_of_another_wins_where_the_answer_has_them():
    assert match("memory T cells of blood", ["T", "memory T"]) == 1
    assert match("T cells", ["T", "memory T"]) == 0


def test_only_one_closed_answer_block_is_an_answer():
    assert named_label("<think> NK </think> <answer> B cell </answer>", LABELS) == LABELS.index("CD19+ B")
    assert named_label("B cell", LABELS) is None
    assert named_label("<answer> B </answer> <answer> NK </answer>", LABELS) is None


@pytest.mark.parametrize("sparse", [True, False])
def test_an_observation_is_told_by_its_most_expressed_genes(tmp_path, sparse):
    found = read_observations(small_file(tmp_path / "cells.h5ad", sparse=sparse), "kind")
    # The twelfth cell has no label.
    assert len(found) == 11
    assert found.labels == ("B cell", "T cell")
    assert found.genes[0][:3] == ("G0", "G1", "G2")
    assert found.genes[1][:3] == ("G140", "G141", "G142")
    # A hundred of the 120 that are expressed; those with as much in the file's order.
    assert {len(genes) for genes in found.genes} == {100}
    assert found.genes[0][10] == "G20"


def test_the_question_is_the_published_one_and_offers_labels_only_if_asked_to():
    turns = conversation("cell-type", ["CD3D", "IL7R"], (), PromptPreset())
    assert turns[-1]["content"].endswith("What do you predict the cell type of this observation to be?")
    assert "CD3D, IL7R" in turns[-1]["content"]
    assert "disease state" in question("disease-state", ["CD3D"], ())
    assert question("cell-type", ["CD3D"], LABELS).endswith("; Naive T.")


def test_wrong_files_and_columns_are_said(tmp_path):
    path = small_file(tmp_path / "cells.h5ad")
    with pytest.raises(EvaluationError, match="has: kind"):
        read_observations(path, "sort")
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(EvaluationError, match=r"text\.h5ad: is no"):
        read_observations(tmp_path / "text.h5ad", "kind")


def test_the_figures_are_scikit_learns_and_no_answer_is_wrong():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 3], 400, p=[0.6, 0.3, 0.1])
    answer = np.where(rng.random(400) < 0.5, label, rng.integers(-1, 5, 400))
    figures = measure_labels(label, answer, resamples=300, seed=0)
    assert figures["accuracy"].value == pytest.approx((label == answer).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert figures["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(label, answer))
    assert figures["macro_f1"].value == pytest.approx(f1_score(label, answer, labels=[0, 1, 3], average="macro"))
    assert figures["coverage"].value == pytest.approx((answer != NO_LABEL).mean())
    for figure in figures.values():
        assert figure.low < figure.value < figure.high
    # About as wide as the standard error of a share says.
    share = figures["accuracy"]
    assert share.high - share.low == pytest.approx(4 * (share.value * (1 - share.value) / 400) ** 0.5, rel=0.15)


def test_a_checkpoint_is_asked_once_and_stands_beside_the_baselines(tiny_policy, tmp_path, monkeypatch):
    cells = small_file(tmp_path / "cells.h5ad")
    command = ["eval", "--model", str(tiny_policy), "--task", "cell-type", "--cells", str(cells), "--label", "kind"]
    command += ["--max-tokens", "4", "--output", str(tmp_path / "eval"), "--questions", "6", "--json", "-"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    results = {result["model"]: result for result in json.loads(first.stdout)["results"]}
    assert set(results) == {str(tiny_policy), "baseline:majority-class", "baseline:nearest-centroid"}
    assert results["baseline:nearest-centroid"]["figures"]["accuracy"]["value"] == 1
    assert results[str(tiny_policy)]["figures"]["coverage"]["value"] == 0
    [answers] = (tmp_path / "eval" / "cell-type").glob("*.jsonl")
    assert len(answers.read_text().splitlines()) == 6
    # What is answered is not asked again, and a line that was cut short is.
    answers.write_bytes(answers.read_bytes()[:-5])
    asked = []
    from bioverify_trainer.evaluate.local import LocalModel

    write = LocalModel.write
    monkeypatch.setattr(LocalModel, "write", lambda self, turns: asked.extend(turns) or write(self, turns))
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert len(asked) == 1
    assert json.loads(again.stdout) == json.loads(first.stdout)
    refused = CliRunner().invoke(app, [*command, "--choices"])
    assert refused.exit_code == 2
    assert "other settings" in refused.output
