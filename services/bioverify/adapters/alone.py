"""One rollout at a time: what the adapters share whose framework shows no group.

The rule of groups (a term that is missing for one member is dropped for all) cannot be applied to a rollout alone. In
its place a fault in any of its terms, required or optional, leaves it without a reward: its members would otherwise be
compared by different sums. A fact ("gene unknown") is one of the question, the same for every member of the group, so
what it leaves out is left out for all of them.

Faults that may pass are waited for, as the trainer of this project does; what is missing then is an error.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from bioverify.client import Client, ClientError, ItemReward, ScoreItem, TlsIdentity
from bioverify.core.outcomes import Failed
from bioverify.errors import BioverifyError

DEADLINE_S = 30.0
PATIENCE_S = 150.0
"""OpenRLHF gives an answer up after 180 s."""
MAX_ITEMS = 256
CALLS_AT_ONCE = 2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


class NoRewardError(BioverifyError, RuntimeError):
    """There is no reward, which is not a zero. ``may_pass``: asking again later may bring one."""

    def __init__(self, why: str, may_pass: bool) -> None:
        super().__init__(f"no reward: {why}")
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class _Waiting:
    item: ScoreItem
    answer: Future[ItemReward]
    deadline: float


class Alone:
    """Asks for the rewards of rollouts that come one at a time. Safe to share between threads.

    Rollouts that come while a call is under way go together with the next one: a call of 64 items costs hardly more
    than a call of one. ``recipe``: a recipe's name. ``patience_s``: how long faults that may pass are waited for.
    """

    def __init__(self, target: str, recipe: str, patience_s: float = PATIENCE_S) -> None:
        self._client = Client(target, tls=TlsIdentity.from_environment())
        self._recipe = recipe
        self._patience_s = patience_s
        self._waiting: deque[_Waiting] = deque()
        self._calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="bioverify-rewards")

    def reward(self, item: ScoreItem) -> float:
        """Raises NoRewardError."""
        deadline = time.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return reward_alone(self._ask(item, min(deadline, time.monotonic() + DEADLINE_S)))
            except NoRewardError as error:
                if not error.may_pass or time.monotonic() + pause_s >= deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def rewards(self, items: Sequence[ScoreItem]) -> list[float]:
        """One per item, in order. Raises the first NoRewardError."""
        with ThreadPoolExecutor(max(1, min(len(items), MAX_ITEMS))) as callers:
            return list(callers.map(self.reward, items))

    def _ask(self, item: ScoreItem, deadline: float) -> ItemReward:
        """By ``deadline`` (time.monotonic), waiting behind the calls of others included. Raises NoRewardError."""
        answer: Future[ItemReward] = Future()
        self._waiting.append(_Waiting(item, answer, deadline))
        self._calls.submit(self._ask_waiting)
        try:
            return answer.result(max(0.1, deadline - time.monotonic()))
        except TimeoutError as error:
            raise NoRewardError("no answer came in time", may_pass=True) from error

    def _ask_waiting(self) -> None:
        """One call for whatever waits; it has been made already if an earlier call took it along."""
        asked: list[_Waiting] = []
        with suppress(IndexError):
            while len(asked) < MAX_ITEMS:
                asked.append(self._waiting.popleft())
        if asked:
            self._score(asked)

    def _score(self, asked: Sequence[_Waiting]) -> None:
        # Each stands alone, whatever group it names: its other members may be anywhere.
        items = [replace(one.item, id=str(number), group_id="") for number, one in enumerate(asked)]
        left_s = max(0.1, max(one.deadline for one in asked) - time.monotonic())
        try:
            rewards = self._client.score(items, self._recipe, deadline_s=left_s, with_evidence=False).rewards
        except ClientError as error:
            if len(asked) > 1 and error.refusal.is_callers_mistake:
                # One that the service refuses takes no other along.
                for one in asked:
                    self._score([one])
                return
            for one in asked:
                one.answer.set_exception(NoRewardError(str(error), error.may_pass))
        except Exception as error:  # a fault of ours, which each of those who wait has to hear of
            for one in asked:
                one.answer.set_exception(error)
        else:
            for one, reward in zip(asked, rewards, strict=True):
                one.answer.set_result(reward)


def reward_alone(reward: ItemReward) -> float:
    """The reward of an item whose group is not seen. Raises NoRewardError if one of its terms has a fault."""
    faults = [(part.term.label, part.outcome) for part in reward.parts if isinstance(part.outcome, Failed)]
    if reward.reward is not None and not faults:
        return reward.reward
    why = reward.unscorable_because
    if faults:
        label, first = faults[0]
        why = f"{label} failed: {first.reason}: {first.detail}"
    # A required fact that is missing stays missing, whatever becomes of the faults beside it.
    may_pass = all(fault.retryable for _, fault in faults) and (reward.reward is not None or reward.may_come_back)
    raise NoRewardError(why, may_pass)
