"""Partial re-noising (SDEdit): a clean picture or clip is noised part of the way and denoised from there.

What the sampler makes keeps the layout, and of a clip the motion, of what it began from, the more the less it was
noised. Two candidates made so from one clip, with one strength and two noises, are DenseDPO's guided pair. The noise of
seed s is what the sampler would begin with from that seed, and a result is a function of the medium, prompt, seed and
strength, not of what is drawn beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from diffpref.core.contracts import Role
from diffpref.core.errors import ConfigError, ShapeError, suggest
from diffpref.models.family import DenoiserFamily
from diffpref.sampling.sampler import Sampler, SamplerSettings, sample_latents, sampling_path
from diffpref.schedules import FlowSchedule, Schedule

__all__ = ["BEGINNINGS", "Beginning", "SdeditSampler", "noised_to", "sdedit_begin"]

Beginning: TypeAlias = Literal["stock", "dense_dpo"]
"""How a strength becomes the step that sampling begins with; see `sdedit_begin`."""
BEGINNINGS: tuple[str, ...] = get_args(Beginning)
ROUNDING = 1e-9  # of levels that are a strength but for their last digit


def sdedit_begin(schedule: Schedule, settings: SamplerSettings, strength: float, beginning: Beginning = "stock") -> int:
    """Return the number of the first step of `sampling_path` to take, 0 where all are taken.

    Args:
        schedule: the levels.
        settings: solver and number of steps N.
        strength: in (0, 1]; 1 takes every step.
        beginning: ``"stock"`` takes ``strength * N`` steps, as diffusers does: rounded down on a chain of timesteps
            (its image-to-image pipelines of SD and SDXL, its video-to-video ones), up on a flow (that of SD3).
            ``"dense_dpo"`` reads the strength on a flow as the largest noise level: the first of the grid at or below
            it, so that the data are as noisy as the network is told, whatever the shift. On other schedules it takes
            ``strength * N`` steps, rounded to the nearest, halves up.

    Raises:
        ConfigError: a strength outside (0, 1], or so small that no step is left.

    Source: Meng et al., SDEdit, arXiv:2108.01073; DenseDPO, arXiv:2506.03517, appendix, whose
    ``x_n = (1 - eta) x + eta noise`` is given for a grid without shift.
    """
    if beginning not in BEGINNINGS:
        known = ", ".join(BEGINNINGS)
        raise ConfigError(f"beginning: unknown '{beginning}'{suggest(beginning, BEGINNINGS) or ';'} known: {known}")
    if not 0 < strength <= 1:
        raise ConfigError(f"strength: must be > 0 and <= 1, got {strength:g}")
    count = settings.num_inference_steps
    if beginning == "stock":
        flow = isinstance(schedule, FlowSchedule)
        begin = math.floor(count - count * strength) if flow else count - math.floor(count * strength)
    elif isinstance(schedule, FlowSchedule):
        levels = schedule.sigma(sampling_path(schedule, settings)[0])
        begin = int((levels > strength + ROUNDING).sum())
    else:
        begin = count - math.floor(strength * count + 0.5)
    if begin >= count:
        raise ConfigError(f"strength: {strength:g} leaves none of {count} steps; take a larger one, or more steps")
    return begin


def noised_to(
    schedule: Schedule, settings: SamplerSettings, clean: Tensor, noise: Tensor, begins: Sequence[int]
) -> Tensor:
    """Return clean latents with as much noise as the sampler expects before the steps that they begin with.

    Args:
        schedule: alphas and sigmas.
        settings: solver and number of steps.
        clean: (N, ...) latents.
        noise: (N, ...) standard normal.
        begins: N numbers of `sdedit_begin`.

    Returns:
        (N, ...) latents, to be given to `sample_latents` with the same ``begins``.
    """
    timesteps = sampling_path(schedule, settings)[0][torch.tensor(list(begins))]
    return schedule.add_noise(clean, noise, timesteps.to(clean.device))


class SdeditSampler:
    """Media, prompts, seeds and strengths to pictures or clips.

    Args:
        family: with VAE and text encoders loaded.
        role: the denoiser.
        settings: steps, guidance, size, frames, batch.
        beginning: how strengths are read; see `sdedit_begin`.

    Raises:
        ConfigError: as `Sampler`.
    """

    def __init__(
        self, family: DenoiserFamily, role: Role, settings: SamplerSettings, beginning: Beginning = "stock"
    ) -> None:
        self.family, self.role, self.settings, self.beginning = family, role, settings, beginning
        self.plain = Sampler(family, role, settings)
        self.resolution = self.plain.resolution

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the media: (H, W, 3), of clips (F, H, W, 3)."""
        latent = self.family.latent_shape(self.resolution, self.settings.num_frames)
        return (*latent[1:-2], self.resolution, self.resolution, 3)

    @torch.no_grad()
    def __call__(
        self, media: Sequence[np.ndarray], prompts: Sequence[str], seeds: Sequence[int], strengths: Sequence[float]
    ) -> list[np.ndarray]:
        """Draw one candidate from each medium.

        Args:
            media: N arrays of `shape`, uint8. Their latents are the means that the VAE gives.
            prompts: N texts.
            seeds: N seeds of noises.
            strengths: N shares of the trajectory.

        Returns:
            N arrays of `shape`, uint8.

        Raises:
            ConfigError: not as many of one as of the others, or a strength that cannot be.
            ShapeError: a medium of another shape.
        """
        counts = {len(media), len(prompts), len(seeds), len(strengths)}
        if len(counts) != 1:
            raise ConfigError(
                f"a medium, a prompt, a seed and a strength make a candidate: got {len(media)}, {len(prompts)},"
                f" {len(seeds)} and {len(strengths)} of them"
            )
        for medium in media:
            if medium.shape != self.shape or medium.dtype != np.uint8:
                raise ShapeError(f"media: must be {self.shape} uint8, got {medium.shape} {medium.dtype}")
        schedule = self.family.schedule_at(self.resolution)
        begins = [sdedit_begin(schedule, self.settings, strength, self.beginning) for strength in strengths]
        drawn: list[np.ndarray] = []
        size = self.settings.batch_size
        for start in range(0, len(media), size):
            part = list(range(start, min(start + size, len(media))))
            rows = part + [part[-1]] * (size - len(part))
            latents = self._draw(
                np.stack([media[row] for row in rows]),
                [prompts[row] for row in rows],
                [seeds[row] for row in rows],
                [begins[row] for row in rows],
            )
            drawn.extend(self.plain.decode(latents)[: len(part)])
        return drawn

    def _draw(self, media: np.ndarray, prompts: Sequence[str], seeds: Sequence[int], begins: Sequence[int]) -> Tensor:
        conditioning = self.family.encode_prompt(prompts, self.resolution)
        pixels = torch.from_numpy(media).movedim(-1, -3).float() / 127.5 - 1
        clean = self.family.encode_media(pixels).mean
        noise = self.plain.initial_latents(seeds).to(clean.device)
        schedule = self.family.schedule_at(self.resolution)
        noisy = noised_to(schedule, self.settings, clean, noise, begins)
        without = self.family.unconditional(self.resolution)
        return sample_latents(self.family, self.role, noisy, conditioning, without, self.settings, begins=begins)
