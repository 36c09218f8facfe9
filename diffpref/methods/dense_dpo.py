"""DenseDPO (Wu et al., Fine-Grained Temporal Preference Optimization for Video Diffusion Models, arXiv:2506.03517).

Two clips with the motion of a third are compared a segment at a time, and ties are left out. Noise and timestep are
those of ``video_dpo``: one of each for both clips. The likelihood gives one number a latent frame, the data one label a
latent frame (1 where the first clip is better, -1 where the second is, 0 for a tie), brought there from judgements of
parts in seconds; the objective ``dense_dpo`` has both published forms of the loss, and leaves out pairs with too many
ties (``min_non_tie``).

Published: beta 500, LoRA of rank 128, learning rate 1e-5 after 250 updates of warm-up, 256 pairs an update, 1000
updates. Beta absorbs the factor 1/2 of the appendix's code, which equation 7 does not print, and the mean over the
elements of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffpref.methods import registry
from diffpref.methods.video_dpo import VideoDPO

__all__ = ["DenseDPO"]


@registry.register("dense_dpo", aliases=("densedpo",))
class DenseDPO(VideoDPO):
    """Options of the method; the defaults are the paper's."""

    source: ClassVar[str] = (
        "Wu et al., DenseDPO: Fine-Grained Temporal Preference Optimization for Video Diffusion Models, NeurIPS 2025,"
        " arXiv:2506.03517, eq. 7 and appendix E"
    )
    evidence: ClassVar[str] = "paper"

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("dense_dpo", {"beta": 500.0})]
