"""Files of completions: one JSON object per line in, one per line out, in the form of `bioverify.client.json_form`.

Other keys of a line are not read, and told. A line is checked here by the contract's own rules, because there one bad
item is refused together with the whole call. Items travel under their line number, so ids may repeat or be missing.

Lines with the same ``group_id`` are a group, wherever they stand within `MOST_HELD_LINES` lines: a chunk is a run of
lines that no group sticks out of. A line whose group was scored long before, and the lines of a group that no call can
hold, are bad lines.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson
from pydantic import ValidationError

from bioverify.client.json_form import ItemJson, reward_json
from bioverify.client.messages import checked
from bioverify.client.values import ItemReward, ScoreItem
from bioverify.errors import BioverifyError
from bioverify.rollouts.dialects import WANTED, DialectError, as_item
from bioverify.settings import first_problem
from bioverify.transport.channels import MAX_CALL_ITEMS, MAX_MESSAGE_BYTES

MAX_LINE_BYTES = 16 * 2**20
"""Parsed JSON takes about six times as much memory."""
MAX_GROUP_BYTES = MAX_MESSAGE_BYTES - 2**20
"""As messages, with room for the recipe."""
MOST_HELD_LINES = 8192
_LONGEST_GROUP_ID = 256
_SKIPPED_BYTES = 2**20
_MOST_UNREAD_KEYS = 100
_TOO_LARGE = (
    f"group_id: the group is larger than a call can be, and it is never cut: at most {MAX_CALL_ITEMS:,} lines "
    f"and {MAX_GROUP_BYTES / 2**20:,.0f} MiB"
)


@dataclass(frozen=True, slots=True)
class FileItem:
    """One good line: ``item.id`` is its line number, ``id`` the file's own (or the line number)."""

    item: ScoreItem
    id: str

    @property
    def line(self) -> int:
        return int(self.item.id)


class LineError(BioverifyError, ValueError):
    """A line that cannot be scored; the message names the line and what is wrong with it."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The file's lines. One longer than `MAX_LINE_BYTES` comes cut, so that it is refused and fills no memory."""
    while raw := file.readline(MAX_LINE_BYTES + 1):
        if len(raw) > MAX_LINE_BYTES:
            ends = raw
            while ends and not ends.endswith(b"\n"):
                ends = file.readline(_SKIPPED_BYTES)
        yield raw


Line = bytes | Mapping[str, Any]
"""A line of JSON, or what stands in one: rows of a table are no text."""


def read_items(lines: Iterable[Line], sources: Sequence[str], on_error: Callable[[LineError], None]) -> list[FileItem]:
    """The good lines of a small file, in order; the others go to ``on_error``."""
    return [line for chunk in read_chunks(lines, sources, on_error, 1) for line in chunk]


def read_chunks(
    lines: Iterable[Line],
    sources: Sequence[str],
    on_error: Callable[[LineError], None],
    size: int,
    *,
    skip: int = 0,
    unread_keys: set[str] | None = None,
) -> Iterator[list[FileItem]]:
    """The good lines in their order, in chunks of at least ``size`` that hold groups whole.

    The others go to ``on_error``. ``sources``: those that the recipe knows. ``skip``: lines that were read by an
    earlier call and end a chunk of it. ``unread_keys`` is filled with the keys of lines that nobody reads.
    """
    reader = _Reader(sources, on_error, unread_keys)
    for number, raw in enumerate(lines, 1):
        if number <= skip:
            reader.learn(raw)
            continue
        reader.take(raw, number)
        if reader.is_full:
            yield from reader.chunks(size)
    yield from reader.chunks(size, is_end=True)


class _Reader:
    """Good lines that wait until all of their group are there, or until no more can be held."""

    def __init__(
        self, sources: Sequence[str], on_error: Callable[[LineError], None], unread_keys: set[str] | None
    ) -> None:
        self._sources = sources
        self._on_error = on_error
        self._unread_keys = unread_keys
        self._held: deque[tuple[FileItem, int]] = deque()
        self._held_bytes = 0
        self._groups: dict[str, _Held] = {}
        # Of groups that are done with, by their hash, and of those that are too large.
        self._past: set[int] = set()
        self._too_large: set[str] = set()

    @property
    def is_full(self) -> bool:
        return len(self._held) >= MOST_HELD_LINES or self._held_bytes >= MAX_GROUP_BYTES

    def learn(self, raw: Line) -> None:
        """Of a line that was dealt with before only the group counts."""
        with suppress(LineError, ValueError):
            if group := _group_of(_read_line(raw, 0, self._sources, None)):
                self._past.add(hash(group))

    def take(self, raw: Line, number: int) -> None:
        if isinstance(raw, bytes) and not raw.strip():
            return
        try:
            line = _read_line(raw, number, self._sources, self._unread_keys)
            group = _group_of(line)
            self._check_group(group, number)
            item = line.score_item(str(number), group)
            size_bytes = checked(item).ByteSize()
        except LineError as error:
            self._on_error(error)
        except ValueError as error:
            self._on_error(LineError(number, str(error)))
        else:
            self._held.append((FileItem(item, str(number) if line.id is None else str(line.id)), size_bytes))
            self._held_bytes += size_bytes
            if group:
                self._count(group, number, size_bytes)

    def chunks(self, size: int, *, is_end: bool = False) -> Iterator[list[FileItem]]:
        """What can go: as many chunks as end between groups; at the end of the file, or if no more fits, all."""
        while self._held and (is_end or self.is_full):
            yield [self._let_go() for _ in range(self._whole(size, is_end=is_end))]

    def _whole(self, size: int, *, is_end: bool) -> int:
        """How many of the held lines make a chunk that no group sticks out of."""
        end = 0
        for count, (line, _) in enumerate(self._held, 1):
            if group := line.item.group_id:
                end = max(end, self._groups[group].last_line)
            if count >= size and end <= line.line and (is_end or count < len(self._held)):
                return count
        return len(self._held)

    def _let_go(self) -> FileItem:
        line, size_bytes = self._held.popleft()
        self._held_bytes -= size_bytes
        if group := line.item.group_id:
            self._past.add(hash(group))
            if self._groups[group].last_line == line.line:
                del self._groups[group]
        return line

    def _check_group(self, group: str, number: int) -> None:
        if group in self._too_large:
            raise LineError(number, _TOO_LARGE)
        if group and group not in self._groups and hash(group) in self._past:
            raise LineError(
                number,
                f"group_id: {group!r} names lines further up, which are scored already. The lines of a group stand at "
                f"most {MOST_HELD_LINES:,} lines apart; sort the file by group_id",
            )

    def _count(self, group: str, number: int, size_bytes: int) -> None:
        held = self._groups.setdefault(group, _Held())
        held.last_line = number
        held.lines += 1
        held.size_bytes += size_bytes
        if held.lines <= MAX_CALL_ITEMS and held.size_bytes <= MAX_GROUP_BYTES:
            return
        self._too_large.add(group)
        del self._groups[group]
        self._held_bytes -= held.size_bytes
        dropped = [line for line, _ in self._held if line.item.group_id == group]
        self._held = deque(one for one in self._held if one[0].item.group_id != group)
        for line in dropped:
            self._on_error(LineError(line.line, _TOO_LARGE))


@dataclass(slots=True)
class _Held:
    """What is held of a group."""

    last_line: int = 0
    lines: int = 0
    size_bytes: int = 0


def _group_of(line: ItemJson) -> str:
    return "" if line.group_id is None else _short(str(line.group_id))


def _short(group: str) -> str:
    """The group's name, or a hash in place of one that the contract has no room for."""
    return group if len(group) <= _LONGEST_GROUP_ID else hashlib.sha256(group.encode()).hexdigest()


def fields_of(raw: Line, number: int) -> Mapping[str, Any]:
    """The record of a line with the keys of an item, whoever wrote it; other keys beside them. Raises LineError."""
    try:
        record = _parsed(raw, number) if isinstance(raw, bytes) else raw
        if isinstance(record, list):
            raise LineError(number, "a JSON array; one object per line is read. Convert: jq -c '.[]' FILE")
        if not isinstance(record, Mapping):
            raise LineError(number, f"an object with {WANTED}, not {str(record)[:60]}")
        return as_item(record)
    except DialectError as error:
        raise LineError(number, str(error)) from error


def item_of(fields: Mapping[str, Any], number: int) -> ItemJson:
    """The item of a record. Raises LineError."""
    try:
        return ItemJson.model_validate(fields)
    except ValidationError as error:
        raise LineError(number, first_problem(error, ItemJson, "the line")) from error


def _read_line(raw: Line, number: int, sources: Sequence[str], unread_keys: set[str] | None) -> ItemJson:
    fields = fields_of(raw, number)
    if unread_keys is not None and len(unread_keys) < _MOST_UNREAD_KEYS:
        unread_keys.update(key for key in fields if key not in ItemJson.model_fields)
    line = item_of(fields, number)
    if line.source and line.source not in sources:
        known = ", ".join(sources) or "none"
        raise LineError(number, f"source: the recipe has no source {line.source!r}; it has: {known}")
    return line


def _parsed(raw: bytes, number: int) -> Any:
    if len(raw) > MAX_LINE_BYTES:
        raise LineError(number, f"longer than {MAX_LINE_BYTES / 2**20:,.0f} MiB")
    # Some editors begin a file with a byte order mark.
    text = raw.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" in text or b"Infinity" in text:
            # Python writes them, JSON knows none; in a key that is not read they do no harm.
            with suppress(ValueError):
                return json.loads(text)
        raise LineError(number, f"not JSON ({error.msg}, column {error.colno})") from error


def output_line(line: FileItem, reward: ItemReward) -> bytes:
    """The result of one line as JSON, under the line's own id."""
    return orjson.dumps(reward_json(reward, line.id), option=orjson.OPT_APPEND_NEWLINE)
