"""What a comparison of two models found: a view of `Standings`, from which `compare` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from diffpref.evaluation.standings import Ties
from diffpref.evaluation.statistics import Interval, WinRate

__all__ = ["Comparison", "FactResult", "Item", "ScoreResult"]


@dataclass(frozen=True)
class Item:
    """One prompt and seed, drawn by both models.

    Args:
        prompt: the text.
        seed: of the initial noise, the same on both sides.
        base_scores: judge -> score of the base model's picture; None where the judge gave no finite number.
        aligned_scores: the same for the aligned model's.
        base_facts: fact -> whether it holds in the base model's picture; empty where nobody looked.
        aligned_facts: the same for the aligned model's.
    """

    prompt: str
    seed: int
    base_scores: Mapping[str, float | None]
    aligned_scores: Mapping[str, float | None]
    base_facts: Mapping[str, bool]
    aligned_facts: Mapping[str, bool]


@dataclass(frozen=True)
class ScoreResult:
    """One judge's verdict. Means, medians and the win rate are over pairs with finite scores on both sides.

    They are None where there is no such pair.

    Args:
        name: of the judge.
        version: of the judge; ``""`` for a count of facts.
        base_mean: mean score of the base model.
        aligned_mean: mean score of the aligned model.
        base_median: median score of the base model.
        aligned_median: median score of the aligned model.
        difference: aligned minus base mean, in the judge's own unit.
        win: how often the aligned picture scores higher.
        dropped: pairs with a score that is not finite, which are left out.
    """

    name: str
    version: str
    base_mean: float | None
    aligned_mean: float | None
    base_median: float | None
    aligned_median: float | None
    difference: Interval | None
    win: WinRate | None
    dropped: int = 0


@dataclass(frozen=True)
class FactResult:
    """How often a fact holds: shares 0..1, and their paired difference in percentage points."""

    name: str
    base_share: float
    aligned_share: float
    difference: Interval


@dataclass(frozen=True)
class Comparison:
    """A base and an aligned model on the same prompts and seeds.

    Args:
        items: every pair, in the order in which it was drawn.
        judges: a verdict each.
        facts: a share each; empty where nobody looked for facts.
        all_facts: the share of pictures in which all facts hold.
        num_facts: the number of facts that hold, as if it were a judge's score.
        level: of all intervals.
        num_draws: resamples behind each interval.
        seed: of the resampling.
        names: of the two sides, base and aligned, as they are shown.
        ties: what an exactly equal score counts for the aligned side.
        noun: what was drawn: pictures or clips.
    """

    items: tuple[Item, ...]
    judges: tuple[ScoreResult, ...]
    facts: tuple[FactResult, ...] = ()
    all_facts: FactResult | None = None
    num_facts: ScoreResult | None = None
    level: float = 0.95
    num_draws: int = 10_000
    seed: int = 0
    names: tuple[str, str] = ("base", "aligned")
    ties: Ties = "half"
    noun: str = "pictures"

    @property
    def num_prompts(self) -> int:
        """How many different prompts there are: the unit that is resampled."""
        return len({item.prompt for item in self.items})

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values. Scores that were not finite are null, and ``dropped`` counts their pairs."""
        return {"num_pairs": len(self.items), "num_prompts": self.num_prompts, **asdict(self)}
