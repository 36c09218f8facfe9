"""From units to steps: means over the tokens of each reasoning step, as the preference trees of TPO compare them."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = ["mean_by_step"]


def mean_by_step(values: Tensor, steps: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Return means over the units of each step, (N, S) or (N, S, D), and (N, S) which steps have any.

    Args:
        values: (N, T) or (N, T, D) of each unit.
        steps: (N, T) int64: number of each unit's step from 0, -1 for prompt and padding. Beyond the last step a unit
            counts for the last one, so that paths of unequal length can be compared step by step.
        num_steps: S.

    Raises:
        ShapeError: the steps do not fit the values.
    """
    if steps.shape != values.shape[:2]:
        raise ShapeError(f"values are {tuple(values.shape)}, steps {tuple(steps.shape)}; one step a unit is expected")
    number = steps.clamp(max=num_steps - 1).unsqueeze(1)
    member = (number == torch.arange(num_steps, device=steps.device).view(1, -1, 1)).to(values.dtype)
    count = member.sum(dim=2)
    wide = values if values.dim() == 3 else values.unsqueeze(2)
    there = (steps >= 0).unsqueeze(2)
    means = (member @ torch.where(there, wide, 0.0)) / count.clamp(min=1).unsqueeze(2)
    return (means if values.dim() == 3 else means.squeeze(2)), count > 0
