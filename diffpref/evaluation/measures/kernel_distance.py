"""The kernel distance between two sets of embeddings (KID): unbiased also for small sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.randomness import Random

__all__ = ["KernelDistance", "kernel_distance"]


@dataclass(frozen=True)
class KernelDistance:
    """An estimate over subsets.

    Args:
        estimate: mean of the subsets' squared maximum mean discrepancies; below 0 by chance where the sets are alike.
        std: of the subsets' estimates; None where one subset is all there is.
        subset_size: embeddings of each set in a subset.
    """

    estimate: float
    std: float | None
    subset_size: int


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = (a @ b.T / a.shape[1] + 1) ** 3
    return result


def _discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy: no embedding meets itself."""
    n, m = len(a), len(b)
    within_a, within_b = _kernel(a, a), _kernel(b, b)
    alike = (within_a.sum() - np.trace(within_a)) / (n * (n - 1)) + (within_b.sum() - np.trace(within_b)) / (
        m * (m - 1)
    )
    return float(alike - 2 * _kernel(a, b).mean())


def kernel_distance(
    first: Any, second: Any, *, subset_size: int = 1000, num_subsets: int = 100, seed: int = 0
) -> KernelDistance:
    r"""Return the squared maximum mean discrepancy with the kernel :math:`(x \cdot y / D + 1)^3`.

    Args:
        first: (N, D) embeddings.
        second: (M, D) embeddings.
        subset_size: of each subset; where both sets have no more, they are taken whole, once.
        num_subsets: drawn without replacement within a subset.
        seed: of the subsets.

    Raises:
        ShapeError: other shapes, or two widths.
        DataError: fewer than two embeddings, or one that is not finite.
        ConfigError: sizes that are too small.

    Source: Binkowski et al., Demystifying MMD GANs, ICLR 2018.
    """
    one, other = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ShapeError(f"expected embeddings (N, D) and (M, D), got {one.shape} and {other.shape}")
    if min(len(one), len(other)) < 2:
        raise DataError(f"a kernel distance needs two embeddings of each set, got {len(one)} and {len(other)}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("embeddings that are not finite")
    if subset_size < 2 or num_subsets < 1:
        raise ConfigError(f"subset_size must be > 1 and num_subsets > 0, got {subset_size} and {num_subsets}")
    size = min(subset_size, len(one), len(other))
    if size == len(one) == len(other):
        return KernelDistance(_discrepancy(one, other), None, size)
    random = Random(seed).numpy("kernel distance")
    found = [
        _discrepancy(*(side[random.choice(len(side), size, replace=False)] for side in (one, other)))
        for _ in range(num_subsets)
    ]
    return KernelDistance(float(np.mean(found)), float(np.std(found)), size)
