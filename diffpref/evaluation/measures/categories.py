"""A measure for each category of a prompt set, and the average in which each category counts the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from diffpref.core.errors import DataError

__all__ = ["by_category", "macro_average"]

T = TypeVar("T")


def by_category(members: Mapping[str, Sequence[int]], measure: Callable[[list[int]], T]) -> dict[str, T]:
    """Return label -> what a measure says of the rows of that label.

    Args:
        members: label -> rows, as `PromptSet.members` gives them; a row may be under several labels.
        measure: of a list of rows, such as ``lambda rows: win_rate(aligned[rows], base[rows])``.
    """
    return {label: measure(list(rows)) for label, rows in members.items()}


def macro_average(values: Mapping[str, float]) -> float:
    """Return the mean of the categories' values, or of the win rates of several scorers, each counted once.

    Raises:
        DataError: no values.

    >>> macro_average({"animals": 0.5, "people": 0.7})
    0.6
    """
    if not values:
        raise DataError("nothing to average: there are no categories")
    return sum(values.values()) / len(values)
