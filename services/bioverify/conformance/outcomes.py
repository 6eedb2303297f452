"""Outcomes under test: is one well formed, and do two say the same?"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence

from bioverify.conformance.peer import Broken
from bioverify.v1 import types_pb2, verifier_pb2

# What a canary takes for the same number: in a larger batch sums may be grouped in another way.
TOLERANCE = 1e-6


def problem_of(outcome: types_pb2.Outcome, described: verifier_pb2.DescribeResponse) -> str:
    """What is wrong with it by itself; empty if nothing is."""
    match outcome.WhichOneof("result"):
        case "scored":
            return _problem_of_score(outcome.scored, described)
        case "not_applicable":
            lacks = not (outcome.not_applicable.reason and outcome.not_applicable.detail)
            return "not_applicable without a reason and a detail" if lacks else ""
        case "failure":
            return "" if outcome.failure.reason else "failure without a reason"
        case _:
            return "neither scored nor not_applicable nor failure"


def _problem_of_score(scored: types_pb2.Scored, described: verifier_pb2.DescribeResponse) -> str:
    if not 0.0 <= scored.value <= 1.0:
        return f"value {scored.value}, which is not in [0, 1]"
    if scored.HasField("belief"):
        if not described.holds_belief:
            return "a belief, though Describe says holds_belief: false"
        if not 0.0 <= scored.belief <= 1.0:
            return f"belief {scored.belief}, which is not in [0, 1]"
    for name, number in scored.components.items():
        if not math.isfinite(number):
            return f"component {name} is {number}"
        if not any(fnmatch.fnmatchcase(name, known) for known in described.components):
            return f"component {name}, which Describe does not name"
    if any(not evidence.text for evidence in scored.evidence):
        return "evidence without a text"
    return ""


def difference(one: types_pb2.Outcome, other: types_pb2.Outcome) -> str:
    """In what the two differ, ids and wording aside; empty if they say the same."""
    kinds = one.WhichOneof("result"), other.WhichOneof("result")
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} and {kinds[1]}"
    if kinds[0] == "scored":
        numbers, others = _numbers(one.scored), _numbers(other.scored)
        for name in sorted(numbers.keys() | others.keys()):
            here, there = numbers.get(name), others.get(name)
            if here is None or there is None or not math.isclose(here, there, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                return f"{name} {here} and {there}"
    if kinds[0] == "not_applicable" and one.not_applicable.reason != other.not_applicable.reason:
        return f"not applicable for {one.not_applicable.reason!r} and for {other.not_applicable.reason!r}"
    if kinds[0] == "failure" and one.failure.reason != other.failure.reason:
        return f"failed for {one.failure.reason!r} and for {other.failure.reason!r}"
    return ""


def _numbers(scored: types_pb2.Scored) -> dict[str, float]:
    numbers = {"value": scored.value, **{f"component {name}": number for name, number in scored.components.items()}}
    return numbers | ({"belief": scored.belief} if scored.HasField("belief") else {})


def must_agree(found: Iterable[types_pb2.Outcome], expected: Sequence[types_pb2.Outcome], case: str) -> None:
    """Raise Broken with the first two that differ."""
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        if problem := difference(one, other):
            raise Broken(f"probe {index}, {case}: {problem}")
