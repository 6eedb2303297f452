"""Said once: no completion has a thought that could be read.

That is nearly always a fault of the set-up (a template that ends with ``<think>``, a decoder that drops it, other
marks), it costs every completion the same, so that no comparison between them shows it, and a trainer learns from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from bioverify.core.readings import no_thoughts
from bioverify.v1 import reward_pb2

FEWEST = 8
"""Below so many completions, all without a thought, nothing is said yet: a few may be so by themselves."""

logger = logging.getLogger(__name__)


class ThoughtWatch:
    """What one client has seen. Between threads a count may be lost, and the warning come a call later."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._looked_at = 0

    def look(self, replies: Iterable[object]) -> None:
        """``replies``: of one call, those among them that are errors count for nothing."""
        if not self._is_on:
            return
        for reply in replies:
            if isinstance(reply, reward_pb2.RewardServiceScoreBatchResponse):
                self._looked_at += len(reply.rewards)
                if any(not reward.thought_problem for reward in reply.rewards):
                    self._is_on = False
                    return
        if self._looked_at >= FEWEST:
            self._is_on = False
            logger.warning(no_thoughts(self._looked_at))
