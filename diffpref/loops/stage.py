"""What a loop's method is told and what it answers: states of the policy, who draws, what is said of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["Drawer", "Feed", "Iterate", "Stage", "Training", "Verdict"]


@dataclass(frozen=True)
class Iterate:
    """A state of the policy: the recipe's model, and what was trained of it.

    Args:
        lora: folder of a LoRA on the model; None: none.
        model: folder of a whole network in the model's place; None: the model itself.
    """

    lora: str | None = None
    model: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return JSON-ready values; of the initial model none."""
        return {name: value for name, value in (("lora", self.lora), ("model", self.model)) if value is not None}


@dataclass(frozen=True)
class Stage:
    """Where a loop stands when a round begins.

    Args:
        round: its number, from 0.
        rounds: how many there are.
        starts: what each round so far began from, this one's last: the policy. The first is the initial model.
        results: what the run of each earlier round left; a method may make the next start of it.
        stores: the data of each earlier round.
    """

    round: int
    rounds: int
    starts: tuple[Iterate, ...] = (Iterate(),)
    results: tuple[Iterate, ...] = ()
    stores: tuple[Path, ...] = ()

    @property
    def policy(self) -> Iterate:
        """From what this round's run begins."""
        return self.starts[-1]

    @property
    def initial(self) -> Iterate:
        """The model before the loop."""
        return self.starts[0]


@dataclass(frozen=True)
class Feed:
    """What a round's records are before anything is drawn.

    Args:
        source: ``"prompts"``: prompts without candidates; ``"data"``: records of the recipe's data; ``"either"``:
            whichever of the two the recipe gives; ``"round"``: the records of an earlier round.
        part: of the prompts or data, where each round has another part; the round for ``"round"``.
        keep: candidates that stay, the first ones; None: all.
    """

    source: Literal["prompts", "data", "either", "round"]
    part: int
    keep: int | None = None


@dataclass(frozen=True)
class Drawer:
    """Who draws candidates.

    Args:
        iterate: the weights.
        count: candidates of each prompt.
        stream: keys the draws: two drawers of one stream and part draw alike where their weights are equal.
        mixed_with: another state; answers then come from the geometric mixture of the two.
        share: of ``mixed_with`` in the mixture, 0..1.
    """

    iterate: Iterate
    count: int
    stream: str = "policy"
    mixed_with: Iterate | None = None
    share: float = 0.0


class Verdict(Protocol):
    """What the judge says of the candidates of one record."""

    @property
    def scores(self) -> list[float]:
        """A score for each candidate, higher is better; the mean win rate where the judge compares only."""
        ...

    def beats(self, first: int, second: int) -> float:
        """Return P(first is better than second); a judge that compares was asked in both orders."""
        ...


@dataclass(frozen=True)
class Training:
    """What a method lays down for the run of a round.

    Args:
        objective: as in a recipe; the recipe's own takes its place.
        roles: changes of the roles, which the recipe cannot change.
        values: further values of the recipe by dotted path, under the recipe's own.
        continues: the run goes on where that of the round before ended, with its moments and schedule; else it begins
            anew from the policy.
        methods: likelihood -> what prepares the rows, where it must be another than the plain one.
    """

    objective: list[Any]
    roles: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    methods: Mapping[str, Any] = field(default_factory=dict)
