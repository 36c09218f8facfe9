"""The point view: single candidates, each good or bad, without a partner.

Labels that the candidates carry decide; where none does, or a score is named, the winners of the pair view are good and
its losers bad.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.combined import ScoreName
from diffpref.data.pairs import LIMIT, pair_view
from diffpref.data.scores import kinds_of_scores, read_scores

__all__ = ["Point", "point_view", "scored_points"]

logger = logging.getLogger(__name__)

Mixed: TypeAlias = Literal["each", "good", "bad", "drop"]


@dataclass(frozen=True)
class Point:
    """A candidate of a record and whether it is good.

    Args:
        record_index: position in the records that the view was made of.
        record_id: of the record.
        prompt: of the record.
        candidate: its position among the candidates.
        label: 1 = good, 0 = bad; None where a score says it.
        weight: multiplies the loss.
        occurrence: how many points of the same candidate the view lists before this one.
        score: of the candidate, where labels follow from scores.
        win_rate: of the candidate, where labels follow from scores or judgements.
        captions: group -> the text that it is shown under instead of the prompt.
    """

    record_index: int
    record_id: str
    prompt: str
    candidate: int
    label: float | None
    weight: float = 1.0
    occurrence: int = 0
    score: float | None = None
    win_rate: float | None = None
    captions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Of the point's random draws; the label is not part of it."""
        return f"{self.record_id}/{self.candidate}" + (f"#{self.occurrence}" if self.occurrence else "")

    @property
    def groups(self) -> Mapping[str, int]:
        """The candidate, in the group of pointwise data."""
        return {"": self.candidate}

    @property
    def columns(self) -> Mapping[str, float]:
        """Label and weight, and score and win rate where there are any."""
        told = {"label": self.label, "score": self.score, "win_rate": self.win_rate}
        return {"weight": self.weight} | {name: value for name, value in told.items() if value is not None}


def point_view(
    records: Sequence[Record], score: ScoreName | None = None, mixed: Mixed = "each", **pairing: Any
) -> list[Point]:
    """Return the labelled candidates of records, in their order.

    Args:
        records: of a store or a plain table.
        score: the reward, or several, whose pairs give winners and losers; None: labels, else judgements.
        mixed: samples of one prompt that won in one pair and lost in another: a point for each pair, or, each sample
            being one point only, good, bad, or left out (Diffusion-KTO's ``wi_l``, ``w_il`` and ``w_l``).
        pairing: how pairs are made where there are no labels, as for `diffpref.data.pairs.pair_view`.

    Raises:
        DataError: a label is neither 0 nor 1; there are no labels, and no pairs either; or pairs of soft labels.
    """
    if score is None and any(c.label is not None for record in records for c in record.candidates):
        return list(_labelled(records))
    try:
        pairs = pair_view(records, score=score, **pairing)
    except DataError as error:
        raise DataError(
            f"no candidate has a label (0 or 1), which an objective of single samples needs, and for winners and"
            f" losers instead: {error}"
        ) from error
    soft = sum(pair.probability != 1.0 for pair in pairs)
    if soft:
        raise DataError(
            f"{soft} of {len(pairs)} pairs have soft labels or are ties, of which neither side is plainly good or bad;"
            " drop ties (data.drop_ties), or give candidates labels of 0 or 1"
        )
    seen: Counter[tuple[int, int]] = Counter()
    points = []
    for pair in pairs:
        for side, (candidate, label) in enumerate(((pair.chosen, 1.0), (pair.rejected, 0.0))):
            place = (pair.record_index, candidate)
            told = pair.scores and pair.scores[side], pair.win_rates and pair.win_rates[side]
            head = pair.record_index, pair.record_id, pair.prompt
            points.append(Point(*head, candidate, label, pair.weight, seen[place], *told))
            seen[place] += 1
    return points if mixed == "each" else list(_once(points, records, mixed))


def _once(points: Sequence[Point], records: Sequence[Record], mixed: Mixed) -> Iterator[Point]:
    """Yield one point for each sample of a prompt, where it comes first."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        digest = records[point.record_index].candidates[point.candidate].sha256
        found.setdefault((point.prompt, digest or f"{point.record_id}/{point.candidate}"), []).append(point)
    settled = {"good": 1.0, "bad": 0.0}
    for same in found.values():
        labels = {point.label for point in same}
        if len(labels) == 1:
            yield same[0]
        elif mixed in settled:
            yield replace(same[0], label=settled[mixed])


def scored_points(records: Sequence[Record], score: ScoreName, max_unusable: float = LIMIT) -> list[Point]:
    """Return every candidate that has a score, once, for objectives that regress on it.

    Args:
        records: of a store or a plain table.
        score: which.
        max_unusable: the largest share of its values that may be NaN or infinite.

    Raises:
        DataError: no candidate has one, or too many are unusable.
    """
    points = []
    for index, (record, values) in enumerate(
        zip(records, read_scores(records, score, max_unusable, Counter()), strict=True)
    ):
        head = index, record.id, record.prompt
        points += [Point(*head, place, None, score=v) for place, v in enumerate(values) if math.isfinite(v)]
    if not points:
        existing = ", ".join(sorted(kinds_of_scores(records))) or "none"
        raise DataError(
            f"{len(records)} records hold no candidate with a score '{score}'; scores there are: {existing}"
        )
    return points


def _labelled(records: Sequence[Record]) -> Iterator[Point]:
    without = 0
    for index, record in enumerate(records):
        for number, candidate in enumerate(record.candidates):
            if candidate.label is None:
                without += 1
            elif candidate.label not in (0.0, 1.0):
                raise DataError(f"record {record.id!r}: a candidate's label must be 0 or 1, got {candidate.label}")
            else:
                yield Point(index, record.id, record.prompt, number, float(candidate.label))
    if without:
        logger.info("left out: %d candidates without a label", without)
