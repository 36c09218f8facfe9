"""HyPO: pairs from data, and the divergence from the reference measured on the policy's own answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Asks, Uniform, tagged
from diffpref.loops.stage import Drawer, Feed, Stage, Training, Verdict

__all__ = ["HyPO"]


@registry.register("hypo")
class HyPO(LoopMethod):
    """Options of the loop. The pairs stay the data's, round after round; the online answers are drawn anew each round,
    and all rounds are one run against the initial model.
    """

    source: ClassVar[str] = (
        "Song et al., The Importance of Online Data: Understanding Preference Fine-Tuning via Coverage, NeurIPS 2024,"
        " arXiv:2406.01462"
    )
    evidence: ClassVar[str] = "secondary"
    takes: ClassVar[Literal["data"]] = "data"

    updates: PositiveInt = Field(default=8, description="updates from the answers of one round")

    def feed(self, stage: Stage) -> Feed:
        return Feed("data", 0)

    def num_parts(self, rounds: int) -> int:
        return 1

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, 1, stream=f"online {stage.round}")]

    def asks(self, stage: Stage) -> Asks:
        return "nothing"

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Keep the data's judgements, and tag the policy's answer."""
        if record.judgements:
            yield tagged(record, online=len(record.candidates) - 1)

    def training(self, stage: Stage) -> Training:
        steps = {"training.steps": (stage.round + 1) * self.updates}
        return Training([{"hypo": {}}], values=steps, continues=True)
