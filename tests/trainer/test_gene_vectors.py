"""The small policy over gene vectors: what it reads and writes, how it is rewarded, and what a step moves."""

from __future__ import annotations

import math

import pytest
import torch

from bioverify import recipes
from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.vectors import open_vectors
from bioverify.core.answers import parse_answer
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind
from bioverify_trainer.comparison import Setting
from bioverify_trainer.dataset import PromptSource
from bioverify_trainer.evaluate.local import LocalModel, greedy
from bioverify_trainer.evaluate.questions import Screens
from bioverify_trainer.model import gene_vectors
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.one_word import OneWordTrainer, advantages, check, check_recipe
from bioverify_trainer.preset import PromptPreset, load_preset
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records
from bioverify_trainer.train import make_trainer
from tests.trainer.conftest import question_table

RECIPE = recipes.load("rbio1-exp")


@pytest.fixture(scope="module")
def folder(bundled_store, tmp_path_factory):
    return gene_vectors.make(bundled_store, tmp_path_factory.mktemp("models"))


@pytest.fixture
def policy(folder):
    return open_policy(str(folder), dtype=torch.float32)


@pytest.fixture(scope="module")
def tasks(bundled_store):
    rows = Screens.read(open_prompts(bundled_store)[0]).rows(TaskKind.DIFFERENTIAL_EXPRESSION, "test")
    known = open_vectors(bundled_store)
    asked = [rows.task(row) for row in range(200)]
    return [
        task
        for task in asked
        if {known.resolver.resolve(task.perturbation), known.resolver.resolve(task.measured_gene)} <= set(known.symbols)
    ][:40]


def asked(policy, tasks):
    model = LocalModel(policy, PromptPreset(), max_tokens=3, samples=1, temperature=0)
    return [sample for [sample] in model(tasks)]


def ids_of(policy, tasks):
    return torch.tensor(policy.tokenizer([task.question for task in tasks], add_special_tokens=False)["input_ids"])


def with_opinions(policy, tasks):
    """Not even, as training leaves it, but on the whole undecided."""
    torch.manual_seed(1)
    torch.nn.init.normal_(policy.model.perturbed.role.weight, std=0.2)
    policy.model.eval()
    with torch.no_grad():
        log_p = policy.model.answer_log_probabilities(ids_of(policy, tasks))
        policy.model.rate.bias -= (log_p[:, 0] - log_p[:, 1]).mean()


def about_direction(tasks):
    return [DirectionOfChange(task.perturbation, task.measured_gene, task.cell_line) for task in tasks]


def test_a_question_is_its_genes_the_line_and_what_is_asked_of_them(policy, tasks):
    for asked_about, kind in ((tasks, "<responds>"), (about_direction(tasks), "<direction>")):
        for task, ids in zip(asked_about, ids_of(policy, asked_about).tolist(), strict=True):
            expected = [task.perturbation, task.cell_line, task.measured_gene, kind]
            assert policy.tokenizer.convert_ids_to_tokens(ids) == expected


def test_each_gene_of_the_screens_stands_on_its_own_vector(policy, tasks, bundled_store):
    known = open_vectors(bundled_store)
    of_model = policy.model.vectors.numpy()
    for task, (perturbed, _, measured, _) in zip(tasks, ids_of(policy, tasks).tolist(), strict=True):
        for gene, token in ((task.perturbation, perturbed), (task.measured_gene, measured)):
            own = known.vectors[known.symbols.index(known.resolver.resolve(gene))]
            length = (own**2).sum() ** 0.5
            cosine = own @ of_model[token] / length
            assert cosine / (of_model[token] ** 2).sum() ** 0.5 == pytest.approx(1, abs=1e-5)


def test_a_new_policy_writes_the_asked_form_and_holds_yes_and_no_alike(policy, tasks):
    for sample in asked(policy, tasks):
        assert sample.completion in {"<answer> yes </answer>", "<answer> no </answer>"}
        assert sample.p_yes == 0.5


def test_a_question_about_the_direction_is_answered_in_its_own_words(policy, tasks):
    with_opinions(policy, tasks)
    tasks = about_direction(tasks)
    seen = policy.model.answer_log_probabilities(ids_of(policy, tasks))[:, 0].exp().tolist()
    for p, sample in zip(seen, asked(policy, tasks), strict=True):
        assert sample.completion == f"<answer> {'increase' if p > 0.5 else 'decrease'} </answer>"
        assert parse_answer(sample.completion, TaskKind.DIRECTION_OF_CHANGE) == int(p > 0.5)
        assert sample.p_yes == pytest.approx(p, abs=1e-5)
    # Alone, most of the question is what the prompts begin with, and the model is shown the rest.
    assert asked(policy, tasks[:1])[0].completion == asked(policy, tasks)[0].completion


def test_held_out_questions_are_answered_by_one_pass_as_they_are_written(policy, tasks):
    with_opinions(policy, tasks)
    for asked_about in (tasks, about_direction(tasks)):
        told = [sample for [sample] in greedy(policy, PromptPreset(), max_tokens=3)(asked_about)]
        written = asked(policy, asked_about)
        assert [sample.completion for sample in told] == [sample.completion for sample in written]
        assert [sample.p_yes for sample in told] == pytest.approx([sample.p_yes for sample in written], abs=1e-5)


def test_what_training_sees_is_what_asking_sees_whatever_the_company(policy, tasks):
    with_opinions(policy, tasks)
    seen = policy.model.answer_log_probabilities(ids_of(policy, tasks))[:, 0].exp().tolist()
    assert max(seen) - min(seen) > 0.1
    together = asked(policy, [*tasks, DifferentialExpression("no such gene at all", "ASNS", "k562")])
    for p, task, sample in zip(seen, tasks, together, strict=False):
        assert sample.p_yes == pytest.approx(p, abs=1e-5)
        assert asked(policy, [task])[0].p_yes == pytest.approx(p, abs=1e-5)
        assert sample.completion == f"<answer> {'yes' if p > 0.5 else 'no'} </answer>"


def test_what_is_learned_of_a_measured_gene_is_told_of_it_alone(policy, tasks):
    with_opinions(policy, tasks)
    ids = ids_of(policy, tasks)
    before = policy.model.answer_log_probabilities(ids)
    learned = int(ids[0, 2])
    with torch.no_grad():
        policy.model.learned.weight[learned] = 1.0
    is_moved = (policy.model.answer_log_probabilities(ids) != before).any(dim=1)
    assert is_moved.tolist() == (ids[:, 2] == learned).tolist()


def test_a_saved_policy_opens_with_the_same_answers(policy, tasks, tmp_path):
    with_opinions(policy, tasks)
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = open_policy(str(tmp_path), dtype=torch.float32)
    assert [sample.p_yes for sample in asked(again, tasks)] == [sample.p_yes for sample in asked(policy, tasks)]


@pytest.mark.parametrize("scaling", ["group", "batch", "none"])
def test_counted_answers_have_the_advantages_of_the_members_they_stand_for(scaling):
    """The reference is TRL's arithmetic, member by member; the third group was not scored and has no members."""
    rewards = torch.tensor([[2.0, 1.0], [0.3, 0.9], [0.0, 0.0], [1.0, 1.0]])
    counts = torch.tensor([[3.0, 5.0], [7.0, 1.0], [0.0, 0.0], [8.0, 0.0]])
    groups = [
        [value for value, n in zip(group.tolist(), of_group.tolist(), strict=True) for _ in range(int(n))]
        for group, of_group in zip(rewards, counts, strict=True)
    ]
    everyone = torch.tensor([value for group in groups for value in group])
    found, deviation = advantages(rewards, counts, scaling)
    for row in (0, 1, 3):
        members = torch.tensor(groups[row])
        divisor = {"group": members.std() + 1e-4, "batch": everyone.std() + 1e-4, "none": 1.0}[scaling]
        assert deviation[row].item() == pytest.approx(members.std().item(), abs=1e-6)
        for word in (0, 1):
            if counts[row, word]:
                expected = float((rewards[row, word] - members.mean()) / divisor)
                # Scaled by the batch, TRL, too, takes the group's mean away and divides by the batch's deviation.
                assert found[row, word].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "change",
    ["grpo.gradient_accumulation_steps=2", "grpo.temperature=0.7", "grpo.loss_type=dr_grpo", "launcher.processes=2"],
)
def test_a_preset_that_asks_for_more_than_one_pass_is_refused_by_its_key(change):
    with pytest.raises(RunError, match=change.partition("=")[0]):
        check(load_preset("gene-vectors", [change]))


def test_what_has_no_words_and_what_has_no_labels_is_refused_by_its_source():
    preset = load_preset("gene-vectors")
    for recipe, how, why in (
        ("rbio1-tf", preset, "transcriptformer.*no words for co_expression"),
        ("lift", preset.model_copy(update={"learn_from": "labels"}), "source lift, were not measured"),
    ):
        with pytest.raises(RunError, match=why):
            check_recipe(recipes.load(recipe), how)
    check_recipe(recipes.load("consensus"), preset)


def small(seed, steps, *more):
    changes = (f"grpo.seed={seed}", f"grpo.max_steps={steps}", "heldout=null", "prompts.lines=[]", *more)
    return load_preset("gene-vectors", list(changes))


def trained(policy, preset, stack, tmp_path, recipe=RECIPE, resume=None):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(exist_ok=True)
    table, _ = open_prompts(ArtifactStore(stack.home / "artifacts"))
    prompts = PromptSource(table, recipe, seed=preset.grpo.seed, balance=preset.prompts.balance)
    trainer = make_trainer(recipe, preset, policy, prompts, target=stack.target, folder=folder)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return list(read_records(folder.metrics_file))


def test_two_steps_by_the_live_services_move_the_towers_and_leave_the_vectors(policy, stack, tmp_path):
    vectors = policy.model.vectors.clone()
    records = trained(policy, small(0, 2, "grpo.per_device_train_batch_size=512"), stack, tmp_path)
    assert [record["step"] for record in records] == [1, 2]
    assert all(record["reward_call/unscorable"] == 0 for record in records)
    assert all(math.isfinite(record["loss"]) and record["frac_reward_zero_std"] < 0.2 for record in records)
    # At even odds half of the answers agree with the label: weight 2 on top of what all have for their form.
    assert 0.4 < records[0]["value/experimental"] < 0.6
    assert policy.model.perturbed.role.weight.abs().sum() > 0
    assert torch.equal(policy.model.vectors, vectors)


def test_questions_are_used_again_scored_once_and_once_more_after_a_resume(folder, stack, tmp_path, monkeypatch):
    asked = []
    scored = OneWordTrainer._rewards

    def noted(self, columns, counts):
        asked.append(columns["prompt_id"][0])
        assert (counts == 1).all()  # both answers, whichever were drawn
        return scored(self, columns, counts)

    monkeypatch.setattr(OneWordTrainer, "_rewards", noted)
    changes = ("per_device_train_batch_size=512", "num_iterations=2", "save_steps=2", "save_total_limit=2")
    preset = small(0, 4, *(f"grpo.{change}" for change in changes))
    whole, resumed = (open_policy(str(folder), dtype=torch.float32) for _ in range(2))
    trained(whole, preset, stack, tmp_path)
    assert asked == ["0-0", "0-64", "0-128", "0-192"]
    asked.clear()
    trained(resumed, preset, stack, tmp_path, resume=tmp_path / "run" / "checkpoints" / "checkpoint-2")
    assert asked == ["0-64", "0-128", "0-192"]
    for name, weights in resumed.model.named_parameters():
        assert torch.equal(weights, whole.model.get_parameter(name)), name


def test_two_steps_about_the_direction_are_rewarded_for_its_words(policy, stack, tmp_path):
    recipe = Setting("direction", "k562").recipe_of(RECIPE)
    changes = ("grpo.per_device_train_batch_size=512", "prompts.balance=label")
    records = trained(policy, small(0, 2, *changes), stack, tmp_path, recipe)
    assert all(record["reward_call/unscorable"] == 0 for record in records)
    assert all(record["watch/unread"] == 0 for record in records)
    assert 0.4 < records[0]["value/experimental"] < 0.6


def test_labels_teach_by_cross_entropy_and_their_rewards_are_recorded(policy, stack, tmp_path):
    preset = small(0, 2, "grpo.per_device_train_batch_size=512", "learn_from=labels")
    records = trained(policy, preset, stack, tmp_path)
    assert records[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert 0.4 < records[0]["value/experimental"] < 0.6
    assert policy.model.perturbed.role.weight.abs().sum() > 0


def test_a_step_without_any_score_leaves_the_weights_as_they_are(policy, lasting_target, tmp_path):
    """No verifier ``experimental`` is there, which the recipe requires."""
    preset = small(0, 1, "grpo.per_device_train_batch_size=64", "rewards.max_unscorable_share=1")
    before = {name: one.clone() for name, one in policy.model.named_parameters()}
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    prompts = PromptSource(question_table(), RECIPE, seed=0)
    make_trainer(RECIPE, preset, policy, prompts, target=lasting_target, folder=folder).train()
    [record] = read_records(folder.metrics_file)
    assert record["reward_call/unscorable"] == 1
    assert all(torch.equal(before[name], one) for name, one in policy.model.named_parameters())
