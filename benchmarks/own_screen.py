"""How much memory does a genome-wide screen of one's own need while it is built into an artifact?

A file of the size of Replogle's genome-wide screen (11,258 perturbations × 8,248 genes, two layers in single precision)
is generated row by row, and built by `bioverify.verifiers.experimental.build` in a process of its own, whose highest
resident size is compared with that before the build. Everything lies in a temporary folder and is removed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import typer

from bioverify.artifacts import genes
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.verifiers.experimental import build as experimental

TESTED_SHARE = 0.95
BLOCK_ROWS = 64


def write_screen(path: Path, symbols: list[str], n_perturbations: int, n_genes: int) -> None:
    """As anndata writes it, but never in memory as a whole."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for axis, names in (
            ("obs", [*symbols[: n_perturbations - 1], "non-targeting"]),
            ("var", symbols[-n_genes:]),
        ):
            group = file.create_group(axis)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
            group.create_dataset("_index", data=names, dtype=h5py.string_dtype())
            group["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        file.create_group("layers").attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        layers = {name: file["layers"].create_dataset(name, (n_perturbations, n_genes), "f4") for name in ("lfc", "p")}
        for layer in layers.values():
            layer.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, n_perturbations, BLOCK_ROWS):
            shape = (min(BLOCK_ROWS, n_perturbations - start), n_genes)
            change = rng.normal(size=shape, scale=0.5).astype(np.float32)
            change[rng.random(shape) > TESTED_SHARE] = np.nan
            layers["lfc"][start : start + shape[0]] = change
            layers["p"][start : start + shape[0]] = rng.random(shape, np.float32)


def build_once(root: Path, path: Path) -> None:
    """Prints the figures of this process as JSON."""
    columns = {"perturbation": "index", "measured_gene": "index", "log_fold_change": "lfc", "adjusted_p": "p"}
    own = {"name": "generated", "file": path, "cell_line": "k562", "columns": columns, "license": "none"}
    settings = experimental.Settings.model_validate({"perturbqa": False, "screens": [own]})
    store = ArtifactStore(root / "artifacts")
    open_genes(store)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    sources = Sources(None, root, offline=True)
    manifest = experimental.build(store, sources, progress=lambda said: print(said, file=sys.stderr), settings=settings)
    seconds = time.perf_counter() - started
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    n_pairs = manifest.counts["generated.k562.pairs"]
    figures = {
        "pairs": n_pairs,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb),
        "mb_per_million_pairs": round(peak_mb / n_pairs * 1e6, 1),
        "artifact_mb": round(manifest.size_bytes / 1e6),
    }
    print(json.dumps(figures))


def main(
    perturbations: Annotated[int, typer.Option(help="Rows of the file.")] = 11_258,
    measured: Annotated[int, typer.Option(help="Columns of the file: genes.")] = 8_248,
    folder: Annotated[
        Path | None, typer.Option(help="Where there is room for about 2 GB. None: the usual one.")
    ] = None,
) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        store = ArtifactStore(root / "artifacts")
        genes.build(store, Sources(None, root, offline=True), progress=lambda _: None)
        symbols = sorted(open_genes(store)[0].current.values())
        write_screen(root / "generated.h5ad", symbols, perturbations, measured)
        command = [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from benchmarks.own_screen import build_once",
        ]
        command[-1] += "; build_once(Path(sys.argv[1]), Path(sys.argv[2]))"
        subprocess.run([*command, str(root), str(root / "generated.h5ad")], check=True)


if __name__ == "__main__":
    typer.run(main)
