"""IPO-MD: both answers come from the geometric mixture of policy and initial model, and IPO regresses on the judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import Probability
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, anchored, judged
from diffpref.loops.stage import Drawer, Stage, Training, Verdict

__all__ = ["IPOMD"]


@registry.register("ipo_md", aliases=("ipo-md", "online_ipo"))
class IPOMD(LoopMethod):
    """Options of the loop. A mixture of 0 is online IPO, one of 1 is offline IPO on the initial model's answers."""

    source: ClassVar[str] = (
        "Calandriello et al., Human Alignment of Large Language Models through Online Preference Optimisation,"
        " ICML 2024, arXiv:2403.08635"
    )
    evidence: ClassVar[str] = "memory"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    mixture: Probability = Field(
        default=0.125, description="share of the initial model in the mixture: logits a * initial + (1 - a) * policy"
    )
    labels: Literal["soft", "hard"] = Field(
        default="soft", description="soft: the judge's probability; hard: the more likely winner for certain"
    )

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, 2, stream="mixture", mixed_with=stage.initial, share=self.mixture)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Let the judge say how likely the first is the better one."""
        probability = verdict.beats(0, 1)
        if self.labels == "hard":
            probability = 0.5 if probability == 0.5 else float(probability > 0.5)
        yield judged(record, [(0, 1, probability)])

    def training(self, stage: Stage) -> Training:
        return Training([{"ipo_md": {}}], anchored("initial", stage), {"data.drop_ties": False})
