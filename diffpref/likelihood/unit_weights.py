"""Weights and means of units from hidden states: the masks of SparsePO without parameters, the steps of TPO."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = ["activation_weights", "mean_by_step"]


def activation_weights(
    hidden: Tensor, mask: Tensor, *, form: Literal["minmax", "relu", "abs", "raw"] = "minmax"
) -> Tensor:
    """Return (N, T) weights: how much a model's layers react to each token, against the others of its response.

    In each layer the activation is averaged over the features and standardised over the tokens that are there; the
    weight is the mean over the layers.

    Args:
        hidden: (L, N, T, D) hidden states of L layers.
        mask: (N, T) 1 where a token is there; what is elsewhere counts nowhere and weighs 0.
        form: ``"minmax"`` brings each response to [0, 1], 1/2 where all its tokens are alike; ``"relu"`` cuts off what
            is below 0; ``"abs"`` takes absolute values; ``"raw"`` leaves the mean as it is.

    Raises:
        ShapeError: the mask does not fit.

    Source: Christopoulou et al., SparsePO, arXiv:2410.05102, from memory; the form is our choice.
    """
    if hidden.dim() != 4 or hidden.shape[1:3] != mask.shape:
        raise ShapeError(f"hidden is {tuple(hidden.shape)}, mask {tuple(mask.shape)}; (L, N, T, D) and (N, T) expected")
    there = mask > 0
    count = there.sum(dim=1, keepdim=True).clamp(min=1)
    level = torch.where(there, hidden.mean(dim=3), 0.0)
    centred = torch.where(there, level - level.sum(dim=2, keepdim=True) / count, 0.0)
    spread = (centred.square().sum(dim=2, keepdim=True) / count).sqrt()
    weight = (centred / torch.where(spread > 0, spread, 1.0)).mean(dim=0)
    if form == "relu":
        weight = weight.clamp(min=0)
    elif form == "abs":
        weight = weight.abs()
    elif form == "minmax":
        low = torch.where(there, weight, torch.inf).amin(dim=1, keepdim=True)
        span = torch.where(there, weight, -torch.inf).amax(dim=1, keepdim=True) - low
        weight = torch.where(span > 0, (weight - low) / torch.where(span > 0, span, 1.0), 0.5)
    return torch.where(there, weight, 0.0)


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
