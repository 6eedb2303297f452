"""Asking a checkpoint on this machine: completions, and how probable it held "yes" to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from transformers import DynamicCache

from bioverify.core.tasks import TASKS, YES_NO, DifferentialExpression, DirectionOfChange, TaskKind
from bioverify_trainer.evaluate.completions import Answerer, Sample
from bioverify_trainer.evaluate.questions import EvaluationError, make_question
from bioverify_trainer.model import gene_vectors, generation
from bioverify_trainer.model.generation import Beginning, Ids, prompt_ids
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.model.shared_prompts import copy_cache, positions
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import Turn

ANSWER_TAG = "<answer>"

_Written = TypeVar("_Written")


class LocalModel:
    """Completions and P(yes) of one checkpoint.

    P(yes) is the probability of the affirming word's first token against the denying one's, each with and without a
    space and a capital, at the place of the answer: after the first answer tag of the completion, or after one that is
    put behind a completion without any.
    """

    def __init__(
        self, policy: Policy, prompts: PromptPreset, *, max_tokens: int, samples: int, temperature: float
    ) -> None:
        """``temperature`` 0: greedy."""
        self._policy = policy
        self._prompts = prompts
        self._samples = samples
        self._sampling = generation.sampling(policy, max_tokens=max_tokens, temperature=temperature)

    def __call__(self, tasks: Sequence[DifferentialExpression | DirectionOfChange]) -> list[list[Sample]]:
        prompts = self._prompts_of([make_question(task, self._prompts) for task in tasks])
        beginning = generation.begin(self._policy.model, prompts)
        written = generation.write(self._policy.model, prompts, self._sampling, beginning=beginning)
        beliefs = self._beliefs(beginning, prompts, written, tasks[0].kind)
        texts = generation.texts(self._policy, prompts, written)
        return self._by_question([Sample(text, belief) for text, belief in zip(texts, beliefs, strict=True)])

    def write(self, conversations: Sequence[list[Turn]]) -> list[list[str]]:
        """The samples of each conversation, whatever it asks."""
        prompts = self._prompts_of(conversations)
        written = generation.write(self._policy.model, prompts, self._sampling)
        return self._by_question(generation.texts(self._policy, prompts, written))

    def _prompts_of(self, conversations: Sequence[list[Turn]]) -> list[Ids]:
        """Each prompt as often as it is sampled."""
        return [prompt_ids(self._policy, turns) for turns in conversations for _ in range(self._samples)]

    def _by_question(self, samples: list[_Written]) -> list[list[_Written]]:
        return [samples[start : start + self._samples] for start in range(0, len(samples), self._samples)]

    @torch.no_grad()
    def _beliefs(self, beginning: Beginning, prompts: list[Ids], written: list[Ids], kind: TaskKind) -> list[float]:
        model = self._policy.model
        contexts = [
            prompt + self._up_to_answer(completion) for prompt, completion in zip(prompts, written, strict=True)
        ]
        ids, mask = beginning.rows(contexts, self._sampling.pad_token_id, model.device)
        cache = DynamicCache()
        copy_cache(beginning.cache, cache, len(ids))
        known = len(beginning.ids)
        logits = model(
            input_ids=ids[:, known:],
            attention_mask=mask,
            position_ids=positions(mask)[:, known:],
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        words = TASKS[kind].words or YES_NO
        affirming, denying = map(self._first_tokens, words)
        if affirming & denying or not affirming or not denying:
            raise EvaluationError(
                f"the tokenizer of {self._policy.path} has no tokens that tell {' from '.join(words)}, so "
                "P(yes) cannot be read off one token"
            )
        both = torch.stack([logits[:, sorted(one)].float().logsumexp(dim=1) for one in (affirming, denying)])
        beliefs: list[float] = both.softmax(dim=0)[0].tolist()
        return beliefs

    def _up_to_answer(self, completion: Ids) -> Ids:
        """The tokens up to and with the first answer tag, which may be spread over several tokens."""
        if completion and completion[-1] in self._sampling.eos_token_id:
            completion = completion[:-1]
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


def greedy(policy: Policy, prompts: PromptPreset, *, max_tokens: int) -> Answerer:
    """One greedy completion per question: of a policy over gene vectors by one forward pass, which tells as much."""
    if isinstance(policy.model, gene_vectors.GeneVectorsModel):
        return _OneWord(policy.model, policy)
    return LocalModel(policy, prompts, max_tokens=max_tokens, samples=1, temperature=0)


class _OneWord:
    def __init__(self, model: gene_vectors.GeneVectorsModel, policy: Policy) -> None:
        self._model = model.eval()  # type: ignore[no-untyped-call]
        self._tokenizer = policy.tokenizer

    @torch.no_grad()
    def __call__(self, tasks: Sequence[DifferentialExpression | DirectionOfChange]) -> list[list[Sample]]:
        ids = gene_vectors.question_ids(self._tokenizer, [task.question for task in tasks])
        log_p = self._model.answer_log_probabilities(ids.to(self._model.device))
        words, beliefs = log_p.argmax(dim=1).tolist(), log_p[:, 0].exp().tolist()
        return [
            [Sample(gene_vectors.completion(task.kind, word), belief)]
            for task, word, belief in zip(tasks, words, beliefs, strict=True)
        ]
