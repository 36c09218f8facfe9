"""Accelerated preference optimisation: after each round the policy goes on in the direction of its last move."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from diffpref.core.annotations import NonNegative, PositiveInt
from diffpref.loops.extrapolating import extrapolate_folder
from diffpref.loops.methods import registry
from diffpref.loops.methods.iterative_dpo import IterativeDPO
from diffpref.loops.stage import Iterate, Stage

__all__ = ["AcceleratedPreferenceOptimization"]


@registry.register("apo_accelerated", aliases=("apo_momentum",))
class AcceleratedPreferenceOptimization(IterativeDPO):
    """Options of the loop: iterative DPO whose next policy is w + momentum * (w - w_before), where w is what the run of
    a round left and w_before what that of the round before did. The next round is held to the extrapolated policy.
    """

    source: ClassVar[str] = (
        "He et al., Accelerated Preference Optimization for Large Language Model Alignment, arXiv:2410.06293"
    )
    evidence: ClassVar[str] = "memory"

    momentum: NonNegative = Field(default=0.3, description="alpha of the paper")
    first_momentum: bool = Field(
        default=False, description="also after the first round, away from the initial model, as the paper's line t = 0"
    )
    max_rank: PositiveInt | None = Field(
        default=None,
        description="of an extrapolated LoRA, whose rank is else the sum of both: cut to the nearest of this rank",
    )

    def advance(self, stage: Stage, result: Iterate, folder: Path) -> Iterate:
        """Extrapolate."""
        before = stage.results[-1] if stage.round else stage.initial
        if not self.momentum or not (stage.round or self.first_momentum):
            return result
        return extrapolate_folder(result, before, self.momentum, folder, self.max_rank)
