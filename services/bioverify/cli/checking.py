"""What a build would make of a screen of one's own: `bioverify data check` and `bioverify data build --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens.forms import FORMS
from bioverify.artifacts.own_screens.reading import guess_columns
from bioverify.artifacts.own_screens.settings import OwnScreen
from bioverify.artifacts.own_screens.tally import Dropped
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.responses import CHANGED, CONTRADICTED, DECREASED, INCREASED, UNCHANGED
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.experimental.labels import Measured, measure, open_own
from bioverify.verifiers.experimental.verifier import ExperimentalLookup

if TYPE_CHECKING:
    from rich.console import Console

NO_LINE = "your-line"
_EXAMPLES = {INCREASED: 3, DECREASED: 3, CHANGED: 3, UNCHANGED: 3, CONTRADICTED: 1}
_N_EXAMPLES = 10
_N_NAMES = 10


def guessed_screen(file: Path, *, perturbation: str, measured_gene: str, cell_line: str) -> OwnScreen:
    """Settings for a file by the names of its columns. Raises ArtifactError that says what to name."""
    form, columns = guess_columns(file)
    has_perturbation = columns.perturbation or (form and FORMS[form].perturbation)
    if perturbation:
        columns = columns.model_copy(update={"perturbation": ""})
    elif not has_perturbation:
        raise ArtifactError(f"{file} has no column that says which gene was knocked down: --perturbation GENE")
    if measured_gene:
        columns = columns.model_copy(update={"measured_gene": ""})
    elif not columns.measured_gene and not (form and FORMS[form].measured_gene):
        raise ArtifactError(f"{file} has no column that says which gene was measured: --measured-gene GENE")
    if not (form or columns.label or (columns.log_fold_change and columns.adjusted_p)):
        raise ArtifactError(
            f"{file}: no names of columns that are known for log fold changes and adjusted p-values, or labels. Name "
            f"them in a settings file (docs/artifacts.md): --settings FILE"
        )
    if cell_line:
        columns = columns.model_copy(update={"cell_line": ""})
    return OwnScreen(
        name="my-screen",
        file=file,
        form=form,
        columns=columns,
        perturbation=perturbation,
        measured_gene=measured_gene,
        cell_line=cell_line or ("" if columns.cell_line else NO_LINE),
        license="",
    )


def show_check(screen: OwnScreen, store: ArtifactStore, console: Console) -> None:
    """Print what the build would take, say and drop. Raises ArtifactError as the build would."""
    resolver, _ = open_genes(store)
    source = open_own(screen)
    measured = measure([source], resolver, splits="train", progress=lambda _: None)
    (tally,) = measured.tallies
    console.print(f"[bold]{screen.file}[/bold], {tally.n_rows:,} rows", soft_wrap=True)
    for meaning, taken in source.rows.taken.items():
        console.print(f"  {meaning.replace('_', ' ')}: {taken}", markup=False)
    for remark in source.rows.remarks:
        console.print(f"  {remark}", markup=False)
    for _, one in measured.screens:
        counted = {
            word: int(np.count_nonzero(one.responses == response))
            for word, response in (("up", INCREASED), ("down", DECREASED), ("changed", CHANGED), ("not", UNCHANGED))
        }
        told = ", ".join(f"{n:,} {word}" for word, n in counted.items() if n)
        console.print(f"[bold]{len(one.pairs):,} pairs[/bold] in {one.line}: {told}")
    console.print("[bold]Evidence[/bold]")
    lookup = ExperimentalLookup(resolver, measured.symbols, [one for _, one in measured.screens])
    for sentence in _examples(measured, lookup):
        console.print(f"  {sentence}", markup=False, soft_wrap=True)
    console.print("[bold]Left out[/bold]" if tally.n_dropped or tally.n_contradicting else "Nothing is left out.")
    for why in Dropped:
        if tally.n_dropped[why]:
            console.print(f"  {tally.left_out(why, _N_NAMES)}", markup=False, soft_wrap=True)
    if tally.n_contradicting:
        console.print(f"  {tally.n_contradicting:,} pairs whose rows contradict each other have no label")
    for warning in tally.warnings():
        console.print(f"WARNING: {warning}", style="yellow", markup=False, soft_wrap=True)


def settings_text(screen: OwnScreen) -> str:
    """The lines of a settings file that say the same."""
    import yaml

    said = screen.model_dump(mode="json", exclude_defaults=True, exclude={"name", "file", "license"})
    own = {"name": screen.name, "file": str(screen.file), **said, "license": "…"}
    text: str = yaml.safe_dump({"experimental": {"screens": [own]}}, sort_keys=False, allow_unicode=True)
    return text.rstrip()


def _examples(measured: Measured, lookup: ExperimentalLookup) -> Iterator[str]:
    """Sentences about pairs of every kind, from all over the screen."""
    n_told = 0
    for _, screen in measured.screens:
        for response, n_wanted in _EXAMPLES.items():
            found = np.flatnonzero(screen.responses == response)
            chosen = found[np.linspace(0, len(found) - 1, min(n_wanted, len(found)), dtype=np.int64)]
            for at in chosen.tolist()[: _N_EXAMPLES - n_told]:
                n_told += 1
                perturbation, gene = (
                    measured.symbols[one] for one in divmod(int(screen.pairs[at]), len(measured.symbols))
                )
                kind = DirectionOfChange if response in (INCREASED, DECREASED) else DifferentialExpression
                outcome = lookup.score([Item(kind(perturbation, gene, screen.line), answer=True)])[0]
                yield outcome.evidence[0].text if isinstance(outcome, Scored) else getattr(outcome, "detail", "")
