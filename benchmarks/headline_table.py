"""stub"""

from __future__ import annotations

from typing import Any

import numpy as np


def table(found: dict[str, Any]) -> np.ndarray:
    return np.array([[int(c) for c in column] for column in found["facts"].values()], dtype=float).T


def gain(base, found):
    a, b = table(found), table(base)
    return float((a - b[: len(a)]).mean())


def write_pages(results, work): ...
