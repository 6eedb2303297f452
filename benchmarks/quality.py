"""How true the verifiers are: PerturbQA's per-gene AUC on the test rows, beside baselines and controls.

``python -m benchmarks.quality --vectors text=texts.safetensors --out quality``. Every model learns from the line's own
training rows unless it says strict or loose; everything that is fitted to models' answers (calibration, consensus) is
fitted to out-of-fold answers on training rows. The test rows are scored once, at the end; nothing is chosen by them.
No figure uses how many rows a perturbation has. The consensus is a logistic stack of the net's and the trees' logits
and the mean neighbour score.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import typer
from rich.console import Console

from bioverify.artifacts import genes as gene_table
from bioverify.artifacts.genes import open_genes
from bioverify.artifacts.go import read_annotations
from bioverify.artifacts.perturbqa import CELL_LINE_NAMES, CELL_LINES, read_tables
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.metrics import auc_per_gene, brier_score, expected_calibration_error, fit_logistic, sigmoid
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.analogy import neighbours as analogy
from bioverify.verifiers.analogy.build import leading_components, unit_vectors
from bioverify.verifiers.analogy.fit import fit as fit_analogy
from bioverify.verifiers.esm_mlp.build import Floats, Table, Training, fit, with_vectors
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors, beside, read_named, reduced
from bioverify.verifiers.esm_mlp.train import Rows, Vectors
from bioverify.verifiers.esm_mlp.vectors import go_svd

KINDS = {TaskKind.DIFFERENTIAL_EXPRESSION: "DE", TaskKind.DIRECTION_OF_CHANGE: "direction"}
WANTED = {
    "MLP, two-tower": {"DE": ".69 .68 .67 .66", "direction": ".80 .71 .76 .74"},
    "analogy": {"DE": ".70 .69 .71 .67", "direction": ".83 .76 .76 .78"},
    "consensus": {"DE": ".73 .70 .73 .69", "direction": ".87 .78 .80 .82"},
}
CALIBRATED = ("MLP, two-tower", "analogy", "consensus")

console = Console(stderr=True, highlight=False)
Figures = dict[str, dict[str, dict[str, list[float]]]]


def base_rate(training: Rows, asked: Rows) -> Floats:
    """(positives + 2 · prior)/(rows + 2) of the measured gene, in the line's training rows."""
    rate = analogy.smoothed_rate(
        _pairs(training), int(max(training.measured_gene.max(), asked.measured_gene.max())) + 1
    )
    return rate[asked.measured_gene]


def rate_in_other_lines(table: Table, line: str, kind: TaskKind, asked: Rows) -> Floats:
    """The pair's mean label elsewhere, else the perturbation's smoothed rate elsewhere. Reads all rows: loose."""
    elsewhere = table.rows.where((table.line != line) & (table.kind == kind.value))
    prior = float(table.of(line, kind, "train").label.mean())
    size = int(max(table.rows.perturbation.max(), table.rows.measured_gene.max())) + 1
    rows = np.bincount(elsewhere.perturbation, minlength=size)
    positives = np.bincount(elsewhere.perturbation, elsewhere.label, size)
    scores = ((positives + 2 * prior) / (rows + 2))[asked.perturbation]
    pair = elsewhere.perturbation * size + elsewhere.measured_gene
    codes, of_row = np.unique(pair, return_inverse=True)
    mean = np.bincount(of_row, elsewhere.label) / np.bincount(of_row)
    wanted = asked.perturbation * size + asked.measured_gene
    position = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    is_measured = codes[position] == wanted
    scores[is_measured] = mean[position[is_measured]]
    return scores


def as_written(rows: pa.Table) -> Table:
    """All rows, genes by the names that the files use: baselines need no vectors, so no row is left out."""
    index: dict[str, int] = {}

    def codes(name: str) -> npt.NDArray[np.int64]:
        encoded = rows[name].combine_chunks()
        own = [index.setdefault(written, len(index)) for written in encoded.dictionary.to_pylist()]
        chosen: npt.NDArray[np.int64] = np.array(own, np.int64)[encoded.indices.to_numpy()]
        return chosen

    def texts(name: str) -> npt.NDArray[np.str_]:
        encoded = rows[name].combine_chunks()
        chosen: npt.NDArray[np.str_] = np.array(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        return chosen

    pairs = Rows(codes("perturbation"), codes("measured_gene"), rows["label"].to_numpy())
    return Table(pairs, texts("line"), texts("task_kind"), texts("split"))


def baselines(table: Table, line: str, kind: TaskKind) -> dict[str, float]:
    """Per-gene AUC of what knows nothing of the pair."""
    asked = table.of(line, kind, "test")
    scores = {
        "gene base rate": base_rate(table.of(line, kind, "train"), asked),
        "rate in other lines (loose)": rate_in_other_lines(table, line, kind, asked),
    }
    return {name: auc_per_gene(asked.measured_gene, asked.label, one)[0] for name, one in scores.items()}


def scores_of_line(
    table: Table, line: str, kind: TaskKind, vectors: Vectors, seed: int, epochs: float, full: bool, transfer: bool
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Scores of the test rows by name, and beliefs where they are calibrated. ``full``: controls too."""
    training, asked = table.of(line, kind, "train"), table.of(line, kind, "test")
    unit = unit_vectors(vectors)
    scores, beliefs = dict[str, Floats](), dict[str, Floats]()
    two_tower = Training(seed=seed)
    net = fit(training, training, vectors, two_tower)
    net_known, scores["MLP, two-tower"] = net.logits(training, vectors), net.logits(asked, vectors)
    model, features, tree_known = fit_analogy(_pairs(training), unit, leading_components(unit), 3, seed)
    asked_features = model.features(_pairs(asked))
    near = slice(0, analogy.N_NEIGHBOUR_SCORES)
    near_known, scores["neighbours"] = features[:, near].mean(axis=1), asked_features[:, near].mean(axis=1)
    scores["analogy"] = model.tree_logits(_pairs(asked), asked_features)
    known = np.column_stack([net_known, tree_known, 10.0 * near_known])
    new = np.column_stack([scores["MLP, two-tower"], scores["analogy"], 10.0 * scores["neighbours"]])
    weights = fit_logistic(known, training.label)
    scores["consensus"] = new @ weights[:-1] + weights[-1]
    for name, one in (("MLP, two-tower", net_known), ("analogy", tree_known)):
        scale, offset = fit_logistic(one[:, None], training.label)
        beliefs[name] = sigmoid(scale * scores[name] + offset)
    beliefs["consensus"] = sigmoid(scores["consensus"])
    if full:
        rbio = Training(net="rbio", form="loose", epochs=epochs, seed=seed)  # one net over the rows that it is given
        scores["MLP, rbio's net"] = fit(training, training, vectors, rbio).logits(asked, vectors)
        shuffled = np.random.default_rng(seed).permutation(vectors)
        whole = dataclasses.replace(two_tower, form="loose")
        scores["MLP, two-tower, shuffled vectors"] = fit(training, training, shuffled, whole).logits(asked, shuffled)
        for form in ("strict", "loose") if transfer else ():
            rows = table.training_rows(line, kind, form)
            scores[f"MLP, two-tower, {form} transfer"] = fit(rows, rows, vectors, whole).logits(asked, vectors)
    return scores, beliefs


def markdown(figures: Figures, calibration: Figures) -> str:
    lines = ["| per-gene AUC, test rows | " + " | ".join(KINDS.values()) + " |", "|---|---|---|"]
    for name, by_kind in figures.items():
        lines.append(f"| {name} | " + " | ".join(_cell(by_kind.get(kind, {})) for kind in KINDS.values()) + " |")
        if name in WANTED:
            lines.append(f"| *wanted* | {WANTED[name]['DE']} | {WANTED[name]['direction']} |")
    lines += ["", "| Brier score · calibration error | " + " | ".join(KINDS.values()) + " |", "|---|---|---|"]
    for name, by_kind in calibration.items():
        lines.append(f"| {name} | " + " | ".join(_cell(by_kind.get(kind, {})) for kind in KINDS.values()) + " |")
    return "\n".join(lines) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="Written: OUT.json and OUT.md.")],
    vectors: Annotated[list[str] | None, typer.Option(help="NAME=FILE of gene vectors beside GO's.")] = None,
    dimensions: Annotated[int, typer.Option(help="Of the vectors from GO; 0: none.")] = 128,
    seeds: Annotated[int, typer.Option(help="Controls, baselines and transfer use the first only.")] = 1,
    epochs: Annotated[float, typer.Option(help="Of rbio's net; 30 as published.")] = 1.0,
    transfer: Annotated[bool, typer.Option(help="Train on other lines' rows as well, strict and loose.")] = True,
    lines: Annotated[list[str] | None, typer.Option(help="Cell lines; all without.")] = None,
    kinds: Annotated[list[str] | None, typer.Option(help="DE, direction; both without.")] = None,
) -> None:
    """Train everything, score the test rows once, print the table as Markdown."""
    began = time.monotonic()
    table, written, joined = _prepare(vectors or [], dimensions)
    figures: Figures = defaultdict(lambda: defaultdict(dict))
    calibration: Figures = defaultdict(lambda: defaultdict(dict))
    for kind, kind_name in KINDS.items():
        if kinds and kind_name not in kinds:
            continue
        for line in lines or CELL_LINES:
            asked = table.of(line, kind, "test")
            for name, auc in baselines(written, line, kind).items():
                figures[name][kind_name][CELL_LINE_NAMES[line]] = [auc]
            for seed in range(seeds):
                scores, beliefs = scores_of_line(table, line, kind, joined.vectors, seed, epochs, seed == 0, transfer)
                for name, one in scores.items():
                    auc = auc_per_gene(asked.measured_gene, asked.label, one)[0]
                    figures[name][kind_name].setdefault(CELL_LINE_NAMES[line], []).append(auc)
                for name, belief in beliefs.items():
                    for measure, value in (
                        ("Brier score", brier_score(asked.label, belief)),
                        ("calibration error", expected_calibration_error(asked.label, belief)),
                    ):
                        calibration[f"{name}, {measure}"][kind_name].setdefault(CELL_LINE_NAMES[line], []).append(value)
            console.print(f"{time.monotonic() - began:.0f} s: {kind_name}, {CELL_LINE_NAMES[line]}")
            report = {
                "vectors": joined.name,
                "seeds": seeds,
                "rbio_epochs": epochs,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "seconds": round(time.monotonic() - began),
                "auc_per_gene": figures,
                "calibration": calibration,
                "wanted": WANTED,
            }
            out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
            out.with_suffix(".md").write_text(markdown(figures, calibration))
    typer.echo(markdown(figures, calibration))


def _prepare(named: Sequence[str], dimensions: int) -> tuple[Table, Table, GeneVectors]:
    explicit = {f"gene_vectors.{name}": Path(path) for name, _, path in (one.partition("=") for one in named)}
    sources = Sources.default(explicit=explicit, tell=console.print)
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        gene_table.build(store, sources, progress=console.print)
        resolver, _ = open_genes(store)
    screens = read_tables(sources, progress=console.print)
    if screens.simulated:
        raise typer.BadParameter("PerturbQA was not found, and a simulated screen measures nothing")
    tables, _ = read_named(sources, resolver)
    if dimensions:
        annotations = read_annotations(sources, resolver, progress=console.print)
        values = go_svd(annotations.genes, len(annotations.terms), dimensions)
        tables.append(GeneVectors(f"GO-SVD {dimensions}-d", list(annotations.genes), values))
    joined = reduced(beside(tables))
    asked = set(screens.rows["perturbation"].unique().to_pylist() + screens.rows["measured_gene"].unique().to_pylist())
    symbols = {symbol for symbol in map(resolver.resolve, asked) if isinstance(symbol, str)}
    kept = [row for row, symbol in enumerate(joined.symbols) if symbol in symbols]
    joined = GeneVectors(joined.name, [joined.symbols[row] for row in kept], joined.vectors[kept])
    table, covered = with_vectors(screens, resolver, joined.symbols)
    console.print(f"{joined.name}: {len(kept):,} genes, {covered:.2%} of the rows")
    return table, as_written(screens.rows), joined


def _pairs(rows: Rows) -> analogy.Rows:
    return analogy.Rows(rows.perturbation, rows.measured_gene, rows.label)


def _cell(by_line: dict[str, list[float]]) -> str:
    return " ".join(_figure(values) for values in by_line.values()) or "–"


def _figure(values: list[float]) -> str:
    mean = f"{np.mean(values):.3f}".removeprefix("0")
    return mean if len(values) == 1 else f"{mean}±{np.std(values, ddof=1):.3f}".replace("±0.", "±.")


if __name__ == "__main__":
    typer.run(main)
