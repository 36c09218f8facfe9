"""The pair view: which candidate of a record is chosen and which rejected. It is decided here and nowhere else."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import DataError
from diffpref.ranking import PAIRINGS, num_unscored

__all__ = ["Pair", "pair_view", "score_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Two candidates of a record, the better one first.

    Args:
        record_index: position in the records that the view was made of.
        record_id: key of the record's random numbers. Several pairs of a record share it.
        prompt: of the record.
        chosen: position of the winner among the candidates.
        rejected: position of the loser.
        probability: P(chosen is better), 0.5..1.
        weight: multiplies the loss.
    """

    record_index: int
    record_id: str
    prompt: str
    chosen: int
    rejected: int
    probability: float = 1.0
    weight: float = 1.0


def score_of(candidate: Candidate, name: str) -> float:
    """Return a candidate's score by ``name`` or ``name@version``; NaN where it has none.

    Raises:
        DataError: scores of two versions and no ``@version`` that tells which is meant.
    """
    wanted, _, version = name.partition("@")
    found = [s for s in candidate.scores if s.name == wanted and version in ("", s.version)]
    if len({s.version for s in found}) > 1:
        versions = ", ".join(f"{wanted}@{s.version}" for s in found)
        raise DataError(f"a candidate has scores of several versions of {wanted}; say which: {versions}")
    return found[-1].value if found else math.nan


def pair_view(
    records: Sequence[Record],
    pairing: str = "best_vs_worst",
    score: str | None = None,
    *,
    min_gap: float = 0.0,
    drop_ties: bool = True,
    aspect: str = "overall",
) -> list[Pair]:
    """Return the pairs of records, in their order.

    Args:
        records: of a store or a plain table.
        pairing: with ``score``: which two of a record's candidates, a name of `diffpref.ranking.PAIRINGS`.
        score: the reward (``name`` or ``name@version``) whose scores order the candidates; None: the judgements decide.
        min_gap: with ``score``: the smallest difference that counts, in the score's unit.
        drop_ties: without ``score``: leave out judgements of probability 0.5; else they stay, the first as chosen.
        aspect: without ``score``: which judgements; those of a part (with start and end) belong to another view.

    Raises:
        DataError: no record gives a pair; the message says why.
        ConfigError: no such pairing.
    """
    pairs = list(_judged(records, drop_ties, aspect) if score is None else _scored(records, pairing, score, min_gap))
    if not pairs:
        raise DataError(_why_none(records, score, min_gap, aspect))
    return pairs


def _judged(records: Sequence[Record], drop_ties: bool, aspect: str) -> Iterator[Pair]:
    for index, record in enumerate(records):
        for judgement in record.judgements:
            if judgement.aspect != aspect or judgement.start is not None or judgement.end is not None:
                continue
            first, second, probability = judgement.first, judgement.second, judgement.probability
            if not 0.0 <= probability <= 1.0 or not {first, second} <= set(range(len(record.candidates))):
                raise DataError(f"record {record.id!r}: not a judgement of its candidates: {judgement}")
            if probability == 0.5 and drop_ties:
                continue
            if probability < 0.5:
                first, second, probability = second, first, 1.0 - probability
            yield Pair(index, record.id, record.prompt, first, second, probability, judgement.weight)


def _scored(records: Sequence[Record], pairing: str, score: str, min_gap: float) -> Iterator[Pair]:
    choose = PAIRINGS.get(pairing)
    unscored = 0
    for index, record in enumerate(records):
        scores = [score_of(candidate, score) for candidate in record.candidates]
        unscored += num_unscored(scores)
        for chosen, rejected in choose(scores, min_gap=min_gap):
            yield Pair(index, record.id, record.prompt, chosen, rejected)
    if unscored:
        logger.info("%d candidates without a finite %s score take part in no pair", unscored, score)


def _why_none(records: Sequence[Record], score: str | None, min_gap: float, aspect: str) -> str:
    counted = Counter(s.name for record in records for candidate in record.candidates for s in candidate.scores)
    existing = ", ".join(f"{name} ({count})" for name, count in sorted(counted.items())) or "none"
    judgements = sum(len(record.judgements) for record in records)
    start = f"{len(records)} records give no pair"
    if score is None:
        return (
            f"{start}: of {judgements} judgements none of aspect '{aspect}' is decided;"
            f" to pair by a score, name one: {existing}"
        )
    if score.partition("@")[0] not in counted:
        return f"{start}: no candidate has a score '{score}'; scores there are: {existing}; judgements: {judgements}"
    return f"{start}: all differences of '{score}' are 0 or below min_gap={min_gap}, or no record has two scores"
