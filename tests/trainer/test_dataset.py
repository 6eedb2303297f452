"""The training prompts: which rows are drawn, in which order, with which labels."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bioverify import recipes
from bioverify.artifacts.perturbqa import read_tables
from bioverify.core.completions import PromptForm
from bioverify.core.recipes import Recipe, Requirement, Source, Term
from bioverify.core.tasks import CoExpression, TaskKind
from bioverify_trainer.dataset import DatasetError, PromptSource, make_dataset, open_prompts, read_task
from bioverify_trainer.prompts import CHAIN_OF_THOUGHT_SUFFIX, GENE_INFO_SYSTEM, RBIO_SYSTEM
from tests.trainer.conftest import question_table

EXP = recipes.load("rbio1-exp")


def test_the_same_seed_gives_the_same_prompts_whatever_was_asked_before():
    whole = make_dataset(PromptSource(question_table(), EXP, seed=7), 50)
    resumed = make_dataset(PromptSource(question_table(), EXP, seed=7), 50)
    # A resumed run starts in the middle.
    later = [resumed[index] for index in range(30, 50)]
    assert later == [whole[index] for index in range(50)][30:]


def test_another_seed_gives_other_prompts():
    first, second = (make_dataset(PromptSource(question_table(), EXP, seed=seed), 30) for seed in (1, 2))
    assert first[:]["task"] != second[:]["task"]


def test_prompts_come_from_the_train_split_only():
    table = question_table()
    test_perturbations = {row["perturbation"] for row in table.to_pylist() if row["split"] == "test"}
    source = PromptSource(table, recipes.load("rbio1-tf+exp"), seed=0)
    drawn = {gene for index in range(400) for gene in source.draw(index).task.genes}
    assert test_perturbations
    assert not drawn & test_perturbations


def real_table(sources):
    rows = read_tables(sources, progress=lambda _said: None).rows
    return rows.append_column("simulated", pa.repeat(pa.scalar(False), rows.num_rows))


def test_no_held_out_pair_or_perturbation_of_the_real_screens_is_ever_drawn(real_sources):
    table = real_table(real_sources)
    held_out = {
        (row["line"], row["perturbation"])
        for row in table.filter(pc.equal(table["split"], "test"))
        .select(["line", "perturbation"])
        .group_by(["line", "perturbation"])
        .aggregate([])
        .to_pylist()
    }
    anywhere = {perturbation for _, perturbation in held_out}
    loose, strict = (PromptSource(table, EXP, seed=0, strict=strict) for strict in (False, True))
    drawn = {(draw.task.cell_line, draw.task.perturbation) for draw in map(loose.draw, range(5000))}
    assert not drawn & held_out
    assert {perturbation for _, perturbation in drawn} & anywhere
    assert not {draw.task.perturbation for draw in map(strict.draw, range(5000))} & anywhere
    assert strict.n_rows < loose.n_rows


def test_a_run_may_be_confined_to_some_lines():
    source = PromptSource(question_table(), recipes.load("rbio1-tf+exp"), seed=0, lines=("k562",))
    draws = [source.draw(index) for index in range(200)]
    assert {draw.task.cell_line for draw in draws if draw.source == "experimental"} == {"k562"}
    assert {draw.source for draw in draws} == {"transcriptformer", "experimental"}


def test_yes_and_no_are_drawn_alike_though_yes_is_rare():
    source = PromptSource(question_table(), EXP, seed=0)
    labels = Counter(source.draw(index).label for index in range(1000))
    # Five standard deviations of a fair coin.
    assert abs(labels[1] - 500) < 80


def test_a_label_belongs_to_its_row():
    labels = {
        (row["perturbation"], row["measured_gene"], row["line"]): row["label"]
        for row in question_table().to_pylist()
        if row["task_kind"] == "differential_expression"
    }
    source = PromptSource(question_table(), EXP, seed=0)
    for draw in map(source.draw, range(100)):
        assert labels[draw.task.perturbation, draw.task.measured_gene, draw.task.cell_line] == draw.label


def test_sources_are_drawn_by_their_shares():
    term = Term(verifier="format", weight=1, requirement=Requirement.REQUIRED)
    kind = TaskKind.DIFFERENTIAL_EXPRESSION
    recipe = Recipe(
        name="mixture",
        terms=(term,),
        sources=(
            Source(name="often", share=0.75, task_kind=kind, terms=()),
            Source(name="seldom", share=0.25, task_kind=kind, prompt_form=PromptForm.GENE_INFO, terms=()),
        ),
    )
    source = PromptSource(question_table(), recipe, seed=0)
    drawn = Counter(source.draw(index).source for index in range(1000))
    assert abs(drawn["often"] - 750) < 70


def test_co_expression_asks_about_the_pairs_that_the_matrix_knows():
    source = PromptSource(question_table(), recipes.load("rbio1-tf"), seed=0)
    for draw in map(source.draw, range(100)):
        assert isinstance(draw.task, CoExpression)
        number = int(draw.task.gene_a.removeprefix("A"))
        assert draw.task.gene_b == f"B{number}"
        assert draw.label == number % 2


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_gives_prompts_whose_task_can_be_read_back(name):
    source = PromptSource(question_table(), recipes.load(name), seed=0)
    row = make_dataset(source, 3, example_turns=1)[1]
    assert read_task(row["task_kind"], row["task"]) == source.draw(1).task
    assert row["prompt"][-1]["content"] == source.draw(1).task.question


def test_the_prompt_is_the_published_one_with_examples_as_earlier_turns():
    source = PromptSource(question_table(), EXP, seed=0)
    plain = make_dataset(source, 1, chain_of_thought=True)[0]["prompt"]
    assert [turn["role"] for turn in plain] == ["system", "user"]
    assert plain[0]["content"] == RBIO_SYSTEM + CHAIN_OF_THOUGHT_SUFFIX
    taught = make_dataset(source, 1, example_turns=1)[0]["prompt"]
    assert [turn["role"] for turn in taught] == ["system", "user", "assistant", "user"]


def test_gene_ontology_prompts_ask_for_gene_info_and_show_it():
    source = PromptSource(question_table(), recipes.load("rbio1-go"), seed=0)
    system, _, example, _ = make_dataset(source, 1, example_turns=1)[0]["prompt"]
    assert system["content"] == GENE_INFO_SYSTEM
    assert example["content"].startswith("<gene_info>")


def test_a_table_without_training_rows_is_refused_by_name():
    table = question_table()
    held_out = table.set_column(5, "split", pa.array(["test"] * table.num_rows))
    with pytest.raises(DatasetError, match="no row of the train split"):
        PromptSource(held_out, EXP, seed=0)


def test_a_table_without_the_asked_kind_names_the_source():
    only_direction = question_table().slice(80)
    with pytest.raises(DatasetError, match=r"source experimental: .* no differential_expression row with label 0"):
        PromptSource(only_direction, EXP, seed=0)


def test_the_artifact_of_the_store_says_that_it_is_simulated(store):
    assert open_prompts(store, EXP, seed=0).simulated
