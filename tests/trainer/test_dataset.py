"""The training prompts: which rows are drawn, in which order, with which labels."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bioverify import recipes
from bioverify.artifacts.perturbqa import read_tables
from bioverify.core.completions import PromptForm
from bioverify.core.recipes import Pairs, Recipe, Requirement, Source, Term
from bioverify.core.tasks import CoExpression, TaskKind
from bioverify.wire.rewards import recipe_from_wire, recipe_to_wire
from bioverify_trainer.dataset import DatasetError, PromptSource, make_dataset, open_prompts, read_task, rows_of
from bioverify_trainer.prompts import CHAIN_OF_THOUGHT_SUFFIX, GENE_INFO_SYSTEM, RBIO_SYSTEM
from tests.trainer.conftest import question_table

EXP = recipes.load("rbio1-exp")


def test_the_same_seed_gives_the_same_prompts_whatever_was_asked_before():
    whole = make_dataset(rows_of(PromptSource(question_table(), EXP, seed=7)), 50)
    resumed = make_dataset(rows_of(PromptSource(question_table(), EXP, seed=7)), 50)
    # A resumed run starts in the middle.
    later = [resumed[index] for index in range(30, 50)]
    assert later == [whole[index] for index in range(50)][30:]


def test_another_seed_gives_other_prompts():
    first, second = (make_dataset(rows_of(PromptSource(question_table(), EXP, seed=seed)), 30) for seed in (1, 2))
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


def uneven_table():
    """One line; R responds to all but one of 12 perturbations, S to one, H to half, N to none; P9 to P11 held out."""
    responses = {"R": set(range(12)) - {0}, "S": {1}, "H": set(range(0, 12, 2)), "N": set()}
    rows = [
        {
            "line": "k562",
            "task_kind": "differential_expression",
            "perturbation": f"P{number}",
            "measured_gene": gene,
            "label": int(number in responses[gene]),
            "split": "test" if number > 8 else "train",
            "simulated": True,
        }
        for gene in responses
        for number in range(12)
        # Most pairs of S were never measured.
        if gene != "S" or number < 4
    ]
    table = pa.Table.from_pylist(rows)
    return table.set_column(4, "label", table["label"].cast(pa.int8()))


def test_labels_balanced_within_a_gene_leave_the_gene_without_a_word_on_them():
    source = PromptSource(uneven_table(), EXP, seed=0, balance="gene")
    draws = [source.draw(index) for index in range(3000)]
    for gene, share in (("R", 1 / 6), ("S", 1 / 6), ("H", 4 / 6)):
        labels = [draw.label for draw in draws if draw.task.measured_gene == gene]
        # Weight: min(yes, no), which is 1, 1 and 4 in the training rows. Five standard deviations.
        assert abs(len(labels) / len(draws) - share) < 0.045
        assert abs(sum(labels) / len(labels) - 0.5) < 0.12
    assert "N" not in {draw.task.measured_gene for draw in draws}
    by_row = PromptSource(uneven_table(), EXP, seed=0)
    of_r = [draw.label for draw in map(by_row.draw, range(3000)) if draw.task.measured_gene == "R"]
    assert sum(of_r) / len(of_r) > 0.8


def test_a_draw_balanced_within_a_gene_has_its_rows_label():
    rows = uneven_table().to_pylist()
    labels = {(row["perturbation"], row["measured_gene"]): row["label"] for row in rows}
    source = PromptSource(uneven_table(), EXP, seed=3, balance="gene")
    for draw in map(source.draw, range(300)):
        assert labels[draw.task.perturbation, draw.task.measured_gene] == draw.label


def test_genes_of_one_label_cannot_be_balanced_and_that_is_said():
    one_label_each = uneven_table().filter(pc.is_in(uneven_table()["measured_gene"], pa.array(["N"])))
    table = pa.concat_tables([one_label_each, question_table().filter(pc.equal(question_table()["label"], 1))])
    with pytest.raises(
        DatasetError, match=r"no gene has differential_expression rows of both labels.*prompts\.balance"
    ):
        PromptSource(table, EXP, seed=0, balance="gene")


def any_pairs(**fields):
    source = EXP.sources[0].model_copy(update={"pairs": Pairs.ANY} | fields)
    return EXP.model_copy(update={"sources": (source,)})


@pytest.mark.parametrize("balance", ["label", "gene"])
def test_any_pair_is_of_training_perturbations_and_has_no_label(balance):
    table = uneven_table()
    measured = {(row["perturbation"], row["measured_gene"]) for row in table.to_pylist()}
    source = PromptSource(table, any_pairs(), seed=0, balance=balance)
    draws = [source.draw(index) for index in range(2000)]
    assert {draw.task.perturbation for draw in draws} == {f"P{number}" for number in range(9)}
    assert {draw.label for draw in draws} == {None}
    assert {(draw.task.perturbation, draw.task.measured_gene) for draw in draws} - measured


@pytest.mark.parametrize("balance", ["label", "gene"])
def test_no_test_perturbation_of_the_real_screens_is_drawn_in_any_pair(balance, real_sources):
    table = real_table(real_sources)
    held_out, trained = (
        {
            (row["line"], row["perturbation"])
            for row in table.filter(pc.equal(table["split"], split))
            .group_by(["line", "perturbation"])
            .aggregate([])
            .to_pylist()
        }
        for split in ("test", "train")
    )
    for strict in (False, True):
        source = PromptSource(table, any_pairs(), seed=0, balance=balance, strict=strict)
        draws = [source.draw(index) for index in range(4000)]
        drawn = {(draw.task.cell_line, draw.task.perturbation) for draw in draws}
        assert drawn <= trained
        assert not drawn & held_out
        assert all(draw.task.perturbation != draw.task.measured_gene for draw in draws)
    assert not {perturbation for _, perturbation in drawn} & {perturbation for _, perturbation in held_out}


def test_any_pair_of_co_expressed_genes_is_refused():
    with pytest.raises(ValueError, match="pairs: any needs a question about a knockdown"):
        Source(name="tf", share=1, task_kind=TaskKind.CO_EXPRESSION, pairs=Pairs.ANY, terms=())


def test_a_recipe_says_over_the_wire_which_pairs_it_asks_about():
    assert recipe_from_wire(recipe_to_wire(any_pairs())) == any_pairs()
    assert recipe_from_wire(recipe_to_wire(EXP)) == EXP


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
    row = make_dataset(rows_of(source, example_turns=1), 3)[1]
    assert read_task(row["task_kind"], row["task"]) == source.draw(1).task
    assert row["prompt"][-1]["content"] == source.draw(1).task.question


def test_the_prompt_is_the_published_one_with_examples_as_earlier_turns():
    source = PromptSource(question_table(), EXP, seed=0)
    plain = make_dataset(rows_of(source, chain_of_thought=True), 1)[0]["prompt"]
    assert [turn["role"] for turn in plain] == ["system", "user"]
    assert plain[0]["content"] == RBIO_SYSTEM + CHAIN_OF_THOUGHT_SUFFIX
    taught = make_dataset(rows_of(source, example_turns=1), 1)[0]["prompt"]
    assert [turn["role"] for turn in taught] == ["system", "user", "assistant", "user"]


def test_gene_ontology_prompts_ask_for_gene_info_and_show_it():
    source = PromptSource(question_table(), recipes.load("rbio1-go"), seed=0)
    system, _, example, _ = make_dataset(rows_of(source, example_turns=1), 1)[0]["prompt"]
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
