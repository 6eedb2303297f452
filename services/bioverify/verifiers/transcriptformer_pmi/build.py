"""Makes the ``transcriptformer_pmi`` artifact: a gene × gene matrix in half precision, its symbols and its scaling.

From TranscriptFormer, if the person names a finished run of `log_ratios`
(``bioverify data build transcriptformer_pmi --source log_ratios=OUT/run.json``): PMI(a, b) is the mean of R[a, b] and
R[b, a], over the genes whose Ensembl id has a current symbol. Else an *empirical* matrix, not TranscriptFormer's,
which the manifest and every sentence of evidence say: of expression in tissues (`tissues`) if the table is to be had,
else of cells (`empirical`). The manifest tells whether the matrix tells known partners from random pairs (`partners`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from bioverify.artifacts.arrow import write_parquet, write_served
from bioverify.artifacts.cells import OwnCells, read_detection
from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.go import read_annotations
from bioverify.artifacts.prompts import CO_EXPRESSION_FILE
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import TF_SAPIENS, TF_SAPIENS_SHA256, TISSUES, LocatedSource, Sources
from bioverify.artifacts.store import ArtifactStore, Build, Manifest, OpenArtifact, SourceRecord
from bioverify.core.genes import GeneResolver
from bioverify.core.verifier import canaries_of
from bioverify.verifiers.transcriptformer_pmi import empirical
from bioverify.verifiers.transcriptformer_pmi.artifact import (
    FACTORS_FILE,
    MATRIX_FILE,
    NAME,
    PARTNERS_AUC,
    SCALING_FILE,
    SYMBOLS_FILE,
)
from bioverify.verifiers.transcriptformer_pmi.factors import Factors
from bioverify.verifiers.transcriptformer_pmi.partners import known_partners, partners_auc
from bioverify.verifiers.transcriptformer_pmi.run_files import GENES_FILE, RATIOS_FILE, WEIGHTS_FILE
from bioverify.verifiers.transcriptformer_pmi.scaling import N_QUANTILES, YES_PERCENTILE, Halves, Scaling, fit_scaling
from bioverify.verifiers.transcriptformer_pmi.tissues import LEAST_TPM, read_tissues
from bioverify.verifiers.transcriptformer_pmi.verifier import open_verifier

SOURCE_NAME = "log_ratios"
"""`--source log_ratios=OUT/run.json`: a finished run of `bioverify.verifiers.transcriptformer_pmi.log_ratios`."""
MAX_PAIRS_PER_LABEL = 20_000
TEXTBOOK_PAIRS = (
    ("HBA1", "HBB"),
    ("CD3D", "CD3E"),
    ("CD79A", "CD79B"),
    ("CD8A", "CD8B"),
    ("CD19", "MS4A1"),
    ("GNLY", "NKG7"),
    ("S100A8", "S100A9"),
    ("HLA-DRA", "HLA-DRB1"),
    ("IFIT1", "ISG15"),
    ("MKI67", "TOP2A"),
    ("MCM2", "PCNA"),
    ("FOS", "JUN"),
    ("HMGCR", "LDLR"),
    ("COL1A1", "COL1A2"),
    ("EPCAM", "KRT8"),
    ("KRT5", "KRT14"),
    ("PECAM1", "VWF"),
    ("ALB", "APOA1"),
    ("INS", "IAPP"),
    ("ACTA1", "CKM"),
    ("MYH6", "TNNT2"),
    ("MBP", "PLP1"),
    ("AQP4", "GFAP"),
    ("SNAP25", "SYT1"),
)
"""What people try first. The manifest tells the share of them that the matrix knows."""
TILE = 2048


class Settings(BaseModel):
    """Of the empirical matrix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expression: Literal["tissues", "cells"] = "tissues"
    """tissues: correlation over tissues, if the table is to be had and no cells are named; else, and for cells: PMI."""
    measure: Literal["pmi", "npmi"] = "pmi"
    """Of cells."""
    cells: OwnCells | None = None
    """None: those that are fetched, or ship."""
    max_genes: Annotated[int, Field(ge=2)] = 5_400  # 58 MB


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    settings: Settings = Settings(),  # noqa: B008  frozen
) -> Manifest:
    """Make the artifact. Raises ArtifactError for a run that is not finished, or cells that cannot be read."""
    resolver, genes = open_genes(store)
    run_path = sources.explicit.get(SOURCE_NAME)
    if run_path is not None:
        return _from_run(run_path, store, sources, resolver, genes, progress)
    tissues = sources.find(TISSUES) if settings.expression == "tissues" and settings.cells is None else None
    if tissues is not None:
        return _from_tissues(tissues, store, sources, resolver, genes, progress)
    data = read_detection(sources, settings.cells)
    n_cells = data.detected.shape[0]
    progress(f"transcriptformer_pmi: {n_cells} {data.cells}, {len(data.symbols):,} genes ({data.record.kind})")
    symbols, detected = empirical.informative_genes(data.symbols, data.detected, resolver, settings.max_genes)
    matrix = empirical.pmi_matrix(detected, normalised=settings.measure == "npmi")
    origin = f"empirical {settings.measure.upper()} of {n_cells} {data.cells}, not TranscriptFormer"
    with store.building(NAME) as folder:
        np.save(folder.path / MATRIX_FILE, matrix, allow_pickle=False)
        scaling = _write_rest(folder, symbols, matrix, progress)
        n_known, quality, records = _checked(sources, resolver, symbols, matrix, progress)
        return folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description=f"{origin[0].upper()}{origin[1:]}.",
            license=data.record.license,
            sources=[data.record, *records],
            inputs=[genes],
            parameters={
                "origin": origin,
                "measure": settings.measure,
                "cutoff": scaling.cutoff,
                "maximum": scaling.maximum,
                "pseudo_cells": empirical.PSEUDO_CELLS,
                "min_detected_share": empirical.MIN_DETECTED_SHARE,
                "max_genes": settings.max_genes,
            },
            counts={
                "cells": n_cells,
                "genes_of_data_set": len(data.symbols),
                "genes": len(symbols),
                "known_pairs": n_known,
            },
            coverage={"textbook_pairs": _share_of_textbook_pairs(symbols)},
            quality=quality,
        )


def _from_tissues(
    located: LocatedSource,
    store: ArtifactStore,
    sources: Sources,
    resolver: GeneResolver,
    genes: OpenArtifact,
    progress: Callable[[str], None],
) -> Manifest:
    tissues = read_tissues(located.path, resolver)
    matrix, symbols = Factors(tissues.vectors), tissues.symbols
    whose = " and ".join(name.upper() for name in tissues.data_sets)
    origin = f"correlation over {tissues.n_tissues} tissues of {whose}, not TranscriptFormer"
    progress(f"transcriptformer_pmi: {origin}: {len(symbols):,} of {tissues.n_genes:,} genes ({located.kind})")
    with store.building(NAME) as folder:
        np.save(folder.path / FACTORS_FILE, tissues.vectors, allow_pickle=False)
        scaling = _write_rest(folder, symbols, matrix, progress)
        n_known, quality, records = _checked(sources, resolver, symbols, matrix, progress)
        return folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description=f"{origin[0].upper()}{origin[1:]}.",
            license=located.source.license,
            sources=[located.record, *records],
            inputs=[genes],
            parameters={
                "origin": origin,
                "measure": "correlation",
                "cutoff": scaling.cutoff,
                "maximum": scaling.maximum,
                "least_tpm": LEAST_TPM,
            },
            counts={
                "tissues": tissues.n_tissues,
                "genes_of_data_set": tissues.n_genes,
                "genes": len(symbols),
                "known_pairs": n_known,
            },
            coverage={"textbook_pairs": _share_of_textbook_pairs(symbols)},
            quality=quality,
        )


def _checked(
    sources: Sources,
    resolver: GeneResolver,
    symbols: list[str],
    matrix: Halves | Factors,
    progress: Callable[[str], None],
) -> tuple[int, dict[str, float], list[SourceRecord]]:
    """How many known partners the matrix holds, how well it tells them (if they are enough), and the source."""
    annotations = read_annotations(sources, resolver, progress=progress)
    pairs = known_partners(annotations, symbols)
    auc = partners_auc(matrix, pairs)
    told = "too few to check" if auc is None else f"told from random pairs with AUC {auc:.3f}"
    progress(f"transcriptformer_pmi: {len(pairs):,} pairs of genes of one complex, {told}")
    return len(pairs), {} if auc is None else {PARTNERS_AUC: auc}, annotations.records


def _from_run(
    path: Path,
    store: ArtifactStore,
    sources: Sources,
    resolver: GeneResolver,
    genes: OpenArtifact,
    progress: Callable[[str], None],
) -> Manifest:
    run = _finished_run(path)
    names: list[str] = json.loads((path.parent / GENES_FILE).read_bytes())
    ratios: Halves = np.load(path.parent / RATIOS_FILE, mmap_mode="r", allow_pickle=False)
    symbols, rows = _current_genes(names, resolver)
    is_official = run["checkpoint_sha256"].get(WEIGHTS_FILE) == TF_SAPIENS_SHA256[WEIGHTS_FILE]
    checkpoint = "TF-Sapiens" if is_official else f"checkpoint {run['checkpoint']}"
    origin = f"TranscriptFormer {checkpoint}, assay {run['assay']}"
    progress(f"transcriptformer_pmi: {origin}: {len(symbols):,} of {len(names):,} genes have a current symbol")
    with store.building(NAME) as folder:
        shape = (len(symbols), len(symbols))
        matrix = np.lib.format.open_memmap(folder.path / MATRIX_FILE, "w+", np.float16, shape)
        symmetrise(ratios, rows, matrix)
        scaling = _write_rest(folder, symbols, matrix, progress)
        matrix.flush()
        n_known, quality, records = _checked(sources, resolver, symbols, matrix, progress)
        return folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description=f"PMI of {origin}.",
            license=TF_SAPIENS.license if is_official else "yours",
            sources=[
                SourceRecord(
                    name=SOURCE_NAME,
                    kind="explicit",
                    location=str(path),
                    url=TF_SAPIENS.url if is_official else "",
                    sha256=run["sha256"][RATIOS_FILE],
                    license=TF_SAPIENS.license if is_official else "yours",
                ),
                *records,
            ],
            inputs=[genes],
            parameters={
                "origin": origin,
                "measure": "pmi",
                "cutoff": scaling.cutoff,
                "maximum": scaling.maximum,
                **{name: run[name] for name in ("package", "checkpoint_sha256", "assay", "count", "softcap")},
            },
            counts={"genes_of_vocabulary": len(names), "genes": len(symbols), "known_pairs": n_known},
            quality=quality,
            coverage={
                "genes_with_symbol": len(symbols) / len(names),
                "textbook_pairs": _share_of_textbook_pairs(symbols),
            },
        )


def _share_of_textbook_pairs(symbols: list[str]) -> float:
    known = set(symbols)
    return sum(known.issuperset(pair) for pair in TEXTBOOK_PAIRS) / len(TEXTBOOK_PAIRS)


def _finished_run(path: Path) -> Mapping[str, Any]:
    try:
        run: dict[str, Any] = json.loads(path.read_bytes())
        done, genes = run["rows_done"], run["genes"]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"source {SOURCE_NAME}={path}: no run.json of log_ratios ({error})") from error
    if "sha256" not in run:
        raise ArtifactError(f"source {SOURCE_NAME}={path}: {done:,} of {genes:,} rows are done. Go on with the run")
    for name, expected in run["sha256"].items():
        found = sha256_of(path.parent / name) if (path.parent / name).is_file() else "missing"
        if found != expected:
            raise ArtifactError(
                f"source {SOURCE_NAME}: sha256 of {path.parent / name} is {found[:12]}…, {path.name} says "
                f"{expected[:12]}…. Copy the folder again, or begin the run again"
            )
    return run


def _current_genes(names: list[str], resolver: GeneResolver) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Symbols and rows in the order of the vocabulary; of two ids of one gene the first."""
    row_of: dict[str, int] = {}
    for row, name in enumerate(names):
        symbol = resolver.resolve(name)
        if isinstance(symbol, str):
            row_of.setdefault(symbol, row)
    if len(row_of) < 2:
        raise ArtifactError(f"source {SOURCE_NAME}: of {len(names):,} genes ({names[0]}, …) {len(row_of)} are known")
    return list(row_of), np.array(list(row_of.values()), np.int64)


def symmetrise(ratios: Halves, rows: npt.NDArray[np.int64], out: Halves) -> None:
    """``out`` becomes the mean of ``ratios`` and its transpose over ``rows``, tile by tile: neither is ever loaded."""
    for first in range(0, len(rows), TILE):
        for second in range(first, len(rows), TILE):
            one, other = rows[first : first + TILE], rows[second : second + TILE]
            tile = (ratios[np.ix_(one, other)].astype(np.float32) + ratios[np.ix_(other, one)].T) / np.float32(2)
            out[first : first + TILE, second : second + TILE] = tile
            out[second : second + TILE, first : first + TILE] = tile.T


def _write_rest(
    folder: Build, symbols: list[str], matrix: Halves | Factors, progress: Callable[[str], None]
) -> Scaling:
    """All files but the matrix, from it."""
    scaling = fit_scaling(values for _, _, values in distinct_pairs(matrix))
    progress(f"transcriptformer_pmi: {len(symbols):,} genes, 99th percentile {scaling.cutoff:.2f}")
    np.save(folder.path / SCALING_FILE, scaling.quantiles, allow_pickle=False)
    write_served(pa.table({"symbol": symbols}), folder.path / SYMBOLS_FILE)
    write_parquet(training_pairs(symbols, matrix, scaling), folder.path / CO_EXPRESSION_FILE)
    return scaling


def distinct_pairs(
    matrix: Halves | Factors,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Halves]]:
    """Rows, columns and values above the diagonal, a strip of rows at a time, in order."""
    for start in range(0, len(matrix), TILE // 16):
        strip = np.asarray(matrix[start : start + TILE // 16])
        rows, columns = np.nonzero(np.arange(len(matrix)) > np.arange(start, start + len(strip))[:, None])
        yield rows + start, columns, strip[rows, columns]


def training_pairs(symbols: list[str], matrix: Halves | Factors, scaling: Scaling) -> pa.Table:
    """Pairs to ask about: of the top 1 % as "yes" (label 1), as many of the bottom 1 % as "no" (label 0).

    Source of the shares: rbio's public development history, whose script took the top for both by mistake.
    """
    bottom = scaling.quantiles[round((N_QUANTILES - 1) * (1 - YES_PERCENTILE / 100))]
    candidates: tuple[list[npt.NDArray[np.int64]], ...] = ([], [])
    for rows, columns, values in distinct_pairs(matrix):
        for found, is_chosen in zip(candidates, (values <= bottom, values >= scaling.cutoff), strict=True):
            found.append(np.stack([rows[is_chosen], columns[is_chosen]]))
    pairs = [np.concatenate(found, axis=1) for found in candidates]
    n_pairs = min(MAX_PAIRS_PER_LABEL, *(found.shape[1] for found in pairs))
    rng = np.random.default_rng(0)
    first, second = np.concatenate(
        [found[:, np.sort(rng.choice(found.shape[1], n_pairs, replace=False))] for found in pairs], axis=1
    )
    names = pa.array(symbols)
    return pa.table(
        {
            "gene_a": names.take(pa.array(first)),
            "gene_b": names.take(pa.array(second)),
            "label": pa.array(np.repeat([0, 1], n_pairs), pa.int8()),
        }
    )
