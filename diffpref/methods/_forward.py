"""The step that forward-process methods share: latents, noise and timesteps to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Conditioning, Context, Rows, Tensors
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Key, Random
from diffpref.schedules import Schedule

__all__ = ["Dropped", "drop_prompts", "forward_rows", "join_draws", "noise_like"]


Dropped = Literal["encode", "zeros"]


def drop_prompts(
    batch: Batch, context: Context, probability: float, dropped_as: Dropped = "encode", group: str = ""
) -> Conditioning:
    """Return the batch's shared conditioning, or a group's own, with a keyed share of captions dropped.

    The draw belongs to the record, so that all its candidates and all roles lose their captions at once. Sizes stay
    told.

    Args:
        batch: of B records.
        context: of the step.
        probability: of a caption to be dropped.
        dropped_as: what takes its place: the encoded empty caption, as in Diffusion-DPO's code, or ``"zeros"``, which
            is what SDXL's pipeline guides away from.
        group: whose caption, where it has one of its own; else the shared one.
    """
    shared, kept = batch.conditioning.get(group, batch.conditioning[""]), context.family.size_tensors
    if probability == 0:
        return shared
    dropped = context.random.uniform("prompt dropout", batch.keys) < probability
    device = next(iter(shared.tensors.values())).device
    other = batch.empty if dropped_as == "encode" else batch.empty.zeros()
    return shared.where(dropped.to(device), other, keep=kept)


def forward_rows(
    schedule: Schedule,
    groups: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    timesteps: Tensor | Mapping[str, Tensor],
    conditioning: Conditioning,
    columns: Tensors,
) -> Rows:
    """Noise the clean latents of each group and put the groups after one another in one batch.

    Args:
        schedule: alphas and the prediction type.
        groups: name -> (clean latents, noise of the target, noise of the input), (B, C, H, W) each; for ``list``
            (B, K, C, H, W) each.
        timesteps: (B,) int64, of a flow levels, the same for all groups and for every candidate of a list; or group ->
            (B,).
        conditioning: B rows, the same for all groups.
        columns: handed on, with the timesteps where all groups share them; where ``list_mask`` is 0, a list has no row.
    """
    size = len(conditioning)
    if any(len(clean) != size for clean, _, _ in groups.values()):
        raise ConfigError("all groups of a batch must have the same number of records")
    noisy, target, times, told, numbers, first = [], [], [], [], {}, 0
    for name, (clean, noise, given) in groups.items():
        length = clean.shape[1] if name == "list" else 1
        own = timesteps if isinstance(timesteps, Tensor) else timesteps[name]
        rows = torch.arange(first, first + size * length, device=own.device)
        if name == "list":
            clean, noise, given = clean.flatten(0, 1), noise.flatten(0, 1), given.flatten(0, 1)
            own, rows = own.repeat_interleave(length), rows.view(size, length)
        noisy.append(schedule.add_noise(clean, given, own))
        target.append(schedule.target(clean, noise, own))
        times.append(own)
        told.append(conditioning if length == 1 else conditioning.take(rows.flatten().sub(first) // length))
        there = columns.get("list_mask") if name == "list" else None
        numbers[name] = rows if there is None else torch.where(there > 0, rows, -1)
        first += size * length
    return Rows(
        likelihood="denoising",
        inputs={"noisy": torch.cat(noisy), "timesteps": torch.cat(times), "target": torch.cat(target)},
        conditioning=Conditioning.concatenate(told),
        groups=numbers,
        columns={"timesteps": timesteps, **columns} if isinstance(timesteps, Tensor) else columns,
        schedule=schedule,
    )


def noise_like(group: str, clean: Tensor, keys: Sequence[Key], random: Random, *, shared: bool) -> Tensor:
    """Return noise for the samples of a group, of their shape.

    Args:
        group: of the vocabulary.
        clean: (B, C, ...), or (B, K, C, ...) of ``list``.
        keys: of the B records' draws.
        random: of the run.
        shared: one noise for all samples of a record, in all its groups; else one for each.
    """
    shape = clean.shape[2 if group == "list" else 1 :]
    if shared:
        noise = random.normal("noise", keys, shape).to(clean)
        return noise.unsqueeze(1).expand_as(clean) if group == "list" else noise
    if group != "list":
        return random.normal(f"noise of {group}", keys, shape).to(clean)
    each = [(*key, "candidate", number) for key in keys for number in range(clean.shape[1])]
    return random.normal("noise of list", each, shape).to(clean).view_as(clean)


def join_draws(draws: Sequence[Rows]) -> Rows:
    """Return several (timestep, noise) draws of the same samples as one batch, one draw after another."""
    first = draws[0]
    if len(draws) == 1:
        return first
    inputs = {name: torch.cat([rows.inputs[name] for rows in draws]) for name in first.inputs}
    conditioning = Conditioning.concatenate([rows.conditioning for rows in draws])
    columns = {name: column for name, column in first.columns.items() if name != "timesteps"}  # one of several
    return replace(first, inputs=inputs, conditioning=conditioning, columns=columns, draws=len(draws))
