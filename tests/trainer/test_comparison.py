"""Recipes compared: the paired interval, what it allows to say, the control, and the command, which resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from bioverify import recipes
from bioverify.core.tasks import TaskKind
from bioverify_trainer.cli import app
from bioverify_trainer.comparison import (
    ALL_LINES,
    NOT_ESTABLISHED,
    Curve,
    Setting,
    as_table,
    candidates,
    run_of,
    summaries,
    summary,
)
from bioverify_trainer.comparison_page import write_comparison
from bioverify_trainer.evaluate import tables
from bioverify_trainer.evaluate.questions import Rows, Screens
from bioverify_trainer.model import gene_vectors
from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import RunError
from tests.trainer.conftest import question_table

N_GENES, N_PERTURBATIONS = 30, 60


def simulated_rows(rng):
    """Every gene measured under every perturbation, a third of them positive."""
    screens = Screens.read(question_table())
    n = N_GENES * N_PERTURBATIONS
    gene, perturbation = np.divmod(np.arange(n), N_PERTURBATIONS)
    label = (rng.random(n) < 1 / 3).astype(np.int64)
    return Rows(
        screens, TaskKind.DIFFERENTIAL_EXPRESSION, np.zeros(n, np.int64), perturbation, gene % len(screens.genes), label
    )


def belief(rows, rng, signal, shared):
    """``shared``: what makes a perturbation hard for every model; own noise comes on top, per row and perturbation."""
    own = rng.normal(size=N_PERTURBATIONS)[rows.perturbation] + rng.normal(size=len(rows))
    return signal * rows.label + shared[rows.perturbation] + own / 2


def two(rng, first, second):
    rows = simulated_rows(rng)
    shared = rng.normal(size=N_PERTURBATIONS)
    found = {
        "one": [run_of(rows, belief(rows, rng, first, shared))],
        "other": [run_of(rows, belief(rows, rng, second, shared))],
    }
    return summary(found)


def test_a_paired_interval_covers_the_difference_of_two_equals_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [two(rng, 0.5, 0.5)[1].verdict == NOT_ESTABLISHED for _ in range(300)]
    assert 0.91 < np.mean(covered) < 0.985


def test_a_difference_is_known_better_than_what_it_is_a_difference_of():
    one, other = two(np.random.default_rng(1), 0.5, 0.5)
    alone = np.hypot(one.auc.high - one.auc.value, other.auc.high - other.auc.value)
    assert 0 < other.difference.high - other.difference.value < 0.8 * alone


def test_what_is_said_of_a_difference_is_what_its_interval_allows():
    rng = np.random.default_rng(2)
    assert two(rng, 0.5, 1.5)[1].verdict == "better"
    assert two(rng, 1.5, 0.5)[1].verdict == "worse"
    first, same = two(rng, 0.5, 0.5)
    assert (first.verdict, same.verdict) == ("", NOT_ESTABLISHED)


def test_the_figure_of_several_seeds_is_their_mean_and_each_is_shown():
    rng = np.random.default_rng(3)
    rows = simulated_rows(rng)
    shared = rng.normal(size=N_PERTURBATIONS)
    runs = [run_of(rows, belief(rows, rng, 0.5, shared), without_variance=0.25, seconds=30) for _ in range(3)]
    [found] = summary({"only": runs})
    assert found.auc.value == pytest.approx(np.mean(found.per_seed))
    assert found.per_seed == [run.auc for run in runs]
    text = tables.markdown(as_table([found]))
    assert all(f"{auc:.3f}".lstrip("0") in text for auc in found.per_seed)
    assert "25.0%" in text


def test_a_policy_that_has_no_control_is_refused_with_the_option_that_leaves_it_out():
    with pytest.raises(RunError, match="--no-control"):
        candidates([recipes.load("rbio1-exp")], load_preset("cpu"), with_control=True)


def test_the_control_has_the_same_vectors_on_other_genes(bundled_store, tmp_path):
    own = gene_vectors.make(bundled_store, tmp_path)
    control = gene_vectors.make(bundled_store, tmp_path, gene_vectors.SHUFFLED)
    assert json.loads((own / "tokenizer.json").read_text()) == json.loads((control / "tokenizer.json").read_text())
    right, shuffled = (
        load_file(folder / "model.safetensors")["vectors"].numpy()[len(gene_vectors.WORDS) :]
        for folder in (own, control)
    )
    stays = (right == shuffled).all(axis=1)
    assert stays.mean() < 0.01
    known = {row.tobytes() for row in right}
    assert np.mean([row.tobytes() in known for row in shuffled]) > 0.8


def two_lines(rng, signals):
    """Recipes by their ``signals`` in two lines, one seed, with the same perturbations in both."""
    rows = simulated_rows(rng)
    shared = rng.normal(size=N_PERTURBATIONS)
    runs = {}
    for line, setting in enumerate((Setting("de", "k562"), Setting("de", "rpe1"))):
        of_line = replace(rows, line=np.full(len(rows), line))
        runs[setting] = {name: [run_of(of_line, belief(rows, rng, one, shared))] for name, one in signals.items()}
    return runs


def test_over_lines_the_genes_of_all_count_and_a_perturbation_is_one_in_all_of_them():
    runs = two_lines(np.random.default_rng(4), {"one": 0.5, "other": 1.5})
    found = {(one.line, one.name): one for one in summaries(runs)}
    assert [line for line, _ in found] == ["K562", "K562", "RPE1", "RPE1", ALL_LINES, ALL_LINES]
    mean = (found["K562", "one"].auc.value + found["RPE1", "one"].auc.value) / 2
    assert found[ALL_LINES, "one"].auc.value == pytest.approx(mean)
    assert found[ALL_LINES, "other"].verdict == "better"
    # What is hard about a perturbation is hard in both lines: twice the rows are not twice the knowledge.
    one, over = (found[line, "one"].auc for line in ("K562", ALL_LINES))
    assert over.high - over.value > (one.high - one.value) / 2**0.5


def test_a_recipe_with_fewer_seeds_is_compared_on_those_that_both_have():
    rng = np.random.default_rng(5)
    rows, shared = simulated_rows(rng), rng.normal(size=N_PERTURBATIONS)
    first = [run_of(rows, belief(rows, rng, signal, shared)) for signal in (0.5, 3.0)]
    [_, found] = summary({"first": first, "other": [run_of(rows, belief(rows, rng, 0.5, shared))], "none yet": []})
    assert found.difference.value == pytest.approx(found.auc.value - first[0].auc)


def test_about_the_direction_a_recipe_asks_the_same_of_the_same_verifiers():
    recipe = recipes.load("lift+exp")
    asked = Setting("direction", "rpe1").recipe_of(recipe)
    assert {source.task_kind for source in asked.sources} == {TaskKind.DIRECTION_OF_CHANGE}
    assert [source.terms for source in asked.sources] == [source.terms for source in recipe.sources]


def test_transfer_trains_on_the_other_lines():
    lines = ("k562", "rpe1", "hepg2", "jurkat")
    preset = load_preset("gene-vectors")
    own, loose, strict = (
        Setting("de", "rpe1", transfer).preset_of(preset, 7, lines) for transfer in ("none", "loose", "strict")
    )
    assert own.prompts.lines == ("rpe1",)
    assert own.heldout == preset.heldout
    assert loose.prompts.lines == strict.prompts.lines == ("k562", "hepg2", "jurkat")
    assert (loose.prompts.strict, strict.prompts.strict) == (False, True)
    assert {one.grpo.seed for one in (own, loose, strict)} == {7}


def test_the_page_has_each_recipe_and_its_curves_and_says_of_simulated_screens(tmp_path):
    rng = np.random.default_rng(6)
    rows = simulated_rows(rng)
    believed = belief(rows, rng, 0.5, rng.normal(size=N_PERTURBATIONS))
    curve = Curve([(1, 2.5), (2, 2.6)], [(0, 0.5), (2, 0.55)])
    runs = {name: [run_of(rows, believed, curve=curve)] for name in ("one", "<b>other</b>")}
    compared = summaries({Setting("de", "k562"): runs})
    write_comparison(compared, load_preset("gene-vectors"), tmp_path, simulated=True)
    page = (tmp_path / "recipes.html").read_text()
    assert "Simulated screens" in page
    assert "<svg" in page
    assert "&lt;b&gt;other" in page
    assert NOT_ESTABLISHED in page
    [one, other] = json.loads((tmp_path / "recipes.json").read_text())["recipes"]
    assert one["curve"] == {"reward": [[1, 2.5], [2, 2.6]], "auc": [[0, 0.5], [2, 0.55]]}
    assert one["difference"] is None
    assert other["verdict"] == NOT_ESTABLISHED


def test_the_command_trains_each_recipe_once_and_resumes_with_what_is_done(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("BIOVERIFY_HOME", str(stack.home))
    monkeypatch.setenv("BIOVERIFY_MODELS", str(tmp_path / "models"))
    changes = ["grpo.max_steps=2", "grpo.per_device_train_batch_size=64", "heldout=null"]
    command = ["compare-recipes", "rbio1-exp", "rbio1-mlp", "--seeds", "1", "--target", stack.target]
    command += [
        "--questions",
        "64",
        "--output",
        str(tmp_path / "out"),
        *(word for one in changes for word in ("--set", one)),
    ]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/*/model/*")}
    names = ["rbio1-exp", "rbio1-mlp", "rbio1-exp-shuffled-vectors", "rbio1-exp-labels-supervised"]
    assert {path.parts[-5:-3] for path in made} == {("de-k562", name) for name in names}
    table = (tmp_path / "out" / "recipes.md").read_text()
    for name in ("rbio1-exp", "rbio1-mlp", "rbio1-exp, shuffled vectors", "rbio1-exp, labels, supervised"):
        assert f"| de | K562 | {name} |" in table

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "recipes.md").read_text() == table
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/*/model/*")} == made

    other = CliRunner().invoke(app, [*command, "--set", "grpo.beta=0.1"])
    assert other.exit_code == 2
    assert "another preset" in other.output


def test_more_questions_than_a_line_has_are_refused_before_any_training(bundled_store, tmp_path, monkeypatch):
    monkeypatch.setenv("BIOVERIFY_HOME", str(bundled_store.root.parent))
    output = tmp_path / "out"
    command = ["compare-recipes", "rbio1-exp", "--task", "de", "--task", "direction", "--line", "k562"]
    # Of the bundled set 154 genes can be asked about in this way in the first comparison, 44 in the second.
    found = CliRunner().invoke(app, [*command, "--questions", "200", "--per-gene", "2", "--output", str(output)])
    assert found.exit_code == 2
    assert "but only 44" in " ".join(found.output.split())
    assert not output.exists()
