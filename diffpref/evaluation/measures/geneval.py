"""GenEval's total: the mean of the tasks' means, in which a task with more prompts counts no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpref.core.errors import DataError, ShapeError
from diffpref.evaluation.measures.categories import by_category, macro_average

__all__ = ["GENEVAL_TASKS", "GenEvalScore", "geneval_score"]

GENEVAL_TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""The six of the published benchmark, in the order of its tables."""


@dataclass(frozen=True)
class GenEvalScore:
    """What the benchmark prints.

    Args:
        overall: mean of the tasks' values.
        tasks: task -> share of its pictures that are right.
        images: share of all pictures; differs from ``overall`` where tasks are not equally many.
        dropped: pictures without a finite verdict, left out of everything else.
    """

    overall: float
    tasks: Mapping[str, float]
    images: float
    dropped: int = 0


def geneval_score(correct: Any, tags: Sequence[str]) -> GenEvalScore:
    """Return the benchmark's numbers.

    Args:
        correct: (N,) 1 or True where a picture is right, as the reward ``geneval`` with ``rule="strict"`` says.
        tags: N tasks.

    Raises:
        ShapeError: not one task for each picture.
        DataError: no picture has a finite verdict.

    Source: djghosh13/geneval, evaluation/summary_scores.py.
    """
    verdicts = np.asarray(correct, dtype=np.float64)
    if verdicts.shape != (len(tags),):
        raise ShapeError(f"verdicts {verdicts.shape} for {len(tags)} tags")
    rows: dict[str, list[int]] = {}
    for row, tag in enumerate(tags):
        if np.isfinite(verdicts[row]):
            rows.setdefault(tag, []).append(row)
    if not rows:
        raise DataError(f"none of {len(tags)} pictures has a verdict")
    tasks = by_category(rows, lambda members: float(verdicts[members].mean()))
    finite = verdicts[np.isfinite(verdicts)]
    return GenEvalScore(macro_average(tasks), tasks, float(finite.mean()), len(tags) - len(finite))
