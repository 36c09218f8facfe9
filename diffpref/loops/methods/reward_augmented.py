"""Reward-augmented data: each pair is shown twice, with the score of either answer as the goal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from diffpref.core.annotations import Number, PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Anchor, Uniform, anchored, judged
from diffpref.loops.relabelling import GOAL, augmented, goal_of, with_goal
from diffpref.loops.stage import Drawer, Stage, Training, Verdict
from diffpref.ranking import best_vs_worst

__all__ = ["RewardAugmented"]


@registry.register("reward_augmented")
class RewardAugmented(LoopMethod):
    """Options of the loop: 2N records from N pairs; the second half swaps the roles of the answers.

    From the second round on the policy is asked for the highest goal.
    """

    source: ClassVar[str] = (
        "Zhang et al., Reward-Augmented Data Enhances Direct Preference Alignment of LLMs, arXiv:2410.08067"
    )
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=4, ge=2, description="answers to each prompt")
    rejected: Literal["random", "worst"] = Field(default="random", description="which answer the best is paired with")
    lowest: Number = Field(default=0.0, description="score of the judge that is goal 1")
    highest: Number = Field(default=1.0, description="score of the judge that is goal 10")
    template: str = Field(default=GOAL, description="what is put before the prompt; {goal} is the goal")
    anchor: Anchor = Field(default="previous", description="what each round is held to: previous policy, or initial")

    @field_validator("template")
    @classmethod
    def _holds_goal(cls, value: str) -> str:
        if "{goal}" not in value:
            raise ValueError("must hold {goal}")
        return value

    def shown(self, prompt: str, stage: Stage) -> str:
        return with_goal(prompt, 10.0, self.template) if stage.round else prompt

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, self.candidates)]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Pair the best with another one, and relabel the pair."""
        scores = verdict.scores
        pair = best_vs_worst(scores)
        if not pair:
            return
        best, other = pair[0]
        if self.rejected == "random":
            below = [number for number, score in enumerate(scores) if score < scores[best]]
            other = below[int(uniform() * len(below))]
        goals = [goal_of(scores[number], self.lowest, self.highest) for number in (best, other)]
        yield from augmented(judged(record, [(best, other, 1.0)]), (goals[0], goals[1]), self.template)

    def training(self, stage: Stage) -> Training:
        return Training([{"dpo": {}}], anchored(self.anchor, stage))
