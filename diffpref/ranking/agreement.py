"""How often scorers order the candidates of a prompt alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from diffpref.core.errors import ShapeError

__all__ = ["Agreement", "PairOfScorers", "agreement"]


@dataclass(frozen=True)
class PairOfScorers:
    """What two scorers say of the same pairs of candidates; only candidates of one prompt are compared.

    Args:
        first: name of a scorer.
        second: name of the other.
        concordant: pairs of which both prefer the same candidate.
        discordant: pairs of which they prefer different ones.
        first_ties: pairs that are equally good to the first alone.
        second_ties: pairs that are equally good to the second alone.
        both_ties: pairs that are equally good to both.
        unscored: pairs left out, because a score is NaN or infinite.
    """

    first: str
    second: str
    concordant: int = 0
    discordant: int = 0
    first_ties: int = 0
    second_ties: int = 0
    both_ties: int = 0
    unscored: int = 0

    @property
    def share(self) -> float:
        """The share of pairs ordered alike, of those that both order: 0..1, about 0.5 by chance; NaN where none is."""
        decided = self.concordant + self.discordant
        return self.concordant / decided if decided else math.nan

    @property
    def tau(self) -> float:
        """Kendall's tau-b over the pairs within prompts: -1..1; ties lower it. NaN where one scorer orders none."""
        decided = self.concordant + self.discordant
        by_first, by_second = decided + self.second_ties, decided + self.first_ties
        return (
            (self.concordant - self.discordant) / math.sqrt(by_first * by_second) if by_first * by_second else math.nan
        )


@dataclass(frozen=True)
class Agreement:
    """The scorers of a set of candidates, each against each.

    Args:
        names: of the scorers.
        pairs: every two of them, in the order of the names.
        prompts: how many prompts there were.
    """

    names: tuple[str, ...]
    pairs: tuple[PairOfScorers, ...]
    prompts: int

    def between(self, first: str, second: str) -> PairOfScorers:
        """Return what was found of two scorers, in this order."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.first, pair.second) == (second, first):
                return PairOfScorers(
                    first,
                    second,
                    pair.concordant,
                    pair.discordant,
                    pair.second_ties,
                    pair.first_ties,
                    pair.both_ties,
                    pair.unscored,
                )
        raise KeyError(f"no scorers {first}, {second}")

    def shares(self) -> list[list[float]]:
        """Return the matrix of shares, 1 on the diagonal."""
        return [[1.0 if a == b else self.between(a, b).share for b in self.names] for a in self.names]

    def taus(self) -> list[list[float]]:
        """Return the matrix of tau-b, 1 on the diagonal."""
        return [[1.0 if a == b else self.between(a, b).tau for b in self.names] for a in self.names]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values; shares that are of no pair are null."""

        def told(pair: PairOfScorers) -> dict[str, Any]:
            numbers = {"share": pair.share, "tau": pair.tau}
            return {**asdict(pair), **{name: None if math.isnan(value) else value for name, value in numbers.items()}}

        return {"names": list(self.names), "prompts": self.prompts, "pairs": [told(pair) for pair in self.pairs]}


def agreement(scores: Mapping[str, Sequence[Sequence[float]]]) -> Agreement:
    """Compare scorers over all pairs of candidates of the same prompt.

    Args:
        scores: scorer -> a row a prompt, with the scores of its candidates; rows may differ in length, but not between
            scorers. NaN and infinite scores take part in no pair.

    Raises:
        ShapeError: scorers of different prompts or candidates.

    >>> agreement({"a": [[1.0, 2.0, 3.0]], "b": [[1.0, 3.0, 2.0]]}).between("a", "b").share
    0.6666666666666666
    """
    sizes = {name: [len(row) for row in rows] for name, rows in scores.items()}
    names = tuple(scores)
    for name in names:
        if sizes[name] != sizes[names[0]]:
            raise ShapeError(
                f"agreement: '{name}' scored {len(sizes[name])} prompts and {sum(sizes[name])} candidates, '{names[0]}'"
                f" {len(sizes[names[0]])} and {sum(sizes[names[0]])}; every scorer must have scored the same ones"
            )
    found = tuple(_compare(one, other, scores[one], scores[other]) for one, other in combinations(names, 2))
    return Agreement(names, found, len(scores[names[0]]) if names else 0)


def _compare(
    first: str, second: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> PairOfScorers:
    counts = dict.fromkeys(("concordant", "discordant", "first_ties", "second_ties", "both_ties", "unscored"), 0)
    for one, other in zip(ours, theirs, strict=True):
        for i, j in combinations(range(len(one)), 2):
            counts[_kind(one[i], one[j], other[i], other[j])] += 1
    return PairOfScorers(first, second, **counts)


def _kind(a: float, b: float, c: float, d: float) -> str:
    if not all(map(math.isfinite, (a, b, c, d))):
        return "unscored"
    if a == b or c == d:
        return "both_ties" if a == b and c == d else "first_ties" if a == b else "second_ties"
    return "concordant" if (a > b) == (c > d) else "discordant"
