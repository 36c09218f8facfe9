"""The step that forward-process methods share: latents, noise and timesteps to rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Conditioning, Context, Rows, Tensors
from diffpref.core.errors import ConfigError
from diffpref.schedules import DiscreteSchedule

__all__ = ["Dropped", "drop_prompts", "forward_rows"]


Dropped = Literal["encode", "zeros"]


def drop_prompts(batch: Batch, context: Context, probability: float, dropped_as: Dropped = "encode") -> Conditioning:
    """Return the batch's shared conditioning with a keyed share of captions dropped.

    The draw belongs to the record, so that all its candidates and all roles see the same caption. Sizes stay told.

    Args:
        batch: of B records.
        context: of the step.
        probability: of a caption to be dropped.
        dropped_as: what takes its place: the encoded empty caption, as in Diffusion-DPO's code, or ``"zeros"``, which
            is what SDXL's pipeline guides away from.
    """
    shared, kept = batch.conditioning[""], context.family.size_tensors
    if probability == 0:
        return shared
    dropped = context.random.uniform("prompt dropout", batch.keys) < probability
    device = next(iter(shared.tensors.values())).device
    other = batch.empty if dropped_as == "encode" else batch.empty.zeros()
    return shared.where(dropped.to(device), other, keep=kept)


def forward_rows(
    schedule: DiscreteSchedule,
    groups: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    timesteps: Tensor,
    conditioning: Conditioning,
    columns: Tensors,
) -> Rows:
    """Noise the clean latents of each group and put the groups after one another in one batch.

    Args:
        schedule: alphas and the prediction type.
        groups: name -> (clean latents, noise of the target, noise of the input), (B, C, H, W) each.
        timesteps: (B,) int64, the same for all groups.
        conditioning: B rows, the same for all groups.
        columns: handed on.
    """
    size = len(timesteps)
    if any(len(clean) != size for clean, _, _ in groups.values()):
        raise ConfigError("all groups of a batch must have the same number of records")
    noisy = [schedule.add_noise(clean, given, timesteps) for clean, _, given in groups.values()]
    target = [schedule.target(clean, noise, timesteps) for clean, noise, _ in groups.values()]
    rows = torch.arange(size * len(groups), device=timesteps.device).view(len(groups), size)
    return Rows(
        likelihood="denoising",
        inputs={
            "noisy": torch.cat(noisy),
            "timesteps": timesteps.repeat(len(groups)),
            "target": torch.cat(target),
        },
        conditioning=Conditioning.concatenate([conditioning] * len(groups)),
        groups=dict(zip(groups, rows, strict=True)),
        columns=columns,
        schedule=schedule,
    )
