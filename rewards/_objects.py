"""Objects that a detector finds in a picture, and who names their colours: what ``geneval`` is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

__all__ = ["Box", "ColourNamer", "Detector", "Found", "iou", "kept"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class Found:
    """An object in a picture.

    Args:
        name: its class.
        box: around it.
        score: confidence, 0..1.
        mask: (H, W) bool, where it is; None where the detector knows only the box.
        colour: where the detector knows it.
    """

    name: str
    box: Box
    score: float
    mask: np.ndarray | None = None
    colour: str | None = None


class Detector(Protocol):
    """Finds objects. ``version`` and ``licence`` are kept in what a reward says of itself."""

    version: str
    licence: str
    classes: frozenset[str] | None
    """What it can find; None: whatever it is asked for."""

    def __call__(self, picture: Image.Image, classes: Sequence[str], threshold: float) -> list[Found]:
        """Return the objects of these classes in an RGB picture whose score is above the threshold."""
        ...


class ColourNamer(Protocol):
    """Names the colours of objects."""

    version: str
    licence: str
    palette: tuple[str, ...]
    """The colours that it tells apart."""

    def __call__(self, picture: Image.Image, objects: Sequence[Found]) -> list[str | None]:
        """Return a colour for each object; None where it is none of the palette."""
        ...


def iou(first: Box, second: Box) -> float:
    """Return intersection over union of boxes whose last row and column belong to them: sides are right - left + 1."""

    def area(left: float, top: float, right: float, bottom: float) -> float:
        return max(right - left + 1, 0.0) * max(bottom - top + 1, 0.0)

    corners = zip(first[:2], second[:2], strict=True), zip(first[2:], second[2:], strict=True)
    left, top, right, bottom = (*(max(pair) for pair in corners[0]), *(min(pair) for pair in corners[1]))
    both = area(left, top, right, bottom)
    union = area(*first) + area(*second) - both
    return both / union if union else 0.0


def kept(objects: Sequence[Found], *, threshold: float, max_objects: int, max_overlap: float) -> list[Found]:
    """Return the objects of one class that count, the surest first.

    Args:
        objects: of one class.
        threshold: only scores above it.
        max_objects: at most so many of the surest.
        max_overlap: leave out what overlaps a surer one by this `iou` or more; 1 leaves out nothing.
    """
    surest = sorted((one for one in objects if one.score > threshold), key=lambda one: -one.score)[:max_objects]
    if max_overlap >= 1:
        return surest
    result: list[Found] = []
    for one in surest:
        if all(iou(one.box, other.box) < max_overlap for other in result):
            result.append(one)
    return result
