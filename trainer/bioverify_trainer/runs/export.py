"""`bioverify export`: a run as one folder that others can load, with a card that says what it is.

Adapters are merged into the base model, so the folder needs no adapter library. The card is filled from the run and
from an evaluation; what was not measured is said to be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from bioverify.core import alarms
from bioverify_trainer.runs.folder import RunError
from bioverify_trainer.runs.record import Run

BASE_LICENCES = {
    "smollm2": "Apache-2.0",
    "Qwen/Qwen2.5-3B-Instruct": "Qwen Research License (non-commercial)",
}


def export(path: Path, output: Path, *, evaluation: Path | None) -> None:
    """Write model, tokenizer and card of the run in ``path``. ``evaluation``: a ``results.json`` of `bioverify eval`.

    Raises RunError.
    """
    run = Run.open(path)
    if not run.folder.model.is_dir():
        raise RunError(
            f"{path}: the run is not finished, it has no {run.folder.model.name}/. Run: bioverify runs resume"
        )
    if output.exists() and any(output.iterdir()):
        raise RunError(f"--output {output} is not empty")
    adapted = (run.folder.model / "adapter_config.json").is_file()
    model: Any
    if adapted:
        loaded = AutoPeftModelForCausalLM.from_pretrained(run.folder.model, dtype=torch.float32)
        assert isinstance(loaded, PeftModel)
        model = loaded.merge_and_unload()
    else:
        model = AutoModelForCausalLM.from_pretrained(run.folder.model, dtype="auto", use_safetensors=True)
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(run.folder.model).save_pretrained(output)
    (output / "README.md").write_text(card(run, _results(evaluation)))


def card(run: Run, results: Sequence[Mapping[str, Any]] | None) -> str:
    """The model card, in Markdown."""
    base = run.config["preset"]["policy"]["model"]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701
    template = environment.from_string(files("bioverify_trainer.runs").joinpath("card.md.jinja").read_text())
    return template.render(
        config=run.config,
        base=base,
        base_licence=BASE_LICENCES.get(base, "as its own card says"),
        steps=run.steps,
        reward=(run.mean("reward", last=False), run.mean("reward", last=True)),
        alarms=alarms.raised(run.metrics),
        results=results,
    )


def _results(path: Path | None) -> list[dict[str, Any]] | None:
    if path is None:
        return None
    try:
        results: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"--evaluation {path}: not what `bioverify eval` writes ({error!r})") from error
    return results
