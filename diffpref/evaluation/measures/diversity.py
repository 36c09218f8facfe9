"""How much the pictures of one prompt differ: models that hack a reward draw the same picture for every seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from diffpref.core.errors import DataError, ShapeError

__all__ = ["diversity", "pairwise_distance"]

K = TypeVar("K", bound=Hashable)


def pairwise_distance(embeddings: Any) -> float:
    """Return the mean cosine distance, 1 - cosine, over all pairs of (S, D) embeddings; 0 where all are parallel.

    Raises:
        ShapeError: not two-dimensional.
        DataError: fewer than two embeddings, or one without a direction.
    """
    values = np.asarray(embeddings, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"expected embeddings (S, D), got {values.shape}")
    norms = np.linalg.norm(values, axis=1)
    if len(values) < 2 or not (np.isfinite(norms) & (norms > 0)).all():
        raise DataError(
            f"pairs need at least two embeddings with a direction, got {len(values)}, norms {norms.tolist()}"
        )
    units = values / norms[:, None]
    count = len(units)
    total = (units.sum(axis=0) ** 2).sum()  # over all ordered pairs, each unit with itself too
    return float(max(0.0, 1 - (total - count) / (count * (count - 1))))


def diversity(embeddings: Any, groups: Sequence[K]) -> dict[K, float]:
    """Return group -> mean pairwise cosine distance of its pictures; groups of one picture are left out.

    Args:
        embeddings: (N, D), such as a CLIP reward's ``embed_images``.
        groups: N prompts: pictures of one prompt, by several seeds, form a group.

    Raises:
        ShapeError: not one group for each embedding.
        DataError: no group has two pictures.
    """
    values = np.asarray(embeddings, dtype=np.float64)
    if len(values) != len(groups):
        raise ShapeError(f"{len(values)} embeddings but {len(groups)} groups")
    rows: dict[K, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    found = {group: pairwise_distance(values[members]) for group, members in rows.items() if len(members) > 1}
    if not found:
        raise DataError("no prompt has two pictures; draw several seeds of each")
    return found
