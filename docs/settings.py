"""Writes what the docs and the web form list from the code: settings, commands, recipes, errors, forms, genes.

`python docs/settings.py` writes them between their marks; `--check` fails if one of them is not what would be written
(`make lint`). The text of a key is its docstring in the model; a form is the published wording of its kind.
"""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import preset_table
from pyarrow import parquet
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python
from typer.main import get_command

from bioverify import errors, recipes
from bioverify.aggregator.config import AggregatorConfig
from bioverify.cli import app as cli
from bioverify.cli.training import COMMANDS as TRAINER_COMMANDS
from bioverify.core.questions import FORMS
from bioverify.core.tasks import TASKS
from bioverify.gateway.config import GatewayConfig
from bioverify.runtime.config import ServerConfig
from bioverify_trainer.cli import app as trainer_cli
from bioverify_trainer.preset import Preset

DOCS = Path(__file__).parent
TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "http.md": (GatewayConfig,),
    "deployment.md": (ServerConfig, AggregatorConfig),
    "training.md": (Preset,),
}
READING = DOCS / "reading.md"
REFERENCE = DOCS / "reference.md"
PACKAGE = DOCS.parent / "services" / "bioverify"
WEB_FORM = PACKAGE / "gateway" / "pages" / "index.html"
GENE_NAMES = PACKAGE / "gateway" / "pages" / "genes.txt"
GENE_TABLE = PACKAGE / "artifacts" / "bundled" / "genes.parquet"


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


def forms() -> Iterator[str]:
    """One row per kind of question: its name, its wording with names in braces, and its task as JSON."""
    for kind, form in FORMS.items():
        task = {kind: asdict(TASKS[kind].about("AARS", "TRIB3", "k562"))}
        yield f"| {kind.replace('co_', 'co-').replace('_', ' ')} | {form} | `{json.dumps(task)}` |"


def commands() -> Iterator[str]:
    """Every command under a heading of its own, with its help."""
    # Pages are as wide as help on an ordinary terminal.
    os.environ["COLUMNS"] = "80"
    yield from _below(get_command(cli), ("bioverify",))


def _below(group: Any, words: tuple[str, ...]) -> Iterator[str]:
    trainer = get_command(trainer_cli).commands  # type: ignore[attr-defined]
    for name, command in group.commands.items():
        if words == ("bioverify",) and name in TRAINER_COMMANDS:
            command = trainer[name]
        typed = (*words, name)
        if hasattr(command, "commands"):
            yield from _below(command, typed)
            continue
        parent = get_command(cli).make_context("bioverify", [], resilient_parsing=True)
        context = command.context_class(command, info_name=" ".join(typed[1:]), parent=parent)
        yield from ("", f"### {' '.join(typed[1:])}", "", "```text", *command.get_help(context).splitlines(), "```")


def mixtures() -> Iterator[str]:
    """One row per recipe that ships: its name, what it sums up, what it is."""
    yield from ("| recipe | terms | what it is |", "|---|---|---|")
    for name in recipes.names():
        recipe = recipes.load(name)
        parts = [("every item", recipe.terms), *((f"{one.share:.0%} {one.name}", one.terms) for one in recipe.sources)]
        told = "; ".join(
            f"{where}: {' + '.join(f'{term.weight:g}·{term.label}' for term in terms)}"
            for where, terms in parts
            if terms
        )
        yield f"| `{name}` | {told} | {' '.join(recipe.description.split())} |"


def errors_tree() -> Iterator[str]:
    """The tree of our exceptions, as their module has it."""
    yield from ("```text", *(errors.__doc__ or "").partition("\n\n")[2].rstrip().splitlines(), "```")


def pages() -> Iterator[tuple[Path, str]]:
    """Each page that has a list of ours, and what it should hold."""
    for name, models in TABLES.items():
        text = (DOCS / name).read_text()
        for model in models:
            table = ["| key | default | what it is |", "|---|---|---|", *rows(model)]
            text = written(text, model.__name__, table)
        if name == "training.md":
            text = written(written(text, "values", preset_table.value_rows()), "prices", preset_table.price_rows())
        yield DOCS / name, text
    table = ["| kind | wording | `task` |", "|---|---|---|", *forms()]
    yield READING, written(READING.read_text(), "forms", table)
    reference = REFERENCE.read_text()
    for mark, lines in (("commands", commands()), ("recipes", mixtures()), ("errors", errors_tree())):
        reference = written(reference, mark, lines)
    yield REFERENCE, reference
    listed = (f"<li>{html.escape(form)}</li>" for form in FORMS.values())
    yield WEB_FORM, written(WEB_FORM.read_text(), "forms", listed)
    yield GENE_NAMES, "".join(f"{symbol}\n" for symbol in protein_coding())


def protein_coding() -> list[str]:
    """What the web form completes: the symbols of the bundled gene table."""
    table = parquet.read_table(GENE_TABLE, columns=["symbol", "kind"])
    kinds = zip(table["symbol"].to_pylist(), table["kind"].to_pylist(), strict=True)
    return sorted(symbol for symbol, kind in kinds if kind == "protein-coding")


def written(text: str, name: str, lines: Iterable[str]) -> str:
    """The text with ``lines`` between the marks of ``name``."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{begin} … {end} are not in the page, where the table belongs")
    return "\n".join([before + begin, *lines, end + after])


def main() -> None:
    stale = []
    for page, text in pages():
        if not page.exists() or text != page.read_text():
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"not what docs/settings.py writes: {', '.join(stale)}. Run: make settings")


if __name__ == "__main__":
    main()
