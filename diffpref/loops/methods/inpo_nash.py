"""INPO (Iterative Nash): no-regret learning against oneself, held to two anchors at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, anchored, best_and_worst, judged
from diffpref.loops.stage import Drawer, Stage, Training, Verdict

__all__ = ["IterativeNash"]


@registry.register("inpo_nash")
class IterativeNash(LoopMethod):
    """Options of the loop. The reference stays the initial model; ``previous`` is the policy that drew the answers."""

    source: ClassVar[str] = "Zhang et al., Iterative Nash Policy Optimization, ICLR 2025, arXiv:2407.00617"
    evidence: ClassVar[str] = "secondary"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=8, ge=2, description="answers to each prompt; best against worst")
    labels: Literal["soft", "hard"] = Field(
        default="hard", description="soft: the judge's probability in place of certainty"
    )

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair the best with the worst."""
        best, worst = best_and_worst(verdict.scores)
        if best != worst:
            yield judged(record, [(best, worst, 1.0 if self.labels == "hard" else verdict.beats(best, worst))])

    def training(self, stage: Stage) -> Training:
        roles = {**anchored("initial", stage), "previous": {"source": "copy"}}
        return Training([{"inpo_nash": {}}], roles)
