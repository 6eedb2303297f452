"""Asking a checkpoint on this machine.

System turn and example turns are the same for every question, so their keys and values are computed once per batch. The
rows are laid out as that prefix, padding, and what is each question's own; the mask has a hole where the padding is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache, GenerationConfig, StaticCache

from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind
from bioverify_trainer.evaluate.completions import Sample
from bioverify_trainer.evaluate.questions import EvaluationError, make_question
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.model.shared_prompts import copy_cache, positions
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import Turn

ANSWER_TAG = "<answer>"
ANSWER_WORDS = {
    TaskKind.DIFFERENTIAL_EXPRESSION: ("yes", "no"),
    TaskKind.DIRECTION_OF_CHANGE: ("increase", "decrease"),
}

Ids = list[int]


class LocalModel:
    """Completions and P(yes) of one checkpoint.

    P(yes) is the probability of the affirming word's first token against the denying one's, each with and without a
    space and a capital, where the answer is written: after the first answer tag of the completion, or after one that is
    put behind a completion without any.
    """

    def __init__(
        self, policy: Policy, prompts: PromptPreset, *, max_tokens: int, samples: int, temperature: float
    ) -> None:
        """``temperature`` 0: greedy."""
        self._policy = policy
        self._prompts = prompts
        self._samples = samples
        tokenizer = policy.tokenizer
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        self._generation = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=policy.model.generation_config.eos_token_id or tokenizer.eos_token_id,
            **sampling,
        )

    @torch.inference_mode()
    def __call__(self, tasks: Sequence[DifferentialExpression | DirectionOfChange]) -> list[list[Sample]]:
        prompts, prefix, cache = self._prepared([make_question(task, self._prompts) for task in tasks])
        written = self._generate(prefix, cache, prompts)
        beliefs = self._beliefs(prefix, cache, prompts, written, tasks[0].kind)
        samples = [Sample(text, belief) for text, belief in zip(self._texts(written), beliefs, strict=True)]
        return [samples[start : start + self._samples] for start in range(0, len(samples), self._samples)]

    @torch.inference_mode()
    def write(self, conversations: Sequence[list[Turn]]) -> list[list[str]]:
        """The samples of each conversation, whatever it asks."""
        prompts, prefix, cache = self._prepared(conversations)
        texts = self._texts(self._generate(prefix, cache, prompts))
        return [texts[start : start + self._samples] for start in range(0, len(texts), self._samples)]

    def _prepared(self, conversations: Sequence[list[Turn]]) -> tuple[list[Ids], Ids, DynamicCache]:
        """Each prompt as often as it is sampled, what all begin with, and the keys and values of that."""
        prompts = [ids for ids in map(self._ids, conversations) for _ in range(self._samples)]
        # One token of each row stays outside, because its output is the first word about the completion.
        prefix = _common_start([ids[:-1] for ids in prompts])
        cache = DynamicCache()
        if prefix:
            self._policy.model(
                input_ids=self._tensor([prefix]), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        return prompts, prefix, cache

    def _texts(self, written: list[Ids]) -> list[str]:
        return [text.strip() for text in self._policy.tokenizer.batch_decode(written, skip_special_tokens=True)]

    def _ids(self, turns: list[Turn]) -> Ids:
        rendered = self._policy.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        # The template has written the special tokens already.
        return list(self._policy.tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def _generate(self, prefix: Ids, prefix_cache: DynamicCache, prompts: list[Ids]) -> list[Ids]:
        ids, mask = self._rows(prefix, prompts)
        width = ids.shape[1]
        # Room for all tokens at once: a cache that grows is copied whole at every token.
        cache = StaticCache(self._policy.model.config, max_cache_len=width + self._generation.max_new_tokens)
        copy_cache(prefix_cache, cache, len(ids))
        tokens = self._policy.model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, past_key_values=cache, generation_config=self._generation
        )[:, width:]
        ends = torch.isin(tokens, torch.tensor(self._generation.eos_token_id, device=tokens.device)).long()
        lengths = torch.where(ends.any(dim=1), ends.argmax(dim=1), tokens.shape[1])
        return [row[:length].tolist() for row, length in zip(tokens, lengths.tolist(), strict=True)]

    def _beliefs(
        self, prefix: Ids, prefix_cache: DynamicCache, prompts: list[Ids], written: list[Ids], kind: TaskKind
    ) -> list[float]:
        contexts = [
            prompt + self._up_to_answer(completion) for prompt, completion in zip(prompts, written, strict=True)
        ]
        ids, mask = self._rows(prefix, contexts)
        cache = DynamicCache()
        copy_cache(prefix_cache, cache, len(ids))
        logits = self._policy.model(
            input_ids=ids[:, len(prefix) :],
            attention_mask=mask,
            position_ids=positions(mask)[:, len(prefix) :],
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        affirming, denying = map(self._first_tokens, ANSWER_WORDS[kind])
        if affirming & denying or not affirming or not denying:
            raise EvaluationError(
                f"the tokenizer of {self._policy.path} has no tokens that tell {' from '.join(ANSWER_WORDS[kind])}, so "
                "P(yes) cannot be read off one token"
            )
        both = torch.stack([logits[:, sorted(one)].float().logsumexp(dim=1) for one in (affirming, denying)])
        beliefs: list[float] = both.softmax(dim=0)[0].tolist()
        return beliefs

    def _up_to_answer(self, completion: Ids) -> Ids:
        """The tokens up to and with the first answer tag, which may be spread over several tokens."""
        decode = self._policy.tokenizer.decode
        if ANSWER_TAG not in decode(completion):
            return completion + list(self._policy.tokenizer(ANSWER_TAG, add_special_tokens=False)["input_ids"])
        low, high = 0, len(completion)
        while low < high:
            middle = (low + high) // 2
            if ANSWER_TAG in decode(completion[:middle]):
                high = middle
            else:
                low = middle + 1
        return completion[:low]

    def _first_tokens(self, word: str) -> set[int]:
        forms = (word, f" {word}", word.capitalize(), f" {word.capitalize()}")
        tokenizer = self._policy.tokenizer
        first = {tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in forms}
        return first - {tokenizer.unk_token_id}

    def _rows(self, prefix: Ids, rows: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask: prefix, padding, the rest of each row."""
        own = [row[len(prefix) :] for row in rows]
        width = max(map(len, own))
        pad = self._policy.tokenizer.pad_token_id
        ids = [prefix + [pad] * (width - len(row)) + row for row in own]
        mask = [[1] * len(prefix) + [0] * (width - len(row)) + [1] * len(row) for row in own]
        return self._tensor(ids), self._tensor(mask)

    def _tensor(self, rows: list[Ids]) -> torch.Tensor:
        return torch.tensor(rows, device=self._policy.model.device)


def _common_start(rows: list[Ids]) -> Ids:
    # What the first and the last in order have in common, all between them have.
    first, last = min(rows), max(rows)
    length = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    return first[:length]
