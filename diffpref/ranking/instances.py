"""Which of several altered copies of a picture makes the best negative: close to it, and yet read differently."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = ["close_then_far"]


def close_then_far(
    relevance: Tensor, divergence: Tensor, relevance_threshold: float = -1.0, top_fraction: float = 1.0
) -> Tensor:
    """Return the copy of each record that differs most in what the model answers, among those that are close to it.

    A copy is close when it is among the ``top_fraction`` most relevant ones and reaches the threshold; where none does,
    the most relevant one is taken. Of equal ones the first.

    Args:
        relevance: (B, K) how close each copy is in meaning, such as a cosine.
        divergence: (B, K) between the model's answers to the copy and to the original.
        relevance_threshold: the smallest relevance that is close.
        top_fraction: share of the copies, at least one.

    Returns:
        (B,) int64 numbers of copies.

    Raises:
        ShapeError: the two are not (B, K) each.

    Source: Ding et al., PaMi-VDPO, arXiv:2504.05810; its thresholds were not found.

    >>> close_then_far(torch.tensor([[0.9, 0.8, 0.1]]), torch.tensor([[0.1, 0.3, 0.6]]), top_fraction=0.5).tolist()
    [1]
    """
    if relevance.shape != divergence.shape or relevance.dim() != 2 or relevance.shape[1] == 0:
        raise ShapeError(
            f"relevance {tuple(relevance.shape)} and divergence {tuple(divergence.shape)} must be (records, copies)"
        )
    count = relevance.shape[1]
    kept = max(1, math.ceil(top_fraction * count))
    order = relevance.sort(dim=1, descending=True, stable=True).indices
    place = torch.empty_like(order).scatter_(1, order, torch.arange(count, device=order.device).expand_as(order))
    close = (place == 0) | ((place < kept) & (relevance >= relevance_threshold))
    return torch.where(close, divergence, -math.inf).argmax(dim=1)
