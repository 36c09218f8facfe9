"""How good a reward model is: how often it agrees with labels, and what its probabilities are worth, group by group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from diffpref.core.contracts import Judge, Media, Record, Reward
from diffpref.core.errors import DataError
from diffpref.data import Pair
from diffpref.data.clips import read_media
from diffpref.data.metadata import metadata_of
from diffpref.evaluation.statistics import wilson_interval
from diffpref.ranking import accuracy_with_ties, calibration_error, log_loss

__all__ = ["TIES", "PairScores", "Quality", "best_tie", "group_of", "measure", "score_pairs"]

TIES = tuple(step / 20 for step in range(21))
"""Widths of ties that `best_tie` tries; PickScore's evaluation tries 0 to 1."""
CHUNK = 128
"""Pairs whose items are in memory together."""


@dataclass(frozen=True)
class PairScores:
    """What a reward says of labelled pairs.

    Args:
        labels: (N,) P(chosen is better) as the data say; 1/2 is a tie.
        gaps: (N,) score of the chosen minus score of the rejected.
        probabilities: (N,) P(chosen is better) by the reward; None where it defines none.
        groups: (N,) what each pair belongs to.
        unscored: pairs that are left out because a score or a comparison is not finite.
    """

    labels: list[float]
    gaps: list[float]
    probabilities: list[float] | None
    groups: list[str]
    unscored: int = 0


@dataclass(frozen=True)
class Quality:
    """Figures of a reward on labelled pairs.

    Args:
        pairs: how many.
        ties: of them that are ties by their labels.
        accuracy: mean credit with ties on both sides, as PickScore's evaluation counts: 1/2 where one side alone says
            tie.
        low: lower end of the 95 % interval (Wilson) of the accuracy on decided pairs, in which equal scores are wrong.
        high: upper end.
        decided: accuracy on decided pairs, in which equal scores are wrong: ImageReward's.
        tie: the width of predicted ties.
        calibration_error: expected, of the pair's probability, 0..1; None without one.
        log_loss: mean cross-entropy, nats; None without probabilities.
        by_group: group -> its own figures.
        unscored: pairs that are left out of everything above because a score or a comparison is not finite.
    """

    pairs: int
    ties: int
    accuracy: float
    low: float
    high: float
    decided: float
    tie: float
    calibration_error: float | None = None
    log_loss: float | None = None
    by_group: Mapping[str, Quality] = field(default_factory=dict)
    unscored: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def group_of(record: Record, column: str) -> str:
    """Return what a record is grouped by: ``source``, ``generator``, ``prompt``, or a key of its ``meta``.

    Raises:
        DataError: the record has no such key.
    """
    if column == "generator":
        return ", ".join(sorted({candidate.generator or "unknown" for candidate in record.candidates}))
    if column in ("source", "prompt"):
        return str(getattr(record, column))
    if column not in record.meta:
        raise DataError(
            f"record {record.id!r} has no '{column}' to group by; its meta holds"
            f" {', '.join(sorted(record.meta)) or 'nothing'}; source, generator and prompt are always there"
        )
    return record.meta[column]


def score_pairs(
    reward: Reward,
    records: Sequence[Record],
    pairs: Sequence[Pair],
    group: Callable[[Record], str] | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> PairScores:
    """Ask a reward about both sides of every pair.

    Args:
        reward: with ``compare`` where it is a judge too; else its ``pair_scale`` makes probabilities, if it has one. A
            judge that does not score, or scores against a reference answer only, is asked to compare.
        records: of the pairs.
        pairs: labelled.
        group: of a record; None: all are one group.
        tell: called with pairs done and their number.

    Raises:
        DataError: no pair has finite scores, or an item cannot be read.
    """
    gaps: list[float] = []
    probabilities: list[float] = []
    scale, reads = reward.info.pair_scale, reward.info.needs_metadata
    # what was trained without a probability model has the method and no answer
    judge = reward if isinstance(reward, Judge) and getattr(reward, "pair", True) is not None else None
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        prompts = [pair.prompt for pair in part]
        first = [_media(records[pair.record_index], pair.chosen) for pair in part]
        second = [_media(records[pair.record_index], pair.rejected) for pair in part]
        told = [metadata_of(records[pair.record_index]) for pair in part] if reads else None
        likely = None if judge is None else judge.compare(first, second, prompts).double()
        if likely is not None and (reads or not hasattr(reward, "score")):
            gap = torch.logit(likely, eps=1e-9)
        elif told is None:
            gap = reward.score(first, prompts) - reward.score(second, prompts)
        else:
            gap = reward.score(first, prompts, told) - reward.score(second, prompts, told)
        if likely is None and scale is not None:
            likely = torch.sigmoid(scale * gap.double())
        gaps += gap.tolist()
        probabilities += [] if likely is None else likely.tolist()
        tell(len(gaps), len(pairs))
    kept = [row for row, gap in enumerate(gaps) if math.isfinite(gap)]
    if probabilities:
        kept = [row for row in kept if math.isfinite(probabilities[row])]
    if pairs and not kept:
        raise DataError(f"reward '{reward.info.name}': none of {len(pairs)} pairs has finite scores on both sides")
    return PairScores(
        [pairs[row].probability for row in kept],
        [gaps[row] for row in kept],
        [probabilities[row] for row in kept] if probabilities else None,
        [group(records[pairs[row].record_index]) if group else "" for row in kept],
        len(pairs) - len(kept),
    )


def _media(record: Record, place: int) -> Media:
    return read_media(record.candidates[place], name=f"record {record.id!r}, candidate {place}")


def measure(found: PairScores, tie: float = 0.0) -> Quality:
    """Return the figures of a reward, over all pairs and group by group.

    Args:
        found: of `score_pairs`.
        tie: a tie is predicted where P(chosen) and P(rejected) are at most this far apart; without probabilities only
            equal scores tie.
    """
    quality = replace(_measure(found, range(len(found.labels)), tie), unscored=found.unscored)
    names = sorted(set(found.groups))
    if names == [""]:
        return quality
    rows = {name: [row for row, own in enumerate(found.groups) if own == name] for name in names}
    return replace(quality, by_group={name: _measure(found, rows[name], tie) for name in names})


def _measure(found: PairScores, rows: Sequence[int], tie: float) -> Quality:
    labels, gaps = [found.labels[row] for row in rows], [found.gaps[row] for row in rows]
    told = None if found.probabilities is None else [found.probabilities[row] for row in rows]
    decided = [gap if label > 0.5 else -gap for gap, label in zip(gaps, labels, strict=True) if label != 0.5]
    right = sum(gap > 0 for gap in decided)
    interval = wilson_interval(right / len(decided), len(decided)) if decided else None
    signs = [0.5 + 0.5 * ((gap > 0) - (gap < 0)) for gap in gaps]
    return Quality(
        pairs=len(labels),
        ties=len(labels) - len(decided),
        accuracy=accuracy_with_ties(told or signs, labels, tie),
        low=interval.low if interval else 0.0,
        high=interval.high if interval else 1.0,
        decided=right / len(decided) if decided else float("nan"),
        tie=tie,
        calibration_error=calibration_error(told, labels) if told else None,
        log_loss=log_loss(told, labels) if told else None,
    )


def best_tie(found: PairScores) -> float:
    """Return the width of ties with the highest accuracy on these pairs, the smallest of equals.

    Choose it on other pairs than those that are reported, as PickScore's evaluation does.
    """
    if found.probabilities is None:
        return 0.0
    return max(TIES, key=lambda tie: (accuracy_with_ties(found.probabilities or [], found.labels, tie), -tie))
