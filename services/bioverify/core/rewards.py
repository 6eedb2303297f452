"""From outcomes to rewards, without ever inventing a number.

GRPO compares the members of a group, so a term that is missing for one member must not simply be left out of that
member's sum: rewards .8+.6, .8+.6, .8+.6, .8+missing give advantages +.5 +.5 +.5 −1.5 out of pure noise. A member
without a required score is unscorable (None, masked in training). An optional term that is missing for any member that
is left is dropped for all of them, so the rewards that remain equal those computed without that verifier.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.core.tasks import TaskKind

FORMAT = "format"
"""The verifier of the form: what it says is about no biology, so a reward of its terms alone verifies nothing."""
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
    """``reward`` is None if the item is unscorable, which is not a zero."""

    reward: float | None
    unscorable_because: str
    parts: tuple[Part, ...]


@dataclass(slots=True)
class Weighed:
    """A reward in numbers: per term its contribution, or None with the reason in ``dropped_because``."""

    reward: float | None
    unscorable_because: str
    contributions: list[float | None]
    dropped_because: list[str]


def compose(recipe: Recipe, rows: Sequence[Row]) -> list[Reward]:
    """One reward per row, in order. The members of a group must all be among ``rows``."""
    terms_for = lru_cache(maxsize=None)(recipe.terms_for)
    terms = [terms_for(row.source, row.task_kind) for row in rows]
    values = [
        [term_value(term, row.outcomes[term.verifier]) for term in row_terms or ()]
        for row, row_terms in zip(rows, terms, strict=True)
    ]
    groups = [row.group_id for row in rows]
    kinds = [row.task_kind for row in rows]
    weighed = weigh(recipe, groups, kinds, terms, values, lambda row, verifier: rows[row].outcomes[verifier])
    rewards = []
    for row, row_terms, one in zip(rows, terms, weighed, strict=True):
        summands = zip(row_terms or (), one.contributions, one.dropped_because, strict=True)
        parts = [Part(term, row.outcomes[term.verifier], number, dropped) for term, number, dropped in summands]
        rewards.append(Reward(one.reward, one.unscorable_because, tuple(parts)))
    return rewards


def weigh(
    recipe: Recipe,
    group_ids: Sequence[str],
    task_kinds: Sequence[TaskKind | None],
    terms: Sequence[tuple[Term, ...] | None],
    values: Sequence[Sequence[float | None]],
    outcome_of: Callable[[int, str], Outcome],
) -> list[Weighed]:
    """`compose` on numbers alone: all sequences by row, ``values`` beside ``terms`` with None if one is missing.

    ``outcome_of(row, verifier)`` is asked only if values are missing, to say why. A recipe that names another verifier
    than `FORMAT` rewards nobody for the form alone.
    """
    groups = [f"group:{group_id}" if group_id else f"row:{row}" for row, group_id in enumerate(group_ids)]
    unscorable: dict[int, str] = {}
    lost: dict[str, set[str]] = defaultdict(set)
    for row, (row_terms, row_values) in enumerate(zip(terms, values, strict=True)):
        if row_terms is None:
            asked = task_kinds[row] or "a question of no known form"
            unscorable[row] = f"no source of recipe {recipe.name} asks about {asked}"
        elif None in row_values:
            missing = [term for term, value in zip(row_terms, row_values, strict=True) if value is None]
            required = next((term for term in missing if term.requirement is Requirement.REQUIRED), None)
            if required is None:
                lost[groups[row]].update(term.label for term in missing)
            else:
                unscorable[row] = _why_missing(required, outcome_of(row, required.verifier))
    weighed = [
        _sum(row_terms or (), row_values, lost.get(group, ()), unscorable.get(row, ""))
        for row, (row_terms, row_values, group) in enumerate(zip(terms, values, groups, strict=True))
    ]
    if any(verifier != FORMAT for verifier in recipe.verifiers):
        for row, (row_terms, one) in enumerate(zip(terms, weighed, strict=True)):
            if one.reward is not None and not _is_verified(row_terms or (), one):
                one.reward = None
                one.unscorable_because = _why_unverified(row_terms or (), one, partial(outcome_of, row))
    return weighed


def is_lost_to_a_fault(terms: Sequence[Term], values: Sequence[float | None], failed: Collection[str]) -> bool:
    """Whether an unscorable row is so because verifiers failed, and not because of a fact about the item.

    ``failed``: verifiers by name. False also if all terms, each optional, are dropped for what another member of the
    group lacks.
    """
    missing = decisive(terms, values)
    # Every required term has to come back, but of optional ones a single one is enough.
    enough = all if any(term.requirement is Requirement.REQUIRED for term in missing) else any
    return bool(missing) and enough(term.verifier in failed for term in missing)


def decisive(terms: Sequence[Term], values: Sequence[float | None]) -> list[Term]:
    """The missing terms for which an unscorable row has no reward: the required ones, or all if each is optional."""
    missing = [term for term, value in zip(terms, values, strict=True) if value is None]
    return [term for term in missing if term.requirement is Requirement.REQUIRED] or missing


def term_value(term: Term, outcome: Outcome) -> float | None:
    """What the outcome gives to the term, in the unit of its value or component; None if it gives nothing."""
    if not isinstance(outcome, Scored):
        return None
    return outcome.components.get(term.component) if term.component else outcome.value


def highest(terms: Sequence[Term], contributions: Sequence[float | None]) -> float:
    """Out of how much a reward is: the sum of the positive weights of the terms that entered it.

    So it shrinks with a term that is dropped for the group. It is what the reward is at most if each value is a share;
    a component in another unit than a share may bring more.
    """
    entered = (term.weight for term, number in zip(terms, contributions, strict=True) if number is not None)
    return sum(weight for weight in entered if weight > 0)


def _sum(terms: Sequence[Term], values: Sequence[float | None], lost: Collection[str], unscorable: str) -> Weighed:
    """``lost``: labels of the terms that are missing for another member of the group."""
    contributions: list[float | None] = []
    dropped = []
    total = 0.0
    for term, value in zip(terms, values, strict=True):
        if value is None or (lost and term.label in lost):
            contributions.append(None)
            dropped.append(MISSING if value is None else MISSING_IN_GROUP)
        else:
            contribution = term.weight * value
            contributions.append(contribution)
            dropped.append("")
            total += contribution
    if not unscorable and not any(contribution is not None for contribution in contributions):
        unscorable = "every term is missing for the group"
    if not unscorable and not math.isfinite(total):
        unscorable = "the sum of the terms is not a finite number"
    return Weighed(None if unscorable else total, unscorable, contributions, dropped)


def _is_verified(terms: Sequence[Term], weighed: Weighed) -> bool:
    contributions = zip(terms, weighed.contributions, strict=True)
    return any(number is not None and term.verifier != FORMAT for term, number in contributions)


def _why_unverified(terms: Sequence[Term], weighed: Weighed, outcome_of: Callable[[str], Outcome]) -> str:
    reasons = dict.fromkeys(
        f"{term.label} is missing for another member of the group"
        if dropped == MISSING_IN_GROUP
        else _why_missing(term, outcome_of(term.verifier))
        for term, dropped in zip(terms, weighed.dropped_because, strict=True)
        if dropped
    )
    return f"no verifier had anything to say: {'; '.join(reasons) or 'none applies to the question'}"


def _why_missing(term: Term, outcome: Outcome) -> str:
    if isinstance(outcome, Failed):
        return f"{term.label} failed: {outcome.reason}"
    if isinstance(outcome, NotApplicable):
        return f"{term.label} is not applicable: {outcome.reason}"
    return f"{term.label}: the verifier gives no such component for this item"
