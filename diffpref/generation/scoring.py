"""What rewards say of candidates, added to their records."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from diffpref.core.contracts import Candidate, Media, Record, Reward, Score
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.data import Store, decode_image
from diffpref.generation.growing import GrowingStore

__all__ = ["Progress", "score_records", "score_store", "versions"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done and what there is to do in all."""

UNIT = 256  # records of one part
CHUNK = 64  # decoded pictures in memory


def versions(scorers: Mapping[str, Reward]) -> dict[str, str]:
    """Return score name -> version: what a score of that name means."""
    return {name: scorer.info.version for name, scorer in scorers.items()}


def score_records(records: Sequence[Record], scorers: Mapping[str, Reward]) -> list[Record]:
    """Return the records with a score by each scorer added to each candidate that has none of its name and version.

    A score that is not finite is kept as it is and told in the log: no pair is made of it.

    Args:
        records: whose candidates are pictures.
        scorers: score name -> reward.

    Raises:
        DataError: a candidate holds no picture, or one that cannot be decoded.
        ShapeError: a scorer did not give one score for each picture.
    """
    added: dict[tuple[int, int], list[Score]] = {}
    for name, scorer in scorers.items():
        version = scorer.info.version
        todo = [
            (row, place)
            for row, record in enumerate(records)
            for place, candidate in enumerate(record.candidates)
            if not any((score.name, score.version) == (name, version) for score in candidate.scores)
        ]
        for start in range(0, len(todo), CHUNK):
            part = todo[start : start + CHUNK]
            pictures = [_picture(records[row], place) for row, place in part]
            values = [float(v) for v in scorer.score(pictures, [records[row].prompt for row, _ in part])]
            if len(values) != len(part):
                raise ShapeError(f"scorer '{name}' gave {len(values)} scores for {len(part)} pictures")
            if unusable := sum(not math.isfinite(value) for value in values):
                logger.warning("%s: %d of %d scores are not finite", name, unusable, len(values))
            for key, value in zip(part, values, strict=True):
                added.setdefault(key, []).append(Score(name, version, value))

    def with_scores(row: int, place: int, candidate: Candidate) -> Candidate:
        new = added.get((row, place))
        return replace(candidate, scores=(*candidate.scores, *new)) if new else candidate

    return [
        replace(record, candidates=tuple(with_scores(row, k, c) for k, c in enumerate(record.candidates)))
        for row, record in enumerate(records)
    ]


def score_store(
    store: Store,
    scorers: Mapping[str, Reward],
    output: Path | str,
    on_progress: Progress | None = None,
    *,
    unit_size: int = UNIT,
) -> Store:
    """Copy a store, with scores added; see `score_records`.

    Args:
        store: of pictures; it is left as it is.
        scorers: score name -> reward.
        output: folder of the new store; parts of an earlier run over the same store and scorers are kept.
        on_progress: called with (records there, records in all) at the start and after each part.
        unit_size: records of one part.

    Raises:
        ConfigError: no scorers, or the output is the store itself.
        DataError: the folder was made otherwise, or a picture is missing.
    """
    if not scorers:
        raise ConfigError("no scorers: name at least one reward")
    output = Path(output)
    if output.resolve() == store.folder.resolve():
        raise ConfigError(f"{output} is the store that is scored; choose another folder for the scored one")
    plan = {
        "kind": "scores",
        "store": store.digest,
        "made_by": store.manifest.get("generator", {}),
        "scores": versions(scorers),
        "unit_size": unit_size,
    }
    growing = GrowingStore(output, plan, -(-len(store) // unit_size))
    units = {n: range(n * unit_size, min((n + 1) * unit_size, len(store))) for n in growing.missing()}
    tell = on_progress or (lambda there, total: None)
    there = len(store) - sum(map(len, units.values()))
    tell(there, len(store))
    for number, rows in units.items():
        growing.add(number, score_records([store[row] for row in rows], scorers))
        there += len(rows)
        tell(there, len(store))
    return growing.finish()


def _picture(record: Record, place: int) -> Media:
    candidate = record.candidates[place]
    name = f"record {record.id!r}, candidate {place}"
    if candidate.bytes is not None:
        return decode_image(candidate.bytes, name=name)
    if candidate.path is not None:
        return decode_image(candidate.path)
    raise DataError(f"{name}: holds no picture to score")
