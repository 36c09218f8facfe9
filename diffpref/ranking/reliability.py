"""How probabilities of a win hold against labels: accuracy with ties, calibration error, and the scale that fits them.

A label is P(first is better): 1, 0, 1/2 for a tie, or a share of votes. A gap is score of the first minus score of the
second, in the score's unit. Nothing here depends on which of two candidates is called the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffpref.core.errors import DataError, ShapeError

__all__ = [
    "ReliabilityBin",
    "accuracy_with_ties",
    "calibration_error",
    "fitted_scale",
    "log_loss",
    "reliability",
    "win_probability",
]

STEPS = 100
CLOSE = 1e-10  # of a Newton step, relative
LARGEST = 50.0  # of scale times the typical gap: beyond, every label is as good as certain


def accuracy_with_ties(probabilities: Sequence[float], labels: Sequence[float], tie: float = 0.0) -> float:
    """Return the mean credit of predictions, with ties on both sides: 1 if right, 1/2 if one side alone says tie.

    The rule of PickScore's evaluation (arXiv:2305.01569): a tie is predicted where P and 1 - P are at most ``tie``
    apart.

    Args:
        probabilities: (N,) P(first is better).
        labels: (N,); above 1/2 the first is better, 1/2 is a tie.
        tie: the largest ``abs(P - (1 - P))`` that predicts a tie; PickScore chooses it on validation data.

    Raises:
        ShapeError: not equally many of both, or none.

    >>> accuracy_with_ties([0.62, 0.52, 0.1, 0.45], [1.0, 0.5, 1.0, 0.0], tie=0.1)
    0.75
    """
    _same_number(probabilities, labels)
    credit = 0.0
    for probability, label in zip(probabilities, labels, strict=True):
        margin = probability - (1.0 - probability)
        predicted, told = 0 if abs(margin) <= tie else _sign(margin), _sign(label - 0.5)
        credit += 1.0 if predicted == told else 0.5 * (predicted == 0 or told == 0)
    return credit / len(labels)


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of about one probability.

    Args:
        low: of the bin; the probability is that of the candidate which is predicted to win, 1/2..1.
        high: of the bin.
        count: predictions in it.
        predicted: their mean probability; NaN where there are none.
        observed: how often, or with how large a share of votes, that candidate won; ties count 1/2.
    """

    low: float
    high: float
    count: int
    predicted: float
    observed: float


def reliability(probabilities: Sequence[float], labels: Sequence[float], num_bins: int = 10) -> list[ReliabilityBin]:
    """Return what was predicted and what was observed, in bins of equal width over 1/2..1.

    Args:
        probabilities: (N,) P(first is better).
        labels: (N,) P(first is better) as it was told.
        num_bins: how many bins.

    Raises:
        ShapeError: not equally many of both, or none.
    """
    _same_number(probabilities, labels)
    content: list[list[tuple[float, float]]] = [[] for _ in range(num_bins)]
    for probability, label in zip(probabilities, labels, strict=True):
        if probability < 0.5:
            probability, label = 1.0 - probability, 1.0 - label
        elif probability == 0.5:
            label = 0.5  # neither is predicted to win, and which is called the first must not count
        content[min(int((probability - 0.5) * 2 * num_bins), num_bins - 1)].append((probability, label))
    width = 0.5 / num_bins
    return [
        ReliabilityBin(
            0.5 + number * width, 0.5 + (number + 1) * width, len(pairs), *(_mean(column, pairs) for column in (0, 1))
        )
        for number, pairs in enumerate(content)
    ]


def calibration_error(probabilities: Sequence[float], labels: Sequence[float], num_bins: int = 10) -> float:
    """Return the expected calibration error: the mean distance of predicted and observed, weighted by predictions.

    Args:
        probabilities: (N,) P(first is better).
        labels: (N,) as it was told.
        num_bins: of `reliability`.

    >>> round(calibration_error([0.9, 0.9, 0.1, 0.9], [1.0, 1.0, 1.0, 0.0]), 3)
    0.4
    """
    bins = [one for one in reliability(probabilities, labels, num_bins) if one.count]
    return math.fsum(one.count * abs(one.predicted - one.observed) for one in bins) / len(labels)


def win_probability(gap: float, scale: float, tie_weight: float = 0.0) -> float:
    """Return P(first is better), with half of the probability of a tie.

    Args:
        gap: of the scores.
        scale: s; without ties the probability is sigmoid(s * gap).
        tie_weight: nu of Davidson's model (1970): P(tie) is proportional to it, P(win) to exp(s * gap / 2).

    >>> win_probability(0.0, 3.0), round(win_probability(1.0, 2.0), 4)
    (0.5, 0.8808)
    """
    half = 0.5 * abs(scale * gap)
    tie, loss = tie_weight * math.exp(-half), math.exp(-2 * half)
    favourite = (1.0 + 0.5 * tie) / (1.0 + tie + loss)
    return favourite if scale * gap >= 0 else 1.0 - favourite


def log_loss(probabilities: Sequence[float], labels: Sequence[float]) -> float:
    """Return the mean cross-entropy of probabilities with labels, nats; infinite where a certainty was wrong.

    >>> round(log_loss([0.5, 0.5], [1.0, 0.0]), 4)
    0.6931
    """
    _same_number(probabilities, labels)
    total = 0.0
    for probability, label in zip(probabilities, labels, strict=True):
        for share, told in ((probability, label), (1.0 - probability, 1.0 - label)):
            if told > 0:
                total -= told * math.log(share) if share > 0 else -math.inf
    return total / len(labels)


def fitted_scale(
    gaps: Sequence[float],
    labels: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    ties: Literal["half", "davidson"] = "half",
) -> tuple[float, float]:
    """Return the scale s, and the weight of ties nu, under which the labels are likeliest.

    P(first is better) = sigmoid(s * gap). There is no constant beside s * gap: with the two candidates called the other
    way round it would have to be its own negative.

    Args:
        gaps: (N,) of the scores.
        labels: (N,) P(first is better).
        weights: (N,) how much each counts; not given: 1.
        ties: ``"half"``: a label of 1/2 is half a win of either; nu is 0. ``"davidson"``: it is a third outcome of
            Davidson's model (1970), so that many ties do not make s small; s then is that of pairs without ties.

    Raises:
        ShapeError: not equally many of all, or none.
        DataError: no gap is different from 0, the scores order the labels no better than chance, or every label agrees
            with them, so that no finite scale is the likeliest.
    """
    _same_number(gaps, labels)
    x, y = np.asarray(gaps, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != x.shape:
        raise ShapeError(f"{len(x)} pairs need as many weights, got {len(w)}")
    unit = float(np.sqrt(np.mean(x**2)))
    if not unit or not w.any():
        raise DataError(
            f"none of {len(x)} labelled pairs has a gap between its scores and a weight; no scale can be fitted"
        )
    x = x / unit
    tied = (y == 0.5) if ties == "davidson" else np.zeros_like(y, dtype=bool)
    if float(np.sum(w * (y - 0.5) * x)) <= 0:
        raise DataError(f"the scores order {len(x)} labelled pairs no better than chance; no scale can be fitted")
    scale, log_tie = _newton(x, np.where(tied, 0.0, 2 * y - 1), tied.astype(np.float64), w)
    if scale >= LARGEST:
        raise DataError(
            f"all of {len(x)} labels agree with the order of the scores, so that the larger the scale the better it"
            " fits; give labels of more pairs, or of closer ones"
        )
    return scale / unit, math.exp(log_tie) if tied.any() else 0.0


def _newton(x: np.ndarray, won: np.ndarray, tied: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Maximise the sum of w * (won * s * x / 2 + tied * log nu - log Z), which is concave in (s, log nu)."""
    with_ties = bool(tied.any())
    point = np.array([0.0, 0.0 if with_ties else -np.inf])

    def outcomes(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        parts = np.stack([0.5 * at[0] * x, -0.5 * at[0] * x, np.full_like(x, at[1])])
        top = parts.max(axis=0)
        odds = np.exp(parts - top)
        total = odds.sum(axis=0)
        likelihood = won * 0.5 * at[0] * x + (tied * at[1] if with_ties else 0.0) - top - np.log(total)
        odds = odds / total
        return odds[0] - odds[1], odds[2], float(np.sum(w * likelihood))

    for _ in range(STEPS):
        margin, tie, value = outcomes(point)
        slope = np.array([np.sum(w * 0.5 * x * (won - margin)), np.sum(w * (tied - tie))])
        bend = np.array(
            [
                [np.sum(w * 0.25 * x**2 * (1 - tie - margin**2)), -np.sum(w * 0.5 * x * margin * tie)],
                [0.0, np.sum(w * tie * (1 - tie))],
            ]
        )
        bend[1, 0] = bend[0, 1]
        size = 2 if with_ties else 1
        step = np.zeros(2)
        step[:size] = np.linalg.lstsq(bend[:size, :size], slope[:size], rcond=None)[0]
        while outcomes(point + step)[2] < value and np.abs(step).max() > CLOSE:
            step *= 0.5
        point = point + step
        if point[0] >= LARGEST or np.abs(step).max() <= CLOSE * max(1.0, abs(point[0])):
            break
    return float(point[0]), float(point[1])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _mean(column: int, pairs: Sequence[tuple[float, float]]) -> float:
    return math.fsum(pair[column] for pair in pairs) / len(pairs) if pairs else math.nan


def _same_number(first: Sequence[float], labels: Sequence[float]) -> None:
    if len(first) != len(labels) or not len(labels):
        raise ShapeError(f"labelled pairs are expected, got {len(first)} numbers and {len(labels)} labels")
