"""Rows of one pair become one response: what all of them say, whatever their order."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bioverify.artifacts.responses import (
    CHANGED,
    CONTRADICTED,
    DECREASED,
    DIRECTION_CONTRADICTED,
    INCREASED,
    UNCHANGED,
)
from bioverify.verifiers.experimental.collapse import collapse, keys_of
from bioverify.verifiers.experimental.screen import Screen, combine

CHANGES = {DECREASED, INCREASED, CHANGED}
ROWS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([DECREASED, UNCHANGED, INCREASED, CHANGED])))


def collapsed(rows: list[tuple[int, int]], *, need_undirected: bool = False) -> dict[int, int]:
    pairs, responses, contradictions = collapse(
        keys_of(np.array([pair for pair, _ in rows], np.int64), np.array([one for _, one in rows], np.int8)),
        need_undirected=need_undirected,
    )
    assert pairs.tolist() == sorted(set(pairs.tolist()))
    together = dict(zip(pairs.tolist(), responses.tolist(), strict=True))
    kept = {pair for pair, response in together.items() if response in (CONTRADICTED, DIRECTION_CONTRADICTED)}
    assert contradictions[:, 0].tolist() == sorted(kept)
    return together


@given(ROWS)
def test_a_pair_says_what_all_of_its_rows_say(rows: list[tuple[int, int]]) -> None:
    of_pair: dict[int, set[int]] = defaultdict(set)
    for pair, response in rows:
        of_pair[pair].add(response)
    expected = {}
    for pair, said in of_pair.items():
        if UNCHANGED in said:
            expected[pair] = CONTRADICTED if said & CHANGES else UNCHANGED
        elif {INCREASED, DECREASED} <= said:
            expected[pair] = DIRECTION_CONTRADICTED
        else:
            expected[pair] = next(iter(said - {CHANGED}), CHANGED)
    assert collapsed(rows) == expected


@given(ROWS, st.randoms())
def test_the_order_of_rows_changes_nothing(rows: list[tuple[int, int]], choose: random.Random) -> None:
    shuffled = list(rows)
    choose.shuffle(shuffled)
    assert collapsed(shuffled) == collapsed(rows)


@given(ROWS, ROWS)
def test_two_screens_say_together_what_one_screen_of_all_rows_says(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    apart = [collapsed(rows) for rows in (first, second)]
    screens = [
        Screen("k562", "one", np.array(list(one), np.int64), np.array(list(one.values()), np.int8)) for one in apart
    ]
    pairs = np.arange(7)
    together = combine([screen.find(pairs) for screen in screens]).tolist()
    whole = collapsed([*first, *second])
    assert {pair: response for pair, response in enumerate(together) if pair in whole} == whole


def test_the_numbers_of_contradicting_rows_are_kept() -> None:
    rows = [(1, CHANGED), (1, INCREASED), (1, UNCHANGED), (1, UNCHANGED), (2, INCREASED), (2, DECREASED), (3, CHANGED)]
    pairs, responses = (np.array(one) for one in zip(*rows, strict=True))
    kept, found, contradictions = collapse(keys_of(pairs, responses.astype(np.int8)), need_undirected=False)
    screen = Screen("k562", "mine", kept, found, contradictions=contradictions)
    # A row with a direction beside one without is one row of PerturbQA's, told twice.
    assert [screen.contradiction(pair) for pair in (1, 2)] == ["1 changed, 2 not", "1 increased, 1 decreased"]


def test_a_direction_alone_tells_nothing_of_a_pair_whose_row_is_held_out() -> None:
    assert collapsed([(1, INCREASED), (2, CHANGED), (2, DECREASED)], need_undirected=True) == {2: DECREASED}
