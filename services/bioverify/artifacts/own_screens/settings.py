"""What the settings say of a screen of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.store import SourceRecord

FormName = Literal["seurat", "deseq2", "edger", "scanpy", "mageck"]
PerturbationKind = Literal["knockdown", "knockout", "CRISPRa", "overexpression", "compound"]


class ScreenError(ArtifactError):
    """Names the screen and its file, so nothing has to be added."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    """Names in the file; empty: the file has no such column. "index" is the column or axis that has no name."""

    perturbation: str = ""
    measured_gene: str = ""
    cell_line: str = ""
    label: str = ""
    log_fold_change: str = ""
    adjusted_p: str = ""
    split: str = ""
    """Without it every row is a training row."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.label and (self.log_fold_change or self.adjusted_p):
            raise ValueError("name either the column label, or the columns log_fold_change and adjusted_p")
        return self


class OwnScreen(_Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$")]
    """What evidence calls it."""
    file: Path
    form: FormName | None = None
    """The tool that wrote the table: its columns are known. ``columns`` then names only what is different."""
    columns: Columns = Columns()
    perturbation: str = ""
    """Of the whole file, if no column says it: one table per knockdown."""
    measured_gene: str = ""
    """Of the whole file: a screen sorted by one reporter."""
    cell_line: str = ""
    """Of the whole file."""
    kind: PerturbationKind = "knockdown"
    """Only knockdowns answer questions about knockdowns."""
    species: Literal["human", "mouse"] | None = None
    """None: human, and a table that looks like another species is refused."""
    orthologs: Path | None = None
    """For mouse: a table of two columns, mouse name and human name."""
    controls: tuple[str, ...] = ()
    """Names of controls beside the usual ones."""
    decimal: Literal[".", ","] | None = None
    """None: seen from the numbers."""
    max_adjusted_p: float = Field(default=0.05, gt=0, le=1)
    min_abs_log_fold_change: float = Field(default=0.0, ge=0)
    license: str
    url: str = ""

    @model_validator(mode="after")
    def _each_thing_is_said_once(self) -> Self:
        for thing in ("perturbation", "measured_gene", "cell_line"):
            has_column = bool(getattr(self.columns, thing))
            if has_column and getattr(self, thing):
                raise ValueError(f"name either {thing}, or the column {thing}")
            if not (has_column or getattr(self, thing) or (self.form and thing != "cell_line")):
                raise ValueError(f"name {thing} of the whole file, or the column {thing}")
        if not (self.form or self.columns.label or (self.columns.log_fold_change and self.columns.adjusted_p)):
            raise ValueError("name either the column label, or the columns log_fold_change and adjusted_p")
        if (self.species == "mouse") != (self.orthologs is not None):
            raise ValueError("species: mouse and orthologs: FILE (mouse name, human name) go together")
        return self

    @property
    def record(self) -> SourceRecord:
        return SourceRecord(
            name=f"screen/{self.name}",
            kind="explicit",
            location=str(self.file),
            url=self.url,
            sha256=sha256_of(self.file),
            license=self.license,
        )

    def refuse(self, why: object) -> ScreenError:
        """The error that says of this screen's file what is wrong with it."""
        return ScreenError(f"screen {self.name}: {self.file} {one_line(why)}")
