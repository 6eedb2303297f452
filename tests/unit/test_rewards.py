"""The group rule: a fault never moves the rewards that remain against each other."""

import statistics
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bioverify import recipes
from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.recipes import AmbiguousSourceError, Recipe, Requirement, Source, Term
from bioverify.core.rewards import Reward, Row, compose, decisive, highest, is_lost_to_a_fault
from bioverify.core.tasks import TaskKind
from bioverify.settings import SettingsError

FAILED = Failed("unavailable", "connection refused", retryable=True)
UNKNOWN = NotApplicable("unknown_gene", "FOO1 is no known gene.")
DE = TaskKind.DIFFERENTIAL_EXPRESSION


def recipe(**requirements: Requirement) -> Recipe:
    terms = tuple(Term(verifier=name, weight=1.0, requirement=need) for name, need in requirements.items())
    return Recipe(name="r", terms=terms)


BOTH = recipe(needed=Requirement.REQUIRED, extra=Requirement.OPTIONAL)


def row(group: str, needed: Outcome, extra: Outcome) -> Row:
    return Row(group, "", DE, {"needed": needed, "extra": extra})


def test_a_reward_is_the_weighted_sum_of_its_terms():
    terms = (
        Term(verifier="format", weight=1, requirement=Requirement.REQUIRED),
        Term(verifier="format", component="mention", weight=1, requirement=Requirement.REQUIRED),
        Term(verifier="experimental", weight=2, requirement=Requirement.REQUIRED),
    )
    outcomes = {"format": Scored(0.5, {"mention": 1.0}), "experimental": Scored(1.0)}
    (reward,) = compose(Recipe(name="r", terms=terms), [Row("", "", DE, outcomes)])
    assert reward.reward == pytest.approx(3.5)
    assert [part.contribution for part in reward.parts] == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("weights", "contributions", "most"),
    [
        ([1, 1, 2], [0.5, 1.0, 2.0], 4),
        ([1, 1, 2], [0.5, 1.0, None], 2),
        ([1, -3, 2], [0.5, -1.5, 0.0], 3),
        ([-1], [-0.25], 0),
        ([1], [None], 0),
    ],
)
def test_a_reward_is_out_of_the_positive_weights_that_entered_it(weights, contributions, most):
    terms = [Term(verifier=str(n), weight=w, requirement=Requirement.OPTIONAL) for n, w in enumerate(weights)]
    assert highest(terms, contributions) == most


@given(st.lists(st.tuples(st.floats(-9, 9), st.none() | st.floats(0, 1)), min_size=1, max_size=6))
def test_no_sum_of_shares_is_above_the_highest(weighed):
    terms = [Term(verifier=str(n), weight=w, requirement=Requirement.OPTIONAL) for n, (w, _) in enumerate(weighed)]
    contributions = [None if share is None else weight * share for weight, share in weighed]
    assert sum(number or 0.0 for number in contributions) <= highest(terms, contributions) + 1e-9


def test_an_optional_fault_is_dropped_for_the_whole_group_and_for_no_other():
    rows = [row("g", Scored(0.8), Scored(0.6)) for _ in range(3)] + [row("g", Scored(0.8), FAILED)]
    rows.append(row("other", Scored(0.8), Scored(0.6)))
    rewards = compose(BOTH, rows)
    assert [r.reward for r in rewards] == pytest.approx([0.8, 0.8, 0.8, 0.8, 1.4])
    assert [part.dropped_because for part in rewards[0].parts] == ["", "missing_in_group"]
    assert [part.dropped_because for part in rewards[3].parts] == ["", "missing"]


@pytest.mark.parametrize("missing", [FAILED, UNKNOWN])
def test_a_missing_required_score_makes_the_member_unscorable_and_says_why(missing):
    rewards = compose(BOTH, [row("g", missing, Scored(1.0)), row("g", Scored(0.5), Scored(1.0))])
    assert rewards[0].reward is None
    assert missing.reason in rewards[0].unscorable_because
    assert rewards[1].reward == 1.5


def test_what_an_unscorable_member_lacks_costs_the_others_nothing():
    rewards = compose(BOTH, [row("g", FAILED, FAILED), row("g", Scored(0.5), Scored(1.0))])
    assert [r.reward for r in rewards] == [None, 1.5]


def test_items_without_a_group_stand_alone():
    rewards = compose(BOTH, [row("", Scored(0.5), FAILED), row("", Scored(0.5), Scored(1.0))])
    assert [r.reward for r in rewards] == [0.5, 1.5]


@pytest.mark.parametrize("name", ["0", "1", "row:0", "row:1", "group:", "None"])
def test_no_name_of_a_group_is_that_of_an_item_without_one(name):
    for first, second in (("", name), (name, ""), (name, "group:" + name), (name, "row:" + name), (name, name + " ")):
        rows = [row(first, Scored(0.5), FAILED), row(second, Scored(0.5), Scored(1.0))]
        assert [one.reward for one in compose(BOTH, rows)] == [0.5, 1.5]
        assert [one.reward for one in compose(BOTH, rows[::-1])] == [1.5, 0.5]


def test_nothing_left_to_add_up_is_unscorable_not_zero():
    rewards = compose(recipe(extra=Requirement.OPTIONAL), [Row("", "", DE, {"extra": FAILED})])
    assert rewards[0].reward is None
    assert "every term" in rewards[0].unscorable_because


def test_a_component_that_the_verifier_does_not_give_is_missing():
    term = Term(verifier="go_rouge", component="C", weight=2, requirement=Requirement.REQUIRED)
    (reward,) = compose(Recipe(name="r", terms=(term,)), [Row("", "", DE, {"go_rouge": Scored(0.3, {"F": 0.3})})])
    assert reward.reward is None
    assert "go_rouge.C" in reward.unscorable_because


OUTCOMES = st.one_of(st.floats(0, 1).map(Scored), st.just(FAILED), st.just(UNKNOWN))
GROUPED_ROWS = st.lists(st.builds(row, st.sampled_from("abc"), OUTCOMES, OUTCOMES), min_size=1, max_size=24)


@given(GROUPED_ROWS)
def test_advantages_that_remain_equal_those_computed_without_the_missing_verifier(rows):
    """For any pattern of failures, and so no advantage changes sign because of a fault."""
    with_both = compose(BOTH, rows)
    without_extra = compose(recipe(needed=Requirement.REQUIRED), rows)
    members = defaultdict(list)
    for index, (one, reward) in enumerate(zip(rows, with_both, strict=True)):
        if reward.reward is not None:
            members[one.group_id].append(index)
    for indices in members.values():
        extra_missing = any(not isinstance(rows[i].outcomes["extra"], Scored) for i in indices)
        if not extra_missing:
            expected = [rows[i].outcomes["needed"].value + rows[i].outcomes["extra"].value for i in indices]
        else:
            expected = [without_extra[i].reward for i in indices]
        got = [with_both[i].reward for i in indices]
        assert [g - statistics.fmean(got) for g in got] == pytest.approx(
            [e - statistics.fmean(expected) for e in expected], abs=1e-12
        )


@given(GROUPED_ROWS)
def test_a_fault_is_never_a_number(rows):
    for one, reward in zip(rows, compose(BOTH, rows), strict=True):
        for part in reward.parts:
            scored = isinstance(one.outcomes[part.term.verifier], Scored)
            assert scored or part.contribution is None
        if not isinstance(one.outcomes["needed"], Scored):
            assert reward.reward is None


@given(GROUPED_ROWS, st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    straight = compose(BOTH, rows)
    shuffled = compose(BOTH, [rows[i] for i in order])
    assert [shuffled[order.index(i)].reward for i in range(len(rows))] == [r.reward for r in straight]


def test_all_eleven_published_variants_and_their_shares_are_there():
    published = "exp mlp tf go go-c go-f go+exp tf+exp tf+go+exp tf+go+mlp tf+go+mlp+exp"
    for variant in published.split():
        loaded = recipes.load(f"rbio1-{variant}")
        assert loaded.name == f"rbio1-{variant}"
        assert sum(source.share for source in loaded.sources) == pytest.approx(1.0)
        assert loaded.verifiers[0] == "format"


def test_lift_alone_and_half_and_half_with_the_experiment_reward_the_component():
    alone, mixed = recipes.load("lift"), recipes.load("lift+exp")
    assert [(one.name, one.share) for one in mixed.sources] == [("lift", 0.5), ("experimental", 0.5)]
    told = {
        "format": Scored(1.0, {"mention": 0.5}),
        "esm_mlp": Scored(0.2, {"lift": 0.75}, belief=0.2),
        "experimental": Scored(1.0),
    }
    for loaded in (alone, mixed):
        [reward] = compose(loaded, [Row("", "lift", DE, told)])
        assert reward.reward == pytest.approx(1 + 0.5 + 2 * 0.75)
        # Without a training row of the gene there is no lift, and the row has no reward instead of half of one.
        without = {**told, "esm_mlp": Scored(0.2, {"base_rate": 1.0}, belief=0.2)}
        [reward] = compose(loaded, [Row("", "lift", DE, without)])
        assert reward.reward is None
        assert reward.unscorable_because == "esm_mlp.lift: the verifier gives no such component for this item"
    [reward] = compose(mixed, [Row("", "experimental", DE, told)])
    assert reward.reward == pytest.approx(1 + 0.5 + 2)


def test_claims_are_rewarded_beside_the_answer_on_every_prompt():
    for name, verifier in (("claims+exp", "experimental"), ("claims+mlp", "esm_mlp")):
        loaded = recipes.load(name)
        [source] = loaded.sources
        told = {"format": Scored(1.0, {"mention": 0.5}), "claims": Scored(0.25), verifier: Scored(0.75)}
        [reward] = compose(loaded, [Row("", source.name, DE, told)])
        assert reward.reward == pytest.approx(1 + 0.5 + 0.25 + 2 * 0.75)
        [reward] = compose(loaded, [Row("", source.name, DE, {**told, "claims": FAILED})])
        assert reward.reward is None


def test_a_source_chooses_its_own_terms_and_no_source_means_all_that_ask_this_question():
    mixture = recipes.load("rbio1-tf+go+mlp+exp")
    named = mixture.terms_for("mlp", DE)
    assert named is not None
    assert [term.label for term in named] == ["format", "format.mention", "esm_mlp"]
    unnamed = mixture.terms_for("", DE)
    assert unnamed is not None
    assert [term.label for term in unnamed] == ["format", "format.mention", "go_rouge", "esm_mlp", "experimental"]
    assert mixture.terms_for("", TaskKind.DIRECTION_OF_CHANGE) is None
    with pytest.raises(KeyError):
        mixture.terms_for("nowhere", DE)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (
            "name: x\nterms: [{verifier: format, weigth: 1, requirement: required}]",
            r"terms\[0\]\.weigth: there is no such key",
        ),
        ("name: x\nterms: [{verifier: format, weight: .nan, requirement: required}]", r"terms\[0\]\.weight"),
        ("name: x\nterms: []", "at least one term"),
        ("name: [", "not YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key(tmp_path, text, key):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=key):
        recipes.read(tmp_path / "mine.yaml")


def test_shares_must_add_up_to_one():
    term = Term(verifier="format", weight=1, requirement=Requirement.REQUIRED)
    with pytest.raises(ValidationError, match=r"add up to 0\.5"):
        Recipe(name="x", sources=(Source(name="s", share=0.5, task_kind=DE, terms=(term,)),))


def test_a_row_is_lost_to_a_fault_only_where_no_fact_stands_in_its_way_as_well():
    both = recipe(one=Requirement.REQUIRED, other=Requirement.REQUIRED).terms
    assert is_lost_to_a_fault(both, [None, 1.0], {"one"})
    assert not is_lost_to_a_fault(both, [None, None], {"one"})
    assert is_lost_to_a_fault(both, [None, None], {"one", "other"})
    # Of optional terms one would have been enough.
    either = recipe(one=Requirement.OPTIONAL, other=Requirement.OPTIONAL).terms
    assert is_lost_to_a_fault(either, [None, None], {"one"})
    assert not is_lost_to_a_fault(either, [None, None], ())


def test_of_a_mixed_row_the_required_terms_decide_whose_fault_it_is():
    mixed = recipe(one=Requirement.REQUIRED, other=Requirement.OPTIONAL).terms
    assert not is_lost_to_a_fault(mixed, [None, None], {"other"})
    assert is_lost_to_a_fault(mixed, [None, None], {"one"})
    assert decisive(mixed, [None, None]) == [mixed[0]]
    assert decisive(mixed, [1.0, None]) == [mixed[1]]
    assert decisive(mixed, [1.0, 1.0]) == []
    assert is_lost_to_a_fault(mixed, [1.0, 1.0], {"one"}) is False


@pytest.mark.parametrize(
    ("outcome", "component", "why"),
    [
        (FAILED, "", "needed failed: unavailable"),
        (UNKNOWN, "", "needed is not applicable: unknown_gene"),
        (Scored(0.5), "C", "needed.C: the verifier gives no such component for this item"),
    ],
)
def test_why_a_required_term_is_missing_is_said_in_full(outcome, component, why):
    term = Term(verifier="needed", component=component, weight=1.0, requirement=Requirement.REQUIRED)
    (reward,) = compose(Recipe(name="r", terms=(term,)), [Row("", "", DE, {"needed": outcome})])
    assert (reward.reward, reward.unscorable_because) == (None, why)
    assert [(one.contribution, one.dropped_because) for one in reward.parts] == [(None, "missing")]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [(TaskKind.CO_EXPRESSION, "co_expression"), (None, "a question of no known form")],
)
def test_a_question_that_no_source_asks_is_unscorable_and_named(kind, asked):
    mixture = sources_of(term("a"), term("b"))
    (reward,) = compose(mixture, [Row("", "", kind, {})])
    assert reward == Reward(None, f"no source of recipe r asks about {asked}", ())


FORM = Term(verifier="format", weight=1.0, requirement=Requirement.REQUIRED)
SCREEN = Term(verifier="experimental", weight=2.0, requirement=Requirement.OPTIONAL)
BY_BOTH = Recipe(name="r", terms=(FORM, SCREEN))


@pytest.mark.parametrize(("silent", "why"), [(UNKNOWN, "unknown_gene"), (FAILED, "unavailable")])
def test_a_reward_of_the_form_alone_is_none_and_says_what_each_verifier_said(silent, why):
    (reward,) = compose(BY_BOTH, [Row("", "", DE, {"format": Scored(1.0), "experimental": silent})])
    assert reward.reward is None
    assert reward.unscorable_because.startswith("no verifier had anything to say")
    assert why in reward.unscorable_because


def test_the_form_alone_is_a_reward_if_the_recipe_asks_for_nothing_else():
    (reward,) = compose(Recipe(name="r", terms=(FORM,)), [Row("", "", DE, {"format": Scored(0.5)})])
    assert reward.reward == 0.5


def test_a_group_that_loses_its_last_verifier_to_one_member_has_no_reward():
    rows = [
        Row("g", "", DE, {"format": Scored(1.0), "experimental": Scored(1.0)}),
        Row("g", "", DE, {"format": Scored(1.0), "experimental": FAILED}),
    ]
    rewards = compose(BY_BOTH, rows)
    assert [one.reward for one in rewards] == [None, None]
    assert "another member of the group" in rewards[0].unscorable_because


def test_a_sum_that_is_not_finite_is_no_reward():
    recipe = Recipe.model_construct(
        name="r",
        sources=(),
        terms=tuple(
            Term.model_construct(verifier=name, component="", weight=1.7e308, requirement=Requirement.REQUIRED)
            for name in "ab"
        ),
    )
    (reward,) = compose(recipe, [Row("", "", DE, {"a": Scored(1.0), "b": Scored(1.0)})])
    assert (reward.reward, "finite" in reward.unscorable_because) == (None, True)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1.8e308, -1e7])
def test_weights_are_bounded(weight):
    with pytest.raises(ValidationError):
        Term(verifier="a", weight=weight, requirement=Requirement.REQUIRED)


def term(verifier: str, weight: float = 1.0, component: str = "") -> Term:
    return Term(verifier=verifier, component=component, weight=weight, requirement=Requirement.OPTIONAL)


@pytest.mark.parametrize(
    "terms",
    [(term("a"), term("a", 2.0)), (term("a"), term("b"), term("a")), (term("a.c"), term("a", component="c"))],
)
def test_two_common_terms_of_one_label_are_refused_by_name(terms):
    with pytest.raises(ValidationError, match="stands twice: a"):
        Recipe(name="r", terms=terms)


def test_a_recipe_of_too_many_terms_is_refused():
    with pytest.raises(ValidationError, match="at most 256 terms, not 257"):
        Recipe(name="r", terms=tuple(term(f"v{number}") for number in range(257)))


def sources_of(one: Term, other: Term) -> Recipe:
    kinds = {"one": one, "other": other}
    return Recipe(
        name="r",
        sources=tuple(Source(name=name, share=0.5, task_kind=DE, terms=(own,)) for name, own in kinds.items()),
    )


def test_sources_that_disagree_about_a_term_are_asked_only_by_name():
    recipe = sources_of(term("a"), term("a", 2.0))
    assert recipe.terms_for("other", DE) == (term("a", 2.0),)
    with pytest.raises(AmbiguousSourceError, match="one, other of recipe r ask a in different ways"):
        recipe.terms_for("", DE)
    assert sources_of(term("a"), term("a")).terms_for("", DE) == (term("a"),)


def test_shares_and_weights_may_be_what_their_bounds_say_and_no_more():
    sources = [Source(name=name, share=0.5, task_kind=DE, terms=(term("a"),)) for name in "ab"]
    Recipe(name="r", sources=(sources[0], Source(name="b", share=0.5 + 9e-7, task_kind=DE, terms=(term("a"),))))
    for share in (0.5 + 2e-6, 0.5 - 2e-6):
        with pytest.raises(ValidationError, match="add up to"):
            Recipe(name="r", sources=(sources[0], Source(name="b", share=share, task_kind=DE, terms=(term("a"),))))
    with pytest.raises(ValidationError, match="two sources have the same name: a, a"):
        Recipe(name="r", sources=(sources[0], sources[0]))
    with pytest.raises(ValidationError, match=r"sources\.a: a term stands twice: a"):
        Recipe(name="r", terms=(term("a"),), sources=tuple(sources))
    for weight in (1e6, -1e6):
        assert term("a", weight).weight == weight
        with pytest.raises(ValidationError):
            term("a", weight * 1.001)
    assert len(Recipe(name="r", terms=tuple(term(f"v{number}") for number in range(256))).all_terms) == 256


def test_a_recipe_with_sources_needs_no_common_terms_and_one_without_any_terms_is_refused():
    only = Source(name="a", share=1, task_kind=DE, terms=(term("a"),))
    assert Recipe(name="r", sources=(only,)).verifiers == ("a",)
    with pytest.raises(ValidationError, match="at least one term"):
        Recipe(name="r", sources=(Source(name="a", share=1, task_kind=DE, terms=()),))
    assert Recipe(name="r", terms=(term("a"),)).terms_for("", None) == (term("a"),)


def test_a_reward_that_lost_its_verifiers_says_each_reason_once():
    optional = [Term(verifier=name, weight=1.0, requirement=Requirement.OPTIONAL) for name in ("a", "b")]
    by = Recipe(name="r", terms=(FORM, *optional))
    rows = [
        Row("g", "", DE, {"format": Scored(1.0), "a": UNKNOWN, "b": Scored(1.0)}),
        Row("g", "", DE, {"format": Scored(1.0), "a": Scored(1.0), "b": FAILED}),
    ]
    first, second = compose(by, rows)
    start = "no verifier had anything to say: "
    assert first.unscorable_because == (
        f"{start}a is not applicable: unknown_gene; b is missing for another member of the group"
    )
    assert second.unscorable_because == f"{start}a is missing for another member of the group; b failed: unavailable"
