"""Does it hold at full size? A 20,000 × 20,000 PMI matrix and a screen of 100 million pairs, generated and served.

Both artifacts are made in a temporary folder, in the real store, and removed at the end. Then two worker processes at a
time open the real verifier and look up random pairs: how long does opening take (imports not counted), how many pairs
per second and core, how much memory does each worker have of its own? Pages of the mapped files belong to the page
cache and are shared; what an extra worker costs is its anonymous memory, and both figures are printed. The first
opening after a build reads every byte to verify it; later ones remember that (`bioverify.artifacts.checksums`).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from bioverify.artifacts import genes
from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.checksums import SETTLED_S
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.tasks import CoExpression, DifferentialExpression
from bioverify.core.verifier import Item
from bioverify.verifiers.experimental import artifact as experimental
from bioverify.verifiers.experimental.verifier import ExperimentalLookup
from bioverify.verifiers.experimental.verifier import open_verifier as open_experimental
from bioverify.verifiers.transcriptformer_pmi import artifact as pmi
from bioverify.verifiers.transcriptformer_pmi.scaling import fit_scaling
from bioverify.verifiers.transcriptformer_pmi.verifier import TranscriptFormerPmi
from bioverify.verifiers.transcriptformer_pmi.verifier import open_verifier as open_pmi

LINE, SCREEN = "k562", "generated"
CHUNK_ROWS = 10_000_000
N_BULK, N_ITEMS, REPEATS = 2_000_000, 20_000, 5
N_WORKERS = 2


def make_matrix(store: ArtifactStore, symbols: list[str]) -> None:
    """A symmetric matrix of the form −log of products, in half precision, written by rows."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=len(symbols)).astype(np.float32)
    with store.building(pmi.NAME) as folder:
        shape = (len(symbols), len(symbols))
        matrix = np.lib.format.open_memmap(folder.path / pmi.MATRIX_FILE, "w+", np.float16, shape)
        for start in range(0, len(symbols), 1000):
            matrix[start : start + 1000] = np.outer(weights[start : start + 1000], weights)
        matrix.flush()
        scaling = fit_scaling([np.asarray(matrix[rng.integers(len(symbols), size=50), :])])
        del matrix
        np.save(folder.path / pmi.SCALING_FILE, scaling.quantiles, allow_pickle=False)
        write_served(pa.table({"symbol": symbols}), folder.path / pmi.SYMBOLS_FILE)
        folder.commit(
            description="Generated for a benchmark.",
            license="Apache-2.0",
            sources=[],
            simulated=True,
            parameters={"origin": "generated", "cutoff": scaling.cutoff, "maximum": scaling.maximum},
        )


def make_screen(store: ArtifactStore, symbols: list[str], n_pairs: int) -> None:
    """``n_pairs`` distinct pairs, spread evenly over all, with random responses."""
    rng = np.random.default_rng(1)
    gap = len(symbols) ** 2 // n_pairs
    entry = {"screen": SCREEN, "line": LINE, "provenance": "generated", "simulated": True, "kind": "knockdown"}
    with store.building(experimental.NAME) as folder:
        pairs_path = folder.path / experimental.pairs_file(SCREEN, LINE)
        responses_path = folder.path / experimental.responses_file(SCREEN, LINE)
        pairs = np.lib.format.open_memmap(pairs_path, "w+", np.int64, (n_pairs,))
        responses = np.lib.format.open_memmap(responses_path, "w+", np.int8, (n_pairs,))
        for start in range(0, n_pairs, CHUNK_ROWS):
            numbers = np.arange(start, min(start + CHUNK_ROWS, n_pairs))
            pairs[start : start + CHUNK_ROWS] = numbers * gap + rng.integers(gap, size=len(numbers))
            responses[start : start + CHUNK_ROWS] = rng.integers(-1, 2, size=len(numbers), dtype=np.int8)
        pairs.flush()
        responses.flush()
        del pairs, responses
        table = pa.table({"symbol": symbols, "is_gene_set": np.zeros(len(symbols), np.int8)})
        write_served(table, folder.path / experimental.SYMBOLS_FILE)
        np.save(folder.path / experimental.contradictions_file(SCREEN, LINE), np.empty((0, 5), np.int64))
        (folder.path / experimental.SCREENS_FILE).write_text(json.dumps([entry]))
        folder.commit(
            description="Generated for a benchmark.",
            license="Apache-2.0",
            sources=[],
            simulated=True,
            parameters={"splits": "train", "other_lines": "detail"},
        )


def memory_mb() -> dict[str, float]:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    fields = {"own": "Anonymous", "resident_with_shared_pages": "Rss"}
    found = {name: re.search(rf"^{field}:\s+(\d+) kB", rollup, re.MULTILINE) for name, field in fields.items()}
    return {name: round(int(match[1]) / 1000, 1) for name, match in found.items() if match}


def per_second(n: int, work: Callable[[], object]) -> float:
    """Median over the repeats, after one that is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return round(n / statistics.median(seconds[1:]))


def measure(root: Path, name: str) -> dict[str, Any]:
    """In a worker process: open, look up, tell."""
    store = ArtifactStore(root)
    imported_mb = memory_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    verifier = open_experimental(store) if name == experimental.NAME else open_pmi(store)
    open_s, open_cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    opened_mb = memory_mb()
    rates = lookups_per_s(verifier, read_served(store.open(name), pmi.SYMBOLS_FILE).strings("symbol"))
    return {
        "open_s": round(open_s, 3),
        "open_cpu_s": round(open_cpu_s, 3),
        **rates,
        "memory_mb": {"imported": imported_mb, "opened": opened_mb, "after_lookups": memory_mb()},
    }


def lookups_per_s(verifier: ExperimentalLookup | TranscriptFormerPmi, symbols: list[str]) -> dict[str, float]:
    """Random pairs: as arrays of positions, and as items with an outcome each."""
    rng = np.random.default_rng(os.getpid())
    first, second = rng.integers(len(symbols), size=(2, N_BULK))
    asked = [(symbols[a], symbols[b]) for a, b in zip(first[:N_ITEMS].tolist(), second[:N_ITEMS].tolist(), strict=True)]
    if isinstance(verifier, ExperimentalLookup):
        items = [Item(DifferentialExpression(*pair, LINE), answer=True) for pair in asked]
        bulk = per_second(N_BULK, lambda: verifier.responses(LINE, first, second))
    else:
        items = [Item(CoExpression(*pair), answer=True) for pair in asked]
        bulk = per_second(N_BULK, lambda: verifier.beliefs(first, second))
    return {
        "bulk_pairs_per_s": bulk,
        "items_per_s": per_second(N_ITEMS, lambda: verifier.score(items, with_evidence=False)),
    }


def in_workers(root: Path, name: str, n_workers: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.scale", "--worker-of", str(root), "--worker-opens", name]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n_workers)]
    told = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"a worker over {name} failed; its message is above")
    return [json.loads(one) for one in told]


def main(
    n_genes: Annotated[int, typer.Option(help="Genes of the matrix and of the screen.")] = 20_000,
    n_pairs: Annotated[int, typer.Option(help="Measured pairs of the screen.")] = 100_000_000,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks/results/scale.json"),
    worker_of: Annotated[Path | None, typer.Option(hidden=True)] = None,
    worker_opens: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print a Markdown table and write JSON."""
    if worker_of is not None:
        print(json.dumps(measure(worker_of, worker_opens)))
        return
    report: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "genes": n_genes,
        "pairs": n_pairs,
        "workers_at_a_time": N_WORKERS,
    }
    needed = 2 * n_genes**2 + 9 * n_pairs
    with tempfile.TemporaryDirectory(prefix="bioverify-scale-") as folder:
        free = shutil.disk_usage(folder).free
        if free < 2 * needed:
            raise SystemExit(
                f"{folder} has {free / 1e9:.1f} GB free; twice {needed / 1e9:.1f} GB are asked for (TMPDIR)"
            )
        store = ArtifactStore(Path(folder))
        genes.build(store, Sources(None, Path(folder) / "sources", offline=True), progress=print)
        symbols = list(open_genes(store)[0].current.values())[:n_genes]
        makers: dict[str, Callable[[], None]] = {
            pmi.NAME: lambda: make_matrix(store, symbols),
            experimental.NAME: lambda: make_screen(store, symbols, n_pairs),
        }
        for name, make in makers.items():
            make()
            size_bytes = store.manifest(name).size_bytes
            print(f"{name}: {size_bytes / 1e9:.2f} GB made")
            time.sleep(SETTLED_S)  # younger files are not remembered as verified
            started = time.perf_counter()
            store.open(name)
            first_open_s = round(time.perf_counter() - started, 2)
            store.open("genes")
            workers = in_workers(store.root, name, N_WORKERS)
            report[name] = {"size_bytes": size_bytes, "first_open_s": first_open_s, "workers": workers}
            shutil.rmtree(store.root / name)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{report['machine']}; {n_genes:,} genes, {n_pairs:,} pairs, {N_WORKERS} workers at a time\n")
    print("| artifact | GB | verified, s | opened, s (CPU) | bulk, M pairs/s | items/s | own MB | resident MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in makers:
        for one in report[name]["workers"]:
            memory = one["memory_mb"]
            print(
                f"| {name} | {report[name]['size_bytes'] / 1e9:.2f} | {report[name]['first_open_s']} "
                f"| {one['open_s']} ({one['open_cpu_s']}) "
                f"| {one['bulk_pairs_per_s'] / 1e6:.2f} | {one['items_per_s']:,} "
                f"| {memory['opened']['own']} | {memory['after_lookups']['resident_with_shared_pages']} |"
            )
    print(f"\nWritten: {output}")


if __name__ == "__main__":
    typer.run(main)
