"""A comparison of recipes as files: JSON with the curves, Markdown, LaTeX, and one self-contained HTML page."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from bioverify.files import replace_file
from bioverify_trainer.comparison import Compared, as_table
from bioverify_trainer.evaluate import tables
from bioverify_trainer.preset import Preset


def write_comparison(compared: Sequence[Compared], preset: Preset, output: Path, *, simulated: bool) -> None:
    """recipes.json, .md, .tex and .html in ``output``; each is replaced whole."""
    record = {
        "simulated": simulated,
        "preset": preset.model_dump(mode="json"),
        "recipes": [_finite(asdict(one)) | {"verdict": one.verdict} for one in compared],
    }
    table = as_table(compared)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("bioverify_trainer.runs").joinpath("comparison.html.jinja").read_text())
    page = template.render(
        preset=preset,
        simulated=simulated,
        heads=[*table.heads, *table.figures],
        rows=[[*heads, *map(tables.cell, found)] for heads, found in table.rows],
        figures=[Markup(_drawn(of_setting)) for of_setting in _by_setting(compared)],  # noqa: S704
    )
    replace_file(output / "recipes.json", json.dumps(record, indent=2) + "\n")
    replace_file(output / "recipes.md", tables.markdown(table))
    replace_file(output / "recipes.tex", tables.latex(table))
    replace_file(output / "recipes.html", page)


def _by_setting(compared: Sequence[Compared]) -> list[list[Compared]]:
    """Those with curves, of one task and line each."""
    found: dict[tuple[str, str], list[Compared]] = {}
    for one in compared:
        if one.curve.reward:
            found.setdefault((one.task, one.line), []).append(one)
    return list(found.values())


def _drawn(compared: Sequence[Compared]) -> str:
    """Held-out AUC and reward by step, as an SVG element."""
    drawing = Drawing(figsize=(10, 3.4), layout="constrained")
    left, right = drawing.subplots(1, 2)
    for number, one in enumerate(compared):
        colour = tables.COLOURS[number % len(tables.COLOURS)]
        style = "--" if number >= len(tables.COLOURS) else "-"
        if one.curve.auc:
            left.plot(*zip(*one.curve.auc, strict=True), style, color=colour, label=one.name)
        right.plot(*zip(*one.curve.reward, strict=True), style, color=colour, label=one.name, linewidth=0.8)
    left.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    left.set_ylabel("per-gene AUC, held-out sample")
    right.set_ylabel("mean reward")
    right.legend(fontsize=7, frameon=False)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.set_title(f"{compared[0].line}, {compared[0].task}")
    written = io.StringIO()
    drawing.savefig(written, format="svg", metadata={"Creator": None, "Date": None})
    svg = written.getvalue()
    return svg[svg.index("<svg") :]


def _finite(value: Any) -> Any:
    """Null for NaN, which is no JSON."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
