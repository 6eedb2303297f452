"""A reward as the bytes of the contract's message, with every outcome repeated as the bytes that it came in.

On the wire a message is its fields one after the other, and a field that holds a message is a tag, a length and the
bytes of that message (https://protobuf.dev/programming-guides/encoding/). Fields may come in any order, and what is
said twice is merged. So an outcome without a name and a name in front of it are the outcome of that item, and a reward
of six parts is two dozen pieces joined: a quarter of the time that filling the messages field by field takes, which
would parse each outcome to write it again. Tests hold the result to messages that are filled field by field.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any

from bioverify.core.answers import Answer, AnswerProblem
from bioverify.core.recipes import Term
from bioverify.core.tasks import Task
from bioverify.v1 import reward_pb2, types_pb2
from bioverify.wire.rewards import term_to_wire
from bioverify.wire.tasks import answer_to_wire, task_to_wire

_VARINT, _FIXED64, _DELIMITED = 0, 1, 2
_double = Struct("<d").pack


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; all but the last byte have the eighth bit set."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*written, number))


_LENGTHS = [_varint(length) for length in range(2048)]


def _tag(message: type[Any], field: str, wire_type: int) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type)


_REWARDS = _tag(reward_pb2.RewardServiceScoreBatchResponse, "rewards", _DELIMITED)
_ITEM_ID = _tag(reward_pb2.Reward, "item_id", _DELIMITED)
_REWARD = _tag(reward_pb2.Reward, "reward", _FIXED64)
_UNSCORABLE_BECAUSE = _tag(reward_pb2.Reward, "unscorable_because", _DELIMITED)
_PARTS = _tag(reward_pb2.Reward, "parts", _DELIMITED)
_TASK = _tag(reward_pb2.Reward, "task", _DELIMITED)
_ANSWER = _tag(reward_pb2.Reward, "answer", _DELIMITED)
_CONSENSUS = _tag(reward_pb2.Reward, "consensus", _DELIMITED)
_TERM = _tag(reward_pb2.Part, "term", _DELIMITED)
_OUTCOME = _tag(reward_pb2.Part, "outcome", _DELIMITED)
_CONTRIBUTION = _tag(reward_pb2.Part, "contribution", _FIXED64)
_DROPPED_BECAUSE = _tag(reward_pb2.Part, "dropped_because", _DELIMITED)
_FROM_CACHE = _tag(reward_pb2.Part, "from_cache", _VARINT) + _varint(True)
_OUTCOME_ITEM_ID = _tag(types_pb2.Outcome, "item_id", _DELIMITED)


def _field(tag: bytes, content: bytes) -> bytes:
    length = len(content)
    return tag + (_LENGTHS[length] if length < len(_LENGTHS) else _varint(length)) + content


def term_field(term: Term) -> bytes:
    """The term as a field of a part, to be made once for all items."""
    return _field(_TERM, term_to_wire(term).SerializeToString())


def name_field(item_id: bytes) -> bytes:
    """The item's id as a field of an outcome, to be made once for all its outcomes."""
    return _field(_OUTCOME_ITEM_ID, item_id)


def part_field(
    term: bytes, name: bytes, outcome: bytes, contribution: float | None, dropped_because: str, from_cache: bool
) -> bytes:
    """One part as a field of a reward. ``term``: of `term_field`; ``name``: of `name_field`."""
    part = term + _field(_OUTCOME, name + outcome)
    if contribution is not None:
        part += _CONTRIBUTION + _double(contribution)
    if dropped_because:
        part += _field(_DROPPED_BECAUSE, dropped_because.encode())
    if from_cache:
        part += _FROM_CACHE
    return _field(_PARTS, part)


def reward_field(
    item_id: bytes,
    reward: float | None,
    unscorable_because: str,
    parts: list[bytes],
    task: Task | None,
    answer: Answer | None,
    consensus: bytes | None,
) -> bytes:
    """One reward as a field of the reply. ``parts``: of `part_field`; ``consensus``: an outcome with its name."""
    fields = [_field(_ITEM_ID, item_id), *parts]
    if reward is not None:
        fields.append(_REWARD + _double(reward))
    if unscorable_because:
        fields.append(_field(_UNSCORABLE_BECAUSE, unscorable_because.encode()))
    if task is not None:
        fields.append(_task_field(task))
    if answer is not None:
        fields.append(_ANSWER_FIELDS[answer])
    if consensus is not None:
        fields.append(_field(_CONSENSUS, consensus))
    return _field(_REWARDS, b"".join(fields))


# The members of a group share their task.
@lru_cache(maxsize=1024)
def _task_field(task: Task) -> bytes:
    return _field(_TASK, task_to_wire(task).SerializeToString())


_ANSWER_FIELDS = {
    answer: _field(_ANSWER, answer_to_wire(answer).SerializeToString()) for answer in (True, False, *AnswerProblem)
}
