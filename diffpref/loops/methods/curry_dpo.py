"""Curry-DPO: one ranked set of answers, learnt stage by stage from easy pairs to hard ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError
from diffpref.data import score_of
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Anchor, Asks, Uniform, anchored, judged, with_scores
from diffpref.loops.stage import Drawer, Feed, Stage, Training, Verdict
from diffpref.ranking import curriculum

__all__ = ["CurryDPO"]

DIFFICULTY = "difficulty"
"""The score by which the first stage has ranked the answers."""


@registry.register("curry_dpo", aliases=("curry-dpo",))
class CurryDPO(LoopMethod):
    """Options of the loop. Answers are drawn and judged once; stage s trains on the best against the s-th worst.

    The optimiser starts anew with each stage, and the reference is the policy after the previous one.
    """

    source: ClassVar[str] = (
        "Pattnaik et al., Curry-DPO: Enhancing Alignment using Curriculum Learning and Ranked Preferences,"
        " arXiv:2403.07230"
    )
    evidence: ClassVar[str] = "secondary"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=4, ge=2, description="answers to each prompt; there is one stage less")
    anchor: Anchor = Field(default="previous", description="initial: one reference for all stages")
    order: Literal["easy_to_hard", "hard_to_easy"] = Field(default="easy_to_hard", description="of the stages")

    def num_parts(self, rounds: int) -> int:
        if rounds > self.candidates - 1:
            raise ConfigError(
                f"rounds: {self.candidates} candidates give {self.candidates - 1} stages, got {rounds} rounds"
            )
        return 1

    def feed(self, stage: Stage) -> Feed:
        return Feed("prompts", 0) if stage.round == 0 else Feed("round", 0)

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)] if stage.round == 0 else []

    def asks(self, stage: Stage) -> Asks:
        return "judge" if stage.round == 0 else "nothing"

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Take the pair of this stage; a record without one stays, for the stages that follow."""
        if stage.round == 0:
            record = with_scores(record, DIFFICULTY, verdict.scores)
        pairs = curriculum([score_of(candidate, DIFFICULTY) for candidate in record.candidates])
        place = stage.round if self.order == "easy_to_hard" else len(pairs) - 1 - stage.round
        pair = pairs[place]
        yield judged(record, [(*pair, 1.0)] if pair else [])

    def training(self, stage: Stage) -> Training:
        return Training([{"dpo": {}}], anchored(self.anchor, stage))
