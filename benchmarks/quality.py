"""How true the verifiers are: PerturbQA's per-gene AUC on the test rows, beside baselines and controls.

``python -m benchmarks.quality --vectors text=texts.safetensors --out quality`` trains everything, scores the test rows
once, and prints the table as Markdown; vectors and nets are made by the settings that ``bioverify data build`` takes,
with its code. ``--held-out`` measures a choice instead: a fifth of the training perturbations stands for the test
rows, which are not read. OUT.json has every figure, with reliability plots as points. Every part (models
in ``quality_models.py``) of a line, kind of question and seed is kept in the folder OUT.parts as soon as it is
measured: a run that was interrupted goes on, and several runs may share the folder. It knows the vectors, not the code:
after a change of a model remove its files. Nothing is chosen by test rows, and no figure uses how many rows a
perturbation has.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.quality_models import MEMBERS, ONCE, PARTS, Inputs, Scores, as_written, consensus
from bioverify.artifacts import genes as gene_table
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import read_build_settings
from bioverify.core.cell_lines import CELL_LINE_NAMES, CELL_LINES
from bioverify.core.metrics import auc_per_gene, brier_score, expected_calibration_error, pooled_measures, reliability
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.esm_mlp.build import Table, vectors_of, with_vectors
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors, read_vectors, write_vectors
from bioverify.verifiers.esm_mlp.settings import Settings
from bioverify.verifiers.esm_mlp.train import Rows

KINDS = {"DE": TaskKind.DIFFERENTIAL_EXPRESSION, "direction": TaskKind.DIRECTION_OF_CHANGE}
REFERENCE = {
    "MLP": {"wanted": {"DE": ".69 .68 .67 .66", "direction": ".80 .71 .76 .74"}},
    "analogy": {"wanted": {"DE": ".70 .69 .71 .67", "direction": ".83 .76 .76 .78"}},
    "consensus": {"wanted": {"DE": ".73 .70 .73 .69", "direction": ".87 .78 .80 .82"}},
    "gene base rate": {"SUMMER, the published best": {"DE": ".62 .59 .62 .59", "direction": ".64 .64 .66 .67"}},
}
MEASURES = {"brier": "Brier score", "calibration_error": "calibration error"}
POOLED = {"f1": "F1", "mcc": "MCC", "balanced_accuracy": "balanced accuracy"}

Figures = dict[str, Any]
"""Of one model, line, kind and seed: auc, genes; with a belief also brier, calibration_error, reliability, pooled."""
Job = tuple[str, str, str, int]
"""Part, kind, line, seed."""

CONSENSUS = "consensus"
HELD_OUT = 5

console = Console(stderr=True, highlight=False)


def main(
    out: Annotated[Path, typer.Option(help="Written: OUT.json, OUT.md and the folder OUT.parts.")],
    vectors: Annotated[list[str] | None, typer.Option(help="NAME=FILE of gene vectors beside GO's.")] = None,
    settings: Annotated[Path | None, typer.Option(help="YAML, as bioverify data build --settings takes it.")] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Ask about training perturbations alone.")] = False,
    seeds: Annotated[int, typer.Option(help=f"{', '.join(ONCE)} use the first only.")] = 3,
    jobs: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 2,
    parts: Annotated[list[str] | None, typer.Option(help=f"Some of {', '.join(PARTS)}; all without.")] = None,
    lines: Annotated[list[str] | None, typer.Option(help="Cell lines; all without.")] = None,
    kinds: Annotated[list[str] | None, typer.Option(help="DE, direction; both without.")] = None,
) -> None:
    """Train everything, score the test rows once, print the table."""
    began = time.monotonic()
    named = dict(one.split("=", 1) for one in vectors or [])
    wanted: list[Job] = [
        (part, kind, line, seed)
        for part in parts or PARTS
        for kind in kinds or KINDS
        for line in lines or CELL_LINES
        for seed in range(1 if part in ONCE else seeds)
    ]
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    how = read_build_settings(settings).esm_mlp
    setup: Figures = {
        "vectors": {name: _digest(Path(path)) for name, path in named.items()},
        "settings": how.model_dump(mode="json"),
        "held_out": held_out,
    }
    missing = [job for job in wanted if not _kept(folder, setup, job).is_file()]
    if missing:
        kept = folder / f"vectors-{_digest_of(setup)}.safetensors"
        prepared = (*prepare(named, how, kept, held_out=held_out), how)
        # What matters most first; of that the slowest, so that no process is left alone with a long one.
        missing.sort(key=lambda job: (job[3], job[0] not in MEMBERS, job[1] != "DE"))
        with ProcessPoolExecutor(jobs, get_context("fork"), initializer=_start, initargs=prepared) as pool:
            under_way = {pool.submit(measure, job, folder, setup): job for job in missing}
            for number, done in enumerate(as_completed(under_way), 1):
                done.result()
                job = " ".join(map(str, under_way[done]))
                console.print(f"{time.monotonic() - began:.0f} s, {number} of {len(missing)}: {job}")
    report = collect(folder, setup, wanted)
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    out.with_suffix(".md").write_text(markdown(report["models"]))
    typer.echo(markdown(report["models"]))
    console.print(f"{report['cpu_seconds']:.0f} s of CPU in all parts; {time.monotonic() - began:.0f} s for this run")


_inputs: tuple[Table, Table, GeneVectors, Settings]


def _start(*prepared: Any) -> None:
    global _inputs
    _inputs = prepared


def measure(job: Job, folder: Path, setup: Figures) -> None:
    """Keep the figures of every model of a part; of the consensus as well, as soon as all members have answered."""
    part, kind, line, seed = job
    table, written, joined, how = _inputs
    inputs = Inputs(table, written, joined.vectors, line, KINDS[kind], seed, how)
    began = time.process_time()
    scored = PARTS[part](inputs)
    cpu_seconds = time.process_time() - began
    if part in MEMBERS:
        verifier = scored[MEMBERS[part]]
        if verifier.known is None:
            raise ValueError(f"{part}: no logits of the training rows, which the consensus is fitted to")
        np.savez(_logits_file(folder, setup, job), known=verifier.known, new=verifier.score, allow_pickle=False)
        files = {name: _logits_file(folder, setup, (other, kind, line, seed)) for other, name in MEMBERS.items()}
        if all(file.is_file() for file in files.values()):
            members = {name: _kept_logits(file) for name, file in files.items()}
            _keep(folder, setup, (CONSENSUS, kind, line, seed), inputs.asked, consensus(inputs, members), 0.0)
    asked = written.of(line, KINDS[kind], "test") if part == "trivial" else inputs.asked
    _keep(folder, setup, job, asked, scored, cpu_seconds)


def _keep(
    folder: Path, setup: Figures, job: Job, asked: Rows, scored: Mapping[str, Scores], cpu_seconds: float
) -> None:
    models = {name: figures_of(asked, scores) for name, scores in scored.items()}
    kept = _kept(folder, setup, job)
    new = kept.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({"models": models, "cpu_seconds": cpu_seconds}))
    new.replace(kept)


def _kept_logits(file: Path) -> Scores:
    with np.load(file, allow_pickle=False) as logits:
        return Scores(logits["new"], known=logits["known"])


def figures_of(asked: Rows, scores: Scores) -> Figures:
    auc, genes = auc_per_gene(asked.measured_gene, asked.label, scores.score)
    if scores.belief is None:
        return {"auc": auc, "genes": genes}
    return {
        "auc": auc,
        "genes": genes,
        "brier": brier_score(asked.label, scores.belief),
        "calibration_error": expected_calibration_error(asked.label, scores.belief),
        "reliability": [asdict(point) for point in reliability(asked.label, scores.belief)],
        "threshold": scores.threshold,
        "pooled": pooled_measures(asked.label, scores.belief >= scores.threshold),
    }


def collect(folder: Path, setup: Figures, wanted: Sequence[Job]) -> Figures:
    """All figures: models → kind → line → one per seed."""
    models: dict[str, dict[str, dict[str, list[Figures]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    cpu_seconds = 0.0
    stacked = [(CONSENSUS, *asked) for asked in dict.fromkeys(job[1:] for job in wanted if job[0] in MEMBERS)]
    for job in (*wanted, *(job for job in stacked if _kept(folder, setup, job).is_file())):
        part = json.loads(_kept(folder, setup, job).read_text())
        cpu_seconds += part["cpu_seconds"]
        for name, figures in part["models"].items():
            models[name][job[1]][job[2]].append(figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {**setup, "machine": machine, "cpu_seconds": round(cpu_seconds), "reference": REFERENCE, "models": models}


def markdown(models: Figures) -> str:
    """Lines in the order K562, RPE1, HepG2, Jurkat; mean over seeds ± their standard deviation."""
    lines = [f"Cell lines: {', '.join(CELL_LINE_NAMES.values())}.", ""]
    lines += _table("AUC per gene", {name: (name, "auc") for name in models}, models)
    with_belief = [name for name, of in models.items() if "brier" in _first(of)]
    measures = {f"{name}, {MEASURES[one]}": (name, one) for name in with_belief for one in MEASURES}
    lines += ["", *_table("belief", measures, models)]
    pooled = {f"{name}, {POOLED[one]}": (name, one) for name in with_belief for one in POOLED}
    lines += ["", *_table("pooled answers", pooled, models)]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: dict[str, tuple[str, str]], models: Figures) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(KINDS) + " |"
    yield "|---|---|---|"
    for label, (model, measure_name) in rows.items():
        cells = (_cell(models[model].get(kind, {}), measure_name) for kind in KINDS)
        yield f"| {label} | " + " | ".join(cells) + " |"
        for name, known in REFERENCE.get(model, {}).items() if measure_name == "auc" else ():
            yield f"| *{name}* | {known['DE']} | {known['direction']} |"


def _cell(by_line: dict[str, list[Figures]], measure_name: str) -> str:
    return " ".join(_figure([_value(one, measure_name) for one in seeds]) for seeds in by_line.values()) or "–"


def _value(figures: Figures, measure_name: str) -> float:
    return float(figures[measure_name] if measure_name in figures else figures["pooled"][measure_name])


def _figure(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}".removeprefix("0")
    return mean if len(values) == 1 else f"{mean}±{np.std(values, ddof=1):.3f}".replace("±0.", "±.")


def _first(of: Figures) -> Figures:
    found: Figures = next(iter(next(iter(of.values())).values()))[0]
    return found


def prepare(named: dict[str, str], how: Settings, kept: Path, *, held_out: bool) -> tuple[Table, Table, GeneVectors]:
    """Rows whose genes have vectors, all rows, and the vectors of the genes that are asked about."""
    explicit = {f"gene_vectors.{name}": Path(path) for name, path in named.items()}
    sources = Sources.default(explicit=explicit, tell=console.print)
    with tempfile.TemporaryDirectory() as root:
        store = ArtifactStore(Path(root))
        gene_table.build(store, sources, progress=console.print)
        resolver, _ = open_genes(store)
    screens = read_tables(sources, progress=console.print)
    if screens.simulated:
        raise typer.BadParameter("PerturbQA was not found, and a simulated screen measures nothing")
    if not kept.is_file():
        joined, _ = vectors_of(how, sources, resolver, progress=console.print)
        names = [
            *screens.rows["perturbation"].unique().to_pylist(),
            *screens.rows["measured_gene"].unique().to_pylist(),
        ]
        asked = {symbol for symbol in map(resolver.resolve, set(names)) if isinstance(symbol, str)}
        rows = [row for row, symbol in enumerate(joined.symbols) if symbol in asked]
        write_vectors(kept, [joined.symbols[row] for row in rows], joined.vectors[rows])
    symbols, vectors = read_vectors(kept)
    joined = GeneVectors(" + ".join([*named, "GO"]), symbols, vectors)
    table, covered = with_vectors(screens, resolver, joined.symbols)
    console.print(f"{joined.name}: {len(symbols):,} genes, {covered:.2%} of the rows")
    if held_out:
        return training_alone(table), training_alone(as_written(screens.rows)), joined
    return table, as_written(screens.rows), joined


def training_alone(table: Table) -> Table:
    """Without the test rows; in their place a fifth of each line's training perturbations (sorted, index mod 5)."""
    known = table.split == "train"
    rows, line, kind = table.rows.where(known), table.line[known], table.kind[known]
    split = np.full(len(rows), "train")
    for one in CELL_LINES:
        asked = np.unique(rows.perturbation[line == one])[::HELD_OUT]
        split[(line == one) & np.isin(rows.perturbation, asked)] = "test"
    return Table(rows, line, kind, split)


def _kept(folder: Path, setup: Figures, job: Job) -> Path:
    return folder / f"{'-'.join(map(str, job))}-{_digest_of(setup)}.json"


def _digest_of(setup: Figures) -> str:
    return hashlib.sha256(json.dumps(setup, sort_keys=True).encode()).hexdigest()[:8]


def _logits_file(folder: Path, setup: Figures, job: Job) -> Path:
    return _kept(folder, setup, job).with_suffix(".npz")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    typer.run(main)
