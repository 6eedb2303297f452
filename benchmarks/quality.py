"""How true the verifiers are: PerturbQA's per-gene AUC, beside baselines and controls.

``python -m benchmarks.quality --out quality --vectors NAME=FILE --settings FILE`` measures two builds: *default*, which
``bioverify data build --all`` makes with these sources, and *best*, the same with these settings; vectors and models
are made by the code of ``data build``. It asks about the test rows. ``--held-out 0 --held-out 1`` measures a choice
instead: folds of each line's training perturbations (sorted, index mod 5) stand for the test rows, which are not read.

One cell (part of ``quality_models.py``, kind of question, line, seed, fold) at a time, on one thread. Each is kept in
the folder OUT.parts as soon as it is measured: a run that was interrupted goes on, ``--minutes`` ends one in time, and
several may share the folder. The table (OUT.md, ``quality_table.py``; OUT.json has every figure) shows all that is kept
and says what is not run. A cell knows vectors and settings, not the code: after a change of a model remove its files.
Nothing is chosen by test rows, and no figure uses how many rows a perturbation has.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console

from benchmarks.quality_models import MEMBERS, ONCE, PARTS, Inputs, Scores, as_written, consensus, names_of
from benchmarks.quality_table import Figures, markdown
from bioverify.artifacts import genes as gene_table
from bioverify.artifacts.perturbqa import Screens, read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import BuildSettings, read_build_settings
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.genes import GeneResolver
from bioverify.core.metrics import aucs_of_genes, brier_score, pooled_measures, reliability
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.esm_mlp.build import Table, vectors_of, with_vectors
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors, read_vectors, reduced, write_vectors
from bioverify.verifiers.esm_mlp.knowledge import KNOWLEDGE
from bioverify.verifiers.esm_mlp.train import Rows

KINDS = {"DE": TaskKind.DIFFERENTIAL_EXPRESSION, "direction": TaskKind.DIRECTION_OF_CHANGE}
CONSENSUS = "consensus"
DEFAULT, BEST = "default", "best"
FOLDS = 5
TEST_ROWS = "test"

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Build:
    """``vectors``: name → file, beside GO's. ``digest``: of all that its figures depend on, but for the code."""

    name: str
    vectors: Mapping[str, Path]
    settings: BuildSettings

    @property
    def setup(self) -> Figures:
        return {
            "vectors": {name: _sha256(path) for name, path in sorted(self.vectors.items())},
            "knowledge": _public(tuple(sorted(set(self.settings.esm_mlp.knowledge) - self.vectors.keys()))),
            "esm_mlp": self.settings.esm_mlp.model_dump(mode="json"),
            "analogy": self.settings.analogy.model_dump(mode="json"),
        }

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.setup, sort_keys=True).encode()).hexdigest()[:8]


class Cell(NamedTuple):
    """``fold``: of training perturbations, or `TEST_ROWS`."""

    part: str
    kind: str
    line: str
    seed: int
    fold: str


@dataclass(frozen=True)
class Prepared:
    """``table``: rows whose genes have vectors, by their index. ``written``: all rows, genes by the files' names.

    ``nets``, ``joint``: what nets are fed with, and what analogy compares genes by.
    """

    table: Table
    written: Table
    written_names: Sequence[str]
    nets: GeneVectors
    joint: GeneVectors


def main(
    out: Annotated[Path, typer.Option(help="Written: OUT.json, OUT.md and the folder OUT.parts.")],
    vectors: Annotated[list[str] | None, typer.Option(help="NAME=FILE of both builds, as data build takes it.")] = None,
    settings: Annotated[Path | None, typer.Option(help="YAML of the best build, as data build takes it.")] = None,
    held_out: Annotated[list[int] | None, typer.Option(help="Folds of training perturbations; no test row.")] = None,
    seeds: Annotated[int, typer.Option(help=f"{', '.join(ONCE)} use the first only.")] = 3,
    minutes: Annotated[float | None, typer.Option(help="After so many no cell is begun.")] = None,
    builds: Annotated[list[str] | None, typer.Option(help=f"{DEFAULT}, {BEST}; both without.")] = None,
    parts: Annotated[list[str] | None, typer.Option(help=f"Some of {', '.join(PARTS)}; all without.")] = None,
    lines: Annotated[list[str] | None, typer.Option(help="Cell lines; all without.")] = None,
    kinds: Annotated[list[str] | None, typer.Option(help="DE, direction; both without.")] = None,
) -> None:
    """Measure what is not kept yet, and print the table of all that is."""
    began = time.monotonic()
    named = {name: Path(path) for name, path in (one.split("=", 1) for one in vectors or [])}
    measured = [Build(DEFAULT, named, BuildSettings())]
    if settings:
        measured.append(Build(BEST, named, read_build_settings(settings)))
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    folds = [str(fold) for fold in held_out] if held_out else [TEST_ROWS]
    missing = [
        (build, cell)
        for build in measured
        for cell in cells(folds, seeds)
        if build.name in (builds or [DEFAULT, BEST])
        and cell.part in (parts or PARTS)
        and cell.line in (lines or CELL_LINES)
        and cell.kind in (kinds or KINDS)
        and not (cell.part == "trivial" and build.name != DEFAULT)
        and not _kept(folder, build, cell).is_file()
    ]
    # What matters most first: models of all folds, then the other seeds, then controls.
    missing.sort(key=lambda one: (one[1].part not in ("trivial", *MEMBERS), one[1].seed, one[1].fold))
    for number, (build, cell) in enumerate(missing, 1):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            console.print(f"{len(missing) - number + 1} cells are not run: {minutes:g} minutes are over")
            break
        measure(build, cell, prepare(folder, build.digest, build, cell.fold), folder)
        console.print(
            f"{time.monotonic() - began:.0f} s, {number} of {len(missing)}: {build.name} {' '.join(map(str, cell))}"
        )
    report = collect(folder, measured, cells(folds, seeds))
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    table = markdown(report["builds"], folds=folds, seeds=seeds, test_rows=not held_out)
    out.with_suffix(".md").write_text(table)
    typer.echo(table)
    console.print(f"{report['cpu_seconds']:.0f} s of CPU in all cells; {time.monotonic() - began:.0f} s for this run")


def cells(folds: Sequence[str], seeds: int) -> list[Cell]:
    return [
        Cell(part, kind, line, seed, fold)
        for part in PARTS
        for kind in KINDS
        for line in CELL_LINES
        for seed in range(1 if part in ONCE else seeds)
        for fold in folds
    ]


def measure(build: Build, cell: Cell, prepared: Prepared, folder: Path) -> None:
    """Keep the figures of every model of a part; of the consensus as well, as soon as all members have answered."""
    kind = KINDS[cell.kind]
    inputs = Inputs(
        prepared.table,
        prepared.written,
        prepared.nets.vectors,
        prepared.joint.vectors,
        cell.line,
        kind,
        cell.seed,
        build.settings.esm_mlp,
    )
    began = time.process_time()
    scored = PARTS[cell.part](inputs)
    cpu_seconds = time.process_time() - began
    if cell.part in MEMBERS:
        verifier = scored[MEMBERS[cell.part]]
        if verifier.known is None:
            raise ValueError(f"{cell.part}: no logits of the training rows, which the consensus is fitted to")
        np.savez(_logits_file(folder, build, cell), known=verifier.known, new=verifier.score, allow_pickle=False)
        files = {name: _logits_file(folder, build, cell._replace(part=other)) for other, name in MEMBERS.items()}
        if all(file.is_file() for file in files.values()):
            members = {name: _kept_logits(file) for name, file in files.items()}
            together = consensus(inputs, members)
            _keep(folder, build, cell._replace(part=CONSENSUS), inputs.asked, prepared.nets.symbols, together, 0.0)
    if cell.part == "trivial":
        asked, names = prepared.written.of(cell.line, kind, "test"), prepared.written_names
    else:
        asked, names = inputs.asked, prepared.nets.symbols
    _keep(folder, build, cell, asked, names, scored, cpu_seconds)


def _keep(
    folder: Path,
    build: Build,
    cell: Cell,
    asked: Rows,
    names: Sequence[str],
    scored: Mapping[str, Scores],
    cpu_seconds: float,
) -> None:
    models = {name: figures_of(asked, names, scores) for name, scores in scored.items()}
    kept = _kept(folder, build, cell)
    new = kept.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({"models": models, "cpu_seconds": cpu_seconds}))
    new.replace(kept)


def _kept_logits(file: Path) -> Scores:
    with np.load(file, allow_pickle=False) as logits:
        return Scores(logits["new"], known=logits["known"])


def figures_of(asked: Rows, names: Sequence[str], scores: Scores) -> Figures:
    """``names``: of the genes, by their codes in ``asked``."""
    genes, auc = aucs_of_genes(asked.measured_gene, asked.label, scores.score)
    figures: Figures = {
        "auc_of_gene": {names[gene]: round(float(one), 6) for gene, one in zip(genes, auc, strict=True)}
    }
    if scores.belief is not None:
        figures |= {
            "rows": len(asked),
            "brier": brier_score(asked.label, scores.belief),
            "reliability": [asdict(point) for point in reliability(asked.label, scores.belief)],
            "threshold": scores.threshold,
            "pooled": pooled_measures(asked.label, scores.belief >= scores.threshold),
        }
    return figures


def collect(folder: Path, measured: Sequence[Build], wanted: Sequence[Cell]) -> Figures:
    """All figures: builds → models → kind → line → seed → fold."""
    stacked = dict.fromkeys(cell._replace(part=CONSENSUS) for cell in wanted if cell.part in MEMBERS)
    builds: Figures = {}
    cpu_seconds = 0.0
    for build in measured:
        models: Figures = {}
        for cell in (*wanted, *stacked):
            kept = _kept(folder, build, cell)
            if not kept.is_file():
                continue
            part = json.loads(kept.read_text())
            cpu_seconds += part["cpu_seconds"]
            for name, figures in part["models"].items():
                by_line = models.setdefault(name, {}).setdefault(cell.kind, {}).setdefault(cell.line, {})
                by_line.setdefault(str(cell.seed), {})[cell.fold] = figures
        builds[build.name] = {**build.setup, "models": models}
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"machine": machine, "cpu_seconds": round(cpu_seconds), "builds": builds}


@cache
def _screens() -> tuple[Sources, GeneResolver, Screens]:
    sources = Sources.default(tell=console.print)
    with tempfile.TemporaryDirectory() as root:
        store = ArtifactStore(Path(root))
        gene_table.build(store, sources, progress=console.print)
        resolver, _ = open_genes(store)
    screens = read_tables(sources, progress=console.print)
    if screens.simulated:
        raise typer.BadParameter("PerturbQA was not found, and a simulated screen measures nothing")
    return sources, resolver, screens


_last: dict[tuple[str, str], Prepared] = {}


def prepare(folder: Path, digest: str, build: Build, fold: str) -> Prepared:
    """The rows of a fold, and the vectors of the genes that are asked about. The last one is kept."""
    if (digest, fold) in _last:
        return _last[digest, fold]
    _last.clear()
    _, resolver, screens = _screens()
    files = [folder / f"{role}-{digest}.safetensors" for role in ("nets", "joint")]
    if not all(file.is_file() for file in files):
        explicit = {f"gene_vectors.{name}": path for name, path in build.vectors.items()}
        own = Sources.default(explicit=explicit, tell=console.print)
        made, _ = vectors_of(build.settings.esm_mlp, own, resolver, progress=console.print)
        asked = {symbol for symbol in map(resolver.resolve, names_of(screens.rows)) if isinstance(symbol, str)}
        chosen = [row for row, symbol in enumerate(made.symbols) if symbol in asked]
        most = build.settings.esm_mlp.reduce_to, build.settings.analogy.reduce_to
        for file, dimensions in zip(files, most, strict=True):
            fewer = reduced(made, dimensions)
            write_vectors(file, [fewer.symbols[row] for row in chosen], fewer.vectors[chosen])
    nets, joint = (GeneVectors(build.name, *read_vectors(file)) for file in files)
    rows = screens.rows if fold == TEST_ROWS else training_alone(screens.rows, int(fold))
    table, covered = with_vectors(
        Screens(rows, screens.simulated, screens.license, screens.records), resolver, nets.symbols
    )
    console.print(f"{build.name}, {fold}: {len(nets.symbols):,} genes have vectors, {covered:.2%} of the rows")
    prepared = _last[digest, fold] = Prepared(table, as_written(rows), names_of(rows), nets, joint)
    return prepared


def training_alone(rows: pa.Table, fold: int) -> pa.Table:
    """Without the test rows; in their place a fold of each line's training perturbations (sorted, index mod FOLDS)."""
    rows = rows.filter(pc.equal(rows["split"], "train"))
    line, perturbation = (_texts(rows, name) for name in ("line", "perturbation"))
    split = np.full(rows.num_rows, "train", dtype="U5")
    for one in CELL_LINES:
        asked = np.unique(perturbation[line == one])[fold::FOLDS]
        split[(line == one) & np.isin(perturbation, asked)] = "test"
    place = rows.schema.get_field_index("split")
    return rows.set_column(place, "split", pa.array(split.tolist()).dictionary_encode())


def _texts(rows: pa.Table, name: str) -> npt.NDArray[np.str_]:
    encoded = rows[name].combine_chunks()
    texts: npt.NDArray[np.str_] = np.array(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return texts


def _kept(folder: Path, build: Build, cell: Cell) -> Path:
    return folder / f"{'-'.join(map(str, cell))}-{build.digest}.json"


def _logits_file(folder: Path, build: Build, cell: Cell) -> Path:
    return _kept(folder, build, cell).with_suffix(".npz")


@cache
def _public(names: tuple[str, ...]) -> dict[str, str]:
    """sha256 of these public sources, of each that is to be had."""
    sources = Sources.default(tell=console.print)
    located = {name: sources.find(KNOWLEDGE[name][0]) for name in names}
    return {name: one.sha256 for name, one in located.items() if one is not None}


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    typer.run(main)
