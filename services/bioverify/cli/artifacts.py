"""`bioverify data`: fetch public sources, make the verifiers' artifacts from them, look at them, and check them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bioverify.cli.completion import artifact_names, built_names
from bioverify.cli.services import ARTIFACTS, build_artifact
from bioverify.cli.terminal import AsJson, fail, plain_errors, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bioverify.artifacts.own_screens.settings import OwnScreen
    from bioverify.artifacts.sources import Sources
    from bioverify.artifacts.store import ArtifactStore, Manifest
    from bioverify.cli.build_settings import BuildSettings

app = typer.Typer(help="Public sources and the artifacts made of them.", no_args_is_help=True)

MirrorOption = Annotated[Path | None, typer.Option(help="Folder with the public files, laid out as a mirror.")]
LicenseOption = Annotated[
    bool, typer.Option("--accept-license", help="Accept the non-commercial licence of files to be downloaded.")
]


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sources or their folders. None: all that builds read; by name: tf_sapiens, complex_portal, reactome, "
            "biogrid, intact."
        ),
    ] = None,
    mirror: MirrorOption = None,
    accept_license: LicenseOption = False,
) -> None:
    """Bring the public source files into the cache.

    From the mirror, else from their official address. A download that was cut off is resumed. Proxies are taken from
    HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

    Example: bioverify data fetch --accept-license
    """
    from rich.console import Console
    from rich.table import Column, Table

    from bioverify.artifacts.checkpoints import unpack
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.sources import ON_REQUEST, PUBLIC, TF_SAPIENS

    console = Console(highlight=False)
    sources = _sources(console, mirror=mirror, accept_license=accept_license)
    known_sources = (*PUBLIC, *ON_REQUEST)
    chosen = [one for one in known_sources if {one.name, one.name.partition("/")[0]} & set(names)] if names else PUBLIC
    unknown = set(names or []) - {part for one in chosen for part in (one.name, one.name.partition("/")[0])}
    if unknown:
        known = ", ".join(dict.fromkeys(one.name.partition("/")[0] for one in known_sources))
        raise fail(f"no source is called {', '.join(sorted(unknown))}; there are: {known}")
    table = Table(Column("source", overflow="fold"), "from", "size", "sha256", "licence")
    missing = []
    for source in chosen:
        with plain_errors(ArtifactError):
            located = sources.fetch(source)
            if located is not None and source is TF_SAPIENS:
                unpack(located.path, located.path.with_name("tf_sapiens"))
        if located is not None:
            size = f"{located.path.stat().st_size / 1e6:,.1f} MB"
            table.add_row(source.name, located.kind, size, located.sha256[:12], source.license)
        elif source.url:
            missing.append(source.name)
        else:
            remark = "a compact form ships" if source.bundled else "builds do without it"
            table.add_row(source.name, f"mirror only; {remark}", "", "", source.license)
    console.print(table)
    console.print(f"In {sources.cache}", soft_wrap=True)
    if missing:
        raise fail(f"not fetched: {', '.join(missing)}. The lines above say why; run the command again to go on")


@app.command()
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Some of: {', '.join(ARTIFACTS)}. None: all.", autocompletion=artifact_names),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All of them, in the order in which they need each other.")
    ] = False,
    mirror: MirrorOption = None,
    source: Annotated[list[str] | None, typer.Option(help="A file of your own: NAME=PATH. May be repeated.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    accept_license: LicenseOption = False,
    settings: Annotated[
        Path | None, typer.Option(help="YAML: your own screens, splits, which GO annotations count. docs/artifacts.md")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Build also what would come out the same.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build nothing: tell what it would make of the settings' screens.")
    ] = False,
) -> None:
    """Make the artifacts that verifiers answer from.

    From your files, the cache, the mirror, the official address, or the small set that ships. What was built from the
    same sources with the same settings is not built again, so a build that was interrupted is resumed.

    Example: bioverify data build --all
    """
    from rich.console import Console

    from bioverify.artifacts.builds import build_unless_unchanged
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.cli.build_settings import read_build_settings
    from bioverify.settings import SettingsError

    unknown = [name for name in names or [] if name not in ARTIFACTS]
    if unknown:
        raise fail(f"no artifact is called {', '.join(unknown)}; there are: {', '.join(ARTIFACTS)}")
    console = Console(highlight=False)
    store = ArtifactStore.default()
    sources = _sources(
        console, mirror=mirror, accept_license=accept_license, offline=offline, explicit=_named_paths(source or [])
    )
    with plain_errors(SettingsError):
        how = read_build_settings(settings)
    if dry_run:
        from bioverify.cli.checking import show_check

        if not how.experimental.screens:
            raise fail("--dry-run looks at screens of your own, and the settings name none. Write --settings FILE")
        for screen in how.experimental.screens:
            with plain_errors(ArtifactError):
                show_check(screen, store, console)
        return
    chosen = [name for name in ARTIFACTS if every or not names or name in names]
    simulated: list[str] = []
    for number, name in enumerate(chosen, 1):

        def build_this(name: str = name) -> Manifest:
            return build_artifact(name, store, sources, lambda said: console.print(said, style="dim"), how)

        with plain_errors(ArtifactError), console.status(f"{number} of {len(chosen)}: {name}"):
            if again:
                (store.root / name / "built_from.json").unlink(missing_ok=True)
            manifest, is_new = build_unless_unchanged(name, store, sources, build_this, settings=how.of(name))
        console.print(_summary(manifest, is_new))
        simulated += [name] if manifest.simulated else []
    if simulated:
        console.print(
            f"{', '.join(simulated)}: from a simulated screen, not an experiment. The real one comes by: "
            "bioverify data fetch --accept-license && bioverify data build --all",
            style="yellow",
            soft_wrap=True,
        )
    console.print(f"In {store.root}", soft_wrap=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A table or .h5ad file of a screen of your own.")],
    settings: Annotated[
        Path | None,
        typer.Option(help="YAML that names the file as a screen. Without it, columns are told by their names."),
    ] = None,
    perturbation: Annotated[str, typer.Option(help="What was knocked down, if no column says it.")] = "",
    measured_gene: Annotated[str, typer.Option(help="What was measured, if no column says it.")] = "",
    cell_line: Annotated[str, typer.Option(help="The cell line, if no column says it.")] = "",
) -> None:
    """Read a screen of your own as a build would.

    Tells what it takes each column for, what it would say, and drop.

    Example: bioverify data check screen.csv --cell-line k562
    """
    from rich.console import Console

    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.cli.build_settings import read_build_settings
    from bioverify.cli.checking import guessed_screen, settings_text, show_check
    from bioverify.settings import SettingsError

    if not file.is_file():
        raise fail(f"{file} is no file")
    console, store = Console(highlight=False), ArtifactStore.default()
    with plain_errors(ArtifactError, SettingsError):
        if settings is not None:
            named = read_build_settings(settings).experimental.screens
            screens = [one for one in named if one.file.resolve() == file.resolve()]
            if not screens:
                raise fail(f"{settings} names no screen with the file {file}; it names: {_files(named)}")
            for screen in screens:
                show_check(screen, store, console)
        else:
            guessed = guessed_screen(file, perturbation=perturbation, measured_gene=measured_gene, cell_line=cell_line)
            show_check(guessed, store, console)
            console.print("[bold]Settings[/bold] that say the same, for `bioverify data build --settings`:")
            console.print(settings_text(guessed), markup=False, soft_wrap=True)


@app.command(name="list")
def list_artifacts(as_json: AsJson = False) -> None:
    """The artifacts that are built.

    Example: bioverify data list
    """
    from rich.console import Console
    from rich.table import Column, Table

    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.verifiers.transcriptformer_pmi.artifact import PARTNERS_AUC, WORTH_ASKING

    store = ArtifactStore.default()
    names = store.names()
    if not names:
        raise fail(f"no artifact is built in {store.root}. Run: bioverify data build --all")
    if as_json:
        print_json([_listed(store, name) for name in names])
        return
    # On a narrow terminal the others give way, not what identifies an artifact nor the shares.
    identity = Column("artifact", no_wrap=True), Column("digest", no_wrap=True)
    coverage_column = Column("coverage", min_width=12)
    table = Table(*identity, "version", "size", "built", "licence", "simulated", coverage_column)
    for name in names:
        try:
            manifest = store.manifest(name)
        except ArtifactError:
            table.add_row(name, "damaged", "", "", "", f"bioverify data verify {name}", "", "")
            continue
        size = f"{manifest.size_bytes / 1e6:,.1f} MB"
        simulated = "simulated" if manifest.simulated else "no"
        built = manifest.built_at[:16].replace("T", " ")
        lines = [f"{key.replace('_', ' ')} {share:.0%}" for key, share in manifest.coverage.items()]
        if (auc := manifest.quality.get(PARTNERS_AUC)) is not None:
            lines.append(f"known partners AUC {auc:.2f}" + (", hardly worth asking" if auc < WORTH_ASKING else ""))
        coverage = "\n".join(lines)
        made = (manifest.folder_name, manifest.code_version, size, built, manifest.license)
        table.add_row(name, *made, simulated, coverage)
    Console().print(table)


def _listed(store: ArtifactStore, name: str) -> dict[str, Any]:
    """The manifest, or why it cannot be read."""
    from bioverify.artifacts.errors import ArtifactError

    try:
        manifest = store.manifest(name)
        return {**manifest.model_dump(mode="json"), "digest": manifest.digest, "size_bytes": manifest.size_bytes}
    except ArtifactError as error:
        return {"name": name, "damaged": str(error)}


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of artifacts. None: all that are built.", autocompletion=built_names),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Build or pull again what is damaged, under a new build id.")
    ] = False,
    source_url: Annotated[
        str, typer.Option("--from", help="With --repair: pull from this storage instead of building.")
    ] = "",
    mirror: MirrorOption = None,
    source: Annotated[list[str] | None, typer.Option(help="As it was given to the build: NAME=PATH.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    accept_license: LicenseOption = False,
    settings: Annotated[Path | None, typer.Option(help="As they were given to the build.")] = None,
) -> None:
    """Compare the files of artifacts with their checksums.

    Exit status 1 if one differs from the manifest's. What --repair makes has the digest of before and a new build id,
    which enters the verifiers' fingerprints: nothing that a cache remembers of the changed bytes is used. Services that
    have withdrawn open it by themselves.

    Example: bioverify data verify --repair
    """
    from rich.console import Console

    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.cli.build_settings import read_build_settings
    from bioverify.settings import SettingsError

    store = ArtifactStore.default()
    chosen = names or store.names()
    if not chosen:
        raise fail(f"no artifact is built in {store.root}. Run: bioverify data build --all")
    if repair:
        # In the order in which they need each other.
        order = [name for name in ARTIFACTS if name in chosen] + [name for name in chosen if name not in ARTIFACTS]
        console = Console(highlight=False)
        with plain_errors(ArtifactError, SettingsError):
            sources = _sources(
                console,
                mirror=mirror,
                accept_license=accept_license,
                offline=offline,
                explicit=_named_paths(source or []),
            )
            how = read_build_settings(settings)
            for name in order:
                if store.is_damaged(name):
                    _repair(name, store, sources, how, source_url, console)
    n_problems = 0
    for name in chosen:
        found = list(store.verify(name))
        n_problems += len(found)
        for problem in found:
            typer.echo(problem, err=True)
        if not found:
            manifest = store.manifest(name)
            typer.echo(f"{name}: {len(manifest.files)} files, {manifest.size_bytes / 1e6:,.1f} MB, all as built")
    if n_problems:
        raise fail(f"{n_problems} of the artifacts' files are not as they were built")


def _repair(name: str, store: ArtifactStore, sources: Sources, how: BuildSettings, url: str, console: Console) -> None:
    """Put a whole version in the place of the damaged one. Raises ArtifactError."""
    from bioverify.artifacts.builds import build_unless_unchanged, why_not_rebuilt
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.remote import Remote

    if url:
        manifest, _ = Remote(url).pull(store, name, tell=console.print)
    elif why := why_not_rebuilt(name, store, sources, how.of(name)):
        raise ArtifactError(why)
    else:

        def build_this() -> Manifest:
            return build_artifact(name, store, sources, lambda said: console.print(said, style="dim"), how)

        manifest, _ = build_unless_unchanged(name, store, sources, build_this, settings=how.of(name))
    console.print(f"{name}: repaired, {manifest.digest[:23]}…, build {manifest.build_id or 'of a new digest'}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of an artifact.", autocompletion=built_names)]) -> None:
    """Verify an artifact's files and print its manifest as JSON.

    Example: bioverify data show genes
    """
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore

    with plain_errors(ArtifactError):
        artifact = ArtifactStore.default().open(name)
    typer.echo(artifact.manifest.model_dump_json(indent=2))
    typer.echo(f"{artifact.path}: all {len(artifact.manifest.files)} files have their checksums", err=True)


RemoteUrl = Annotated[str, typer.Argument(help="s3://bucket/prefix, gs://…, az://…, file:///folder, or a folder.")]


@app.command()
def push(
    url: RemoteUrl,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of artifacts. None: all that are built.", autocompletion=built_names),
    ] = None,
) -> None:
    """Upload built artifacts to shared storage.

    What is there already is not sent again. Access comes from the environment: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, …

    Example: bioverify data push s3://bucket/artifacts
    """
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.remote import Remote
    from bioverify.artifacts.sources import GENENTECH
    from bioverify.artifacts.store import ArtifactStore

    store = ArtifactStore.default()
    with plain_errors(ArtifactError):
        remote = Remote(url)
        for name in names or store.names():
            manifest = remote.push(store, name, tell=typer.echo)
            typer.echo(f"{name}: {manifest.digest}, {manifest.size_bytes / 1e6:,.1f} MB")
            if GENENTECH in manifest.license:
                typer.echo(f"{name} is made from data under the {GENENTECH}: keep {url} private", err=True)


@app.command()
def pull(
    url: RemoteUrl,
    names: Annotated[
        list[str] | None, typer.Argument(help="NAME, or NAME@sha256:DIGEST to insist on one. None: all that are there.")
    ] = None,
) -> None:
    """Fetch built artifacts from shared storage.

    Every checksum is verified; a pull that broke off is resumed.

    Example: bioverify data pull s3://bucket/artifacts genes
    """
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.remote import Remote
    from bioverify.artifacts.store import ArtifactStore

    store = ArtifactStore.default()
    with plain_errors(ArtifactError):
        remote = Remote(url)
        wanted = names or remote.names()
        if not wanted:
            raise fail(f"{url} holds no artifact. Run: bioverify data push {url}")
        for written in wanted:
            name, _, digest = written.partition("@")
            manifest, is_new = remote.pull(store, name, digest=digest, tell=typer.echo)
            typer.echo(f"{name}: {manifest.digest}{'' if is_new else ', unchanged'}")
    typer.echo(f"In {store.root}")


def _files(screens: Sequence[OwnScreen]) -> str:
    return ", ".join(str(one.file) for one in screens) or "none"


def _sources(
    console: Console,
    *,
    mirror: Path | None,
    accept_license: bool,
    offline: bool = False,
    explicit: dict[str, Path] | None = None,
) -> Sources:
    from bioverify.artifacts.sources import Sources

    if mirror is not None and not mirror.is_dir():
        raise fail(f"--mirror {mirror}: no such folder")
    sources = Sources.default(
        explicit=explicit,
        offline=offline,
        accept_license=accept_license,
        tell=lambda said: console.print(said, style="yellow"),
    )
    if mirror is not None:
        sources.mirror = mirror
    return sources


def _named_paths(assignments: list[str]) -> dict[str, Path]:
    paths = {}
    for assignment in assignments:
        name, equals, path = assignment.partition("=")
        if not (name and equals and path):
            raise fail(f"--source {assignment}: write NAME=PATH, for instance perturbqa=downloads/perturbqa")
        paths[name] = Path(path)
    return paths


def _summary(manifest: Manifest, is_new: bool) -> Table:
    from rich.table import Table

    title = manifest.name if is_new else f"{manifest.name}: unchanged"
    table = Table(show_header=False, title=title, title_justify="left", title_style="bold")
    table.add_row("what", manifest.description + (" SIMULATED" if manifest.simulated else ""))
    table.add_row("digest", manifest.digest)
    table.add_row("licence", manifest.license)
    for source in manifest.sources:
        table.add_row("source", f"{source.name} ({source.kind}), sha256 {source.sha256[:12]}…")
    for key, value in manifest.parameters.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row("parameter", f"{key}: {shown}")
    for used, digest in manifest.inputs.items():
        table.add_row("made with", f"{used} {digest}")
    for file_name, record in manifest.files.items():
        table.add_row("file", f"{file_name} {record.size_bytes:,} B, sha256 {record.sha256[:12]}…")
    rows = {
        "counts": {key: f"{value:,}" for key, value in manifest.counts.items()},
        "coverage": {key: f"{value:.1%}" for key, value in manifest.coverage.items()},
        "quality": {key: f"{value:.3f}" for key, value in manifest.quality.items()},
    }
    for label, values in rows.items():
        if values:
            table.add_row(label, "\n".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items()))
    return table
