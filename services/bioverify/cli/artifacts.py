"""`bioverify data`: make the verifiers' artifacts from public sources, and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.services import ARTIFACTS, build_artifact
from bioverify.cli.terminal import fail, plain_errors

if TYPE_CHECKING:
    from rich.table import Table

    from bioverify.artifacts.store import Manifest

app = typer.Typer(help="Make the verifiers' artifacts and look at them.", no_args_is_help=True)


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(ARTIFACTS)}. None: all.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All of them, in the order in which they need each other.")
    ] = False,
    mirror: Annotated[Path | None, typer.Option(help="Folder with the public files, laid out as a mirror.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="A file of your own: NAME=PATH. May be repeated.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
) -> None:
    """Make artifacts: from your files, the cache, the mirror, the official address, or the small set that ships."""
    from rich.console import Console

    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.sources import Sources
    from bioverify.artifacts.store import ArtifactStore

    unknown = [name for name in names or [] if name not in ARTIFACTS]
    if unknown:
        raise fail(f"no artifact is called {', '.join(unknown)}; there are: {', '.join(ARTIFACTS)}")
    if mirror is not None and not mirror.is_dir():
        raise fail(f"--mirror {mirror}: no such folder")
    console = Console(highlight=False)
    store = ArtifactStore.default()
    sources = Sources.default(
        explicit=_named_paths(source or []), offline=offline, tell=lambda said: console.print(said, style="yellow")
    )
    if mirror is not None:
        sources.mirror = mirror
    chosen = [name for name in ARTIFACTS if every or not names or name in names]
    for number, name in enumerate(chosen, 1):
        with plain_errors(ArtifactError), console.status(f"{number} of {len(chosen)}: {name}"):
            manifest = build_artifact(name, store, sources, lambda said: console.print(said, style="dim"))
        console.print(_summary(manifest))
    console.print(f"In {store.root}", soft_wrap=True)


@app.command(name="list")
def list_artifacts() -> None:
    """The artifacts that are built."""
    from rich.console import Console
    from rich.table import Table

    from bioverify.artifacts.store import ArtifactStore

    store = ArtifactStore.default()
    table = Table("artifact", "digest", "size", "built", "simulated", "description")
    for manifest in store.list():
        size = f"{manifest.size_bytes / 1e6:,.1f} MB"
        simulated = "simulated" if manifest.simulated else ""
        digest = manifest.folder_name
        table.add_row(manifest.name, digest, size, manifest.built_at, simulated, manifest.description)
    if not table.row_count:
        raise fail(f"no artifact is built in {store.root}. Run: bioverify data build --all")
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of an artifact.")]) -> None:
    """Verify an artifact's files and print its manifest as JSON."""
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore

    with plain_errors(ArtifactError):
        artifact = ArtifactStore.default().open(name)
    typer.echo(artifact.manifest.model_dump_json(indent=2))
    typer.echo(f"{artifact.path}: all {len(artifact.manifest.files)} files have their checksums", err=True)


def _named_paths(assignments: list[str]) -> dict[str, Path]:
    paths = {}
    for assignment in assignments:
        name, equals, path = assignment.partition("=")
        if not (name and equals and path):
            raise fail(f"--source {assignment}: write NAME=PATH, for instance perturbqa=downloads/perturbqa")
        paths[name] = Path(path)
    return paths


def _summary(manifest: Manifest) -> Table:
    from rich.table import Table

    table = Table(show_header=False, title=manifest.name, title_justify="left", title_style="bold")
    table.add_row("what", manifest.description + (" SIMULATED" if manifest.simulated else ""))
    table.add_row("digest", manifest.digest)
    table.add_row("licence", manifest.license)
    for source in manifest.sources:
        table.add_row("source", f"{source.name} ({source.kind})")
    rows = {
        "counts": {key: f"{value:,}" for key, value in manifest.counts.items()},
        "coverage": {key: f"{value:.1%}" for key, value in manifest.coverage.items()},
        "quality": {key: f"{value:.3f}" for key, value in manifest.quality.items()},
    }
    for label, values in rows.items():
        if values:
            table.add_row(label, "\n".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items()))
    return table
