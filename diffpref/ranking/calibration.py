"""Rewards on one scale: win rates, fronts of several rewards, votes, soft labels, and how rare a gap is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffpref.core.errors import ConfigError, ShapeError
from diffpref.ranking.win_rates import Matrix, preference_matrix, win_rates

__all__ = [
    "PICKSCORE_COSINES",
    "calibrated_rewards",
    "fronts",
    "majority_vote",
    "rarity_weights",
    "smoothed_preference",
    "win_shares",
]

PICKSCORE_COSINES = (0.11543526500463486, 0.28201571106910706)
"""Smallest and largest cosine of PickScore over Pick-a-Pic v2, the constants of SmPO's code."""


def calibrated_rewards(scores: Sequence[float]) -> list[float]:
    """Return each candidate's expected win rate against the others of its prompt (CaPO, arXiv:2502.02588).

    Several rewards are averaged after this, each on its own.

    Raises:
        ConfigError: a single candidate.

    >>> [round(value, 4) for value in calibrated_rewards([1.0, 0.0, -0.5])]
    [0.7743, 0.4457, 0.28]
    """
    return win_rates(preference_matrix(scores), include_self=False)


def win_shares(scores: Matrix, *, half_ties: bool = False) -> list[float]:
    """Return the share of all comparisons that each candidate wins: phi of RankDPO (arXiv:2410.18013, algorithm 1).

    Only orders count, never sizes, so that rewards of any unit go together.

    Args:
        scores: a row a reward model, a column a candidate.
        half_ties: give half a win to both candidates of a tie; the paper gives none.

    Raises:
        ShapeError: rows of different lengths.
        ConfigError: fewer than two candidates, or no rows.

    >>> win_shares([[0.2, 0.5, 0.1], [3.0, 9.0, 3.0]])
    [0.25, 1.0, 0.0]
    """
    if len({len(row) for row in scores}) > 1:
        raise ShapeError(f"win shares: every reward model scores every candidate, got {[len(row) for row in scores]}")
    if not scores or len(scores[0]) < 2:
        raise ConfigError("win shares need scores of at least 2 candidates")
    size = len(scores[0])
    tie = 0.5 if half_ties else 0.0
    wins = [
        math.fsum(1.0 if row[i] > row[j] else tie * (row[i] == row[j]) for row in scores for j in range(size) if j != i)
        for i in range(size)
    ]
    return [won / (len(scores) * (size - 1)) for won in wins]


def fronts(scores: Matrix) -> tuple[list[int], list[int]]:
    """Return the candidates that no other dominates, and those that dominate no other (CaPO, arXiv:2502.02588).

    One dominates another if it is at least as good by every reward and better by one. A pair takes its winner from the
    first list and its loser from the second.

    Args:
        scores: a row a candidate, a column a (calibrated) reward.

    >>> fronts([[0.9, 0.2], [0.5, 0.5], [0.4, 0.4]])
    ([0, 1], [0, 2])
    """

    def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)

    upper = [i for i, one in enumerate(scores) if not any(dominates(other, one) for other in scores)]
    lower = [i for i, one in enumerate(scores) if not any(dominates(one, other) for other in scores)]
    return upper, lower


def majority_vote(first: Sequence[float], second: Sequence[float]) -> int:
    """Return 1 where most rewards prefer the first of two samples, -1 the second, 0 for a tie (BalancedDPO).

    Args:
        first: the first sample's score by each reward.
        second: the second sample's, in the same order.

    >>> majority_vote([0.3, 20.0, 1.0], [0.2, 22.0, 0.5])
    1
    """
    votes = sum((a > b) - (a < b) for a, b in zip(first, second, strict=True))
    return (votes > 0) - (votes < 0)


def smoothed_preference(
    chosen: float, rejected: float, *, smallest: float = PICKSCORE_COSINES[0], largest: float = PICKSCORE_COSINES[1]
) -> float:
    """Return SmPO's soft label, the softmax of two scores scaled to [0, 1] (arXiv:2506.02698).

    Args:
        chosen: score of one sample.
        rejected: score of the other.
        smallest: of the data; scores below it are not clipped.
        largest: of the data.

    >>> round(smoothed_preference(0.2231, 0.2104), 6)
    0.519051
    """
    gap = (chosen - rejected) / (largest - smallest)
    share = math.exp(-abs(gap))  # never above 1: scores of another scale than the constants do not overflow
    return (1.0 if gap >= 0 else share) / (1 + share)


def rarity_weights(gaps: Sequence[float], *, num_bins: int = 10, top: float | None = None) -> list[float]:
    """Return how rare the gap of each pair is: the most common bin's share of a histogram over its own (VideoDPO).

    Args:
        gaps: of the scores of each pair.
        num_bins: of the histogram, of equal widths from the smallest to the largest gap.
        top: the numerator; the code has the constant 0.72, the share of its data's most common bin.

    >>> rarity_weights([0.0, 0.1, 0.1, 1.0], num_bins=2)
    [1.0, 1.0, 1.0, 3.0]
    """
    low, width = min(gaps), (max(gaps) - min(gaps)) / num_bins
    bins = [min(int((gap - low) / width), num_bins - 1) if width else 0 for gap in gaps]
    counts = [bins.count(number) for number in range(num_bins)]
    largest = max(counts) if top is None else top * len(gaps)
    return [largest / counts[number] for number in bins]
