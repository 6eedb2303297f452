"""Names that lie flat in memory are found as in a dictionary."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.artifacts.genes import Gene, _read_resolver, _write_resolver, make_resolver
from bioverify.artifacts.names import Names, Texts
from bioverify.artifacts.tables import numbers

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(st.sets(NAMES), NAMES)
def test_a_name_is_found_exactly_where_a_dictionary_has_it(known, asked) -> None:
    keys = sorted(known, key=str.encode)
    names = Names(Texts(pa.chunked_array([keys], pa.string())), lambda at: at)
    expected = {key: at for at, key in enumerate(keys)}
    assert dict(names) == expected
    assert names.get(asked) == expected.get(asked)
    assert (asked in names) == (asked in expected)


SYMBOLS = st.text("ABab1-", min_size=1, max_size=4)
GENES = st.lists(st.builds(Gene, SYMBOLS, st.just("protein-coding"), *[st.lists(SYMBOLS, max_size=3).map(tuple)] * 3))


@given(GENES, SYMBOLS)
def test_a_resolver_that_was_written_and_read_resolves_as_the_one_that_was_made(tmp_path_factory, genes, asked) -> None:
    made = make_resolver(list({gene.symbol.upper(): gene for gene in genes}.values()))
    folder = tmp_path_factory.mktemp("genes")
    _write_resolver(made, folder)
    read = _read_resolver(folder)
    assert (dict(read.current), dict(read.other_names)) == (made.current, made.other_names)
    assert read.resolve(asked) == made.resolve(asked)


def test_a_column_with_a_missing_number_is_refused() -> None:
    assert numbers(pa.chunked_array([[1, 2], [3]]))[1:].tolist() == [2, 3]
    with pytest.raises(ValueError, match="1 of 2 numbers are missing"):
        numbers(pa.array([1, None]))
