"""Levenshtein's distance between two texts."""

from __future__ import annotations

__all__ = ["edit_distance"]


def edit_distance(first: str, second: str) -> int:
    """Return how many letters must be put in, left out or replaced to make one text the other.

    >>> edit_distance("hel1owrld", "helloworld")
    2
    """
    row = list(range(len(second) + 1))
    for above, letter in enumerate(first, start=1):
        before, row[0] = row[0], above
        for place, other in enumerate(second, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != other))
    return row[-1]
