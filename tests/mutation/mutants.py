"""Which single changes of a file are tried, and which of them are drawn.

The changes are mutmut's: a comparison turned, a number raised by one, an argument left out or None, a text in other
letters, and so on. mutmut's own runner leaves out decorated functions and what stands outside of functions, because it
keeps all mutants of a file in one module; here each mutant is a file of its own, so nothing has to be left out.

Not tried: annotations and docstrings (mutmut), lines that only log (``do_not_mutate_patterns`` in pyproject.toml), and
the wording of sentences, which a person judges and no test should repeat.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import libcst as cst
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import get_ignored_lines


@dataclass(frozen=True, slots=True)
class Change:
    """One change that may be drawn. ``key`` depends on the file's name and the change alone, not on its line."""

    key: str
    path: str
    module: cst.Module
    mutation: Mutation

    def made(self) -> Mutant:
        """The file with the change: half a tenth of a second, so only of what is drawn."""
        mutated = self.module.deep_replace(self.mutation.original_node, self.mutation.mutated_node)
        assert isinstance(mutated, cst.Module)
        return Mutant(self.key, self.path, *_difference(self.module.code, mutated.code), mutated.code)


@dataclass(frozen=True, slots=True)
class Mutant:
    """``path``: in the repository. ``line``: the first that differs. ``was``, ``now``: the lines before and after."""

    key: str
    path: str
    line: int
    was: str
    now: str
    code: str


class _Visitor(MutationVisitor):
    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        return super()._skip_node_and_children(node)


def changes_of(path: str, code: str) -> list[Change]:
    wrapper = MetadataWrapper(cst.parse_module(code))
    visitor = _Visitor(mutation_operators, get_ignored_lines(path, code, wrapper), None)
    module = wrapper.visit(visitor)
    seen: Counter[str] = Counter()
    found = []
    for mutation in visitor.mutations:
        if not _is_wording(mutation.original_node):
            nodes = (mutation.original_node, mutation.mutated_node)
            text = "\0".join((path, *map(module.code_for_node, nodes)))
            seen[text] += 1
            key = blake2b(f"{text}\0{seen[text]}".encode(), digest_size=6).hexdigest()
            found.append(Change(key, path, module, mutation))
    return found


def sample(changes: Iterable[Change], count: int, seed: int) -> list[Change]:
    """``count`` of them, each as likely as any other; a larger sample holds the smaller one of the same seed."""
    return sorted(changes, key=lambda one: blake2b(f"{seed}:{one.key}".encode()).digest())[:count]


def _is_wording(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString) and " " in node.value and "r" not in node.prefix.lower()


def _difference(before: str, after: str) -> tuple[int, str, str]:
    """The first line that differs, and the lines that do, before and after."""
    old, new = before.splitlines(), after.splitlines()
    edits = [edit for edit in difflib.SequenceMatcher(None, old, new, False).get_opcodes() if edit[0] != "equal"]
    was = "\n".join(line.strip() for _, start, end, _, _ in edits for line in old[start:end])
    now = "\n".join(line.strip() for _, _, _, start, end in edits for line in new[start:end])
    return edits[0][1] + 1, was, now
