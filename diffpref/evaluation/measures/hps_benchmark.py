"""The HPSv2 benchmark's table, by style, and the accuracy on HPDv2 by which its authors compare reward models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from diffpref.core.errors import DataError, ShapeError

__all__ = ["NUM_GROUPS", "StyleScore", "hpdv2_accuracy", "hps_benchmark"]

NUM_GROUPS = 10


@dataclass(frozen=True)
class StyleScore:
    """Scores of a style, in the unit of the scores that were given; the published table has cosine times 100.

    Args:
        mean: over its pictures.
        group_std: standard deviation of the means of ten groups of consecutive prompts; None for fewer than ten.
        count: pictures.
    """

    mean: float
    group_std: float | None
    count: int


def hps_benchmark(scores: Any, styles: Mapping[str, Sequence[int]]) -> tuple[float, dict[str, StyleScore]]:
    """Return the average over all pictures and the scores of each style.

    Args:
        scores: (N,) of the pictures, in the order of the prompts.
        styles: style -> rows, as ``prompt_set.members("style")`` gives them.

    Raises:
        ShapeError: scores that are no vector.
        DataError: a score that is not finite, or no styles.

    Source: tgxs002/HPSv2, hpsv2/evaluation.py.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ShapeError(f"expected scores (N,), got {values.shape}")
    if not styles or not np.isfinite(values).all():
        raise DataError("the benchmark needs styles and a finite score of every picture")

    def score(rows: Sequence[int]) -> StyleScore:
        chosen = values[list(rows)]
        if len(chosen) < NUM_GROUPS:
            return StyleScore(float(chosen.mean()), None, len(chosen))
        means = [part.mean() for part in np.array_split(chosen, NUM_GROUPS)]
        return StyleScore(float(chosen.mean()), float(np.std(means)), len(chosen))

    found = {style: score(rows) for style, rows in styles.items()}
    rows = [row for members in styles.values() for row in members]
    return float(values[rows].mean()), found


def hpdv2_accuracy(scores: Sequence[Sequence[float]], ranks: Sequence[Sequence[float]]) -> float:
    """Return the mean over prompts of the share of pairs that a reward does not order against the people's ranks.

    Equal scores, and equal ranks, are no inversion, as in the official code; `diffpref reward evaluate` counts equal
    scores as wrong.

    Args:
        scores: of each prompt's pictures by the reward, higher is better.
        ranks: of the same pictures by people, lower is better.

    Raises:
        ShapeError: not the same pictures, or a prompt of fewer than two.
        DataError: no prompts, or a score that is not finite.

    Source: tgxs002/HPSv2, src/training/train.py ``inversion_score``.

    >>> round(hpdv2_accuracy([[2.0, 1.0, 3.0]], [[1, 2, 3]]), 4)
    0.3333
    """
    if [len(row) for row in scores] != [len(row) for row in ranks] or min(map(len, scores), default=2) < 2:
        raise ShapeError("every prompt needs scores and ranks of the same two pictures or more")
    if not scores or not all(np.isfinite(row).all() for row in scores):
        raise DataError("the accuracy needs prompts and a finite score of every picture")
    shares = []
    for row, told in zip(scores, ranks, strict=True):
        pairs = list(combinations(range(len(row)), 2))
        # a higher rank should have the lower score: equal signs are an inversion
        inversions = sum((row[i] - row[j]) * (told[i] - told[j]) > 0 for i, j in pairs)
        shares.append(1 - inversions / len(pairs))
    return float(np.mean(shares))
