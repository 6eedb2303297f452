"""The table of ``benchmarks.quality`` as Markdown: every figure with its spread, and "not run" for what is missing.

AUC: mean over measured genes, of each seed over its folds, then over seeds; ± the standard deviation over seeds; in
brackets the standard error over genes. Differences are of the same genes, seeds and folds, with the standard error over
genes of the difference. Calibration error: ten bins of belief, all folds of a seed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bioverify.core.cell_lines import CELL_LINE_NAMES, CELL_LINES

Figures = dict[str, Any]
Runs = Mapping[str, Mapping[str, Figures]]
"""Of a model, kind and line: seed → fold → figures."""

KINDS = ("DE", "direction")
NOT_RUN = "not run"
REFERENCE = {
    "consensus": {"wanted": {"DE": ".74 .74 .74 .71", "direction": ".84 .81 .79 .80"}},
    "gene base rate": {"CORE-Voting, mean of the four lines": {"DE": ".703", "direction": "–"}},
}
"""On test rows alone."""
MEASURES = {"brier": "Brier score", "calibration_error": "calibration error"}
POOLED = {"f1": "F1", "mcc": "MCC", "balanced_accuracy": "balanced accuracy"}
WITHIN = (
    ("consensus", "analogy"),
    ("consensus", "MLP"),
    ("analogy", "neighbours"),
    ("consensus", "rate in other lines (loose)"),
)
"""Compared in each build."""


def markdown(builds: Mapping[str, Figures], *, folds: Sequence[str], seeds: int, test_rows: bool) -> str:
    """``builds``: as `quality.collect` makes them."""
    rows = "Test rows" if test_rows else f"Held-out training perturbations, folds {', '.join(folds)}; no test row read"
    lines = [
        f"{rows}; {seeds} seeds. In each cell {', '.join(CELL_LINE_NAMES.values())}: ± over seeds, in brackets the "
        "standard error over genes; runs: seeds × folds measured.",
    ]
    for name, build in builds.items():
        models = build["models"]
        lines += ["", f"**{name}**", "", *_aucs(models, test_rows=test_rows), "", *_beliefs(models, MEASURES)]
        lines += ["", *_beliefs(models, POOLED)]
    lines += ["", *_differences(builds)]
    return "\n".join(lines) + "\n"


def _aucs(models: Figures, *, test_rows: bool) -> Iterator[str]:
    yield f"| AUC per gene | {' | '.join(KINDS)} | runs |"
    yield "|---|---|---|---|"
    for name, by_kind in models.items():
        shown = [" ".join(_auc(by_kind.get(kind, {}).get(line, {})) for line in CELL_LINES) for kind in KINDS]
        yield f"| {name} | {' | '.join(map(_if_any, shown))} | {_runs(by_kind)} |"
        for anchor, known in REFERENCE.get(name, {}).items() if test_rows else ():
            yield f"| *{anchor}* | {known['DE']} | {known['direction']} | |"


def _runs(by_kind: Figures) -> str:
    """How many seeds and folds stand behind the cells, which may differ."""
    counts = {sum(map(len, by_kind.get(kind, {}).get(line, {}).values())) for kind in KINDS for line in CELL_LINES}
    low, high = min(counts), max(counts)
    return str(high) if low == high else f"{low}–{high}"


def _auc(runs: Runs) -> str:
    if not runs:
        return NOT_RUN
    of_seeds = [float(np.mean([_mean(one) for one in folds.values()])) for folds in runs.values()]
    return f"{_with_spread(of_seeds)} ({_short(standard_error(list(_of_genes(runs).values())))})"


def _mean(figures: Figures) -> float:
    return float(np.mean(list(figures["auc_of_gene"].values())))


def _of_genes(runs: Runs, chosen: frozenset[tuple[str, str]] | None = None) -> dict[str, float]:
    """Each gene's AUC, the mean over the seeds and folds in which it has both labels."""
    told: dict[str, list[float]] = {}
    for seed, folds in runs.items():
        for fold, figures in folds.items():
            if chosen is None or (seed, fold) in chosen:
                for gene, auc in figures["auc_of_gene"].items():
                    told.setdefault(gene, []).append(auc)
    return {gene: float(np.mean(aucs)) for gene, aucs in told.items()}


def standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def paired(ours: Runs, other: Runs) -> tuple[float, float] | None:
    """Mean difference of the genes' AUCs and its standard error, over the seeds and folds that both have."""
    both = frozenset(
        (seed, fold) for seed in ours.keys() & other.keys() for fold in ours[seed].keys() & other[seed].keys()
    )
    left, right = _of_genes(ours, both), _of_genes(other, both)
    differences = [left[gene] - right[gene] for gene in sorted(left.keys() & right.keys())]
    if not differences:
        return None
    return float(np.mean(differences)), standard_error(differences)


def _differences(builds: Mapping[str, Figures]) -> Iterator[str]:
    yield f"| difference of AUC, same genes (standard error) | {' | '.join(KINDS)} |"
    yield "|---|---|---|"
    compared = [((build, one), (build, other)) for build in builds for one, other in WITHIN]
    names = list(builds)
    compared += (
        [((names[1], model), (names[0], model)) for model in builds[names[0]]["models"]] if len(names) > 1 else []
    )
    for ours, other in compared:
        cells = []
        for kind in KINDS:
            pairs = [
                paired(
                    *(
                        builds[build]["models"].get(model, {}).get(kind, {}).get(line, {})
                        for build, model in (ours, other)
                    )
                )
                for line in CELL_LINES
            ]
            cells.append(" ".join(NOT_RUN if one is None else f"{_signed(one[0])} ({_short(one[1])})" for one in pairs))
        if any(cell.replace(NOT_RUN, "").strip() for cell in cells):
            yield f"| {ours[0]} {ours[1]} − {other[0]} {other[1]} | {' | '.join(map(_if_any, cells))} |"


def _beliefs(models: Figures, measures: Mapping[str, str]) -> Iterator[str]:
    yield f"| {'belief' if measures is MEASURES else 'pooled answers'} | {' | '.join(KINDS)} |"
    yield "|---|---|---|"
    for name, by_kind in models.items():
        if "brier" not in _first(by_kind):
            continue
        for measure, said in measures.items():
            cells = [
                " ".join(_with_spread(of_measure(by_kind.get(kind, {}).get(line, {}), measure)) for line in CELL_LINES)
                for kind in KINDS
            ]
            yield f"| {name}, {said} | {' | '.join(map(_if_any, cells))} |"


def of_measure(runs: Runs, measure: str) -> list[float]:
    """One value per seed: over the rows of all its folds."""
    values = []
    for folds in runs.values():
        every = list(folds.values())
        rows = [one["rows"] for one in every]
        if measure == "calibration_error":
            values.append(calibration_error(every))
        else:
            values.append(
                float(
                    np.average(
                        [one[measure] if measure in one else one["pooled"][measure] for one in every], weights=rows
                    )
                )
            )
    return values


def calibration_error(folds: Sequence[Figures], bins: int = 10) -> float:
    """Of all folds' rows together: bins of the reliability plots are added up."""
    gap, rows = np.zeros(bins), 0
    for figures in folds:
        for point in figures["reliability"]:
            gap[min(int(point["belief"] * bins), bins - 1)] += (point["belief"] - point["frequency"]) * point["rows"]
            rows += point["rows"]
    return float(np.abs(gap).sum() / rows)


def _first(by_kind: Figures) -> Figures:
    found: Figures = next(iter(next(iter(next(iter(by_kind.values())).values())).values()))
    return next(iter(found.values()))


def _if_any(cells: str) -> str:
    """One word if nothing is run."""
    return cells if cells.replace(NOT_RUN, "").strip() else NOT_RUN


def _with_spread(values: Sequence[float]) -> str:
    if not len(values):
        return NOT_RUN
    mean = _short(float(np.mean(values)))
    return mean if len(values) == 1 else f"{mean}±{_short(float(np.std(values, ddof=1)))}"


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)
