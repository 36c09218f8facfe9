"""Pairs judged by several aspects: for each the probability that the chosen candidate is the better one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.scores import score_of

__all__ = ["UNJUDGED", "aspect_preferences", "equal_prompt_weights", "judged_pairs"]

UNJUDGED = -1.0
"""Stands where nobody judged an aspect."""


def judged_pairs(record: Record, aspects: Sequence[str]) -> list[tuple[int, int]]:
    """Return the two candidates of every whole judgement by one of some aspects, each two once, as they were called."""
    found: dict[frozenset[int], tuple[int, int]] = {}
    for judgement in record.judgements:
        if judgement.aspect in aspects and judgement.start is None and judgement.end is None:
            found.setdefault(frozenset((judgement.first, judgement.second)), (judgement.first, judgement.second))
    return list(found.values())


def aspect_preferences(record: Record, chosen: int, rejected: int, aspects: Sequence[str]) -> tuple[float, ...]:
    """Return P(chosen is better) for each aspect, `UNJUDGED` where nothing is told of it.

    A judgement of the two by the aspect decides, several by their mean over weights; else two scores of the aspect's
    name: the higher wins, equal ones tie.

    Raises:
        DataError: a judgement's probability is not between 0 and 1.
    """
    return tuple(_preference(record, chosen, rejected, aspect) for aspect in aspects)


def _preference(record: Record, chosen: int, rejected: int, aspect: str) -> float:
    told: list[tuple[float, float]] = []
    for judgement in record.judgements:
        whole = judgement.aspect == aspect and judgement.start is None and judgement.end is None
        if whole and {judgement.first, judgement.second} == {chosen, rejected}:
            if not 0.0 <= judgement.probability <= 1.0:
                raise DataError(f"record {record.id!r}: not a judgement of its candidates: {judgement}")
            own = judgement.probability if judgement.first == chosen else 1.0 - judgement.probability
            told.append((judgement.weight, own))
    total = math.fsum(weight for weight, _ in told)
    if total > 0:
        return min(math.fsum(weight * own for weight, own in told) / total, 1.0)
    first, second = (score_of(record.candidates[place], aspect) for place in (chosen, rejected))
    if math.isfinite(first) and math.isfinite(second):
        return 0.5 if first == second else float(first > second)
    return UNJUDGED


def equal_prompt_weights(prompts: Sequence[str], weights: Sequence[float]) -> list[float]:
    """Return weights divided by how many items share a prompt: the inverse frequencies of PickScore (arXiv:2305.01569).

    >>> equal_prompt_weights(["a", "b", "a"], [1.0, 1.0, 1.0])
    [0.5, 1.0, 0.5]
    """
    count: dict[str, int] = {}
    for prompt in prompts:
        count[prompt] = count.get(prompt, 0) + 1
    return [weight / count[prompt] for prompt, weight in zip(prompts, weights, strict=True)]
