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

from diffpref.core.contracts import Media, Role
from diffpref.core.errors import ConfigError, ShapeError, suggest
from diffpref.core.media import Clip
from diffpref.data.images import clip_tensor, image_tensor
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
        self.plain = Sampler(family, role, settings)
        self.family, self.role, self.beginning = family, role, beginning
        self.settings, self.resolution = self.plain.settings, self.plain.resolution

    @torch.no_grad()
    def __call__(
        self, media: Sequence[Media], prompts: Sequence[str], seeds: Sequence[int], strengths: Sequence[float]
    ) -> list[Media]:
        """Draw one candidate from each medium.

        Families that are told the picture which a clip begins with are told the medium's first frame.

        Args:
            media: N pictures, or clips of as many frames as the settings say; cut to squares. Their latents are the
                means that the VAE gives.
            prompts: N texts.
            seeds: N seeds of noises.
            strengths: N shares of the trajectory.

        Returns:
            N arrays (H, W, 3) uint8; of videos N `Clip` of (F, H, W, 3) uint8 frames, with the speed of the medium
            where that has one.

        Raises:
            ConfigError: not as many of one as of the others, or a strength that cannot be.
            ShapeError: a picture where a clip is expected, or the other way round, or a clip of another length.
        """
        counts = {len(media), len(prompts), len(seeds), len(strengths)}
        if len(counts) != 1:
            raise ConfigError(
                f"a medium, a prompt, a seed and a strength make a candidate: got {len(media)}, {len(prompts)},"
                f" {len(seeds)} and {len(strengths)} of them"
            )
        for medium in media:
            self._check(medium)
        schedule = self.family.schedule_at(self.resolution)
        begins = [sdedit_begin(schedule, self.settings, strength, self.beginning) for strength in strengths]
        drawn: list[np.ndarray] = []
        size = self.settings.batch_size
        for start in range(0, len(media), size):
            part = list(range(start, min(start + size, len(media))))
            rows = part + [part[-1]] * (size - len(part))
            latents = self._draw(
                [media[row] for row in rows],
                [prompts[row] for row in rows],
                [seeds[row] for row in rows],
                [begins[row] for row in rows],
            )
            drawn.extend(self.plain.decode(latents)[: len(part)])
        if self.settings.fps is None:
            return drawn
        speeds = [getattr(medium, "fps", None) or self.settings.fps for medium in media]
        return [Clip(frames, fps) for frames, fps in zip(drawn, speeds, strict=True)]

    def _check(self, medium: Media) -> None:
        frames = self.settings.num_frames
        found = np.shape(medium.frames if isinstance(medium, Clip) else medium)
        if (len(found) == 4) != (frames is not None):
            expected = "pictures" if frames is None else f"clips of {frames} frames"
            raise ShapeError(f"media: '{self.family.name}' is given {expected}, got one of shape {found}")
        if frames is not None and found[0] != frames:
            raise ShapeError(f"media: clips of {frames} frames are expected (num_frames), got one of {found[0]}")

    def _draw(self, media: Sequence[Media], prompts: Sequence[str], seeds: Sequence[int], begins: list[int]) -> Tensor:
        pixels = torch.stack([self._pixels(medium) for medium in media])
        clips = self.settings.num_frames is not None
        openings = [_frames(medium)[0] for medium in media] if self.family.takes_opening and clips else None
        conditioning = self.plain.conditioning(prompts, seeds, openings)
        clean = self.family.encode_media(pixels).mean
        noise = self.plain.initial_latents(seeds).to(clean.device)
        noisy = noised_to(self.family.schedule_at(self.resolution), self.settings, clean, noise, begins)
        without = self.plain.unconditional
        return sample_latents(self.family, self.role, noisy, conditioning, without, self.settings, begins=begins)

    def _pixels(self, medium: Media) -> Tensor:
        if self.settings.num_frames is None:
            return image_tensor(medium, self.resolution).pixels
        return clip_tensor(_frames(medium), self.resolution).pixels


def _frames(medium: Media) -> np.ndarray:
    return np.asarray(medium.frames if isinstance(medium, Clip) else medium)
