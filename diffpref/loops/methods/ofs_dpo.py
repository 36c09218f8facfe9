"""OFS-DPO round after round: fresh pairs of the fast module's answers, two modules that chase each other on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, best_and_worst, judged
from diffpref.loops.stage import Drawer, Stage, Training, Verdict

__all__ = ["OFSDPO"]


@registry.register("ofs_dpo", aliases=("ofs-dpo",))
class OFSDPO(LoopMethod):
    """Options of the loop. All rounds are one run, so that both modules, their moments and the account of who leads go
    on; only the pairs are new. The runs' method, ``ofs_dpo``, swaps fast and slow.
    """

    source: ClassVar[str] = (
        "Qi et al., Online DPO: Online Direct Preference Optimization with Fast-Slow Chasing, arXiv:2406.05534"
    )
    evidence: ClassVar[str] = "secondary"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=2, ge=2, description="answers of the fast module to each prompt")
    updates: PositiveInt = Field(default=50, description="updates from the answers of one round")
    swap_every: PositiveInt = Field(default=10, description="updates between two looks at which module leads")

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates, stream=f"online {stage.round}")]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair the best with the worst."""
        best, worst = best_and_worst(verdict.scores)
        if best != worst:
            yield judged(record, [(best, worst, 1.0)])

    def training(self, stage: Stage) -> Training:
        steps = {"training.steps": (stage.round + 1) * self.updates}
        options = {"swap_every": self.swap_every}
        methods = {"tokens": {"ofs_dpo": options}, "denoising": {"diffusion_ofs_dpo": options}}
        return Training([{"ofs_dpo": {}}], values=steps, continues=True, methods=methods)
