"""Pairs from easy to hard: by stages of one prompt (Curry-DPO), or by the gaps of all pairs (Curriculum-DPO)."""

from __future__ import annotations

from collections.abc import Sequence

from diffpref.ranking.ranks import order

__all__ = ["curriculum", "curriculum_floors"]


def curriculum(scores: Sequence[float]) -> list[tuple[int, int] | None]:
    """Return the (winner, loser) pair of each stage, the widest gap first: best against worst, ..., against the second.

    Source: Curry-DPO, arXiv:2403.07230.

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


def curriculum_floors(gaps: Sequence[float], *, num_chunks: int = 6) -> list[float]:
    """Return the smallest gap that takes part in each stage, falling, the last one all pairs' (arXiv:2405.13637).

    Args:
        gaps: of the scores of each pair, winner minus loser.
        num_chunks: one more than there are stages; 2 is a single stage with all pairs.

    >>> curriculum_floors([0.0, 0.25, 1.0], num_chunks=5)
    [0.75, 0.5, 0.25, 0.0]
    """
    low, high = min(gaps), max(gaps)
    width = (high - low) / (num_chunks - 1)
    return [*(high - stage * width for stage in range(1, num_chunks - 1)), low]
