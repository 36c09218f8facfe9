"""EGPO: two gradient evaluations an iteration. The first looks ahead; the second starts over, against what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, against_third, anchored
from diffpref.loops.stage import Drawer, Feed, Iterate, Stage, Training, Verdict

__all__ = ["EGPO"]


@registry.register("egpo")
class EGPO(LoopMethod):
    """Options of the loop. Iteration i is rounds 2i and 2i + 1, which begin from the same policy.

    Round 2i, the extra step: two answers of the policy, and a third of the policy that they are compared with; its run
    leaves the policy of half the way. Round 2i + 1: the same two answers, compared with a new third of the policy of
    half the way; its run begins again where round 2i began, and its result is the next policy.
    """

    source: ClassVar[str] = "Zhou et al., Extragradient Preference Optimization (EGPO), COLM 2025, arXiv:2503.08942"
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    @staticmethod
    def _looks_ahead(stage: Stage) -> bool:
        return stage.round % 2 == 0

    def num_parts(self, rounds: int) -> int:
        if rounds % 2:
            raise ConfigError(f"rounds: egpo takes two rounds an iteration, an even number is expected, got {rounds}")
        return rounds // 2

    def feed(self, stage: Stage) -> Feed:
        if self._looks_ahead(stage):
            return Feed("prompts", stage.round // 2)
        return Feed("round", stage.round - 1, keep=2)

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        if self._looks_ahead(stage):
            return [Drawer(stage.policy, 2), Drawer(stage.policy, 1, stream="opponent")]
        return [Drawer(stage.results[-1], 1, stream="opponent")]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Compare both answers with the third."""
        yield against_third(record, verdict)

    def training(self, stage: Stage) -> Training:
        return Training([{"online_ipo_1": {}}], anchored("initial", stage), {"data.drop_ties": False})

    def advance(self, stage: Stage, result: Iterate, folder: Path) -> Iterate:
        """Undo the extra step."""
        return stage.policy if self._looks_ahead(stage) else result
