"""Cells of one's own: only counts say whether a gene was detected, and only of the species that is meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from bioverify.artifacts.cells import Detection, OwnCells, read_detection
from bioverify.artifacts.errors import ArtifactError
from tests.fixtures.artifacts import bundled_sources

COUNTS = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]], np.float32)
GENES = ("CD3D", "CD3E", "GNLY")


def read(folder: Path, *, genes: tuple[str, ...] = GENES, x: object = COUNTS, **own: object) -> Detection:
    layers: Mapping[str, object] = own.pop("layers", {})
    cells = anndata.AnnData(x, obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=list(genes)), layers=layers)
    cells.write_h5ad(folder / "cells.h5ad")
    return read_detection(
        bundled_sources(folder), OwnCells(file=folder / "cells.h5ad", name="mine", license="ours", **own)
    )


@pytest.mark.parametrize("matrix", [COUNTS, scipy.sparse.csr_matrix(COUNTS), scipy.sparse.csc_matrix(COUNTS)])
def test_counts_dense_or_sparse_are_read(tmp_path: Path, matrix: object) -> None:
    assert read(tmp_path, x=matrix).detected.tolist() == (COUNTS > 0).tolist()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (COUNTS - COUNTS.mean(axis=0), "holds in X 2 negative and 0 missing numbers: these are no counts"),
        (np.where(COUNTS == 0, np.nan, COUNTS), "holds in X 0 negative and 3 missing numbers"),
        (scipy.sparse.csr_matrix(-COUNTS), "3 negative"),
        (None, "has no X; name the layer with the counts, layer: one of counts"),
    ],
)
def test_scaled_or_missing_numbers_are_no_counts_and_a_layer_may_be_named(
    tmp_path: Path, matrix: object, message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        read(tmp_path, x=matrix, layers={"counts": COUNTS})
    named = read(tmp_path, x=matrix, layers={"counts": COUNTS}, layer="counts")
    assert named.detected.tolist() == (COUNTS > 0).tolist()
    with pytest.raises(ArtifactError, match="has no layer raw; there are: counts"):
        read(tmp_path, x=matrix, layers={"counts": COUNTS}, layer="raw")


def test_mouse_cells_are_refused_unless_orthologs_are_given(tmp_path: Path) -> None:
    genes = ("Cd3d", "Ear2", "Trp53")
    with pytest.raises(ArtifactError, match="names genes as the mouse's are written"):
        read(tmp_path, genes=genes)
    (tmp_path / "orthologs.csv").write_text("mouse,human\nCd3d,CD3D\nTrp53,TP53\n")
    assert read(tmp_path, genes=genes, species="mouse", orthologs=tmp_path / "orthologs.csv").symbols == [
        "CD3D",
        "",
        "TP53",
    ]
    assert read(tmp_path, genes=genes, species="human").symbols == list(genes)


def test_a_name_that_says_nothing_is_no_alias_of_a_gene(tmp_path: Path) -> None:
    assert read(tmp_path, genes=("CD3D", "nan", "NA")).symbols == ["CD3D", "", ""]
