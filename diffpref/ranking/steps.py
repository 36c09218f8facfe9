"""Which two of K next latents of a sampling step make a pair, and how sure the judge must be at each timestep."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffpref.ranking.ranks import order

__all__ = ["dynamic_thresholds", "step_pair"]


def step_pair(scores: Sequence[float], *, threshold: float) -> tuple[int, int] | None:
    """Return the best against the worst candidate of a step, where the judge is sure enough (SPO, arXiv:2406.04314).

    Args:
        scores: of the K candidates, in logits.
        threshold: the difference of the two's softmax must exceed it.

    Returns:
        (winner, loser), or None.

    >>> step_pair([1.0, 0.1, -0.5], threshold=0.3)
    (0, 2)
    """
    best_first = order(scores)
    if len(best_first) < 2:
        return None
    winner, loser = best_first[0], best_first[-1]
    sure = math.tanh((scores[winner] - scores[loser]) / 2) > threshold  # p - (1 - p) of the two-way softmax
    return (winner, loser) if sure else None


def dynamic_thresholds(deviations: Sequence[float], *, lowest: float, highest: float) -> list[float]:
    """Return a threshold for each timestep, higher where steps are noisier (LPO, arXiv:2502.01051).

    Args:
        deviations: of the steps of the whole grid (`diffpref.schedules.ddim_std`).
        lowest: threshold at the smallest deviation: 0.35 for SD 1.5 and 2.1, 0.45 for SDXL.
        highest: at the largest: 0.5 and 0.6.

    >>> dynamic_thresholds([0.0, 0.5, 1.0], lowest=0.25, highest=0.75)
    [0.25, 0.5, 0.75]
    """
    low, high = min(deviations), max(deviations)
    return [lowest + (highest - lowest) * (value - low) / (high - low) for value in deviations]
