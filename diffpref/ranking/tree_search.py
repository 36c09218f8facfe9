"""Monte-Carlo tree search over reasoning steps (MCTS-DPO, arXiv:2405.00451): where to look next, and what it is worth.

Pure functions of numbers; who makes the steps and who judges them is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["backed_up", "node_value", "prior", "puct"]


def prior(log_likelihood: float, length: int, *, exponent: float = 1.25) -> float:
    """Return how probable a step is, for its length: ``exp(log_likelihood / length ** exponent)``.

    Args:
        log_likelihood: sum over the step's tokens.
        length: tokens of the step.
        exponent: of the length.
    """
    return math.exp(log_likelihood / length**exponent)


def puct(value: float, prior: float, parent_visits: int, visits: int, *, weight: float = 1.0) -> float:
    """Return what makes a step worth looking at: ``value + weight * prior * sqrt(parent_visits) / (1 + visits)``.

    >>> round(puct(0.4, prior(-3.0, 4), parent_visits=9, visits=2), 9)
    0.988410712
    """
    return value + weight * prior * math.sqrt(parent_visits) / (1 + visits)


def node_value(confidence: float, parent_depth: int, parent_value: float) -> float:
    """Return the value of a new node: the judge's confidence, shared out over depth; the parent's where it is 0."""
    value = confidence / max(parent_depth - 3, 1)
    return value if value else parent_value


def backed_up(children: Sequence[tuple[float, float, int]], *, discount: float = 1.0) -> tuple[list[float], float]:
    """Return the value Q of each step from a node, and the node's own V: the mean of Q by visits, at least one each.

    Args:
        children: (edge reward, V of the child, visits of the child) each. The edge reward is the child's `node_value`
            minus the parent's.
        discount: of what comes later.

    >>> backed_up([(0.5, 0.5, 3), (-1.0, 0.0, 0)])
    ([1.0, -1.0], 0.5)
    """
    values = [reward + discount * later for reward, later, _ in children]
    weights = [max(1, visits) for _, _, visits in children]
    if not children:
        return [], 0.0
    return values, math.fsum(w * q for w, q in zip(weights, values, strict=True)) / sum(weights)
