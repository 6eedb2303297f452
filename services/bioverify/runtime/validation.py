"""What makes a request valid: the rules written in the contract, ids that tell items apart, and the item limit."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from bioverify.runtime.errors import invalid, over_limit
from bioverify.v1 import types_pb2
from bioverify.wire.rules import broken_rules


def check_items(request: Message, items: Sequence[types_pb2.Item], max_items: int, *, path: str = "items") -> None:
    """Raise Refused: RESOURCE_EXHAUSTED above ``max_items``, INVALID_ARGUMENT for rules broken and ids repeated.

    ``path``: where the items are within the request.
    """
    if len(items) > max_items:
        raise over_limit(f"{len(items)} items in one call, at most {max_items} are taken; split the call")
    violations = [*broken_rules(request), *_repeated_ids(items, path)]
    if violations:
        raise invalid(violations)


def check_rules(request: Message) -> None:
    """Raise Refused, INVALID_ARGUMENT, for rules of the contract that are broken."""
    if violations := broken_rules(request):
        raise invalid(violations)


def _repeated_ids(items: Sequence[types_pb2.Item], path: str) -> list[tuple[str, str]]:
    first_seen: dict[str, int] = {}
    repeated = []
    for index, item in enumerate(items):
        first = first_seen.setdefault(item.id, index)
        # An empty id is already a broken rule; to call it a duplicate as well would only confuse.
        if first != index and item.id:
            repeated.append((f"{path}[{index}].id", f'duplicate of {path}[{first}].id ("{item.id}")'))
    return repeated
