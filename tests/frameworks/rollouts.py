"""The rollouts that every framework is given here, and how a script of this folder tells what came of them.

Run with the frameworks' own Python, which has this project's client and nothing of its tests' environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from tests.fixtures.conversations import NONE, SAME, C, Q

QUESTION = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of B? "
    "The answer is either yes or no."
)
KNOWN = [("A", "<think>So.</think> <answer>yes</answer>"), ("A", "<think>So.</think> <answer>no</answer>")]
UNKNOWN = ("UNKNOWN", KNOWN[0][1])
"""A fact makes this one unscorable."""
PATIENCE_S = 1.0


def task_of(gene: str) -> dict[str, Any]:
    return {"task": {"differential_expression": {"perturbation": gene, "measured_gene": "B", "cell_line": "k562"}}}


def tell(**told: Any) -> None:
    """The last line of the script's output."""
    print(json.dumps(told))


def error_of(call: Callable[[], Any]) -> str:
    """The kind of error that ``call`` raises, or that it raises none."""
    try:
        return f"no error, but {call()!r}"
    except Exception as error:
        return type(error).__name__


def cases() -> dict[str, Any]:
    """What people send (`tests.fixtures.conversations`), each with prompt and completion."""
    given = SAME | {name: case for name, (case, _) in NONE.items()}
    return {name: {"prompt": Q, "completion": C} | case for name, case in given.items()}


def is_written(completion: Any) -> bool:
    """Whether it is a text of whole characters."""
    return isinstance(completion, str) and completion.encode(errors="ignore").decode() == completion


TARGET, HTTP, RECIPE = sys.argv[1:4]
