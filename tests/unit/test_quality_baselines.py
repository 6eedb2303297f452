"""The benchmark's trivial baselines, on the real screens: equal to the figures that were published with the task."""

from __future__ import annotations

import pytest

from benchmarks.quality import as_written, baselines
from bioverify.artifacts.perturbqa import CELL_LINES, read_tables
from bioverify.artifacts.sources import Sources
from bioverify.core.tasks import TaskKind


def test_the_trivial_baselines_have_their_known_figures(real_sources: Sources) -> None:
    table = as_written(read_tables(real_sources, progress=lambda _said: None).rows)
    known = dict(zip(CELL_LINES, (0.614, 0.566, 0.620, 0.618), strict=True))
    for line, expected in known.items():
        found = baselines(table, line, TaskKind.DIFFERENTIAL_EXPRESSION)
        assert found["rate in other lines (loose)"] == pytest.approx(expected, abs=0.005)
        assert found["gene base rate"] == 0.5
