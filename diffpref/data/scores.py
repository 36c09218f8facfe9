"""Scores of candidates, and the win rates that follow from scores or judgements."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import DataError
from diffpref.data.combined import Combined, ScoreName
from diffpref.ranking import combine, num_unscored

__all__ = [
    "FEW",
    "SIMILARITY",
    "UNSCORED",
    "WIN_RATE",
    "beats",
    "judged_win_rates",
    "kinds_of_scores",
    "members",
    "read_scores",
    "score_of",
    "scored_win_rates",
    "stored_win_rates",
]

UNSCORED = "candidates without a finite score"
FEW = "records of fewer than two candidates"
SIMILARITY = "similarity"
"""The score whose values are cosines of the meanings of prompt and candidate, which weigh a pair and order nothing."""
WIN_RATE = "win_rate"
"""The score whose values are win rates that were counted elsewhere, such as against answers that are not kept."""


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


def members(record: Record, score: Combined) -> list[list[float]]:
    """Return a record's matrix of scores: a row a score, a column a candidate; NaN where one has none."""
    return [[score_of(candidate, name) for candidate in record.candidates] for name in score.scores]


def read_scores(
    records: Sequence[Record], score: ScoreName, max_unusable: float, left_out: Counter[str]
) -> list[list[float]]:
    """Return the scores of every record's candidates, NaN where one has none.

    Args:
        records: of a source.
        score: ``name`` or ``name@version``; or several, which are combined record by record. A candidate that lacks one
            of them has none.
        max_unusable: the largest share of values, of each score, that are there but NaN or infinite.
        left_out: what is not usable is counted into it.

    Raises:
        DataError: too many values are NaN or infinite.
    """
    if isinstance(score, Combined):
        for name in score.scores:
            read_scores(records, name, max_unusable, Counter())
        combined = [combine(members(r, score), score.rule, score.weights) for r in records]
        left_out += Counter({UNSCORED: sum(map(num_unscored, combined)), FEW: sum(len(row) < 2 for row in combined)})
        return combined
    read: list[list[float]] = []
    given = not_finite = 0
    for record in records:
        scores = [score_of(candidate, score) for candidate in record.candidates]
        unscored, there = num_unscored(scores), sum(_is_scored(candidate, score) for candidate in record.candidates)
        given, not_finite = given + there, not_finite + unscored - (len(scores) - there)
        left_out += Counter({UNSCORED: unscored, FEW: int(len(scores) < 2)})
        read.append(scores)
    if not_finite > max_unusable * given:
        raise DataError(
            f"{not_finite} of {given} {score} scores are NaN or infinite, more than {max_unusable:.1%}; score them"
            " again, or raise data.max_unusable"
        )
    return read


def _is_scored(candidate: Candidate, name: str) -> bool:
    wanted, _, version = name.partition("@")
    return any(s.name == wanted and version in ("", s.version) for s in candidate.scores)


def kinds_of_scores(records: Sequence[Record]) -> Counter[str]:
    """Return how many scores of each name there are."""
    return Counter(s.name for record in records for candidate in record.candidates for s in candidate.scores)


def beats(first: float, second: float, scale: float = 1.0) -> float:
    """Return P(first is better), sigmoid(scale * (first - second)).

    >>> beats(1.0, 1.0)
    0.5
    """
    x = scale * (first - second)
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def scored_win_rates(scores: Sequence[float], scale: float = 1.0) -> list[float]:
    """Return each candidate's mean probability to beat the candidates of its record, itself (1/2) among them.

    P(i beats j) = sigmoid(scale * (score_i - score_j)), as in SPPO (Wu et al., arXiv:2405.00675). NaN without a score.

    >>> [round(rate, 4) for rate in scored_win_rates([0.0, 100.0])]
    [0.25, 0.75]
    """
    finite = [score for score in scores if math.isfinite(score)]

    def rate(own: float) -> float:
        return math.fsum(beats(own, other, scale) for other in finite) / len(finite)

    return [rate(score) if math.isfinite(score) else math.nan for score in scores]


def stored_win_rates(record: Record) -> list[float] | None:
    """Return the win rates that a record's candidates carry as the score `WIN_RATE`; None where one has none."""
    found = [score_of(candidate, WIN_RATE) for candidate in record.candidates]
    return found if found and all(map(math.isfinite, found)) else None


def judged_win_rates(size: int, judgements: Sequence[Judgement]) -> list[float]:
    """Return each candidate's mean probability to win by judgements, with 1/2 against itself; NaN where none judges it.

    Args:
        size: number of candidates.
        judgements: of whole candidates, all of one aspect.
    """
    won: list[list[tuple[float, float]]] = [[] for _ in range(size)]
    for judgement in judgements:
        won[judgement.first].append((judgement.weight, judgement.probability))
        won[judgement.second].append((judgement.weight, 1.0 - judgement.probability))
    return [_mean(against) for against in won]


def _mean(against: Sequence[tuple[float, float]]) -> float:
    """Return the weighted mean of what was won, with a half of mean weight for the draw against oneself."""
    total = math.fsum(weight for weight, _ in against)
    if not against:
        return math.nan
    if not total:
        against, total = [(1.0, p) for _, p in against], float(len(against))
    own = total / len(against)
    return (math.fsum(weight * p for weight, p in against) + 0.5 * own) / (total + own)
