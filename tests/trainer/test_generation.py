"""One loop writes all completions: what each door gives is what `generate` gives to one prompt, greedily, by itself."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange
from bioverify_trainer.evaluate.local import LocalModel
from bioverify_trainer.model.generation import Shown, begin, complete, prompt_ids, sampling, write
from bioverify_trainer.model.policy import Policy, PolicyError, open_policy
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import make_prompt

N_TOKENS = 12
TASKS = (
    DifferentialExpression("P1", "G1", "k562"),
    DifferentialExpression("P1", "G1", "k562"),
    DirectionOfChange("AARS2", "TRIB3", "rpe1"),
    CoExpression("A", "B"),
)
CONVERSATIONS = [make_prompt(task, "answer", example_turns=turns) for task in TASKS for turns in (0, 1)]
PUBLISHED = {
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(50, 250)),
    "min_new_tokens": 9,
    "do_sample": True,
    "temperature": 3.0,
    "top_k": 1,
    "top_p": 0.1,
}
"""What no measurement is to depend on."""


def by_itself(policy: Policy, turns: list[dict[str, str]]) -> list[int]:
    """Greedy, from a model that publishes no settings."""
    prompt = torch.tensor([prompt_ids(policy, turns)])
    tokens = policy.model.generate(prompt, max_new_tokens=N_TOKENS, do_sample=False, use_cache=False)
    return tokens[0, prompt.shape[1] :].tolist()


@pytest.fixture
def plain(tiny_policy) -> Policy:
    return open_policy(str(tiny_policy), dtype=torch.float32)


@pytest.fixture
def opinionated(tiny_policy, tmp_path) -> Policy:
    """The same weights, published with settings of their own."""
    folder = tmp_path / "opinionated"
    shutil.copytree(tiny_policy, folder)
    published = GenerationConfig.from_pretrained(folder)
    published.update(**PUBLISHED)
    published.save_pretrained(folder)
    return open_policy(str(folder), dtype=torch.float32)


def test_a_batch_writes_what_each_prompt_writes_by_itself(plain):
    prompts = [prompt_ids(plain, turns) for turns in CONVERSATIONS]
    together = write(plain.model, prompts, sampling(plain, max_tokens=N_TOKENS, temperature=0))
    assert together == [by_itself(plain, turns) for turns in CONVERSATIONS]
    assert len({tuple(completion) for completion in together}) > 1


@pytest.mark.parametrize("n", [1, 3])
def test_prompts_that_are_all_the_same_are_all_beginning(plain, n):
    prompts = [prompt_ids(plain, CONVERSATIONS[0])] * n
    assert begin(plain.model, prompts).ids == prompts[0][:-1]
    together = write(plain.model, prompts, sampling(plain, max_tokens=N_TOKENS, temperature=0))
    assert together == [by_itself(plain, CONVERSATIONS[0])] * n


def test_prompts_with_nothing_in_common_are_written_together(plain):
    prompts = [[9, 10, 11], [20, 21], [9]]
    together = write(plain.model, prompts, sampling(plain, max_tokens=N_TOKENS, temperature=0))
    for prompt, completion in zip(prompts, together, strict=True):
        tokens = plain.model.generate(torch.tensor([prompt]), max_new_tokens=N_TOKENS, do_sample=False)
        assert completion == tokens[0, len(prompt) :].tolist()


def test_a_completion_ends_with_its_first_end_token(plain):
    prompts = [prompt_ids(plain, turns) for turns in CONVERSATIONS[:3]]
    config = sampling(plain, max_tokens=N_TOKENS, temperature=0)
    whole = write(plain.model, prompts, config)
    end = whole[0][4]
    config.eos_token_id = [end]
    for cut, completion in zip(write(plain.model, prompts, config), whole, strict=True):
        assert cut == (completion[: completion.index(end) + 1] if end in completion else completion)


def test_every_end_that_checkpoint_and_tokenizer_name_is_an_end(plain):
    own = plain.tokenizer.eos_token_id
    for published, ends in ((None, [own]), (own, [own]), (7, [own, 7]), ([7, own], [own, 7])):
        plain.model.generation_config.eos_token_id = published
        assert sampling(plain, max_tokens=1, temperature=1).eos_token_id == sorted(ends)


@pytest.mark.parametrize("door", ["complete", "ask", "eval", "labels", "adapter"])
def test_what_a_checkpoint_publishes_changes_no_door(plain, opinionated, door):
    expected = [
        plain.tokenizer.decode(by_itself(plain, turns), skip_special_tokens=True).strip() for turns in CONVERSATIONS
    ]

    def written(policy: Policy) -> list[str]:
        if door == "complete":
            return complete(policy, CONVERSATIONS, max_tokens=N_TOKENS, temperature=0)
        if door == "ask":
            with redirect_stdout(io.StringIO()) as shown:
                streamer = Shown(policy)
                told = [
                    complete(policy, [turns], max_tokens=N_TOKENS, temperature=0, streamer=streamer)[0]
                    for turns in CONVERSATIONS
                ]
            assert shown.getvalue().strip().startswith(told[0])
            return told
        if door == "adapter":
            lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
            adapted = Policy(get_peft_model(policy.model, lora), policy.tokenizer, policy.path)
            return complete(adapted, CONVERSATIONS, max_tokens=N_TOKENS, temperature=0)
        model = LocalModel(policy, PromptPreset(), max_tokens=N_TOKENS, samples=1, temperature=0)
        if door == "labels":
            return [text for [text] in model.write(CONVERSATIONS)]
        asked = [model([task])[0][0].completion for task in TASKS[:2]]
        assert asked == expected[0:4:2]
        return expected

    assert written(plain) == expected
    assert written(opinionated) == expected
    # Set aside, not lost: an exported model publishes what its base did.
    assert opinionated.model.generation_config.repetition_penalty == 5.0


def test_what_a_checkpoint_publishes_would_have_changed_the_completions(plain, opinionated):
    prompt = torch.tensor([prompt_ids(plain, CONVERSATIONS[0])])
    tokens = opinionated.model.generate(prompt, max_new_tokens=N_TOKENS, do_sample=False)
    assert tokens[0, prompt.shape[1] :].tolist() != by_itself(plain, CONVERSATIONS[0])


def test_sampling_is_from_the_whole_distribution_at_the_temperature(opinionated):
    """A first token's share among many samples is its probability, whatever top_k or top_p the checkpoint publishes."""
    prompts = [prompt_ids(opinionated, CONVERSATIONS[0])]
    with torch.no_grad():
        probabilities = (opinionated.model(torch.tensor(prompts)).logits[0, -1] / 0.7).softmax(dim=0)
    torch.manual_seed(0)
    written = write(opinionated.model, prompts * 4000, sampling(opinionated, max_tokens=1, temperature=0.7))
    shares = torch.bincount(torch.tensor(written).flatten(), minlength=len(probabilities)) / 4000
    assert (shares - probabilities).abs().max() < 0.02
    assert (shares > 0).sum() > 100


def test_weights_that_are_pickled_are_not_opened(tiny_policy, tmp_path):
    """A pickle runs what it says; the same weights as safetensors are opened."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_policy, folder)
    open_policy(str(folder), dtype=torch.float32)
    (folder / "model.safetensors").unlink()
    laid = tmp_path / "it-ran"

    class Runs:
        def __reduce__(self):
            return Path.touch, (laid,)

    torch.save({"weight": Runs()}, folder / "pytorch_model.bin")
    with pytest.raises(PolicyError, match=r"policy\.model: .*safetensors"):
        open_policy(str(folder), dtype=torch.float32)
    with pytest.raises(PolicyError, match=r"policy\.model: .*safetensors"):
        open_policy(str(folder), dtype=torch.float32, use_safetensors=False)
    assert not laid.exists()
