"""Pairs from easy to hard (Curry-DPO, arXiv:2403.07230): the best candidate against each of the others."""

from __future__ import annotations

from collections.abc import Sequence

from diffpref.ranking.ranks import order

__all__ = ["curriculum"]


def curriculum(scores: Sequence[float]) -> list[tuple[int, int] | None]:
    """Return the (winner, loser) pair of each stage, the widest gap first: best against worst, ..., against the second.

    A stage whose two candidates have equal scores has no pair; nor have the last ones where scores are not finite, so
    that K candidates always have K - 1 stages.

    >>> curriculum([1.0, 3.0, 2.0, 3.0])
    [(1, 0), (1, 2), None]
    """
    best_first = order(scores)
    stages: list[tuple[int, int] | None] = [None] * max(0, len(scores) - 1)
    for stage, other in enumerate(reversed(best_first[1:])):
        if scores[best_first[0]] > scores[other]:
            stages[stage] = (best_first[0], other)
    return stages
