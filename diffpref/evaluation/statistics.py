"""Paired statistics: bootstrap intervals over prompts, win rates with ties, differences of shares.

Everything is paired by construction: a value belongs to one (prompt, seed) and says how two models differ on it. Where
several seeds share a prompt, the values are not independent; then prompts are resampled, not values (``groups``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.randomness import Random

__all__ = [
    "Interval",
    "WinRate",
    "bootstrap_interval",
    "difference",
    "sign_test",
    "wilson_interval",
    "win_points",
    "win_rate",
]

Array = np.ndarray
CELLS_AT_ONCE = 2_000_000  # resampled values held in memory at a time: 16 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class WinRate:
    """How often the aligned model's score is the higher of the two.

    Args:
        rate: (wins + ties / 2) / (wins + ties + losses), 0..1; without the ties' half where they count as losses.
        low: lower end of the bootstrap interval.
        high: upper end of the bootstrap interval.
        wins: pairs that the aligned model wins.
        ties: pairs with exactly equal scores.
        losses: pairs that the base model wins.
        dropped: pairs without a finite score on both sides, left out of everything else.
        sign_test_p: two-sided sign test without ties; it takes pairs as independent, also where prompts repeat.
        level: of the interval.
    """

    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    dropped: int = 0
    sign_test_p: float = 1.0
    level: float = 0.95


def _clusters(values: Array, groups: Sequence[Any] | None) -> list[Array]:
    """Return the values of each group, in an order that depends on the values alone: reordering changes no draw."""
    if groups is None:
        return [value[None] for value in np.sort(values)]
    members: dict[Any, list[float]] = {}
    for value, group in zip(values.tolist(), groups, strict=True):
        members.setdefault(group, []).append(value)
    return [np.array(values) for values in sorted(sorted(member) for member in members.values())]


def _draws(
    clusters: list[Array], statistic: Callable[..., Any], num_draws: int, generator: np.random.Generator
) -> Array:
    """Return (num_draws,) statistics of resampled clusters."""
    count, size = len(clusters), sum(map(len, clusters))
    lengths = np.array([len(c) for c in clusters])
    equal = bool((lengths == lengths[0]).all())
    table = np.stack(clusters) if equal else np.zeros((0, 0))
    sums = np.array([c.sum() for c in clusters])
    results = []
    for start in range(0, num_draws, rows := max(1, CELLS_AT_ONCE // size)):
        picks = generator.integers(0, count, size=(min(rows, num_draws - start), count))
        if statistic is np.mean:  # needs no values, only each cluster's sum and length
            results.append(sums[picks].sum(axis=1) / lengths[picks].sum(axis=1))
        elif equal:
            results.append(statistic(table[picks].reshape(len(picks), -1), axis=1))
        else:
            results.append(np.array([statistic(np.concatenate([clusters[i] for i in row]), axis=0) for row in picks]))
    return np.concatenate(results)


def _check(*columns: Array, groups: Sequence[Any] | None) -> None:
    if any(column.ndim != 1 for column in columns):
        raise ShapeError(f"expected one-dimensional values, got shapes {[column.shape for column in columns]}")
    lengths = {len(column) for column in columns} | ({len(groups)} if groups is not None else set())
    if len(lengths) != 1:
        raise ShapeError(f"paired values and groups must be equally many, got {sorted(lengths)}")
    if lengths == {0}:
        raise DataError("nothing to compare: no pairs were given")


def bootstrap_interval(
    values: Any,
    statistic: Callable[..., Any] = np.mean,
    *,
    num_draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[Any] | None = None,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval.

    Args:
        values: (N,) finite numbers: differences, or win scores 0, 1/2, 1.
        statistic: ``f(array, axis=...)`` such as ``np.mean`` (default) or ``np.median``.
        num_draws: resamples.
        level: between 0 and 1.
        seed: of the resampling; equal seeds give equal intervals, whatever the order of the values.
        groups: (N,) hashable labels; values with one label are resampled together. None: each value alone.

    Raises:
        ConfigError: ``level`` or ``num_draws`` out of range.
        DataError: no value, or one that is not finite.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13.
    """
    if not 0 < level < 1 or num_draws < 1:
        raise ConfigError(f"level must be in (0, 1) and num_draws > 0, got {level} and {num_draws}")
    values = np.asarray(values, dtype=np.float64)
    _check(values, groups=groups)
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite; drop them first")
    clusters = _clusters(values, groups)
    estimate = float(statistic(np.concatenate(clusters), axis=0))
    draws = _draws(clusters, statistic, num_draws, Random(seed).numpy("bootstrap"))
    low, high = np.percentile(draws, [50 - 50 * level, 50 + 50 * level]).tolist()
    # Few, very skewed values can push the percentiles past the estimate itself; widening is the careful side.
    return Interval(estimate, min(low, estimate), max(high, estimate), level)


def _paired(aligned: Any, base: Any, groups: Sequence[Any] | None) -> tuple[Array, Array, list[Any] | None, int]:
    """Return the pairs that are finite on both sides, their groups, and how many were dropped."""
    aligned, base = np.asarray(aligned, dtype=np.float64), np.asarray(base, dtype=np.float64)
    _check(aligned, base, groups=groups)
    finite = np.isfinite(aligned) & np.isfinite(base)
    if not finite.any():
        raise DataError(f"none of {len(finite)} pairs has a finite score on both sides")
    kept = None if groups is None else [group for group, keep in zip(groups, finite, strict=True) if keep]
    return aligned[finite], base[finite], kept, int((~finite).sum())


def win_rate(
    aligned_scores: Any,
    base_scores: Any,
    groups: Sequence[Any] | None = None,
    *,
    ties: Literal["half", "loss"] = "half",
    num_draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> WinRate:
    """Compare two models' scores of the same prompts and seeds; a tie counts one half, or as a loss.

    Ties are exact: scores are never rounded first. Pairs with a score that is not finite are dropped and counted.

    Args:
        aligned_scores: (N,) higher is better.
        base_scores: (N,) of the same prompts and seeds.
        groups: (N,) the prompts, where several seeds share one.
        ties: what an exactly equal score counts for the aligned model.
        num_draws: resamples.
        level: of the interval.
        seed: of the resampling.

    >>> win_rate([0.3, 0.5, 0.2, 0.7, 0.7, 0.1], [0.2, 0.6, 0.2, 0.4, 0.9, 0.0]).rate
    0.5833333333333334
    """
    aligned, base, groups, dropped = _paired(aligned_scores, base_scores, groups)
    wins, even = int((aligned > base).sum()), int((aligned == base).sum())
    losses = len(aligned) - wins - even
    points = win_points(aligned, base, ties)
    interval = bootstrap_interval(points, num_draws=num_draws, level=level, seed=seed, groups=groups)
    p = sign_test(wins, losses)
    return WinRate(interval.estimate, interval.low, interval.high, wins, even, losses, dropped, p, level)


def win_points(aligned: Array, base: Array, ties: Literal["half", "loss"] = "half") -> Array:
    """Return (N,) what each pair counts for the aligned model: 1, 0, and for a tie 1/2 or 0."""
    points = (np.sign(aligned - base) + 1) / 2
    return np.floor(points) if ties == "loss" else points


def difference(
    aligned: Any,
    base: Any,
    groups: Sequence[Any] | None = None,
    *,
    scale: float = 100.0,
    statistic: Callable[..., Any] = np.mean,
    num_draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the paired difference aligned minus base with its interval.

    Args:
        aligned: (N,) numbers or booleans.
        base: (N,) of the same prompts and seeds.
        groups: (N,) the prompts, where several seeds share one.
        scale: factor on the result; the default turns shares into percentage points.
        statistic: of the differences.
        num_draws: resamples.
        level: of the interval.
        seed: of the resampling.
    """
    aligned, base, groups, _ = _paired(aligned, base, groups)
    values = scale * (aligned - base)
    return bootstrap_interval(values, statistic, num_draws=num_draws, level=level, seed=seed, groups=groups)


def wilson_interval(rate: float, total: int, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share of ``total`` independent trials (Wilson, JASA 1927)."""
    if not 0 <= rate <= 1 or total < 1:
        raise ConfigError(f"rate must be in [0, 1] and total > 0, got {rate} and {total}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return Interval(rate, max(0.0, centre - half), min(1.0, centre + half), level)


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of ``wins`` against ``losses`` under a fair coin; 1 where there are none."""
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**total)  # integers of any size: the quotient is exact to the last bit
