"""Samples that a role draws while a run trains, under the captions of a batch, and what rewards say of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Conditioning, Context
from diffpref.core.errors import ShapeError
from diffpref.sampling.sampler import SamplerSettings, decoded, sample_latents

__all__ = ["draw_latents", "reencode_latents", "score_latents"]

STREAM = "on-policy latents"
POSTERIOR = "on-policy posterior"


@torch.no_grad()
def draw_latents(batch: Batch, context: Context, role: str, settings: SamplerSettings, shape: Sequence[int]) -> Tensor:
    """Draw a sample for each record of a batch with the family's sampler, from noise keyed by the record.

    Where guided, it is away from what the checkpoint's pipeline guides away from. Every call has as many rows, short
    parts being padded.

    Args:
        batch: of N records; their shared captions are read, never dropped.
        context: of the step.
        role: that draws.
        settings: steps, guidance, solver, and how many samples at a time.
        shape: of a sample's latents, (C, H, W) or (C, F, H, W).

    Returns:
        N float32 latents of that shape, scaled as those of the data, on the batch's device.
    """
    told, family = batch.conditioning[""], context.family
    device = next(iter(told.tensors.values())).device
    empty = batch.empty
    negative: Conditioning = empty.zeros(keep=family.size_tensors) if family.zero_unconditional else empty
    initial = context.random.normal(STREAM, batch.keys, shape).to(device)
    made, size = [], min(settings.batch_size, len(batch))
    for start in range(0, len(batch), size):
        rows = [min(row, len(batch) - 1) for row in range(start, start + size)]
        drawn = sample_latents(family, context.roles[role], initial[rows], told.take(rows), negative, settings)
        made.append(drawn[: len(batch) - start])
    return torch.cat(made)


@torch.no_grad()
def reencode_latents(batch: Batch, context: Context, latents: Tensor, at_once: int = 16) -> Tensor:
    """Return latents as they are when they have been 8-bit pixels, as those of data were.

    Latents that a sampler leaves and those that a VAE makes of pictures differ in what no one sees and a denoiser does.

    Args:
        batch: of N records, by which the posterior's noise is keyed.
        context: of the step, with a family whose VAE is loaded.
        latents: (N, ...), a sample each.
        at_once: samples that are pictures at the same time.
    """
    family, found = context.family, []
    for start in range(0, len(latents), at_once):
        own = slice(start, start + at_once)
        pixels = torch.from_numpy(decoded(family, latents[own])).movedim(-1, -3).float() / 127.5 - 1
        posterior = family.encode_media(pixels.to(latents.device))
        noise = context.random.normal(POSTERIOR, batch.keys[own], latents.shape[1:]).to(posterior.mean)
        found.append(posterior.mean + posterior.std * noise)
    return torch.cat(found)


@torch.no_grad()
def score_latents(batch: Batch, context: Context, latents: Tensor, at_once: int = 16) -> Tensor:
    """Decode latents and score them by every reward of a run.

    Args:
        batch: of N records, whose prompts, and metadata where a reward reads them, the scores are under.
        context: of the step, with the rewards and a family that can decode.
        latents: (N, ...), a sample each.
        at_once: samples that are pictures at the same time.

    Returns:
        (N, R) float32, in the order of ``context.scorers``; NaN where a reward could not answer.

    Raises:
        ShapeError: a reward did not give one number a sample, or reads metadata that the data do not hold.
    """
    found = []
    for start in range(0, len(latents), at_once):
        own = slice(start, start + at_once)
        media, prompts = list(decoded(context.family, latents[own])), batch.prompts[own]
        for name, scorer in context.scorers.items():
            if scorer.info.needs_metadata and len(batch.metadata) != len(batch):
                raise ShapeError(f"reward '{name}' reads metadata; give prompts as .jsonl with its fields beside them")
            told = {"metadata": batch.metadata[own]} if scorer.info.needs_metadata else {}
            scores = scorer.score(media, prompts, **told)
            if scores.shape != (len(media),):
                raise ShapeError(f"reward '{name}' gave {tuple(scores.shape)} scores for {len(media)} samples")
            found.append(scores.float().cpu())
    columns = len(context.scorers)
    return torch.stack([torch.cat(found[column::columns]) for column in range(columns)], dim=1).to(latents.device)
