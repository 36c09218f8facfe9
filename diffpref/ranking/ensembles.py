"""Several rewards as one: the scores of one prompt's candidates by n rewards, made one score each.

A matrix has a row a reward and a column a candidate. A candidate that one reward did not score (NaN or infinite) has no
score by all of them, and the others are compared as if it were not there. How far rewards go together is `agreement`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal, TypeAlias, get_args

from diffpref.core.errors import ConfigError, ShapeError
from diffpref.ranking.calibration import win_shares
from diffpref.ranking.ranks import order
from diffpref.ranking.win_rates import Matrix

__all__ = ["COMBINATIONS", "Combination", "agreed_pairs", "combine", "disagreement", "standardised"]

Combination: TypeAlias = Literal["weighted_sum", "zscore", "win_fraction", "strict_win_fraction", "consensus"]
COMBINATIONS: tuple[str, ...] = get_args(Combination)


def standardised(scores: Sequence[float]) -> list[float]:
    """Return scores of one prompt with mean 0 and standard deviation 1; all 0 where they are equal.

    NaN and infinite scores become NaN and do not count.

    >>> standardised([1.0, 3.0, float("nan")])
    [-1.0, 1.0, nan]
    """
    finite = [score for score in scores if math.isfinite(score)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    std = math.sqrt(math.fsum((score - mean) ** 2 for score in finite) / len(finite)) if finite else math.nan
    if finite and (std == 0.0 or max(finite) == min(finite)):  # the mean of equal numbers may be off by a bit
        return [0.0 if math.isfinite(score) else math.nan for score in scores]
    return [(score - mean) / std if math.isfinite(score) else math.nan for score in scores]


def combine(scores: Matrix, rule: Combination = "zscore", weights: Sequence[float] | None = None) -> list[float]:
    """Return one score for each candidate; NaN for one that a reward did not score.

    Args:
        scores: a row a reward, a column a candidate of the prompt.
        rule: ``"weighted_sum"``: the sum of weight times score, as in Flow-GRPO's ``multi_score``; rewards of different
            units need weights that bring them together. ``"zscore"``: the same of `standardised` rows, so that units
            do not matter but distances do. ``"win_fraction"``: phi of Syn-Pic (RankDPO, arXiv:2410.18013): the share of
            comparisons, over all rewards and other candidates, that a candidate wins, with half a win for a tie; only
            orders matter. ``"strict_win_fraction"``: the same with no win for a tie, as the paper's algorithm 1 has it.
            ``"consensus"``: as ``"zscore"``; which pairs may be made of it is told by `agreed_pairs`.
        weights: one a reward, not negative and not all 0; not given: equal ones, 1 for sums.

    Raises:
        ShapeError: rows of different lengths, or not one weight a row.
        ConfigError: no rewards, an unknown rule, or weights that are negative, not finite or all 0.

    >>> combine([[0.2, 0.5, 0.1], [3.0, 9.0, 3.0]], "win_fraction")
    [0.375, 1.0, 0.125]
    """
    rows, weights = _checked(scores, weights)
    if rule not in COMBINATIONS:
        raise ConfigError(f"combination '{rule}' is unknown; known: {', '.join(COMBINATIONS)}")
    there = _scored(rows)
    kept = [[row[place] for place in there] for row in rows]
    if rule in ("win_fraction", "strict_win_fraction"):
        total, half = math.fsum(weights), rule == "win_fraction"
        weights = [weight / total for weight in weights]
        kept = [win_shares([row], half_ties=half) if len(row) > 1 else [0.5] * len(row) for row in kept]
    elif rule != "weighted_sum":
        kept = [standardised(row) for row in kept]
    result = [math.nan] * len(rows[0])
    for column, place in enumerate(there):
        result[place] = math.fsum(weight * row[column] for weight, row in zip(weights, kept, strict=True))
    return result


def agreed_pairs(scores: Matrix) -> list[tuple[int, int]]:
    """Return (winner, loser) of every two candidates of which every reward prefers the same one.

    A tie by one reward is no agreement. They come as `all_pairs` of the z-scores' sum does: the best candidate's first.

    Args:
        scores: a row a reward, a column a candidate.

    Raises:
        ShapeError: rows of different lengths.
        ConfigError: no rewards.

    >>> agreed_pairs([[1.0, 3.0, 2.0], [0.1, 0.3, 0.4]])
    [(1, 0), (2, 0)]
    """
    rows, _ = _checked(scores, None)
    best_first = order(combine(rows, "zscore"))
    return [(i, j) for i, j in combinations(best_first, 2) if all(row[i] > row[j] for row in rows)]


def disagreement(scores: Matrix) -> list[float]:
    """Return how far the rewards are apart about each candidate: the standard deviation of its z-scores over rewards.

    0 where all rewards see it equally far above or below the prompt's other candidates; NaN where one has no score.

    Args:
        scores: a row a reward, a column a candidate.

    >>> disagreement([[1.0, 2.0], [10.0, 30.0]])
    [0.0, 0.0]
    """
    rows, _ = _checked(scores, None)
    there = _scored(rows)
    kept = [standardised([row[place] for place in there]) for row in rows]
    result = [math.nan] * len(rows[0])
    for column, place in enumerate(there):
        values = [row[column] for row in kept]
        mean = math.fsum(values) / len(values)
        result[place] = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return result


def _scored(rows: Sequence[Sequence[float]]) -> list[int]:
    """Return the candidates that every reward has scored."""
    return [place for place in range(len(rows[0])) if all(math.isfinite(row[place]) for row in rows)]


def _checked(scores: Matrix, weights: Sequence[float] | None) -> tuple[list[list[float]], list[float]]:
    rows = [list(row) for row in scores]
    if not rows:
        raise ConfigError("an ensemble needs the scores of at least one reward")
    if len({len(row) for row in rows}) > 1:
        raise ShapeError(f"an ensemble: every reward scores every candidate, got {[len(row) for row in rows]}")
    given = [1.0] * len(rows) if weights is None else list(weights)
    if len(given) != len(rows):
        raise ShapeError(f"an ensemble of {len(rows)} rewards needs as many weights, got {len(given)}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not any(given):
        raise ConfigError(f"weights of an ensemble must be >= 0 and not all 0, got {given}")
    return rows, given
