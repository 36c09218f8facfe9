"""The Frechet distance between two sets of embeddings: FID, FAD and FD, by the network that embeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpref.core.errors import DataError, ShapeError

__all__ = ["Moments", "frechet_distance", "moments"]


@dataclass(frozen=True)
class Moments:
    """What the distance keeps of a set.

    Args:
        mean: (D,) float64.
        covariance: (D, D) float64, divided by N - 1.
        count: N, embeddings that they come from.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def moments(embeddings: Any) -> Moments:
    """Return mean and covariance of (N, D) embeddings, in float64 whatever their dtype.

    Raises:
        ShapeError: not two-dimensional.
        DataError: fewer than two embeddings, or one that is not finite.
    """
    values = np.asarray(embeddings, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"expected embeddings (N, D), got {values.shape}")
    if len(values) < 2:
        raise DataError(f"a covariance needs at least two embeddings, got {len(values)}")
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).any(axis=1).sum())} of {len(values)} embeddings are not finite")
    mean = values.mean(axis=0)
    centred = values - mean
    return Moments(mean, centred.T @ centred / (len(values) - 1), len(values))


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def frechet_distance(first: Any, second: Any) -> float:
    r"""Return the squared Frechet (2-Wasserstein) distance of two Gaussians with the sets' moments.

    .. math:: \|\mu_1 - \mu_2\|^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})

    The trace of the root is the sum of the roots of the eigenvalues of :math:`\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2}`,
    which is symmetric: singular covariances need no ridge, unlike a root of the product itself. The estimate is biased
    upwards, the more so the smaller the sets are against D: compare distances of equal counts only.

    Args:
        first: (N, D) embeddings, or `Moments`.
        second: (M, D) embeddings, or `Moments`.

    Raises:
        ShapeError: embeddings of another shape, or of two widths.
        DataError: fewer than two embeddings, or one that is not finite.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017.
    """
    one, other = (side if isinstance(side, Moments) else moments(side) for side in (first, second))
    if one.mean.shape != other.mean.shape:
        raise ShapeError(f"embeddings of two widths, {one.mean.shape[0]} and {other.mean.shape[0]}")
    half = _root(one.covariance)
    roots = np.sqrt(np.linalg.eigvalsh(half @ other.covariance @ half).clip(min=0))
    traces = np.trace(one.covariance) + np.trace(other.covariance)
    distance = float(((one.mean - other.mean) ** 2).sum() + traces - 2 * roots.sum())
    return max(0.0, distance)
