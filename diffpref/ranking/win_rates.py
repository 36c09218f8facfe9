"""From answers of a judge to win rates: how often each of K candidates beats the others of its prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from diffpref.core.errors import ConfigError, ShapeError

__all__ = ["Matrix", "both_orders", "mean_margins", "preference_matrix", "win_rates"]

Matrix: TypeAlias = Sequence[Sequence[float]]
"""K rows of K numbers: row i, column j says how candidate i does against candidate j."""


def preference_matrix(scores: Sequence[float], *, scale: float = 1.0) -> list[list[float]]:
    """Return P(i beats j) of scores under Bradley-Terry: sigmoid(scale * (score_i - score_j)); 1/2 on the diagonal.

    >>> preference_matrix([1.0, 1.0])
    [[0.5, 0.5], [0.5, 0.5]]
    """
    return [[_sigmoid(scale * (one - other)) for other in scores] for one in scores]


def both_orders(asked: Matrix) -> list[list[float]]:
    """Return P(i beats j) of a judge that was asked in both orders, so that its liking for a place cancels out.

    Args:
        asked: row i, column j: what the judge said of i shown first and j second. The diagonal is not looked at.

    Raises:
        ShapeError: not as many columns as rows.

    >>> both_orders([[0.5, 1.0], [0.5, 0.5]])  # 1.0 for the first in one order, 0.5 in the other
    [[0.5, 0.75], [0.25, 0.5]]
    """
    size = _size(asked)
    return [[0.5 if i == j else 0.5 * (asked[i][j] + 1.0 - asked[j][i]) for j in range(size)] for i in range(size)]


def win_rates(matrix: Matrix, *, include_self: bool = True) -> list[float]:
    """Return the mean of each row of a preference matrix.

    Args:
        matrix: P(i beats j), 1/2 on the diagonal.
        include_self: whether the 1/2 of the diagonal counts, as in SPPO's released code.

    Raises:
        ShapeError: not as many columns as rows.
        ConfigError: a single candidate, which beats nobody but itself.

    >>> win_rates([[0.5, 0.8], [0.2, 0.5]], include_self=False)
    [0.8, 0.2]
    """
    size = _size(matrix)
    if include_self:
        return [math.fsum(row) / size for row in matrix]
    if size < 2:
        raise ConfigError("win rates without the entry of a candidate against itself need at least 2 candidates")
    return [math.fsum(p for j, p in enumerate(row) if j != i) / (size - 1) for i, row in enumerate(matrix)]


def mean_margins(table: Matrix, *, antisymmetrise: bool = False) -> list[float]:
    """Return the mean of each row of a table of score differences: what GPO regresses on instead of win rates.

    Args:
        table: score of i over j, 0 on the diagonal.
        antisymmetrise: take ``table[i][j] - table[j][i]``, as the released pipeline does: twice as much where the
            table is antisymmetric already.

    Raises:
        ShapeError: not as many columns as rows.
    """
    size = _size(table)
    return [
        math.fsum(table[i][j] - (table[j][i] if antisymmetrise else 0.0) for j in range(size)) / size
        for i in range(size)
    ]


def _size(matrix: Matrix) -> int:
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        raise ShapeError(f"a matrix of K x K is expected, got {len(matrix)} rows of {[len(row) for row in matrix]}")
    return len(matrix)


def _sigmoid(x: float) -> float:
    small = math.exp(-abs(x))
    return (1.0 if x >= 0 else small) / (1.0 + small)
