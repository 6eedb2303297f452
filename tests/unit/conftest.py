from tests.fixtures.artifacts import bundled_store, real_sources, real_store

__all__ = ["bundled_store", "real_sources", "real_store"]
