"""Names that lie flat in memory are found as in a dictionary."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.genes import Gene, make_resolver, write_resolver
from bioverify.artifacts.names import Names
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore, OpenArtifact
from bioverify.artifacts.tables import ServedTable, read_served

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def served(table: pa.Table) -> ServedTable:
    """The table as a service reads it, of an artifact that was built."""
    with TemporaryDirectory() as root:
        return read_served(artifact_of(Path(root), table), "table.arrows")


def artifact_of(root: Path, table: pa.Table) -> OpenArtifact:
    store = ArtifactStore(root)
    with store.building("one") as folder:
        write_served(table, folder.path / "table.arrows")
        folder.commit(description="", license="", sources=[])
    return store.open("one")


@given(st.sets(NAMES), NAMES)
def test_a_name_is_found_exactly_where_a_dictionary_has_it(known, asked) -> None:
    keys = sorted(known, key=str.encode)
    table = served(pa.table({"key": pa.array(keys, pa.string())}))
    names = Names(table.texts("key"), lambda at: at)
    expected = {key: at for at, key in enumerate(keys)}
    assert dict(names) == expected
    assert names.get(asked) == expected.get(asked)
    assert (asked in names) == (asked in expected)


SYMBOLS = st.text("ABab1-", min_size=1, max_size=4)
NAMES_OF_A_GENE = st.lists(SYMBOLS, max_size=3).map(tuple)
GENES = st.lists(st.builds(Gene, SYMBOLS, st.just("protein-coding"), *[NAMES_OF_A_GENE] * 3, previous=NAMES_OF_A_GENE))


@given(GENES, SYMBOLS)
def test_a_resolver_that_was_written_and_read_resolves_as_the_one_that_was_made(tmp_path_factory, genes, asked) -> None:
    made = make_resolver(list({gene.symbol.upper(): gene for gene in genes}.values()))
    store = ArtifactStore(tmp_path_factory.mktemp("genes"))
    with store.building("genes") as folder:
        write_resolver(made, folder.path)
        folder.commit(description="", license="", sources=[], parameters={"ids": list(made.ids)})
    read, _ = open_genes(store)
    mappings = (read.current, read.other_names, read.meant)
    assert tuple(map(dict, mappings)) == (made.current, made.other_names, made.meant)
    assert read.ids == made.ids
    assert read.resolve(asked) == made.resolve(asked)


COLUMNS = {
    "text": pa.string(),
    "int8": pa.int8(),
    "int32": pa.int32(),
    "float": pa.float32(),
    "list": pa.list_(pa.int32()),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": NAMES,
            "int8": st.integers(-128, 127),
            "int32": st.integers(-(2**31), 2**31 - 1),
            "float": st.floats(width=32, allow_nan=False),
            "list": st.lists(st.integers(0, 9), max_size=3),
        }
    ),
    max_size=5,
)


@given(ROWS, ROWS, st.integers(0, 3))
def test_a_served_table_reads_as_it_was_written(first, second, dropped) -> None:
    schema = pa.schema(COLUMNS)
    pieces = [pa.Table.from_pylist(rows, schema) for rows in (first, second)]
    # Of several pieces, and a slice: a stream of one batch whose columns begin at their buffers' beginnings.
    written = pa.concat_tables(pieces).slice(dropped)
    table, rows = served(written), (first + second)[dropped:]
    assert table.strings("text") == [row["text"] for row in rows]
    texts = table.texts("text")
    assert [texts[at].decode() for at in range(len(texts))] == [row["text"] for row in rows]
    for name in ("int8", "int32", "float"):
        assert table.numbers(name).tolist() == [row[name] for row in rows]
    starts, elements = table.lists("list")
    read = [elements[start:end].tolist() for start, end in pairwise(starts)]
    assert read == [row["list"] for row in rows]


def test_a_missing_value_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"table\.arrows: 1 of 2 values of label are missing"):
        write_served(pa.table({"label": [1, None]}), tmp_path / "table.arrows")


def test_an_artifact_of_another_version_says_what_to_run(tmp_path) -> None:
    artifact = artifact_of(tmp_path, pa.table({"key": ["A"]}))
    with pytest.raises(ArtifactError, match=r"another version of bioverify made it\. Run: bioverify data build one"):
        read_served(artifact, "current.arrows")
