"""Which records a step trains on: a function of the step's number alone, so that a resumed run seeks, not replays."""

from __future__ import annotations

from collections.abc import Sequence

from diffpref.core.errors import DataError
from diffpref.core.randomness import Random

__all__ = ["BalancedSampler", "KeyedSampler"]


class KeyedSampler:
    """An endless order of ``size`` items; each visit to all of them is a fresh permutation.

    Position p is item ``permutation(seed, visit)[p % size]`` of visit ``p // size``. The visit goes with the item into
    the keys of its random draws.

    Args:
        size: number of items.
        seed: of the run.

    >>> sampler = KeyedSampler(5, seed=0)
    >>> sorted(index for index, visit in sampler.batch(0, 5))
    [0, 1, 2, 3, 4]
    >>> sampler.batch(1, 4) == [sampler[position] for position in range(4, 8)]
    True
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise DataError("there are no records to draw from: the data gave no usable pair")
        self.size, self.seed = size, seed
        self._visit, self._order = -1, []  # type: int, list[int]

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Return (index, visit) of a position; positions of one visit share one permutation."""
        if position < 0:
            raise IndexError(f"position must not be negative, got {position}")
        visit, place = divmod(position, self.size)
        if visit != self._visit:
            self._order = Random(self.seed).permutation(self.size, "order", visit).tolist()
            self._visit = visit
        return self._order[place], visit

    def batch(self, step: int, batch_size: int, *, rank: int = 0, num_ranks: int = 1) -> list[tuple[int, int]]:
        """Return the (index, visit) pairs of a step, or one process's share of them.

        Args:
            step: the update's number, from 0.
            batch_size: items of the step over all processes and accumulation steps.
            rank: of this process, which gets a contiguous share.
            num_ranks: processes; must divide ``batch_size``.

        Raises:
            DataError: there are fewer items than a step takes.
        """
        if batch_size > self.size:
            raise DataError(
                f"{self.size} pairs are fewer than the {batch_size} of one step; lower the batch size, the accumulation"
                " or the number of processes, or give more data"
            )
        share, rest = divmod(batch_size, num_ranks)
        if rest:
            raise DataError(f"a step of {batch_size} pairs cannot be shared by {num_ranks} processes: it must divide")
        start = step * batch_size + rank * share
        return [self[position] for position in range(start, start + share)]


class BalancedSampler(KeyedSampler):
    """Draws items with replacement, good ones at a fixed rate, as Diffusion-KTO does.

    Each position is a visit of its own, so that an item drawn twice is noised twice.

    Args:
        labels: of the items: whether each is good.
        share: probability that a position holds a good one.
        seed: of the run.

    Raises:
        DataError: items of a side that is to be drawn are not there.

    >>> sampler = BalancedSampler([True, False, False, False], 0.8, seed=0)
    >>> sum(index == 0 for index, visit in sampler.batch(0, 4)) >= 2
    True
    """

    def __init__(self, labels: Sequence[bool], share: float, seed: int) -> None:
        super().__init__(len(labels), seed)
        self.share = share
        self.good = [index for index, good in enumerate(labels) if good]
        self.bad = [index for index, good in enumerate(labels) if not good]
        if (share > 0 and not self.good) or (share < 1 and not self.bad):
            raise DataError(
                f"data.positive_share: {share:g} draws from {len(self.good)} good and {len(self.bad)} bad samples; give"
                " both kinds"
            )

    def __getitem__(self, position: int) -> tuple[int, int]:
        if position < 0:
            raise IndexError(f"position must not be negative, got {position}")
        draw = Random(self.seed).numpy("balanced order", position)
        side = self.good if draw.random() < self.share else self.bad
        return side[int(draw.integers(len(side)))], position
