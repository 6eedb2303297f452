"""The blocks of code of a document, in order, and what is shown of their output.

A `console` block is commands behind `$ `, each followed by what it prints, or by nothing if that is not shown; a
command goes on while its line ends with a backslash or a quotation is open. A `text` block right behind a `python`
block is what it prints. `…` in what is shown stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "services/bioverify/verifiers").glob("*/README.md")),
)
CODE = ("console", "python", "yaml")


@dataclass(frozen=True)
class Block:
    """``line`` of the document at which the code begins. ``shown``: of a python block's output; None: nothing."""

    document: Path
    line: int
    language: str
    code: str
    shown: str | None = None

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """``text`` for the shell; ``shown`` of its output, None if nothing is."""

    text: str
    shown: str | None
    place: str


def blocks(document: Path) -> list[Block]:
    """Those in one of the languages of `CODE`."""
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    found = []
    for number, token in enumerate(tokens):
        if token.type != "fence" or token.info not in CODE or token.map is None:
            continue
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        is_output = token.info == "python" and following and following.type == "fence" and following.info == "text"
        shown = following.content if is_output and following else None
        found.append(Block(document, token.map[0] + 2, token.info, token.content, shown))
    return found


def commands(block: Block) -> list[Command]:
    """Of a console block."""
    found: list[Command] = []
    lines = list(enumerate(block.code.splitlines(), block.line))
    while lines:
        number, line = lines.pop(0)
        assert line.startswith("$ "), f"{block.place}: a console block begins with a command, not with {line!r}"
        text = line.removeprefix("$ ")
        while text.endswith("\\") or re.sub(r"\s# .*", "", text).count("'") % 2:
            text += "\n" + lines.pop(0)[1]
        shown = []
        while lines and not lines[0][1].startswith("$ "):
            shown.append(lines.pop(0)[1])
        place = f"{block.document.relative_to(ROOT)}:{number}"
        found.append(Command(text, "\n".join(shown) if shown else None, place))
    return found


def comparable(printed: str, port_base: int) -> list[str]:
    """Without what differs from one start to the next: ports, process numbers, times, folders, digests, widths."""
    text = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"PORT+{int(found[1]) - port_base}", printed)
    text = re.sub(r"\b\d+(\.\d+)? s\b", "N s", text)
    text = re.sub(r"(\w+ +)\d+( +running)", r"\1PID\2", text)
    text = re.sub(r"/[^\s\"…]*/(artifacts|logs|valkey)", r"FOLDER/\1", text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def differs(printed: str, shown: str, port_base: int, shown_port_base: int) -> str:
    """The first line that is not as shown, or nothing."""
    said, wanted = comparable(printed, port_base), comparable(shown, shown_port_base)
    for ours, theirs in zip_longest(wanted, said):
        pattern = None if ours is None else ".*".join(map(re.escape, ours.split("…")))
        if pattern is None or theirs is None or not re.fullmatch(pattern, theirs):
            return f"shown:   {ours}\nprinted: {theirs}"
    return ""
