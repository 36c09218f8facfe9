"""What rewards say of candidates, added to their records."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from diffpref.core.contracts import Candidate, Media, Record, Reward, Score
from diffpref.core.errors import ConfigError
from diffpref.data import Store
from diffpref.data.clips import read_media
from diffpref.data.metadata import metadata_of
from diffpref.data.pairs import LIMIT
from diffpref.generation.claims import share_of_work
from diffpref.generation.growing import GrowingStore
from diffpref.generation.unusable import UnusableScores, num_candidates

__all__ = ["Progress", "score_records", "score_store", "score_watched", "versions", "watch"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done and what there is to do in all."""

UNIT = 256  # records of one part
CHUNK = 64  # decoded pictures in memory
CLIPS = 4  # decoded videos in memory


def versions(scorers: Mapping[str, Reward]) -> dict[str, str]:
    """Return score name -> version: what a score of that name means."""
    return {name: scorer.info.version for name, scorer in scorers.items()}


def score_records(records: Sequence[Record], scorers: Mapping[str, Reward]) -> list[Record]:
    """Return the records with a score by each scorer added to each candidate that has none of its name and version.

    A score that is not finite is kept as it is, and a picture for which the scorer does not give one number gets NaN;
    both are told in the log, and no pair is made of them.

    Args:
        records: whose candidates are pictures or texts.
        scorers: score name -> reward; those that read metadata are told each record's ``meta``.

    Raises:
        DataError: a candidate holds neither picture nor text, or a picture that cannot be decoded.
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
        size = CLIPS if scorer.info.media == "video" else CHUNK
        for start in range(0, len(todo), size):
            part = todo[start : start + size]
            media = [read_media(records[row].candidates[place], name=_name(records[row], place)) for row, place in part]
            prompts = [records[row].prompt for row, _ in part]
            told = [metadata_of(records[row]) for row, _ in part] if scorer.info.needs_metadata else None
            values = _ask(name, scorer, media, prompts, told)
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


def _ask(
    name: str,
    scorer: Reward,
    media: Sequence[Media],
    prompts: Sequence[str],
    told: Sequence[Mapping[str, Any]] | None,
) -> list[float]:
    """Return a score for each item; NaN where the scorer, asked for that item alone, gives no single number."""
    scores = scorer.score(media, prompts) if told is None else scorer.score(media, prompts, told)
    if scores.ndim == 1 and len(scores) == len(media):
        return [float(score) for score in scores]
    logger.warning("%s: gave shape %s for %d items", name, tuple(scores.shape), len(media))
    if len(media) == 1:
        return [math.nan]
    return [
        _ask(name, scorer, [media[i]], [prompts[i]], None if told is None else [told[i]])[0] for i in range(len(media))
    ]


def score_store(
    store: Store,
    scorers: Mapping[str, Reward],
    output: Path | str,
    on_progress: Progress | None = None,
    *,
    unit_size: int = UNIT,
    max_unusable: float = LIMIT,
) -> Store:
    """Copy a store, with scores added; see `score_records`. Several processes may share the work.

    Args:
        store: of pictures, clips or texts; it is left as it is.
        scorers: score name -> reward.
        output: folder of the new store; parts of an earlier run over the same store and scorers are kept.
        on_progress: called with (records there, records in all) at the start and after each part.
        unit_size: records of one part.
        max_unusable: the largest share of a score that may be NaN, infinite or missing.

    Raises:
        ConfigError: no scorers, or the output is the store itself.
        DataError: the folder was made otherwise, a picture is missing, or too many scores are unusable.
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
    candidates = num_candidates([store.folder / part["file"] for part in store.manifest["parts"]])
    watched = watch(scorers, candidates)

    def rows(number: int) -> range:
        return range(number * unit_size, min((number + 1) * unit_size, len(store)))

    def make(number: int) -> list[Record]:
        return score_watched([store[row] for row in rows(number)], scorers, watched, max_unusable)

    def tell(missing: Sequence[int]) -> None:
        if on_progress:
            on_progress(len(store) - sum(len(rows(number)) for number in missing), len(store))

    rank, num_ranks = share_of_work()
    growing.fill(make, tell, rank=rank, num_ranks=num_ranks)
    return growing.finish(max_unusable)


def watch(scorers: Mapping[str, Reward], candidates: int) -> UnusableScores:
    """Return the account of what scorers will say of so many candidates."""
    return UnusableScores(Counter({f"{name}@{version}": candidates for name, version in versions(scorers).items()}))


def score_watched(
    records: Sequence[Record], scorers: Mapping[str, Reward], watched: UnusableScores, limit: float
) -> list[Record]:
    """Score records; stop as soon as this process has seen more unusable scores than all the work may have."""
    scored = score_records(records, scorers)
    watched.look_at(scored)
    watched.check(limit)
    return scored


def _name(record: Record, place: int) -> str:
    return f"record {record.id!r}, candidate {place}"
