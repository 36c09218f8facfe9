"""Text to image or video with any role as the denoiser, batched, each a function of its prompt and seed.

The first latents of seed s are those that ``torch.Generator().manual_seed(s)`` gives, so that the stock pipeline draws
the same picture from the same seed. Every model call has the same number of rows, short batches being padded, so that a
picture does not depend, not even in its last bit, on what is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Role, Rows
from diffpref.core.errors import ConfigError, suggest
from diffpref.models.family import DenoiserFamily
from diffpref.schedules import DiscreteSchedule, ddim_path, ddim_step, dpmpp_2m_step, dpmpp_2m_timesteps

__all__ = ["Sampler", "SamplerSettings", "sample_latents"]

SOLVERS = ("ddim", "dpmpp_2m")


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
    """

    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    solver: Literal["ddim", "dpmpp_2m"] = "ddim"
    resolution: int | None = None
    batch_size: int = 16
    num_frames: int | None = None

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1 or self.batch_size < 1:
            raise ConfigError("num_inference_steps and batch_size: must be at least 1")
        if self.solver not in SOLVERS:
            raise ConfigError(
                f"solver: must be one of {', '.join(SOLVERS)}, got '{self.solver}'{suggest(self.solver, SOLVERS)}"
            )

    def __str__(self) -> str:
        return f"{self.solver}, {self.num_inference_steps} steps, guidance {self.guidance_scale:g}"


def sample_latents(
    family: DenoiserFamily,
    role: Role,
    latents: Tensor,
    conditioning: Conditioning,
    negative: Conditioning,
    settings: SamplerSettings,
) -> Tensor:
    """Denoise (N, C, H, W) or (N, C, F, H, W) standard normal latents under N rows of conditioning.

    ``negative`` may have one row for all.
    """
    schedule = family.schedule_at(latents.shape[-1] * family.vae_factor())
    guided = settings.guidance_scale > 1
    if settings.solver == "ddim":
        timesteps, landings = ddim_path(schedule, settings.num_inference_steps)
    elif not isinstance(schedule, DiscreteSchedule):
        raise ConfigError(
            f"solver: '{settings.solver}' is for chains of timesteps; flows take ddim, which is Euler's step"
        )
    else:
        timesteps = dpmpp_2m_timesteps(schedule, settings.num_inference_steps)
        landings = torch.cat([timesteps[1:], timesteps.new_tensor([-1])])
    rows_conditioning = conditioning
    if guided:
        negatives = negative.take([0] * len(latents)) if len(negative) == 1 else negative
        rows_conditioning = Conditioning.concatenate([negatives, conditioning])
    earlier: tuple[Tensor, Tensor] | None = None
    for here, landing in zip(timesteps.tolist(), landings.tolist(), strict=True):
        now = timesteps.new_full((len(latents),), here).to(latents.device)
        after = landings.new_full((len(latents),), landing).to(latents.device)
        copies = 2 if guided else 1
        inputs = {"noisy": torch.cat([latents] * copies), "timesteps": torch.cat([now] * copies)}
        prediction = role(Rows("denoising", inputs, rows_conditioning, groups={}))["prediction"].float()
        if guided:
            without, told = prediction.chunk(2)
            prediction = without + settings.guidance_scale * (told - without)
        if settings.solver == "ddim":
            latents = ddim_step(schedule, prediction, latents, now, after)
            continue
        assert isinstance(schedule, DiscreteSchedule)
        clean = schedule.to_clean(prediction, latents, now)
        latents = dpmpp_2m_step(schedule, clean, latents, now, after, *(earlier or (None, None)))
        earlier = (clean, now)
    return latents


class Sampler:
    """Prompts and seeds to pictures: the sampler that generation and evaluation are handed.

    Args:
        family: with VAE and text encoders loaded.
        role: the denoiser.
        settings: steps, guidance, size.

    Raises:
        ConfigError: the family lacks a part, or the resolution is no multiple of a latent's side in pixels.
    """

    def __init__(self, family: DenoiserFamily, role: Role, settings: SamplerSettings) -> None:
        self.family, self.role, self.settings = family, role, settings
        self.resolution = settings.resolution or family.native_resolution()
        if self.resolution % family.vae_factor():
            raise ConfigError(f"resolution: must be a multiple of {family.vae_factor()}, got {self.resolution}")
        self._unconditional = family.unconditional(self.resolution)

    def initial_latents(self, seeds: Sequence[int]) -> Tensor:
        """Return (N, C, H, W) or (N, C, F, H, W) float32 standard normal latents, one generator a seed, on the CPU."""
        shape = self.family.latent_shape(self.resolution, self.settings.num_frames)
        return torch.stack([torch.randn((1, *shape), generator=torch.Generator().manual_seed(s))[0] for s in seeds])

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        """Draw a picture or a video for each prompt and seed.

        Returns:
            N arrays (H, W, 3) uint8, of videos (F, H, W, 3).
        """
        if len(prompts) != len(seeds):
            raise ConfigError(f"a seed is needed for each prompt: got {len(prompts)} prompts and {len(seeds)} seeds")
        pictures: list[np.ndarray] = []
        size = self.settings.batch_size
        for start in range(0, len(prompts), size):
            part = list(zip(prompts, seeds, strict=True))[start : start + size]
            padded = part + [part[-1]] * (size - len(part))
            conditioning = self.family.encode_prompt([p for p, _ in padded], self.resolution)
            device = next(iter(conditioning.tensors.values())).device
            latents = self.initial_latents([s for _, s in padded]).to(device)
            latents = sample_latents(self.family, self.role, latents, conditioning, self._unconditional, self.settings)
            images = (self.family.decode_media(latents) / 2 + 0.5).mul(255).round().to(torch.uint8)
            pictures.extend(images.movedim(-3, -1).cpu().numpy()[: len(part)])
        return pictures
