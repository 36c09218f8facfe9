"""VideoDPO (Liu et al., Omni-Preference Alignment for Video Diffusion Generation, arXiv:2412.14167).

The best and the worst of several clips of a prompt, by a mean of several rewards, and pairs whose gap of scores is rare
count more: the data's ``weight`` is (0.72 / p), p the share of all pairs whose gap falls into the same bin of a
histogram, and the objective raises it to ``alpha``.

The released code draws timestep and noise for either clip on its own, because both go through its usual sampling; here
they are shared, as in Diffusion-DPO, unless ``share_timestep`` and ``share_noise`` say otherwise. Its loss also leaves
the width of the latent out of the mean; the objective ``video_dpo_omniscore_script`` does that.

Published: beta 5000, learning rate 6e-6, 8 pairs an update on VideoCrafter2. Beta absorbs what Diffusion-DPO's does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from diffpref.core.contracts import Batch, Context
from diffpref.methods import registry
from diffpref.methods.video_dpo import VideoDPO

__all__ = ["VideoDPOOmniScore"]


@registry.register("video_dpo_omniscore", aliases=("videodpo",))
class VideoDPOOmniScore(VideoDPO):
    """Options of the method; shared draws are ours, weights of rare pairs the paper's; its code has neither."""

    source: ClassVar[str] = (
        "Liu et al., VideoDPO: Omni-Preference Alignment for Video Diffusion Generation, CVPR 2025, arXiv:2412.14167;"
        " CIntellifusion/VideoDPO lvdm/models/ddpm3d.py"
    )

    share_noise: bool = Field(default=True, description="one noise for both clips; the released code draws two")
    share_timestep: bool = Field(default=True, description="one timestep for both clips; the released code draws two")
    weigh_rare: bool = Field(
        default=True,
        description="pairs must carry weights, which data.rarity_bins gives them; false: alpha is 0, as in the released"
        " configuration",
    )

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | (frozenset({"weight"}) if self.weigh_rare else frozenset())

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("video_dpo_omniscore", {"beta": 5000.0, "alpha": 1.0 if self.weigh_rare else 0.0})]

    def _timesteps(self, batch: Batch, context: Context, length: int) -> Tensor | Mapping[str, Tensor]:
        chosen = self._draw_timesteps("timestep", batch, context, length)
        if self.share_timestep:
            return chosen
        return {
            "chosen": chosen,
            "rejected": self._draw_timesteps("timestep of the rejected", batch, context, length),
        }
