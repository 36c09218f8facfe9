r"""How far a contender has moved from the base, before any judge is asked.

Both models predict the noise in the same noised pictures of the base, at the same timesteps; the drift is

.. math:: \operatorname{mean} \|\hat\epsilon_\text{contender} - \hat\epsilon_\text{base}\|^2

With Gaussian steps the KL divergence of one model's path from the other's is a sum of such differences, weighted by
timestep, so the drift stands in for it. Also told is by how much the contender denoises these pictures worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffpref.core.contracts import Role, Rows
from diffpref.core.errors import ModelError
from diffpref.core.files import write_atomic
from diffpref.core.media import Clip, Media
from diffpref.core.randomness import Random
from diffpref.data import image_tensor
from diffpref.models import DenoiserFamily

__all__ = ["DriftProbe", "drift_of"]

PLACES = (0.125, 0.375, 0.625, 0.875)
"""Where on the way from clean to noise is asked."""


@dataclass(frozen=True)
class DriftProbe:
    """What both models are asked.

    Args:
        prompts: K texts.
        seeds: K, which key the noise.
        resolution: of the pictures, pixels.
        seed: of the evaluation.
        file: where the base's side is kept.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    resolution: int
    seed: int
    file: Path

    def base(self) -> dict[str, Tensor] | None:
        """Return the base's side, ``clean`` and ``noise_prediction``; None where it is not kept yet."""
        try:
            return load_file(self.file) if self.file.is_file() else None
        except (OSError, SafetensorError):
            return None

    def ask_base(self, family: DenoiserFamily, role: Role, pictures: Sequence[Media]) -> dict[str, Tensor]:
        """Encode the base's pictures, ask it, and keep both.

        Args:
            family: the base, complete.
            role: its denoiser.
            pictures: K, (H, W, 3) uint8, or clips.
        """
        pixels = torch.stack([self._pixels(picture) for picture in pictures])
        # contiguous, as the file gives it back: another layout would be another last bit
        clean = family.encode_media(pixels).mean.float().cpu().contiguous()
        found = {"clean": clean, "noise_prediction": self.predictions(family, role, clean)}
        write_atomic(self.file, save({name: tensor.contiguous() for name, tensor in found.items()}))
        return found

    def _pixels(self, item: Media) -> Tensor:
        """Return (3, R, R) of a picture, (F, 3, R, R) of a clip, in [-1, 1]."""
        if isinstance(item, Clip):
            return torch.stack([self._pixels(frame) for frame in item.frames])
        return image_tensor(item, self.resolution).pixels

    @torch.no_grad()
    def predictions(self, family: DenoiserFamily, role: Role, clean: Tensor) -> Tensor:
        """Return (K, T, C, H, W) float32: the noise that a model sees in K noised latents at T timesteps.

        Of videos (K, T, C, F, H, W).
        """
        device = next(family.network.parameters()).device
        schedule = family.schedule_at(self.resolution)  # of some flows it depends on the size
        timesteps = schedule.draw(family.density(torch.tensor(PLACES))).to(device)
        conditioning = family.encode_prompt(list(self.prompts), self.resolution)
        found = []
        for row, noise in enumerate(self.noise(clean).to(device)):
            noisy = schedule.add_noise(clean[row : row + 1].to(device).expand_as(noise), noise, timesteps)
            inputs = {"noisy": noisy, "timesteps": timesteps}
            rows = Rows("denoising", inputs, conditioning.take([row] * len(PLACES)), groups={})
            answer = role(rows)["prediction"].float()
            found.append(schedule.to_noise(answer, noisy, timesteps).cpu())
        return torch.stack(found)

    def noise(self, clean: Tensor) -> Tensor:
        """Return standard normal noise in the shape of `predictions`, a function of seed, picture and timestep."""
        random, shape = Random(self.seed), tuple(clean.shape[1:])
        return torch.stack(
            [random.normal("drift", [(seed, place) for place in range(len(PLACES))], shape) for seed in self.seeds]
        )


def drift_of(probe: DriftProbe, base: dict[str, Tensor], family: DenoiserFamily, role: Role) -> dict[str, float]:
    """Return how far a contender is from the base.

    Args:
        probe: what is asked.
        base: the base's side.
        family: the contender.
        role: its denoiser.

    Raises:
        ModelError: a prediction is not finite.
    """
    own, other = probe.predictions(family, role, base["clean"]), base["noise_prediction"]
    noise = probe.noise(base["clean"])
    found = {
        "prediction drift": (own - other).square().mean(dtype=torch.float64).item(),
        "denoising error": (own - noise).square().mean(dtype=torch.float64).item(),
    }
    if not all(np.isfinite(value) for value in found.values()):
        raise ModelError("a noise prediction is not finite: weights are damaged, or need model.precision fp32")
    return found
