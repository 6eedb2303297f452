"""Names of a request's items: each its own or its place, and no two the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.gateway.problems import ProblemError
from bioverify.gateway.scoring import Asked, Limits, read_request

IDS = st.none() | st.integers(0, 3) | st.sampled_from(["0", "1", "2", "a", "01"])


def asked(ids: list[str | int | None]) -> tuple[Asked, list[int]]:
    """What is read of a body with these ids, and what was charged."""
    charged: list[int] = []
    items = [{"completion": "x"} if one is None else {"completion": "x", "id": one} for one in ids]
    body = json.dumps({"items": items}).encode()
    return read_request(body, None, Limits(max_items=100, max_deadline_s=60, charge=charged.append)), charged


@given(st.lists(IDS, min_size=1, max_size=5))
def test_ids_are_refused_exactly_if_two_items_would_have_the_same(ids: list[str | int | None]) -> None:
    names = [str(place if one is None else one) for place, one in enumerate(ids)]
    if len(set(names)) == len(names):
        read, charged = asked(ids)
        assert (list(read.ids), charged) == (names, [len(ids)])
        assert [item.id for item in read.items] == [str(place) for place in range(len(ids))]
        return
    with pytest.raises(ProblemError) as refused:
        asked(ids)
    [(field, _)] = refused.value.errors
    second = next(place for place, name in enumerate(names) if name in names[:place])
    assert (refused.value.status, field) == (422, f"items[{second}].id")


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["1", None], 'items[1].id: "1" is also the place of items[1], which has no id: give all items one, or none'),
        ([None, 0], 'items[1].id: "0" is also the place of items[0], which has no id: give all items one, or none'),
        (
            ["b", 2, None],
            'items[2].id: "2" is also the place of items[2], which has no id: give all items one, or none',
        ),
        (["b", "c", "b"], 'items[2].id: duplicate of items[0].id ("b")'),
        ([7, "7"], 'items[1].id: duplicate of items[0].id ("7")'),
    ],
)
def test_the_sentence_says_whose_name_it_is(ids: list[str | int | None], told: str) -> None:
    with pytest.raises(ProblemError) as refused:
        asked(ids)
    assert refused.value.detail == told
