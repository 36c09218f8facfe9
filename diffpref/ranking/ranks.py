"""Ranks of scores: 0 is best; what has no finite score has no rank."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["num_unscored", "order", "ranks"]


def num_unscored(scores: Sequence[float]) -> int:
    """Return how many scores are NaN or infinite: they take part in no pair and no ranking."""
    return sum(not math.isfinite(score) for score in scores)


def order(scores: Sequence[float]) -> list[int]:
    """Return the positions of the finite scores, best first; equal scores keep their order.

    >>> order([0.1, float("nan"), 0.7, 0.1])
    [2, 0, 3]
    """
    finite = [i for i, score in enumerate(scores) if math.isfinite(score)]
    return sorted(finite, key=lambda i: -scores[i])


def ranks(scores: Sequence[float]) -> list[int]:
    """Return a rank for each score: the number of better ones, so that equal scores share a rank; -1 where not finite.

    >>> ranks([0.1, float("nan"), 0.7, 0.1])
    [1, -1, 0, 1]
    """
    result = [-1] * len(scores)
    best_first = order(scores)
    for place, position in enumerate(best_first):
        previous = best_first[place - 1] if place else position
        tied = place > 0 and scores[previous] == scores[position]
        result[position] = result[previous] if tied else place
    return result
