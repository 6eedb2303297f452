"""docs/mutation.md, from the results of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = """# Mutation testing

<!-- Written by `make mutation`. -->

A test suite that is green says little about what it would notice. So single lines of the code are changed, one at a
time (a comparison turned, an argument left out, a number raised by one), and the file's own tests have to fail. The
changes are mutmut's; `tests/mutation/scope.toml` says which files are changed, and which tests have to notice it.
Annotations, docstrings, lines that only log and the wording of sentences are left alone.

`make mutation` draws 300 mutants by a seed, each as likely as any other; `MUTATION_ARGS="--sample 0"` tries all,
`--only NAME` those of some files, `--survivors` once more what survived the last run. It takes half an hour and more,
so it is run by night and by whoever changes one of these files, and not by CI.

**{drawn} of {all:,} mutants were drawn, by seed {seed}, at commit {commit}, and {killed} of them killed ({share:.1%} of
those that are not equivalent)**, {timeouts} of them by taking more than five times as long as the tests do. {survived}
survived. {equivalent} are equivalent: no caller could see them.

| file | mutants | drawn | killed | timeouts | survived | equivalent |
|---|---|---|---|---|---|---|
"""


def written(report: Mapping[str, Any], equivalents: Sequence[Mapping[str, str]]) -> str:
    """The page. ``report``: what `tests.mutation` keeps. ``equivalents``: as they are listed, with their reasons."""
    reasons = {(one["path"], one["was"], one["now"]): one["reason"] for one in equivalents}
    results = report["results"]
    for one in results:
        one["reason"] = reasons.get((one["path"], one["was"], one["now"]), "")
        if one["reason"] and one["end"] == "survived":
            one["end"] = "equivalent"
    counts: dict[str, Counter[str]] = {path: Counter() for path in report["mutants"]}
    for one in results:
        counts[one["path"]][one["end"]] += 1
    total = sum(counts.values(), Counter[str]())
    killed = total["killed"] + total["timeout"]
    lines = [
        _row(path.removeprefix("services/bioverify/"), report["mutants"][path], own) for path, own in counts.items()
    ]
    head = _HEAD.format(
        commit=report["commit"],
        all=sum(report["mutants"].values()),
        seed=report["seed"],
        drawn=len(results),
        killed=killed,
        share=killed / max(1, len(results) - total["equivalent"]),
        timeouts=total["timeout"],
        survived=total["survived"],
        equivalent=total["equivalent"],
    )
    page = head + "\n".join([*lines, _row("together", sum(report["mutants"].values()), total)]) + "\n"
    page += "\n## Survivors\n\n" + (_listed([one for one in results if one["end"] == "survived"]) or "None.\n")
    equal = _listed([one for one in results if one["end"] == "equivalent"])
    return page + "\n## Equivalent\n\n" + (equal or "None was drawn.\n")


def _row(name: str, mutants: int, own: Counter[str]) -> str:
    killed = own["killed"] + own["timeout"]
    drawn = sum(own.values())
    return f"| {name} | {mutants:,} | {drawn} | {killed} | {own['timeout']} | {own['survived']} | {own['equivalent']} |"


def _listed(results: Sequence[Mapping[str, Any]]) -> str:
    blocks = []
    for one in results:
        changed = [
            *(f"- {line}" for line in one["was"].splitlines()),
            *(f"+ {line}" for line in one["now"].splitlines()),
        ]
        said = f": {one['reason']}" if one["reason"] else ""
        where = f"`{one['path'].removeprefix('services/bioverify/')}`, line {one['line']}{said}"
        blocks.append("\n".join([where, "```diff", *changed, "```", ""]))
    return "\n".join(blocks)
