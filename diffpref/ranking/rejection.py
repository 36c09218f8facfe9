"""Statistical rejection sampling (RSO, arXiv:2309.06657, Algorithm 1): samples of one policy, as if of a better one.

A candidate is accepted with probability exp((reward - best) / beta), where ``best`` is the largest reward that is still
in the pool. The accepted follow policy * exp(reward / beta); beta -> 0 takes the best, beta -> infinity takes all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from diffpref.core.errors import ConfigError, DataError

__all__ = ["acceptance", "first_round", "reject_sample", "tournament"]


def acceptance(reward: float, best: float, beta: float) -> float:
    """Return the probability of accepting a reward.

    Args:
        reward: of the candidate.
        best: the largest in the pool.
        beta: temperature, 0 and infinity included.

    >>> round(acceptance(2.0, 3.0, 0.5), 4)
    0.1353
    """
    if reward == best or beta == math.inf:
        return 1.0
    return math.exp((reward - best) / beta) if beta > 0 else 0.0


def reject_sample(
    rewards: Sequence[float],
    num: int,
    beta: float,
    uniform: Iterable[float],
    *,
    contents: Sequence[object] | None = None,
) -> list[int]:
    """Return the positions of ``num`` accepted candidates, in the order in which they were accepted.

    Pass after pass over the pool, in order; what a pass accepts leaves the pool at its end. The best that is left is
    accepted with probability 1, so that every pass accepts something.

    Args:
        rewards: finite, one a candidate.
        num: how many to accept.
        beta: temperature in units of the reward, >= 0.
        uniform: numbers in [0, 1), one for each look at a candidate.
        contents: what the candidates are: of equal ones only one is in the pool, where the first stands, with the
            reward of the last.

    Raises:
        ConfigError: beta is negative, or ``num`` is below 1.
        DataError: fewer different candidates than ``num``, or a reward that is not finite.

    >>> reject_sample([0.0, 1.0, 2.0, 3.0], 2, 0.5, iter([0.5] * 8))
    [3, 2]
    """
    if not beta >= 0:
        raise ConfigError(f"beta: must be >= 0, got {beta}")
    if num < 1:
        raise ConfigError(f"num: must be >= 1, got {num}")
    if bad := [reward for reward in rewards if not math.isfinite(reward)]:
        raise DataError(f"{len(bad)} of {len(rewards)} rewards are not finite, the first is {bad[0]}")
    first: dict[object, int] = {}
    pool: dict[int, float] = {}
    for position, reward in enumerate(rewards):
        content = position if contents is None else contents[position]
        pool[first.setdefault(content, position)] = reward
    if num > len(pool):
        raise DataError(f"{num} candidates are to be accepted, but there are {len(pool)} different ones; draw more")
    draws, accepted = iter(uniform), list[int]()
    while True:
        best, passed = max(pool.values()), list[int]()
        for position, reward in pool.items():
            if next(draws) < acceptance(reward, best, beta):
                passed.append(position)
                if len(accepted) + len(passed) == num:
                    return accepted + passed
        accepted += passed
        for position in passed:
            del pool[position]


def first_round(order: Sequence[int]) -> list[tuple[int, int]]:
    """Return neighbours of an order as pairs, each candidate in one: k/2 pairs; an odd one is left over.

    >>> first_round([4, 1, 7, 2])
    [(4, 1), (7, 2)]
    """
    return list(zip(order[::2], order[1::2], strict=False))


def tournament(order: Sequence[int], beats: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Return the games of a knock-out tournament, winner first: k - 1 pairs; an odd one goes on without a game.

    Args:
        order: in which the first round is drawn.
        beats: whether one candidate is better than another.

    >>> tournament([0, 1, 2], lambda one, other: one > other)
    [(1, 0), (2, 1)]
    """
    games: list[tuple[int, int]] = []
    standing = list(order)
    while len(standing) > 1:
        played = [(a, b) if beats(a, b) else (b, a) for a, b in first_round(standing)]
        games += played
        standing = [winner for winner, _ in played] + standing[len(played) * 2 :]
    return games
