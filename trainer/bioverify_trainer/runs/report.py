"""One self-contained HTML page about a run: what was trained, what the verifiers said, how they fared.

Everything is inline, so the file can be mailed or kept beside the weights: the run's figures as JSON, and of the
gateway's pages the style sheet and the components that draw them, so that a report and the page Runs show the same.
The page's own policy lets it run that one script and fetch nothing. Text from a model is escaped in the HTML, and
becomes nothing but text nodes in the components.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from bioverify.core import alarms
from bioverify.files import read_lines
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records

N_EXAMPLES = 3
_COMPONENTS = ("elements.js", "curves.js", "samples.js")
"""Of the gateway's pages, each behind those that it imports."""
_IMPORT = re.compile(r"^import .*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def write_report(run: Path, output: Path, *, scores: Path | None = None) -> None:
    """Write the page about the run in ``run``. ``scores``: JSONL of ``bioverify score``. Raises RunError."""
    folder = RunFolder(run)
    if not folder.config_file.is_file():
        raise RunError(f"{run} holds no run (no {folder.config_file.name}); give the --output of a training")
    if not folder.metrics_file.is_file():
        raise RunError(f"{run}: the run has no {folder.metrics_file.name}, not one step of it was finished")
    config = json.loads(folder.config_file.read_text())
    metrics, samples = read_records(folder.metrics_file), read_records(folder.samples_file)
    script = _script()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("bioverify_trainer.runs").joinpath("report.html.jinja").read_text())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        template.render(
            name=run.resolve().name,
            config=config,
            config_text=json.dumps(config, indent=2),
            summary=summarise(metrics),
            alarms=alarms.raised(metrics),
            watched=any(record.get(alarms.HELD_OUT) is not None for record in metrics),
            record=_json({"name": run.resolve().name, "metrics": metrics, "examples": choose_examples(samples)}),
            style=Markup(_page("style.css")),  # noqa: S704
            script=Markup(script),  # noqa: S704
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            scores=tabulate_scores(scores) if scores else None,
        ),
        encoding="utf-8",
    )


def summarise(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reward of the first and last quarter of the steps, shares of what could not be scored, time."""
    quarter = max(1, len(metrics) // 4)

    def mean(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
        values = [record[key] for record in records if record.get(key) is not None]
        return fmean(values) if values else None

    return {
        "steps": metrics[-1]["step"] if metrics else 0,
        "quarter": quarter,
        "rows": [
            {"name": label, "first": mean(metrics[:quarter], key), "last": mean(metrics[-quarter:], key)}
            for label, key in [("reward", "reward"), *((k.split("/", 1)[1], k) for k in _keys(metrics, "value/"))]
        ],
        "unscorable": mean(metrics, "reward_call/unscorable"),
        "failed_calls": sum(record.get("reward_call/failed", 0) > 0 for record in metrics),
        "step_seconds": mean(metrics, "step_seconds"),
        "call_seconds": mean(metrics, "reward_call/seconds"),
    }


def _page(name: str) -> str:
    """A file of the gateway's pages; as text: nothing of the gateway runs here."""
    return files("bioverify.gateway").joinpath("pages", name).read_text(encoding="utf-8")


def _script() -> str:
    """The components and the report's own lines as one module: in a single file there is nothing to import from."""
    own = files("bioverify_trainer.runs").joinpath("report.js").read_text(encoding="utf-8")
    return "".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in (*map(_page, _COMPONENTS), own))


def _json(record: Mapping[str, Any]) -> Markup:
    """For a script element: no markup in it, and null for what is no number, which JSON cannot say."""
    return Markup(orjson.dumps(record).decode().replace("<", "\\u003c"))  # noqa: S704


def choose_examples(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """An early completion, the best one, and a late one: different ones, if there are as many."""
    scored = [sample for sample in samples if sample["reward"] is not None]
    if not scored:
        return list(samples[:N_EXAMPLES])
    wanted = [scored[0], max(scored, key=lambda sample: float(sample["reward"])), *reversed(scored)]
    different = {(sample["step"], sample["id"]): sample for sample in wanted}
    return sorted(list(different.values())[:N_EXAMPLES], key=lambda sample: int(sample["step"]))


def tabulate_scores(path: Path) -> dict[str, Any]:
    """Per term: mean value, and how many completions it scored, had nothing to say of, failed for."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    outcomes: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    rewards: list[float] = []
    n = 0
    try:
        for line in map(json.loads, read_lines(path)):
            n += 1
            if line["reward"] is not None:
                rewards.append(line["reward"])
            for part in line["parts"]:
                label = ".".join(filter(None, (part["verifier"], part["component"])))
                outcomes[label][part["outcome"]] += 1
                if part["value"] is not None:
                    values[label].append(part["value"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"--scores {path}: not what `bioverify score` writes ({error!r})") from error
    rows = [
        {"term": label, "mean": fmean(values[label]) if values[label] else None, **_three(counts)}
        for label, counts in outcomes.items()
    ]
    return {"file": path.name, "n": n, "mean": fmean(rewards) if rewards else None, "rows": rows}


def _three(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in ("scored", "not_applicable", "failed")}


def _keys(metrics: Sequence[Mapping[str, Any]], prefix: str, suffix: str = "") -> list[str]:
    names = {key for record in metrics for key in record}
    return sorted(name for name in names if name.startswith(prefix) and name.endswith(suffix))
