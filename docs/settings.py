"""Writes the tables of settings in the docs from the models that read them: each key, its default, what it is for.

`python docs/settings.py` writes them between their marks; `--check` fails if one of them is not what would be written
(`make lint`). The text of a key is its docstring in the model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from bioverify.aggregator.config import AggregatorConfig
from bioverify.gateway.config import GatewayConfig
from bioverify.runtime.config import ServerConfig
from bioverify_trainer.preset import Preset

DOCS = Path(__file__).parent
TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "http.md": (GatewayConfig,),
    "deployment.md": (ServerConfig, AggregatorConfig),
    "training.md": (Preset,),
}


def rows(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """One row per key; the keys of a section stand below it."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        about = " ".join((field.description or (section and section.__doc__) or "").split()).replace("|", "\\|")
        if not about:
            sys.exit(f"{model.__name__}.{name} has no docstring")
        yield f"| `{path}{name}` | {_default(field.default, section)} | {about} |"
        if section is not None:
            yield from rows(section, f"{path}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, with or without "or None"; only those whose keys are explained."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_config.get("use_attribute_docstrings"):
            return kind
    return None


def _default(value: Any, section: type[BaseModel] | None) -> str:
    if value is PydanticUndefined:
        return "required"
    if section is not None and value is not None:
        return ""
    return f"`{json.dumps(to_jsonable_python(value))}`" if value is not None else ""


def written(text: str, models: tuple[type[BaseModel], ...]) -> str:
    """The text with each model's table between its marks."""
    for model in models:
        begin, end = f"<!-- {model.__name__} -->", f"<!-- end {model.__name__} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            sys.exit(f"{begin} … {end} are not in the page, where the table belongs")
        table = ["| key | default | what it is |", "|---|---|---|", *rows(model)]
        text = "\n".join([before + begin, *table, end + after])
    return text


def main() -> None:
    stale = []
    for name, models in TABLES.items():
        page = DOCS / name
        text = written(page.read_text(), models)
        if text != page.read_text():
            stale.append(name)
            if "--check" not in sys.argv:
                page.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"not what docs/settings.py writes: {', '.join(stale)} of docs. Run: make settings")


if __name__ == "__main__":
    main()
