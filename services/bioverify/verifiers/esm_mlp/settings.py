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
Knowledge = Literal["string_links", "string", "coessential_modules", "complex_portal", "reactome", "biogrid", "intact"]
KNOWLEDGE_WEIGHTS: Mapping[str, float] = {
    "string_links": 0.7,
    "string": 0.7,
    "coessential_modules": 0.7,
    "complex_portal": 0.7,
    "reactome": 0.3,
    "biogrid": 0.7,
    "intact": 0.7,
}
"""Of tables in the likeness of two genes, beside GO's of 1."""


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
    go_dimensions: Annotated[int, Field(ge=0)] = 512
    """Of the vectors from GO, put beside those that were named; 0: none."""
    knowledge: tuple[Knowledge, ...] = ("string_links", "string", "coessential_modules")
    """Public sources whose vectors are put beside them, as far as they are to be had."""
    weights: Mapping[str, Annotated[float, Field(gt=0)]] = {}
    """How much a table of vectors counts in the likeness of two genes, by the NAME of its source, ``GO`` for GO's, or
    as in ``knowledge``, which have `KNOWLEDGE_WEIGHTS`; 1 for any other that is not here."""
    base_rate: BaseRate = "score"
    """What a question gets whose measured gene no net has a training row of; not_applicable: no number."""
    reduce_to: Annotated[int, Field(ge=1)] | None = MOST_DIMENSIONS
    """The most dimensions that nets are fed with; null: as many as there are."""
