"""The HPSv2 benchmark's table: per style the mean and its spread over ten groups, and the average of all pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpref.core.errors import DataError, ShapeError

__all__ = ["NUM_GROUPS", "StyleScore", "hps_benchmark"]

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
