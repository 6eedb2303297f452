"""How ``analogy`` is built. Apart from the build, which needs LightGBM: the CLI reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bioverify.core.knockdowns import BaseRate


class Settings(BaseModel):
    """Under ``analogy`` in the file of ``bioverify data build --settings``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_rate: BaseRate = "score"
    """What a question gets whose measured gene was measured under no other training perturbation; not_applicable: no
    number."""
    reduce_to: Annotated[int, Field(ge=1)] | None = 256
    """The most dimensions of the vectors of ``esm_mlp`` that genes are compared by; null: as many as there are."""
