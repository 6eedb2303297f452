"""Asking a model behind an OpenAI-compatible HTTP endpoint (vLLM, llama.cpp, SGLang, hosted ones)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from bioverify.core.conversation import ConversationError, read_completion
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange
from bioverify_trainer.evaluate.completions import Sample
from bioverify_trainer.evaluate.questions import EvaluationError, make_question
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import Turn

KEY_VARIABLE = "OPENAI_API_KEY"
TRIES = 5
TOP_LOGPROBS = 20
_TIMEOUT_S = 300.0
_LONGEST_PAUSE_S = 60.0


class Endpoint:
    """Completions over ``POST {address}/chat/completions``; P(yes) if the server tells log-probabilities.

    What may pass (no connection, 408, 429, 5xx) is tried again, after as long as the server says; anything else ends
    the evaluation, which can be resumed.
    """

    def __init__(
        self,
        address: str,
        model: str,
        prompts: PromptPreset,
        *,
        max_tokens: int,
        samples: int,
        temperature: float,
        at_once: int,
        template_arguments: Mapping[str, Any],
    ) -> None:
        """``address``: with its version, like http://127.0.0.1:8000/v1.

        ``template_arguments``: what the chat template is given beside the conversation; vLLM and SGLang take them.
        """
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=address, headers=headers, timeout=_TIMEOUT_S)
        self._prompts = prompts
        self._at_once = at_once
        self._samples = samples
        self._body: dict[str, Any] = {
            "model": model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }
        if template_arguments:
            self._body["chat_template_kwargs"] = dict(template_arguments)

    def __call__(self, tasks: Sequence[DifferentialExpression | DirectionOfChange]) -> list[list[Sample]]:
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(self._ask, tasks))

    def _ask(self, task: DifferentialExpression | DirectionOfChange) -> list[Sample]:
        return self._chat(make_question(task, self._prompts), task.words)

    def write(self, conversations: Sequence[list[Turn]]) -> list[list[str]]:
        """The samples of each conversation, whatever it asks."""
        with ThreadPoolExecutor(self._at_once) as pool:
            return [[sample.completion for sample in given] for given in pool.map(self._chat, conversations)]

    def _chat(self, turns: list[Turn], words: tuple[str, str] | None = None) -> list[Sample]:
        """``words``: affirming and denying, if P(yes) is to be read."""
        samples: list[Sample] = []
        # A server that gives one sample a call is asked again for the others.
        while len(samples) < self._samples:
            reply = self._post({"messages": turns, "n": self._samples - len(samples)})
            try:
                choices = reply.json()["choices"]
                given = [_sample(choice, words) for choice in choices]
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(f"{reply.url}: not a chat completion ({error!r})") from error
            if not given:
                raise EvaluationError(f"{reply.url}: asked for {self._samples} samples, {len(samples)} came")
            samples += given
        return samples[: self._samples]

    def _post(self, own: dict[str, Any]) -> httpx.Response:
        why = ""
        body = {**self._body, **own}
        for attempt in range(TRIES):
            pause_s = float(2**attempt)
            try:
                reply = self._client.post("chat/completions", json=body)
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if reply.is_success:
                    return reply
                why = f"{reply.status_code} {reply.text[:300]}"
                if reply.status_code in (400, 422) and (does_take := _without_what_is_refused(body, reply.text)):
                    # Threads that were refused together come to the same.
                    self._body = {name: value for name, value in does_take.items() if name not in own}
                    return self._post(own)
                if reply.status_code not in (408, 429) and reply.status_code < 500:
                    break
                asked = reply.headers.get("Retry-After", "")
                pause_s = float(asked) if asked.isdigit() else pause_s
            if attempt + 1 < TRIES:
                time.sleep(min(pause_s, _LONGEST_PAUSE_S))
        raise EvaluationError(
            f"{self._client.base_url}: {why}. What was answered is kept; run the command again to resume"
        )


def _without_what_is_refused(body: Mapping[str, Any], refusal: str) -> dict[str, Any] | None:
    """The body in the words that the server knows; None if the refusal is about something else."""
    changed = dict(body)
    if "max_completion_tokens" in refusal and "max_tokens" in changed:
        changed["max_completion_tokens"] = changed.pop("max_tokens")
    elif "logprobs" in refusal and "logprobs" in changed:
        # P(yes) is then the share of yes among the samples.
        del changed["logprobs"], changed["top_logprobs"]
    else:
        return None
    return changed


def _sample(choice: Mapping[str, Any], words: tuple[str, str] | None) -> Sample:
    try:
        completion = read_completion({"role": "assistant", **choice["message"]}).text
    except ConversationError:
        # Nothing was written, which is no answer.
        completion = ""
    return Sample(completion, read_belief(choice.get("logprobs"), *words) if words else None)


def read_belief(logprobs: dict[str, Any] | None, affirming: str, denying: str) -> float | None:
    """P(affirming) against denying at the first word after the answer tag; None if the reply does not tell.

    ``logprobs``: the choice's. A word counts by its first token: "dec" for decrease, but not a token that begins both.
    """
    text, probability = "", {affirming: 0.0, denying: 0.0}
    for token in (logprobs or {}).get("content") or ():
        behind_tag = "<answer>" in text
        text += token["token"]
        if not behind_tag or not token["token"].strip():
            continue
        for other in token.get("top_logprobs") or ():
            start = other["token"].strip().lower()
            fitting = [word for word in (affirming, denying) if start and word.startswith(start)]
            if len(fitting) == 1:
                probability[fitting[0]] += math.exp(other["logprob"])
        break
    total = sum(probability.values())
    return probability[affirming] / total if total else None
