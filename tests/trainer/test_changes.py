"""What a caller of the training service may change, and that no value takes more than its letters are worth."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from bioverify.runtime.errors import Refused
from bioverify_trainer.preset import Preset, load_preset
from bioverify_trainer.service.changes import KEYS, Allowed

ALIASES = "prompts={a: &a [x,x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]" + "".join(
    f", {name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("bcdefg", "cdefgh", strict=True)
)


def refused(change: str, allowed: Allowed = Allowed()) -> str:  # noqa: B008 - it has no state
    with pytest.raises(Refused) as caught:
        allowed.checked(["grpo.seed=1", change])
    [(field, problem)] = caught.value.refusal.violations
    assert field == "changes[1]"
    assert len(caught.value.refusal.message) < 5000
    return problem


@pytest.mark.parametrize(
    "change",
    [
        "policy.model=/etc", "policy.model=somebody/their-model", 'policy.model="../x"', "policy={}",
        "grpo.vllm_server_base_url=http://evil.example", "grpo.vllm_mode=server", "grpo={}", "grpo.output_dir=/tmp/x",
        "grpo.resume_from_checkpoint=/tmp", "grpo.push_to_hub=true", "grpo.hub_token=x", "grpo.fsdp=full_shard",
        "launcher.deepspeed={}", "launcher.deepspeed.x=1", "launcher={}", "launcher.processes=1000",
        'tracking=["wandb"]',
        "name=x", "__class__=1", "grpo.__init__=1", "", "=", "grpo.max_steps", "grpo..max_steps=1", ".=1",
    ],
)  # fmt: skip
def test_what_names_a_path_an_address_or_a_hub_cannot_be_changed(change: str) -> None:
    refused(change)


@pytest.mark.parametrize(
    "value",
    [
        "{a: 1}", "*x", "&a [1]", "!!python/object:os.system x", "[" * 400, "[" * 200 + "]" * 200, '{"a":' * 60 + "1",
        "NaN", "Infinity", "[NaN]", "1e999", "1 2", "", "'x'", "yes please", "[[[[[1]]]]]", "0x10", "1_000",
    ],
)  # fmt: skip
def test_a_value_is_json_of_bounded_depth(value: str) -> None:
    change = f"prompts.lines={value}"
    if value in {"NaN", "Infinity"}:
        # A bare word like any other, which is no list of lines.
        assert Allowed().checked([change]) == (f'prompts.lines="{value}"',)
        return
    refused(change)


def test_aliases_of_yaml_are_text_that_is_refused_at_once() -> None:
    tracemalloc.start()
    started = time.process_time()
    assert "not JSON" in refused(ALIASES)
    assert time.process_time() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_what_may_be_changed_reaches_the_preset_as_it_was_meant() -> None:
    changes = Allowed(models=["/models/own"], keys=["tracking"]).checked(
        [
            "policy.model=/models/own", "policy.lora=null", "grpo.max_steps=7", "grpo.learning_rate=1e-05",
            "grpo.lr_scheduler_type=linear", 'prompts.lines=["k562", "rpe1"]', "prompts.computed_once=false",
            'heldout={"every": 5, "questions": 4}', "rewards.deadline_s=2.5", 'tracking=["tensorboard"]',
        ]
    )  # fmt: skip
    preset = load_preset("cpu", list(changes))
    assert (preset.policy.model, preset.policy.lora, preset.grpo.max_steps) == ("/models/own", None, 7)
    assert (preset.grpo.learning_rate, preset.grpo.lr_scheduler_type) == (1e-05, "linear")
    assert (preset.prompts.lines, preset.prompts.computed_once) == (("k562", "rpe1"), False)
    assert preset.heldout is not None
    assert (preset.heldout.every, preset.rewards.deadline_s, preset.tracking) == (5, 2.5, ("tensorboard",))


def test_the_listed_keys_are_keys_of_a_preset_and_the_dangerous_ones_are_not_listed() -> None:
    for key in KEYS:
        section = Preset
        for part in key.split("."):
            assert part in section.model_fields, key
            annotation = section.model_fields[part].annotation
            section = next((a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")), annotation)
    for key in ("policy.model", "grpo.vllm_server_base_url", "launcher.deepspeed", "tracking"):
        assert key == "policy.model" or not any(key == one or key.startswith(f"{one}.") for one in KEYS)
