"""Pair selection: which two of K scored candidates are compared.

Each function takes scores and returns (winner, loser) positions. A tie gives no pair, nor does a NaN or infinite score
(`ranks.num_unscored` counts those). A gap is ``scores[winner] - scores[loser]``, in the unit of the scores. All are
deterministic: among equals the earlier candidate comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Protocol

from diffpref.core.registry import Registry
from diffpref.ranking.ranks import order

__all__ = ["PAIRINGS", "Pairing", "adjacent", "all_pairs", "best_vs_worst"]


class Pairing(Protocol):
    """A pair selection."""

    def __call__(self, scores: Sequence[float], *, min_gap: float = 0.0) -> list[tuple[int, int]]:
        """Return (winner, loser) positions, each with a gap of at least ``min_gap`` and more than 0."""
        ...


PAIRINGS: Registry[Pairing] = Registry("pairing", "diffpref.ranking")


def _far_enough(scores: Sequence[float], winner: int, loser: int, min_gap: float) -> bool:
    gap = scores[winner] - scores[loser]
    return gap > 0 and gap >= min_gap


@PAIRINGS.register("best_vs_worst")
def best_vs_worst(scores: Sequence[float], *, min_gap: float = 0.0) -> list[tuple[int, int]]:
    """Return the highest score against the lowest: one pair, or none.

    >>> best_vs_worst([0.2, 0.9, float("nan"), 0.1])
    [(1, 3)]
    """
    best_first = order(scores)
    if len(best_first) < 2 or not _far_enough(scores, best_first[0], best_first[-1], min_gap):
        return []
    lowest = scores[best_first[-1]]
    return [(best_first[0], next(i for i in best_first if scores[i] == lowest))]


@PAIRINGS.register("all_pairs")
def all_pairs(scores: Sequence[float], *, min_gap: float = 0.0) -> list[tuple[int, int]]:
    """Return every pair above the gap, those of the best candidate first.

    >>> all_pairs([1.0, 3.0, 2.5], min_gap=1.0)
    [(1, 0), (2, 0)]
    """
    return [pair for pair in combinations(order(scores), 2) if _far_enough(scores, *pair, min_gap)]


@PAIRINGS.register("adjacent")
def adjacent(scores: Sequence[float], *, min_gap: float = 0.0) -> list[tuple[int, int]]:
    """Return each candidate against the next one of the ranking.

    >>> adjacent([1.0, 3.0, 2.5])
    [(1, 2), (2, 0)]
    """
    return [pair for pair in pairwise(order(scores)) if _far_enough(scores, *pair, min_gap)]
