from tests.fixtures.artifacts import bundled_store, real_sources, real_store
from tests.fixtures.own_screens import genes_store

__all__ = ["bundled_store", "genes_store", "real_sources", "real_store"]
