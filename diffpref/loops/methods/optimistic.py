"""SELM, XPO and VPO: optimism. A third answer is made less likely, so that the policy explores away from it.

They differ in whose answer it is: SELM's is the policy's own, XPO's that of the initial model, with which the policy's
is also compared; VPO takes either, and offline, with the sign turned, the chosen answers of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Asks, Uniform, anchored, best_and_worst, judged, tagged
from diffpref.loops.stage import Drawer, Feed, Stage, Training, Verdict

__all__ = ["SELM", "VPO", "XPO"]


@registry.register("selm")
class SELM(LoopMethod):
    """Options of the loop. Each round's reference is the policy that drew; its first answer is the calibration sample.

    With data, the policy's answer is ranked with those of the data (the paper's form); with prompts, among its own.
    """

    source: ClassVar[str] = "Zhang et al., Self-Exploring Language Models, TMLR, arXiv:2405.19332"
    evidence: ClassVar[str] = "official"

    candidates: PositiveInt = Field(default=2, description="answers of the policy; 1 is enough with data")

    def feed(self, stage: Stage) -> Feed:
        return Feed("either", stage.round)

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair the best with the worst, and tag the policy's first answer."""
        best, worst = best_and_worst(verdict.scores)
        if best != worst:
            own = len(record.candidates) - self.candidates
            yield tagged(judged(record, [(best, worst, 1.0)]), calibration=own)

    def training(self, stage: Stage) -> Training:
        return Training([{"selm": {}}])


@registry.register("xpo")
class XPO(LoopMethod):
    """Options of the loop. A pair is an answer of the policy and one of the initial model, which has the bonus."""

    source: ClassVar[str] = "Xie et al., Exploratory Preference Optimization, arXiv:2405.21046"
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, 1), Drawer(stage.initial, 1, stream=f"initial {stage.round}")]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair the two; the second is the calibration sample, whether it won or lost."""
        best, worst = best_and_worst(verdict.scores)
        if best != worst:
            yield tagged(judged(record, [(best, worst, 1.0)]), calibration=1)

    def training(self, stage: Stage) -> Training:
        return Training([{"xpo": {}}], anchored("initial", stage))


@registry.register("vpo")
class VPO(LoopMethod):
    """Options of the loop. Online the calibration samples are the initial model's, pushed down (optimism); offline they
    are the chosen answers of the data, pulled up (pessimism), and nothing is drawn.
    """

    source: ClassVar[str] = "Cen et al., Value-Incentivized Preference Optimization, ICLR 2025, arXiv:2405.19320"
    evidence: ClassVar[str] = "memory"

    mode: Literal["online", "offline"] = Field(default="online", description="prompts and a judge, or labelled data")
    candidates: PositiveInt = Field(default=2, ge=2, description="online: answers of the policy")

    def feed(self, stage: Stage) -> Feed:
        return Feed("prompts" if self.mode == "online" else "data", stage.round)

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        if self.mode == "offline":
            return []
        return [Drawer(stage.policy, self.candidates), Drawer(stage.initial, 1, stream=f"initial {stage.round}")]

    def asks(self, stage: Stage) -> Asks:
        return "judge" if self.mode == "online" else "nothing"

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair the policy's best and worst, and tag the initial model's answer; offline, tag each pair's winner."""
        if self.mode == "online":
            best, worst = best_and_worst(verdict.scores[: self.candidates])
            if best != worst:
                yield tagged(judged(record, [(best, worst, 1.0)]), calibration=self.candidates)
        elif record.judgements:
            head = record.judgements[0]
            yield tagged(record, calibration=head.first if head.probability >= 0.5 else head.second)

    def training(self, stage: Stage) -> Training:
        attitude = "optimistic" if self.mode == "online" else "pessimistic"
        return Training([{"vpo": {"attitude": attitude}}], anchored("initial", stage))
