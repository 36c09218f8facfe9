"""Nash-MD: the policy's answers meet those of the geometric mixture of policy and initial model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import Probability
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, against_third, anchored
from diffpref.loops.stage import Drawer, Stage, Training, Verdict

__all__ = ["NashMD"]


@registry.register("nash_md", aliases=("nash-md",))
class NashMD(LoopMethod):
    """Options of the loop. Two answers of the policy, and a third of the mixture that both are compared with.

    The regression form of EGPO's code: log-ratios are to differ by (P(y, y'') - P(y', y'')) / beta. The form of a
    policy gradient, the objective ``nash_md``, holds only where answers are the policy's of this very update.
    """

    source: ClassVar[str] = (
        "Munos et al., Nash Learning from Human Feedback, ICML 2024, arXiv:2312.00886; regression form: Zhou et al.,"
        " arXiv:2503.08942, simulations/loss_funcs.py (nash_md)"
    )
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    mixture: Probability = Field(
        default=0.125, description="share of the initial model in the mixture: logits a * initial + (1 - a) * policy"
    )

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        opponent = Drawer(stage.policy, 1, stream="mixture", mixed_with=stage.initial, share=self.mixture)
        return [Drawer(stage.policy, 2), opponent]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Compare both answers with that of the mixture."""
        yield against_third(record, verdict)

    def training(self, stage: Stage) -> Training:
        return Training([{"online_ipo_1": {}}], anchored("initial", stage), {"data.drop_ties": False})
