"""The results as JSON, Markdown, LaTeX, and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from bioverify.core.cell_lines import CELL_LINE_NAMES
from bioverify_trainer.evaluate.evaluation import Result
from bioverify_trainer.evaluate.measures import Figure

COLUMNS = {
    "coverage": "coverage",
    "format": "format",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "f1": "F1",
    "mcc": "MCC",
    "recall": "TPR",
    "specificity": "TNR",
    "auc_per_gene": "per-gene AUC",
    "ece": "ECE",
    "claim_precision": "claim precision",
    "with_claims": "with claims",
    "contradicted": "contradicted",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")


@dataclass(frozen=True)
class Table:
    """``heads``: of the columns of words, the last two of which are numbers; ``figures``: of those with an interval."""

    heads: tuple[str, ...]
    figures: tuple[str, ...]
    rows: Sequence[tuple[list[str], Sequence[Figure | None]]]


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Plain values; null if a figure is not defined."""
    rows = []
    for result in results:
        measured = asdict(result.measured)
        measured["figures"] = {
            name: {end: None if math.isnan(value) else value for end, value in figure.items()}
            for name, figure in measured["figures"].items()
        }
        rows.append({"model": result.model, "task": result.task, "line": result.line, **measured})
    return rows


def as_markdown(results: Sequence[Result]) -> str:
    """One row per model, task and line; each figure with its interval."""
    return markdown(_table(results))


def as_latex(results: Sequence[Result]) -> str:
    return latex(_table(results))


def _table(results: Sequence[Result]) -> Table:
    names = [name for name in COLUMNS if any(name in result.measured.figures for result in results)]
    rows = [
        (
            [result.task, _line(result), result.model, f"{result.measured.rows:,}", str(result.measured.genes)],
            [result.measured.figures.get(name) for name in names],
        )
        for result in results
    ]
    return Table(("task", "line", "model", "questions", "genes"), tuple(COLUMNS[name] for name in names), rows)


def markdown(table: Table) -> str:
    """Each figure with its interval."""
    lines = [
        f"| {' | '.join([*table.heads, *table.figures])} |",
        "|---" * (len(table.heads) - 2) + "|--:" * (2 + len(table.figures)) + "|",
    ]
    for heads, figures in table.rows:
        lines.append(f"| {' | '.join([*heads, *map(cell, figures)])} |")
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """A booktabs table, the interval in small type."""
    lines = [
        rf"\begin{{tabular}}{{{'l' * (len(table.heads) - 2)}{'r' * (2 + len(table.figures))}}}",
        r"\toprule",
        " & ".join([*table.heads, *table.figures]) + r" \\",
        r"\midrule",
    ]
    for heads, figures in table.rows:
        lines.append(" & ".join([*map(_escape, heads), *map(_latex_cell, figures)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def draw(results: Sequence[Result], path: Path) -> None:
    """Per task: per-gene AUC with interval, line by line, and how often beliefs come true."""
    tasks = list(dict.fromkeys(result.task for result in results))
    models = list(dict.fromkeys(result.model for result in results))
    drawing = Drawing(figsize=(9, 3.6 * len(tasks)), layout="constrained")
    axes = drawing.subplots(len(tasks), 2, squeeze=False)
    for (left, right), task in zip(axes, tasks, strict=True):
        of_task = [result for result in results if result.task == task]
        lines = list(dict.fromkeys(_line(result) for result in of_task))
        for number, model in enumerate(models):
            colour = COLOURS[number % len(COLOURS)]
            own = [result for result in of_task if result.model == model]
            figures = [result.measured.figures["auc_per_gene"] for result in own]
            places = [lines.index(_line(result)) + 0.7 * (number + 0.5) / len(models) - 0.35 for result in own]
            bars = [[f.value - f.low for f in figures], [f.high - f.value for f in figures]]
            left.errorbar(places, [f.value for f in figures], yerr=bars, fmt="o", color=colour, label=model, capsize=2)
            points = own[-1].measured.reliability
            right.plot([p.belief for p in points], [p.frequency for p in points], marker=".", color=colour)
        left.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        left.set_xticks(range(len(lines)), lines)
        left.set_ylabel("per-gene AUC")
        left.set_title(task)
        left.legend(fontsize=7, frameon=False)
        right.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        right.set_xlabel("belief")
        right.set_ylabel(f"frequency ({lines[-1]})")
    drawing.savefig(path, metadata={"Creator": None, "Date": None})


def _line(result: Result) -> str:
    return CELL_LINE_NAMES.get(result.line, result.line)


def cell(figure: Figure | None) -> str:
    """The value with the ends of its interval."""
    if figure is None or math.isnan(figure.value):
        return "–"
    return f"{_short(figure.value)} [{_short(figure.low)}, {_short(figure.high)}]"


def _latex_cell(figure: Figure | None) -> str:
    if figure is None or math.isnan(figure.value):
        return "--"
    return rf"{_short(figure.value)} {{\scriptsize [{_short(figure.low)}, {_short(figure.high)}]}}"


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _escape(text: str) -> str:
    return text.replace("_", r"\_").replace("#", r"\#").replace("%", r"\%").replace("&", r"\&")
