"""One rollout at a time: what the adapters share whose framework shows no group.

The rule of groups (a term that is missing for one member is dropped for all) cannot be applied to a rollout alone. In
its place a fault in any of its terms, required or optional, leaves it without a reward: its members would otherwise be
compared by different sums. A fact ("gene unknown") is one of the question, the same for every member of the group, so
what it leaves out is left out for all of them.

Faults that may pass are waited for, as the trainer of this project does; what is missing then is an error.
"""

from __future__ import annotations

import time

from bioverify.client import Client, ClientError, ItemReward, ScoreItem, TlsIdentity
from bioverify.core.outcomes import Failed

DEADLINE_S = 30.0
PATIENCE_S = 150.0
"""OpenRLHF gives an answer up after 180 s."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


class NoRewardError(RuntimeError):
    """There is no reward, which is not a zero. ``may_pass``: asking again later may bring one."""

    def __init__(self, why: str, may_pass: bool) -> None:
        super().__init__(f"no reward: {why}")
        self.may_pass = may_pass


class Alone:
    """Asks for the reward of one rollout. Safe to share between threads.

    ``recipe``: a recipe's name. ``patience_s``: how long faults that may pass are waited for.
    """

    def __init__(self, target: str, recipe: str, patience_s: float = PATIENCE_S) -> None:
        self._client = Client(target, tls=TlsIdentity.from_environment())
        self._recipe = recipe
        self._patience_s = patience_s

    def reward(self, item: ScoreItem) -> float:
        """Raises NoRewardError."""
        deadline = time.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return self._ask(item, max(0.1, min(DEADLINE_S, deadline - time.monotonic())))
            except NoRewardError as error:
                if not error.may_pass or time.monotonic() + pause_s >= deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _ask(self, item: ScoreItem, deadline_s: float) -> float:
        try:
            batch = self._client.score([item], self._recipe, deadline_s=deadline_s, with_evidence=False)
        except ClientError as error:
            raise NoRewardError(str(error), error.may_pass) from error
        return reward_alone(batch.rewards[0])


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
