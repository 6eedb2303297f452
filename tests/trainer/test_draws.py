"""Which questions a step trains on: the unscorable is left out, what has nothing to compare drawn again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify_trainer.dataset import PromptSource, open_prompts, rows_of
from bioverify_trainer.draws import NEVER_SCORABLE, REPLACED, WRITTEN_AGAIN, ScorableRows
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.reward import WAITED
from bioverify_trainer.runs.folder import RunFolder, read_records
from bioverify_trainer.train import make_trainer
from tests.fixtures import servers
from tests.trainer.conftest import question_table
from tests.trainer.two_ranks import half_alike

LOOKUP = Recipe(name="lookup-alone", terms=(Term(verifier="lookup", weight=2, requirement=Requirement.REQUIRED),))


def with_perturbations(names):
    """The questions of the tests, their perturbations replaced in turn."""
    table = question_table()
    column = table.schema.get_field_index("perturbation")
    values = [names[row % len(names)] for row in range(table.num_rows)]
    return table.set_column(column, "perturbation", pa.array(values))


def scorable(table, recipe, target, *, seed=0, deadline_s=5.0):
    return ScorableRows(rows_of(PromptSource(table, recipe, seed=seed)), target, recipe, deadline_s=deadline_s)


def perturbations(rows):
    return [json.loads(row["task"])["perturbation"] for row in rows]


FIRST = [(index, 0) for index in range(40)]


def test_a_question_that_a_required_verifier_does_not_know_gives_way_to_the_next_draw(lasting_target):
    table = with_perturbations(["P1", "UNKNOWN", "P2"])
    rows, left_out = scorable(table, LOOKUP, lasting_target)(FIRST)
    assert [row["index"] for row in rows] == list(range(40))
    assert set(perturbations(rows)) == {"P1", "P2"}
    assert left_out == sum(row["again"] for row in rows) > 5
    source = PromptSource(table, LOOKUP, seed=0)
    for row in rows:
        # It is the first that could be scored.
        skipped = [source.draw(row["index"], again).task.perturbation for again in range(row["again"])]
        assert set(skipped) <= {"UNKNOWN"}
        assert row["prompt_id"] == source.draw(row["index"], row["again"]).prompt_id
    assert len({row["prompt_id"] for row in rows}) == 40
    # Whoever resumes asks the same.
    assert scorable(table, LOOKUP, lasting_target)(FIRST[20:])[0] == rows[20:]


EITHER = Recipe(
    name="text-or-lookup",
    terms=(
        Term(verifier="text", weight=1, requirement=Requirement.REQUIRED),
        Term(verifier="lookup", weight=2, requirement=Requirement.OPTIONAL),
    ),
)


@pytest.mark.parametrize(
    ("names", "recipe"),
    [
        pytest.param(["P1", "UNKNOWN"], EITHER, id="another-term-scores-it"),
        pytest.param(["P1", "RAISES"], LOOKUP, id="a-fault-is-no-fact"),
    ],
)
def test_nothing_else_rules_a_question_out(lasting_target, names, recipe):
    rows, left_out = scorable(with_perturbations(names), recipe, lasting_target)(FIRST)
    assert left_out == 0
    assert not any(row["again"] for row in rows)
    assert set(perturbations(rows)) == set(names)


def test_services_that_are_away_rule_no_question_out():
    table = with_perturbations(["P1", "UNKNOWN"])
    rows, left_out = scorable(table, LOOKUP, f"127.0.0.1:{servers.free_port()}", deadline_s=0.5)(FIRST)
    assert left_out == 0
    assert set(perturbations(rows)) == {"P1", "UNKNOWN"}


def test_where_every_question_is_unknown_the_search_ends(lasting_target):
    rows, left_out = scorable(with_perturbations(["UNKNOWN"]), LOOKUP, lasting_target)(FIRST[:3])
    assert len(rows) == 3
    assert left_out == 3 * rows[0]["again"] > 0


@pytest.fixture
def run(tiny_preset, store, lasting_target, tmp_path):
    """Trains a few steps of four groups whose answers are made up; trainer, metrics and calls for rewards."""

    def trained(redraws, *, name="", steps=4, write=half_alike, resume=None, target=lasting_target, **rewards):
        preset = tiny_preset.model_dump(mode="json")
        preset["grpo"] |= {"per_device_train_batch_size": 16, "max_steps": steps}
        preset["prompts"] |= {"redraws": redraws}
        preset["rewards"] |= rewards
        preset = type(tiny_preset).model_validate(preset)
        folder = RunFolder(tmp_path / (name or f"run-{redraws}"))
        folder.path.mkdir(exist_ok=True)
        prompts = open_prompts(store, LOOKUP, seed=0)
        policy = open_policy(preset.policy.model, dtype=torch.float32)
        trainer = make_trainer(LOOKUP, preset, policy, prompts, target=target, folder=folder)
        trainer._generate_single_turn = write(trainer)
        calls = []
        [reward] = trainer.reward_funcs

        def recorded(**arguments):
            rewards = reward(**arguments)
            texts = [completion[-1]["content"] for completion in arguments["completions"]]
            calls.append((int(arguments["trainer_state"].global_step), arguments["prompt_id"], texts, rewards))
            return rewards

        trainer.reward_funcs[0] = recorded
        trainer.train(resume_from_checkpoint=resume)
        return trainer, read_records(folder.metrics_file), calls

    return trained


def test_redraws_raise_the_share_of_groups_that_teach(run, capsys):
    _, plain, plain_calls = run(0)
    _, drawn, calls = run(3)
    with capsys.disabled():
        for name, records in (("without", plain), ("with 3 redraws", drawn)):
            shares = [1 - record["frac_reward_zero_std"] for record in records]
            print(f"\n{name}: groups that teach {shares}", end="")
    before, after = (sum(record["frac_reward_zero_std"] for record in records) for records in (plain, drawn))
    assert before > 1
    assert after < 0.5 * before
    for one, other in zip(plain, drawn, strict=True):
        # The same questions first, and the figures are theirs.
        assert other["frac_reward_zero_std"] == pytest.approx(one["frac_reward_zero_std"] - other[REPLACED])
        assert REPLACED not in one
        for figure in ("reward", "value/lookup", "completions/mean_length", "reward_call/unscorable", "num_tokens"):
            assert other[figure] == pytest.approx(one[figure], rel=1e-6), figure
        assert other[WRITTEN_AGAIN] >= other[REPLACED]
    firsts = [call for number, call in enumerate(calls) if number == 0 or calls[number - 1][0] != call[0]]
    assert [call[:3] for call in firsts] == [call[:3] for call in plain_calls]
    # Of every further call all questions are new ones.
    assert len(calls) > len(plain_calls)
    seen = Counter(prompt for _, prompts, _, _ in calls for prompt in prompts)
    assert set(seen.values()) == {4}
    assert not any(record[NEVER_SCORABLE] for record in drawn)


def test_what_is_trained_on_is_what_was_written_for_the_question_and_its_reward(run):
    trainer, _, calls = run(3, steps=1)
    told = {}
    for _, prompts, texts, rewards in calls:
        for place, (prompt, text, reward) in enumerate(zip(prompts, texts, rewards, strict=True)):
            told[prompt, place % 4] = text, reward
    known = trainer._known
    asked = [member.question["prompt_id"] for member in known.members]
    assert any(prompt.count("-") == 2 for prompt in asked)
    for row, (prompt, member) in enumerate(zip(asked, known.members, strict=True)):
        text, reward = told[prompt, row % 4]
        assert member.completion[-1]["content"] == text
        assert float(known.rewards[row, 0]) == pytest.approx(reward)
        template = trainer.processing_class.apply_chat_template
        ids = template(member.question["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert member.prompt_ids == ids


def test_groups_that_stay_alike_keep_the_question_first_drawn(run):
    trainer, records, _ = run(2, steps=1, write=lambda _: lambda ids, *_, **__: ([[9, 10]] * len(ids), None))
    assert [member.question["again"] for member in trainer._known.members] == [0] * 16
    assert records[0][REPLACED] == 0
    assert records[0][WRITTEN_AGAIN] == 2
    assert records[0]["frac_reward_zero_std"] == 1


def test_a_resumed_run_draws_the_same_questions_again(run, tmp_path):
    _, _, calls = run(2, name="whole")
    _, _, resumed = run(2, name="resumed", resume=str(tmp_path / "whole" / "checkpoints" / "checkpoint-2"))
    later = [call for call in calls if call[0] >= 2]
    assert later == resumed
    assert len(later) > 2
    weights = [
        load_file(tmp_path / name / "checkpoints" / "checkpoint-4" / "model.safetensors")
        for name in ("whole", "resumed")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_step_without_any_reward_is_not_drawn_again(run):
    """The services are away: another question would have no reward either."""
    dead = f"127.0.0.1:{servers.free_port()}"
    _, records, calls = run(3, steps=1, target=dead, deadline_s=0.5)
    assert [len(prompts) for _, prompts, _, _ in calls] == [16]
    assert records[0]["reward_call/unscorable"] == 1
    assert records[0][REPLACED] == records[0][WRITTEN_AGAIN] == 0
    assert records[0][WAITED] == 0


@pytest.mark.slow
def test_two_processes_draw_the_questions_again_that_one_would(tiny_preset, store, lasting_target, tmp_path):
    """Groups of three on two processes, four of them: an odd number of groups cannot be written by both alike."""
    weights, records, groups = {}, {}, {}
    for ranks in (1, 2):
        preset = tiny_preset.model_dump(mode="json")
        preset["grpo"] |= {"per_device_train_batch_size": 12 // ranks, "num_generations": 3, "max_steps": 4}
        preset["grpo"] |= {"save_steps": 100}
        preset["prompts"] |= {"redraws": 2}
        preset["launcher"] |= {"processes": ranks}
        output = tmp_path / f"on-{ranks}"
        settings = {
            "preset": preset,
            "recipe": LOOKUP.model_dump(mode="json"),
            "store": str(store.root),
            "target": lasting_target,
            "output": str(output),
            "half_alike": True,
        }
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
        command += [f"--master-port={servers.free_port()}", "-m", "tests.trainer.two_ranks", json.dumps(settings)]
        done = subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        records[ranks] = read_records(output / "metrics.jsonl")
        weights[ranks] = load_file(output / "model" / "model.safetensors")
        per_rank = [read_records(output / f"rank-{rank}.jsonl") for rank in range(ranks)]
        calls = [[group for line in call for group in line["groups"]] for call in zip(*per_rank, strict=True)]
        groups[ranks] = calls
    assert any(len(call) == 6 and len(other) == 3 for call, other in zip(groups[2], groups[1], strict=False))
    for one, two in zip(records[1], records[2], strict=True):
        assert two[REPLACED] == one[REPLACED]
        assert two["reward"] == pytest.approx(one["reward"], rel=1e-5)
    assert sum(record[REPLACED] for record in records[1])
    apart = max(float((weights[1][name] - weights[2][name]).abs().max()) for name in weights[1])
    assert apart < 1e-5
