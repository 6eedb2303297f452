"""For all tests: what hypothesis finds does not depend on how busy the machine is."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("untimed", deadline=None)
# For `make mutation`: that a test fails is enough to know.
settings.register_profile("mutation", deadline=None, database=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("untimed")
