from tests.fixtures.artifacts import bundled_store
from tests.trainer.conftest import tiny_policy

__all__ = ["bundled_store", "tiny_policy"]
