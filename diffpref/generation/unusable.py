"""Scores that are not numbers: counted, listed, and refused above a limit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import parquet

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError

__all__ = ["UnusableScores", "num_candidates", "unusable_scores"]

_SCORES = [f"candidates.list.element.scores.list.element.{field}" for field in ("name", "version", "value")]


@dataclass
class UnusableScores:
    """What was found among scores.

    Args:
        totals: score name@version -> how many there are, or will be; others are not looked at.
        found: an entry for each that is NaN or infinite.
    """

    totals: Counter[str] = field(default_factory=Counter)
    found: list[dict[str, Any]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return score name@version -> how many are unusable."""
        return dict(Counter(f"{entry['score']}@{entry['version']}" for entry in self.found))

    def look_at(self, records: Sequence[Record]) -> None:
        """Take note of the unusable scores of records."""
        for record in records:
            for place, candidate in enumerate(record.candidates):
                for score in candidate.scores:
                    if f"{score.name}@{score.version}" in self.totals:
                        self.look(record.id, place, score.name, score.version, score.value)

    def look(self, identity: str, place: int, name: str, version: str, value: float) -> None:
        """Take note of a score if it is unusable."""
        if not math.isfinite(value):
            entry = {"id": identity, "candidate": place, "score": name, "version": version, "value": str(value)}
            self.found.append(entry)

    def check(self, limit: float) -> None:
        """Refuse more than ``limit`` of the scores of one name and version.

        Raises:
            DataError: it says how many of how many, and names the first.
        """
        for name, count in self.counts().items():
            if count > limit * self.totals[name]:
                first = next(entry for entry in self.found if f"{entry['score']}@{entry['version']}" == name)
                raise DataError(
                    f"{count} of {self.totals[name]} scores by {name} are NaN, infinite or of a wrong shape, more than"
                    f" the {limit:.1%} allowed (max_unusable); the first: record {first['id']!r}, candidate"
                    f" {first['candidate']}. What is made is kept"
                )


def unusable_scores(parts: Sequence[Path], versions: Mapping[str, str]) -> UnusableScores:
    """Count the scores of some names and versions in the parts of a store, without reading its pictures."""
    result = UnusableScores(Counter({f"{name}@{version}": 0 for name, version in versions.items()}))
    for part in parts:
        for row in parquet.ParquetFile(part).read(columns=["id", *_SCORES]).to_pylist():
            for place, candidate in enumerate(row["candidates"] or ()):
                for score in candidate["scores"] or ():
                    if (name := f"{score['name']}@{score['version']}") in result.totals:
                        result.totals[name] += 1
                        result.look(row["id"], place, **score)
    return result


def num_candidates(parts: Sequence[Path]) -> int:
    """Count the candidates in the parts of a store, without reading its pictures."""
    column = ["candidates.list.element.seed"]
    tables = (parquet.ParquetFile(part).read(columns=column) for part in parts)
    return sum(len(row["candidates"] or ()) for table in tables for row in table.to_pylist())
