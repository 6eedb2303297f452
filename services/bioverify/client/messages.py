"""Between the client's values and the contract's messages, and how a large call is cut.

A call is cut into requests of at most `MAX_ITEMS` items and `MAX_BYTES` bytes. Groups are never cut, because a term
that is missing for one member has to be dropped for all of them: a group larger than a request travels alone, and the
aggregator decides. Requests are refused or lost one by one: the items of a lost one come back unscorable, and so does
an item that cannot be sent at all, alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Literal

from bioverify.client.errors import ClientError, mistake
from bioverify.client.values import (
    ItemReward,
    ListedVerifier,
    Message,
    RewardDetails,
    RewardPart,
    ScoredBatch,
    ScoreItem,
    VerifierReport,
)
from bioverify.core.conversation import ConversationError, read_completion, read_prompt
from bioverify.core.outcomes import Outcome
from bioverify.core.recipes import Recipe
from bioverify.core.verifier import ArtifactIdentity
from bioverify.transport.headers import current_request_id, is_fit, request_id_from
from bioverify.v1 import reward_pb2, types_pb2
from bioverify.wire.outcomes import failure_from_wire, outcome_from_wire
from bioverify.wire.rewards import recipe_to_wire, term_from_wire
from bioverify.wire.rules import broken_rules
from bioverify.wire.tasks import (
    PROMPT_FORMS,
    answer_from_wire,
    known_reads,
    known_task_kinds,
    task_from_wire,
    task_to_wire,
    thought_problem_from_wire,
    unread_reason_from_wire,
)

MAX_ITEMS = 1024
MAX_BYTES = 32 * 2**20
CALLS_AT_ONCE = 4
NOT_FINITE = "not_finite"
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
_BREAKER_STATES: dict[int, Literal["closed", "half_open", "open"]] = {
    reward_pb2.BREAKER_STATE_CLOSED: "closed",
    reward_pb2.BREAKER_STATE_HALF_OPEN: "half_open",
    reward_pb2.BREAKER_STATE_OPEN: "open",
}


def check_ids(items: Sequence[ScoreItem]) -> None:
    """Raise ClientError for a missing or repeated id: after the cut no single request would show it."""
    first_seen: dict[str, int] = {}
    for index, item in enumerate(items):
        if not item.id:
            problem = "is missing"
        elif item.id in first_seen:
            problem = f'duplicate of items[{first_seen[item.id]}].id ("{item.id}")'
        else:
            first_seen[item.id] = index
            continue
        raise mistake(f"items[{index}].id", problem)


def request_id_for(given: str) -> str:
    """The id of a call. Raises ClientError for a given one that cannot stand in a log."""
    if given and not is_fit(given):
        raise mistake("request_id", f"{given!r} is not 1 to 64 letters, digits, dots, hyphens and underscores")
    return given or request_id_from(current_request_id())


def item_to_wire(item: ScoreItem) -> types_pb2.Item:
    """The message of an item. Raises ValueError with the field that cannot be sent."""
    if not isinstance(item.completion, str):
        # A message takes null for an empty text, and an empty text has a reward.
        raise ValueError(_why_unsendable(item))  # noqa: TRY004 - the one error of an item
    try:
        return types_pb2.Item(
            id=item.id,
            group_id=item.group_id,
            prompt=[types_pb2.Message(role=turn.role, content=turn.content) for turn in item.prompt],
            completion=item.completion,
            task=None if item.task is None else task_to_wire(item.task),
            source=item.source,
            prompt_form=PROMPT_FORMS[item.prompt_form] if item.prompt_form else types_pb2.PROMPT_FORM_UNSPECIFIED,
            reasoning=item.reasoning,
            prefix=item.prefix,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(_why_unsendable(item) or f"the item cannot be sent: {error}") from error


def _why_unsendable(item: ScoreItem) -> str:
    """The first field that is no text that can be sent; empty if there is none."""
    try:
        if not isinstance(item.completion, str):
            read_completion(item.completion)
        if not all(isinstance(turn, Message) for turn in item.prompt or ()):
            read_prompt(item.prompt)
    except ConversationError as error:
        return str(error)
    texts: list[tuple[str, object]] = [
        (name, getattr(item, name)) for name in ("completion", "reasoning", "prefix", "id", "group_id", "source")
    ]
    texts += [(f"prompt[{number}].content", turn.content) for number, turn in enumerate(item.prompt or ())]
    if item.task is not None:
        texts += [(f"task.{name}", value) for name, value in asdict(item.task).items() if isinstance(value, str)]
    for name, text in texts:
        if not isinstance(text, str):
            return f"{name}: a text, not {'null' if text is None else f'{type(text).__name__} ({str(text)[:60]})'}"
        if halves := _HALF_A_CHARACTER.search(text):
            return f"{name}: no text: character {halves.start()} is half of a surrogate pair (U+{ord(halves[0]):X})"
    return ""


def checked(item: ScoreItem) -> types_pb2.Item:
    """The message of an item that keeps the contract. Raises ValueError with the field and what is wrong with it.

    The service refuses a whole call for one item that does not, so whoever reads many rows asks here for each.
    """
    message = item_to_wire(item)
    if broken := broken_rules(message):
        field, problem = broken[0]
        raise ValueError(f"{field}: {problem}")
    return message


def cut(items: Sequence[ScoreItem], *, max_items: int, max_bytes: int) -> list[tuple[list[int], list[types_pb2.Item]]]:
    """The requests of a call: for each the items' positions and messages. Members of a group share a request.

    Items that cannot be sent are in none.
    """
    groups: dict[str, list[int]] = {}
    written: dict[int, types_pb2.Item] = {}
    for index, item in enumerate(items):
        with suppress(ValueError):  # told in its reward: `assemble`
            written[index] = item_to_wire(item)
            groups.setdefault(f"group:{item.group_id}" if item.group_id else f"item:{index}", []).append(index)

    requests: list[tuple[list[int], list[types_pb2.Item]]] = []
    size_bytes = 0
    for members in groups.values():
        messages = [written[index] for index in members]
        group_bytes = sum(message.ByteSize() for message in messages)
        fits = requests and len(requests[-1][0]) + len(members) <= max_items and size_bytes + group_bytes <= max_bytes
        if fits:
            requests[-1][0].extend(members)
            requests[-1][1].extend(messages)
            size_bytes += group_bytes
        else:
            requests.append((list(members), messages))
            size_bytes = group_bytes
    return requests


def recipe_name(recipe: str | Recipe) -> str:
    return recipe if isinstance(recipe, str) else recipe.name


def score_request(
    messages: Sequence[types_pb2.Item], recipe: str | Recipe, *, with_evidence: bool, evidence_once: bool = False
) -> reward_pb2.RewardServiceScoreBatchRequest:
    request = reward_pb2.RewardServiceScoreBatchRequest(
        items=messages, omit_evidence=not with_evidence, evidence_once=evidence_once
    )
    if isinstance(recipe, str):
        request.recipe_name = recipe
    else:
        request.recipe.CopyFrom(recipe_to_wire(recipe))
    return request


def item_reward(message: reward_pb2.Reward) -> ItemReward:
    reward, why = message.reward if message.HasField("reward") else None, message.unscorable_because
    if reward is not None and not math.isfinite(reward):
        # JSON has no such number, and would say null without a reason.
        reward, why = None, f"the reward is not a finite number ({reward})"
    elif reward is None:
        why = why or "the aggregator gave neither a reward nor a reason"
    return ItemReward(message.item_id, reward, why, partial(_details_of, message))


def _details_of(message: reward_pb2.Reward) -> RewardDetails:
    # Parts of one verifier carry the same outcome, which is read once.
    outcomes: dict[str, Outcome] = {}
    parts = []
    for part in message.parts:
        term = term_from_wire(part.term)
        outcome = outcomes.get(term.verifier)
        if outcome is None:
            outcome = outcomes[term.verifier] = outcome_from_wire(part.outcome)
        contribution = part.contribution if part.HasField("contribution") else None
        dropped_because = part.dropped_because
        if contribution is not None and not math.isfinite(contribution):
            contribution, dropped_because = None, NOT_FINITE
        parts.append(RewardPart(term, outcome, contribution, dropped_because, part.from_cache))
    task = task_from_wire(message.task) if message.HasField("task") else None
    answer = answer_from_wire(message.answer) if message.HasField("answer") else None
    consensus = outcome_from_wire(message.consensus) if message.HasField("consensus") else None
    return RewardDetails(
        tuple(parts),
        task,
        answer,
        consensus,
        unread_reason_from_wire(message.unread_question),
        thought_problem_from_wire(message.thought_problem),
    )


def lost_reward(item: ScoreItem, error: ClientError) -> ItemReward:
    """The reward of an item whose request was lost while others of the same call came through."""
    why, details = f"the request was lost: {error.message}", RewardDetails(task=item.task)
    return ItemReward(item.id, None, why, details, is_lost=True, is_refused=not error.may_pass)


def _unsent_reward(item: ScoreItem) -> ItemReward:
    """The reward of an item that cannot be sent: None in a completion, half a character."""
    try:
        item_to_wire(item)
    except ValueError as error:
        return ItemReward(item.id, None, str(error), RewardDetails(task=item.task), is_lost=True, is_refused=True)
    raise AssertionError(f"item {item.id!r} can be sent, and was not")


def verifier_report(message: reward_pb2.VerifierReport) -> VerifierReport:
    return VerifierReport(
        verifier=message.verifier,
        fingerprint=message.fingerprint,
        items=message.items,
        distinct=message.distinct,
        cache_hits=message.cache_hits,
        failed=message.failed,
        not_applicable=message.not_applicable,
        calls=message.calls,
        wall_s=message.wall_seconds,
        queue_s=message.timing.queue_seconds,
        work_s=message.timing.work_seconds,
        first_failure=failure_from_wire(message.first_failure) if message.HasField("first_failure") else None,
        retries=message.retries,
        hedges=message.hedges,
        shared=message.shared,
        waited_s=message.waited_seconds,
        breaker=_BREAKER_STATES.get(message.breaker, "closed"),
    )


def assemble(
    items: Sequence[ScoreItem],
    requests: Sequence[tuple[list[int], list[types_pb2.Item]]],
    replies: Sequence[reward_pb2.RewardServiceScoreBatchResponse | ClientError],
    wall_s: float,
    request_id: str,
) -> ScoredBatch:
    """One batch out of the replies. Raises the first ClientError if no request came through."""
    errors = [reply for reply in replies if isinstance(reply, ClientError)]
    if errors and len(errors) == len(replies):
        raise errors[0]
    rewards: dict[int, ItemReward] = {}
    reports: dict[str, VerifierReport] = {}
    for (positions, _), reply in zip(requests, replies, strict=True):
        if isinstance(reply, ClientError):
            rewards.update((position, lost_reward(items[position], reply)) for position in positions)
            continue
        rewards.update(zip(positions, map(item_reward, reply.rewards), strict=True))
        for message in reply.verifiers:
            report = verifier_report(message)
            earlier = reports.get(report.verifier)
            reports[report.verifier] = report if earlier is None else _sum_of(earlier, report)
    rewards.update((index, _unsent_reward(item)) for index, item in enumerate(items) if index not in rewards)
    return ScoredBatch([rewards[index] for index in range(len(items))], list(reports.values()), wall_s, request_id)


def _sum_of(one: VerifierReport, other: VerifierReport) -> VerifierReport:
    return dataclasses.replace(
        one,
        fingerprint=one.fingerprint or other.fingerprint,
        items=one.items + other.items,
        distinct=one.distinct + other.distinct,
        cache_hits=one.cache_hits + other.cache_hits,
        failed=one.failed + other.failed,
        not_applicable=one.not_applicable + other.not_applicable,
        calls=one.calls + other.calls,
        wall_s=max(one.wall_s, other.wall_s),
        queue_s=one.queue_s + other.queue_s,
        work_s=one.work_s + other.work_s,
        first_failure=one.first_failure or other.first_failure,
        retries=one.retries + other.retries,
        hedges=one.hedges + other.hedges,
        shared=one.shared + other.shared,
        waited_s=one.waited_s + other.waited_s,
        breaker=other.breaker,
    )


def listed_verifier(message: reward_pb2.VerifierStatus) -> ListedVerifier:
    said = message.description
    return ListedVerifier(
        name=message.name,
        target=message.target,
        is_ready=message.is_ready,
        failure=failure_from_wire(message.failure) if message.HasField("failure") else None,
        version=said.version,
        fingerprint=said.fingerprint,
        summary=said.summary,
        task_kinds=known_task_kinds(said.task_kinds),
        reads=known_reads(said.reads),
        holds_belief=said.holds_belief,
        components=dict(said.components),
        artifacts=tuple(
            ArtifactIdentity(a.name, a.digest, a.license, tuple(a.sources), a.simulated, dict(a.figures))
            for a in said.artifacts
        ),
    )
