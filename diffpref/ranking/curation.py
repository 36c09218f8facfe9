"""What retraining on curated own samples does to a distribution, exactly, on a finite set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from diffpref.core.errors import ShapeError

__all__ = ["curated_distribution"]


def curated_distribution(
    probabilities: Sequence[float],
    rewards: Sequence[float],
    *,
    num_candidates: int,
    real: Sequence[float] | None = None,
    synthetic_weight: float = 1.0,
) -> list[float]:
    """Return the distribution after one round of retraining on the sample that a user picks of K (arXiv:2407.09499).

    The user picks by the Luce rule, with probability proportional to exp(reward). It is computed by enumeration: the
    number of terms is ``len(probabilities) ** num_candidates``.

    Args:
        probabilities: p_t.
        rewards: r of each outcome.
        num_candidates: K.
        real: the distribution of real data that is mixed in; None for none.
        synthetic_weight: lambda, the weight of curated samples where real ones weigh 1.

    Raises:
        ShapeError: not as many rewards as probabilities.

    >>> curated_distribution([0.5, 0.5], [0.0, 0.0], num_candidates=3)
    [0.5, 0.5]
    """
    if len(rewards) != len(probabilities) or (real is not None and len(real) != len(probabilities)):
        raise ShapeError(f"curation: {len(probabilities)} outcomes need as many rewards and real probabilities")
    odds = [math.exp(reward) for reward in rewards]
    curated = []
    for probability, own in zip(probabilities, odds, strict=True):
        terms = (
            math.prod(probabilities[i] for i in others) * num_candidates * own / (own + sum(odds[i] for i in others))
            for others in itertools.product(range(len(odds)), repeat=num_candidates - 1)
        )
        curated.append(probability * math.fsum(terms))
    if real is None:
        return curated
    share = synthetic_weight / (1 + synthetic_weight)
    return [(1 - share) * kept + share * made for kept, made in zip(real, curated, strict=True)]
