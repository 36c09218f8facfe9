"""What an update trains on: a share of the sampler's order, as it lies in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from diffpref.core.contracts import Batch, Context, World
from diffpref.training.batches import Batches

__all__ = ["Feed", "Items"]

Items: TypeAlias = Sequence[tuple[int, int]]
"""(item number, visit) each."""


class Feed:
    """Hands out the records of each update, a function of its number alone.

    Args:
        batches: the data.
        total: records of an update, over all processes and accumulation steps.
        world: the processes that share them.
    """

    def __init__(self, batches: Batches, total: int, world: World) -> None:
        self.batches, self.total, self.world = batches, total, world

    def begin(self, step: int, context: Context) -> dict[str, float]:
        """Make ready for update ``step`` (from 0), on every process; return what the log says of it."""
        return {}

    def items(self, step: int) -> Items:
        """Return this process's share of an update's records."""
        return self.batches.sampler.batch(step, self.total, rank=self.world.rank, num_ranks=self.world.size)

    def everywhere(self, step: int) -> list[tuple[int, int]]:
        """Return the records of an update, of all processes."""
        return self.batches.sampler.batch(step, self.total)

    def batch(self, items: Items) -> Batch:
        """Return the batch of some records of the update that was begun."""
        return self.batches.batch(items)

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold between two updates. Every process must ask."""
        return {}

    def load(self, state: Mapping[str, Tensor], done: int) -> None:
        """Put back what `state` returned after ``done`` updates."""
