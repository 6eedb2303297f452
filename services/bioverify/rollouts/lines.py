"""Files of completions: one JSON object per line in, one per line out, in the form of `bioverify.client.json_form`.

Other keys of a line are ignored. A line is checked here as the service would check it, because there one bad item is
refused together with the whole call. Items travel under their line number, so ids may repeat or be missing.

Lines of one group stand together. A group is a run of consecutive lines with the same ``group_id``: it is never cut in
two, and a group_id that comes back later in the file is another group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from bioverify.client.json_form import ItemJson, reward_json
from bioverify.client.values import ItemReward, ScoreItem


@dataclass(frozen=True, slots=True)
class FileItem:
    """One good line: ``item.id`` is its line number, ``id`` the file's own (or the line number)."""

    item: ScoreItem
    id: str

    @property
    def line(self) -> int:
        return int(self.item.id)


class LineError(ValueError):
    """A line that cannot be scored; the message names the line and what is wrong with it."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


def read_items(
    lines: Iterable[bytes], sources: Sequence[str], on_error: Callable[[LineError], None], *, first_line: int = 1
) -> Iterator[FileItem]:
    """The good lines, one by one; the others go to ``on_error``.

    ``sources``: those that the recipe knows. ``first_line``: the number of the first of ``lines``.
    """
    last_group, run = "", 0
    for number, raw in enumerate(lines, first_line):
        if not raw.strip():
            continue
        try:
            line = _read_line(raw, number, sources)
        except LineError as error:
            on_error(error)
            continue
        group = "" if line.group_id is None else str(line.group_id)
        run += group != last_group
        last_group = group
        item = line.score_item(str(number), f"{group}#{run}" if group else "")
        yield FileItem(item, str(number) if line.id is None else str(line.id))


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


def _read_line(raw: bytes, number: int, sources: Sequence[str]) -> ItemJson:
    try:
        # Some editors begin a file with a byte order mark.
        line = ItemJson.model_validate(orjson.loads(raw.removeprefix(b"\xef\xbb\xbf").rstrip()))
    except orjson.JSONDecodeError as error:
        raise LineError(number, f"not JSON ({error.msg}, column {error.colno})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise LineError(number, f"{where}: {first['msg']}") from error
    if line.source and line.source not in sources:
        known = ", ".join(sources) or "none"
        raise LineError(number, f"source: the recipe has no source {line.source!r}; it has: {known}")
    return line


def output_line(line: FileItem, reward: ItemReward) -> bytes:
    """The result of one line as JSON, under the line's own id."""
    return orjson.dumps(reward_json(reward, line.id), option=orjson.OPT_APPEND_NEWLINE)
