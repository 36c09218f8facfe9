"""SPPO: each answer is pulled to the log-ratio that its win rate against the policy's own answers asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, judged, matrix_of, with_scores
from diffpref.loops.stage import Drawer, Stage, Training, Verdict
from diffpref.ranking import win_rates

__all__ = ["SPPO"]


@registry.register("sppo")
class SPPO(LoopMethod):
    """Options of the loop. K answers of the policy meet one another, and the target of an answer is its win rate.

    Where the judge scores, P(i beats j) is the sigmoid of the scaled difference of their scores, as PairRM's are.
    """

    source: ClassVar[str] = (
        "Wu et al., Self-Play Preference Optimization for Language Model Alignment, ICLR 2025, arXiv:2405.00675"
    )
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=5, ge=2, description="answers to each prompt")
    include_self: bool = Field(
        default=True, description="count each answer's 1/2 against itself, as the released code does"
    )

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Give every answer its win rate; the largest is chosen and the smallest rejected."""
        rates = win_rates(matrix_of(verdict, len(record.candidates)), include_self=self.include_self)
        best, worst = rates.index(max(rates)), rates.index(min(rates))
        if best != worst:  # where all are equal there is nothing to learn
            yield with_scores(judged(record, [(best, worst, 1.0)]), "win_rate", rates)

    def training(self, stage: Stage) -> Training:
        return Training([{"sppo": {}}])
