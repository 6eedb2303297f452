from tests.fixtures.artifacts import bundled_store
from tests.fixtures.stack import stack

__all__ = ["bundled_store", "stack"]
