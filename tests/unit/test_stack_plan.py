"""How many processes a stack starts."""

from __future__ import annotations

import pytest

from bioverify.cli.services import workers_of

VERIFIERS = ("experimental", "go_rouge", "format")


@pytest.mark.parametrize(
    ("cores", "aggregator", "go_rouge", "form"), [(1, 1, 1, 1), (2, 1, 1, 1), (16, 4, 4, 2), (64, 16, 16, 8)]
)
def test_what_costs_most_gets_more_processes_where_there_are_cores(
    cores: int, aggregator: int, go_rouge: int, form: int
) -> None:
    expected = {"aggregator": aggregator, "experimental": 1, "go_rouge": go_rouge, "format": form}
    assert workers_of(VERIFIERS, None, cores) == expected


def test_a_number_that_is_asked_for_holds_for_all() -> None:
    assert workers_of(VERIFIERS, 3, 64) == dict.fromkeys(("aggregator", *VERIFIERS), 3)
