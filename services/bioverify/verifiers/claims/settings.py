"""What the settings say of how the artifact is made. Read by the CLI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.links import LEAST_SCORE
from bioverify.artifacts.store import SourceRecord

Says = Literal["interacts", "regulates", "co-expressed"]


class Network(BaseModel):
    """Pairs of genes that a claim about two genes may rest on, beside the terms that they share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,47}$")]
    """What evidence calls it."""
    file: Path
    """In one of the forms of `bioverify.artifacts.links`: STRING, BioGRID, IntAct, two names a line."""
    says: Says
    """Of the genes of a pair; regulates: of the first name and the second."""
    least_score: float = LEAST_SCORE
    """Edges with a lower score are left out; those without a score count."""
    license: str
    url: str = ""

    @property
    def record(self) -> SourceRecord:
        """Raises OSError for a file that cannot be read."""
        return SourceRecord(
            name=f"network/{self.name}",
            kind="explicit",
            location=str(self.file),
            url=self.url,
            sha256=sha256_of(self.file),
            license=self.license,
        )


class Settings(BaseModel):
    """Under ``claims`` in the file of ``bioverify data build --settings``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _networks_are_told_apart(self) -> Self:
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise ValueError(f"two networks share a name: {', '.join(names)}")
        return self
