"""How the classifier is built: which net, on which rows, over which vectors. Read by the CLI, which has no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bioverify.core.knockdowns import BaseRate

SEED = 20250818
MOST_DIMENSIONS = 256
"""Time and size of nets grow with it: ESM2-3B has 2560."""

NetName = Literal["rbio", "two_tower"]
Form = Literal["own", "strict", "loose"]


class Settings(BaseModel):
    """Under ``esm_mlp`` in the file of ``bioverify data build --settings``. rbio1-mlp: net rbio, form strict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    net: NetName = "two_tower"
    form: Form = "own"
    """Training rows: the line's own; the other lines' without what the line tests; the other lines' with it."""
    folds: Annotated[int, Field(ge=2, le=127)] = 5
    """Nets per line and kind of question, each without one fold of perturbations; one net in the loose form."""
    steps: Annotated[int, Field(ge=1)] = 60
    """Of the two-tower net, over all rows at once."""
    epochs: Annotated[float, Field(gt=0)] = 30.0
    """Of rbio's net; 30 as published."""
    seed: Annotated[int, Field(ge=0)] = SEED
    go_dimensions: Annotated[int, Field(ge=0)] = 128
    """Of the vectors from GO, put beside those that were named; 0: none."""
    weights: Mapping[str, Annotated[float, Field(gt=0)]] = {}
    """How much a table of vectors counts in the likeness of two genes, by the NAME of its source, ``GO`` for GO's; 1
    for one that is not here."""
    base_rate: BaseRate = "score"
    """What a question gets whose measured gene no net has a training row of; not_applicable: no number."""
    reduce_to: Annotated[int, Field(ge=1)] | None = MOST_DIMENSIONS
    """The most dimensions that nets are fed with; null: as many as there are."""
