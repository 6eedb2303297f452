"""``python -m tests.mutation``: draw mutants, try them out, write the table. `make mutation` calls it.

What was found is kept in reports/mutation.json as it comes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutation.mutants import Change, Mutant, changes_of, sample
from tests.mutation.running import ROOT, End, Tree
from tests.mutation.table import written

HERE = Path(__file__).parent
RESULTS = ROOT / "reports" / "mutation.json"
TABLE = ROOT / "docs" / "mutation.md"
PACKAGE = "services/bioverify/"


@dataclass(frozen=True, slots=True)
class Result:
    key: str
    path: str
    line: int
    was: str
    now: str
    end: End


def scope() -> dict[str, list[str]]:
    """The files that are mutated, as paths in the repository, and the tests of each."""
    read = tomllib.loads((HERE / "scope.toml").read_text(encoding="utf-8"))
    return {PACKAGE + path: tests for path, tests in read["tests"].items()}


def equivalents() -> list[dict[str, str]]:
    """Mutants that change nothing that a caller could see, with the reason."""
    listed = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8")).get("mutant", [])
    return [{**one, "path": PACKAGE + one["path"]} for one in listed]


def all_changes() -> dict[str, list[Change]]:
    return {path: changes_of(path, (ROOT / path).read_text(encoding="utf-8")) for path in scope()}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=300, metavar="N", help="so many mutants (300); 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="which of them (1)")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="files whose path holds one of these")
    parser.add_argument("--go-on", action="store_true", help="keep what the last run found, and try the rest")
    parser.add_argument("--survivors", action="store_true", help="keep what the last run killed, and try the rest")
    parser.add_argument("--list", action="store_true", help="only show which mutants are drawn")
    parser.add_argument("--write", action="store_true", help="write docs/mutation.md from the results")
    options = parser.parse_args(arguments)

    tests = scope()
    changes = all_changes()
    drawn = sample((one for own in changes.values() for one in own), options.sample or sys.maxsize, options.seed)
    drawn = [one for one in drawn if not options.only or any(part in one.path for part in options.only)]
    results: dict[str, Result] = {}
    if options.survivors or options.go_on:
        kept = [Result(**one) for one in json.loads(RESULTS.read_text(encoding="utf-8"))["results"]]
        keys = {one.key for one in drawn}
        results = {one.key: one for one in kept if one.key in keys and (options.go_on or one.end != End.SURVIVED)}
    left = [one for one in drawn if one.key not in results]
    if options.list:
        for change in left:
            print(_shown(change.made()))
        return 0

    if left:
        tree = Tree(ROOT / ".cache" / "mutation")
        # Of the code that is copied, whatever is committed while it is tried.
        shown = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        commit = shown.stdout.strip()
        began = time.monotonic()
        # In the order in which they were drawn, so that a run that is cut short leaves a smaller sample.
        for number, one in enumerate(map(Change.made, left), start=1):
            end = tree.try_out(one, tests[one.path])
            results[one.key] = Result(one.key, one.path, one.line, one.was, one.now, end)
            if end is not End.KILLED:
                print(f"{end}: {_shown(one)}", flush=True)
            if number % 20 == 0:
                print(f"{number} of {len(left)} in {time.monotonic() - began:.0f} s", flush=True)
            _save(options, commit, changes, results)
    if options.write:
        TABLE.write_text(written(json.loads(RESULTS.read_text(encoding="utf-8")), equivalents()), encoding="utf-8")
    known = {(one["path"], one["was"], one["now"]) for one in equivalents()}
    survived = [one for one in results.values() if one.end == End.SURVIVED]
    unexplained = [one for one in survived if (one.path, one.was, one.now) not in known]
    print(f"{len(results)} mutants, {len(survived)} survived, of which {len(unexplained)} are not listed as equivalent")
    return 0


def _shown(one: Mutant | Result) -> str:
    lines = [*(f"  - {line}" for line in one.was.splitlines()), *(f"  + {line}" for line in one.now.splitlines())]
    return "\n".join([f"{one.path}:{one.line} {one.key}", *lines])


def _save(
    options: argparse.Namespace, commit: str, changes: dict[str, list[Change]], results: dict[str, Result]
) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "seed": options.seed,
                "sample": options.sample,
                "commit": commit,
                "mutants": {path: len(own) for path, own in changes.items()},
                "results": [asdict(one) for one in sorted(results.values(), key=lambda one: (one.path, one.line))],
            },
            indent=1,
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
