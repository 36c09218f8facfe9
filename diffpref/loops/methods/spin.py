"""SPIN: the policy plays against its previous self, whose answers lose to those of the data. Nobody judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.contracts import Record
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Asks, Uniform, gold, judged
from diffpref.loops.stage import Drawer, Feed, Stage, Training, Verdict

__all__ = ["SPIN"]


@registry.register("spin")
class SPIN(LoopMethod):
    """Options of the loop. The opponent is the previous iterate: it draws the rejected answers and is the reference.

    The loss is DPO's formula (official code, ``spin_loss``); at the policy that equals the data nothing is left to tell
    apart, and the loop ends where it is.
    """

    source: ClassVar[str] = (
        "Chen et al., Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models, ICML 2024,"
        " arXiv:2401.01335"
    )
    evidence: ClassVar[str] = "official"
    takes: ClassVar[Literal["data"]] = "data"

    loss: Literal["logistic", "hinge"] = Field(default="logistic", description="of the margin between the two answers")
    fresh_data: bool = Field(default=False, description="another part of the data each round; else all of it")

    def feed(self, stage: Stage) -> Feed:
        return Feed("data", stage.round if self.fresh_data else 0)

    def num_parts(self, rounds: int) -> int:
        return rounds if self.fresh_data else 1

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.policy, 1, stream=f"opponent {stage.round}")]

    def asks(self, stage: Stage) -> Asks:
        return "nothing"

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Let the data's answer win."""
        yield judged(record, [(gold(record), len(record.candidates) - 1, 1.0)], annotator="data")

    def training(self, stage: Stage) -> Training:
        return Training([{"dpo": {}}] if self.loss == "logistic" else [{"rso": {}}])
