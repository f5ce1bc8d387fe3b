"""The contract's documents come from real jobs: the world of the engine's tests, lent."""

from tests.dispatcher.jobs.conftest import make_world, world

__all__ = ["make_world", "world"]
