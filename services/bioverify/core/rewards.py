"""From outcomes to rewards, without ever inventing a number.

GRPO compares the members of a group, so a term that is missing for one member must not simply be left out of that
member's sum: rewards .8+.6, .8+.6, .8+.6, .8+missing give advantages +.5 +.5 +.5 −1.5 out of pure noise. A member
without a required score is unscorable (None, masked in training). An optional term that is missing for any member that
is left is dropped for all of them, so the rewards that remain equal those computed without that verifier.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.core.tasks import TaskKind

MISSING = "missing"
MISSING_IN_GROUP = "missing_in_group"


@dataclass(frozen=True, slots=True)
class Row:
    """One item as the composition sees it. ``group_id`` empty: a group of its own. Outcomes by verifier name."""

    group_id: str
    source: str
    task_kind: TaskKind | None
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Part:
    """One summand: ``contribution`` is weight × value, or None with the reason in ``dropped_because``."""

    term: Term
    outcome: Outcome
    contribution: float | None
    dropped_because: str = ""


@dataclass(frozen=True, slots=True)
class Reward:
    """``reward`` is None where the item is unscorable, which is not a zero."""

    reward: float | None
    unscorable_because: str
    parts: tuple[Part, ...]


def term_value(term: Term, outcome: Outcome) -> float | None:
    """What the outcome gives to the term, in the unit of its value or component; None where it gives nothing."""
    if not isinstance(outcome, Scored):
        return None
    return outcome.components.get(term.component) if term.component else outcome.value


def _why_missing(term: Term, outcome: Outcome) -> str:
    if isinstance(outcome, Failed):
        return f"{term.label} failed: {outcome.reason}"
    if isinstance(outcome, NotApplicable):
        return f"{term.label} is not applicable: {outcome.reason}"
    return f"{term.label}: the verifier gives no such component for this item"


def compose(recipe: Recipe, rows: Sequence[Row]) -> list[Reward]:
    """One reward per row, in order. The members of a group must all be among ``rows``."""
    terms = [recipe.terms_for(row.source, row.task_kind) for row in rows]
    values: list[dict[str, float | None]] = [
        {term.label: term_value(term, row.outcomes[term.verifier]) for term in row_terms or ()}
        for row, row_terms in zip(rows, terms, strict=True)
    ]
    unscorable = [
        _unscorable_reason(recipe, row, row_terms, row_values)
        for row, row_terms, row_values in zip(rows, terms, values, strict=True)
    ]

    dropped: dict[str, set[str]] = defaultdict(set)
    for index, row in enumerate(rows):
        if not unscorable[index]:
            missing = {label for label, value in values[index].items() if value is None}
            dropped[_group_key(row, index)] |= missing

    rewards = []
    for index, (row, row_terms) in enumerate(zip(rows, terms, strict=True)):
        parts = tuple(
            _part(term, row.outcomes[term.verifier], values[index][term.label], dropped[_group_key(row, index)])
            for term in row_terms or ()
        )
        contributions = [part.contribution for part in parts if part.contribution is not None]
        reason = unscorable[index]
        if not reason and not contributions:
            reason = "every term is missing for the group"
        rewards.append(Reward(None if reason else sum(contributions), reason, parts))
    return rewards


def _group_key(row: Row, index: int) -> str:
    return f"group:{row.group_id}" if row.group_id else f"row:{index}"


def _unscorable_reason(
    recipe: Recipe, row: Row, terms: tuple[Term, ...] | None, values: Mapping[str, float | None]
) -> str:
    if terms is None:
        asked = row.task_kind or "a question of no known form"
        return f"no source of recipe {recipe.name} asks about {asked}"
    for term in terms:
        if term.requirement is Requirement.REQUIRED and values[term.label] is None:
            return _why_missing(term, row.outcomes[term.verifier])
    return ""


def _part(term: Term, outcome: Outcome, value: float | None, dropped_labels: set[str]) -> Part:
    if value is None:
        return Part(term, outcome, None, MISSING)
    if term.label in dropped_labels:
        return Part(term, outcome, None, MISSING_IN_GROUP)
    return Part(term, outcome, term.weight * value)
