"""DNO: regress on the difference of win rates against the current policy; answers of a teacher may take part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt, Probability
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, judged, matrix_of, with_scores
from diffpref.loops.stage import Drawer, Feed, Stage, Training, Verdict
from diffpref.ranking import all_pairs

__all__ = ["DNO"]


@registry.register("dno")
class DNO(LoopMethod):
    """Options of the loop. Pairs are those whose win rates against the policy's answers differ enough.

    The target is the sigmoid of the difference of win rates (``hard``: 1, which is DNO-Prct), and the reference is
    always the previous iterate. With data instead of prompts the answers of each record are a teacher's and take part.
    """

    source: ClassVar[str] = "Rosset et al., Direct Nash Optimization, arXiv:2404.03715"
    evidence: ClassVar[str] = "secondary"

    candidates: PositiveInt = Field(default=5, ge=2, description="answers of the policy to each prompt")
    min_gap: Probability = Field(default=0.1, description="smallest difference of win rates that makes a pair")
    labels: Literal["soft", "hard"] = Field(default="soft", description="hard is DNO-Prct: DPO on large margins")

    def feed(self, stage: Stage) -> Feed:
        return Feed("either", stage.round)

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Compare every answer with those of the policy, then pair what differs."""
        own = range(len(record.candidates) - self.candidates, len(record.candidates))
        matrix = matrix_of(verdict, len(record.candidates))
        rates = [
            math.fsum(matrix[i][j] for j in own if j != i) / (len(own) - (i in own))
            for i in range(len(record.candidates))
        ]
        pairs = all_pairs(rates, min_gap=self.min_gap)
        if pairs:
            yield with_scores(judged(record, [(winner, loser, 1.0) for winner, loser in pairs]), "win_rate", rates)

    def training(self, stage: Stage) -> Training:
        return Training([{"dpo": {}} if self.labels == "hard" else {"dno": {}}])
