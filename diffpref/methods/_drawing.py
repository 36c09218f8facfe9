"""How a method draws the samples that it makes while it trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import NonNegative, PositiveInt
from diffpref.sampling import SamplerSettings

__all__ = ["Drawing"]


class Drawing(Section):
    """Options of the family's sampler, for methods that draw samples themselves."""

    num_inference_steps: PositiveInt = Field(default=50, description="denoising steps of each sample")
    guidance_scale: NonNegative = Field(default=7.5, description="classifier-free guidance; 1 = none, half the cost")
    solver: Literal["ddim", "dpmpp_2m"] = Field(
        default="ddim", description="ddim, of a flow Euler's steps, or dpmpp_2m, for chains of timesteps"
    )
    drawn_at_once: PositiveInt = Field(default=16, description="samples in one forward while they are drawn")

    @property
    def sampler(self) -> SamplerSettings:
        """The settings of the sampler."""
        return SamplerSettings(
            self.num_inference_steps, self.guidance_scale, self.solver, batch_size=self.drawn_at_once
        )
