"""The judge: every value that comes back is the fault-free one, or is marked failed. Nothing lost, doubled, reordered.

The fault-free outcomes are computed once, by the same verifiers called in process. A reply is then judged part by part:
an outcome is equal to the fault-free one or `Failed`; a contribution is weight × fault-free value or None; within a
group all scorable members have the same terms; a reward is the sum of its contributions or None.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bioverify import recipes
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import open_verifier
from bioverify.client import Client, ClientError, ItemReward, ScoreItem
from bioverify.client.messages import item_to_wire
from bioverify.core.answers import ParseMode
from bioverify.core.outcomes import Failed, Outcome
from bioverify.core.rewards import term_value
from bioverify.core.verifier import Reads
from bioverify.wire.tasks import read_item

RECIPE = "all"
CALL_ITEMS = 256
GIVE_UP_S = 180.0
_EVERYTHING = Reads.TASK | Reads.ANSWER | Reads.COMPLETION

FaultFree = Mapping[str, Mapping[str, Outcome]]
"""By item id, then by verifier."""


def fault_free(items: Sequence[ScoreItem], store: ArtifactStore) -> FaultFree:
    read = [read_item(item_to_wire(item), ParseMode.WHOLE_WORDS, _EVERYTHING) for item in items]
    by_verifier = {
        name: open_verifier(name, store).score(read, with_evidence=False) for name in recipes.load(RECIPE).verifiers
    }
    return {item.id: {name: by_verifier[name][i] for name in by_verifier} for i, item in enumerate(items)}


@dataclass
class Verdict:
    """Counts of outcomes (one per item and verifier), but for ``lost`` and ``doubled``, which are items.

    ``refused_calls``: calls that brought nothing and were made again.
    """

    judged: int = 0
    wrong: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    unscorable: int = 0
    refused_calls: int = 0
    seconds: float = 0.0
    slowest_call_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.wrong or self.lost or self.doubled or self.reordered)

    def add(self, other: Verdict) -> None:
        for name in ("judged", "wrong", "failed", "lost", "doubled", "reordered", "unscorable", "refused_calls"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.examples = (self.examples + other.examples)[:5]
        self.slowest_call_s = max(self.slowest_call_s, other.slowest_call_s)

    def judge(self, items: Sequence[ScoreItem], rewards: Sequence[ItemReward], expected: FaultFree) -> None:
        """One reply to one call, whose groups are whole."""
        asked, got = [item.id for item in items], [reward.id for reward in rewards]
        if asked != got:
            self.lost += len(set(asked) - set(got))
            self.doubled += len(got) - len(set(got))
            self.reordered += set(asked) == set(got) and len(asked) == len(got)
            self.examples.append(f"asked for {asked[:3]}…, got {got[:3]}…")
            return
        kept: defaultdict[str, set[frozenset[str]]] = defaultdict(set)
        for item, reward in zip(items, rewards, strict=True):
            self._judge_parts(reward, expected[item.id])
            if reward.reward is not None:
                kept[item.group_id].add(
                    frozenset(part.term.label for part in reward.parts if part.contribution is not None)
                )
        for group, terms in kept.items():
            if len(terms) > 1:
                self._wrong(f"group {group}: members are compared over different terms: {sorted(map(sorted, terms))}")

    def _judge_parts(self, reward: ItemReward, expected: Mapping[str, Outcome]) -> None:
        self.judged += len(expected)
        self.unscorable += reward.reward is None
        if not reward.parts:
            self.failed += len(expected)
            self.failures["request lost"] += len(expected)
            if reward.reward is not None:
                self._wrong(f"{reward.id}: a reward of nothing: {reward.reward}")
            return
        for verifier, outcome in {part.term.verifier: part.outcome for part in reward.parts}.items():
            if isinstance(outcome, Failed):
                self.failed += 1
                self.failures[f"{verifier}: {outcome.reason}"] += 1
            elif outcome != expected[verifier]:
                self._wrong(f"{reward.id}: {verifier} says {outcome}, fault-free {expected[verifier]}")
        if {part.term.verifier for part in reward.parts} != set(expected):
            self._wrong(f"{reward.id}: parts of {[part.term.verifier for part in reward.parts]}")
        for part in reward.parts:
            if part.contribution is not None:
                value = term_value(part.term, expected[part.term.verifier])
                if value is None or part.contribution != part.term.weight * value:
                    self._wrong(f"{reward.id}: {part.term.label} gives {part.contribution}, fault-free value {value}")
        given = [part.contribution for part in reward.parts if part.contribution is not None]
        if reward.reward is not None and not math.isclose(reward.reward, sum(given), abs_tol=1e-12):
            self._wrong(f"{reward.id}: reward {reward.reward} of parts {given}")

    def _wrong(self, example: str) -> None:
        self.wrong += 1
        if len(self.examples) < 5:
            self.examples.append(example)


def run_job(
    target: str,
    items: Sequence[ScoreItem],
    expected: FaultFree,
    *,
    deadline_s: float = 10,
    at_once: int = 4,
    fresh_connections: bool = False,
    is_given_up: Callable[[], bool] = lambda: False,
) -> Verdict:
    """Score all items as a person's script would: calls that brought nothing are made again after a moment."""
    verdict, lock = Verdict(), threading.Lock()
    client = Client(target)
    started = time.monotonic()

    def score(call: Sequence[ScoreItem]) -> None:
        while True:
            own = Client(target) if fresh_connections else client
            asked = time.monotonic()
            try:
                batch = own.score(call, RECIPE, deadline_s=deadline_s, with_evidence=False)
            except ClientError:
                with lock:
                    verdict.refused_calls += 1
                    verdict.slowest_call_s = max(verdict.slowest_call_s, time.monotonic() - asked)
                if time.monotonic() - started > GIVE_UP_S or is_given_up():
                    with lock:
                        verdict.lost += len(call)
                    return
                time.sleep(0.25)
                continue
            finally:
                if fresh_connections:
                    own.close()
            took_s = time.monotonic() - asked
            one = Verdict(slowest_call_s=took_s)
            one.judge(call, batch.rewards, expected)
            with lock:
                verdict.add(one)
            return

    try:
        # Channels to one address share a connection while any of them is open, so fresh ones come one after another.
        with ThreadPoolExecutor(1 if fresh_connections else at_once) as pool:
            list(pool.map(score, [items[i : i + CALL_ITEMS] for i in range(0, len(items), CALL_ITEMS)]))
    finally:
        client.close()
    verdict.seconds = time.monotonic() - started
    return verdict
