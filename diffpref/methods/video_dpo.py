"""Video DPO, also called Flow-DPO (Liu et al., Improving Video Generation with Human Feedback, arXiv:2501.13918).

Diffusion-DPO on whole clips, or on the velocities of a flow: one label a pair, one noise and one timestep for both
sides, and the error of a side is the mean over channels, frames, height and width. What differs from ``diffusion_dpo``
is what was published with it: no caption dropout, and the objective ``flow_dpo``, whose beta may follow the noise level
of a flow (``beta_schedule: one_minus_t_sq``; the paper recommends the constant one). DenseDPO calls it vanilla DPO.

Published: beta 500 for videos, by the paper with LoRA of rank 64, learning rate 5e-6 and 64 pairs an update, by
DenseDPO's with rank 128, 1e-5 and 256; 100 for Stable Diffusion 3.5 (flow_grpo). All absorb the factor 1/2 and the mean
over elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from diffpref.core.annotations import Probability
from diffpref.methods import registry
from diffpref.methods.diffusion_dpo import DiffusionDPO

__all__ = ["VideoDPO"]


@registry.register("video_dpo", aliases=("flow_dpo", "flow-dpo"))
class VideoDPO(DiffusionDPO):
    """Options of the method; the defaults are the official code's."""

    source: ClassVar[str] = (
        "Liu et al., Improving Video Generation with Human Feedback, arXiv:2501.13918, eq. 4 to 6; yifan123/flow_grpo"
        " scripts/train_sd3_dpo.py"
    )

    empty_prompt_prob: Probability = Field(
        default=0.0, description="share of pairs whose caption is replaced by the empty one, on both sides"
    )

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("flow_dpo", {"beta": 500.0})]
