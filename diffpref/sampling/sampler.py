"""Text to image or video with any role as the denoiser, batched, each a function of its prompt and seed.

The first latents of seed s are those that ``torch.Generator().manual_seed(s)`` gives, so that the stock pipeline draws
the same picture from the same seed. Every model call has the same number of rows, short batches being padded, so that a
picture does not depend, not even in its last bit, on what is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Media, Role, Rows
from diffpref.core.errors import ConfigError, suggest
from diffpref.core.media import Clip
from diffpref.data.images import image_tensor
from diffpref.models.family import DenoiserFamily
from diffpref.schedules import DiscreteSchedule, Schedule, ddim_path, ddim_step, dpmpp_2m_step, dpmpp_2m_timesteps

__all__ = ["OnStep", "Sampler", "SamplerSettings", "decoded", "sample_latents", "sampling_path"]

SOLVERS = ("ddim", "dpmpp_2m")
MAX_FPS = 500
"""What files of clips can say."""
OnStep: TypeAlias = Callable[[int, Tensor, Tensor], Tensor]
"""Called after a step with its number, the (N,) timesteps that the network was told, and the latents after it; returns
the latents to go on with."""


@dataclass(frozen=True)
class SamplerSettings:
    """How pictures are drawn.

    Args:
        num_inference_steps: denoiser calls per picture (each with twice the rows under guidance).
        guidance_scale: classifier-free guidance; 1 or less runs without.
        solver: ``ddim`` (of a flow: Euler's steps) or ``dpmpp_2m``, both deterministic.
        resolution: pixels of the square picture; None takes the family's.
        batch_size: pictures per call.
        num_frames: of a video; None takes the family's.
        fps: frames a second at which a video is shown; None takes the family's. No pixel depends on it.
    """

    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    solver: Literal["ddim", "dpmpp_2m"] = "ddim"
    resolution: int | None = None
    batch_size: int = 16
    num_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1 or self.batch_size < 1:
            raise ConfigError("num_inference_steps and batch_size: must be at least 1")
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise ConfigError(f"fps: must be above 0 and at most {MAX_FPS}, got {self.fps:g}")
        if self.solver not in SOLVERS:
            raise ConfigError(
                f"solver: must be one of {', '.join(SOLVERS)}, got '{self.solver}'{suggest(self.solver, SOLVERS)}"
            )

    def __str__(self) -> str:
        told = f"{self.solver}, {self.num_inference_steps} steps, guidance {self.guidance_scale:g}"
        return told if self.num_frames is None else f"{told}, {self.num_frames} frames"

    def settled(self, family: DenoiserFamily) -> SamplerSettings:
        """Return the same with the family's size, frames and speed in place of what nobody has said.

        Raises:
            ConfigError: frames or a speed of pictures, or more frames than the family takes.
        """
        resolution = self.resolution or family.native_resolution()
        if family.samples != "videos":
            for name in ("num_frames", "fps"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name}: '{family.name}' makes images, which have none; leave it out")
            return replace(self, resolution=resolution)
        videos: Any = family
        num_frames = videos.native_frames() if self.num_frames is None else self.num_frames
        videos.check_frames(num_frames)
        return replace(self, resolution=resolution, num_frames=num_frames, fps=self.fps or videos.fps)


def sampling_path(schedule: Schedule, settings: SamplerSettings) -> tuple[Tensor, Tensor]:
    """Return where a sampler's steps begin and where they land, (num_inference_steps,) each, on the CPU.

    Raises:
        ConfigError: the solver does not fit the schedule, or it has fewer steps.
    """
    if settings.solver == "ddim":
        return ddim_path(schedule, settings.num_inference_steps)
    if not isinstance(schedule, DiscreteSchedule):
        raise ConfigError(
            f"solver: '{settings.solver}' is for chains of timesteps; flows take ddim, which is Euler's step"
        )
    timesteps = dpmpp_2m_timesteps(schedule, settings.num_inference_steps)
    return timesteps, torch.cat([timesteps[1:], timesteps.new_tensor([-1])])


def sample_latents(
    family: DenoiserFamily,
    role: Role,
    latents: Tensor,
    conditioning: Conditioning,
    negative: Conditioning,
    settings: SamplerSettings,
    *,
    begins: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoise latents under a row of conditioning each.

    Args:
        family: knows the schedule.
        role: the denoiser.
        latents: (N, C, H, W) or (N, C, F, H, W), standard normal unless ``begins`` says otherwise.
        conditioning: N rows.
        negative: what guidance leads away from; N rows, or one for all.
        settings: solver, steps, guidance.
        begins: N steps of `sampling_path`, counted from 0, at whose levels the latents lie. A row whose step has not
            come is shown to the network, unchanged, so that every call has N rows.
        on_step: sees the latents after each step, and may change them.

    Returns:
        Clean latents, shaped as ``latents``.
    """
    schedule = family.schedule_at(latents.shape[-1] * family.vae_factor())
    timesteps, landings = sampling_path(schedule, settings)
    guided = settings.guidance_scale > 1
    rows_conditioning = conditioning
    if guided:
        negatives = negative.take([0] * len(latents)) if len(negative) == 1 else negative
        rows_conditioning = Conditioning.concatenate([negatives, conditioning])
    first = torch.zeros(len(latents), dtype=torch.int64) if begins is None else torch.tensor(list(begins))
    lowest = int(first.min())
    earlier: tuple[Tensor, Tensor] | None = None
    for step in range(lowest, len(timesteps)):
        now = timesteps[step].expand(len(latents)).to(latents.device)
        after = landings[step].expand(len(latents)).to(latents.device)
        copies = 2 if guided else 1
        inputs = {"noisy": torch.cat([latents] * copies), "timesteps": torch.cat([now] * copies)}
        prediction = role(Rows("denoising", inputs, rows_conditioning, groups={}))["prediction"].float()
        if guided:
            without, told = prediction.chunk(2)
            prediction = without + family.guidance(settings.guidance_scale, latents) * (told - without)
        if settings.solver == "ddim":
            moved = ddim_step(schedule, prediction, latents, now, after)
        else:
            assert isinstance(schedule, DiscreteSchedule)
            clean = schedule.to_clean(prediction, latents, now)
            moved = dpmpp_2m_step(schedule, clean, latents, now, after, *(earlier or (None, None)))
            if earlier is not None:  # the first step of a row is of first order
                moved = _where(first == step, dpmpp_2m_step(schedule, clean, latents, now, after), moved)
            earlier = (clean, now)
        latents = _where(first <= step, moved, latents)
        if on_step is not None:
            latents = on_step(step - lowest, now, latents)
    return latents


def _where(rows: Tensor, these: Tensor, others: Tensor) -> Tensor:
    """Take whole rows of one tensor or the other."""
    return torch.where(rows.to(these.device).view(-1, *[1] * (these.dim() - 1)), these, others)


class Sampler:
    """Prompts and seeds to pictures: the sampler that generation and evaluation are handed.

    Args:
        family: with VAE and text encoders loaded.
        role: the denoiser.
        settings: steps, guidance, size.

    Raises:
        ConfigError: the family lacks a part, the resolution is no multiple of a latent's side in pixels, or the
            settings ask for frames that the family does not make.
    """

    def __init__(self, family: DenoiserFamily, role: Role, settings: SamplerSettings) -> None:
        self.family, self.role, self.settings = family, role, settings.settled(family)
        self.resolution = int(self.settings.resolution or 0)
        if self.resolution % family.vae_factor():
            raise ConfigError(f"resolution: must be a multiple of {family.vae_factor()}, got {self.resolution}")
        self.unconditional = family.unconditional(self.resolution)

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Return (N, C, H, W) or (N, C, F, H, W) float32 standard normal latents, one generator a seed, on the CPU."""
        shape = self.family.latent_shape(self.resolution, self.settings.num_frames)
        return torch.stack([self.family.initial_noise(shape, torch.Generator().manual_seed(s)) for s in seeds])

    def conditioning(
        self, prompts: Sequence[str], seeds: Sequence[int], openings: Sequence[Media] | None = None
    ) -> Conditioning:
        """Return a row for each prompt, and for the picture that its clip is to begin with where there is one."""
        conditioning = self.family.encode_prompt(prompts, self.resolution)
        if openings is None:
            return conditioning
        images = torch.stack([image_tensor(picture, self.resolution).pixels for picture in openings])
        drawn = [self.family.opening_noise(self.resolution, torch.Generator().manual_seed(s)) for s in seeds]
        noise = torch.stack([one for one in drawn if one is not None]) if drawn[0] is not None else None
        return conditioning.replace(self.family.encode_opening(images, self.resolution, noise))

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], openings: Sequence[Media] | None = None
    ) -> list[Media]:
        """Draw a picture or a video for each prompt and seed.

        Args:
            prompts: N texts.
            seeds: N, of the first latents.
            openings: N pictures that clips are to begin with, of families that are told one; cut to squares.

        Returns:
            N arrays (H, W, 3) uint8; of videos N `Clip` of (F, H, W, 3) uint8 frames and their speed.

        Raises:
            ConfigError: prompts and seeds differ in number, or pictures are missing or not asked for.
        """
        if len(prompts) != len(seeds):
            raise ConfigError(f"a seed is needed for each prompt: got {len(prompts)} prompts and {len(seeds)} seeds")
        self._check_openings(prompts, openings)
        drawn: list[np.ndarray] = []
        size = self.settings.batch_size
        for start in range(0, len(prompts), size):
            numbers = list(range(start, min(start + size, len(prompts))))
            padded = numbers + [numbers[-1]] * (size - len(numbers))
            own = [seeds[n] for n in padded]
            shown = None if openings is None else [openings[n] for n in padded]
            conditioning = self.conditioning([prompts[n] for n in padded], own, shown)
            device = next(iter(conditioning.tensors.values())).device
            latents = self.initial_latents(own).to(device)
            latents = sample_latents(self.family, self.role, latents, conditioning, self.unconditional, self.settings)
            drawn.extend(self.decode(latents)[: len(numbers)])
        fps = self.settings.fps
        return drawn if fps is None else [Clip(frames, fps) for frames in drawn]

    def decode(self, latents: Tensor) -> np.ndarray:
        """Return (N, H, W, 3) or (N, F, H, W, 3) uint8 pixels of clean latents."""
        return decoded(self.family, latents)

    def _check_openings(self, prompts: Sequence[str], openings: Sequence[Media] | None) -> None:
        name = self.family.name
        if openings is None and self.family.takes_opening:
            raise ConfigError(f"'{name}' animates pictures: give openings, a picture for each prompt")
        if openings is not None and not self.family.takes_opening:
            raise ConfigError(f"openings: '{name}' begins with no picture; leave them out, or take 'svd'")
        if openings is not None and len(openings) != len(prompts):
            raise ConfigError(f"openings: one for each of {len(prompts)} prompts, got {len(openings)}")


def decoded(family: DenoiserFamily, latents: Tensor) -> np.ndarray:
    """Return (N, H, W, 3) or (N, F, H, W, 3) uint8 pixels of N clean latents of a family whose VAE is loaded."""
    images = (family.decode_media(latents) / 2 + 0.5).mul(255).round().to(torch.uint8)
    return images.movedim(-3, -1).cpu().numpy()
