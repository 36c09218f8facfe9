"""Judgements of parts of two clips, and what they say of their latent frames (DenseDPO, arXiv:2506.03517)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffpref.core.contracts import Judgement, Record
from diffpref.core.errors import DataError
from diffpref.ranking import held_most, parts_of

__all__ = ["Segment", "check_judgement", "judged_parts", "latent_labels"]


@dataclass(frozen=True)
class Segment:
    """A part of two clips.

    Args:
        start: seconds.
        end: seconds; infinite for the end of the clips.
        label: 1 where the first of the two is better, -1 where the second is, 0 for a tie.
    """

    start: float
    end: float
    label: int


def check_judgement(judgement: Judgement, record: Record) -> None:
    """Raise `DataError` when a judgement has no probability, or not two candidates of the record, or no weight."""
    there = set(range(len(record.candidates)))
    if not 0.0 <= judgement.probability <= 1.0 or not {judgement.first, judgement.second} <= there:
        raise DataError(f"record {record.id!r}: not a judgement of its candidates: {judgement}")
    if not (math.isfinite(judgement.weight) and judgement.weight >= 0):
        raise DataError(f"record {record.id!r}: a judgement's weight must be >= 0, got {judgement.weight}")


def judged_parts(record: Record, aspect: str = "overall") -> Mapping[tuple[int, int], tuple[Segment, ...]]:
    """Return two candidates -> the parts of them that were judged by an aspect, in time.

    Several judgements of one part are one, by the mean of their probabilities by weight. The two are in the order of
    their first judgement.

    Raises:
        DataError: one is not a judgement of the record's candidates, or parts overlap.
    """
    found: dict[tuple[int, int], dict[tuple[float, float], list[tuple[float, float]]]] = {}
    for judgement in record.judgements:
        if judgement.aspect != aspect or (judgement.start is None and judgement.end is None):
            continue
        check_judgement(judgement, record)
        first, second, probability = judgement.first, judgement.second, judgement.probability
        if (second, first) in found:
            first, second, probability = second, first, 1.0 - probability
        several = found.setdefault((first, second), {}).setdefault(_seconds(judgement, record), [])
        several.append((probability, judgement.weight))
    return {sides: _in_time(parts, record) for sides, parts in found.items()}


def _seconds(judgement: Judgement, record: Record) -> tuple[float, float]:
    start = 0.0 if judgement.start is None else judgement.start
    end = math.inf if judgement.end is None else judgement.end
    if not 0 <= start < end or math.isinf(start):
        raise DataError(
            f"record {record.id!r}: a judgement of a part has a start and a later end in seconds, got {start} to {end}"
        )
    return start, end


def _in_time(parts: Mapping[tuple[float, float], Sequence[tuple[float, float]]], record: Record) -> tuple[Segment, ...]:
    segments = tuple(Segment(*seconds, _label(judged)) for seconds, judged in sorted(parts.items()))
    for one, other in pairwise(segments):
        if other.start < one.end:
            told = " and ".join(f"{part.start:g} to {part.end:g}" for part in (one, other))
            raise DataError(f"record {record.id!r}: judged parts overlap, {told} seconds; a moment has one label")
    return segments


def _label(judged: Sequence[tuple[float, float]]) -> int:
    leaning = math.fsum(weight * (probability - 0.5) for probability, weight in judged)
    return (leaning > 0) - (leaning < 0)


def latent_labels(
    frames: Sequence[int], fps: float, segments: Sequence[Segment], *, temporal_factor: int = 1, causal: bool = False
) -> list[int]:
    """Return the label of each latent frame: of the part that holds most of its frames, 0 where nobody judged.

    Args:
        frames: positions in the clips of the frames that are shown.
        fps: frames a second of the clips.
        segments: the judged parts.
        temporal_factor: frames a latent frame.
        causal: the first latent frame holds one frame, as in causal VAEs.

    >>> latent_labels(range(6), 2.0, [Segment(0.0, 1.0, 1), Segment(1.0, 2.0, -1)])
    [1, 1, -1, -1, 0, 0]
    """
    held = parts_of(frames, fps, [(part.start, part.end) for part in segments])
    most = held_most(held, temporal_factor=temporal_factor, causal=causal)
    return [segments[number].label if number >= 0 else 0 for number in most]
