"""What a comparison of two models found, and its form on disk (``results.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError
from diffpref.core.files import read_json, write_json
from diffpref.evaluation.statistics import Interval, WinRate

__all__ = ["Comparison", "FactResult", "Item", "ScoreResult"]

FORMAT = 1


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

    Args:
        name: of the judge.
        version: of the judge; ``""`` for a count of facts.
        base_mean: mean score of the base model.
        aligned_mean: mean score of the aligned model.
        base_median: median score of the base model.
        aligned_median: median score of the aligned model.
        difference: aligned minus base mean, in the judge's own unit.
        win: how often the aligned picture scores higher.
    """

    name: str
    version: str
    base_mean: float
    aligned_mean: float
    base_median: float
    aligned_median: float
    difference: Interval
    win: WinRate


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
    """

    items: tuple[Item, ...]
    judges: tuple[ScoreResult, ...]
    facts: tuple[FactResult, ...] = ()
    all_facts: FactResult | None = None
    num_facts: ScoreResult | None = None
    level: float = 0.95
    num_draws: int = 10_000
    seed: int = 0

    @property
    def num_prompts(self) -> int:
        """How many different prompts there are: the unit that is resampled."""
        return len({item.prompt for item in self.items})

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values. Scores that were not finite are null, and ``dropped`` counts their pairs."""
        return {"format": FORMAT, "num_pairs": len(self.items), "num_prompts": self.num_prompts, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """Return the comparison that `to_json` wrote.

        Raises:
            DataError: another format, or a field that is missing or unknown.
        """
        if value.get("format") != FORMAT:
            raise DataError(f"results are of format {value.get('format')!r}, expected {FORMAT}")
        try:
            return cls(
                items=tuple(Item(**item) for item in value["items"]),
                judges=tuple(_score(judge) for judge in value["judges"]),
                facts=tuple(_fact(fact) for fact in value["facts"]),
                all_facts=_fact(value["all_facts"]) if value["all_facts"] else None,
                num_facts=_score(value["num_facts"]) if value["num_facts"] else None,
                level=value["level"],
                num_draws=value["num_draws"],
                seed=value["seed"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"results are not those of a comparison: {error}") from error

    def save(self, path: Path) -> None:
        """Write ``results.json``, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read ``results.json``."""
        return cls.from_json(read_json(path))


def _score(value: Mapping[str, Any]) -> ScoreResult:
    return ScoreResult(**{**value, "difference": Interval(**value["difference"]), "win": WinRate(**value["win"])})


def _fact(value: Mapping[str, Any]) -> FactResult:
    return FactResult(**{**value, "difference": Interval(**value["difference"])})
