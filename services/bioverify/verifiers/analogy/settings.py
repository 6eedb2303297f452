"""How ``analogy`` is built. Apart from the build, which needs LightGBM: the CLI reads it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from bioverify.core.knockdowns import BaseRate


class Settings(BaseModel):
    """Under ``analogy`` in the file of ``bioverify data build --settings``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_rate: BaseRate = "score"
    """What a question gets whose measured gene was measured under no other training perturbation; not_applicable: no
    number."""
