"""Asking a judge about candidates: anything that scores one answer or compares two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from diffpref.core.contracts import Judge, Media, Record, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import score_of
from diffpref.data.clips import read_media
from diffpref.generation import score_records
from diffpref.loops.stage import Verdict
from diffpref.ranking import both_orders, preference_matrix, win_rates

__all__ = ["Asked", "Judging", "Nothing", "Told", "media_of"]

Judging: TypeAlias = "Reward | Judge | Callable[[Sequence[Media], Sequence[str]], Any]"
"""A reward, a judge, or a function of answers and prompts that returns a score for each."""


@dataclass(frozen=True)
class Told:
    """A verdict by scores.

    Args:
        scores: of the candidates, finite.
        scale: P(i beats j) = sigmoid(scale * (score_i - score_j)).
    """

    scores: list[float]
    scale: float = 1.0

    @cached_property
    def _matrix(self) -> list[list[float]]:
        return preference_matrix(self.scores, scale=self.scale)

    def beats(self, first: int, second: int) -> float:
        """Return P(first is better than second)."""
        return self._matrix[first][second]


@dataclass(frozen=True)
class Compared:
    """A verdict by comparisons: P(i beats j) for all candidates, from a judge that was asked in both orders."""

    matrix: list[list[float]]

    @property
    def scores(self) -> list[float]:
        """The mean win rate of each candidate."""
        return win_rates(self.matrix)

    def beats(self, first: int, second: int) -> float:
        """Return P(first is better than second)."""
        return self.matrix[first][second]


@dataclass(frozen=True)
class Nothing:
    """The verdict of a round in which nobody is asked."""

    @property
    def scores(self) -> list[float]:
        """Not there."""
        raise ConfigError("nobody was asked about these candidates; the loop's method must say whom it asks")

    def beats(self, first: int, second: int) -> float:
        """Not there."""
        raise ConfigError("nobody was asked about these candidates; the loop's method must say whom it asks")


class Asked:
    """A judge as loops ask it.

    Args:
        judge: a reward, a judge, or a function.
        name: under which its scores are stored.
        pair_scale: of scores, where they are to become probabilities; None: the reward's own.

    Raises:
        ConfigError: it neither scores nor compares.
    """

    def __init__(self, judge: Judging, name: str, pair_scale: float | None = None) -> None:
        self.judge, self.name = judge, name
        info = getattr(judge, "info", None)
        scores = hasattr(judge, "score") and not getattr(info, "needs_metadata", False)  # candidates have none
        self._compares = hasattr(judge, "compare") and not scores
        self.version = str(getattr(info, "version", "1"))
        scale = pair_scale if pair_scale is not None else getattr(info, "pair_scale", None)
        self.scale = 1.0 if scale is None else float(scale)
        if not self._compares and not hasattr(judge, "score") and not callable(judge):
            raise ConfigError(f"judge '{name}': expected something with score or compare, or a function of both")

    def __call__(self, records: Sequence[Record]) -> list[tuple[Record, Verdict | None]]:
        """Return each record with what the judge says of its candidates; None where a score or a comparison
        is not finite.

        Scores are added to the candidates, those that are there already are not asked for again.
        """
        if self._compares:
            matrices = self._compare(records)
            told = [
                None if any(math.isnan(p) for row in matrix for p in row) else Compared(matrix) for matrix in matrices
            ]
            return list(zip(records, told, strict=True))
        scored = score_records(records, {self.name: self._as_reward()})
        wanted = f"{self.name}@{self.version}"
        verdicts: list[tuple[Record, Verdict | None]] = []
        for record in scored:
            scores = [score_of(candidate, wanted) for candidate in record.candidates]
            verdicts.append((record, Told(scores, self.scale) if all(map(math.isfinite, scores)) else None))
        return verdicts

    def _as_reward(self) -> Any:
        return self.judge if hasattr(self.judge, "score") else _Function(self.judge, self.version)

    def _compare(self, records: Sequence[Record]) -> list[list[list[float]]]:
        """Ask about every two candidates of every record, in both orders, all at once."""
        asked = [
            (row, i, j)
            for row, record in enumerate(records)
            for i in range(len(record.candidates))
            for j in range(len(record.candidates))
            if i != j
        ]
        media = [[media_of(record, number) for number in range(len(record.candidates))] for record in records]
        judge: Any = self.judge
        answers = judge.compare(
            [media[row][i] for row, i, _ in asked],
            [media[row][j] for row, _, j in asked],
            [records[row].prompt for row, _, _ in asked],
        )
        found = [float(answer) for answer in answers]
        if len(found) != len(asked) or not all(0 <= answer <= 1 or math.isnan(answer) for answer in found):
            raise DataError(f"judge '{self.name}': expected {len(asked)} probabilities, got {len(found)} numbers")
        matrices = [[[0.5] * len(record.candidates) for _ in record.candidates] for record in records]
        for (row, i, j), answer in zip(asked, found, strict=True):
            matrices[row][i][j] = answer
        return [both_orders(matrix) for matrix in matrices]


class _Function:
    """A function as a reward of whatever it takes."""

    def __init__(self, function: Any, version: str) -> None:
        self.function = function
        self.info = RewardInfo("function", version, licence="", range=(-math.inf, math.inf))

    def score(self, media: Sequence[Media], prompts: Sequence[str], metadata: Any = None) -> Any:
        import torch

        return torch.as_tensor(self.function(media, prompts), dtype=torch.float32)


def media_of(record: Record, number: int) -> Media:
    """Return what a judge is shown of a candidate: its text, its picture, or the frames of its clip.

    Raises:
        DataError: it has none of these, or the picture cannot be decoded.
    """
    return read_media(record.candidates[number], name=f"record {record.id!r}, candidate {number}")
