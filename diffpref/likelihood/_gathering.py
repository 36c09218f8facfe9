"""From the rows of a flat batch to the samples that objectives name."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gather"]


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Return ``values[index]``, and 0 without gradient where the index is -1."""
    index = index.to(values.device)
    there = (index >= 0).view(*index.shape, *[1] * (values.dim() - 1))
    return torch.where(there, values[index.clamp(min=0)], values.new_zeros(()))
