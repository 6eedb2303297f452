"""The runs in a folder, and what gives cause to doubt one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bioverify import recipes
from bioverify.client import ItemReward, RewardDetails, RewardPart, ScoreItem
from bioverify.core import alarms
from bioverify.core.outcomes import Scored
from bioverify.core.recipes import Requirement, Term
from bioverify.core.runs import StepFigures
from bioverify.core.tasks import DifferentialExpression
from bioverify_trainer.cli import app
from bioverify_trainer.cli.service import progress_line
from bioverify_trainer.evaluate.questions import EvaluationError
from bioverify_trainer.heldout import held_out_rows
from bioverify_trainer.preset import load_preset, preset_for
from bioverify_trainer.runs import watch
from bioverify_trainer.runs.folder import read_records
from bioverify_trainer.train import train

TASK = DifferentialExpression("AARS", "TRIB3", "k562")


def item(completion):
    return ScoreItem(id="1", completion=completion, task=TASK)


def reward(answer, *beliefs):
    parts = tuple(
        RewardPart(
            Term(verifier=f"v{n}", weight=1, requirement=Requirement.OPTIONAL), Scored(b, belief=b), b, "", False
        )
        for n, b in enumerate(beliefs)
    )
    return ItemReward("1", 1.0, "", RewardDetails(parts, TASK, answer))


def test_the_signs_of_hacking_are_seen():
    empty = "<think> AARS and TRIB3 </think> <answer> yes </answer>"
    reasoned = "<think> Loss of AARS starves the cell, and ATF4 switches on TRIB3. </think> <answer> no </answer>"
    looping = "<think> AARS acts on TRIB3 and so on and so on and so on and so on </think> <answer> yes </answer>"
    items = [item(empty), item(reasoned), item(looping)]
    signs = watch.signs(items, [reward(True, 0.2, 0.9), reward(False, 0.5), reward(True)])
    assert signs["mention_only"] == pytest.approx(1 / 3)
    assert signs["yes_share"] == pytest.approx(2 / 3)
    assert signs["unread"] == 0
    assert signs["disagreement"] == pytest.approx(0.7)
    assert watch.repetition(reasoned) == 0
    assert watch.repetition(looping) > 0.3


def metrics(rewards, held_out):
    records = [{"step": step, "reward": value, alarms.HELD_OUT: None} for step, value in enumerate(rewards, 1)]
    records[0][alarms.BEFORE] = held_out[0]
    records[-1][alarms.HELD_OUT] = held_out[1]
    return records


def test_a_reward_that_rises_alone_raises_the_alarm():
    rising, flat = [1 + step / 10 for step in range(20)], [1.0, 1.1] * 10
    assert "0.500 to 0.500" in alarms.raised(metrics(rising, (0.5, 0.5)))[0]
    assert alarms.raised(metrics(rising, (0.5, 0.6))) == []
    assert alarms.raised(metrics(flat, (0.5, 0.5))) == []
    assert alarms.raised([{"reward": value} for value in rising]) == []


def unread(shares, *, what="thought", reason="no_thought"):
    return [{"step": step, "reward": 1.0, f"not_read/{what}/{reason}": share} for step, share in enumerate(shares, 1)]


def test_what_could_not_be_read_raises_the_alarm_above_a_share_of_the_last_quarter_only():
    at = alarms.MOST_UNREAD
    assert alarms.raised(unread([1.0] * 6 + [at, at])) == []
    [said] = alarms.raised(unread([0.0] * 6 + [at, at + 0.1]))
    assert "Of 30% of the completions of the last 2 steps no thought could be read (no_thought 30%)" in said
    # Reasons add up; a step whose call was lost says nothing of what was read.
    steps = [
        {**one, "not_read/thought/empty_thought": 0.2, "not_read/answer/no_answer_block": 0.2}
        for one in unread([0.2] * 8)
    ]
    [said] = alarms.raised([*steps, {"step": 9, "reward": None, "reward_call/unscorable": 1.0}])
    assert "Of 40% of the completions of the last 2 steps no thought" in said
    assert "no_thought 20%, empty_thought 20%" in said
    [said] = alarms.raised(unread([0.5], what="question", reason="knockout"))
    assert "the question was not read (knockout 50%)" in said
    assert "docs/reading.md" in said


def test_a_step_s_line_says_what_could_not_be_read_and_nothing_of_what_was():
    [step] = unread([0.25])
    assert alarms.unread_shares(
        step | {"not_read/thought/empty_thought": 0.5, "not_read/answer/no_answer_block": 0.0}
    ) == {"no thought": 0.75}
    assert alarms.unread_shares({"reward": 1.0}) == {}


def test_groups_that_are_rewarded_alike_to_the_end_raise_the_alarm_with_what_to_change():
    def steps(*shares):
        return [{"step": step, "reward": 1.0, alarms.ALIKE: share} for step, share in enumerate(shares, 1)]

    [warning] = alarms.raised(steps(*[0.2] * 6, 0.97, 0.99))
    assert "98% of the groups" in warning
    for key in ("grpo.beta", "grpo.scale_rewards: none", "prompts.balance: gene"):
        assert key in warning
    assert alarms.raised(steps(*[0.2] * 6, 0.97, 0.5)) == []
    assert alarms.raised(steps(0.97, 0.99)) == []


def test_held_out_questions_are_of_the_lines_that_are_trained_on(tiny_preset, mixed_store):
    def asked(line, questions=4):
        own = {"heldout": {"every": 2, "questions": questions, "per_gene": 2}, "prompts": {"lines": [line]}}
        preset = type(tiny_preset).model_validate(tiny_preset.model_dump(mode="json") | own)
        return held_out_rows(mixed_store, preset, recipes.load("rbio1-exp"))

    assert len(asked("k562")) == 4
    # A preset may ask for more than a line has genes to ask about.
    assert 4 < len(asked("k562", questions=10_000)) < 10_000
    # All questions of this store are about K562.
    with pytest.raises(EvaluationError, match="only 0 have so many rows"):
        asked("rpe1")


def test_a_models_own_run_says_how_it_is_asked(tiny_preset, tmp_path):
    run = tmp_path / "run"
    own = tiny_preset.model_dump(mode="json") | {"prompts": {"chain_of_thought": True}}
    for folder in (run / "model", run / "checkpoints" / "checkpoint-8", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"preset": own}))
    for model in ("model", "checkpoints/checkpoint-8"):
        assert preset_for(str(run / model), None).prompts.chain_of_thought
    assert preset_for(str(run / "model"), None, ["grpo.temperature=0.5"]).grpo.temperature == 0.5
    assert preset_for(str(run / "model"), "cpu") == load_preset("cpu")
    for other in (str(tmp_path / "elsewhere"), "smollm2", "baseline:gene-rate"):
        assert preset_for(other, None) == load_preset("cpu")


@pytest.fixture
def runs_folder(recipe, tiny_preset, store, lasting_target, tmp_path):
    """Two runs that differ in their seed, the second cut short after its checkpoint."""
    for name, seed in (("first", 0), ("second", 1)):
        changes = {"grpo": tiny_preset.grpo.model_copy(update={"seed": seed}), "tracking": ("tensorboard",)}
        preset = tiny_preset.model_copy(update=changes)
        train(recipe, preset, target=lasting_target, output=tmp_path / "runs" / name, store=store)
    config = tmp_path / "runs" / "second" / "run.json"
    content = json.loads(config.read_text())
    content["preset"]["grpo"]["max_steps"] = 3
    config.write_text(json.dumps(content))
    return tmp_path / "runs"


def test_runs_are_listed_shown_compared_and_resumed(runs_folder, store, monkeypatch):
    def said(*arguments):
        done = CliRunner().invoke(app, ["runs", *map(str, arguments)], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    monkeypatch.setenv("BIOVERIFY_HOME", str(store.root.parent))
    listed = said("list", "--folder", runs_folder)
    assert "first" in listed
    assert "2 of 2" in listed
    assert "2 of 3" in listed
    compared = said("compare", runs_folder / "first", runs_folder / "second")
    assert "preset.grpo.seed" in compared
    assert "preset.grpo.learning_rate" not in compared
    shown = said("show", runs_folder / "first")
    for name in ("source/questions", "frac_reward_zero_std", "entropy", "pace/rewards", "pace/tokens_per_second"):
        assert name in shown
    said("resume", runs_folder / "second")
    assert [record["step"] for record in read_records(runs_folder / "second" / "metrics.jsonl")] == [1, 2, 3]
    assert list((runs_folder / "first").glob("tensorboard/**/events.out.*"))
    refused = CliRunner().invoke(app, ["runs", "show", str(runs_folder)])
    assert refused.exit_code == 2


def test_held_out_questions_are_asked_before_and_during_a_run(
    recipe, tiny_preset, mixed_store, lasting_target, tmp_path
):
    preset = tiny_preset.model_dump(mode="json") | {"heldout": {"every": 2, "questions": 4, "per_gene": 2}}
    with pytest.raises(EvaluationError, match="have so many rows"):
        train(
            recipe,
            type(tiny_preset).model_validate(preset | {"heldout": {"every": 2, "questions": 400, "per_gene": 100}}),
            target=lasting_target,
            output=tmp_path / "none",
            store=mixed_store,
        )
    trained = train(
        recipe,
        type(tiny_preset).model_validate(preset),
        target=lasting_target,
        output=tmp_path / "run",
        store=mixed_store,
    )
    first, second = read_records(trained.folder.metrics_file)
    assert 0 <= first["heldout_before/balanced_accuracy"] <= 1
    assert "heldout/balanced_accuracy" not in first
    assert 0 <= second["heldout/coverage"] <= 1


def test_a_dry_run_shows_a_prompt_and_a_scored_example_of_every_source(stack):
    recipe = "rbio1-tf+go+mlp+exp"
    done = CliRunner().invoke(app, ["train", recipe, "--dry-run", "--target", stack.target], env=stack.environment)
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert [source["source"] for source in plan["sources"]] == [source.name for source in recipes.load(recipe).sources]
    for source in plan["sources"]:
        assert source["prompt"][0]["role"] == "system"
        assert source["example"]["parts"][0]["term"] == "format"
        assert source["example"]["reward"] is None or source["example"]["reward"] > 1
    assert load_preset("cpu").model_dump(mode="json") == plan["preset"]


def test_the_line_of_a_step_says_how_far_the_run_is_and_what_time_is_left():
    figures = {"reward": 1.5, "step_seconds": 30.0, "watch/words": 3.0}
    line = progress_line(StepFigures(3, figures), 12, [20.0, 30.0, 40.0])
    assert line == "step 3 of 12 (25%, 4 min left): reward 1.500, step_seconds 30.000"
    assert "(50%, 60 s left)" in progress_line(StepFigures(6, figures), 12, [10.0])
    assert "(1%, 8.2 h left)" in progress_line(StepFigures(10, figures), 1000, [30.0])
    assert "(100%): " in progress_line(StepFigures(12, figures), 12, [10.0])
    assert progress_line(StepFigures(1, {}), 0, []) == "step 1: "


def test_runs_are_listed_as_json_and_on_80_columns_no_name_is_cut(tmp_path):
    name = "a-run-with-quite-a-long-name-2026-11-29"
    folder = tmp_path / name
    folder.mkdir()
    preset = {"name": "cpu-smollm2-135m", "grpo": {"max_steps": 12}}
    config = {"recipe": {"name": "rbio1-tf+go+mlp+exp"}, "preset": preset, "started_at": "2026-11-29T08:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(config | {"simulated": True}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward": 1.5}\n{"step": 2, "reward": 2.5}\n')

    listed = CliRunner().invoke(app, ["runs", "list", "--folder", str(tmp_path), "--json"])
    (one,) = json.loads(listed.stdout)
    assert (one["name"], one["steps"], one["max_steps"], one["reward"]) == (name, 2, 12, 2.5)
    assert (one["recipe"], one["preset"], one["simulated"]) == ("rbio1-tf+go+mlp+exp", "cpu-smollm2-135m", True)
    assert one["unscorable"] is None

    narrow = subprocess.run(
        [sys.executable, "-m", "bioverify_trainer", "runs", "list", "--folder", str(tmp_path)],
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "…" not in narrow
    lines = narrow.splitlines()[1:]
    width = narrow.splitlines()[0].index("recipe")
    assert "".join(line[:width].strip() for line in lines) == name
