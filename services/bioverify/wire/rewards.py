"""Recipes on the wire."""

from __future__ import annotations

from functools import lru_cache

from bioverify.core.recipes import Pairs, Recipe, Requirement, Source, Term
from bioverify.v1 import reward_pb2
from bioverify.wire.tasks import (
    PARSE_MODES,
    PROMPT_FORMS,
    TASK_KINDS,
    parse_mode_from_wire,
    prompt_form_from_wire,
    task_kind_from_wire,
)

_REQUIREMENTS = {
    Requirement.REQUIRED: reward_pb2.REQUIREMENT_REQUIRED,
    Requirement.OPTIONAL: reward_pb2.REQUIREMENT_OPTIONAL,
}
_REQUIREMENT_OF = {number: requirement for requirement, number in _REQUIREMENTS.items()}


def term_to_wire(term: Term) -> reward_pb2.Term:
    return reward_pb2.Term(
        verifier=term.verifier,
        component=term.component,
        weight=term.weight,
        requirement=_REQUIREMENTS[term.requirement],
    )


def term_from_wire(message: reward_pb2.Term) -> Term:
    return _term(message.SerializeToString())


# A reply repeats its recipe's few terms on every item: their bytes are compared faster than their fields are read.
@lru_cache(maxsize=1024)
def _term(message: bytes) -> Term:
    term = reward_pb2.Term.FromString(message)
    return Term(
        verifier=term.verifier,
        component=term.component,
        weight=term.weight,
        requirement=_REQUIREMENT_OF[term.requirement],
    )


def recipe_to_wire(recipe: Recipe) -> reward_pb2.Recipe:
    return reward_pb2.Recipe(
        name=recipe.name,
        description=recipe.description,
        parse_mode=PARSE_MODES[recipe.parse_mode],
        terms=map(term_to_wire, recipe.terms),
        sources=[
            reward_pb2.Source(
                name=source.name,
                share=source.share,
                task_kind=TASK_KINDS[source.task_kind],
                prompt_form=PROMPT_FORMS[source.prompt_form],
                any_pairs=source.pairs is Pairs.ANY,
                terms=map(term_to_wire, source.terms),
            )
            for source in recipe.sources
        ],
    )


def recipe_from_wire(message: reward_pb2.Recipe) -> Recipe:
    """The recipe. Raises pydantic.ValidationError (a ValueError) that names the offending key."""
    return Recipe(
        name=message.name or "unnamed",
        description=message.description,
        parse_mode=parse_mode_from_wire(message.parse_mode),
        terms=tuple(map(term_from_wire, message.terms)),
        sources=tuple(
            Source(
                name=source.name,
                share=source.share,
                task_kind=task_kind_from_wire(source.task_kind),
                prompt_form=prompt_form_from_wire(source.prompt_form),
                pairs=Pairs.ANY if source.any_pairs else Pairs.MEASURED,
                terms=tuple(map(term_from_wire, source.terms)),
            )
            for source in message.sources
        ),
    )
