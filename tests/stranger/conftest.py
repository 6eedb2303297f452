from tests.fixtures.artifacts import real_sources, real_store

__all__ = ["real_sources", "real_store"]
