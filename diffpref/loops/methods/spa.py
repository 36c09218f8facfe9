"""SPA: a few labelled pairs to begin with, then pairs that the policy labels itself by its implicit reward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Asks, Uniform, best_and_worst, judged
from diffpref.loops.stage import Drawer, Feed, Stage, Training, Verdict

__all__ = ["SPA"]


@registry.register("spa")
class SPA(LoopMethod):
    """Options of the loop. Round 0 is DPO on the recipe's data. In every further round the policy answers new prompts,
    and its own log-ratio to the initial model says which answer is the better one; the loss doubts such labels.
    """

    source: ClassVar[str] = (
        "Kim et al., Spread Preference Annotation: Direct Preference Judgment for Efficient LLM Alignment, ICLR 2025,"
        " arXiv:2406.04412"
    )
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["both"]] = "both"

    candidates: PositiveInt = Field(default=2, ge=2, description="answers to each prompt")
    rejected: Literal["worst", "random"] = Field(default="worst", description="which answer the best is paired with")

    def feed(self, stage: Stage) -> Feed:
        return Feed("data", 0) if stage.round == 0 else Feed("prompts", stage.round - 1)

    def num_parts(self, rounds: int) -> int:
        return max(1, rounds - 1)

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)] if stage.round else []

    def asks(self, stage: Stage) -> Asks:
        return "implicit" if stage.round else "nothing"

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Keep the data's labels in round 0; then take the policy's word."""
        if stage.round == 0:
            if record.judgements:
                yield record
            return
        scores = verdict.scores
        best, worst = best_and_worst(scores)
        if best == worst:
            return
        if self.rejected == "random":
            below = [number for number, score in enumerate(scores) if score < scores[best]]
            worst = below[int(uniform() * len(below))]
        yield judged(record, [(best, worst, 1.0)], annotator="policy")

    def training(self, stage: Stage) -> Training:
        return Training([{"dpo": {}} if stage.round == 0 else {"spa": {}}])
