"""Files of completions: one JSON object per line in, one per line out, in the form of `bioverify.client.json_form`.

Other keys of a line are ignored. A line is checked here by the contract's own rules, because there one bad item is
refused together with the whole call. Items travel under their line number, so ids may repeat or be missing.

Lines of one group stand together. A group is a run of consecutive lines with the same ``group_id``: it is never cut in
two, and a group_id that comes back later in the file is another group. The lines of a group that no call can hold are
bad lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

import orjson
from pydantic import ValidationError

from bioverify.client.json_form import ItemJson, reward_json
from bioverify.client.messages import checked
from bioverify.client.values import ItemReward, ScoreItem
from bioverify.errors import BioverifyError
from bioverify.settings import first_problem
from bioverify.transport.channels import MAX_CALL_ITEMS, MAX_MESSAGE_BYTES

MAX_LINE_BYTES = 16 * 2**20
"""Parsed JSON takes about six times as much memory."""
MAX_GROUP_BYTES = MAX_MESSAGE_BYTES - 2**20
"""As messages, with room for the recipe."""
_LONGEST_GROUP_ID = 200
_SKIPPED_BYTES = 2**20


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


def read_items(
    lines: Iterable[bytes], sources: Sequence[str], on_error: Callable[[LineError], None], *, first_line: int = 1
) -> Iterator[FileItem]:
    """The good lines, one by one; the others go to ``on_error``, a group's that is too large when all of it was read.

    ``sources``: those that the recipe knows. ``first_line``: the number of the first of ``lines``.
    """
    good = _good_lines(lines, sources, on_error, first_line)
    for _, members in groupby(good, lambda member: member[0].item.group_id or member[0].item.id):
        group: list[FileItem] = []
        numbers: list[int] = []
        size_bytes = 0
        for line, item_bytes in members:
            group.append(line)
            numbers.append(line.line)
            size_bytes += item_bytes
            if len(numbers) > MAX_CALL_ITEMS or size_bytes > MAX_GROUP_BYTES:
                group.clear()
        if group:
            yield from group
            continue
        problem = (
            f"group_id: {len(numbers):,} lines ({size_bytes / 2**20:,.1f} MiB) are one group, which is scored in one "
            f"call and never cut; at most {MAX_CALL_ITEMS:,} lines and {MAX_GROUP_BYTES / 2**20:,.0f} MiB"
        )
        for number in numbers:
            on_error(LineError(number, problem))


def in_chunks(items: Iterable[FileItem], size: int) -> Iterator[list[FileItem]]:
    """Chunks of at least ``size`` items, cut only between groups."""
    chunk: list[FileItem] = []
    for item in items:
        group = item.item.group_id
        if len(chunk) >= size and not (group and group == chunk[-1].item.group_id):
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk


def _good_lines(
    lines: Iterable[bytes], sources: Sequence[str], on_error: Callable[[LineError], None], first_line: int
) -> Iterator[tuple[FileItem, int]]:
    """Each good line with the size of its message."""
    last_group, run = "", 0
    for number, raw in enumerate(lines, first_line):
        if not raw.strip():
            continue
        try:
            line = _read_line(raw, number, sources)
            group = "" if line.group_id is None else str(line.group_id)
            of_run = run + (group != last_group)
            item = line.score_item(str(number), f"{_short(group)}#{of_run}" if group else "")
            size_bytes = checked(item).ByteSize()
        except LineError as error:
            on_error(error)
        except ValueError as error:
            on_error(LineError(number, str(error)))
        else:
            last_group, run = group, of_run
            yield FileItem(item, str(number) if line.id is None else str(line.id)), size_bytes


def _short(group: str) -> str:
    """The group's name, or a hash in place of one that the contract has no room for."""
    return group if len(group) <= _LONGEST_GROUP_ID else hashlib.sha256(group.encode()).hexdigest()


def _read_line(raw: bytes, number: int, sources: Sequence[str]) -> ItemJson:
    if len(raw) > MAX_LINE_BYTES:
        raise LineError(number, f"longer than {MAX_LINE_BYTES / 2**20:,.0f} MiB")
    try:
        # Some editors begin a file with a byte order mark.
        line = ItemJson.model_validate(orjson.loads(raw.removeprefix(b"\xef\xbb\xbf").rstrip()))
    except orjson.JSONDecodeError as error:
        raise LineError(number, f"not JSON ({error.msg}, column {error.colno})") from error
    except ValidationError as error:
        raise LineError(number, first_problem(error, ItemJson, "the line")) from error
    if line.source and line.source not in sources:
        known = ", ".join(sources) or "none"
        raise LineError(number, f"source: the recipe has no source {line.source!r}; it has: {known}")
    return line


def output_line(line: FileItem, reward: ItemReward) -> bytes:
    """The result of one line as JSON, under the line's own id."""
    return orjson.dumps(reward_json(reward, line.id), option=orjson.OPT_APPEND_NEWLINE)
