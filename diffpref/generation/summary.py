"""The scores of a store in a few numbers, read without its pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pyarrow import parquet

from diffpref.data import Store

__all__ = ["ScoreSummary", "summarise_scores"]

_COLUMNS = [f"candidates.list.element.scores.list.element.{field}" for field in ("name", "version", "value")]


@dataclass(frozen=True)
class ScoreSummary:
    """One score of a store.

    Args:
        name: of the score.
        version: of the reward that gave it.
        count: candidates that have it.
        not_finite: how many of those are NaN or infinite; they take part in no pair and in no mean.
        mean: of the finite ones; NaN if there are none.
        std: their standard deviation; NaN if there are none.
    """

    name: str
    version: str
    count: int
    not_finite: int
    mean: float
    std: float


def summarise_scores(store: Store) -> list[ScoreSummary]:
    """Return a summary of each score name and version, in the order in which they were given."""
    found: dict[tuple[str, str], list[float]] = {}
    for part in store.manifest["parts"]:
        for row in parquet.ParquetFile(store.folder / part["file"]).read(columns=_COLUMNS).to_pylist():
            for score in _scores(row):
                found.setdefault((score["name"], score["version"]), []).append(float(score["value"]))
    return [_summary(name, version, values) for (name, version), values in found.items()]


def _scores(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [score for candidate in row["candidates"] or () for score in candidate["scores"] or ()]


def _summary(name: str, version: str, values: list[float]) -> ScoreSummary:
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    variance = math.fsum((value - mean) ** 2 for value in finite) / len(finite) if finite else math.nan
    return ScoreSummary(name, version, len(values), len(values) - len(finite), mean, math.sqrt(variance))
