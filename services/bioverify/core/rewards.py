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
from functools import lru_cache

from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.core.tasks import TaskKind

_Terms = tuple[tuple[Term, str], ...]
"""Terms and their labels."""

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
    terms_for = lru_cache(maxsize=None)(lambda source, kind: _labelled(recipe.terms_for(source, kind)))
    terms: list[_Terms | None] = [terms_for(row.source, row.task_kind) for row in rows]
    values = [
        [term_value(term, row.outcomes[term.verifier]) for term, _ in row_terms or ()]
        for row, row_terms in zip(rows, terms, strict=True)
    ]
    unscorable = [
        _unscorable_reason(recipe, row, row_terms, row_values) if row_terms is None or None in row_values else ""
        for row, row_terms, row_values in zip(rows, terms, values, strict=True)
    ]

    dropped: dict[str, set[str]] = defaultdict(set)
    for index, (row, row_terms, row_values) in enumerate(zip(rows, terms, values, strict=True)):
        if not unscorable[index] and None in row_values:
            missing = {label for (_, label), value in zip(row_terms or (), row_values, strict=True) if value is None}
            dropped[_group_key(row, index)] |= missing

    rewards = []
    for index, (row, row_terms, row_values) in enumerate(zip(rows, terms, values, strict=True)):
        lost = dropped.get(_group_key(row, index), ()) if dropped else ()
        parts = tuple(
            [
                _part(term, row.outcomes[term.verifier], value, is_lost=label in lost)
                for (term, label), value in zip(row_terms or (), row_values, strict=True)
            ]
        )
        contributions = [part.contribution for part in parts if part.contribution is not None]
        reason = unscorable[index]
        if not reason and not contributions:
            reason = "every term is missing for the group"
        rewards.append(Reward(None if reason else sum(contributions), reason, parts))
    return rewards


def _labelled(terms: tuple[Term, ...] | None) -> _Terms | None:
    return None if terms is None else tuple([(term, term.label) for term in terms])


def _group_key(row: Row, index: int) -> str:
    return f"group:{row.group_id}" if row.group_id else f"row:{index}"


def _unscorable_reason(recipe: Recipe, row: Row, terms: _Terms | None, values: Sequence[float | None]) -> str:
    if terms is None:
        asked = row.task_kind or "a question of no known form"
        return f"no source of recipe {recipe.name} asks about {asked}"
    for (term, _), value in zip(terms, values, strict=True):
        if term.requirement is Requirement.REQUIRED and value is None:
            return _why_missing(term, row.outcomes[term.verifier])
    return ""


def _part(term: Term, outcome: Outcome, value: float | None, *, is_lost: bool) -> Part:
    if value is None:
        return Part(term, outcome, None, MISSING)
    if is_lost:
        return Part(term, outcome, None, MISSING_IN_GROUP)
    return Part(term, outcome, term.weight * value)
