"""The folder of a run: everything that is needed to say later what was trained, on what, against which verifiers.

``run.json`` holds the resolved configuration, the recipe, the fingerprints of the verifiers and the source revision;
``metrics.jsonl`` one line per step; ``samples.jsonl`` completions with the parts of their reward and the evidence;
``checkpoints/`` what training resumes from. Lines are written through at once, so a killed run keeps its record; those
that a full disk does not take wait in memory until it does, because a run is worth more than its record.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bioverify.client import ListedVerifier
from bioverify.core.recipes import Recipe
from bioverify.errors import BioverifyError
from bioverify.files import append_lines, read_lines, replace_file
from bioverify_trainer.preset import RUN_FILE, Preset

logger = logging.getLogger(__name__)


class RunError(BioverifyError):
    """A run folder that cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path
    _waiting: dict[Path, list[bytes]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def config_file(self) -> Path:
        return self.path / RUN_FILE

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained weights, or the adapter alone if one was trained."""
        return self.path / "model"

    def check_unused(self) -> None:
        """Raises RunError if the folder already holds a run."""
        if self.config_file.exists():
            raise RunError(f"{self.path} already holds a run. Resume it with --resume, or choose another --output")

    def write_config(self, config: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.config_file, json.dumps(config, indent=2) + "\n")

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        self._append(self.metrics_file, record)

    def append_sample(self, record: Mapping[str, Any]) -> None:
        self._append(self.samples_file, record)

    def write_waiting(self) -> None:
        """Write the lines that wait. Raises OSError if they still cannot be written."""
        for file, lines in self._waiting.items():
            if lines:
                _append(file, b"".join(lines))
                logger.warning("%s: the %d lines that waited are written", file, len(lines))
                lines.clear()

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps after ``step``: a resumed run does them again. Raises RunError on a full disk."""
        recorded = {record["step"] for record in read_records(self.metrics_file)}
        if lost := sorted(set(range(1, step + 1)) - recorded):
            logger.warning("%s lacks steps that were trained: %s", self.metrics_file, lost)
        for file in (self.metrics_file, self.samples_file):
            kept = [record for record in read_records(file) if record["step"] <= step]
            if file.exists():
                _replace(file, "".join(json.dumps(record) + "\n" for record in kept))

    def _append(self, file: Path, record: Mapping[str, Any]) -> None:
        lines = self._waiting.setdefault(file, [])
        line = (json.dumps(record) + "\n").encode()
        try:
            self.write_waiting()
            _append(file, line)
        except OSError as error:
            if not lines:
                logger.error(  # noqa: TRY400
                    "%s could not be written (%s). Training continues, and its lines wait in memory: free space there "
                    "before the run ends",
                    file,
                    error.strerror,
                )
            lines.append(line)


def _append(path: Path, lines: bytes) -> None:
    # A kill takes none of them. A loss of power may, as it takes a checkpoint that is being written.
    append_lines(path, lines, sync_to_disk=False)


def _replace(path: Path, text: str) -> None:
    try:
        replace_file(path, text)
    except OSError as error:
        raise RunError(f"{path} could not be written ({error.strerror}). Free space there, then try again") from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; none if it is not there yet."""
    return list(map(json.loads, read_lines(path))) if path.exists() else []


def run_config(
    recipe: Recipe,
    preset: Preset,
    verifiers: Iterable[ListedVerifier],
    *,
    target: str,
    simulated: bool,
    policy_path: str,
) -> dict[str, Any]:
    """What ``run.json`` holds. ``simulated``: some label or measurement behind the rewards is simulated."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.model_dump(mode="json"),
        "preset": preset.model_dump(mode="json"),
        "target": target,
        "policy_path": policy_path,
        "simulated": simulated,
        "verifiers": [
            {
                "name": verifier.name,
                "version": verifier.version,
                "fingerprint": verifier.fingerprint,
                "is_ready": verifier.is_ready,
                "artifacts": [asdict(artifact) for artifact in verifier.artifacts],
            }
            for verifier in verifiers
        ],
        "revision": source_revision(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("bioverify", "torch", "transformers", "trl", "peft")},
    }


def source_revision() -> str | None:
    """The git commit of this source, with "+changes" if files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics with None in place of NaN and infinity, which are no JSON."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
