"""A file of results that is only ever added to, and of which the last line for a row counts.

Each line is a reward as JSON with its ``row`` and a ``stamp``: the recipe, the fingerprints of the verifiers it asks,
and a key over both and what the row holds. So it can be told which results still stand, which a new artifact or
another recipe has overtaken, and which only stand for a fault.

A result equal to the last one of its row is not written again. A last line that was cut short (a killed process, a
full disk) is cut off when the file is opened, and its row counts as one without a result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from bioverify.client.json_form import reward_json
from bioverify.client.values import ItemReward
from bioverify.core.recipes import Recipe
from bioverify.errors import BioverifyError
from bioverify.files import append_lines, whole_lines
from bioverify.rollouts.lines import FileItem

_BEGINNING = b'{"row":'
"""Of every line: a last one that was cut short is only taken off if it is one of ours."""


class LedgerError(BioverifyError, ValueError):
    """The file is no ledger; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The last result of a row: where its line is, what it was scored by, and which verifiers it lacks by a fault."""

    offset: int
    key: str
    fingerprints: Mapping[str, str]
    failed: tuple[str, ...]
    is_lost: bool


class Ledger:
    """Opened for adding. ``entries`` by row. Raises LedgerError for a file of another form."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[int, Entry] = {}
        known: dict[bytes, Mapping[str, str]] = {}
        offset = 0
        path.touch()
        with path.open("rb") as file:
            for line in whole_lines(file):
                self._learn(line, offset, known)
                offset += len(line)
            file.seek(offset)
            if not _BEGINNING.startswith(file.read(len(_BEGINNING))):
                raise self._not_a_ledger(offset)
        append_lines(path, b"")
        self._file = path.open("rb")

    def result(self, row: int) -> dict[str, Any]:
        """The last result of a row that has one."""
        self._file.seek(self.entries[row].offset)
        result: dict[str, Any] = orjson.loads(self._file.readline())
        return result

    def add(self, results: Iterable[dict[str, Any]]) -> int:
        """Add those that say something new, and see them on the disk. How many they were."""
        lines = [
            orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE)
            for result in results
            if result["row"] not in self.entries or _said(self.result(result["row"])) != _said(result)
        ]
        offset = append_lines(self.path, b"".join(lines)) if lines else 0
        for line in lines:
            self._learn(line, offset, {})
            offset += len(line)
        return len(lines)

    def move_to(self, path: Path) -> None:
        """Go on under another name, in place of the file that has it."""
        self.path.replace(path)
        self.path = path

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _learn(self, line: bytes, offset: int, known: dict[bytes, Mapping[str, str]]) -> None:
        try:
            result = orjson.loads(line)
            stamp, parts = result["stamp"], result["parts"]
            failed = {part["verifier"] for part in parts if part["outcome"] == "failed"}
            # The same few in every line: one copy is kept.
            fingerprints = known.setdefault(orjson.dumps(stamp["fingerprints"]), stamp["fingerprints"])
            entry = Entry(offset, stamp["key"], fingerprints, tuple(sorted(failed)), stamp["is_lost"])
            self.entries[result["row"]] = entry
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise self._not_a_ledger(offset) from error

    def _not_a_ledger(self, offset: int) -> LedgerError:
        return LedgerError(
            f"{self.path}, byte {offset}: not a result of bioverify score or rescore. Choose another --output"
        )


def key_of(line: FileItem, recipe: Recipe, fingerprints: Mapping[str, str]) -> str:
    """What a result depends on: the row, the recipe, and the verifiers that it asks."""
    item = {**asdict(line.item), "id": line.id}
    by = [recipe.model_dump(mode="json"), sorted(fingerprints.items())]
    return hashlib.sha256(orjson.dumps([item, by], default=str)).hexdigest()[:32]


def stamped(line: FileItem, reward: ItemReward, recipe: Recipe, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """A result as it stands in a ledger."""
    stamp = {
        "recipe": recipe.name,
        "key": key_of(line, recipe, fingerprints),
        "fingerprints": dict(fingerprints),
        "is_lost": reward.is_lost,
    }
    return {"row": line.line, **reward_json(reward, line.id), "stamp": stamp}


def _said(result: dict[str, Any]) -> dict[str, Any]:
    """All but where it came from."""
    parts = [{name: value for name, value in part.items() if name != "from_cache"} for part in result["parts"]]
    # Through JSON, so that a result read back equals the one that was written.
    said: dict[str, Any] = orjson.loads(orjson.dumps({**result, "parts": parts}))
    return said
