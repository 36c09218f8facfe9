"""Iterative DPO: sample, judge, pair, train, and hold the next round to what came out of this one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import NonNegative, PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Anchor, Uniform, anchored, judged
from diffpref.loops.stage import Drawer, Stage, Training, Verdict
from diffpref.ranking import PAIRINGS

__all__ = ["IterativeDPO"]


@registry.register("iterative_dpo", aliases=("iterative-dpo",))
class IterativeDPO(LoopMethod):
    """Options of the loop. The anchor moves: each round's reference is the policy with which it begins."""

    source: ClassVar[str] = (
        "Xiong et al., Iterative Preference Learning from Human Feedback, arXiv:2312.11456; Yuan et al.,"
        " Self-Rewarding Language Models, arXiv:2401.10020"
    )
    evidence: ClassVar[str] = "secondary"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=4, ge=2, description="answers to each prompt")
    pairing: Literal["best_vs_worst", "all_pairs", "adjacent"] = Field(
        default="best_vs_worst", description="which of them are compared"
    )
    min_gap: NonNegative = Field(default=0.0, description="smallest difference of scores that makes a pair")
    anchor: Anchor = Field(default="previous", description="what each round is held to: previous policy, or initial")

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair by score; a record without a pair is left out."""
        pairs = PAIRINGS.get(self.pairing)(verdict.scores, min_gap=self.min_gap)
        if pairs:
            yield judged(record, [(winner, loser, 1.0) for winner, loser in pairs])

    def training(self, stage: Stage) -> Training:
        return Training([{"dpo": {}}], anchored(self.anchor, stage))
