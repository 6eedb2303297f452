"""Reward mixtures: which verifiers, with which weights, over which sources of prompts.

reward = Σ weight × value over the recipe's common terms and those of the item's source. Sources carry the share of
training prompts drawn from each, so both forms that rbio's texts describe can be said: one verifier per prompt with
sources mixed by share, and a weighted sum of verifiers on one prompt.
"""

from __future__ import annotations

import math
from collections import Counter
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bioverify.core.answers import ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.tasks import TaskKind
from bioverify.errors import BioverifyError

MAX_WEIGHT = 1e6
MAX_TERMS = 256


class AmbiguousSourceError(BioverifyError, ValueError):
    """An item names no source, and those that ask its kind of question weigh a term differently."""


class Requirement(StrEnum):
    REQUIRED = "required"
    """Without a score the item is unscorable."""
    OPTIONAL = "optional"
    """Without a score for one member, the term is dropped for the whole group."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Term(_Strict):
    """One summand: weight × the verifier's value, or × one of its components."""

    verifier: Annotated[str, Field(min_length=1)]
    component: Annotated[str, Field(max_length=128)] = ""
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
    requirement: Requirement

    @property
    def label(self) -> str:
        """Name of the term in tables and logs: the verifier, or verifier.component."""
        return f"{self.verifier}.{self.component}" if self.component else self.verifier


class Pairs(StrEnum):
    """Which pairs of a perturbation and a gene a source asks about; of training perturbations only."""

    MEASURED = "measured"
    """Those with a label."""
    ANY = "any"
    """A training perturbation and a gene of the same cell line, measured together or not: for soft verifiers."""


class Source(_Strict):
    """Where prompts come from, and the terms that score them beside the recipe's common ones."""

    name: Annotated[str, Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)]
    task_kind: TaskKind
    prompt_form: PromptForm = PromptForm.ANSWER
    pairs: Pairs = Pairs.MEASURED
    terms: tuple[Term, ...]

    @model_validator(mode="after")
    def _has_pairs_to_draw(self) -> Self:
        if self.pairs is Pairs.ANY and self.task_kind is TaskKind.CO_EXPRESSION:
            raise ValueError("pairs: any needs a question about a knockdown; co_expression has measured pairs only")
        return self


class Recipe(_Strict):
    """A reward mixture. Shares of the sources add up to 1."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    parse_mode: ParseMode = ParseMode.WHOLE_WORDS
    terms: tuple[Term, ...] = ()
    sources: tuple[Source, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.terms and not any(source.terms for source in self.sources):
            raise ValueError("a recipe needs at least one term")
        if len(self.all_terms) > MAX_TERMS:
            raise ValueError(f"a recipe has at most {MAX_TERMS} terms, not {len(self.all_terms)}")
        _check_labels("terms", self.terms)
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"two sources have the same name: {', '.join(sorted(names))}")
        if self.sources and not math.isclose(sum(source.share for source in self.sources), 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares of the sources add up to {sum(s.share for s in self.sources):g}, not 1")
        for source in self.sources:
            _check_labels(f"sources.{source.name}", (*self.terms, *source.terms))
        return self

    @property
    def all_terms(self) -> tuple[Term, ...]:
        """The common terms and those of every source."""
        return (*self.terms, *(term for source in self.sources for term in source.terms))

    @property
    def verifiers(self) -> tuple[str, ...]:
        """The names of all verifiers it asks, each once, in order."""
        return tuple(dict.fromkeys(term.verifier for term in self.all_terms))

    def terms_for(self, source_name: str, task_kind: TaskKind | None) -> tuple[Term, ...] | None:
        """The terms that score an item; None if no source of the recipe asks this kind of question.

        Without a source name, every source that asks this kind of question contributes (a term that several share
        counts once): r = Σ_j r_j over the verifiers that apply. Raises KeyError for an unknown source name, and
        AmbiguousSourceError if two of these sources disagree about a term.
        """
        if source_name:
            for source in self.sources:
                if source.name == source_name:
                    return (*self.terms, *source.terms)
            raise KeyError(source_name)
        if not self.sources:
            return self.terms
        matching = [source for source in self.sources if source.task_kind == task_kind]
        if not matching:
            return None
        by_label: dict[str, Term] = {}
        for term in (term for source in matching for term in source.terms):
            if by_label.setdefault(term.label, term) != term:
                names = ", ".join(source.name for source in matching)
                raise AmbiguousSourceError(
                    f"the sources {names} of recipe {self.name} ask {term.label} in different ways; name the source"
                )
        return (*self.terms, *by_label.values())


def _check_labels(where: str, terms: tuple[Term, ...]) -> None:
    """Raises ValueError: two terms of one label would be one column, one metric and one component of a log."""
    counts = Counter(term.label for term in terms)
    if twice := [label for label, count in counts.items() if count > 1]:
        raise ValueError(f"{where}: a term stands twice: {', '.join(twice)}")


def one_verifier(name: str) -> Recipe:
    """The verifier's value as the reward; without a score there is none."""
    return Recipe(name=name, terms=(Term(verifier=name, weight=1.0, requirement=Requirement.REQUIRED),))
