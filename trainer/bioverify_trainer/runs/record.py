"""What a finished or running run recorded, read back: its steps, its means, and in what two runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bioverify.core import alarms
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records

TEACHES = (
    alarms.ALIKE,
    "clip_ratio/region_mean",
    "kl",
    "entropy",
    "sampling/importance_sampling_ratio/mean",
)
"""TRL's names of what says whether a step teaches, and whether it teaches what was sampled."""


@dataclass(frozen=True)
class Run:
    """What a run folder says. ``metrics``: one record per finished step."""

    folder: RunFolder
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]

    @classmethod
    def open(cls, path: Path) -> Run:
        """Raises RunError if ``path`` holds no run."""
        folder = RunFolder(path)
        if not folder.config_file.is_file():
            raise RunError(f"{path} holds no run (no {folder.config_file.name})")
        return cls(folder, json.loads(folder.config_file.read_text()), read_records(folder.metrics_file))

    @property
    def steps_done(self) -> int:
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def max_steps(self) -> int:
        return int(self.config["preset"]["grpo"]["max_steps"])

    @property
    def steps(self) -> str:
        """Done and planned."""
        return f"{self.steps_done} of {self.max_steps}"

    def mean(self, key: str, *, last: bool) -> float | None:
        """Over the first or the last quarter of the steps that have it."""
        values = [record[key] for record in self.metrics if record.get(key) is not None]
        quarter = max(1, len(values) // 4)
        return fmean(values[-quarter:] if last else values[:quarter]) if values else None


def find_runs(folder: Path) -> list[Run]:
    """The runs directly below ``folder``, oldest first."""
    found = [Run.open(config.parent) for config in folder.glob("*/run.json")]
    return sorted(found, key=lambda run: str(run.config["started_at"]))


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The keys of recipe, preset, verifiers and revision in which the runs differ, with each run's value."""
    flat = [
        _flat({key: run.config[key] for key in ("recipe", "preset", "revision", "simulated")})
        | {f"verifiers.{v['name']}": v["fingerprint"][:12] for v in run.config["verifiers"]}
        for run in runs
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [str(one.get(key, "–")) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
