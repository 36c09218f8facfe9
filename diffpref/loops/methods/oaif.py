"""OAIF: a judge in the loop. Every update is made of answers that the policy of that moment has drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, judged
from diffpref.loops.stage import Drawer, Stage, Training, Verdict

__all__ = ["OAIF"]


@registry.register("oaif", aliases=("online_dpo",))
class OAIF(LoopMethod):
    """Options of the loop. A round is ``updates`` updates, and all rounds are one run: moments, schedule and the fixed
    reference go on, only the answers are new. With one update a round no answer is older than the policy it trains.
    """

    source: ClassVar[str] = "Guo et al., Direct Language Model Alignment from Online AI Feedback, arXiv:2402.04792"
    evidence: ClassVar[str] = "memory"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    updates: PositiveInt = Field(default=1, description="updates from the answers of one round")
    loss: Literal["dpo", "ipo", "slic"] = Field(default="dpo", description="of the judged pairs")

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, 2, stream=f"online {stage.round}")]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Take the one that the judge, asked in both orders, prefers."""
        probability = verdict.beats(0, 1)
        if probability != 0.5:
            yield judged(record, [(0, 1, float(probability > 0.5))])

    def training(self, stage: Stage) -> Training:
        name = "rso" if self.loss == "slic" else self.loss  # the hinge on log-ratios
        steps = {"training.steps": (stage.round + 1) * self.updates}
        return Training([{name: {}}], values=steps, continues=True)
