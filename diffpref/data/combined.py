"""Several stored scores as one: the label that a recipe's ``data.score: [pickscore, hps_v21]`` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError
from diffpref.ranking import COMBINATIONS, Combination

__all__ = ["Combined", "ScoreName", "missing_names", "score_names"]


@dataclass(frozen=True)
class Combined:
    """Scores that order the candidates of a record together.

    Args:
        scores: names (``name`` or ``name@version``), at least one.
        rule: how they become one; see `diffpref.ranking.combine`.
        weights: one a score, not negative and not all 0; None: equal ones.

    Raises:
        ConfigError: no scores, one twice, an unknown rule, or weights that do not fit.
    """

    scores: tuple[str, ...]
    rule: Combination = "zscore"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.scores or len(set(self.scores)) < len(self.scores):
            raise ConfigError(f"data.score: different scores are combined, got {', '.join(self.scores) or 'none'}")
        if self.rule not in COMBINATIONS:
            raise ConfigError(f"data.combine: must be one of {', '.join(COMBINATIONS)}, got {self.rule!r}")
        if self.weights is not None and len(self.weights) != len(self.scores):
            raise ConfigError(f"data.score_weights: {len(self.scores)} scores need as many, got {len(self.weights)}")
        if self.weights is not None and not (any(self.weights) and min(self.weights) >= 0):
            raise ConfigError(f"data.score_weights: must be >= 0 and not all 0, got {list(self.weights)}")

    def __str__(self) -> str:
        return f"{self.rule} of {', '.join(self.scores)}"


ScoreName: TypeAlias = str | Combined
"""What orders candidates: one score, ``name`` or ``name@version``, or several."""


def score_names(score: ScoreName) -> tuple[str, ...]:
    """Return the names of the scores that are read."""
    return score.scores if isinstance(score, Combined) else (score,)


def missing_names(score: ScoreName, records: Sequence[Record]) -> list[str]:
    """Return those names of which no candidate has a score."""
    there = {s.name for record in records for candidate in record.candidates for s in candidate.scores}
    return [name for name in score_names(score) if name.partition("@")[0] not in there]
