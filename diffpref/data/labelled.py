"""Pairs whose scores and whose truth are both known: what calibrations are measured on, and scorers compared by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.combined import missing_names
from diffpref.data.pairs import whole_judgements
from diffpref.data.scores import UNSCORED, kinds_of_scores, score_of

__all__ = ["JUDGEMENTS", "LabelledPairs", "labelled_pairs", "score_rows"]

JUDGEMENTS = "judgements"


@dataclass(frozen=True)
class LabelledPairs:
    """N pairs of candidates.

    Args:
        version: of the reward that scored them.
        scores: of first and second.
        labels: P(first is better); 1/2 is a tie.
        weights: of the judgements; 1 where another score labels.
        groups: ids of the records.
        left_out: how many pairs were not taken, by reason.
    """

    version: str
    scores: list[tuple[float, float]] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    left_out: Mapping[str, int] = field(default_factory=dict)


def labelled_pairs(
    records: Sequence[Record], score: str, labels: str = JUDGEMENTS, *, aspect: str = "overall"
) -> LabelledPairs:
    """Return the pairs of records of which a score and a label are known.

    Args:
        records: of a store or a table.
        score: ``name`` or ``name@version`` of what is measured.
        labels: ``"judgements"``: those of the records; or another score, by which the better of every two candidates of
            a record is the one that it prefers, and equal ones are a tie.
        aspect: of the judgements.

    Raises:
        DataError: no such score, scores of several versions, or no labelled pair.
    """
    for name in (score, *([] if labels == JUDGEMENTS else [labels])):
        if missing_names(name, records):
            there = ", ".join(sorted(kinds_of_scores(records))) or "none"
            raise DataError(f"no candidate has a score '{name}'; scores there are: {there}")
    left_out: Counter[str] = Counter()
    found = LabelledPairs(_version(records, score), left_out=left_out)
    for record in records:
        values = [score_of(candidate, score) for candidate in record.candidates]
        told = _judged(record, aspect) if labels == JUDGEMENTS else _by_score(record, labels)
        for first, second, label, weight in told:
            if not all(map(math.isfinite, (values[first], values[second], label))):
                left_out[f"pairs of {UNSCORED}"] += 1
                continue
            found.scores.append((values[first], values[second]))
            found.labels.append(label)
            found.weights.append(weight)
            found.groups.append(record.id)
    if not found.labels:
        source = f"judgements of aspect '{aspect}'" if labels == JUDGEMENTS else f"scores '{labels}'"
        raise DataError(f"{len(records)} records give no labelled pair: none has {source} of two scored candidates")
    return found


def _version(records: Sequence[Record], score: str) -> str:
    name, _, wanted = score.partition("@")
    versions = {s.version for r in records for c in r.candidates for s in c.scores if s.name == name}
    if wanted and wanted not in versions:
        raise DataError(f"no score '{score}'; versions there are: {', '.join(sorted(versions))}")
    if not wanted and len(versions) > 1:
        told = ", ".join(f"{name}@{version}" for version in sorted(versions))
        raise DataError(f"there are scores of several versions of {name}; say which: {told}")
    return wanted or versions.pop()


def _judged(record: Record, aspect: str) -> list[tuple[int, int, float, float]]:
    return [(j.first, j.second, j.probability, j.weight) for j in whole_judgements(record, aspect)]


def _by_score(record: Record, labels: str) -> list[tuple[int, int, float, float]]:
    values = [score_of(candidate, labels) for candidate in record.candidates]
    found = []
    for i, j in combinations(range(len(values)), 2):
        known = math.isfinite(values[i]) and math.isfinite(values[j])
        label = 0.5 + 0.5 * ((values[i] > values[j]) - (values[i] < values[j])) if known else math.nan
        found.append((i, j, label, 1.0))
    return found


def score_rows(records: Sequence[Record], names: Sequence[str] | None = None) -> dict[str, list[list[float]]]:
    """Return score -> a row a record with the scores of its candidates, as `diffpref.ranking.agreement` takes them.

    Args:
        records: of a store or a table; NaN stands where a candidate has no score.
        names: ``name`` or ``name@version``; None: all that are there, with versions where there are several.

    Raises:
        DataError: no such score, or several versions of it.
    """
    if names is None:
        there = Counter({(s.name, s.version): 1 for r in records for c in r.candidates for s in c.scores})
        several = Counter(name for name, _ in there)
        names = [f"{name}@{version}" if several[name] > 1 else name for name, version in there]
    for name in names:
        if missing_names(name, records):
            existing = ", ".join(sorted(kinds_of_scores(records))) or "none"
            raise DataError(f"no candidate has a score '{name}'; scores there are: {existing}")
    return {name: [[score_of(c, name) for c in record.candidates] for record in records] for name in names}
