from tests.fixtures.artifacts import bundled_store
from tests.trainer.conftest import tiny_policy, tiny_preset

__all__ = ["bundled_store", "tiny_policy", "tiny_preset"]
