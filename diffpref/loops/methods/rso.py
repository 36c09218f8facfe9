"""RSO: rejection sampling turns the initial model's answers into ones of the optimal policy, which are then paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from diffpref.core.annotations import NonNegative, PositiveInt
from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.loops.methods import LoopMethod, registry
from diffpref.loops.methods._base import Uniform, anchored, content, judged
from diffpref.loops.stage import Drawer, Stage, Training, Verdict
from diffpref.ranking import first_round, reject_sample, tournament

__all__ = ["RSO"]


@registry.register("rso")
class RSO(LoopMethod):
    """Options of the loop. The answers are the initial model's in every round: rejection is what makes them better."""

    source: ClassVar[str] = (
        "Liu et al., Statistical Rejection Sampling Improves Preference Optimization, ICLR 2024, arXiv:2309.06657"
    )
    evidence: ClassVar[str] = "paper"
    takes: ClassVar[Literal["prompts"]] = "prompts"

    candidates: PositiveInt = Field(default=64, ge=2, description="answers of the initial model to each prompt")
    accepted: PositiveInt = Field(default=8, ge=2, description="answers that are left after rejection")
    temperature: NonNegative = Field(
        default=0.5, description="beta of the sampler, in units of the judge's score; 0 takes the best"
    )
    ranking: Literal["first_round", "tournament"] = Field(
        default="first_round", description="k/2 random pairs, or the k - 1 games of a knock-out"
    )
    loss: Literal["sigmoid", "hinge"] = Field(default="hinge", description="of the normalised margin")

    def drawers(self, stage: Stage) -> Sequence[Drawer]:
        return [Drawer(stage.initial, self.candidates, stream=f"initial {stage.round}")]

    def label(self, record: Record, verdict: Verdict, uniform: Uniform, stage: Stage) -> Iterable[Record]:
        """Reject, shuffle, pair, and let the judge say who wins."""
        contents = [content(candidate) for candidate in record.candidates]
        if len(set(contents)) < self.accepted:
            return  # the model has too few different answers to this prompt
        try:
            accepted = reject_sample(
                verdict.scores, self.accepted, self.temperature, iter(uniform, None), contents=contents
            )
        except DataError as error:
            raise DataError(f"record {record.id!r}: {error}") from error
        order = sorted(accepted, key=lambda position: (uniform(), position))
        if self.ranking == "first_round":
            games = [(a, b) if verdict.beats(a, b) >= 0.5 else (b, a) for a, b in first_round(order)]
        else:
            games = tournament(order, lambda one, other: verdict.beats(one, other) >= 0.5)
        decided = [(winner, loser, 1.0) for winner, loser in games if verdict.beats(winner, loser) > 0.5]
        if decided:
            yield judged(record, decided)

    def training(self, stage: Stage) -> Training:
        # sigmoid-norm is dpo with gamma, 0.05 in the paper, in the place of beta
        return Training([{"rso" if self.loss == "hinge" else "dpo": {}}], anchored("initial", stage))
