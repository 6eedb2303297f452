"""What a reward request asks for, read once: the recipe, the items as core sees them, and which verifier each needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from pydantic import ValidationError

from bioverify.aggregator.questions import Questions
from bioverify.core.completions import ThoughtProblem, thought_problem
from bioverify.core.consensus import CONSENSUS
from bioverify.core.questions import Unread, UnreadReason
from bioverify.core.recipes import AmbiguousSourceError, Recipe, Term
from bioverify.core.tasks import TaskKind
from bioverify.core.verifier import Item, Reads
from bioverify.recipes import load, names
from bioverify.runtime.errors import invalid
from bioverify.settings import SettingsError, problems
from bioverify.v1 import reward_pb2
from bioverify.wire.rewards import recipe_from_wire
from bioverify.wire.tasks import read_item, read_question

EVERYTHING = Reads.TASK | Reads.ANSWER | Reads.COMPLETION


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """``items`` and ``terms`` by position; terms are None if no source of the recipe asks this kind of question.

    ``unread``: by position, the questions that have no known form; ``unread_reasons`` has those that ask nothing too.
    ``thought_problems``: by position, of completions without a thought. ``positions``: for each verifier the items that
    its terms, or those of the consensus, apply to.
    """

    recipe: Recipe
    items: list[Item]
    questions: Questions
    terms: list[tuple[Term, ...] | None]
    positions: dict[str, list[int]]
    unread: dict[int, Unread]
    unread_reasons: dict[int, UnreadReason]
    thought_problems: dict[int, ThoughtProblem]


def read_recipe(
    request: reward_pb2.RewardServiceScoreBatchRequest, configured: Collection[str], members: Collection[str]
) -> Recipe:
    """The recipe to reward by. Raises Refused (INVALID_ARGUMENT) that names the field.

    ``members``: the verifiers of the consensus; none if no consensus is configured.
    """
    if request.WhichOneof("by") == "recipe_name":
        field = "recipe_name"
        try:
            recipe = load(request.recipe_name)
        except SettingsError as error:
            raise invalid([(field, str(error))]) from error
    else:
        field = "recipe"
        try:
            recipe = recipe_from_wire(request.recipe)
        except ValidationError as error:
            found = problems(error, Recipe)
            raise invalid([(f"recipe.{key}" if key else "recipe", why) for key, why in found]) from error
    known_names = [*configured, *([CONSENSUS] if members else [])]
    missing = [name for name in recipe.verifiers if name not in known_names]
    if missing:
        known = ", ".join(known_names) or "none"
        problem = f"recipe {recipe.name} asks {', '.join(missing)}; this aggregator is configured with {known}"
        if able := [name for name in names() if set(load(name).verifiers) <= set(known_names)]:
            problem += f". Recipes that it can answer: {', '.join(able)}"
        raise invalid([(field, problem)])
    return recipe


def asked_by(terms: Iterable[Term], members: Collection[str]) -> tuple[str, ...]:
    """The verifiers that the terms need, each once, in order; for the consensus its members."""
    names = (members if term.verifier == CONSENSUS else (term.verifier,) for term in terms)
    return tuple(dict.fromkeys(chain.from_iterable(names)))


def read_request(
    request: reward_pb2.RewardServiceScoreBatchRequest,
    recipe: Recipe,
    members: Collection[str],
    reads: Collection[Reads],
) -> ReadRequest:
    """Read every task and completion, once. Raises Refused (INVALID_ARGUMENT) for a source that the recipe lacks.

    ``reads``: what verifiers are known to read; the questions are hashed for these.
    """
    terms_for = lru_cache(maxsize=None)(recipe.terms_for)
    verifiers_for = lru_cache(maxsize=None)(
        lambda source, kind: asked_by(recipe.terms_for(source, kind) or (), members)
    )
    items: list[Item] = []
    terms: list[tuple[Term, ...] | None] = []
    positions: dict[str, list[int]] = {name: [] for name in asked_by(recipe.all_terms, members)}
    violations: list[tuple[str, str]] = []
    unread: dict[int, Unread] = {}
    unread_reasons: dict[int, UnreadReason] = {}
    thought_problems: dict[int, ThoughtProblem] = {}
    for index, message in enumerate(request.items):
        item = read_item(message, recipe.parse_mode, EVERYTHING)
        kind: TaskKind | None = item.task.kind if item.task else None
        try:
            item_terms = terms_for(message.source, kind)
        except KeyError:
            sources = ", ".join(source.name for source in recipe.sources) or "none"
            problem = f"recipe {recipe.name} has no source {message.source!r}; it has {sources}"
            violations.append((f"items[{index}].source", problem))
            continue
        except AmbiguousSourceError as error:
            violations.append((f"items[{index}].source", str(error)))
            continue
        if item.task is None:
            question = read_question(message)
            if isinstance(question, Unread):
                unread[len(items)] = question
                unread_reasons[len(items)] = question.reason
            else:
                unread_reasons[len(items)] = UnreadReason.NOTHING_ASKED
        if problem_of_thought := thought_problem(item.completion):
            thought_problems[len(items)] = problem_of_thought
        items.append(item)
        terms.append(item_terms)
        for verifier in verifiers_for(message.source, kind):
            positions[verifier].append(index)
    if violations:
        raise invalid(violations)
    questions = Questions(items, recipe.parse_mode)
    for fields in reads:
        questions.hashes(fields)
    return ReadRequest(
        recipe,
        items,
        questions,
        terms,
        {name: found for name, found in positions.items() if found},
        unread,
        unread_reasons,
        thought_problems,
    )
