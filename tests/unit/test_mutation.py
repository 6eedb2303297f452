"""What `make mutation` tries: only what is there, and each change once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.__main__ import equivalents, scope
from tests.mutation.mutants import changes_of, sample
from tests.mutation.table import written

ROOT = Path(__file__).parents[2]
CODE = '''"""A module."""

from functools import lru_cache

MOST = 3


@lru_cache
def is_small(number: int) -> bool:
    """Not changed: "a < b"."""
    log.info("not changed", number=number)
    if number < 0:
        raise ValueError("no wording is changed")
    return number < MOST
'''


def test_every_file_and_its_tests_are_there() -> None:
    for path, tests in scope().items():
        assert (ROOT / path).is_file(), path
        assert tests, path
        for test in tests:
            file, _, name = test.partition("::")
            text = (ROOT / file).read_text(encoding="utf-8")
            function, _, parameter = name.removesuffix("]").partition("[")
            assert f"def {function}" in text, test
            assert not parameter or f'"{parameter}"' in text, test


def test_every_listed_equivalent_is_of_lines_that_are_there_and_has_a_reason() -> None:
    for one in equivalents():
        assert one["path"] in scope(), one
        lines = [line.strip() for line in (ROOT / one["path"]).read_text(encoding="utf-8").splitlines()]
        assert all(line in lines for line in one["was"].splitlines()), one
        assert one["was"] != one["now"], one
        assert one["reason"], one


def test_decorated_functions_and_constants_are_changed_and_wording_and_logs_are_not() -> None:
    made = [change.made() for change in changes_of("a.py", CODE)]
    changed = {(one.line, one.was, one.now) for one in made}
    assert (5, "MOST = 3", "MOST = 4") in changed
    assert (14, "return number < MOST", "return number <= MOST") in changed
    assert not any("wording" in one.now and "XX" in one.now for one in made)
    assert {one.line for one in made} == {5, 12, 13, 14}
    assert len({one.key for one in made}) == len(made)
    assert all(compile(one.code, "a.py", "exec") for one in made)


def test_a_larger_sample_of_a_seed_holds_the_smaller_one_wherever_a_line_stands() -> None:
    changes = changes_of("a.py", CODE)
    moved = changes_of("a.py", CODE.replace("MOST = 3", "# A remark.\nMOST = 3"))
    few, more = sample(changes, 3, 1), sample(changes, 6, 1)
    assert [one.key for one in more][:3] == [one.key for one in few]
    assert [one.key for one in sample(moved, 3, 1)] == [one.key for one in few]
    assert [one.key for one in sample(changes, 6, 2)] != [one.key for one in more]


@pytest.mark.parametrize(("is_listed", "share"), [(False, "66.7%"), (True, "100.0%")])
def test_the_page_counts_equivalents_apart(is_listed: bool, share: str) -> None:
    one = {"path": "services/bioverify/core/a.py", "line": 3, "was": "a < b", "now": "a <= b"}
    ends = ["killed", "timeout", "survived"]
    results = [one | {"key": str(number), "was": f"line {number}", "end": end} for number, end in enumerate(ends)]
    report = {"seed": 1, "sample": 3, "commit": "abc", "mutants": {one["path"]: 9}, "results": results}
    listed = [results[2] | {"reason": "nobody sees it"}] if is_listed else []
    page = written(report, listed)
    assert f"2 of them killed ({share} of" in " ".join(page.split())
    assert f"| core/a.py | 9 | 3 | 2 | 1 | {0 if is_listed else 1} | {1 if is_listed else 0} |" in page
    assert ("line 3: nobody sees it" in page) == is_listed
