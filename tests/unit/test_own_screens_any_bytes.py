"""Whatever a file holds: it is read, or one sentence says why not. Never a traceback."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bioverify.artifacts.cells import OwnCells, read_detection
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.orthologs import read_orthologs
from bioverify.artifacts.own_screens.reading import open_screen
from bioverify.artifacts.own_screens.settings import OwnScreen
from tests.fixtures.artifacts import bundled_sources
from tests.fixtures.own_screens import NUMBERS

ENDINGS = (
    "csv",
    "CSV",
    "tsv",
    "TSV",
    "txt",
    "gz",
    "csv.gz",
    "bz2",
    "xz",
    "zst",
    "parquet",
    "h5ad",
    "H5AD",
    "xlsx",
    "zip",
    "rds",
)
TABLE = pd.DataFrame(
    {"target": ["AARS"] * 3, "gene": ["ASNS", "TRIB3", "GAPDH"], "lfc": [1.5, -1, 0], "padj": [0, 0.1, 1]}
)


def parquet() -> bytes:
    written = io.BytesIO()
    TABLE.to_parquet(written)
    return written.getvalue()


def h5ad() -> bytes:
    import anndata

    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        obs, var = (
            pd.DataFrame({"target": ["AARS"]}, index=["a"]),
            pd.DataFrame({"gene": TABLE["gene"].to_numpy()}, index=list("xyz")),
        )
        layers = {name: TABLE[name].to_numpy(np.float64)[None, :] for name in ("lfc", "padj")}
        anndata.io.write_elem(file, "/", anndata.AnnData(obs=obs, var=var, layers=layers))
    return written.getvalue()


CSV = TABLE.to_csv(index=False).encode()
WHOLE = (
    CSV,
    CSV.replace(b",", b"\t"),
    CSV.replace(b",", b";"),
    CSV.decode().encode("utf-16"),
    gzip.compress(CSV),
    bz2.compress(CSV),
    lzma.compress(CSV),
    parquet(),
    h5ad(),
)
STARTS = (
    b"",
    b"target,gene,lfc,padj\n",
    b"PAR1",
    b"\x89HDF\r\n\x1a\n",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"#",
    b"sep=;\n",
    b'"',
)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Random bytes behind the beginning of some format, or a whole file that is cut, or lengthened, or changed a bit.

    HDF5's own library is trusted with files that are cut, not with others: a changed pointer may crash it.
    """
    if draw(st.booleans()):
        return draw(st.sampled_from(STARTS)) + draw(
            st.binary(max_size=300) | st.text(",;\t\n\"'01.AaN-", max_size=200).map(str.encode)
        )
    whole = draw(st.sampled_from(WHOLE))
    cut = whole[: draw(st.integers(0, len(whole)))]
    if whole.startswith(b"\x89HDF") or draw(st.booleans()):
        return cut
    at = draw(st.integers(0, len(whole) - 1))
    return whole[:at] + draw(st.binary(min_size=1, max_size=4)) + whole[at + 1 :]


def one_sentence(error: ArtifactError) -> None:
    told = str(error)
    assert told
    assert "\n" not in told
    assert "Traceback" not in told


SLOW = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(contents(), st.sampled_from(ENDINGS), st.booleans())
def test_any_bytes_as_a_screen_are_rows_or_one_sentence(
    tmp_path: Path, content: bytes, ending: str, has_labels: bool
) -> None:
    file = tmp_path / f"own.{ending}"
    file.write_bytes(content)
    columns = {"perturbation": "target", "measured_gene": "gene", "label": "padj"} if has_labels else NUMBERS
    screen = OwnScreen.model_validate(
        {"name": "mine", "file": file, "cell_line": "k562", "columns": columns, "license": "ours"}
    )
    try:
        rows = open_screen(screen)
        n_rows = sum(len(block.response) for block in rows.blocks())
    except ArtifactError as error:
        one_sentence(error)
    else:
        assert n_rows


@SLOW
@given(contents())
def test_any_bytes_as_cells_are_cells_or_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cells.h5ad"
    file.write_bytes(content)
    try:
        read_detection(bundled_sources(tmp_path), OwnCells(file=file, name="mine", license="ours"))
    except ArtifactError as error:
        one_sentence(error)


@SLOW
@given(contents())
def test_any_bytes_as_orthologs_are_pairs_or_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "orthologs.tsv"
    file.write_bytes(content)
    try:
        read_orthologs(file)
    except ArtifactError as error:
        one_sentence(error)


# Workers collect alike: a gzip's bytes hold the second.
@pytest.mark.parametrize("whole", WHOLE, ids=itertools.count())
def test_the_whole_files_are_read(tmp_path: Path, whole: bytes) -> None:
    """Else the laws above would try nothing."""
    file = tmp_path / "own"
    file.write_bytes(whole)
    screen = OwnScreen.model_validate(
        {"name": "mine", "file": file, "cell_line": "k562", "columns": NUMBERS, "license": "ours"}
    )
    assert sum(len(block.response) for block in open_screen(screen).blocks()) == 3
