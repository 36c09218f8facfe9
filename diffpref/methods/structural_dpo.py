"""StructuralDPO (Wu et al., arXiv:2506.03517): guided pairs with one label for the whole clip.

The loss is that of ``video_dpo``. What differs is the data: both clips of a pair begin with one real clip that was
noised part of the way, so that they move alike and differ in detail (``diffpref generate`` with ``ground_truth``). A
pair that was judged by parts alone gets the majority of their labels.

Published with DenseDPO's settings: beta 500, and a share of 0.65 to 0.8 of each clip replaced by noise.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from diffpref.methods import registry
from diffpref.methods.video_dpo import VideoDPO

__all__ = ["StructuralDPO"]


@registry.register("structural_dpo", aliases=("structuraldpo",))
class StructuralDPO(VideoDPO):
    """Options of the method; the defaults are the paper's."""

    source: ClassVar[str] = (
        "Wu et al., DenseDPO: Fine-Grained Temporal Preference Optimization for Video Diffusion Models, NeurIPS 2025,"
        " arXiv:2506.03517, algorithms 1 and 2"
    )
    evidence: ClassVar[str] = "paper"

    pair_source: Literal["guided", "any"] = Field(
        default="guided",
        description="guided: refuse records that 'diffpref generate' did not draw from a ground truth; any: pairs that"
        " were made so elsewhere",
    )
